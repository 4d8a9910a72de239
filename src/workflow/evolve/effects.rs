//! What facts make of effects: attempts that are open and that may still answer, results, and what a message counts for in the caps.

use serde_json::Value as Json;

use super::super::fact::{Fact, What};
use super::super::ids::{EffectId, RunId};
use super::super::state::{Doing, OUTSTANDING_MAX, Open, Pending, Run, SETTLING_MAX, Settling, Stuck, Subject, Way};
use super::super::vocabulary::Settled;
use super::doing;
use crate::domain::Millis;
use crate::permit::EffectKey;

/// What a fact about a message means to the caps: granted counts, used counts, known unused does not.
pub(super) fn count(subject: &mut Subject, id: RunId, fact: &Fact) {
    let key = |effect: &EffectId| EffectKey(effect.0.to_be_bytes());
    match &fact.what {
        What::PermitGranted { effect, attempt, grant, .. } => {
            subject.ledger.granted(grant);
            if let Some(pending) = pending(subject, id, *effect) {
                pending.granted.push(*attempt);
                if let Some(open) = pending.open.as_mut().filter(|open| open.attempt == *attempt) {
                    // By whoever asked it is counted from then, which where partition time is behind is later.
                    let counted = open.appended.map(|asked| asked + grant.until().since_ms(grant.at()));
                    open.permit = Some(grant.until().max(counted.unwrap_or_default()));
                }
            }
        }
        What::EffectCompleted { effect, .. } => {
            if let Some(message) = pending(subject, id, *effect).and_then(|pending| pending.message()) {
                subject.ledger.used(key(effect), &message.channel, &message.purpose, fact.at);
            }
        }
        What::AttemptFailed { effect, attempt, timed_out: false, .. } | What::AttemptVoid { effect, attempt, .. } => {
            let Some(pending) = pending(subject, id, *effect).filter(|pending| pending.granted.contains(attempt)) else { return };
            pending.granted.retain(|other| other != attempt);
            if pending.granted.is_empty() {
                subject.ledger.unused(key(effect));
            }
        }
        What::LookedUp { effect, .. } => {
            if let Some(pending) = pending(subject, id, *effect) {
                pending.granted.clear();
                subject.ledger.unused(key(effect));
            }
        }
        _ => {}
    }
}

fn pending(subject: &mut Subject, id: RunId, effect: EffectId) -> Option<&mut Pending> {
    let steps = subject.runs.get_mut(&id)?.steps.values_mut();
    steps.into_iter().find_map(|step| match &mut step.doing {
        Doing::Effect(pending) if pending.id == effect => Some(&mut **pending),
        _ => None,
    })
}

/// Nobody waits for the effect any more; its attempts may still answer.
pub(super) fn let_go(subject: &mut Subject, run: RunId, pending: Pending) {
    let message = pending.message();
    let (effect, outstanding) = (pending.id, pending.outstanding);
    if outstanding.is_empty() {
        return;
    }
    subject.settling.push_back(Settling { effect, run, outstanding, message });
    if subject.settling.len() > SETTLING_MAX {
        subject.settling.pop_front();
    }
}

/// Takes the effect from its step, leaving the step as `doing`.
fn take_effect(subject: &mut Subject, id: RunId, effect: EffectId, doing: Doing) -> Option<Pending> {
    let run = subject.runs.get_mut(&id)?;
    let visit = run.effect(effect)?.0;
    let step = run.steps.get_mut(&visit)?;
    match std::mem::replace(&mut step.doing, doing) {
        Doing::Effect(pending) => Some(*pending),
        _ => None,
    }
}

pub(super) fn complete(subject: &mut Subject, id: RunId, effect: EffectId, attempt: Option<u32>, result: &Json) {
    let node = subject.runs.get(&id).and_then(|run| Some(run.steps.get(&run.effect(effect)?.0)?.node.clone()));
    let Some(mut pending) = take_effect(subject, id, effect, Doing::Ready(Way::Done)) else { return };
    pending.outstanding.retain(|other| Some(*other) != attempt);
    let_go(subject, id, pending);
    if let (Some(run), Some(node)) = (subject.runs.get_mut(&id), node) {
        run.results.insert(node, result.clone());
    }
}

pub(super) fn refuse(subject: &mut Subject, id: RunId, effect: EffectId, attempt: u32) {
    let Some(mut pending) = take_effect(subject, id, effect, Doing::Ready(Way::Refused)) else { return };
    pending.outstanding.retain(|other| *other != attempt);
    let_go(subject, id, pending);
}

pub(super) fn fail(subject: &mut Subject, id: RunId, effect: EffectId, error: &str) {
    let Some(pending) = take_effect(subject, id, effect, Doing::Ready(Way::Failed(error.to_owned()))) else { return };
    let_go(subject, id, pending);
}

pub(super) fn settle(subject: &mut Subject, effect: EffectId, attempt: u32, outcome: Settled, at: Millis) {
    let key = EffectKey(effect.0.to_be_bytes());
    for settling in subject.settling.iter_mut().filter(|settling| settling.effect == effect) {
        settling.outstanding.retain(|other| *other != attempt);
        let Some(message) = &mut settling.message else { continue };
        match outcome {
            Settled::Done => subject.ledger.used(key, &message.channel, &message.purpose, at),
            Settled::NotDone => {
                message.granted.retain(|other| *other != attempt);
                // Another attempt, or one that nobody knows of, may still have used its permit.
                if message.granted.is_empty() {
                    subject.ledger.unused(key);
                }
            }
            Settled::Unknown => {}
        }
    }
    subject.settling.retain(|settling| !settling.outstanding.is_empty());
}

pub(super) fn evolve(run: &mut Run, fact: &Fact) {
    if let What::EffectRequested { visit, effect, by, target, timeout_ms, unknown, purpose, priority, not_after, takes_ms, .. } = &fact.what
    {
        let pending = Pending {
            id: *effect,
            by: *by,
            target: target.clone(),
            purpose: purpose.clone(),
            priority: *priority,
            not_after: *not_after,
            takes_ms: *takes_ms,
            granted: Vec::new(),
            timeout_ms: *timeout_ms,
            unknown: *unknown,
            attempts: 0,
            failures: 0,
            open: None,
            retry_at: Some(fact.at),
            last_error: None,
            last_category: None,
            stuck: None,
            looking: false,
            doubt: None,
            outstanding: Vec::new(),
        };
        if let Some(step) = run.steps.get_mut(visit) {
            // It is the message, or another effect comes before the message.
            step.approved.clear();
        }
        return doing(run, *visit, Doing::Effect(Box::new(pending)));
    }
    let (What::AttemptMinted { effect, .. }
    | What::EffectStarted { effect, .. }
    | What::PermitRefused { effect, .. }
    | What::LookedUp { effect, .. }
    | What::AttemptVoid { effect, .. }
    | What::AttemptFailed { effect, .. }
    | What::AttemptUnknown { effect, .. }) = &fact.what
    else {
        return;
    };
    let step = run.steps.values_mut().find(|step| matches!(&step.doing, Doing::Effect(pending) if pending.id == *effect));
    let Some(Doing::Effect(pending)) = step.map(|step| &mut step.doing) else { return };
    match &fact.what {
        What::AttemptMinted { attempt, look_up, by_hand, .. } => {
            pending.attempts = *attempt;
            pending.retry_at = None;
            pending.stuck = None;
            pending.looking = *look_up;
            if !*look_up {
                pending.doubt = None;
            }
            if *by_hand {
                pending.failures = 0;
            }
            let (attempt, look_up) = (*attempt, *look_up);
            let open = Open { attempt, minted: fact.at, look_up, started: None, executor: None, appended: None, permit: None };
            pending.open = Some(open);
            if pending.outstanding.len() == OUTSTANDING_MAX {
                pending.outstanding.remove(0);
            }
            pending.outstanding.push(attempt);
        }
        What::EffectStarted { attempt, executor, appended, .. } => {
            if let Some(open) = pending.open.as_mut().filter(|open| open.attempt == *attempt) {
                open.started = Some(fact.at);
                open.executor = Some(executor.clone());
                open.appended = Some(*appended);
            }
        }
        What::PermitRefused { attempt, reason, retry_at, .. } => {
            pending.last_error = Some(reason.clone());
            close(pending, *attempt);
            pending.outstanding.retain(|other| other != attempt);
            pending.retry_at = *retry_at;
        }
        What::AttemptVoid { attempt, why, retry_at, .. } => {
            pending.outstanding.retain(|other| other != attempt);
            pending.last_error = Some(why.clone());
            let is_open = pending.open.as_ref().is_some_and(|open| open.attempt == *attempt);
            if is_open || pending.doubt == Some(*attempt) {
                pending.open = None;
                pending.stuck = None;
                pending.retry_at = Some(*retry_at);
            }
            // Nothing is left to look up.
            if pending.doubt.take_if(|doubt| doubt == attempt).is_some() {
                pending.looking = false;
            }
        }
        What::LookedUp { attempt, retry_at, .. } => {
            pending.looking = false;
            pending.doubt = None;
            pending.outstanding.retain(|other| other != attempt);
            close(pending, *attempt);
            pending.retry_at = *retry_at;
            pending.stuck = retry_at.is_none().then_some(Stuck::Failed);
        }
        What::AttemptFailed { attempt, category, error, timed_out, retry_at, .. } => {
            pending.last_category = Some(*category);
            if !timed_out {
                pending.outstanding.retain(|other| other != attempt);
            }
            pending.last_error = Some(error.clone());
            pending.failures = pending.failures.saturating_add(1);
            close(pending, *attempt);
            pending.retry_at = *retry_at;
            pending.stuck = retry_at.is_none().then_some(Stuck::Failed);
        }
        What::AttemptUnknown { attempt, error, .. } => {
            pending.last_error = Some(error.clone());
            pending.failures = pending.failures.saturating_add(1);
            close(pending, *attempt);
            pending.retry_at = None;
            pending.stuck = Some(Stuck::Unknown);
            pending.doubt = Some(*attempt);
        }
        _ => {}
    }
}

fn close(pending: &mut Pending, attempt: u32) {
    if pending.open.as_ref().is_some_and(|open| open.attempt == attempt) {
        pending.open = None;
    }
}
