//! What a journal fact tells an executor. Most facts tell it nothing, and those are not read beyond their kind.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::Millis;
use crate::permit::{Grant, Priority};
use crate::workflow::{Category, CodecError, EffectId, Performer, Severity, Unknown};

/// The part of [`workflow::What`](crate::workflow::What) that concerns performing, borrowed from the fact's body.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told<'a> {
    EffectRequested {
        effect: EffectId,
        #[serde(borrow, default)]
        workflow: Cow<'a, str>,
        #[serde(borrow)]
        node: Cow<'a, str>,
        by: Performer,
        #[serde(borrow)]
        target: Cow<'a, str>,
        #[serde(borrow)]
        input: &'a RawValue,
        timeout_ms: i64,
        unknown: Unknown,
        #[serde(borrow, default)]
        purpose: Cow<'a, str>,
        #[serde(borrow, default)]
        approved: Cow<'a, str>,
        #[serde(default)]
        priority: Priority,
    },
    AttemptMinted {
        effect: EffectId,
        attempt: u32,
        look_up: bool,
    },
    EffectStarted {
        effect: EffectId,
        attempt: u32,
        #[serde(borrow)]
        executor: Cow<'a, str>,
    },
    PermitGranted {
        effect: EffectId,
        attempt: u32,
        grant: Box<Grant>,
        #[serde(borrow)]
        to: Cow<'a, str>,
    },
    PermitRefused {
        effect: EffectId,
        attempt: u32,
        retry_at: Option<Millis>,
    },
    AttemptFailed {
        effect: EffectId,
        attempt: u32,
    },
    AttemptUnknown {
        effect: EffectId,
        attempt: u32,
    },
    AttemptVoid {
        effect: EffectId,
        attempt: u32,
    },
    LookedUp {
        effect: EffectId,
        attempt: u32,
    },
    EffectCompleted {
        effect: EffectId,
    },
    EffectFailed {
        effect: EffectId,
    },
    StepCancelled {
        effect: Option<EffectId>,
    },
    Notified {
        effect: EffectId,
        #[serde(borrow)]
        node: Cow<'a, str>,
        category: Category,
        severity: Severity,
        #[serde(borrow)]
        text: Cow<'a, str>,
    },
    Redirected {},
    RunEnded {},
    RunPaused {},
    RunResumed {},
}

/// The kinds above, as they stand in a body: `{"KIND":`.
const KINDS: [&str; 17] = [
    "effect_requested",
    "attempt_minted",
    "effect_started",
    "permit_granted",
    "permit_refused",
    "attempt_failed",
    "attempt_unknown",
    "attempt_void",
    "looked_up",
    "effect_completed",
    "effect_failed",
    "step_cancelled",
    "notified",
    "redirected",
    "run_ended",
    "run_paused",
    "run_resumed",
];

/// `None` for what does not concern performing.
pub(super) fn read(body: &str) -> Result<Option<Told<'_>>, CodecError> {
    let rest = body.strip_prefix("{\"").unwrap_or_default();
    let kind = &rest[..rest.find('"').unwrap_or(0)];
    // Bodies are written by serde and begin like that; anything else is read as a whole rather than missed.
    if !kind.is_empty() && !KINDS.contains(&kind) {
        return Ok(None);
    }
    let broken = |error: serde_json::Error| CodecError::Broken { what: "fact", why: error.to_string() };
    serde_json::from_str(body).map(Some).map_err(broken)
}
