//! Inputs to facts: pure and total. The same state, definitions, input and time give the same facts, and no input panics.
//!
//! A turn decides one thing at a time and evolves its own copy by each fact at once, so what is decided next sees it. After the input
//! itself, every run moves as far as it can: that part depends on the state alone, which is why a journal cut anywhere goes on the same.

mod address;
mod control;
mod effects;
mod happen;
mod moves;
mod nodes;
mod permits;
mod person;
mod start;

use super::context::Context;
use super::definition::Definition;
use super::evolve::evolve;
use super::expression::Scope;
use super::fact::{Fact, What};
use super::ids::RunId;
use super::input::{Input, Rejection};
use super::state::{Run, Subject};
use crate::domain::Millis;

/// Commands between subjects end here, and runs that begin by what others emitted: a campaign that starts itself through others would never.
pub const DEPTH_MAX: u8 = 16;

/// Results larger than this are failures: they would be carried by the state for the run's life.
pub const RESULT_BYTES_MAX: usize = 64 * 1024;

/// What `input` at `at` means, as facts; the state stays as it is.
pub fn decide(state: &Subject, context: Context<'_>, input: &Input, at: Millis) -> Result<Vec<Fact>, Rejection> {
    let mut state = state.clone();
    apply(&mut state, context, input, at)
}

/// [`decide`] and evolve in one, for whoever keeps the state. On a rejection the state is as it was.
pub fn apply(state: &mut Subject, context: Context<'_>, input: &Input, at: Millis) -> Result<Vec<Fact>, Rejection> {
    let mut turn = Turn { state, context, at, facts: Vec::new(), bytes: 0 };
    turn.input(input)?;
    turn.move_all();
    Ok(turn.facts)
}

/// What follows of the state alone.
pub(super) fn moves(state: &mut Subject, context: Context<'_>, at: Millis) -> Vec<Fact> {
    let mut turn = Turn { state, context, at, facts: Vec::new(), bytes: 0 };
    turn.move_all();
    turn.facts
}

struct Turn<'t, 'c> {
    state: &'t mut Subject,
    context: Context<'c>,
    at: Millis,
    facts: Vec<Fact>,
    /// About what the facts hold of values that expressions made.
    bytes: usize,
}

impl Turn<'_, '_> {
    fn fact(&mut self, run: RunId, what: What) {
        self.hold_promises(run, &what);
        self.bytes += values_of(&what);
        let fact = Fact { at: self.at, run: Some(run), what };
        evolve(self.state, &fact);
        self.facts.push(fact);
    }

    /// What is cheap to see is seen in operation too: a decision that would break a promise fails, and its run is set aside.
    fn hold_promises(&self, id: RunId, what: &What) {
        let Some(run) = self.state.runs.get(&id) else {
            assert!(matches!(what, What::RunStarted { .. }), "no fact of a run after its terminal one: {what:?}");
            return;
        };
        let effect = match what {
            What::AttemptMinted { effect, .. } | What::PermitGranted { effect, .. } | What::EffectStarted { effect, .. } => *effect,
            _ => return,
        };
        assert!(run.paused.is_none(), "paused never sends: {what:?}");
        let pending = run.effect(effect).map(|(_, pending)| pending);
        let Some(pending) = pending else { panic!("no effect without its request: {what:?}") };
        if let What::PermitGranted { attempt, .. } = what {
            let is_begun = pending.open.as_ref().is_some_and(|open| open.attempt == *attempt && open.started.is_some());
            assert!(is_begun, "no permit for what was not begun: {what:?}");
        }
    }

    fn input(&mut self, input: &Input) -> Result<(), Rejection> {
        match input {
            Input::Start { workflow, cause, entry, profile, depth, parent } => {
                self.command(workflow, cause, entry, profile, *depth, parent.as_ref())
            }
            Input::Event { cause, name, properties, profile, late, depth } => {
                self.event(cause, name, properties, profile, (!late).then_some(*depth));
                Ok(())
            }
            Input::SegmentChange { cause, segment, entered, profile, late, depth } => {
                self.segment_change(cause, segment, *entered, profile, (!late).then_some(*depth));
                Ok(())
            }
            Input::Signal { run, cause, name, payload } => self.signal(*run, cause, name, payload),
            Input::Approval { run, node, approved, by, comment, visit, provenance } => {
                self.approval(*run, &control::Decision { node, approved: *approved, by, comment, visit: *visit, provenance })
            }
            Input::Pause { run, by, reason } => self.pause(*run, by, reason),
            Input::Resume { run, by } => self.resume(*run, by),
            Input::Cancel { run, by, reason } => self.stop(*run, super::vocabulary::Ending::Cancelled, by, reason),
            Input::Terminate { run, by, reason } => self.stop(*run, super::vocabulary::Ending::Terminated, by, reason),
            Input::Retry { run, by } => self.retry(*run, by),
            Input::Resolve { effect, done, by } => self.resolve(*effect, done.as_ref(), by),
            Input::Answer { run, profile } => self.answer(*run, profile),
            Input::EffectStarted { effect, attempt, executor, appended } => self.effect_started(*effect, *attempt, executor, *appended),
            Input::EffectFinished { effect, attempt, outcome } => self.effect_finished(*effect, *attempt, outcome),
            Input::StartEnded { run, visit, ending, result } => self.start_ended(*run, *visit, *ending, result),
            Input::Attribute { name, value } => {
                self.attribute(name, value);
                Ok(())
            }
            Input::Consent { cause, at, stated } => {
                self.consent(cause, *at, stated);
                Ok(())
            }
            Input::Suppress { .. } | Input::Unsuppress { .. } => {
                self.suppression(input);
                Ok(())
            }
            Input::Register { address, channel, holder } => {
                self.register(*address, channel, holder);
                Ok(())
            }
            Input::Unregister { address, channel, holder } => {
                self.unregister(*address, channel, holder);
                Ok(())
            }
            Input::SoftBounce { address, channel, message, at } => {
                self.soft_bounce(*address, channel, message, *at);
                Ok(())
            }
            Input::Expect { anonymous, absorb } => {
                self.expect(anonymous, *absorb);
                Ok(())
            }
            Input::Past { at, cause, name, properties, profile } => {
                self.past(*at, cause, name, properties, profile);
                Ok(())
            }
            Input::Absorbed { anonymous } => {
                self.absorbed(anonymous);
                Ok(())
            }
            Input::Merged { user } => {
                self.merged(user);
                Ok(())
            }
            Input::Carry(carry) => {
                self.carry(carry);
                Ok(())
            }
            // Its time has come, or whoever keeps the time would not have handed it on.
            Input::Later { input, .. } => self.input(input),
            Input::Due => {
                self.due();
                Ok(())
            }
        }
    }

    fn run(&self, id: RunId) -> Result<&Run, Rejection> {
        self.state.runs.get(&id).map(|run| &**run).ok_or(Rejection::NoSuchRun(id))
    }

    /// The time up to which nothing is missing that was done.
    fn heard(&self) -> Millis {
        self.at.min(self.context.heard)
    }

    fn run_ids(&self) -> Vec<RunId> {
        self.state.runs.keys().copied().collect()
    }
}

impl<'c> Turn<'_, 'c> {
    /// The definition that a run is on: the library's, which no decision changes.
    fn definition(&self, run: &Run) -> Option<&'c Definition> {
        self.context.library.of(&run.digest).map(|definition| &**definition)
    }

    fn scope<'s>(&self, id: RunId, run: &'s Run) -> Scope<'s>
    where
        'c: 's,
    {
        Scope { run: Some((id, run)), subject: self.context.subject, entry: None, event: None, profile: None, shows: None, now: self.at }
    }
}

/// About how long the values are that expressions made for a fact.
fn values_of(what: &What) -> usize {
    match what {
        What::VariablesSet { vars, .. } => vars.values().map(effects::bytes).sum(),
        What::EffectRequested { input: value, .. }
        | What::EventEmitted { properties: value, .. }
        | What::ApprovalRequested { shows: value, .. }
        | What::StartRequested { input: value, .. } => effects::bytes(value),
        _ => 0,
    }
}
