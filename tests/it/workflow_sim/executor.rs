//! Whoever performs effects, and the world in which they are performed: what was done there no crash undoes.
//!
//! It keeps the rules of the trade and no others: it begins nothing irrevocable before the journal says that it may, and only within its
//! time; it looks up what it is told to look up; and it never says of what it did that it did not. For the rest it is as bad as they come:
//! late, silent, forgetful, and fond of saying the same twice.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use flywheel::domain::Millis;
use flywheel::workflow::{Category, EffectId, Fact, Input, Outcome, Performer, Unknown, What};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

#[derive(Debug, Clone)]
struct Request {
    by: Performer,
    unknown: Unknown,
    timeout_ms: i64,
}

#[derive(Debug, Clone, PartialEq)]
enum Stage {
    New,
    /// Its start is to be recorded; asked for at this time.
    Asked(Millis),
    /// Whatever was done is done, and this is what is said of it.
    Over(Outcome),
}

#[derive(Debug, Clone)]
struct Attempt {
    key: Bytes,
    effect: EffectId,
    attempt: u32,
    look_up: bool,
    stage: Stage,
}

/// How often what happened.
#[derive(Debug, Clone, Default)]
pub struct Deeds {
    pub performed: u64,
    pub repeated: u64,
    pub messages: u64,
    pub lost: u64,
    pub looked_up: u64,
    pub said_again: u64,
}

pub struct Executor {
    /// Which life of the process this is: a permit names it.
    me: u64,
    requests: BTreeMap<EffectId, Request>,
    live: Vec<Attempt>,
    started: BTreeMap<(EffectId, u32), String>,
    /// To whom, and for how long after it was asked for.
    granted: BTreeMap<(EffectId, u32), (String, i64)>,
    completed: BTreeSet<EffectId>,
    /// Said before, and may be said again.
    said: Vec<(Bytes, Input)>,
    /// The world outside: how often each effect was done there.
    pub done: BTreeMap<EffectId, u32>,
    /// That no result was recorded when it was done again is checked where it happens.
    pub deeds: Deeds,
    /// Where time is the data's own, every attempt is answered.
    must_answer: bool,
    /// Performers have no time where time is the data's own.
    has_deadlines: bool,
    /// At the end it answers everything, and nothing twice.
    behaves: bool,
}

impl Executor {
    pub fn new(must_answer: bool) -> Self {
        Self {
            me: 1,
            requests: BTreeMap::new(),
            live: Vec::new(),
            started: BTreeMap::new(),
            granted: BTreeMap::new(),
            completed: BTreeSet::new(),
            said: Vec::new(),
            done: BTreeMap::new(),
            deeds: Deeds::default(),
            must_answer,
            has_deadlines: !must_answer,
            behaves: false,
        }
    }

    pub fn behave(&mut self) {
        (self.behaves, self.must_answer) = (true, true);
    }

    fn name(&self) -> String {
        format!("{:032x}", self.me)
    }

    pub fn is_idle(&self) -> bool {
        self.live.is_empty()
    }

    pub fn was_done(&self, effect: EffectId) -> bool {
        self.done.contains_key(&effect)
    }

    pub fn is_on(&self, effect: EffectId) -> bool {
        self.live.iter().any(|attempt| attempt.effect == effect)
    }

    pub fn any_effect(&self, rng: &mut ChaCha8Rng) -> Option<EffectId> {
        let effects: Vec<&EffectId> = self.requests.keys().collect();
        (!effects.is_empty()).then(|| *effects[rng.random_range(0..effects.len())])
    }

    pub fn hear(&mut self, key: &Bytes, fact: &Fact) {
        match &fact.what {
            What::EffectRequested { effect, by, unknown, timeout_ms, .. } => {
                self.requests.insert(*effect, Request { by: *by, unknown: *unknown, timeout_ms: *timeout_ms });
            }
            What::AttemptMinted { effect, attempt, look_up, .. } => {
                let attempt = Attempt { key: key.clone(), effect: *effect, attempt: *attempt, look_up: *look_up, stage: Stage::New };
                self.live.push(attempt);
            }
            What::EffectStarted { effect, attempt, executor, .. } => {
                self.started.insert((*effect, *attempt), executor.clone());
            }
            What::PermitGranted { effect, attempt, grant, .. } => {
                let valid = grant.until().since_ms(grant.at());
                self.granted.insert((*effect, *attempt), (grant.executor().to_string(), valid));
            }
            What::PermitRefused { effect, attempt, .. } => self.live.retain(|live| (live.effect, live.attempt) != (*effect, *attempt)),
            What::EffectCompleted { effect, .. } => drop(self.completed.insert(*effect)),
            _ => {}
        }
    }

    /// The process ends: what was done is done, who did it is forgotten.
    pub fn crash(&mut self, rng: &mut ChaCha8Rng) {
        self.me += 1;
        self.said.retain(|_| rng.random_bool(0.5));
        for live in &mut self.live {
            if let Stage::Over(_) = live.stage {
                let request = &self.requests[&live.effect];
                let is_announced = request.unknown != Unknown::Retry || request.by == Performer::Channel;
                live.stage = if live.look_up || !is_announced { Stage::New } else { Stage::Asked(Millis::MIN) };
            }
        }
    }

    /// What it says next, if anything; [`unsaid`](Self::unsaid) takes back what did not reach the log. `is_open` says whether an attempt is
    /// still to be performed, as the journal has it.
    pub fn act(&mut self, rng: &mut ChaCha8Rng, now: Millis, is_open: impl Fn(&Bytes, EffectId, u32) -> bool) -> Option<(Bytes, Input)> {
        if !self.said.is_empty() && !self.behaves && rng.random_ratio(1, 8) {
            self.deeds.said_again += 1;
            let at = rng.random_range(0..self.said.len());
            return Some(if rng.random_bool(0.5) { self.said[at].clone() } else { self.said.swap_remove(at) });
        }
        if self.live.is_empty() {
            return None;
        }
        // Any of them, the newest more often: so that some are very late.
        let at = rng.random_range(0..self.live.len()).max(rng.random_range(0..self.live.len()));
        let Attempt { key, effect, attempt, stage, .. } = &self.live[at];
        let is_begun = self.started.contains_key(&(*effect, *attempt)) && self.requests[effect].by != Performer::Channel;
        if !matches!(stage, Stage::Over(_)) && !is_begun && self.is_announced(*effect) && !is_open(key, *effect, *attempt) {
            // Nobody waits for it any more, and it was not begun.
            self.live.swap_remove(at);
            return None;
        }
        let outcome = match self.live[at].stage.clone() {
            Stage::Over(outcome) => return Some(self.answer(at, outcome, rng)),
            Stage::New => {
                if self.is_announced(self.live[at].effect) && !self.live[at].look_up {
                    return Some(self.ask(at, now));
                }
                // One that honours the key may be forgotten: it is asked for again.
                if !self.must_answer && rng.random_ratio(1, 10) {
                    return self.lose(at);
                }
                self.perform(at, rng)
            }
            Stage::Asked(asked) => return self.asked(at, asked, rng, now),
        };
        self.over(at, outcome, rng)
    }

    /// Whether its start is recorded before anything irrevocable.
    fn is_announced(&self, effect: EffectId) -> bool {
        let request = &self.requests[&effect];
        request.unknown != Unknown::Retry || request.by == Performer::Channel
    }

    fn over(&mut self, at: usize, outcome: Option<Outcome>, rng: &mut ChaCha8Rng) -> Option<(Bytes, Input)> {
        match outcome {
            None => self.lose(at),
            Some(outcome) if rng.random_bool(0.5) => Some(self.answer(at, outcome, rng)),
            Some(outcome) => {
                self.live[at].stage = Stage::Over(outcome);
                None
            }
        }
    }

    fn lose(&mut self, at: usize) -> Option<(Bytes, Input)> {
        self.deeds.lost += 1;
        self.live.swap_remove(at);
        None
    }

    /// However often it asks, its time runs from when it first did: that may be the one that is recorded.
    fn ask(&mut self, at: usize, since: Millis) -> (Bytes, Input) {
        let executor = self.name();
        let live = &mut self.live[at];
        live.stage = Stage::Asked(since);
        (live.key.clone(), Input::EffectStarted { effect: live.effect, attempt: live.attempt, executor, appended: Millis(0) })
    }

    fn asked(&mut self, at: usize, asked: Millis, rng: &mut ChaCha8Rng, now: Millis) -> Option<(Bytes, Input)> {
        let live = self.live[at].clone();
        let place = (live.effect, live.attempt);
        let me = self.name();
        let Some(by) = self.started.get(&place) else {
            // Refused while the run is paused, or lost: it asks again.
            return rng.random_ratio(1, 4).then(|| self.ask(at, asked));
        };
        let request = &self.requests[&live.effect];
        let elapsed = now.since_ms(asked);
        if *by != me || asked == Millis::MIN {
            // Begun in a life before: nobody knows what came of it.
            let outcome = (self.must_answer || rng.random_bool(0.5)).then(|| Outcome::Unknown { error: "the process ended".to_owned() });
            return self.over(at, outcome, rng);
        }
        let valid = match (request.by, self.granted.get(&place)) {
            (Performer::Channel, None) => return None,
            (Performer::Channel, Some((to, valid))) => {
                assert_eq!(*to, me, "a permit names whoever asked");
                (*valid).min(request.timeout_ms)
            }
            _ => request.timeout_ms,
        };
        let outcome = if self.has_deadlines && elapsed >= valid { Some(failed("too late to begin", rng)) } else { self.perform(at, rng) };
        self.over(at, outcome, rng)
    }

    /// Does it, or not, and what is said of it; `None` if nothing ever is.
    fn perform(&mut self, at: usize, rng: &mut ChaCha8Rng) -> Option<Outcome> {
        let Attempt { effect, look_up, .. } = self.live[at];
        let result = json!({ "ok": true, "text": "done" });
        if look_up {
            self.deeds.looked_up += 1;
            return Some(match rng.random_range(0..10) {
                0 => failed("cannot look", rng),
                1 => Outcome::Unknown { error: "cannot tell".to_owned() },
                _ if self.was_done(effect) => Outcome::Done { result },
                _ => Outcome::NotDone,
            });
        }
        match rng.random_range(0..20) {
            0..3 => return Some(failed("503", rng)),
            3 => return Some(Outcome::Unknown { error: "no connection".to_owned() }),
            4 if !self.must_answer => return None,
            _ => {}
        }
        if self.completed.contains(&effect) {
            // Its result is recorded: it reads the journal before it begins.
            return Some(failed("done by another attempt", rng));
        }
        self.deeds.performed += 1;
        self.deeds.messages += u64::from(self.requests[&effect].by == Performer::Channel);
        let times = self.done.entry(effect).or_default();
        *times += 1;
        self.deeds.repeated += u64::from(*times > 1);
        match rng.random_range(0..10) {
            0 => Some(Outcome::Unknown { error: "connection lost".to_owned() }),
            1 if !self.must_answer => None,
            _ => Some(Outcome::Done { result }),
        }
    }

    fn answer(&mut self, at: usize, outcome: Outcome, rng: &mut ChaCha8Rng) -> (Bytes, Input) {
        let Attempt { key, effect, attempt, .. } = self.live.swap_remove(at);
        let said = (key, Input::EffectFinished { effect, attempt, outcome });
        if rng.random_bool(0.5) {
            self.said.push(said.clone());
        }
        said
    }

    /// It did not reach the log.
    pub fn unsaid(&mut self, key: Bytes, input: Input) {
        if let Input::EffectFinished { effect, attempt, outcome } = input {
            let look_up = false;
            self.live.push(Attempt { key, effect, attempt, look_up, stage: Stage::Over(outcome) });
        }
    }
}

fn failed(error: &str, rng: &mut ChaCha8Rng) -> Outcome {
    let category = [Category::Api, Category::Agent, Category::System][rng.random_range(0..3)];
    let retry_after_ms = rng.random_bool(0.3).then(|| rng.random_range(0..600_000));
    Outcome::Failed { category, error: error.to_owned(), permanent: rng.random_ratio(1, 8), retry_after_ms }
}
