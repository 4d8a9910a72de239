//! Facts to state: total and infallible. A fact about a run or step that is not there changes nothing but the count.

use serde_json::{Map, Value as Json, json};

use super::address::address_key;
use super::fact::{Fact, Settled, Visit, What};
use super::ids::{EffectId, RunId};
use super::state::{
    ARMS_MAX, Doing, Fork, GoalHit, Mark, OUTSTANDING_MAX, Open, Paused, Pending, RECENT_MAX, Run, SETTLING_MAX, Settling, Step, Stuck,
    Subject, Way,
};
use crate::domain::Millis;
use crate::permit::EffectKey;

pub fn evolve(subject: &mut Subject, fact: &Fact) {
    subject.facts = subject.facts.saturating_add(1);
    subject.now = subject.now.max(fact.at);
    let Some(id) = fact.run else {
        match &fact.what {
            What::AttributeSet { name, value, was } => {
                subject.attributes.insert(name.clone(), value.clone());
                // Whoever gets it again is told again.
                if let Some(address) = was.as_ref().and_then(|was| address_key(name, was)) {
                    subject.suppressions.forget(address);
                }
            }
            What::EffectSettled { effect, attempt, outcome, .. } => settle(subject, *effect, *attempt, *outcome, fact.at),
            other => evolve_subject(subject, other, fact.at),
        }
        return;
    };
    count(subject, id, fact);
    match &fact.what {
        What::RunStarted { .. } => start(subject, id, fact),
        What::RunEnded { .. } => end(subject, id, fact.at),
        What::StepCancelled { visit, .. } => cancel(subject, id, *visit),
        What::Redirected { to } => redirect(subject, id, to, fact.at),
        What::EffectCompleted { effect, attempt, result, assumed } => {
            // What was only assumed to be done may still answer.
            complete(subject, id, *effect, (!assumed).then_some(*attempt), result);
        }
        What::PermitRefused { effect, attempt, retry_at: None, .. } => refuse(subject, id, *effect, *attempt),
        What::EffectFailed { effect, error } => fail(subject, id, *effect, error),
        _ => {
            if let Some(run) = subject.runs.get_mut(&id) {
                evolve_run(run, fact);
            }
        }
    }
}

/// What belongs to the person and not to a run.
fn evolve_subject(subject: &mut Subject, what: &What, at: Millis) {
    match what {
        What::ConsentStated { said, stated, .. } => {
            for answer in stated {
                subject.consent.set(&answer.purpose, &answer.channel, answer.granted, *said);
            }
        }
        What::Suppressed { address, reason, said, until, .. } => {
            subject.suppressions.suppress(*address, *reason, *said, *until);
            // What failed has had its answer; counting begins anew.
            if let Some(held_by) = &mut subject.held_by {
                held_by.soft.clear();
            }
        }
        What::Unsuppressed { address, said, .. } => subject.suppressions.lift(*address, *said),
        What::Registered { holder, .. } => subject.held_by.get_or_insert_default().add(holder),
        What::Unregistered { holder, .. } => subject.held_by.get_or_insert_default().remove(holder),
        What::SoftBounced { message, said, .. } => subject.held_by.get_or_insert_default().fail(message, *said),
        What::Expecting { anonymous, absorb } => {
            if !subject.carried.contains(anonymous) {
                subject.expecting.entry(anonymous.clone()).or_insert(at);
            }
            if *absorb {
                subject.absorbing.entry(anonymous.clone()).or_insert(at);
            }
        }
        What::Absorbed { anonymous } => {
            subject.absorbing.remove(anonymous);
        }
        What::BroadcastBegun { broadcast, .. } => remember(subject, *broadcast),
        What::ExpectationEnded { anonymous } => {
            subject.expecting.remove(anonymous);
            subject.absorbing.remove(anonymous);
        }
        What::MergedInto { .. } => subject.give_away(),
        What::Carried { carry } => subject.take_in(carry),
        What::Held { at: due, input } => subject.keep(*due, input),
        What::Taken { count } => {
            subject.held.drain(..subject.held.len().min(*count as usize));
        }
        _ => {}
    }
}

/// What a fact about a message means to the caps: granted counts, used counts, known unused does not.
fn count(subject: &mut Subject, id: RunId, fact: &Fact) {
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
        What::ArmAssigned { node, arm, .. } => {
            let Some(run) = subject.runs.get(&id) else { return };
            let split = Subject::mark_key(&run.workflow, Some(node));
            if subject.arms.len() < ARMS_MAX || subject.arms.contains_key(&split) {
                subject.arms.insert(split, arm.clone());
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

fn start(subject: &mut Subject, id: RunId, fact: &Fact) {
    let What::RunStarted { workflow, digest, key, first, entry, vars, profile, depth, parent, .. } = &fact.what else { return };
    let mark = subject.marks.entry(Subject::mark_key(workflow, key.as_deref()));
    let mark = mark.or_insert_with(|| Box::new(Mark { run: id, started: fact.at, ended: None, runs: 0 }));
    **mark = Mark { run: id, started: fact.at, ended: None, runs: mark.runs.saturating_add(1) };
    subject.forget_marks();
    let mut run = Run {
        workflow: workflow.clone(),
        digest: digest.clone(),
        key: key.clone(),
        started: fact.at,
        entry: entry.clone(),
        profile: profile.clone(),
        vars: vars.clone(),
        results: Map::new(),
        arms: Default::default(),
        steps: Default::default(),
        forks: Default::default(),
        visits: 0,
        paused: None,
        goal: None,
        parent: parent.clone(),
        depth: *depth,
        matched: None,
        has_failed: false,
    };
    arrive(&mut run, first, None, Default::default(), fact.at);
    subject.runs.insert(id, Box::new(run));
}

/// Puts a new step at a node.
fn arrive(run: &mut Run, node: &str, branch: Option<Visit>, rounds: std::collections::BTreeMap<String, u32>, at: Millis) {
    run.visits = run.visits.saturating_add(1);
    let step = Step { node: node.to_owned(), branch, rounds, since: at, approved: String::new(), doing: Doing::Arriving };
    run.steps.insert(run.visits, Box::new(step));
}

fn end(subject: &mut Subject, id: RunId, at: Millis) {
    let Some(run) = subject.runs.remove(&id) else { return };
    for step in run.steps.into_values() {
        if let Doing::Effect(pending) = step.doing {
            let_go(subject, id, *pending);
        }
    }
    if let Some(mark) = subject.marks.get_mut(&Subject::mark_key(&run.workflow, run.key.as_deref()))
        && mark.run == id
    {
        mark.ended = Some(at);
    }
    remember(subject, id);
}

/// The same cause does not begin it again.
fn remember(subject: &mut Subject, id: RunId) {
    subject.recent.push_back(id);
    if subject.recent.len() > RECENT_MAX {
        subject.recent.pop_front();
    }
}

/// Nobody waits for the effect any more; its attempts may still answer.
fn let_go(subject: &mut Subject, run: RunId, pending: Pending) {
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

fn complete(subject: &mut Subject, id: RunId, effect: EffectId, attempt: Option<u32>, result: &Json) {
    let node = subject.runs.get(&id).and_then(|run| Some(run.steps.get(&run.effect(effect)?.0)?.node.clone()));
    let Some(mut pending) = take_effect(subject, id, effect, Doing::Ready(Way::Done)) else { return };
    pending.outstanding.retain(|other| Some(*other) != attempt);
    let_go(subject, id, pending);
    if let (Some(run), Some(node)) = (subject.runs.get_mut(&id), node) {
        run.results.insert(node, result.clone());
    }
}

fn refuse(subject: &mut Subject, id: RunId, effect: EffectId, attempt: u32) {
    let Some(mut pending) = take_effect(subject, id, effect, Doing::Ready(Way::Refused)) else { return };
    pending.outstanding.retain(|other| *other != attempt);
    let_go(subject, id, pending);
}

fn fail(subject: &mut Subject, id: RunId, effect: EffectId, error: &str) {
    let Some(pending) = take_effect(subject, id, effect, Doing::Ready(Way::Failed(error.to_owned()))) else { return };
    let_go(subject, id, pending);
}

fn cancel(subject: &mut Subject, id: RunId, visit: Visit) {
    let Some(step) = subject.runs.get_mut(&id).and_then(|run| run.steps.remove(&visit)) else { return };
    if let Doing::Effect(pending) = step.doing {
        let_go(subject, id, *pending);
    }
}

fn redirect(subject: &mut Subject, id: RunId, to: &str, at: Millis) {
    let visits: Vec<Visit> = subject.runs.get(&id).map(|run| run.steps.keys().copied().collect()).unwrap_or_default();
    for visit in visits {
        cancel(subject, id, visit);
    }
    if let Some(run) = subject.runs.get_mut(&id) {
        run.forks.clear();
        // Without a goal to go to it is a failure that leads there.
        run.has_failed |= run.goal.take().is_none();
        arrive(run, to, None, Default::default(), at);
    }
}

fn settle(subject: &mut Subject, effect: EffectId, attempt: u32, outcome: Settled, at: Millis) {
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

fn evolve_run(run: &mut Run, fact: &Fact) {
    match &fact.what {
        What::Moved { visit, to, .. } => {
            if let Some(step) = run.steps.remove(visit) {
                arrive(run, to, step.branch, step.rounds, fact.at);
                if let Some(next) = run.steps.get_mut(&run.visits) {
                    next.approved = step.approved;
                }
            }
        }
        What::ArmAssigned { visit, node, arm, at } => {
            run.arms.insert(node.clone(), arm.clone());
            doing(run, *visit, Doing::Ready(Way::Matched(*at)));
        }
        What::VariablesSet { visit, vars, .. } => {
            for (name, value) in vars {
                run.vars.insert(name.clone(), value.clone());
            }
            doing(run, *visit, Doing::Ready(Way::Done));
        }
        What::LoopEntered { visit, node, round, anew } => {
            run.results.insert(node.clone(), json!({ "round": round }));
            if let Some(step) = run.steps.get_mut(visit) {
                step.rounds.retain(|name, _| !anew.contains(name));
                step.rounds.insert(node.clone(), *round);
                step.doing = Doing::Ready(Way::Matched(0));
            }
        }
        What::LoopLeft { visit, node } => {
            if let Some(step) = run.steps.get_mut(visit) {
                step.rounds.remove(node);
                step.doing = Doing::Ready(Way::Done);
            }
        }
        What::Delayed { visit, until, .. } => doing(run, *visit, Doing::Delay { until: *until }),
        What::WaitBegun { visit, until, .. } => doing(run, *visit, Doing::Wait { until: *until }),
        What::WaitMatched { visit, node, matched, cause, payload, profile, .. } => {
            know(run, profile);
            run.matched = Some(cause.clone());
            run.results.insert(node.clone(), payload.clone());
            doing(run, *visit, Doing::Ready(Way::Matched(*matched)));
        }
        What::TimerFired { visit, .. } => doing(run, *visit, Doing::Ready(Way::Timeout)),
        What::ProfileAsked { visit, .. } => doing(run, *visit, Doing::Asking),
        What::ProfileSeen { profile } => see(run, profile),
        What::EventEmitted { visit, .. } => doing(run, *visit, Doing::Ready(Way::Done)),
        What::ApprovalRequested { visit, until, shown, .. } => {
            doing(run, *visit, Doing::Approval { until: *until, shown: shown.clone() });
        }
        What::ApprovalDecided { visit, node, approved, by, comment, provenance } => {
            run.results.insert(node.clone(), json!({ "approved": approved, "by": by, "comment": comment }));
            doing(run, *visit, Doing::Ready(if *approved { Way::Approved } else { Way::Rejected }));
            if let Some(step) = run.steps.get_mut(visit) {
                step.approved = if *approved { provenance.message.clone() } else { String::new() };
            }
        }
        What::StartRequested { visit, until, .. } => match until {
            Some(until) => doing(run, *visit, Doing::Child { until: Some(*until) }),
            None => doing(run, *visit, Doing::Ready(Way::Done)),
        },
        What::StartEnded { visit, ending, result } => {
            let way = match ending {
                super::fact::Ending::Completed | super::fact::Ending::Goal => Way::Done,
                other => Way::Failed(match result.get("skipped").and_then(Json::as_str) {
                    Some(reason) => format!("the run that it waited for did not begin: {}", reason.replace('_', " ")),
                    None => format!("the run that it waited for ended {}", other.as_str()),
                }),
            };
            if let Some(step) = run.steps.get_mut(visit) {
                run.results.insert(step.node.clone(), result.clone());
                step.doing = Doing::Ready(way);
            }
        }
        What::Forked { visit, node, join, needs, branches, failing_cancels } => {
            let Some(step) = run.steps.remove(visit) else { return };
            let fork = Fork {
                node: node.clone(),
                join: join.clone(),
                needs: *needs,
                branches: u32::try_from(branches.len()).unwrap_or(u32::MAX),
                done: 0,
                failed: 0,
                cancels: *failing_cancels,
                branch: step.branch,
                rounds: step.rounds,
            };
            run.forks.insert(*visit, Box::new(fork));
            for branch in branches {
                arrive(run, branch, Some(*visit), Default::default(), fact.at);
            }
        }
        What::BranchEnded { visit, failed } => {
            let Some(step) = run.steps.remove(visit) else { return };
            if let Some(fork) = step.branch.and_then(|fork| run.forks.get_mut(&fork)) {
                if *failed {
                    fork.failed = fork.failed.saturating_add(1);
                } else {
                    fork.done = fork.done.saturating_add(1);
                }
            }
        }
        What::Joined { fork, to, .. } => {
            if let Some(left) = leave_fork(run, *fork) {
                arrive(run, to, left.branch, left.rounds, fact.at);
            }
        }
        What::GoalReached { goal, to, .. } => {
            // Each goal once: the mark keeps it from being reached again.
            run.results.insert(goal.clone(), json!({}));
            run.goal = Some(GoalHit { name: goal.clone(), to: to.clone() });
        }
        What::RunPaused { reason, by } => {
            run.paused = Some(Paused { reason: reason.clone(), by: by.clone(), since: fact.at });
        }
        What::RunResumed { .. } => run.paused = None,
        _ => evolve_effect(run, fact),
    }
}

/// Takes a fork away, and those that its branches made.
fn leave_fork(run: &mut Run, fork: Visit) -> Option<Fork> {
    let left = run.forks.remove(&fork)?;
    let mut within = vec![fork];
    while let Some(outer) = within.pop() {
        within.extend(run.forks.iter().filter(|(_, inner)| inner.branch == Some(outer)).map(|(visit, _)| *visit));
        run.forks.retain(|_, inner| inner.branch != Some(outer));
    }
    Some(*left)
}

fn doing(run: &mut Run, visit: Visit, doing: Doing) {
    if let Some(step) = run.steps.get_mut(&visit) {
        step.doing = doing;
    }
}

/// What is newer of the profile takes the place of what was known.
fn know(run: &mut Run, profile: &Json) {
    match (&mut run.profile, profile) {
        (_, Json::Null) => {}
        (Json::Object(known), Json::Object(seen)) => known.extend(seen.iter().map(|(name, value)| (name.clone(), value.clone()))),
        (known, seen) => *known = seen.clone(),
    }
}

fn see(run: &mut Run, profile: &Json) {
    know(run, profile);
    for step in run.steps.values_mut() {
        if step.doing == Doing::Asking {
            step.doing = Doing::Ready(Way::Seen);
        }
    }
}

fn evolve_effect(run: &mut Run, fact: &Fact) {
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
