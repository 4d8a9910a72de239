//! What people do with runs: pause, resume, cancel, terminate, retry, approve; and time.

use super::super::definition::{Kind, Silence};
use super::super::fact::{Visit, What};
use super::super::ids::RunId;
use super::super::input::Rejection;
use super::super::question::Provenance;
use super::super::state::{Doing, Pending, Run, Step, Stuck};
use super::super::vocabulary::{Category, Ending, Unknown};
use super::Turn;

/// Why a decision is not taken that its giver gave to another question.
const ASKED_ANEW: &str = "it has been asked anew since, and what is shown now is another question";

/// What a person says to an approval.
pub(super) struct Decision<'i> {
    pub(super) node: &'i str,
    pub(super) approved: bool,
    pub(super) by: &'i str,
    pub(super) comment: &'i str,
    pub(super) visit: Option<Visit>,
    pub(super) provenance: &'i Provenance,
}

impl Turn<'_, '_> {
    pub(super) fn pause(&mut self, id: RunId, by: &str, reason: &str) -> Result<(), Rejection> {
        if self.run(id)?.paused.is_some() {
            return Err(Rejection::Paused);
        }
        self.fact(id, What::RunPaused { reason: reason.to_owned(), by: by.to_owned() });
        Ok(())
    }

    /// Goes on, and tries again what was out of attempts: after a fix, one command over all that are paused is enough.
    pub(super) fn resume(&mut self, id: RunId, by: &str) -> Result<(), Rejection> {
        if self.run(id)?.paused.is_none() {
            return Err(Rejection::NotPaused);
        }
        self.fact(id, What::RunResumed { by: by.to_owned() });
        self.mint(id, |pending| pending.stuck == Some(Stuck::Failed));
        self.ask_again(id);
        self.due_of(id);
        Ok(())
    }

    pub(super) fn retry(&mut self, id: RunId, by: &str) -> Result<(), Rejection> {
        let (run, now) = (self.run(id)?, self.at);
        // What waits for its next try does not wait for it any longer: a policy or a server may be another by now.
        let is_to_retry = |pending: &Pending| {
            let waits = pending.open.is_none() && pending.retry_at.is_some_and(|at| at > now);
            pending.stuck.is_some() || waits
        };
        if !run.effects().any(is_to_retry) {
            return Err(Rejection::NothingToRetry);
        }
        if run.paused.is_some() {
            self.fact(id, What::RunResumed { by: by.to_owned() });
        }
        self.mint(id, is_to_retry);
        self.due_of(id);
        Ok(())
    }

    /// Mints by hand. What may have been done (`unknown`) is tried again only by someone who says so.
    fn mint(&mut self, id: RunId, is_meant: impl Fn(&Pending) -> bool) {
        let Some(run) = self.state.runs.get(&id) else { return };
        let meant = run.effects().filter(|pending| is_meant(pending));
        let minted = meant.map(|pending| (pending.id, pending.attempts.saturating_add(1), pending.looking));
        for (effect, attempt, look_up) in minted.collect::<Vec<_>>() {
            self.fact(id, What::AttemptMinted { effect, attempt, look_up, by_hand: true });
        }
    }

    /// Approvals whose deadline passed and for which silence pauses are requested anew.
    fn ask_again(&mut self, id: RunId) {
        let Some(run) = self.state.runs.get(&id) else { return };
        let Some(definition) = self.definition(run) else { return };
        let passed = run.steps.iter().filter(|(_, step)| matches!(step.doing, Doing::Approval { until, .. } if until <= self.at));
        let passed: Vec<_> =
            passed.filter(|(_, step)| self.silence(run, step) == Silence::Pauses).map(|(v, s)| (*v, s.node.clone())).collect();
        for (visit, node) in passed {
            if let Some((_, node)) = definition.find(&node) {
                self.arrive(id, definition, visit, node);
            }
        }
    }

    pub(super) fn stop(&mut self, id: RunId, ending: Ending, by: &str, reason: &str) -> Result<(), Rejection> {
        let run = self.run(id)?;
        let node = run.steps.values().next().map(|step| step.node.clone()).unwrap_or_default();
        let outcome = if reason.is_empty() { format!("by {by}") } else { format!("by {by}: {reason}") };
        let parent = run.parent.clone();
        self.fact(id, What::RunEnded { ending, node, outcome, parent });
        Ok(())
    }

    pub(super) fn approval(&mut self, id: RunId, given: &Decision<'_>) -> Result<(), Rejection> {
        let run = self.run(id)?;
        let node = given.node;
        let mut open = run.steps.iter().filter_map(|(visit, step)| match &step.doing {
            Doing::Approval { until, shown } if step.node == *node => Some((*visit, *until, shown.as_str())),
            _ => None,
        });
        let Some(newest) = open.clone().next_back() else {
            return Err(
                match run.results.get(node).and_then(|result| Some((result.get("approved")?.as_bool()?, result.get("by")?.as_str()?))) {
                    Some((true, by)) => Rejection::AlreadyDecided(format!("approved by {by}")),
                    Some((false, by)) => Rejection::AlreadyDecided(format!("rejected by {by}")),
                    None => Rejection::NoSuchApproval(node.to_owned()),
                },
            );
        };
        let meant = match given.visit {
            None => Some(newest),
            Some(visit) => open.find(|(of, ..)| *of == visit),
        };
        let (node, approved, by) = (node.to_owned(), given.approved, given.by.to_owned());
        let (comment, provenance) = (given.comment.to_owned(), given.provenance.clone());
        let is_shown = |shown: &str| shown.is_empty() || provenance.shown.is_empty() || shown == provenance.shown;
        let Some((visit, until, _)) = meant.filter(|(.., shown)| is_shown(shown)) else {
            // Nobody decides what they have not seen; that someone clicked is told all the same.
            let (visit, reason) = (given.visit.unwrap_or(newest.0), ASKED_ANEW.to_owned());
            self.fact(id, What::ApprovalRefused { visit, node, approved, by, reason, provenance });
            return Ok(());
        };
        if self.at >= until {
            // The deadline decides, whether or not its timer has been heard yet; that someone clicked is told all the same.
            self.fact(id, What::ApprovalLate { visit, by, approved, provenance });
            self.due_of(id);
            return Ok(());
        }
        self.fact(id, What::ApprovalDecided { visit, node, approved, by, comment, provenance });
        Ok(())
    }

    /// Everything that time alone decides, by now.
    pub(super) fn due(&mut self) {
        self.expect_no_longer();
        for id in self.run_ids() {
            self.due_of(id);
        }
    }

    pub(super) fn due_of(&mut self, id: RunId) {
        let Some(run) = self.state.runs.get(&id) else { return };
        if run.paused.is_some() {
            return;
        }
        let waking = self.state.waking(self.context.clock);
        let mut due: Vec<_> = run.steps.iter().filter_map(|(visit, step)| step.wake(waking).map(|at| (at, *visit))).collect();
        due.retain(|(at, _)| *at <= self.heard());
        due.sort_unstable();
        for (_, visit) in due {
            // What fired first may have paused the run: the rest is due when it resumes.
            if self.state.runs.get(&id).is_none_or(|run| run.paused.is_some()) {
                return;
            }
            self.fire(id, visit);
        }
    }

    fn fire(&mut self, id: RunId, visit: u64) {
        let Some(run) = self.state.runs.get(&id) else { return };
        let Some(step) = run.steps.get(&visit) else { return };
        let node = step.node.clone();
        match &step.doing {
            Doing::Delay { .. } | Doing::Wait { .. } | Doing::Child { .. } => self.fact(id, What::TimerFired { visit, node }),
            Doing::Approval { .. } => match self.silence(run, step) {
                Silence::Pauses => {
                    let reason = format!("nobody decided `{node}` in time");
                    self.fact(id, What::RunPaused { reason, by: "deadline".to_owned() });
                }
                silence => {
                    let (approved, by) = (silence == Silence::Approves, "silence".to_owned());
                    let (comment, provenance) = (String::new(), Provenance::default());
                    self.fact(id, What::ApprovalDecided { visit, node, approved, by, comment, provenance });
                }
            },
            Doing::Effect(pending) => {
                let pending = pending.clone();
                match &pending.open {
                    _ if self.permit_is_due(&pending) => self.decide_permit(id, &pending),
                    Some(open) if pending.times_out(open).is_none_or(|given_up| given_up > self.at) => {}
                    // Without its permit it was not sent.
                    Some(open) if pending.is_under_way() && !open.look_up && pending.unknown != Unknown::Retry => {
                        let attempt = open.attempt;
                        self.unknown(id, &pending, attempt, "no answer in time");
                    }
                    Some(open) => self.failed(id, &pending, open.attempt, &timed_out()),
                    None => {
                        let attempt = pending.attempts.saturating_add(1);
                        self.fact(id, What::AttemptMinted { effect: pending.id, attempt, look_up: pending.looking, by_hand: false });
                    }
                }
            }
            Doing::Arriving | Doing::Asking | Doing::Ready(_) => {}
        }
    }

    fn silence(&self, run: &Run, step: &Step) -> Silence {
        match self.definition(run).and_then(|definition| definition.find(&step.node)).map(|(_, node)| &node.kind) {
            Some(Kind::Approval(approval)) => approval.silence,
            _ => Silence::Pauses,
        }
    }
}

fn timed_out() -> super::effects::Failure {
    super::effects::Failure {
        category: Category::System,
        error: "no answer in time".to_owned(),
        permanent: false,
        retry_after_ms: None,
        timed_out: true,
    }
}
