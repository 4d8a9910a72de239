//! What rows know of one run that has not ended, and how a fact changes it: the same moves as `workflow::evolve`, of names and times only.
//!
//! Runs and steps are here, their effects in `effect`. Invariant: a run loaded from its rows and one kept in memory go on the same, so
//! what is kept is only a short cut.

use super::effect::Effect;
use super::out::{ApprovalKey, Asked, Decided, Out};
use super::told::{Told, Visit};
use crate::workflow::RunId;

/// Longest result, error or comment that a row keeps, in characters. The journal has all of it.
pub(super) const TEXT_CHARS_MAX: usize = 500;
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
            effect.touched = true;
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

    pub(super) fn step(&mut self, visit: Visit, change: impl FnOnce(&mut Step)) {
        if let Some(step) = self.steps.iter_mut().find(|step| step.visit == visit) {
            change(step);
            step.touched = true;
        }
    }

    pub(super) fn doing(&mut self, visit: Visit, doing: Doing, until: Option<i64>) {
        self.step(visit, |step| (step.doing, step.until) = (doing, until));
    }

    fn awaits(&mut self, visit: Visit, what: String) {
        self.step(visit, |step| step.awaits = what);
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

pub(super) fn cut(text: &str, chars: usize) -> String {
    // As few bytes as that are no more characters.
    if text.len() <= chars {
        return text.to_owned();
    }
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end]).to_owned()
}
