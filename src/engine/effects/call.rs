//! The port: what performs one attempt, and what it is told.
//!
//! Whoever performs gets a [`Call`] and says what became of it, as a [`workflow::Outcome`](Outcome). A message to a person comes with its
//! [`Leave`], which the send consumes. The effect's id is the idempotency key: the same for every attempt.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::domain::{Millis, SubjectKey};
use crate::permit::{EffectKey, Priority, SendPermit};
use crate::workflow::{EffectId, Outcome, Performer, RunId, Unknown};

/// Of a result, what is handed in: the subject's fold keeps less, and of a long one what its node declares (docs/effects.md). A longer one
/// would not fit into a record.
pub const ANSWER_BYTES_MAX: usize = 512 * 1024;

/// What an effect asks for: the same for all of its attempts.
#[derive(Debug)]
pub struct Request {
    pub subject: SubjectKey,
    pub run: RunId,
    pub effect: EffectId,
    pub workflow: String,
    pub node: String,
    pub by: Performer,
    pub target: String,
    /// JSON object.
    pub input: Box<RawValue>,
    pub timeout_ms: i64,
    pub unknown: Unknown,
    /// What a message is for; empty for what is no message.
    pub purpose: String,
    /// Of a message that was approved: the digest of its words ([`crate::channels::template::Rendered::digest`]). No others are sent.
    pub approved: String,
    pub priority: Priority,
    pub requested_at: Millis,
}

/// One attempt.
#[derive(Debug, Clone)]
pub struct Call {
    pub request: Arc<Request>,
    pub attempt: u32,
    /// Find out whether an earlier attempt was performed instead of performing it.
    pub look_up: bool,
    /// From now on.
    pub deadline: Duration,
}

/// That one message may go, and to which address.
#[derive(Debug)]
pub struct Leave {
    pub permit: SendPermit,
    pub to: String,
}

/// Answers at once, on the executor's own thread.
pub trait Inline: Send + Sync {
    fn perform(&self, call: &Call) -> Outcome;
}

pub type Performing<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// Takes its time.
pub trait Remote: Send + Sync {
    /// `leave` is there for a channel's attempt that is no look-up.
    fn perform(&self, call: Call, leave: Option<Leave>) -> Performing<'_>;
}

#[derive(Clone)]
pub enum Port {
    Inline(Arc<dyn Inline>),
    Remote(Arc<dyn Remote>),
}

impl Request {
    pub fn key(&self) -> EffectKey {
        EffectKey(self.effect.0.to_be_bytes())
    }

    pub fn input(&self) -> serde_json::Map<String, serde_json::Value> {
        serde_json::from_str(self.input.get()).unwrap_or_default()
    }

    /// Bytes in memory, about.
    pub fn bytes(&self) -> usize {
        let texts =
            self.workflow.len() + self.node.len() + self.target.len() + self.purpose.len() + self.approved.len() + self.input.get().len();
        size_of::<Self>() + self.subject.as_bytes().len() + texts
    }
}

/// What has to be on record before an attempt is performed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: doing it again under the same key is as good as once.
    Nothing,
    /// That it was started.
    Start,
    /// That it was started, and the permit that answers it.
    Permit,
}

impl Needs {
    pub fn of(by: Performer, unknown: Unknown, look_up: bool) -> Needs {
        match (by, unknown) {
            _ if look_up => Needs::Nothing,
            (Performer::Channel, _) => Needs::Permit,
            (_, Unknown::Retry) => Needs::Nothing,
            _ => Needs::Start,
        }
    }
}

/// Functions are performers.
impl<F: Fn(&Call) -> Outcome + Send + Sync> Inline for F {
    fn perform(&self, call: &Call) -> Outcome {
        self(call)
    }
}
