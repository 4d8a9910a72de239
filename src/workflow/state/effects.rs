//! What is known of an effect that has no result yet, and of one that nobody waits for any more and that may still answer.
//!
//! When it next does something by itself is said here; what is then done, `decide` says.

use serde::{Deserialize, Serialize};

use super::super::context::Clock;
use super::super::ids::{EffectId, RunId};
use super::super::vocabulary::{Category, Performer, Unknown};
use super::Waking;
use crate::domain::{DAY_MS, Millis};
use crate::permit::Priority;

/// Effects that nobody waits for and that may still answer.
pub const SETTLING_MAX: usize = 1_024;
/// How long an attempt may wait for its turn: behind a rate, a destination that fails, the attempts of others. None of that is its failure.
pub const TURN_MS_MAX: i64 = DAY_MS;
/// Attempts of one effect that may still answer.
pub const OUTSTANDING_MAX: usize = 64;

/// An effect that was requested and has no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    pub id: EffectId,
    pub by: Performer,
    pub target: String,
    pub purpose: String,
    pub priority: Priority,
    pub not_after: Option<Millis>,
    pub takes_ms: i64,
    /// Attempts that had a permit and may have used it.
    pub granted: Vec<u32>,
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
    pub last_category: Option<Category>,
    /// Out of attempts, or waiting for a person: only a retry or a resolution moves it.
    pub stuck: Option<Stuck>,
    /// An attempt may have been performed: until a look-up says otherwise, attempts only look.
    pub looking: bool,
    /// The attempt of which nobody knows whether it was performed.
    pub doubt: Option<u32>,
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
    pub appended: Option<Millis>,
    /// A permit was granted; whoever asked may begin until then.
    pub permit: Option<Millis>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settling {
    pub effect: EffectId,
    pub run: RunId,
    pub outstanding: Vec<u32>,
    /// Of a message: where its outcome counts.
    pub message: Option<Message>,
}

/// What caps need to know of a message that may be out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub channel: String,
    pub purpose: String,
    /// Attempts that had a permit and may have used it.
    pub granted: Vec<u32>,
}

impl Pending {
    /// When the open attempt's permit is decided, or it is given up, or the next one is minted.
    pub(super) fn wake(&self, waking: Waking) -> Option<Millis> {
        if self.stuck.is_some() {
            return None;
        }
        match &self.open {
            // Where time is the data's own it says nothing about how long an executor takes.
            Some(_) if waking.clock == Clock::Event => None,
            Some(open) => match (self.asks(), self.times_out(open)) {
                (Some(asked), Some(given_up)) => Some(asked.min(given_up)),
                (asked, given_up) => asked.or(given_up),
            },
            None if self.waits_for_merge(waking.merging) => None,
            None => self.retry_at,
        }
    }

    /// Timed from when it was begun, as its executor counts: from when it said so, since partition time may be behind that, and who is given
    /// up early may still begin beside the next attempt. A message is begun while its permit lasts and has its time from then; without a
    /// permit it is not begun, however long that takes. A kind that honours its key is begun without a word, after it waited for its turn,
    /// and its executor says when it got no answer: one that says nothing is given up long after.
    pub(in crate::workflow) fn times_out(&self, open: &Open) -> Option<Millis> {
        if self.is_message() && !open.look_up {
            return open.permit.map(|until| until + self.timeout_ms);
        }
        let said = open.started.map(|started| started.max(open.appended.unwrap_or(started)));
        let is_silent = self.unknown == Unknown::Retry || open.look_up;
        let from = said.or_else(|| is_silent.then_some(open.minted + TURN_MS_MAX));
        from.map(|from| from + self.timeout_ms)
    }

    pub(in crate::workflow) fn is_message(&self) -> bool {
        self.by == Performer::Channel
    }

    /// If the open attempt asks for its permit: from when on it may be decided.
    pub(in crate::workflow) fn asks(&self) -> Option<Millis> {
        let open = self.open.as_ref()?;
        let asks = self.is_message() && !open.look_up && open.started.is_some() && open.permit.is_none();
        asks.then(|| open.appended.unwrap_or(open.minted))
    }

    /// Whether the executor was told to go ahead with the open attempt.
    pub(in crate::workflow) fn is_under_way(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.started.is_some() && (open.permit.is_some() || !self.is_message() || open.look_up))
    }

    /// Whether an attempt that was given up may have been performed, as far as is known.
    pub(in crate::workflow) fn may_have_been_done(&self, attempt: u32) -> bool {
        self.doubt == Some(attempt) || self.granted.contains(&attempt)
    }

    /// No message is asked for that would be refused until a login's history has come.
    pub(in crate::workflow) fn waits_for_merge(&self, merging: bool) -> bool {
        merging && self.is_message() && !self.looking
    }

    pub(in crate::workflow) fn message(&self) -> Option<Message> {
        self.is_message().then(|| Message { channel: self.target.clone(), purpose: self.purpose.clone(), granted: self.granted.clone() })
    }
}
