//! Facts to state: total and infallible. A fact about a run or step that is not there changes nothing but the count.
//!
//! Subjects, runs and steps are here; what a step's effect goes through is in `effects`.

mod effects;

use serde_json::{Map, Value as Json, json};

use super::address::address_left;
use super::fact::{Fact, Visit, What};
use super::ids::RunId;
use super::state::{ARMS_MAX, Doing, Fork, GoalHit, Mark, Paused, RECENT_MAX, Run, Step, Subject, Way};
use super::vocabulary::Ending;
use crate::domain::Millis;

pub fn evolve(subject: &mut Subject, fact: &Fact) {
    subject.facts = subject.facts.saturating_add(1);
    subject.now = subject.now.max(fact.at);
    let Some(id) = fact.run else {
        match &fact.what {
            What::AttributeSet { name, value, was } => {
                subject.attributes.insert(name.clone(), value.clone());
                // Whoever gets it again is told again.
                if let Some(address) = was.as_ref().and_then(|was| address_left(name, was, value)) {
                    subject.suppressions.forget(address);
                }
            }
            What::EffectSettled { effect, attempt, outcome, .. } => effects::settle(subject, *effect, *attempt, *outcome, fact.at),
            other => evolve_subject(subject, other, fact.at),
        }
        return;
    };
    effects::count(subject, id, fact);
    if let What::ArmAssigned { node, arm, .. } = &fact.what {
        keep_arm(subject, id, node, arm);
    }
    match &fact.what {
        What::RunStarted { .. } => start(subject, id, fact),
        What::RunEnded { .. } => end(subject, id, fact.at),
        What::StepCancelled { visit, .. } => cancel(subject, id, *visit),
        What::Redirected { to } => redirect(subject, id, to, fact.at),
        What::EffectCompleted { effect, attempt, result, assumed } => {
            // What was only assumed to be done may still answer.
            effects::complete(subject, id, *effect, (!assumed).then_some(*attempt), result);
        }
        What::PermitRefused { effect, attempt, retry_at: None, .. } => effects::refuse(subject, id, *effect, *attempt),
        What::EffectFailed { effect, error } => effects::fail(subject, id, *effect, error),
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

/// Whoever was drawn once stays where they were drawn, in whatever run.
fn keep_arm(subject: &mut Subject, id: RunId, node: &str, arm: &str) {
    let Some(run) = subject.runs.get(&id) else { return };
    let split = Subject::mark_key(&run.workflow, Some(node));
    if subject.arms.len() < ARMS_MAX || subject.arms.contains_key(&split) {
        subject.arms.insert(split, arm.to_owned());
    }
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
            effects::let_go(subject, id, *pending);
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

fn cancel(subject: &mut Subject, id: RunId, visit: Visit) {
    let Some(step) = subject.runs.get_mut(&id).and_then(|run| run.steps.remove(&visit)) else { return };
    if let Doing::Effect(pending) = step.doing {
        effects::let_go(subject, id, *pending);
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
                Ending::Completed | Ending::Goal => Way::Done,
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
        _ => effects::evolve(run, fact),
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
