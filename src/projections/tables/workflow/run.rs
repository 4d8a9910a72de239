//! What rows know of one run that has not ended, and how a fact changes it: the same moves as `workflow::evolve`, of names and times only.
//!
//! Invariant: a run loaded from its rows and one kept in memory go on the same, so what is kept is only a short cut.

use super::out::{ApprovalKey, Asked, Decided, Out};
use super::told::{Told, Visit};
use crate::projections::bulk::Cell;
use crate::workflow::{EffectId, RunId};

/// Longest result, error or comment that a row keeps, in characters. The journal has all of it.
const TEXT_CHARS_MAX: usize = 500;
/// The same of what an approval shows: people decide by it.
const SHOWS_CHARS_MAX: usize = 16 * 1024;

#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub place: i64,
    pub id: RunId,
    pub tenant: String,
    pub definition: i64,
    pub subject: String,
    pub key: Option<String>,
    pub cause: String,
    pub parent: Option<(String, String)>,
    pub started_at: i64,
    /// When and how.
    pub ended: Option<(i64, String)>,
    pub outcome: String,
    /// Where it ended.
    pub last_nodes: String,
    pub since: i64,
    pub updated_at: i64,
    pub paused: Option<Paused>,
    /// The last that was reached.
    pub goal: Option<(String, i64)>,
    pub visits: Visit,
    pub facts: i64,
    /// Those open, in the order of their visits.
    pub steps: Vec<Step>,
    /// Those open, and those that ended in this batch.
    pub effects: Vec<Effect>,
    pub arms: Vec<Arm>,
    /// Whether its row is to be written.
    pub touched: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paused {
    pub at: i64,
    pub by: String,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub visit: Visit,
    pub node: String,
    pub doing: Doing,
    pub since: i64,
    pub until: Option<i64>,
    pub awaits: String,
    /// The place of its effect.
    pub effect: Option<i64>,
    /// Whether a row has it, and whether that row is to be written.
    pub stored: bool,
    pub touched: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    Arriving,
    Delay,
    Wait,
    Ask,
    Effect,
    Approval,
    Start,
    Ready,
}

impl Doing {
    const ALL: [Doing; 8] =
        [Doing::Arriving, Doing::Delay, Doing::Wait, Doing::Ask, Doing::Effect, Doing::Approval, Doing::Start, Doing::Ready];

    pub fn as_str(self) -> &'static str {
        match self {
            Doing::Arriving => "arriving",
            Doing::Delay => "delay",
            Doing::Wait => "wait",
            Doing::Ask => "ask",
            Doing::Effect => "effect",
            Doing::Approval => "approval",
            Doing::Start => "start",
            Doing::Ready => "ready",
        }
    }

    pub fn named(text: &str) -> Doing {
        Doing::ALL.into_iter().find(|doing| doing.as_str() == text).unwrap_or(Doing::Arriving)
    }

    fn is_waiting(self) -> bool {
        matches!(self, Doing::Delay | Doing::Wait | Doing::Ask | Doing::Approval | Doing::Start)
    }
}

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

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arm {
    pub node: String,
    pub arm: String,
    pub at: i64,
    pub converted: Option<(String, i64)>,
    pub touched: bool,
}

impl Run {
    #[allow(clippy::too_many_arguments)]
    pub fn started(
        place: i64,
        id: RunId,
        (tenant, subject): (String, String),
        definition: i64,
        key: Option<String>,
        cause: String,
        parent: Option<(String, String)>,
        at: i64,
    ) -> Run {
        Run {
            place,
            id,
            tenant,
            definition,
            subject,
            key,
            cause,
            parent,
            started_at: at,
            ended: None,
            outcome: String::new(),
            last_nodes: String::new(),
            since: at,
            updated_at: at,
            paused: None,
            goal: None,
            visits: 0,
            facts: 1,
            steps: Vec::new(),
            effects: Vec::new(),
            arms: Vec::new(),
            touched: true,
        }
    }

    pub fn status(&self) -> &str {
        match (&self.ended, &self.paused) {
            (Some((_, ending)), _) => ending,
            (None, Some(_)) => "paused",
            (None, None) if !self.steps.is_empty() && self.steps.iter().all(|step| step.doing.is_waiting()) => "waiting",
            (None, None) => "running",
        }
    }

    /// The nodes it is at, or ended at.
    pub fn nodes(&self) -> String {
        match &self.ended {
            Some(_) => self.last_nodes.clone(),
            None => self.steps.iter().map(|step| step.node.as_str()).collect::<Vec<_>>().join(", "),
        }
    }

    /// `place` is the fact's own.
    pub fn fold(&mut self, at: i64, place: i64, told: Told, out: &mut Out) {
        self.facts += 1;
        self.updated_at = at;
        self.touched = true;
        match told {
            Told::Moved { visit, way, to } => {
                let way = if way.is_empty() { "done" } else { way.as_str() };
                self.leave(visit, way, at, out);
                self.arrive(to, at, out);
            }
            Told::ArmAssigned { visit, node, arm } => {
                self.arms.retain(|other| other.node != node);
                self.arms.push(Arm { node, arm, at, converted: None, touched: true });
                self.doing(visit, Doing::Ready, None);
            }
            Told::VariablesSet { visit }
            | Told::LoopEntered { visit }
            | Told::LoopLeft { visit }
            | Told::WaitMatched { visit }
            | Told::TimerFired { visit }
            | Told::EventEmitted { visit }
            | Told::StartEnded { visit } => self.doing(visit, Doing::Ready, None),
            Told::Delayed { visit, until } => self.doing(visit, Doing::Delay, Some(until)),
            Told::WaitBegun { visit, until, awaits } => {
                self.doing(visit, Doing::Wait, Some(until));
                self.awaits(visit, awaits.join(" or "));
            }
            Told::ProfileAsked { visit } => self.doing(visit, Doing::Ask, None),
            Told::StartRequested { visit, workflow, subject, until } => match until {
                Some(until) => {
                    self.doing(visit, Doing::Start, Some(until));
                    self.awaits(visit, format!("end of {workflow} of {subject}"));
                }
                None => self.doing(visit, Doing::Ready, None),
            },
            Told::ApprovalRequested { visit, node, who, shows, until, shown } => {
                self.doing(visit, Doing::Approval, Some(until));
                self.awaits(visit, format!("decision of {who}"));
                let shows = shows.map(|shows| cut(shows.get(), SHOWS_CHARS_MAX)).unwrap_or_default();
                out.ask(self.approval(visit), Asked { node, who, shows, shown, at, deadline: until });
            }
            Told::ApprovalDecided { visit, approved, by, comment, provenance } => {
                self.doing(visit, Doing::Ready, None);
                let status = if approved { "approved" } else { "rejected" };
                let comment = cut(&comment, TEXT_CHARS_MAX);
                out.decide(self.approval(visit), Decided { status, at, by, link: provenance.link, comment });
            }
            // A click that decided nothing, as one after the deadline.
            Told::ApprovalLate { visit } | Told::ApprovalRefused { visit } => out.late(self.approval(visit)),
            Told::Forked { visit, branches } => {
                self.leave(visit, "forked", at, out);
                for branch in branches {
                    self.arrive(branch, at, out);
                }
            }
            Told::BranchEnded { visit, failed } => self.leave(visit, if failed { "failed" } else { "joined" }, at, out),
            Told::StepCancelled { visit } => self.leave(visit, "cancelled", at, out),
            Told::Joined { to } => self.arrive(to, at, out),
            Told::GoalReached { goal } => {
                for arm in self.arms.iter_mut().filter(|arm| arm.converted.is_none()) {
                    (arm.converted, arm.touched) = (Some((goal.clone(), at)), true);
                }
                self.goal = Some((goal, at));
            }
            Told::Redirected { to } => {
                let is_goal = self.goal.as_ref().is_some_and(|(_, reached)| *reached == at);
                let way = if is_goal { "goal" } else { "failed" };
                self.leave_all(way, at, out);
                self.arrive(to, at, out);
            }
            Told::RunPaused { reason, by } => {
                self.paused = Some(Paused { at, by, reason: cut(&reason, TEXT_CHARS_MAX) });
                self.since = at;
            }
            Told::RunResumed {} => {
                self.paused = None;
                self.since = at;
            }
            Told::RunEnded { ending, outcome } => {
                self.last_nodes = self.nodes();
                self.leave_all(&ending, at, out);
                self.ended = Some((at, ending));
                self.outcome = cut(&outcome, TEXT_CHARS_MAX);
                self.since = at;
                self.paused = None;
            }
            told => self.fold_effect(at, place, told, out),
        }
    }

    fn fold_effect(&mut self, at: i64, place: i64, told: Told, out: &mut Out) {
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
            Told::LookedUp { effect } => {
                let Some(known) = self.effect(effect) else { return };
                known.status = "retrying";
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

    /// Puts a new step at a node.
    pub fn arrive(&mut self, node: String, at: i64, out: &mut Out) {
        out.counts.entered(&self.tenant, self.definition, self.started_at, &node);
        self.visits += 1;
        self.since = at;
        self.steps.push(Step {
            visit: self.visits,
            node,
            doing: Doing::Arriving,
            since: at,
            until: None,
            awaits: String::new(),
            effect: None,
            stored: false,
            touched: true,
        });
    }

    fn leave(&mut self, visit: Visit, way: &str, at: i64, out: &mut Out) {
        let Some(index) = self.steps.iter().position(|step| step.visit == visit) else { return };
        let step = self.steps.remove(index);
        out.counts.left(&self.tenant, self.definition, self.started_at, &step.node, way);
        if step.doing == Doing::Approval {
            out.decide(self.approval(visit), Decided::cancelled(at));
        }
        if let Some(place) = step.effect
            && let Some(effect) = self.effects.iter_mut().find(|effect| effect.place == place && effect.finished_at.is_none())
        {
            effect.finish("cancelled", at);
        }
        if step.stored {
            out.gone_steps.push((self.place, visit));
        }
    }

    fn leave_all(&mut self, way: &str, at: i64, out: &mut Out) {
        let visits: Vec<Visit> = self.steps.iter().map(|step| step.visit).collect();
        for visit in visits {
            self.leave(visit, way, at, out);
        }
    }

    fn step(&mut self, visit: Visit, change: impl FnOnce(&mut Step)) {
        if let Some(step) = self.steps.iter_mut().find(|step| step.visit == visit) {
            change(step);
            step.touched = true;
        }
    }

    fn doing(&mut self, visit: Visit, doing: Doing, until: Option<i64>) {
        self.step(visit, |step| (step.doing, step.until) = (doing, until));
    }

    fn awaits(&mut self, visit: Visit, what: String) {
        self.step(visit, |step| step.awaits = what);
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

    fn approval(&self, visit: Visit) -> ApprovalKey {
        (self.place, visit)
    }

    /// After its rows were written.
    pub fn written(&mut self) {
        self.touched = false;
        self.effects.retain_mut(|effect| {
            effect.touched = false;
            effect.finished_at.is_none()
        });
        self.steps.iter_mut().for_each(|step| (step.stored, step.touched) = (true, false));
        self.arms.iter_mut().for_each(|arm| arm.touched = false);
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

    fn finish(&mut self, status: &'static str, at: i64) {
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

fn cut(text: &str, chars: usize) -> String {
    // As few bytes as that are no more characters.
    if text.len() <= chars {
        return text.to_owned();
    }
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end]).to_owned()
}
