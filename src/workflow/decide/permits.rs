//! Permits: whether an attempt that was begun may send its message, decided once time is where nothing said before can be missed.

use super::super::context::Clock;
use super::super::fact::What;
use super::super::ids::{EffectId, RunId};
use super::super::state::Pending;
use super::Turn;
use crate::domain::{Millis, SECOND_MS};
use crate::permit::{AddressKey, Basis, Block, Decision, EffectKey, Executor, Reason, Request, Standing};

/// Stands for whoever would ask, where nobody does.
const NOBODY: Executor = Executor([0; 16]);

impl Turn<'_, '_> {
    /// Whether the open attempt asks for a permit and time has come to decide.
    pub(super) fn permit_is_due(&self, pending: &Pending) -> bool {
        let Some(asked) = pending.asks() else { return false };
        let purpose = self.context.policy.permits.purpose(&pending.purpose);
        let is_transactional = purpose.is_some_and(|purpose| purpose.basis == Basis::Transactional);
        (is_transactional && !self.context.is_held) || self.context.clock == Clock::Event || self.heard() >= asked
    }

    pub(super) fn decide_permit(&mut self, run: RunId, pending: &Pending) {
        let Some(open) = &pending.open else { return };
        let (effect, attempt) = (pending.id, open.attempt);
        // Whoever asked counts from then, and could not use it any more.
        let waited = open.appended.map_or(0, |asked| self.at.since_ms(asked));
        if self.context.clock == Clock::Wall && waited >= self.context.policy.permits.valid_ms {
            return self.void(run, pending, attempt, "time stood still for longer than a permit is good for");
        }
        let executor = open.executor.as_deref().and_then(|text| text.parse().ok()).unwrap_or(NOBODY);
        let what = match self.ask(pending, executor) {
            Decision::Granted(grant) => {
                let to = self.state.address(&pending.target).unwrap_or_default().to_owned();
                What::PermitGranted { effect, attempt, grant, to }
            }
            Decision::Refused(refusal) => {
                let retry_at = match refusal.reason {
                    // Asked again when the login's history has come.
                    Reason::Blocked { block: Block::Merging } => Some(self.at + SECOND_MS),
                    // Asked again at the very same time it would be refused again.
                    _ => refusal.retry_at.map(|at| at.max(self.at + SECOND_MS)),
                };
                refused(effect, attempt, &refusal.reason, retry_at)
            }
        };
        self.fact(run, what);
    }

    /// The time at which a refused message asks again, as it would be told now.
    pub(super) fn refuse_anew(&mut self, run: RunId, pending: &Pending) {
        let (effect, attempt) = (pending.id, pending.attempts);
        let what = match self.ask(pending, NOBODY) {
            Decision::Granted(_) => {
                let reason = "it is known now where the person lives: asks again".to_owned();
                What::PermitRefused { effect, attempt, code: "quiet_hours".to_owned(), reason, retry_at: Some(self.at) }
            }
            Decision::Refused(refusal) => match refusal.retry_at {
                Some(retry_at) if Some(retry_at) != pending.retry_at => refused(effect, attempt, &refusal.reason, Some(retry_at)),
                _ => return,
            },
        };
        self.fact(run, what);
    }

    fn ask(&self, pending: &Pending, executor: Executor) -> Decision {
        let state = &*self.state;
        let standing = Standing {
            consent: &state.consent,
            suppressions: &state.suppressions,
            address: state.address(&pending.target).map(|address| AddressKey::of(&pending.target, address)),
            zone: state.zone(),
            block: state.is_merging().then_some(Block::Merging),
        };
        let request = Request {
            key: EffectKey(pending.id.0.to_be_bytes()),
            executor,
            channel: &pending.target,
            purpose: &pending.purpose,
            priority: pending.priority,
            not_after: pending.not_after,
        };
        crate::permit::decide(&self.context.policy.permits, &state.ledger, &standing, &request, self.at)
    }

    /// After a word against writing to the person: messages that wait for another attempt and may not be sent any more go on as refused.
    /// Those that were begun are refused when their permit is decided.
    pub(super) fn stop_forbidden(&mut self) {
        let mut waiting: Vec<(RunId, Pending)> = Vec::new();
        for (run, state) in &self.state.runs {
            let pending = state.effects().filter(|pending| pending.is_message() && pending.open.is_none() && pending.stuck.is_none());
            waiting.extend(pending.filter(|pending| !pending.looking).map(|pending| (*run, pending.clone())));
        }
        for (run, pending) in waiting {
            if let Decision::Refused(refusal) = self.ask(&pending, NOBODY)
                && matches!(refusal.reason, Reason::ConsentDenied | Reason::Suppressed { .. })
                && refusal.retry_at.is_none()
            {
                // Of the attempt that is not made any more.
                let what = refused(pending.id, pending.attempts.saturating_add(1), &refusal.reason, None);
                self.fact(run, what);
            }
        }
    }
}

fn refused(effect: EffectId, attempt: u32, reason: &Reason, retry_at: Option<Millis>) -> What {
    What::PermitRefused { effect, attempt, code: reason.code().to_owned(), reason: reason.to_string(), retry_at }
}
