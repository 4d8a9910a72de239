//! What a journal record says, as far as rows are made of it: a lenient reading of `workflow::What`.
//!
//! Of a kind that this build does not know nothing is read; of one that it knows, only the members that rows need. Payloads stay text:
//! making values of them would cost more than all the rest.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::workflow::{EffectId, RunId};

/// A run's step.
pub type Visit = i64;

macro_rules! kinds {
    ($($kind:ident $tag:literal { $($(#[$meta:meta])* $field:ident: $ty:ty,)* })+) => {
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Told {
            $($kind { $($(#[$meta])* $field: $ty,)* },)+
            /// Nothing that a row is made of.
            Nothing {},
        }

        const KNOWN: &[&str] = &[$($tag,)+];
    };
}

kinds! {
    RunStarted "run_started" {
        workflow: String,
        digest: String,
        #[serde(default)] key: Option<String>,
        cause: String,
        first: String,
        #[serde(default)] parent: Option<Box<Parent>>,
    }
    RunSkipped "run_skipped" { workflow: String, cause: String, reason: String, }
    Moved "moved" { visit: Visit, way: String, to: String, }
    ArmAssigned "arm_assigned" { visit: Visit, node: String, arm: String, }
    VariablesSet "variables_set" { visit: Visit, }
    LoopEntered "loop_entered" { visit: Visit, }
    LoopLeft "loop_left" { visit: Visit, }
    Delayed "delayed" { visit: Visit, until: i64, }
    WaitBegun "wait_begun" { visit: Visit, until: i64, #[serde(default)] awaits: Vec<String>, }
    WaitMatched "wait_matched" { visit: Visit, }
    TimerFired "timer_fired" { visit: Visit, }
    ProfileAsked "profile_asked" { visit: Visit, }
    EventEmitted "event_emitted" { visit: Visit, }
    EffectRequested "effect_requested" {
        visit: Visit,
        node: String,
        effect: EffectId,
        by: String,
        target: String,
        #[serde(default)] input: Option<Box<RawValue>>,
        #[serde(default)] purpose: Option<String>,
    }
    AttemptMinted "attempt_minted" { effect: EffectId, attempt: i64, }
    EffectStarted "effect_started" { effect: EffectId, #[serde(default)] executor: String, }
    PermitGranted "permit_granted" { effect: EffectId, grant: Grant, to: String, }
    PermitRefused "permit_refused" { effect: EffectId, #[serde(default)] code: String, reason: String, #[serde(default)] retry_at: Option<i64>, }
    EffectCompleted "effect_completed" {
        effect: EffectId,
        #[serde(default)] result: Option<Box<RawValue>>,
        #[serde(default)] assumed: bool,
    }
    AttemptFailed "attempt_failed" { effect: EffectId, category: String, error: String, #[serde(default)] retry_at: Option<i64>, }
    AttemptUnknown "attempt_unknown" { effect: EffectId, error: String, }
    AttemptVoid "attempt_void" { effect: EffectId, attempt: i64, why: String, retry_at: i64, }
    LookedUp "looked_up" { effect: EffectId, #[serde(default)] retry_at: Option<i64>, }
    EffectFailed "effect_failed" { effect: EffectId, error: String, }
    Notified "notified" { node: String, category: String, severity: String, text: String, }
    EffectSettled "effect_settled" { run: RunId, effect: EffectId, outcome: String, #[serde(default)] result: Option<Box<RawValue>>, }
    ApprovalRequested "approval_requested" {
        visit: Visit,
        node: String,
        who: String,
        #[serde(default)] shows: Option<Box<RawValue>>,
        until: i64,
        #[serde(default)] shown: String,
    }
    ApprovalDecided "approval_decided" {
        visit: Visit,
        approved: bool,
        by: String,
        #[serde(default)] comment: String,
        #[serde(default)] provenance: Provenance,
    }
    ApprovalRefused "approval_refused" { visit: Visit, }
    ApprovalLate "approval_late" { visit: Visit, }
    StartRequested "start_requested" { visit: Visit, workflow: String, subject: String, #[serde(default)] until: Option<i64>, }
    StartEnded "start_ended" { visit: Visit, }
    Forked "forked" { visit: Visit, branches: Vec<String>, }
    BranchEnded "branch_ended" { visit: Visit, failed: bool, }
    StepCancelled "step_cancelled" { visit: Visit, }
    Joined "joined" { to: String, }
    GoalReached "goal_reached" { goal: String, }
    Redirected "redirected" { to: String, }
    RunPaused "run_paused" { reason: String, by: String, }
    RunResumed "run_resumed" { }
    AttributeSet "attribute_set" { name: String, #[serde(default)] value: serde_json::Value, #[serde(default)] was: Option<serde_json::Value>, }
    Suppressed "suppressed" {
        address: String,
        channel: String,
        reason: String,
        said: i64,
        #[serde(default)] until: Option<i64>,
        #[serde(default)] by: String,
    }
    Unsuppressed "unsuppressed" { address: String, channel: String, }
    RunEnded "run_ended" { ending: String, #[serde(default)] outcome: String, }
}

#[derive(Debug, Deserialize)]
pub struct Parent {
    pub subject: String,
    pub run: RunId,
}

/// How a decision came.
#[derive(Debug, Default, Deserialize)]
pub struct Provenance {
    #[serde(default)]
    pub link: String,
}

#[derive(Debug, Deserialize)]
pub struct Grant {
    pub until: i64,
}

impl Told {
    /// Reads a record's body: a JSON object with one member, named by the fact's kind.
    pub fn read(body: &str) -> Result<Told, serde_json::Error> {
        let kind = body.split('"').nth(1).unwrap_or_default();
        if KNOWN.contains(&kind) {
            return serde_json::from_str(body);
        }
        serde_json::from_str::<IgnoredAny>(body)?;
        Ok(Told::Nothing {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::What;

    #[test]
    fn kinds_of_later_builds_say_nothing_and_broken_bodies_are_errors() {
        for body in [r#"{"renamed":{"to":"x"}}"#, r#""merged""#, r#"{"profile_seen":{"profile":{"a":[1]}}}"#] {
            assert!(matches!(Told::read(body), Ok(Told::Nothing {})), "{body}");
        }
        for body in ["", "{", r#"{"moved":{"visit":1}}"#, r#"{"renamed":"#] {
            assert!(Told::read(body).is_err(), "{body}");
        }
    }

    #[test]
    fn members_of_later_builds_are_left_out() {
        let body = r#"{"moved":{"visit":3,"from":"a","way":"","to":"b","why":{"x":[1,2]}}}"#;
        assert!(matches!(Told::read(body), Ok(Told::Moved { visit: 3, .. })));
    }

    /// Every journal that the shipped workflows' tests give is read as it was meant.
    #[test]
    fn every_fact_of_the_shipped_workflows_is_read() {
        for (name, text) in crate::workflow::SHIPPED {
            let definition = crate::workflow::Definition::parse(name, text).unwrap();
            for case in &definition.tests {
                for fact in crate::workflow::run(&definition, case) {
                    let told = Told::read(&fact.parts().1).unwrap();
                    let is_of_a_run = fact.run.is_some() && !matches!(fact.what, What::ProfileSeen { .. });
                    assert!(!is_of_a_run || !matches!(told, Told::Nothing {}), "{fact:?}");
                }
            }
        }
    }
}
