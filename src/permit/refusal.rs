//! A no, with its reason and, where waiting helps, the time from when it is worth asking again.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::decide::Block;
use super::policy::Priority;
use super::suppression::Cause;
use crate::domain::Millis;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub reason: Reason,
    /// From then on the answer may be yes, if nothing else comes between. `None`: waiting does not help, something must happen.
    pub retry_at: Option<Millis>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Reason {
    /// The policy declares no such purpose.
    UnknownPurpose {
        purpose: Box<str>,
    },
    Blocked {
        block: Block,
    },
    NoAddress,
    Suppressed {
        cause: Cause,
    },
    /// The person said no to this purpose or channel.
    ConsentDenied,
    /// The purpose needs a yes and the person never answered.
    ConsentMissing,
    /// Later than the message makes sense.
    TooLate,
    /// Known to be sent already.
    AlreadySent,
    /// Another executor holds a permit for this message.
    HeldByAnother,
    QuietHours,
    Capped {
        cap: Box<str>,
        priority: Priority,
    },
}

impl Reason {
    /// The stable name, as in facts, metrics and SQL.
    pub fn code(&self) -> &'static str {
        match self {
            Reason::UnknownPurpose { .. } => "unknown_purpose",
            Reason::Blocked { .. } => "blocked",
            Reason::NoAddress => "no_address",
            Reason::Suppressed { .. } => "suppressed",
            Reason::ConsentDenied => "consent_denied",
            Reason::ConsentMissing => "consent_missing",
            Reason::TooLate => "too_late",
            Reason::AlreadySent => "already_sent",
            Reason::HeldByAnother => "held_by_another",
            Reason::QuietHours => "quiet_hours",
            Reason::Capped { .. } => "capped",
        }
    }
}

/// As an answer to "why did she not get the mail?".
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::UnknownPurpose { purpose } => write!(f, "the policy knows no purpose {purpose:?}"),
            Reason::Blocked { block } => f.write_str(block.as_str()),
            Reason::NoAddress => f.write_str("no address is known for the channel"),
            Reason::Suppressed { cause } => write!(f, "the address is suppressed: {}", cause.as_str()),
            Reason::ConsentDenied => f.write_str("the person opted out"),
            Reason::ConsentMissing => f.write_str("the purpose needs an opt-in and the person gave none"),
            Reason::TooLate => f.write_str("too late for this message"),
            Reason::AlreadySent => f.write_str("this message was sent"),
            Reason::HeldByAnother => f.write_str("another executor may be sending this message"),
            Reason::QuietHours => f.write_str("quiet hours where the person lives"),
            Reason::Capped { cap, priority } => {
                let priority = match priority {
                    Priority::Low => "low",
                    Priority::Normal => "normal",
                    Priority::High => "high",
                };
                write!(f, "the cap {cap} leaves no place for a message of {priority} priority")
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.retry_at {
            Some(at) => write!(f, "{}; not before {at}", self.reason),
            None => self.reason.fmt(f),
        }
    }
}
