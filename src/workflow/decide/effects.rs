//! Effects: attempts are minted here, any attempt's success completes, and what comes when nobody waits any more settles.

use serde_json::Value as Json;

use super::super::context::Clock;
use super::super::definition::{self, Errors, Kind, OnError, Retry};
use super::super::expression::json_time;
use super::super::fact::What;
use super::super::ids::{EffectId, RunId, chance};
use super::super::input::{Outcome, Rejection};
use super::super::state::Pending;
use super::super::vocabulary::{Category, Settled};
use super::moves::WORKFLOW;
use super::{RESULT_BYTES_MAX, Turn};
use crate::domain::{HOUR_MS, Millis, SECOND_MS};
use crate::segments::Type;

pub(super) struct Failure {
    pub(super) category: Category,
    pub(super) error: String,
    pub(super) permanent: bool,
    pub(super) retry_after_ms: Option<i64>,
    pub(super) timed_out: bool,
}

/// Longer error texts are cut: they would be kept with the state.
const ERROR_CHARS_MAX: usize = 500;

impl Turn<'_, '_> {
    fn pending(&self, effect: EffectId) -> Result<(RunId, Pending), Rejection> {
        let (run, _, pending) = self.state.effect(effect).ok_or(Rejection::NoSuchEffect)?;
        Ok((run, pending.clone()))
    }

    /// Before anything irrevocable. A rejection forbids it.
    pub(super) fn effect_started(&mut self, effect: EffectId, attempt: u32, executor: &str, appended: Millis) -> Result<(), Rejection> {
        let (run, pending) = self.pending(effect)?;
        if pending.is_message() && executor.parse::<crate::permit::Executor>().is_err() {
            return Err(Rejection::NoExecutor(executor.to_owned()));
        }
        if self.run(run)?.paused.is_some() {
            return Err(Rejection::Paused);
        }
        match &pending.open {
            Some(open) if open.attempt == attempt && open.started.is_none() => {}
            Some(open) if open.attempt == attempt => return Err(Rejection::AlreadyDecided("this attempt was started".to_owned())),
            _ => return Err(Rejection::NotThisAttempt(attempt)),
        }
        // Where time is the data's own, when somebody came round to it says nothing.
        let appended = if self.context.clock == Clock::Event { self.at } else { appended };
        self.fact(run, What::EffectStarted { effect, attempt, executor: executor.to_owned(), appended });
        Ok(())
    }

    pub(super) fn effect_finished(&mut self, effect: EffectId, attempt: u32, outcome: &Outcome) -> Result<(), Rejection> {
        let Ok((run, pending)) = self.pending(effect) else { return self.settle(effect, attempt, outcome) };
        if !pending.outstanding.contains(&attempt) {
            return Err(Rejection::NotThisAttempt(attempt));
        }
        let is_open = pending.open.as_ref().is_some_and(|open| open.attempt == attempt);
        match outcome {
            Outcome::Done { result } => match self.as_declared(run, &pending, result) {
                Ok(result) => {
                    let result = self.bounded(run, effect, result);
                    let sent = self.sent_event(run, &pending);
                    self.fact(run, What::EffectCompleted { effect, attempt, result, assumed: false });
                    if let Some(sent) = sent {
                        self.fact(run, sent);
                    }
                }
                Err(_) if !is_open => return Err(Rejection::NotThisAttempt(attempt)),
                Err(error) => {
                    let (category, error) = (Category::Data, cut(&error));
                    let failure = Failure { category, error, permanent: false, retry_after_ms: None, timed_out: false };
                    self.failed(run, &pending, attempt, &failure);
                }
            },
            Outcome::NotBegun { why } if is_open => self.void(run, &pending, attempt, why),
            // One that was given up before, and did nothing: that it may have is no longer in the way.
            Outcome::NotBegun { why: error } | Outcome::Failed { error, .. } if !is_open && pending.may_have_been_done(attempt) => {
                self.void(run, &pending, attempt, error);
            }
            // What is said of the address is true whoever said it, and the attempt sent nothing if anybody still asks.
            Outcome::AddressRefused { address, error } if !is_open => {
                self.note(What::AddressRefused { effect, address: *address, channel: pending.target.clone() });
                if pending.may_have_been_done(attempt) {
                    self.void(run, &pending, attempt, error);
                }
            }
            // That an attempt failed which was given up before says nothing about the one that goes on.
            _ if !is_open => return Err(Rejection::NotThisAttempt(attempt)),
            Outcome::NotBegun { .. } => {}
            Outcome::NotDone if pending.looking => self.looked_up(run, &pending, attempt),
            Outcome::NotDone => {
                let error = "said to be not done by one that was asked to do it".to_owned();
                let failure = Failure { category: Category::System, error, permanent: false, retry_after_ms: None, timed_out: false };
                self.failed(run, &pending, attempt, &failure);
            }
            Outcome::Failed { category, error, permanent, retry_after_ms } => {
                let (category, permanent, retry_after_ms) = (*category, *permanent, *retry_after_ms);
                self.failed(run, &pending, attempt, &Failure { category, error: cut(error), permanent, retry_after_ms, timed_out: false });
            }
            Outcome::Unknown { error } => self.unknown(run, &pending, attempt, error),
            Outcome::AddressRefused { address, error } => {
                self.note(What::AddressRefused { effect, address: *address, channel: pending.target.clone() });
                let (category, error) = (Category::Data, cut(error));
                let failure = Failure { category, error, permanent: true, retry_after_ms: None, timed_out: false };
                self.failed(run, &pending, attempt, &failure);
            }
        }
        Ok(())
    }

    /// That a message went out is an event of the person's like those of its being opened, so that features and goals know of it.
    fn sent_event(&self, run: RunId, pending: &Pending) -> Option<What> {
        let event = match pending.target.as_str() {
            _ if !pending.is_message() => return None,
            "email" => "Email Sent",
            "sms" => "SMS Sent",
            "push" => "Push Notification Sent",
            "in_app" => "In-App Message Sent",
            _ => return None,
        };
        let state = self.state.runs.get(&run)?;
        let (visit, _) = state.effect(pending.id)?;
        let node = state.steps.get(&visit)?.node.clone();
        let properties = serde_json::json!({
            "campaign": state.workflow, "node": node, "purpose": pending.purpose, "message_id": pending.id.to_string(),
        });
        let depth = state.depth.saturating_add(1);
        Some(What::EventEmitted { visit, node, event: event.to_owned(), properties, depth })
    }

    /// The result as `returns` declares it, which whatever comes later was checked against. What a channel answers is its own.
    fn as_declared(&self, run: RunId, pending: &Pending, result: &Json) -> Result<Json, String> {
        let mut result = result.clone();
        if pending.is_message() {
            return Ok(result);
        }
        let Some(declared) = self.declared(run, pending.id) else { return Ok(result) };
        for (name, ty) in &declared.returns {
            let value = result.get_mut(name).filter(|value| !value.is_null());
            let Some(value) = value else { return Err(format!("the result has no `{name}`, which is to be a {}", ty.as_str())) };
            if !take_as(*ty, value) {
                return Err(format!("`{name}` of the result is to be a {}, this is {}", ty.as_str(), cut(&value.to_string())));
            }
        }
        Ok(result)
    }

    /// A result that is too large for the run's life: what the node declares of it, or else a word about it. It was done, and doing it
    /// again would give the same.
    fn bounded(&self, run: RunId, effect: EffectId, mut result: Json) -> Json {
        let Some(error) = too_large(&result) else { return result };
        let mut known = || {
            let declared = self.declared(run, effect).filter(|declared| !declared.returns.is_empty())?;
            let kept = declared.returns.keys().filter_map(|name| Some((name.clone(), result.get_mut(name)?.take())));
            let kept = Json::Object(kept.collect());
            too_large(&kept).is_none().then_some(kept)
        };
        let mut kept = known().unwrap_or_else(|| serde_json::json!({}));
        kept["error"] = Json::String(error);
        kept
    }

    /// What the node says of the effect that it asked for.
    fn declared(&self, run: RunId, effect: EffectId) -> Option<&definition::Effect> {
        let run = self.state.runs.get(&run)?;
        let (visit, _) = run.effect(effect)?;
        match &self.definition(run)?.find(&run.steps.get(&visit)?.node)?.1.kind {
            Kind::Effect(effect) => Some(effect),
            _ => None,
        }
    }

    /// A result of an effect that completed, was cancelled, or whose run is over: kept with the subject, and moves nothing.
    fn settle(&mut self, effect: EffectId, attempt: u32, outcome: &Outcome) -> Result<(), Rejection> {
        let settling = self.state.settling.iter().find(|settling| settling.effect == effect).ok_or(Rejection::NoSuchEffect)?;
        if !settling.outstanding.contains(&attempt) {
            return Err(Rejection::NotThisAttempt(attempt));
        }
        let (run, message) = (settling.run, settling.message.as_ref().map(|message| message.channel.clone()));
        if let (Outcome::AddressRefused { address, .. }, Some(channel)) = (outcome, message) {
            self.note(What::AddressRefused { effect, address: *address, channel });
        }
        let (outcome, result) = match outcome {
            Outcome::Done { result } if too_large(result).is_none() => (Settled::Done, result.clone()),
            Outcome::Done { .. } => (Settled::Done, Json::Null),
            Outcome::Failed { .. } | Outcome::NotDone | Outcome::NotBegun { .. } | Outcome::AddressRefused { .. } => {
                (Settled::NotDone, Json::Null)
            }
            Outcome::Unknown { .. } => (Settled::Unknown, Json::Null),
        };
        let what = What::EffectSettled { effect, run, attempt, outcome, result };
        self.note(what);
        Ok(())
    }

    /// An attempt did nothing and costs nothing: its place in the caps is free, and what only waited for knowing it goes on. Asked again once
    /// time has passed: while it stands still, asking again would be as vain.
    pub(super) fn void(&mut self, run: RunId, pending: &Pending, attempt: u32, why: &str) {
        let (effect, why) = (pending.id, cut(why));
        let retry_at = if self.context.clock == Clock::Event { self.at } else { self.at + SECOND_MS };
        let was_in_doubt = pending.doubt == Some(attempt) && pending.stuck.is_some();
        self.fact(run, What::AttemptVoid { effect, attempt, why, retry_at });
        // It was put on hold because nobody knew.
        let paused = self.state.runs.get(&run).and_then(|run| run.paused.as_ref());
        if was_in_doubt && paused.is_some_and(|paused| paused.by == WORKFLOW) {
            self.fact(run, What::RunResumed { by: WORKFLOW.to_owned() });
        }
    }

    pub(super) fn failed(&mut self, run: RunId, pending: &Pending, attempt: u32, failure: &Failure) {
        let (effect, category) = (pending.id, failure.category);
        let (node, retry, errors) = self.failure_policy(run, effect);
        let failures = pending.failures.saturating_add(1);
        // A look-up that fails has found out nothing, whatever failed.
        let in_vain = !pending.looking && errors.on(category) != OnError::Retry;
        let gives_up = failure.permanent || in_vain || failures >= retry.attempts;
        let retry_at = (!gives_up).then(|| {
            let backoff = backoff(&retry, effect, failures);
            self.at + failure.retry_after_ms.map_or(backoff, |asked| asked.clamp(backoff, retry.most_ms.max(HOUR_MS)))
        });
        let (error, timed_out) = (failure.error.clone(), failure.timed_out);
        if gives_up && errors.tells(category) {
            let often = if failures == 1 { "once".to_owned() } else { format!("{failures} times") };
            let text = format!("`{node}` failed {often}: {error}");
            self.fact(run, What::AttemptFailed { effect, attempt, category, error, timed_out, retry_at });
            return self.fact(run, What::Notified { effect, node, category, severity: category.severity(), text });
        }
        self.fact(run, What::AttemptFailed { effect, attempt, category, error, timed_out, retry_at });
    }

    /// It was never performed. The attempt of which that was not known counts as one that failed, so that attempts end and wait as ever.
    fn looked_up(&mut self, run: RunId, pending: &Pending, attempt: u32) {
        let effect = pending.id;
        let (_, retry, _) = self.failure_policy(run, effect);
        let retry_at = (pending.failures < retry.attempts).then(|| self.at + backoff(&retry, effect, pending.failures));
        self.fact(run, What::LookedUp { effect, attempt, retry_at });
    }

    /// Whether it was done is not known: what that means, the node has said.
    pub(super) fn unknown(&mut self, run: RunId, pending: &Pending, attempt: u32, error: &str) {
        if pending.unknown == super::super::vocabulary::Unknown::Retry || pending.looking {
            let failure =
                Failure { category: Category::System, error: cut(error), permanent: false, retry_after_ms: None, timed_out: true };
            return self.failed(run, pending, attempt, &failure);
        }
        self.fact(run, What::AttemptUnknown { effect: pending.id, attempt, error: cut(error) });
    }

    /// A person says what became of an effect, whose run goes on if it was paused.
    pub(super) fn resolve(&mut self, effect: EffectId, done: Option<&Json>, by: &str) -> Result<(), Rejection> {
        let (run, pending) = self.pending(effect)?;
        if pending.stuck.is_none() {
            return Err(Rejection::AlreadyDecided("its outcome is not in question".to_owned()));
        }
        if self.run(run)?.paused.is_some() {
            self.fact(run, What::RunResumed { by: by.to_owned() });
        }
        match done {
            Some(result) => {
                let (attempt, result) = (pending.attempts, result.clone());
                self.fact(run, What::EffectCompleted { effect, attempt, result, assumed: true });
            }
            None => {
                let attempt = pending.attempts.saturating_add(1);
                self.fact(run, What::AttemptMinted { effect, attempt, look_up: false, by_hand: true });
            }
        }
        Ok(())
    }

    /// What the node says about failures, with its name.
    fn failure_policy(&self, run: RunId, effect: EffectId) -> (String, Retry, Errors) {
        let once = Retry { attempts: 1, first_ms: SECOND_MS, most_ms: SECOND_MS, factor: 1.0 };
        let Some(run) = self.state.runs.get(&run) else { return (String::new(), once, Errors::default()) };
        let step = run.effect(effect).and_then(|(visit, _)| run.steps.get(&visit));
        let name = step.map(|step| step.node.clone()).unwrap_or_default();
        match self.definition(run).and_then(|definition| definition.find(&name)).map(|(_, node)| &node.kind) {
            Some(Kind::Effect(effect)) => (name, effect.retry, effect.errors),
            _ => (name, once, Errors::default()),
        }
    }
}

/// How long after its `failures`-th failure an effect is tried again: growing by the factor up to the most, of which a hash takes up to
/// half away so that what failed together does not come back together.
pub fn backoff(retry: &Retry, effect: EffectId, failures: u32) -> i64 {
    let most = retry.most_ms.max(1);
    let mut wait = retry.first_ms.max(1) as f64;
    for _ in 1..failures {
        wait *= retry.factor;
        if wait >= most as f64 {
            break;
        }
    }
    let wait = (wait as i64).clamp(1, most);
    let jitter = chance(&["backoff", &effect.to_string(), &failures.to_string()], wait.unsigned_abs() / 2);
    wait - i64::try_from(jitter).unwrap_or(0)
}

/// Whether a value is of a type; a whole number that was written with a fraction becomes one.
fn take_as(ty: Type, value: &mut Json) -> bool {
    match ty {
        Type::Bool => value.is_boolean(),
        Type::Float => value.is_number(),
        Type::Text => value.is_string(),
        Type::Time => json_time(value).is_some(),
        Type::Int | Type::Duration => {
            let whole = value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= (1i64 << 53) as f64);
            if let Some(whole) = whole.filter(|_| value.is_f64()) {
                *value = Json::from(whole as i64);
            }
            value.is_i64()
        }
    }
}

fn too_large(result: &Json) -> Option<String> {
    let bytes = bytes(result);
    (bytes > RESULT_BYTES_MAX).then(|| format!("the result is {bytes} bytes long, at most {RESULT_BYTES_MAX} are kept"))
}

/// About as long as a value is when it is written, without writing it.
pub(super) fn bytes(value: &Json) -> usize {
    match value {
        Json::Null | Json::Bool(_) | Json::Number(_) => 8,
        Json::String(text) => text.len() + 2,
        Json::Array(values) => 2 + values.iter().map(|value| bytes(value) + 1).sum::<usize>(),
        Json::Object(members) => 2 + members.iter().map(|(name, value)| name.len() + 4 + bytes(value)).sum::<usize>(),
    }
}

fn cut(error: &str) -> String {
    error.chars().take(ERROR_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_most_and_is_never_less_than_half() {
        let retry = Retry { attempts: 9, first_ms: 1_000, most_ms: 60_000, factor: 2.0 };
        for failures in 1..40 {
            let full = (1_000i64 << (failures - 1).min(20)).min(60_000);
            let wait = backoff(&retry, EffectId(7), failures);
            assert!(wait > full / 2 - 1 && wait <= full, "{failures}: {wait} of {full}");
        }
        assert_ne!(backoff(&retry, EffectId(7), 9), backoff(&retry, EffectId(8), 9), "two effects that failed together");
    }
}
