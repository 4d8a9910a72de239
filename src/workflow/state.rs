//! What is known of one subject: its runs in progress, marks of those that ended, effects that may still answer, attributes.
//!
//! Only [`evolve`](super::evolve::evolve) changes it, from facts alone. Its size is bounded by what is going on, not by what has happened:
//! a loop that ran a million times leaves one number.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::fact::{Parent, Unknown, Visit};
use super::ids::{EffectId, RunId};
use crate::domain::Millis;

/// Runs in progress of one subject. A campaign of campaigns starts runs of other subjects; a person in more journeys than this is a mistake.
pub const RUNS_MAX: usize = 256;
/// Re-entry marks: one per workflow, or per key of a keyed one. Beyond this the oldest are forgotten.
pub const MARKS_MAX: usize = 4_096;
/// Ended runs whose id is remembered, so that the same cause delivered again starts nothing.
pub const RECENT_MAX: usize = 64;
/// Effects that nobody waits for and that may still answer.
pub const SETTLING_MAX: usize = 1_024;
/// Attempts of one effect that may still answer.
pub const OUTSTANDING_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Subject {
    pub runs: BTreeMap<RunId, Run>,
    pub marks: BTreeMap<String, Mark>,
    pub recent: VecDeque<RunId>,
    pub settling: VecDeque<Settling>,
    /// Address, time zone and whatever else was set: `time_zone` is read for local times.
    pub attributes: BTreeMap<String, Json>,
    /// How many facts made this state.
    pub facts: u64,
}

/// The last run of a workflow, or of one key of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub run: RunId,
    pub started: Millis,
    pub ended: Option<Millis>,
    pub runs: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settling {
    pub effect: EffectId,
    pub run: RunId,
    pub outstanding: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub workflow: String,
    pub digest: String,
    pub key: Option<String>,
    pub started: Millis,
    pub entry: Json,
    pub profile: Json,
    pub vars: Map<String, Json>,
    /// The last result of each node that gave one.
    pub results: Map<String, Json>,
    pub arms: BTreeMap<String, String>,
    pub steps: BTreeMap<Visit, Step>,
    pub forks: BTreeMap<Visit, Fork>,
    /// How many steps there were: the last one's number.
    pub visits: Visit,
    pub paused: Option<Paused>,
    /// A goal that was reached and not yet gone to, with where it leads.
    pub goal: Option<GoalHit>,
    pub parent: Option<Parent>,
    pub depth: u8,
    /// The last message that ended a wait: delivered again it ends no other.
    pub matched: Option<String>,
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
    Effect(Pending),
    Approval {
        until: Millis,
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

/// An effect that was requested and has no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    pub id: EffectId,
    pub timeout_ms: i64,
    pub unknown: Unknown,
    /// Attempts minted so far, and how many of them count against the retry policy since the last manual retry.
    pub attempts: u32,
    pub failures: u32,
    /// The attempt that is to be performed now.
    pub open: Option<Open>,
    pub retry_at: Option<Millis>,
    /// A refused permit or an unknown outcome: why, for whoever looks.
    pub last_error: Option<String>,
    /// Out of attempts, or waiting for a person: only a retry or a resolution moves it.
    pub stuck: Option<Stuck>,
    /// An attempt may have been performed: until a look-up says otherwise, attempts only look.
    pub looking: bool,
    pub outstanding: Vec<u32>,
}

/// Why an effect does not go on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stuck {
    /// Out of attempts, or trying again would give the same.
    Failed,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    pub attempt: u32,
    pub minted: Millis,
    pub look_up: bool,
    pub started: Option<Millis>,
    pub executor: Option<String>,
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

impl Step {
    /// When this step next does something by itself.
    fn wake(&self) -> Option<Millis> {
        match &self.doing {
            Doing::Delay { until } | Doing::Wait { until } | Doing::Approval { until } => Some(*until),
            Doing::Child { until } => *until,
            Doing::Effect(pending) => pending.wake(),
            Doing::Arriving | Doing::Asking | Doing::Ready(_) => None,
        }
    }
}

impl Pending {
    /// When the open attempt is given up, or the next one is minted.
    pub fn wake(&self) -> Option<Millis> {
        if self.stuck.is_some() {
            return None;
        }
        match &self.open {
            Some(open) => self.times_out(open),
            None => self.retry_at,
        }
    }

    /// A kind that honours its key is timed from when it was asked; any other only once it began something irrevocable.
    fn times_out(&self, open: &Open) -> Option<Millis> {
        let from = if self.unknown == Unknown::Retry || open.look_up { Some(open.minted) } else { open.started };
        from.map(|from| from + self.timeout_ms)
    }
}

impl Run {
    pub fn wake(&self) -> Option<Millis> {
        if self.paused.is_some() {
            return None;
        }
        self.steps.values().filter_map(Step::wake).min()
    }

    pub fn effect(&self, id: EffectId) -> Option<(Visit, &Pending)> {
        self.steps.iter().find_map(|(visit, step)| match &step.doing {
            Doing::Effect(pending) if pending.id == id => Some((*visit, pending)),
            _ => None,
        })
    }
}

impl Subject {
    /// The next time at which a decision falls due by itself: the timers are the state.
    pub fn next_wake(&self) -> Option<Millis> {
        self.runs.values().filter_map(Run::wake).min()
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

    pub(super) fn mark_key(workflow: &str, key: Option<&str>) -> String {
        match key {
            None => workflow.to_owned(),
            Some(key) => format!("{workflow}\0{key}"),
        }
    }
}
