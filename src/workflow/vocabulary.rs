//! The words that facts, inputs and definitions share: who performs, what went wrong, how something ended.
//!
//! Wire: names in snake case; variants may be added, never renamed or given another meaning.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Performer {
    Agent,
    Channel,
    Webhook,
}

impl Performer {
    pub fn as_str(self) -> &'static str {
        match self {
            Performer::Agent => "agent",
            Performer::Channel => "channel",
            Performer::Webhook => "webhook",
        }
    }
}

/// What it means that nobody knows whether an attempt was performed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// Try again: the other side honours the idempotency key.
    Retry,
    /// Ask the other side, by the key.
    LookUp,
    /// Count it as done: twice would be worse than never.
    AssumeDone,
    /// Pause and have someone find out.
    AskAPerson,
}

/// What kind of thing went wrong, as the performer says; it decides between retrying and not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    Api,
    Agent,
    Integration,
    /// The input is at fault: trying again gives the same.
    Data,
    System,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// This one run.
    Warning,
    /// Nothing of the kind works until someone acts: credentials, a request that is refused, a system that stays down.
    Critical,
}

impl Category {
    pub fn severity(self) -> Severity {
        match self {
            Category::Api | Category::System => Severity::Critical,
            Category::Agent | Category::Integration | Category::Data => Severity::Warning,
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    Completed,
    Goal,
    Failed,
    Cancelled,
    Terminated,
    /// The anonymous subject became a known user.
    Merged,
}

impl Ending {
    pub fn as_str(self) -> &'static str {
        match self {
            Ending::Completed => "completed",
            Ending::Goal => "goal",
            Ending::Failed => "failed",
            Ending::Cancelled => "cancelled",
            Ending::Terminated => "terminated",
            Ending::Merged => "merged",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skipped {
    /// The same cause has started this run before.
    AlreadyStarted,
    /// The re-entry policy says no.
    Reentry,
    /// An earlier run of the same key goes on.
    StillRunning,
    /// The key's expression gave nothing.
    NoKey,
    /// What the person did before a login is still coming in.
    Merging,
    /// The subject has [`super::state::RUNS_MAX`] runs.
    TooMany,
    /// It would be the [`super::decide::DEPTH_MAX`]th run in a row that begins by what the one before emitted.
    TooDeep,
    /// The entry's condition does not hold. Said to who waits for the run.
    Condition,
    /// No workflow of this name takes new entries. Said to who waits for the run.
    NoSuchWorkflow,
}

/// A result that came when nothing waited for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    Done,
    NotDone,
    Unknown,
}
