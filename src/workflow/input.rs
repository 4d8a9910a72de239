//! What can happen to a subject: commands to its runs, what it did, what performers answered, and time.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::carry::Carry;
use super::fact::{Parent, Visit};
use super::ids::{EffectId, RunId};
use super::question::Provenance;
use super::vocabulary::{Category, Ending};
use crate::consent::Stated;
use crate::domain::Millis;
use crate::permit::{self, AddressKey};

/// As a command's body it is JSON: `{"signal": {...}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// By command, schedule, broadcast or another run.
    Start {
        workflow: String,
        cause: String,
        entry: Json,
        profile: Json,
        depth: u8,
        parent: Option<Parent>,
    },
    Event {
        cause: String,
        name: String,
        properties: Json,
        profile: Json,
        late: bool,
        /// How many runs stand behind it, each begun by what the one before emitted.
        #[serde(default)]
        depth: u8,
    },
    SegmentChange {
        cause: String,
        segment: String,
        entered: bool,
        profile: Json,
        late: bool,
        /// As an event's: of the one that caused it.
        #[serde(default)]
        depth: u8,
    },
    Signal {
        run: RunId,
        cause: String,
        name: String,
        payload: Json,
    },
    /// A person's decision. With `visit`, and `shown` of its provenance, it is about that question and no other; without, about
    /// whichever is open.
    Approval {
        run: RunId,
        node: String,
        approved: bool,
        by: String,
        comment: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        visit: Option<Visit>,
        #[serde(default, skip_serializing_if = "Provenance::is_empty")]
        provenance: Provenance,
    },
    Pause {
        run: RunId,
        by: String,
        reason: String,
    },
    Resume {
        run: RunId,
        by: String,
    },
    /// Ends the run in order: what is in flight settles.
    Cancel {
        run: RunId,
        by: String,
        reason: String,
    },
    /// Ends the run although a fact of it cannot be decided any more, such as one whose definition is gone.
    Terminate {
        run: RunId,
        by: String,
        reason: String,
    },
    /// Tries again what is out of attempts, and at once what waits for its next.
    Retry {
        run: RunId,
        by: String,
    },
    /// A person found out what became of an effect.
    Resolve {
        effect: EffectId,
        done: Option<Json>,
        by: String,
    },
    /// The profile, asked for by a branch.
    Answer {
        run: RunId,
        profile: Json,
    },
    /// Before anything irrevocable. `executor` is a [`permit::Executor`] as text, `appended` when this command was appended.
    EffectStarted {
        effect: EffectId,
        attempt: u32,
        executor: String,
        #[serde(default)]
        appended: Millis,
    },
    EffectFinished {
        effect: EffectId,
        attempt: u32,
        outcome: Outcome,
    },
    StartEnded {
        run: RunId,
        visit: Visit,
        ending: Ending,
        result: Json,
    },
    Attribute {
        name: String,
        value: Json,
    },
    /// What a message of the person, `cause`, said about consent at its own time `at`.
    Consent {
        cause: String,
        at: Millis,
        stated: Vec<Stated>,
    },
    /// Nothing may go to an address, since `at`, until a time or for good. To the address, which passes it to whoever holds it.
    Suppress {
        address: AddressKey,
        #[serde(default)]
        channel: String,
        reason: permit::Cause,
        at: Millis,
        #[serde(default)]
        until: Option<Millis>,
        /// Who or what said so.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
    },
    Unsuppress {
        address: AddressKey,
        #[serde(default)]
        channel: String,
        at: Millis,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
    },
    /// To an address: a subject (`u:ID`, `a:ID`) holds it, and is to hear what is said of it.
    Register {
        address: AddressKey,
        #[serde(default)]
        channel: String,
        holder: String,
    },
    /// To an address: a subject holds it no more.
    Unregister {
        address: AddressKey,
        #[serde(default)]
        channel: String,
        holder: String,
    },
    /// To an address: a message, named by its key, did not get through; another may.
    SoftBounce {
        address: AddressKey,
        #[serde(default)]
        channel: String,
        message: String,
        at: Millis,
    },
    /// A login tied an anonymous subject to this user: what it leaves is on its way, and with `absorb` also what it did.
    Expect {
        anonymous: String,
        #[serde(default)]
        absorb: bool,
    },
    /// An event at `at`, of before a login or told late by one: it ends waits and reaches goals that were there then, and begins nothing.
    Past {
        at: Millis,
        cause: String,
        name: String,
        properties: Json,
        profile: Json,
    },
    /// Everything that an expected anonymous subject did has been told.
    Absorbed {
        anonymous: String,
    },
    /// This anonymous subject was tied to a known user: its runs end here.
    Merged {
        user: String,
    },
    /// To the user: what the anonymous subject leaves.
    Carry(Box<Carry>),
    /// Something to be decided when that time has come, as the starts of a broadcast are.
    Later {
        at: Millis,
        input: Box<Input>,
    },
    /// Time has reached the moment of the decision.
    Due,
}

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done {
        result: Json,
    },
    /// Of a look-up: it was never performed.
    NotDone,
    /// It was asked for and never begun: it waited too long for its turn, or whoever asked is gone. Certain, and nobody's failure.
    NotBegun {
        why: String,
    },
    Failed {
        category: Category,
        error: String,
        permanent: bool,
        retry_after_ms: Option<i64>,
    },
    Unknown {
        error: String,
    },
    /// Of a message: the other side says for good that it takes nothing for this address. Trying again gives the same.
    AddressRefused {
        address: AddressKey,
        error: String,
    },
}

/// Why an input changed nothing. None of these is a fact: the state is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("there is no run {0} in progress")]
    NoSuchRun(RunId),
    #[error("there is no workflow {0:?} that takes new entries")]
    NoSuchWorkflow(String),
    #[error("nothing waits for a signal {0:?} here")]
    NotAwaited(String),
    #[error("there is no approval {0:?} to decide here")]
    NoSuchApproval(String),
    #[error("it was decided already: {0}")]
    AlreadyDecided(String),
    #[error("the run is paused")]
    Paused,
    #[error("the run is not paused")]
    NotPaused,
    #[error("no effect with this id is known or still awaited")]
    NoSuchEffect,
    #[error("attempt {0} is not the one to perform")]
    NotThisAttempt(u32),
    #[error("nothing is out of attempts or waits for its next")]
    NothingToRetry,
    #[error("commands went through {0} subjects")]
    TooDeep(u8),
    #[error("{0:?} is no executor: 32 hexadecimal digits")]
    NoExecutor(String),
    #[error("{0} things wait to be decided already")]
    TooMuchHeld(usize),
}

impl Input {
    /// The variant's name on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Input::Start { .. } => "start",
            Input::Event { .. } => "event",
            Input::SegmentChange { .. } => "segment_change",
            Input::Signal { .. } => "signal",
            Input::Approval { .. } => "approval",
            Input::Pause { .. } => "pause",
            Input::Resume { .. } => "resume",
            Input::Cancel { .. } => "cancel",
            Input::Terminate { .. } => "terminate",
            Input::Retry { .. } => "retry",
            Input::Resolve { .. } => "resolve",
            Input::Answer { .. } => "answer",
            Input::EffectStarted { .. } => "effect_started",
            Input::EffectFinished { .. } => "effect_finished",
            Input::StartEnded { .. } => "start_ended",
            Input::Attribute { .. } => "attribute",
            Input::Consent { .. } => "consent",
            Input::Suppress { .. } => "suppress",
            Input::Unsuppress { .. } => "unsuppress",
            Input::Register { .. } => "register",
            Input::Unregister { .. } => "unregister",
            Input::SoftBounce { .. } => "soft_bounce",
            Input::Expect { .. } => "expect",
            Input::Past { .. } => "past",
            Input::Absorbed { .. } => "absorbed",
            Input::Merged { .. } => "merged",
            Input::Carry(_) => "carry",
            Input::Later { .. } => "later",
            Input::Due => "due",
        }
    }
}
