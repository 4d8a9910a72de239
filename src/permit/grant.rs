//! A yes, as a fact and as the token that a send consumes.

use serde::{Deserialize, Serialize};

use super::ids::{EffectKey, Executor};
use crate::domain::{Duration, Millis};

/// One message may go: the fact that the journal keeps and the ledger counts. Made by [`decide`](super::decide), or read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub(super) key: EffectKey,
    pub(super) executor: Executor,
    pub(super) channel: Box<str>,
    pub(super) purpose: Box<str>,
    pub(super) at: Millis,
    pub(super) until: Millis,
}

/// The right to send one message, once, until it runs out. Not to be copied; a send takes it by value.
#[derive(Debug)]
#[must_use = "a permit that nobody uses counts against caps until it is said to be unused"]
pub struct SendPermit {
    key: EffectKey,
    executor: Executor,
    channel: Box<str>,
    left: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("the permit names another executor")]
    OfAnother,
    #[error("the permit ran out")]
    Expired,
}

impl Grant {
    pub fn key(&self) -> EffectKey {
        self.key
    }

    pub fn executor(&self) -> Executor {
        self.executor
    }

    pub fn channel(&self) -> &str {
        &self.channel
    }

    pub fn purpose(&self) -> &str {
        &self.purpose
    }

    pub fn at(&self) -> Millis {
        self.at
    }

    /// The subject's own time after which nothing may be sent on it.
    pub fn until(&self) -> Millis {
        self.until
    }

    /// Turns the fact into the right to send. `elapsed` is what the executor's own steady clock counted since it *asked*: asking comes
    /// before granting, so however far the two clocks are apart the permit is never used past its end.
    pub fn redeem(&self, me: Executor, elapsed: Duration) -> Result<SendPermit, Unusable> {
        if self.executor != me {
            return Err(Unusable::OfAnother);
        }
        let valid = Duration::from_millis(self.until.since_ms(self.at).max(0) as u64);
        match valid.checked_sub(elapsed) {
            Some(left) if !left.is_zero() => Ok(SendPermit { key: self.key, executor: me, channel: self.channel.clone(), left }),
            _ => Err(Unusable::Expired),
        }
    }
}

impl SendPermit {
    pub fn key(&self) -> EffectKey {
        self.key
    }

    pub fn executor(&self) -> Executor {
        self.executor
    }

    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// For how long, from when it was redeemed, the send may begin.
    pub fn left(&self) -> Duration {
        self.left
    }
}
