//! A run moves as far as it can: arrivals decided, finished steps left, forks joined, goals gone to. Looks at the state alone.

use super::super::definition::{Definition, Failing, Kind, Node, NodeIx, OnError};
use super::super::fact::{Visit, What};
use super::super::ids::RunId;
use super::super::state::{Doing, Pending, Run, Step, Stuck, Way};
use super::super::vocabulary::{Ending, Unknown};
use super::Turn;

/// Moves of one run in one decision. A run that moves on without waiting for anything is paused instead of holding up everyone.
const MOVES_MAX: u32 = 10_000;
/// About what the values may take that one decision writes down: emitted, shown, handed to effects, set.
const DECIDED_BYTES_MAX: usize = 1 << 20;

/// Who pauses a run that cannot go on by itself.
pub(super) const WORKFLOW: &str = "workflow";

impl Turn<'_, '_> {
    pub(super) fn move_all(&mut self) {
        for id in self.run_ids() {
            let mut moves = 0;
            let begun = self.bytes;
            while self.move_one(id) {
                moves += 1;
                if moves == MOVES_MAX {
                    self.pause_for(id, format!("{MOVES_MAX} moves without waiting for anything"));
                }
                if self.bytes - begun > DECIDED_BYTES_MAX {
                    self.pause_for(id, format!("it wrote more than {DECIDED_BYTES_MAX} bytes without waiting for anything"));
                }
                if self.state.runs.get(&id).is_none_or(|run| run.paused.is_some()) {
                    break;
                }
            }
        }
    }

    pub(super) fn pause_for(&mut self, id: RunId, reason: String) -> bool {
        self.fact(id, What::RunPaused { reason, by: WORKFLOW.to_owned() });
        true
    }

    /// Whether something moved.
    fn move_one(&mut self, id: RunId) -> bool {
        let Some(run) = self.state.runs.get(&id).filter(|run| run.paused.is_none()) else { return false };
        let next = run.steps.iter().find(|(_, step)| self.is_movable(step)).map(|(visit, _)| *visit);
        // Most runs have nothing to do most of the time.
        if next.is_none() && run.goal.is_none() && run.forks.is_empty() && !run.steps.is_empty() {
            return false;
        }
        let Some(definition) = self.definition(run) else {
            return self.pause_for(id, "its definition is not known here".to_owned());
        };
        if let Some(goal) = run.goal.clone() {
            match goal.to {
                Some(to) => self.fact(id, What::Redirected { to }),
                None => self.end(id, Ending::Goal, goal.name.clone(), goal.name),
            }
            return true;
        }
        if let Some((fork, ok)) = run.forks.iter().rev().find_map(|(visit, fork)| fork.verdict().map(|ok| (*visit, ok))) {
            return self.join(id, definition, fork, ok);
        }
        match next {
            Some(visit) => self.move_step(id, definition, visit),
            None if run.steps.is_empty() => {
                self.end(id, Ending::Failed, String::new(), "it was nowhere any more".to_owned());
                true
            }
            None => false,
        }
    }

    fn is_movable(&self, step: &Step) -> bool {
        match &step.doing {
            Doing::Arriving | Doing::Ready(_) => true,
            Doing::Delay { until } => *until <= self.at,
            Doing::Effect(pending) => self.is_effect_movable(pending),
            Doing::Wait { .. } | Doing::Asking | Doing::Approval { .. } | Doing::Child { .. } => false,
        }
    }

    fn is_effect_movable(&self, pending: &Pending) -> bool {
        if pending.stuck.is_some() || self.permit_is_due(pending) {
            return true;
        }
        let waits = pending.open.is_some() || pending.waits_for_merge(self.state.is_merging());
        !waits && pending.retry_at.is_some_and(|retry_at| retry_at <= self.at)
    }

    fn move_step(&mut self, id: RunId, definition: &Definition, visit: Visit) -> bool {
        let Some(step) = self.state.runs.get(&id).and_then(|run| run.steps.get(&visit)) else { return false };
        let Some((_, node)) = definition.find(&step.node) else {
            let reason = format!("its definition has no node `{}`", step.node);
            return self.pause_for(id, reason);
        };
        // Stands for a bug of ours that one run brings up.
        #[cfg(test)]
        assert!(&*node.name != "poison", "a decision that fails on purpose");
        match &step.doing {
            Doing::Arriving => self.arrive(id, definition, visit, node),
            Doing::Ready(way) => {
                let way = way.clone();
                self.leave(id, definition, visit, node, &way);
            }
            Doing::Delay { .. } => self.fact(id, What::TimerFired { visit, node: node.name.to_string() }),
            Doing::Effect(pending) => match pending.stuck {
                Some(stuck) => {
                    let pending = pending.clone();
                    self.unstick(id, definition, visit, node, &pending, stuck);
                }
                None if pending.open.is_some() => {
                    let pending = pending.clone();
                    self.decide_permit(id, &pending);
                }
                None => {
                    let (effect, attempt, look_up) = (pending.id, pending.attempts.saturating_add(1), pending.looking);
                    self.fact(id, What::AttemptMinted { effect, attempt, look_up, by_hand: false });
                }
            },
            Doing::Wait { .. } | Doing::Asking | Doing::Approval { .. } | Doing::Child { .. } => return false,
        }
        true
    }

    /// What becomes of an effect that does not go on by itself.
    fn unstick(&mut self, id: RunId, definition: &Definition, visit: Visit, node: &Node, pending: &Pending, stuck: Stuck) {
        let (effect, attempt, error) = (pending.id, pending.attempts, pending.last_error.clone().unwrap_or_default());
        match (stuck, pending.unknown) {
            // The last attempt is out somewhere and nobody could find out: never a failure.
            (Stuck::Failed, _) if pending.looking => {
                self.pause_for(id, format!("nobody knows whether `{}` was done: {error}", node.name));
            }
            (Stuck::Failed, _) if !pauses(&node.kind, pending) && self.failure_leads_on(id, definition, visit, node) => {
                self.fact(id, What::EffectFailed { effect, error });
            }
            (Stuck::Failed, _) => {
                self.pause_for(id, format!("`{}` failed: {error}", node.name));
            }
            (Stuck::Unknown, Unknown::AssumeDone) => {
                let result = serde_json::json!({});
                self.fact(id, What::EffectCompleted { effect, attempt, result, assumed: true });
            }
            (Stuck::Unknown, Unknown::LookUp | Unknown::Retry) => {
                let look_up = pending.unknown == Unknown::LookUp;
                self.fact(id, What::AttemptMinted { effect, attempt: attempt.saturating_add(1), look_up, by_hand: false });
            }
            (Stuck::Unknown, Unknown::AskAPerson) => {
                self.pause_for(id, format!("nobody knows whether `{}` was done: {error}", node.name));
            }
        }
    }

    /// Whether anything in the definition says where a failure of this step leads.
    fn failure_leads_on(&self, id: RunId, definition: &Definition, visit: Visit, node: &Node) -> bool {
        let own = match &node.kind {
            Kind::Effect(effect) => effect.on_failure.is_some(),
            Kind::Start(start) => start.on_failure.is_some(),
            _ => false,
        };
        let Some(run) = self.state.runs.get(&id) else { return false };
        own || (definition.on_failure.is_some() && !run.has_failed) || fails_branch(run, definition, visit)
    }

    pub(super) fn end(&mut self, id: RunId, ending: Ending, node: String, outcome: String) {
        let parent = self.state.runs.get(&id).and_then(|run| run.parent.clone());
        self.fact(id, What::RunEnded { ending, node, outcome, parent });
    }

    pub(super) fn go(&mut self, id: RunId, definition: &Definition, visit: Visit, from: &str, way: &str, to: NodeIx) {
        match definition.node(to) {
            Some(node) => {
                let to = node.name.to_string();
                self.fact(id, What::Moved { visit, from: from.to_owned(), way: way.to_owned(), to });
            }
            None => {
                self.pause_for(id, format!("`{from}` leads nowhere"));
            }
        }
    }

    /// A failure that the node itself does not handle.
    pub(super) fn fail(&mut self, id: RunId, definition: &Definition, visit: Visit, node: &Node, error: &str) {
        let Some(run) = self.state.runs.get(&id) else { return };
        if fails_branch(run, definition, visit) {
            return self.fact(id, What::BranchEnded { visit, failed: true });
        }
        // A failure on the way that failures take ends there.
        let has_failed = run.has_failed;
        match definition.on_failure.and_then(|to| definition.node(to)) {
            Some(to) if !has_failed => self.fact(id, What::Redirected { to: to.name.to_string() }),
            _ => {
                self.pause_for(id, format!("`{}` failed: {error}", node.name));
            }
        }
    }

    /// A fork that is decided: the branches still going are cancelled one by one, then it goes on.
    fn join(&mut self, id: RunId, definition: &Definition, visit: Visit, ok: bool) -> bool {
        let Some(run) = self.state.runs.get(&id) else { return false };
        let Some(fork) = run.forks.get(&visit) else { return false };
        let left = run.steps.iter().find(|(_, step)| is_within(run, step.branch, visit));
        if let Some((step_visit, step)) = left {
            let effect = match &step.doing {
                Doing::Effect(pending) => Some(pending.id),
                _ => None,
            };
            let visit = *step_visit;
            self.fact(id, What::StepCancelled { visit, effect });
            return true;
        }
        let (node, join) = (fork.node.clone(), fork.join.clone());
        if ok {
            let Some(Kind::Join { next, .. }) = definition.find(&join).map(|(_, node)| &node.kind) else {
                return self.pause_for(id, format!("`{join}` is no join"));
            };
            let to = definition.node(*next).map(|node| node.name.to_string()).unwrap_or_default();
            self.fact(id, What::Joined { fork: visit, node: join, to, way: "joined".to_owned() });
            return true;
        }
        let own = match definition.find(&node).map(|(_, node)| &node.kind) {
            Some(Kind::Parallel { on_failure, .. }) => *on_failure,
            _ => None,
        };
        match own.and_then(|to| definition.node(to)).map(|node| node.name.to_string()) {
            Some(to) => self.fact(id, What::Joined { fork: visit, node, to, way: "failed".to_owned() }),
            // The check sees to it that a parallel whose branches may fail says where that leads.
            None => return self.pause_for(id, format!("too few branches of `{node}` ended well")),
        }
        true
    }
}

/// Whether the node says that a failure of this category is a person's matter, wherever failures lead otherwise.
fn pauses(kind: &Kind, pending: &Pending) -> bool {
    let Kind::Effect(effect) = kind else { return false };
    pending.last_category.is_some_and(|category| effect.errors.on(category) == OnError::Pause)
}

/// Whether a failure of this step ends its branch instead of pausing the run.
fn fails_branch(run: &Run, definition: &Definition, visit: Visit) -> bool {
    let branch = run.steps.get(&visit).and_then(|step| step.branch);
    let Some(fork) = branch.and_then(|branch| run.forks.get(&branch)) else { return false };
    match definition.find(&fork.node).map(|(_, node)| &node.kind) {
        Some(Kind::Parallel { failing, .. }) => *failing != Failing::Pauses,
        _ => false,
    }
}

/// Whether a branch is of that fork, or of one inside of it.
fn is_within(run: &Run, mut branch: Option<Visit>, fork: Visit) -> bool {
    while let Some(at) = branch {
        if at == fork {
            return true;
        }
        // A fork's number is greater than that of the one it stands in, so this ends.
        branch = run.forks.get(&at).and_then(|inner| inner.branch).filter(|outer| *outer < at);
    }
    false
}

/// The label and target of the way on which a finished step leaves; `None` for ways that are not edges.
pub(super) fn way_out<'k>(kind: &'k Kind, way: &Way) -> Option<(&'k str, NodeIx)> {
    let done = |to: NodeIx| Some(("", to));
    match (kind, way) {
        (Kind::Effect(effect), Way::Done) => done(effect.next),
        (Kind::Effect(effect), Way::Refused) => Some(("refused", effect.on_refused.unwrap_or(effect.next))),
        (Kind::Effect(effect), Way::Failed(_)) => effect.on_failure.map(|to| ("failed", to)),
        (Kind::Start(start), Way::Done) => done(start.next),
        (Kind::Start(start), Way::Failed(_) | Way::Timeout) => start.on_failure.map(|to| ("failed", to)),
        (Kind::Delay { next, .. }, _) => Some(("elapsed", *next)),
        (Kind::WaitFor { any, next, .. }, Way::Matched(at)) => {
            let awaited = any.get(usize::from(*at))?;
            Some((awaited.what.name(), awaited.next.unwrap_or(*next)))
        }
        (Kind::WaitFor { on_timeout, .. }, _) => Some(("timeout", *on_timeout)),
        (Kind::Split { arms, .. }, Way::Matched(at)) => arms.get(usize::from(*at)).map(|arm| (arm.name.as_str(), arm.next)),
        (Kind::Approval(approval), Way::Approved) => Some(("approved", approval.on_approve)),
        (Kind::Approval(approval), _) => Some(("rejected", approval.on_reject)),
        (Kind::Loop { body, .. }, Way::Matched(_)) => Some(("again", *body)),
        (Kind::Loop { next, .. }, _) => Some(("enough", *next)),
        (Kind::Emit { next, .. } | Kind::Set { next, .. }, _) => done(*next),
        _ => None,
    }
}
