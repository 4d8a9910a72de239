//! What a journal keeps: everything that was decided about a subject, in the past tense, with nothing left to look up when it is read.
//!
//! A fact carries names and times instead of places in a definition, so that a journal can be read, drawn and queried without one.
//! Wire: JSON, which `codec` writes and reads; variants and fields may be added, never renamed or given another meaning.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::carry::Carry;
use super::ids::{EffectId, RunId};
use super::input::Input;
use super::question::Provenance;
use super::vocabulary::{Category, Ending, Performer, Settled, Severity, Skipped, Unknown};
use crate::consent::Stated;
use crate::domain::{Digest, Millis};
use crate::permit::{self, AddressKey, Grant, Priority};

/// The number of a step within its run, from 1: each arrival at a node is one.
pub type Visit = u64;

/// One journal record about a subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// Partition time when it was decided.
    pub at: Millis,
    /// The run that it moves; `None` for what belongs to the subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    RunStarted {
        workflow: String,
        digest: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// What began it: `event Order Completed`, `segment lapsing`, `command`. Empty in journals of before it was said.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
        cause: String,
        first: String,
        /// The entry's event properties or the command's input.
        entry: Json,
        vars: Map<String, Json>,
        profile: Json,
        #[serde(default)]
        depth: u8,
        /// Who waits for the end: the subject, run and step that asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<Parent>,
    },
    RunSkipped {
        workflow: String,
        cause: String,
        reason: Skipped,
        /// Who is told that there is no end to wait for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<Parent>,
    },
    /// A step left its node for another.
    Moved {
        visit: Visit,
        from: String,
        way: String,
        to: String,
    },
    ArmAssigned {
        visit: Visit,
        node: String,
        arm: String,
        at: u16,
    },
    VariablesSet {
        visit: Visit,
        node: String,
        vars: Map<String, Json>,
    },
    LoopEntered {
        visit: Visit,
        node: String,
        round: u32,
        /// Loops inside of this one that begin anew.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        anew: Vec<String>,
    },
    LoopLeft {
        visit: Visit,
        node: String,
    },
    Delayed {
        visit: Visit,
        node: String,
        until: Millis,
    },
    /// `awaits` is what for: `event Order Completed`, `enters vip`, `leaves vip`, `signal stop`.
    WaitBegun {
        visit: Visit,
        node: String,
        until: Millis,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        awaits: Vec<String>,
    },
    /// Something that a wait was for came.
    WaitMatched {
        visit: Visit,
        node: String,
        matched: u16,
        name: String,
        cause: String,
        payload: Json,
        /// What the run's expressions read of the profile, as of what came.
        #[serde(default, skip_serializing_if = "Json::is_null")]
        profile: Json,
    },
    /// A delay is over, or a wait or a deadline passed.
    TimerFired {
        visit: Visit,
        node: String,
    },
    ProfileAsked {
        visit: Visit,
        node: String,
    },
    ProfileSeen {
        profile: Json,
    },
    EventEmitted {
        visit: Visit,
        node: String,
        event: String,
        properties: Json,
        /// Of what it begins: one more than the run's.
        #[serde(default)]
        depth: u8,
    },
    EffectRequested {
        visit: Visit,
        node: String,
        effect: EffectId,
        by: Performer,
        target: String,
        /// For whoever performs it; empty in journals of before it was said.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        workflow: String,
        input: Json,
        timeout_ms: i64,
        unknown: Unknown,
        /// Of a channel: what the permit is asked for. Empty for any other.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        purpose: String,
        /// Of a message that was approved as it was shown: its digest. Another one is not sent.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        approved: String,
        #[serde(default, skip_serializing_if = "is_normal")]
        priority: Priority,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_after: Option<Millis>,
        /// How long it takes, where time is the data's own.
        #[serde(default, skip_serializing_if = "is_zero")]
        takes_ms: i64,
    },
    /// `by_hand`: someone asked for it, and the retry policy begins anew.
    AttemptMinted {
        effect: EffectId,
        attempt: u32,
        look_up: bool,
        by_hand: bool,
    },
    EffectStarted {
        effect: EffectId,
        attempt: u32,
        executor: String,
        /// When the command was appended that said so: the permit is decided once partition time is there.
        #[serde(default)]
        appended: Millis,
    },
    PermitGranted {
        effect: EffectId,
        attempt: u32,
        grant: Grant,
        /// Where it goes.
        to: String,
    },
    /// Without `retry_at` the run goes on as refused; else another attempt asks then.
    PermitRefused {
        effect: EffectId,
        attempt: u32,
        /// The reason's stable name.
        #[serde(default)]
        code: String,
        /// For people.
        reason: String,
        retry_at: Option<Millis>,
    },
    EffectCompleted {
        effect: EffectId,
        attempt: u32,
        result: Json,
        assumed: bool,
    },
    /// Without `retry_at` there is no further attempt by itself. One that timed out may still answer.
    AttemptFailed {
        effect: EffectId,
        attempt: u32,
        category: Category,
        error: String,
        timed_out: bool,
        retry_at: Option<Millis>,
    },
    AttemptUnknown {
        effect: EffectId,
        attempt: u32,
        error: String,
    },
    /// It did nothing, for certain, and counts as no attempt: it was never begun, or one of which nobody knew turns out to have failed.
    AttemptVoid {
        effect: EffectId,
        attempt: u32,
        why: String,
        /// When the next attempt is made, if none is under way.
        retry_at: Millis,
    },
    /// A look-up found that it was never performed: the next attempt may perform it. Without `retry_at` there is none by itself.
    LookedUp {
        effect: EffectId,
        attempt: u32,
        #[serde(default)]
        retry_at: Option<Millis>,
    },
    EffectFailed {
        effect: EffectId,
        error: String,
    },
    /// An effect was given up for a reason that someone is to hear of.
    Notified {
        effect: EffectId,
        node: String,
        category: Category,
        severity: Severity,
        text: String,
    },
    EffectSettled {
        effect: EffectId,
        run: RunId,
        attempt: u32,
        outcome: Settled,
        result: Json,
    },
    ApprovalRequested {
        visit: Visit,
        node: String,
        who: String,
        shows: Json,
        until: Millis,
        /// The digest of the question ([`shown_digest`](super::question::shown_digest)); empty in journals of before it was kept.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        shown: String,
    },
    ApprovalDecided {
        visit: Visit,
        node: String,
        approved: bool,
        by: String,
        comment: String,
        #[serde(default, skip_serializing_if = "Provenance::is_empty")]
        provenance: Provenance,
    },
    ApprovalLate {
        visit: Visit,
        by: String,
        approved: bool,
        #[serde(default, skip_serializing_if = "Provenance::is_empty")]
        provenance: Provenance,
    },
    /// A decision that was given about another question than the one that is open: nothing was decided.
    ApprovalRefused {
        /// The step that its giver saw.
        visit: Visit,
        node: String,
        approved: bool,
        by: String,
        reason: String,
        #[serde(default, skip_serializing_if = "Provenance::is_empty")]
        provenance: Provenance,
    },
    StartRequested {
        visit: Visit,
        node: String,
        workflow: String,
        subject: String,
        input: Json,
        depth: u8,
        until: Option<Millis>,
    },
    StartEnded {
        visit: Visit,
        ending: Ending,
        result: Json,
    },
    Forked {
        visit: Visit,
        node: String,
        join: String,
        needs: u32,
        branches: Vec<String>,
        failing_cancels: bool,
    },
    BranchEnded {
        visit: Visit,
        failed: bool,
    },
    /// Nobody waits for this step any more; what its effect has in flight settles when it comes.
    StepCancelled {
        visit: Visit,
        effect: Option<EffectId>,
    },
    Joined {
        fork: Visit,
        node: String,
        to: String,
        way: String,
    },
    GoalReached {
        goal: String,
        /// The event's name; empty in journals of before it was said.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        event: String,
        cause: String,
        to: Option<String>,
    },
    /// All steps are left for one node: a goal's, or the one that failures lead to.
    Redirected {
        to: String,
    },
    RunPaused {
        reason: String,
        by: String,
    },
    RunResumed {
        by: String,
    },
    RunEnded {
        ending: Ending,
        node: String,
        outcome: String,
        /// Who is told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<Parent>,
    },
    AttributeSet {
        name: String,
        value: Json,
        /// Of an address that another one was known before: that one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        was: Option<Json>,
    },
    /// What a message of the person said about consent, at its own time `said`.
    ConsentStated {
        cause: String,
        said: Millis,
        stated: Vec<Stated>,
    },
    Suppressed {
        address: AddressKey,
        channel: String,
        reason: permit::Cause,
        said: Millis,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Millis>,
        /// Who or what said so.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
    },
    Unsuppressed {
        address: AddressKey,
        channel: String,
        said: Millis,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        by: String,
    },
    /// The other side said for good that it takes nothing for this address, which was this person's.
    AddressRefused {
        effect: EffectId,
        address: AddressKey,
        channel: String,
    },
    /// Of an address: this subject holds it, and is told what is said of it, now and later.
    Registered {
        address: AddressKey,
        channel: String,
        holder: String,
    },
    Unregistered {
        address: AddressKey,
        channel: String,
        holder: String,
    },
    /// Of an address: a message to it did not get through.
    SoftBounced {
        address: AddressKey,
        channel: String,
        message: String,
        said: Millis,
    },
    /// A login tied an anonymous subject to this user: what it brings is waited for.
    Expecting {
        anonymous: String,
        /// Also what it did, and not only what it leaves.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        absorb: bool,
    },
    /// What an anonymous subject did before it became this user has been told.
    Absorbed {
        anonymous: String,
    },
    /// What it brings has not come in time, and is taken in when it comes.
    ExpectationEnded {
        anonymous: String,
    },
    /// The anonymous side: its runs have ended, and the user gets this.
    MergedInto {
        user: String,
        carry: Box<Carry>,
    },
    /// The user's side: taken in.
    Carried {
        carry: Box<Carry>,
    },
    /// The campaign's subject of a workflow that is begun by broadcast: every member of the segment is told, and begins a run that is caused
    /// by `broadcast`.
    BroadcastBegun {
        broadcast: RunId,
        workflow: String,
        cause: String,
        segment: String,
        throttle_ms: i64,
        entry: Json,
    },
    /// Something that has to wait for an answer, or for what a login brings, before it is decided.
    Held {
        at: Millis,
        input: Box<Input>,
    },
    /// The first so many of what was held were decided.
    Taken {
        count: u32,
    },
    /// Something that was held came to nothing when it was taken up.
    HeldRejected {
        kind: String,
        reason: String,
    },
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn is_normal(priority: &Priority) -> bool {
    *priority == Priority::Normal
}

/// Where a started run's end is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    pub subject: String,
    pub run: RunId,
    pub visit: Visit,
}

/// The digest as facts carry it.
pub(super) fn digest_text(digest: &Digest) -> String {
    digest.to_hex()
}
