//! What is known of one subject: its runs in progress, marks of those that ended, effects that may still answer, attributes.
//!
//! Only [`evolve`](super::evolve::evolve) changes it, from facts alone. Its size is bounded by what is going on, not by what has happened:
//! a loop that ran a million times leaves one number.
//!
//! Subjects, runs and where they are is here; the effects that runs wait for are in `effects`.

mod effects;

pub use effects::{OUTSTANDING_MAX, Open, Pending, SETTLING_MAX, Settling, Stuck};

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::address::{HeldBy, address_in};
use super::context::Clock;
use super::fact::{Parent, Visit};
use super::ids::{EffectId, RunId};
use super::input::Input;
use super::isolate::ISOLATION;
use super::packed;
use crate::consent::Consent;
use crate::domain::{HOUR_MS, Millis};
use crate::permit::{Ledger, Suppressions, attribute_of};

/// Runs in progress of one subject. A campaign of campaigns starts runs of other subjects; a person in more journeys than this is a mistake.
pub const RUNS_MAX: usize = 256;
/// Re-entry marks: one per workflow, or per key of a keyed one. Beyond this the oldest are forgotten.
pub const MARKS_MAX: usize = 4_096;
/// Ended runs whose id is remembered, so that the same cause delivered again starts nothing.
pub const RECENT_MAX: usize = 256;
/// Arms of splits that a person keeps. A person in more splits than this is drawn anew in the others, to the same arm as ever.
pub const ARMS_MAX: usize = 1_024;
/// Anonymous subjects that were taken in and are remembered: what is said of them again is not waited for.
pub const CARRIED_MAX: usize = 64;
/// What may wait to be decided. More than this is an executor that does not answer.
pub const HELD_MAX: usize = 10_000;
/// Under the wall's clock: how long a login's history is waited for. It is one command away; if that was lost nobody stays frozen over it.
pub const EXPECT_MS_MAX: i64 = HOUR_MS;

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Subject {
    /// Boxed, as all values of small maps here: a map's node has room for eleven.
    pub runs: BTreeMap<RunId, Box<Run>>,
    pub marks: BTreeMap<String, Box<Mark>>,
    pub recent: VecDeque<RunId>,
    pub settling: VecDeque<Settling>,
    /// Address, time zone and whatever else was set: `time_zone` is read for local times.
    #[serde(with = "packed::json")]
    pub attributes: BTreeMap<String, Json>,
    /// The arm of each split that a run, or one of an anonymous subject that became this user, was given; `WORKFLOW\0NODE` to its name.
    pub arms: BTreeMap<String, String>,
    #[serde(with = "packed")]
    pub consent: Consent,
    #[serde(with = "packed")]
    pub suppressions: Suppressions,
    #[serde(with = "packed")]
    pub ledger: Ledger,
    /// Of an address: who holds it, and what failed there.
    pub held_by: Option<Box<HeldBy>>,
    /// Anonymous subjects that a login tied to this user and whose marks have not come, with the time since when.
    pub expecting: BTreeMap<String, Millis>,
    /// Those of them that did things which have not been told yet.
    pub absorbing: BTreeMap<String, Millis>,
    pub carried: VecDeque<String>,
    /// What waits to be decided, in the order in which it will be.
    pub held: VecDeque<Kept>,
    /// The newest time at which anything was decided.
    pub now: Millis,
    /// How many facts made this state.
    pub facts: u64,
}

/// An input that waits, with the time at which it is decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    pub at: Millis,
    #[serde(with = "packed::json")]
    pub input: Input,
}

/// The last run of a workflow, or of one key of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub run: RunId,
    pub started: Millis,
    pub ended: Option<Millis>,
    pub runs: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub workflow: String,
    #[serde(with = "packed::digest")]
    pub digest: String,
    pub key: Option<String>,
    pub started: Millis,
    #[serde(with = "packed::json")]
    pub entry: Json,
    #[serde(with = "packed::json")]
    pub profile: Json,
    #[serde(with = "packed::json")]
    pub vars: Map<String, Json>,
    /// The last result of each node that gave one.
    #[serde(with = "packed::json")]
    pub results: Map<String, Json>,
    pub arms: BTreeMap<String, String>,
    pub steps: BTreeMap<Visit, Box<Step>>,
    pub forks: BTreeMap<Visit, Box<Fork>>,
    /// How many steps there were: the last one's number.
    pub visits: Visit,
    pub paused: Option<Paused>,
    /// A goal that was reached and not yet gone to, with where it leads.
    pub goal: Option<GoalHit>,
    pub parent: Option<Parent>,
    pub depth: u8,
    /// The last message that ended a wait: delivered again it ends no other.
    pub matched: Option<String>,
    /// A failure that no node handled has led to `on_failure`: the next one pauses the run, or failures there would go round for ever.
    pub has_failed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoalHit {
    pub name: String,
    pub to: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    pub reason: String,
    pub by: String,
    pub since: Millis,
}

/// One place where a run is: usually one, in a parallel one per branch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub node: String,
    /// The fork whose branch this is.
    pub branch: Option<Visit>,
    /// Rounds of the loops that it is in.
    pub rounds: BTreeMap<String, u32>,
    pub since: Millis,
    /// The digest of the message that was approved on the way here and is yet to be sent; empty if none was.
    pub approved: String,
    pub doing: Doing,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// There, and nothing decided yet.
    Arriving,
    Delay {
        until: Millis,
    },
    Wait {
        until: Millis,
    },
    /// For the profile's answer.
    Asking,
    Effect(Box<Pending>),
    Approval {
        until: Millis,
        /// What the question is recognised by; empty if it was asked before that was kept.
        shown: String,
    },
    /// For another run's end.
    Child {
        until: Option<Millis>,
    },
    /// Finished, and not yet moved on.
    Ready(Way),
}

/// How a step finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    Done,
    Failed(String),
    Refused,
    Timeout,
    Matched(u16),
    Approved,
    Rejected,
    /// The profile was seen: the node is decided again with it.
    Seen,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    pub node: String,
    pub join: String,
    pub needs: u32,
    pub branches: u32,
    pub done: u32,
    pub failed: u32,
    pub cancels: bool,
    /// The branch that the fork itself stands in, and the loops it is in.
    pub branch: Option<Visit>,
    pub rounds: BTreeMap<String, u32>,
}

impl Fork {
    /// Whether enough branches have ended well (`Some(true)`), can no longer do so (`Some(false)`), or neither yet.
    pub fn verdict(&self) -> Option<bool> {
        let still = self.branches.saturating_sub(self.done).saturating_sub(self.failed);
        if self.done >= self.needs {
            return Some(true);
        }
        let hopeless = if self.cancels { self.failed > 0 || self.done.saturating_add(still) < self.needs } else { still == 0 };
        hopeless.then_some(false)
    }
}

/// What keeps a step from doing by itself what time would have it do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waking {
    pub(super) clock: Clock,
    pub(super) merging: bool,
}

impl Step {
    /// When this step next does something by itself.
    pub(super) fn wake(&self, waking: Waking) -> Option<Millis> {
        match &self.doing {
            // No silence is concluded before everything that was done has come.
            Doing::Wait { .. } if waking.merging => None,
            Doing::Delay { until } | Doing::Wait { until } | Doing::Approval { until, .. } => Some(*until),
            Doing::Child { until } => *until,
            Doing::Effect(pending) => pending.wake(waking),
            Doing::Arriving | Doing::Asking | Doing::Ready(_) => None,
        }
    }
}

impl Run {
    pub(super) fn wake(&self, waking: Waking) -> Option<Millis> {
        if self.paused.is_some() {
            return None;
        }
        self.steps.values().filter_map(|step| step.wake(waking)).min()
    }

    /// Set aside because a decision about it failed.
    pub fn is_isolated(&self) -> bool {
        self.paused.as_ref().is_some_and(|paused| paused.by == ISOLATION)
    }

    pub(super) fn effects(&self) -> impl Iterator<Item = &Pending> {
        self.steps.values().filter_map(|step| match &step.doing {
            Doing::Effect(pending) => Some(&**pending),
            _ => None,
        })
    }

    pub fn effect(&self, id: EffectId) -> Option<(Visit, &Pending)> {
        self.steps.iter().find_map(|(visit, step)| match &step.doing {
            Doing::Effect(pending) if pending.id == id => Some((*visit, &**pending)),
            _ => None,
        })
    }
}

impl Subject {
    pub(super) fn waking(&self, clock: Clock) -> Waking {
        Waking { clock, merging: self.is_merging() }
    }

    /// When a run next does something by itself.
    pub(super) fn runs_wake(&self, clock: Clock) -> Option<Millis> {
        let waking = self.waking(clock);
        let runs = self.runs.values().filter_map(|run| run.wake(waking)).min();
        // The data's own time may run ahead of a command that is on its way.
        let expecting =
            self.expecting.values().chain(self.absorbing.values()).map(|since| *since + EXPECT_MS_MAX).filter(|_| clock == Clock::Wall);
        runs.into_iter().chain(expecting).min()
    }

    /// A login's history is still coming in.
    pub fn is_merging(&self) -> bool {
        !self.expecting.is_empty() || !self.absorbing.is_empty()
    }

    /// Where messages on a channel go.
    pub fn address(&self, channel: &str) -> Option<&str> {
        let name = attribute_of(channel);
        self.attributes.get(&name).and_then(|value| address_in(&name, value))
    }

    /// The IANA name of the person's time zone.
    pub fn zone(&self) -> Option<&str> {
        self.attributes.get("time_zone").and_then(Json::as_str)
    }

    /// Whether an attempt was asked for whose end is not known.
    pub fn has_open_attempt(&self) -> bool {
        let steps = self.runs.values().filter(|run| run.paused.is_none()).flat_map(|run| run.steps.values());
        steps.into_iter().any(|step| matches!(&step.doing, Doing::Effect(pending) if pending.open.is_some()))
    }

    /// The run and step that wait for an effect.
    pub fn effect(&self, id: EffectId) -> Option<(RunId, Visit, &Pending)> {
        self.runs.iter().find_map(|(run, state)| state.effect(id).map(|(visit, pending)| (*run, visit, pending)))
    }

    /// Every attempt that is to be performed now: what an executor asks for after a restart. Paused runs have none.
    pub fn to_perform(&self) -> Vec<(RunId, EffectId, u32)> {
        let active = self.runs.iter().filter(|(_, run)| run.paused.is_none());
        let steps = active.flat_map(|(id, run)| run.steps.values().map(move |step| (*id, step)));
        let open = steps.filter_map(|(run, step)| match &step.doing {
            Doing::Effect(pending) => pending.open.as_ref().map(|open| (run, pending.id, open.attempt)),
            _ => None,
        });
        open.collect()
    }

    /// Keeps the marks within their bound: those longest ended go first.
    pub(super) fn forget_marks(&mut self) {
        while self.marks.len() > MARKS_MAX {
            let oldest = self.marks.iter().filter(|(_, mark)| mark.ended.is_some()).min_by_key(|(_, mark)| mark.started);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return };
            self.marks.remove(&oldest);
        }
    }

    pub(super) fn mark_key(workflow: &str, key: Option<&str>) -> String {
        match key {
            None => workflow.to_owned(),
            Some(key) => format!("{workflow}\0{key}"),
        }
    }
}
