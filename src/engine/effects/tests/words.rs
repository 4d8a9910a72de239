//! Facts as a fold writes them, in few words.

use serde_json::{Value as Json, json};

use crate::domain::{Subject, SubjectKey, TenantId};
use crate::workflow::{EffectId, RunId};

/// One effect of a test: its subject's tenant, and what it is.
#[derive(Debug, Clone, Copy)]
pub struct Effect {
    pub number: u128,
    pub tenant: &'static str,
    pub by: &'static str,
    pub target: &'static str,
    pub unknown: &'static str,
}

pub const AGENT: Effect = Effect { number: 1, tenant: "acme", by: "agent", target: "echo", unknown: "retry" };
pub const MAIL: Effect = Effect { number: 2, tenant: "acme", by: "channel", target: "email", unknown: "look_up" };
/// Something irrevocable that is no message.
pub const AD: Effect = Effect { number: 3, tenant: "acme", by: "agent", target: "echo", unknown: "look_up" };

impl Effect {
    pub fn of(self, number: u128) -> Self {
        Self { number, ..self }
    }

    pub fn tenant(self, tenant: &'static str) -> Self {
        Self { tenant, ..self }
    }

    pub fn id(&self) -> EffectId {
        EffectId(self.number)
    }

    pub fn run(&self) -> String {
        RunId(self.number << 32).to_string()
    }

    pub fn key(&self) -> SubjectKey {
        Subject::user(&format!("p{}", self.number)).key(&TenantId::new(self.tenant).unwrap())
    }

    pub fn requested(&self) -> Json {
        let (by, target, unknown) = (self.by, self.target, self.unknown);
        json!({ "effect_requested": {
            "visit": 1, "node": "n", "effect": self.id(), "by": by, "target": target, "input": { "n": self.number as u64 },
            "timeout_ms": 60_000, "unknown": unknown, "workflow": "w", "purpose": "marketing", "takes_ms": 0
        }})
    }

    pub fn minted(&self, attempt: u32) -> Json {
        json!({ "attempt_minted": { "effect": self.id(), "attempt": attempt, "look_up": false, "by_hand": false } })
    }

    pub fn looks_up(&self, attempt: u32) -> Json {
        json!({ "attempt_minted": { "effect": self.id(), "attempt": attempt, "look_up": true, "by_hand": false } })
    }

    pub fn started(&self, attempt: u32, executor: &str) -> Json {
        json!({ "effect_started": { "effect": self.id(), "attempt": attempt, "executor": executor } })
    }

    /// Good for a minute.
    pub fn granted(&self, attempt: u32, executor: &str) -> Json {
        let grant = json!({
            "key": self.id(), "executor": executor, "channel": "email", "purpose": "marketing", "at": 1_000_000, "until": 1_060_000
        });
        json!({ "permit_granted": { "effect": self.id(), "attempt": attempt, "grant": grant, "to": "ada@example.com" } })
    }

    pub fn refused(&self, attempt: u32, retry_at: Option<i64>) -> Json {
        json!({ "permit_refused": { "effect": self.id(), "attempt": attempt, "reason": "capped", "retry_at": retry_at } })
    }

    pub fn completed(&self, attempt: u32) -> Json {
        json!({ "effect_completed": { "effect": self.id(), "attempt": attempt, "result": {}, "assumed": false } })
    }

    pub fn failed(&self, attempt: u32) -> Json {
        let (effect, timed_out) = (self.id(), true);
        json!({ "attempt_failed": {
            "effect": effect, "attempt": attempt, "category": "system", "error": "late", "timed_out": timed_out, "retry_at": 5
        }})
    }

    pub fn unknown(&self, attempt: u32) -> Json {
        json!({ "attempt_unknown": { "effect": self.id(), "attempt": attempt, "error": "no answer" } })
    }

    pub fn void(&self, attempt: u32) -> Json {
        json!({ "attempt_void": { "effect": self.id(), "attempt": attempt, "why": "late", "retry_at": 5 } })
    }

    pub fn given_up(&self, text: &str) -> Json {
        json!({ "notified": { "effect": self.id(), "node": "n", "category": "api", "severity": "critical", "text": text } })
    }

    pub fn cancelled(&self) -> Json {
        json!({ "step_cancelled": { "visit": 1, "effect": self.id() } })
    }
}

pub fn paused() -> Json {
    json!({ "run_paused": { "reason": "r", "by": "b" } })
}

pub fn resumed() -> Json {
    json!({ "run_resumed": { "by": "b" } })
}

pub fn ended() -> Json {
    json!({ "run_ended": { "ending": "cancelled", "node": "n", "outcome": "o" } })
}
