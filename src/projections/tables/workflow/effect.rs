//! What rows know of an effect, until the batch is over in which it ended, and how a fact changes it and the step that waits for it.

use super::out::Out;
use super::run::{Doing, Run, TEXT_CHARS_MAX, cut};
use super::told::{Told, Visit};
use crate::projections::bulk::Cell;
use crate::workflow::EffectId;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    pub place: i64,
    pub run: i64,
    pub visit: Visit,
    pub node: String,
    pub id: EffectId,
    pub performer: String,
    pub target: String,
    pub purpose: String,
    pub status: &'static str,
    pub attempts: i64,
    pub requested_at: i64,
    pub started_at: Option<i64>,
    pub finished_at: Option<i64>,
    pub next_try_at: Option<i64>,
    pub failures: i64,
    pub failed_at: Option<i64>,
    pub last_error: String,
    pub category: String,
    pub refusal_code: String,
    pub refusal: String,
    pub executor: String,
    pub performed: i64,
    pub assumed: bool,
    pub settled: String,
    pub result: String,
    pub message: Option<Message>,
    pub touched: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    pub address: String,
    pub template: String,
    pub permit_until: Option<i64>,
    pub sent_at: Option<i64>,
}

/// The names that statuses of effects have in rows.
pub const STATUSES: [&str; 9] = ["requested", "started", "retrying", "unknown", "done", "failed", "refused", "cancelled", "settled"];

impl Run {
    pub(super) fn fold_effect(&mut self, at: i64, place: i64, told: Told, out: &mut Out) {
        match told {
            Told::EffectRequested { visit, node, effect, by, target, input, purpose } => {
                let message = (by == "channel").then(|| message(input.as_deref()));
                self.effects.push(Effect::requested(place, self.place, visit, node, effect, by, target, purpose, at, message));
                self.doing(visit, Doing::Effect, None);
                self.step(visit, |step| step.effect = Some(place));
            }
            Told::AttemptMinted { effect, attempt } => {
                let Some(known) = self.effect(effect) else { return };
                (known.attempts, known.next_try_at) = (attempt, None);
                known.status = if attempt > 1 { "retrying" } else { "requested" };
                self.until(effect, None);
            }
            Told::EffectStarted { effect, executor } => {
                let Some(known) = self.effect(effect) else { return };
                (known.status, known.started_at, known.executor) = ("started", Some(at), executor);
            }
            Told::PermitGranted { effect, grant, to } => {
                let Some(known) = self.effect(effect) else { return };
                // What stood against it before does no longer.
                known.refusal_code.clear();
                known.refusal.clear();
                if let Some(message) = &mut known.message {
                    (message.permit_until, message.address) = (Some(grant.until), to);
                }
            }
            Told::PermitRefused { effect, code, reason, retry_at } => {
                let Some(known) = self.effect(effect) else { return };
                (known.refusal_code, known.refusal) = (code, cut(&reason, TEXT_CHARS_MAX));
                match retry_at {
                    Some(_) => known.status = "retrying",
                    None => known.finish("refused", at),
                }
                known.next_try_at = retry_at;
                self.until(effect, retry_at);
            }
            Told::EffectCompleted { effect, result, assumed } => {
                let Some(known) = self.effect(effect) else { return };
                known.complete(at, result.as_ref().map(|result| result.get()), assumed);
                self.ready(effect);
            }
            Told::AttemptFailed { effect, category, error, retry_at } => {
                let definition = self.definition;
                let Some(known) = self.effect(effect) else { return };
                known.status = if retry_at.is_some() { "retrying" } else { "failed" };
                known.failures += 1;
                (known.failed_at, known.next_try_at) = (Some(at), retry_at);
                known.last_error = cut(&error, TEXT_CHARS_MAX);
                let (node, target) = (known.node.clone(), known.target.clone());
                known.category = category.clone();
                self.until(effect, retry_at);
                out.counts.failed(&self.tenant, definition, at, node, target, category);
            }
            Told::AttemptUnknown { effect, error } => {
                let Some(known) = self.effect(effect) else { return };
                (known.status, known.last_error) = ("unknown", cut(&error, TEXT_CHARS_MAX));
            }
            Told::AttemptVoid { effect, attempt, why, retry_at } => {
                let Some(known) = self.effect(effect) else { return };
                known.last_error = cut(&why, TEXT_CHARS_MAX);
                // Of an earlier attempt than the one that is under way it changes nothing, unless that one only looked for it.
                if known.attempts == attempt || known.status == "unknown" {
                    (known.status, known.next_try_at) = ("retrying", Some(retry_at));
                    self.until(effect, Some(retry_at));
                }
            }
            Told::LookedUp { effect, retry_at } => {
                let Some(known) = self.effect(effect) else { return };
                known.status = if retry_at.is_some() { "retrying" } else { "failed" };
                known.next_try_at = retry_at;
                self.until(effect, retry_at);
            }
            Told::Notified { node, category, severity, text } => {
                let numbers = [Cell::Int(place), Cell::Int(self.place), Cell::Text(node), Cell::Int(at)];
                out.notifications.extend(numbers.into_iter().chain([category, severity, cut(&text, TEXT_CHARS_MAX)].map(Cell::Text)));
            }
            Told::EffectFailed { effect, error } => {
                let Some(known) = self.effect(effect) else { return };
                known.last_error = cut(&error, TEXT_CHARS_MAX);
                known.finish("failed", at);
                self.ready(effect);
            }
            _ => {}
        }
    }

    fn effect(&mut self, id: EffectId) -> Option<&mut Effect> {
        let effect = self.effects.iter_mut().find(|effect| effect.id == id)?;
        effect.touched = true;
        Some(effect)
    }

    /// The visit of the step that waits for an effect.
    fn visit_of(&self, id: EffectId) -> Option<Visit> {
        let place = self.effects.iter().find(|effect| effect.id == id)?.place;
        self.steps.iter().find(|step| step.effect == Some(place)).map(|step| step.visit)
    }

    fn until(&mut self, effect: EffectId, until: Option<i64>) {
        if let Some(visit) = self.visit_of(effect) {
            self.doing(visit, Doing::Effect, until);
        }
    }

    fn ready(&mut self, effect: EffectId) {
        if let Some(visit) = self.visit_of(effect) {
            self.doing(visit, Doing::Ready, None);
        }
    }
}

impl Effect {
    #[allow(clippy::too_many_arguments)]
    fn requested(
        place: i64,
        run: i64,
        visit: Visit,
        node: String,
        id: EffectId,
        performer: String,
        target: String,
        purpose: Option<String>,
        at: i64,
        message: Option<Message>,
    ) -> Effect {
        Effect {
            place,
            run,
            visit,
            node,
            id,
            performer,
            target,
            purpose: purpose.unwrap_or_default(),
            status: "requested",
            attempts: 0,
            requested_at: at,
            started_at: None,
            finished_at: None,
            next_try_at: None,
            failures: 0,
            failed_at: None,
            last_error: String::new(),
            category: String::new(),
            refusal_code: String::new(),
            refusal: String::new(),
            executor: String::new(),
            performed: 0,
            assumed: false,
            settled: String::new(),
            result: String::new(),
            message,
            touched: true,
        }
    }

    pub(super) fn finish(&mut self, status: &'static str, at: i64) {
        (self.status, self.finished_at, self.next_try_at) = (status, Some(at), None);
    }

    fn complete(&mut self, at: i64, result: Option<&str>, assumed: bool) {
        self.finish("done", at);
        self.assumed = assumed;
        self.result = result.map(|result| cut(result, TEXT_CHARS_MAX)).unwrap_or_default();
        if assumed {
            return;
        }
        self.performed += 1;
        if let Some(message) = &mut self.message {
            message.sent_at = message.sent_at.or(Some(at));
        }
    }

    /// An answer that came when nobody waited for it any more.
    pub fn settle(&mut self, at: i64, outcome: &str, result: Option<&str>) {
        self.touched = true;
        self.settled = outcome.to_owned();
        if self.status != "done" {
            self.status = "settled";
            self.finished_at = self.finished_at.or(Some(at));
        }
        if outcome != "done" {
            return;
        }
        self.performed += 1;
        self.result = result.map(|result| cut(result, TEXT_CHARS_MAX)).unwrap_or_default();
        if let Some(message) = &mut self.message {
            message.sent_at = message.sent_at.or(Some(at));
        }
    }
}

/// What a message's input says of itself.
fn message(input: Option<&serde_json::value::RawValue>) -> Message {
    #[derive(serde::Deserialize)]
    struct Input<'a> {
        #[serde(borrow, default)]
        to: Option<&'a serde_json::value::RawValue>,
        #[serde(borrow, default)]
        template: Option<&'a serde_json::value::RawValue>,
    }
    let input: Option<Input<'_>> = input.and_then(|input| serde_json::from_str(input.get()).ok());
    let text = |value: Option<&serde_json::value::RawValue>| value.map(|value| plain(value.get())).unwrap_or_default();
    input.map_or_else(Message::default, |input| Message { address: text(input.to), template: text(input.template), ..Message::default() })
}

/// A JSON text without its quotes, null as nothing, anything else as it is written.
fn plain(json: &str) -> String {
    match serde_json::from_str(json) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(serde_json::Value::Null) => String::new(),
        _ => cut(json, TEXT_CHARS_MAX),
    }
}
