//! What each kind of node does with a run that arrives, and where a finished one goes.

use serde_json::{Map, Value as Json};

use super::super::definition::{Definition, Effect, Inputs, Kind, Needs, Node, Until};
use super::super::expression::Scope;
use super::super::fact::{Visit, What};
use super::super::ids::{EffectId, RunId, chance};
use super::super::question::{Provenance, shown_digest};
use super::super::state::{Run, Subject, Way};
use super::super::vocabulary::{Ending, Performer};
use super::effects::bytes;
use super::moves::way_out;
use super::{DEPTH_MAX, RESULT_BYTES_MAX, Turn};

/// The digest of the message that was approved on the way to this one.
fn approved_message(run: &Run, visit: Visit, effect: &Effect) -> String {
    let step = run.steps.get(&visit).filter(|_| effect.by == Performer::Channel);
    step.map(|step| step.approved.clone()).unwrap_or_default()
}

impl Turn<'_, '_> {
    pub(super) fn arrive(&mut self, id: RunId, definition: &Definition, visit: Visit, at: &Node) {
        let Some(run) = self.state.runs.get(&id) else { return };
        let node = at.name.to_string();
        let scope = self.scope(id, run);
        let what = match &at.kind {
            Kind::Effect(effect) => What::EffectRequested {
                visit,
                node,
                purpose: effect.purpose.clone(),
                approved: approved_message(run, visit, effect),
                priority: effect.priority,
                not_after: effect.not_after_ms.map(|ms| self.at + ms),
                takes_ms: effect.takes_ms,
                effect: EffectId::of(id, visit),
                by: effect.by,
                target: effect.target.clone(),
                workflow: definition.name.to_string(),
                input: Json::Object(effect.given(object(&effect.input, &scope))),
                timeout_ms: effect.timeout_ms,
                unknown: effect.unknown,
            },
            Kind::Delay { until, .. } => What::Delayed { visit, node, until: self.until(until, &scope) },
            Kind::WaitFor { any, timeout_ms, .. } => {
                let awaits = any.iter().map(|awaited| awaited.what.to_string()).collect();
                What::WaitBegun { visit, node, until: self.at + *timeout_ms, awaits }
            }
            Kind::Branch { fresh: true, .. } => What::ProfileAsked { visit, node },
            Kind::Branch { .. } => return self.branch(id, definition, visit, at),
            Kind::Split { salt, arms, total } => {
                let kept = self.state.arms.get(&Subject::mark_key(&definition.name, Some(&node)));
                let kept = kept.and_then(|kept| arms.iter().position(|arm| arm.name == *kept));
                let drawn = chance(&["split", &definition.name, salt, self.context.subject], *total);
                let mut upto = 0;
                let at = arms.iter().position(|arm| {
                    upto += arm.weight;
                    drawn < upto
                });
                // Who was given an arm keeps it, also across a login.
                let at = kept.or(at).unwrap_or_default();
                let arm = arms.get(at).map(|arm| arm.name.clone()).unwrap_or_default();
                What::ArmAssigned { visit, node, arm, at: u16::try_from(at).unwrap_or(u16::MAX) }
            }
            Kind::Parallel { branches, join, failing, .. } => {
                let name =
                    |at: &super::super::definition::NodeIx| definition.node(*at).map(|node| node.name.to_string()).unwrap_or_default();
                let all = u32::try_from(branches.len()).unwrap_or(u32::MAX);
                let needs = match definition.node(*join).map(|node| &node.kind) {
                    Some(Kind::Join { needs: Needs::Any, .. }) => 1,
                    Some(Kind::Join { needs: Needs::Count(count), .. }) => *count,
                    _ => all,
                };
                let failing_cancels = *failing == super::super::definition::Failing::CancelsOthers;
                What::Forked { visit, node, join: name(join), needs, branches: branches.iter().map(name).collect(), failing_cancels }
            }
            Kind::Join { .. } => What::BranchEnded { visit, failed: false },
            Kind::Approval(approval) => {
                let shows = Json::Object(object(&approval.shows, &scope));
                let by = self.context.policy.approves(&definition.name, &node, &shows, self.at).map(|rule| format!("rule: {}", rule.by));
                let until = self.at + approval.deadline_ms;
                let who = approval.who.clone();
                let shown = shown_digest(&node, &who, &shows, until);
                self.fact(id, What::ApprovalRequested { visit, node: node.clone(), who, shows, until, shown });
                match by {
                    None => return,
                    Some(by) => {
                        What::ApprovalDecided { visit, node, approved: true, by, comment: String::new(), provenance: Provenance::default() }
                    }
                }
            }
            Kind::Loop { when, most, .. } => {
                let rounds = run.steps.get(&visit).map(|step| &step.rounds);
                let round = rounds.and_then(|rounds| rounds.get(&node)).copied().unwrap_or(0);
                let again = round < *most && when.as_ref().is_none_or(|when| when.holds(&scope));
                if again {
                    // Loops inside of this one that were left early begin anew with its next round.
                    let inside = rounds.into_iter().flat_map(|rounds| rounds.keys()).filter(|name| definition.is_inside(name, &node));
                    let anew = inside.cloned().collect();
                    What::LoopEntered { visit, node, round: round + 1, anew }
                } else {
                    What::LoopLeft { visit, node }
                }
            }
            Kind::Start(start) => {
                let Some(subject) = start.subject.text_value(&scope) else {
                    self.pause_for(id, format!("`{node}` does not say whose run to start"));
                    return;
                };
                let depth = run.depth.saturating_add(1);
                if depth >= DEPTH_MAX {
                    self.pause_for(id, format!("`{node}` would be the {DEPTH_MAX}th run in a row to start another"));
                    return;
                }
                let input = Json::Object(object(&start.input, &scope));
                let until = start.wait_ms.map(|ms| self.at + ms);
                What::StartRequested { visit, node, workflow: start.workflow.clone(), subject, input, depth, until }
            }
            Kind::Emit { event, properties, .. } => {
                let (event, properties, depth) = (event.clone(), Json::Object(object(properties, &scope)), run.depth.saturating_add(1));
                What::EventEmitted { visit, node, event, properties, depth }
            }
            Kind::Set { vars, .. } => {
                let mut vars = object(vars, &scope);
                // Unknown leaves a variable as it is: its type has no null.
                vars.retain(|_, value| !value.is_null());
                if let Some((name, value)) = vars.iter().find(|(_, value)| bytes(value) > RESULT_BYTES_MAX) {
                    let bytes = bytes(value);
                    self.pause_for(id, format!("`{node}` would make `{name}` {bytes} bytes long, at most {RESULT_BYTES_MAX} are kept"));
                    return;
                }
                What::VariablesSet { visit, node, vars }
            }
            Kind::Exit { outcome, failed } => {
                let ending = if *failed { Ending::Failed } else { Ending::Completed };
                return self.end(id, ending, node, outcome.clone());
            }
        };
        self.fact(id, what);
    }

    fn branch(&mut self, id: RunId, definition: &Definition, visit: Visit, node: &Node) {
        let Kind::Branch { cases, otherwise, .. } = &node.kind else { return };
        let Some(run) = self.state.runs.get(&id) else { return };
        let scope = self.scope(id, run);
        let chosen = cases.iter().find(|(when, _)| when.holds(&scope));
        let (way, to) = chosen.map_or(("otherwise", *otherwise), |(when, to)| (when.text(), *to));
        self.go(id, definition, visit, &node.name, way, to);
    }

    pub(super) fn leave(&mut self, id: RunId, definition: &Definition, visit: Visit, node: &Node, way: &Way) {
        if matches!(node.kind, Kind::Branch { .. }) {
            return self.branch(id, definition, visit, node);
        }
        match (way_out(&node.kind, way), way) {
            (Some((label, to)), _) => self.go(id, definition, visit, &node.name, label, to),
            (None, Way::Failed(error)) => self.fail(id, definition, visit, node, error),
            (None, Way::Timeout) => self.fail(id, definition, visit, node, "it did not end in time"),
            (None, _) => {
                self.pause_for(id, format!("`{}` leads nowhere", node.name));
            }
        }
    }

    fn until(&self, until: &Until, scope: &Scope<'_>) -> crate::domain::Millis {
        match until {
            Until::For { ms } => self.at + *ms,
            Until::Local(local) => local.at_or_after(self.at, self.state.zone()),
            Until::Date { when, offset_ms } => when.time(scope).map_or(self.at, |date| (date + *offset_ms).max(self.at)),
        }
    }
}

fn object(inputs: &Inputs, scope: &Scope<'_>) -> Map<String, Json> {
    inputs.iter().map(|(name, expr)| (name.clone(), expr.json(scope))).collect()
}
