//! A subject under its clock: what waits for what, and in which order things are decided.
//!
//! Under the wall's clock an input is decided when it comes; only what could begin a run is held while a login's history is still coming in.
//!
//! Under the data's own clock everything of a subject happens in the order of its times. A result belongs to the time at which its attempt
//! was minted, and its declared delay; a start and its permit to the time of the minting. Until such an answer has come nothing later is
//! decided: it is held, in order, as facts. So the journal does not depend on how fast performers are, and nothing times out because they
//! are slow: an executor that lost an attempt must say so.

use std::cmp::Ordering;

use super::context::{Clock, Context};
use super::decide::apply;
use super::evolve::evolve;
use super::fact::{Fact, What};
use super::ids::{EffectId, RunId};
use super::input::{Input, Rejection};
use super::state::{Doing, HELD_MAX, Kept, Pending, Step, Subject};
use crate::domain::Millis;

/// How often one wake-up is followed by another of the same time. What goes on beyond that goes on with the next tick.
const AGAIN_MAX: usize = 100;

/// What came of an input: facts, also where the input itself was rejected, since time may have passed before it.
#[derive(Debug, Clone, PartialEq, Default)]
#[must_use = "the state has moved by these facts already"]
pub struct Driven {
    pub facts: Vec<Fact>,
    pub rejected: Option<Rejection>,
}

/// Everything that an input at `at` means, under the context's clock. `at` is the input's own time where it has one, else partition time.
pub fn drive(state: &mut Subject, context: Context<'_>, input: &Input, at: Millis) -> Driven {
    let upto = at.max(state.now);
    let mut drive = Drive { state, context, driven: Driven::default(), upto };
    match (context.clock, input) {
        (_, Input::Due) => drive.pass(at),
        (_, Input::Later { at: later, input }) if *later > drive.upto => drive.hold(*later, input),
        (Clock::Wall, _) => drive.wall(input),
        (Clock::Event, _) => drive.event(input, at),
    }
    drive.driven
}

/// Time has come to `time`.
pub fn drive_due(state: &mut Subject, context: Context<'_>, time: Millis) -> Driven {
    drive(state, context, &Input::Due, time)
}

/// Where an input stands among what is to be decided: answers first, then what time does, then what happened. Of what happened at one time
/// a login's words come first: what could begin a run waits for the last of them, so that one must not stand behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    at: Millis,
    class: Class,
    of: u128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Answer,
    Wake,
    Happening,
}

fn place(at: Millis, input: &Input) -> Place {
    let (class, of) = match input {
        Input::EffectStarted { effect, .. } | Input::EffectFinished { effect, .. } => (Class::Answer, effect.0),
        Input::Answer { run, .. } => (Class::Answer, run.0),
        Input::Expect { .. } | Input::Absorbed { .. } => (Class::Happening, 0),
        _ => (Class::Happening, 1),
    };
    Place { at, class, of }
}

/// What could begin a run: held while a login's history is coming in.
fn begins(input: &Input) -> bool {
    match input {
        Input::Later { input, .. } => begins(input),
        input => matches!(input, Input::Start { .. } | Input::Event { .. } | Input::SegmentChange { .. }),
    }
}

struct Drive<'d, 'c> {
    state: &'d mut Subject,
    context: Context<'c>,
    driven: Driven,
    /// Time is known to have come here.
    upto: Millis,
}

impl Drive<'_, '_> {
    fn wall(&mut self, input: &Input) {
        if begins(input) && self.state.is_merging() {
            return self.hold(self.upto, input);
        }
        self.apply(input, self.upto);
        self.take_all();
    }

    /// Under the wall's clock: what was held for a login, or for its time.
    fn take_all(&mut self) {
        while !self.state.is_merging() && self.state.held.front().is_some_and(|kept| kept.at <= self.upto) {
            self.take(self.upto);
        }
    }

    fn pass(&mut self, time: Millis) {
        match self.context.clock {
            Clock::Wall => {
                // Whoever is woken wants nothing before this time any more: else what comes of a tick would depend on its commits.
                for _ in 0..AGAIN_MAX {
                    let before = self.driven.facts.len();
                    self.apply(&Input::Due, time);
                    if self.driven.facts.len() == before || self.state.runs_wake(Clock::Wall).is_none_or(|due| due > time) {
                        break;
                    }
                }
                self.take_all();
            }
            Clock::Event => self.run_up_to(None),
        }
    }

    fn event(&mut self, input: &Input, at: Millis) {
        match input {
            // Said behind a word that is still to be decided: after it, or nobody would ever say it again.
            Input::Absorbed { anonymous } if let Some(at) = self.state.held_expectation(anonymous) => {
                self.run_up_to(Some((place(at, input), input)));
            }
            // By hand, and there to end what does not end; what a login brings has no time of its own.
            Input::Terminate { .. } | Input::Carry(_) | Input::Absorbed { .. } => {
                self.apply(input, if self.state.now == Millis(0) { at } else { self.state.now });
                self.run_up_to(None);
            }
            Input::EffectStarted { effect, attempt, .. } => self.answer(input, self.of_effect(*effect, *attempt).map(|open| open.0)),
            Input::EffectFinished { effect, attempt, .. } => {
                self.answer(input, self.of_effect(*effect, *attempt).map(|open| open.0 + open.1));
            }
            Input::Answer { run, .. } => self.answer(input, self.state.asked_at(*run)),
            _ => self.run_up_to(Some((place(at, input), input))),
        }
    }

    /// When an attempt that is open was minted, and its delay.
    fn of_effect(&self, effect: EffectId, attempt: u32) -> Option<(Millis, i64)> {
        let (_, _, pending) = self.state.effect(effect)?;
        let open = pending.open.as_ref().filter(|open| open.attempt == attempt)?;
        Some((open.minted, pending.takes_ms))
    }

    /// An answer at the time that it belongs to; one that nothing waits for is decided, or rejected, as it comes.
    fn answer(&mut self, input: &Input, at: Option<Millis>) {
        match at {
            Some(at) => self.run_up_to(Some((place(at, input), input))),
            None => {
                self.apply(input, self.state.now);
                self.run_up_to(None);
            }
        }
    }

    /// Decides what comes next, again and again, until time is not there yet or an answer is missing.
    fn run_up_to(&mut self, mut new: Option<(Place, &Input)>) {
        loop {
            let missing = self.state.missing(new.map(|(_, input)| input));
            let merging = self.state.is_merging();
            let wake = self.state.runs_wake(Clock::Event).map(|at| Place { at: at.max(self.state.now), class: Class::Wake, of: 0 });
            let held = self.state.held.front().filter(|kept| !(merging && begins(&kept.input))).map(|kept| place(kept.at, &kept.input));
            let coming = new.filter(|(_, input)| !(merging && begins(input))).map(|(place, _)| place);
            let Some(next) = [wake, held, coming].into_iter().flatten().min() else { break };
            if next.at > self.upto || missing.is_some_and(|missing| missing <= next) {
                break;
            }
            let at = next.at.max(self.state.now);
            if held == Some(next) {
                self.take(at);
            } else if wake == Some(next) {
                let before = self.driven.facts.len();
                self.apply(&Input::Due, at);
                if self.driven.facts.len() == before {
                    break;
                }
            } else if let Some((_, input)) = new.take() {
                self.apply(input, at);
            }
        }
        if let Some((place, input)) = new {
            self.hold(place.at, input);
        }
    }

    fn apply(&mut self, input: &Input, at: Millis) {
        match apply(self.state, self.context, input, at.max(self.state.now)) {
            Ok(facts) => self.driven.facts.extend(facts),
            Err(rejection) => self.driven.rejected = Some(rejection),
        }
    }

    fn take(&mut self, at: Millis) {
        let Some(input) = self.state.held.front().map(|kept| kept.input.clone()) else { return };
        self.note(What::Taken { count: 1 });
        match apply(self.state, self.context, &input, at.max(self.state.now)) {
            Ok(facts) => self.driven.facts.extend(facts),
            // Whoever sent it was told that it was taken.
            Err(rejection) => self.note(What::HeldRejected { kind: input.kind().to_owned(), reason: rejection.to_string() }),
        }
    }

    fn hold(&mut self, at: Millis, input: &Input) {
        if self.state.held.len() >= HELD_MAX {
            self.heed(input);
            self.driven.rejected = Some(Rejection::TooMuchHeld(HELD_MAX));
            return;
        }
        self.note(What::Held { at, input: Box::new(input.clone()) });
    }

    /// What cannot be held is sent again later, whole; what forbids sending is not kept waiting for that.
    fn heed(&mut self, input: &Input) {
        let forbids = match input {
            Input::Suppress { .. } => input.clone(),
            Input::Consent { cause, at, stated } => {
                let stated = stated.iter().filter(|answer| !answer.granted).cloned().collect();
                Input::Consent { cause: cause.clone(), at: *at, stated }
            }
            _ => return,
        };
        self.apply(&forbids, self.state.now);
    }

    /// A fact about order. Where time is the data's own it is not later than what is still to be decided; under the wall's clock, where a
    /// subject of which nothing was known has no time yet, it is of now.
    fn note(&mut self, what: What) {
        let at = if self.context.clock == Clock::Wall { self.upto } else { self.state.now };
        let fact = Fact { at, run: None, what };
        evolve(self.state, &fact);
        self.driven.facts.push(fact);
    }
}

/// An answer that a step cannot do without.
struct Wanted {
    place: Place,
    run: RunId,
    /// The effect with its attempt, or the run's question.
    attempt: Option<(EffectId, u32)>,
}

impl Wanted {
    fn is_answered_by(&self, input: &Input) -> bool {
        match input {
            Input::EffectStarted { effect, attempt, .. } | Input::EffectFinished { effect, attempt, .. } => {
                self.attempt == Some((*effect, *attempt))
            }
            Input::Answer { run, .. } => self.attempt.is_none() && self.run == *run,
            _ => false,
        }
    }
}

fn missing_of(run: RunId, paused: bool, step: &Step) -> Option<Wanted> {
    let wanted = |at: Millis, of: u128, attempt| Some(Wanted { place: Place { at, class: Class::Answer, of }, run, attempt });
    match &step.doing {
        Doing::Asking => wanted(step.since, run.0, None),
        Doing::Effect(pending) => {
            let open = pending.open.as_ref()?;
            // Nobody begins anything for a paused run.
            if paused && !pending.is_under_way() {
                return None;
            }
            let at = if needs_start(pending) { open.minted } else { open.minted + pending.takes_ms };
            wanted(at, pending.id.0, Some((pending.id, open.attempt)))
        }
        _ => None,
    }
}

/// The start, and for a message its permit, is decided before anything later.
fn needs_start(pending: &Pending) -> bool {
    let announced = pending.is_message() || pending.unknown != super::vocabulary::Unknown::Retry;
    pending.open.as_ref().is_some_and(|open| announced && !open.look_up && open.started.is_none())
}

impl Subject {
    /// The next time at which a decision falls due by itself: the timers are the state. `None` also while an answer is missing first.
    pub fn next_wake(&self, clock: Clock) -> Option<Millis> {
        let wake = self.runs_wake(clock);
        let merging = self.is_merging();
        if clock == Clock::Wall {
            let held = self.held.front().filter(|_| !merging).map(|kept| kept.at);
            return wake.into_iter().chain(held).min();
        }
        let held = self.held.front().filter(|kept| !(merging && begins(&kept.input))).map(|kept| place(kept.at, &kept.input));
        let wake = wake.map(|at| Place { at, class: Class::Wake, of: 0 });
        let next = [held, wake].into_iter().flatten().min()?;
        let is_blocked = self.missing(None).is_some_and(|missing| missing <= next);
        (!is_blocked).then_some(next.at)
    }

    /// The first answer that has not come, neither before nor with `new`: nothing later can be decided.
    fn missing(&self, new: Option<&Input>) -> Option<Place> {
        let steps = self.runs.iter().flat_map(|(id, run)| run.steps.values().map(move |step| (*id, run.paused.is_some(), step)));
        let wanted = steps.filter_map(|(id, paused, step)| missing_of(id, paused, step));
        let has_come = |wanted: &Wanted| self.held.iter().map(|kept| &kept.input).chain(new).any(|input| wanted.is_answered_by(input));
        wanted.filter(|wanted| !has_come(wanted)).map(|wanted| wanted.place).min()
    }

    /// Since when a run waits for the profile.
    fn asked_at(&self, run: RunId) -> Option<Millis> {
        let steps = self.runs.get(&run)?.steps.values();
        steps.filter(|step| step.doing == Doing::Asking).map(|step| step.since).min()
    }

    /// When a login will be said whose history is to be told, while that is held.
    fn held_expectation(&self, of: &str) -> Option<Millis> {
        let is_it = |kept: &&Kept| matches!(&kept.input, Input::Expect { anonymous, absorb: true } if anonymous == of);
        self.held.iter().rev().find(is_it).map(|kept| kept.at)
    }

    /// Keeps an input in its place, after those of the same place.
    pub(super) fn keep(&mut self, at: Millis, input: &Input) {
        let mine = place(at, input);
        let after = |kept: &Kept| place(kept.at, &kept.input).cmp(&mine) != Ordering::Greater;
        let at_index = self.held.partition_point(after);
        self.held.insert(at_index, Kept { at, input: input.clone() });
    }
}
