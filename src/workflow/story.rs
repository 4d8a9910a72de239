//! A journal as lines that people read, and that definitions' own tests are written in: `review approved by bo`.

use super::fact::{Fact, Visit, What};
use super::ids::{EffectId, RunId};
use crate::consent::Stated;
use std::collections::BTreeMap;

/// Remembers which node an effect or step belongs to, since later facts name only its id.
#[derive(Debug, Default)]
pub struct Story {
    effects: BTreeMap<EffectId, String>,
    steps: BTreeMap<(RunId, Visit), String>,
}

impl Story {
    /// The line that tells a fact; every fact has one.
    pub fn line(&mut self, fact: &Fact) -> String {
        self.note(fact);
        let of = |effect: &EffectId| self.effects.get(effect).map_or("an effect", String::as_str);
        match &fact.what {
            What::RunStarted { workflow, key: None, .. } => format!("run of {workflow} started"),
            What::RunStarted { workflow, key: Some(key), .. } => format!("run of {workflow} for {key} started"),
            What::RunSkipped { workflow, reason, .. } => format!("run of {workflow} skipped: {}", words(reason)),
            What::Moved { from, way, to, .. } if way.is_empty() => format!("{from} to {to}"),
            What::Moved { from, way, to, .. } => format!("{from} ({way}) to {to}"),
            What::ArmAssigned { node, arm, .. } => format!("{node} gave {arm}"),
            What::VariablesSet { node, vars, .. } => {
                let vars: Vec<String> = vars.iter().map(|(name, value)| format!("{name} = {value}")).collect();
                format!("{node} set {}", vars.join(", "))
            }
            What::LoopEntered { node, round, .. } => format!("{node} round {round}"),
            What::LoopLeft { node, .. } => format!("{node} left"),
            What::Delayed { node, until, .. } => format!("{node} until {until}"),
            What::WaitBegun { node, awaits, .. } if awaits.is_empty() => format!("{node} waiting"),
            What::WaitBegun { node, awaits, .. } => format!("{node} waiting for {}", awaits.join(" or ")),
            What::WaitMatched { node, name, .. } => format!("{node} saw {name}"),
            What::TimerFired { node, .. } => format!("{node} timer fired"),
            What::ProfileAsked { node, .. } => format!("{node} asked for the profile"),
            What::ProfileSeen { .. } => "profile seen".to_owned(),
            What::EventEmitted { node, event, .. } => format!("{node} emitted {event}"),
            What::EffectRequested { node, .. } => format!("{node} requested"),
            What::AttemptMinted { effect, attempt, look_up, .. } => {
                format!("{} attempt {attempt}{}", of(effect), if *look_up { " looks up" } else { "" })
            }
            What::EffectStarted { effect, .. } => format!("{} begun", of(effect)),
            What::PermitGranted { effect, .. } => format!("{} permitted", of(effect)),
            What::PermitRefused { effect, reason, .. } => format!("{} refused: {reason}", of(effect)),
            What::EffectCompleted { effect, assumed, .. } => format!("{} done{}", of(effect), if *assumed { ", as assumed" } else { "" }),
            What::AttemptFailed { effect, attempt, error, .. } => format!("{} attempt {attempt} failed: {error}", of(effect)),
            What::AttemptUnknown { effect, attempt, error } => format!("{} attempt {attempt} unknown: {error}", of(effect)),
            What::AttemptVoid { effect, attempt, why, .. } => format!("{} attempt {attempt} did nothing: {why}", of(effect)),
            What::LookedUp { effect, .. } => format!("{} was not done", of(effect)),
            What::EffectFailed { effect, error } => format!("{} failed: {error}", of(effect)),
            What::Notified { node, severity, text, .. } => format!("{node} is told as {}: {text}", words(severity)),
            What::EffectSettled { effect, attempt, outcome, .. } => format!("{} attempt {attempt} settled: {}", of(effect), words(outcome)),
            What::ApprovalRequested { node, who, .. } => format!("{node} asks {who}"),
            What::ApprovalDecided { node, approved, by, provenance, .. } => {
                format!("{node} {} by {}", if *approved { "approved" } else { "rejected" }, provenance.told(by))
            }
            What::ApprovalLate { by, provenance, .. } => format!("{} decided too late", provenance.told(by)),
            What::ApprovalRefused { node, by, reason, provenance, .. } => {
                format!("what {} decided of {node} was not taken: {reason}", provenance.told(by))
            }
            What::StartRequested { node, workflow, subject, .. } => format!("{node} starts {workflow} of {subject}"),
            What::StartEnded { visit, ending, .. } => {
                let node = fact.run.and_then(|run| self.steps.get(&(run, *visit)));
                format!("{} ended {}", node.map_or("another run", String::as_str), ending.as_str())
            }
            What::Forked { node, branches, .. } => format!("{node} forked into {}", branches.join(", ")),
            What::BranchEnded { failed: true, .. } => "a branch failed".to_owned(),
            What::BranchEnded { failed: false, .. } => "a branch ended".to_owned(),
            What::StepCancelled { visit, .. } => {
                let node = fact.run.and_then(|run| self.steps.get(&(run, *visit)));
                format!("{} cancelled", node.map_or("a step", String::as_str))
            }
            What::Joined { node, to, way, .. } => format!("{node} ({way}) to {to}"),
            What::GoalReached { goal, .. } => format!("goal {goal} reached"),
            What::Redirected { to } => format!("everything left for {to}"),
            What::RunPaused { reason, by } if reason.is_empty() => format!("run paused by {by}"),
            What::RunPaused { reason, by } => format!("run paused by {by}: {reason}"),
            What::RunResumed { by } => format!("run resumed by {by}"),
            What::RunEnded { ending, outcome, .. } if outcome.is_empty() => format!("run ended {}", ending.as_str()),
            What::RunEnded { ending, outcome, .. } => format!("run ended {}: {outcome}", ending.as_str()),
            What::AttributeSet { name, value, .. } => format!("{name} is {value}"),
            What::ConsentStated { stated, .. } => {
                let answers: Vec<String> = stated.iter().map(answer).collect();
                format!("the person said {}", answers.join(", "))
            }
            What::Suppressed { channel, reason, .. } => format!("the {channel} address was suppressed: {}", reason.as_str()),
            What::Unsuppressed { channel, .. } => format!("the {channel} address is no longer suppressed"),
            What::AddressRefused { channel, .. } => format!("the {channel} address was refused for good"),
            What::Registered { channel, holder, .. } => format!("{holder} has this {channel} address"),
            What::Unregistered { channel, holder, .. } => format!("{holder} has this {channel} address no more"),
            What::SoftBounced { channel, message, .. } => format!("message {message} did not get through to this {channel} address"),
            What::Absorbed { anonymous } => format!("has heard what {anonymous} did"),
            What::Expecting { anonymous, .. } => format!("waits for what {anonymous} leaves"),
            What::ExpectationEnded { anonymous } => format!("waits no longer for what {anonymous} leaves"),
            What::MergedInto { user, .. } => format!("became {user}"),
            What::Carried { carry } => format!("took in what {} left", carry.anonymous),
            What::Held { input, .. } => format!("{} is decided later", input.kind()),
            What::Taken { count } => format!("{count} held until now"),
            What::BroadcastBegun { workflow, segment, .. } => format!("broadcast of {workflow} to {segment} begun"),
            What::HeldRejected { kind, reason } => format!("{kind} came to nothing: {reason}"),
        }
    }

    fn note(&mut self, fact: &Fact) {
        if let What::EffectRequested { effect, node, .. } = &fact.what {
            self.effects.insert(*effect, node.clone());
        }
        let step = match &fact.what {
            What::StartRequested { visit, node, .. }
            | What::EffectRequested { visit, node, .. }
            | What::WaitBegun { visit, node, .. }
            | What::Delayed { visit, node, .. }
            | What::ApprovalRequested { visit, node, .. } => Some((*visit, node)),
            _ => None,
        };
        if let (Some(run), Some((visit, node))) = (fact.run, step) {
            self.steps.insert((run, visit), node.clone());
        }
        if let (Some(run), What::RunEnded { .. }) = (fact.run, &fact.what) {
            self.steps.retain(|(of, _), _| *of != run);
        }
    }
}

/// `yes to marketing by email`.
fn answer(stated: &Stated) -> String {
    let word = if stated.granted { "yes" } else { "no" };
    match (stated.purpose.as_str(), stated.channel.as_str()) {
        ("", "") => format!("{word} to everything"),
        (purpose, "") => format!("{word} to {purpose}"),
        ("", channel) => format!("{word} to everything by {channel}"),
        (purpose, channel) => format!("{word} to {purpose} by {channel}"),
    }
}

/// An enum's wire name with spaces.
fn words(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text.replace('_', " "),
        _ => String::new(),
    }
}
