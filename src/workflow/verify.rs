//! Whether a definition would have decided what a recorded journal says: the gate for whoever edits a campaign that people are in.
//!
//! A journal holds what came from outside (a start, what a wait was for, answers, people's decisions, time) and what was decided of it. What
//! came is given to the definition again, turn by turn, and what it decides is held against what is recorded; the first difference of
//! each run is told. Permits, and approvals by a rule, are the policy's and not the definition's: they are taken as recorded.

use std::sync::Arc;

use serde_json::Value as Json;

use super::context::{Clock, Context};
use super::decide::{apply, moves};
use super::definition::{Definition, EntryBy, Kind};
use super::evolve::evolve;
use super::fact::{Fact, What, digest_text};
use super::ids::RunId;
use super::input::{Input, Outcome};
use super::library::Library;
use super::policy::Policy;
use super::state::{Doing, Subject};
use super::story::Story;
use super::vocabulary::Ending;
use crate::domain::Millis;

/// The first place where a run would have gone another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// The subject's key as text.
    pub subject: String,
    pub run: RunId,
    /// Which of the run's facts, from 1.
    pub fact: usize,
    pub at: Millis,
    /// What the definition would have decided there.
    pub expected: String,
    /// What was recorded.
    pub got: String,
}

/// What a whole history says of a definition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    pub runs: usize,
    pub facts: usize,
    pub divergences: Vec<Divergence>,
}

const NOTHING: &str = "nothing";

impl Verified {
    /// Holds one subject's whole journal against the definition: its runs of the workflow, of the recorded version `of` if one is named.
    pub fn add(&mut self, definition: &Arc<Definition>, policy: &Policy, subject: &str, journal: &[Fact], of: Option<&str>) {
        let started = journal.iter().filter_map(|fact| match &fact.what {
            What::RunStarted { workflow, digest, .. } if *workflow == definition.name && of.is_none_or(|of| of == digest) => fact.run,
            _ => None,
        });
        let mut library = Library::default();
        library.activate(Arc::clone(definition));
        let context = Context { subject, library: &library, policy, clock: Clock::Wall, is_held: false, heard: Millis::MAX };
        for run in started {
            self.runs += 1;
            let replay = Replay { definition, context, run, state: Subject::default(), story: Story::default(), number: 0 };
            let (facts, divergence) = replay.run(journal);
            self.facts += facts;
            self.divergences.extend(divergence);
        }
    }
}

struct Replay<'r> {
    definition: &'r Definition,
    context: Context<'r>,
    run: RunId,
    state: Subject,
    story: Story,
    /// Facts of the run so far.
    number: usize,
}

impl Replay<'_> {
    fn run(mut self, journal: &[Fact]) -> (usize, Option<Divergence>) {
        let own: Vec<Fact> =
            journal.iter().filter(|fact| fact.run.is_none_or(|run| run == self.run)).map(|fact| self.renamed(fact)).collect();
        let mut rest = &own[..];
        while let Some(fact) = rest.first() {
            if fact.run.is_none() {
                evolve(&mut self.state, fact);
                rest = &rest[1..];
                continue;
            }
            match self.turn(rest) {
                Ok(taken) => rest = &rest[taken..],
                Err(divergence) => return (self.number, Some(divergence)),
            }
        }
        (self.number, None)
    }

    /// A start as it would be under this definition: on its digest.
    fn renamed(&self, fact: &Fact) -> Fact {
        let mut fact = fact.clone();
        if let What::RunStarted { digest, .. } = &mut fact.what {
            *digest = digest_text(&self.definition.digest);
        }
        fact
    }

    /// One turn: what came, and everything that was decided of it. Says how many of the facts it was.
    fn turn(&mut self, rest: &[Fact]) -> Result<usize, Divergence> {
        let head = &rest[0];
        let mut best: Option<Mismatch> = None;
        let context = Context { heard: self.heard_at(head), ..self.context };
        for input in self.inputs_of(head) {
            let mut state = self.state.clone();
            let decided = apply(&mut state, context, &input, head.at).unwrap_or_default();
            match self.compared(&decided, rest) {
                Ok(taken) if taken > 0 => {
                    self.take(&rest[..taken]);
                    return Ok(taken);
                }
                // It would have decided nothing.
                Ok(_) => {}
                Err(mismatch) => {
                    if best.as_ref().is_none_or(|best| best.at < mismatch.at) {
                        best = Some(mismatch);
                    }
                }
            }
        }
        let is_given = self.is_given(&head.what);
        if let Some(mismatch) = best.take_if(|mismatch| mismatch.at > 0 || !is_given) {
            return Err(self.divergence(rest, mismatch));
        }
        if !is_given {
            return Err(self.divergence(rest, Mismatch { at: 0, expected: None }));
        }
        // Taken as recorded; what follows of it is the definition's again.
        self.take(&rest[..1]);
        let mut state = self.state.clone();
        let decided = moves(&mut state, self.context, head.at);
        match self.compared(&decided, &rest[1..]) {
            Ok(taken) => {
                self.take(&rest[1..=taken]);
                Ok(taken + 1)
            }
            Err(mismatch) => Err(self.divergence(&rest[1..], mismatch)),
        }
    }

    /// How far time had been heard of when this was decided: what ended a wait came before its time-out was known to be over, whenever it
    /// was stamped.
    fn heard_at(&self, head: &Fact) -> Millis {
        let What::WaitMatched { visit, .. } = &head.what else { return Millis::MAX };
        match self.state.runs.get(&self.run).and_then(|run| run.steps.get(visit)).map(|step| &step.doing) {
            Some(Doing::Wait { until }) => *until,
            _ => Millis::MAX,
        }
    }

    fn take(&mut self, facts: &[Fact]) {
        for fact in facts {
            evolve(&mut self.state, fact);
            if fact.run.is_some() {
                self.story.line(fact);
                self.number += 1;
            }
        }
    }

    /// How many recorded facts (those of nobody between them included) are what was decided, or where they are not.
    fn compared(&self, decided: &[Fact], recorded: &[Fact]) -> Result<usize, Mismatch> {
        let mut at = 0;
        for expected in decided.iter().filter(|fact| fact.run == Some(self.run)) {
            // From here on it is the policy's word, which the journal has.
            if is_of_policy(&expected.what) {
                return Ok(at);
            }
            while recorded.get(at).is_some_and(|fact| fact.run.is_none()) {
                at += 1;
            }
            match recorded.get(at) {
                Some(fact) if is_same(&fact.what, &expected.what) || self.is_same_branch(&fact.what, &expected.what) => at += 1,
                _ => return Err(Mismatch { at, expected: Some(Box::new(expected.clone())) }),
            }
        }
        Ok(at)
    }

    /// A branch's way is its condition's text: whoever goes to the same node by another text goes the same way.
    fn is_same_branch(&self, recorded: &What, expected: &What) -> bool {
        match (recorded, expected) {
            (What::Moved { visit, from, to, .. }, What::Moved { visit: other_visit, from: other_from, to: other_to, .. }) => {
                let is_branch = self.definition.find(from).is_some_and(|(_, node)| matches!(node.kind, Kind::Branch { .. }));
                is_branch && (visit, from, to) == (other_visit, other_from, other_to)
            }
            _ => false,
        }
    }

    fn divergence(&mut self, rest: &[Fact], mismatch: Mismatch) -> Divergence {
        let Mismatch { at, expected } = mismatch;
        let before: Vec<Fact> = rest[..at].to_vec();
        self.take(&before);
        let got = rest.get(at);
        let time = got.or(expected.as_deref()).or(rest.first()).map_or(Millis(0), |fact| fact.at);
        let (mut expected_text, mut got_text) = (self.told(expected.as_deref()), self.told(got));
        if expected_text == got_text {
            // The line leaves out what differs.
            (expected_text, got_text) = (in_full(expected.as_deref()), in_full(got));
        }
        Divergence {
            subject: self.context.subject.to_owned(),
            run: self.run,
            fact: self.number + 1,
            at: time,
            expected: expected_text,
            got: got_text,
        }
    }

    fn told(&mut self, fact: Option<&Fact>) -> String {
        fact.map_or_else(|| NOTHING.to_owned(), |fact| self.story.line(fact))
    }

    /// What may have come from outside, for a fact that begins a turn.
    fn inputs_of(&self, head: &Fact) -> Vec<Input> {
        let run = self.run;
        let finished = |effect, attempt, outcome| Input::EffectFinished { effect, attempt, outcome };
        match &head.what {
            What::RunStarted { by, cause, entry, profile, depth, parent, .. } => {
                // What is known to have begun it would not have begun a workflow with another entry.
                let (cause_text, profile_copy, late) = (cause.clone(), profile.clone(), false);
                match by.split_once(' ') {
                    Some(("event", name)) => {
                        let (name, properties) = (name.to_owned(), entry.clone());
                        return vec![Input::Event { cause: cause_text, name, properties, profile: profile_copy, late, depth: *depth }];
                    }
                    Some(("segment", name)) => {
                        let segment = name.to_owned();
                        let (cause, profile, depth) = (cause_text, profile_copy, *depth);
                        return vec![Input::SegmentChange { cause, segment, entered: true, profile, late, depth }];
                    }
                    _ => {}
                }
                if entry.get("segment").is_some() && entry.get("entered").is_some() {
                    return vec![self.entry(cause, entry, profile, head)];
                }
                // Whatever a workflow's entry is, it can be started by command too.
                let by_command = Input::Start {
                    workflow: self.definition.name.clone(),
                    cause: cause.clone(),
                    entry: entry.clone(),
                    profile: profile.clone(),
                    depth: *depth,
                    parent: parent.clone(),
                };
                vec![self.entry(cause, entry, profile, head), by_command]
            }
            What::WaitMatched { name, cause, payload, profile, .. } => self.happened(name, cause, payload, profile),
            What::GoalReached { event, cause, .. } => vec![self.event(event, cause, &Json::Null, self.profile())],
            What::TimerFired { .. } => vec![Input::Due],
            What::ProfileSeen { profile } => vec![Input::Answer { run, profile: profile.clone() }],
            What::ApprovalDecided { visit, node, approved, by, comment, provenance } => {
                let (node, by, comment, provenance) = (node.clone(), by.clone(), comment.clone(), provenance.clone());
                vec![Input::Due, Input::Approval { run, node, approved: *approved, by, comment, visit: Some(*visit), provenance }]
            }
            What::EffectCompleted { effect, attempt, result, .. } => {
                vec![finished(*effect, *attempt, Outcome::Done { result: result.clone() }), Input::Due]
            }
            What::AttemptVoid { effect, attempt, why, .. } => {
                vec![Input::Due, finished(*effect, *attempt, Outcome::NotBegun { why: why.clone() })]
            }
            What::LookedUp { effect, attempt, .. } => vec![finished(*effect, *attempt, Outcome::NotDone)],
            What::AttemptUnknown { effect, attempt, error } => {
                vec![Input::Due, finished(*effect, *attempt, Outcome::Unknown { error: error.clone() })]
            }
            What::AttemptFailed { effect, attempt, category, error, retry_at, .. } => {
                // How long to wait, or that there is no use, may have been the other side's word.
                let after = retry_at.map(|at| at.since_ms(head.at));
                let failed = |permanent, retry_after_ms| {
                    let (category, error) = (*category, error.clone());
                    finished(*effect, *attempt, Outcome::Failed { category, error, permanent, retry_after_ms })
                };
                vec![Input::Due, failed(false, None), failed(true, None), failed(false, after)]
            }
            What::AttemptMinted { .. } => vec![Input::Due, Input::Retry { run, by: String::new() }],
            What::StartEnded { visit, ending, result } => {
                vec![Input::StartEnded { run, visit: *visit, ending: *ending, result: result.clone() }]
            }
            What::RunPaused { by, reason } => vec![Input::Due, Input::Pause { run, by: by.clone(), reason: reason.clone() }],
            What::RunResumed { by } => vec![Input::Resume { run, by: by.clone() }, Input::Retry { run, by: by.clone() }],
            _ => Vec::new(),
        }
    }

    /// What came from outside or from the policy, and cannot be decided again: it is taken as recorded.
    fn is_given(&self, what: &What) -> bool {
        match what {
            // What the event held is not known, but that the definition goes by that event to that node.
            What::GoalReached { goal, event, to, .. } => {
                let known = self.definition.goals.iter().find(|known| known.name == *goal);
                known.is_some_and(|known| {
                    let leads = known.next.and_then(|next| self.definition.node(next)).map(|node| &*node.name);
                    (event.is_empty() || known.event == *event) && leads == to.as_deref()
                })
            }
            What::EffectStarted { .. } | What::EffectFailed { .. } => true,
            What::ApprovalLate { .. } | What::ApprovalRefused { .. } => true,
            // By a person, or by the identity's tie.
            What::RunEnded { ending, .. } => matches!(ending, Ending::Cancelled | Ending::Terminated | Ending::Merged),
            What::EffectCompleted { .. } | What::AttemptMinted { by_hand: true, .. } => true,
            what => is_of_policy(what),
        }
    }

    fn entry(&self, cause: &str, entry: &Json, profile: &Json, head: &Fact) -> Input {
        let (cause, profile, late) = (cause.to_owned(), profile.clone(), false);
        let depth = if let What::RunStarted { depth, .. } = &head.what { *depth } else { 0 };
        match &self.definition.entry.by {
            EntryBy::Event(name) => Input::Event { cause, name: name.clone(), properties: entry.clone(), profile, late, depth },
            EntryBy::Segment(name) => Input::SegmentChange { cause, segment: name.clone(), entered: true, profile, late, depth },
            EntryBy::Command | EntryBy::Schedule { .. } | EntryBy::Broadcast { .. } => {
                let What::RunStarted { workflow, depth, parent, .. } = &head.what else { return Input::Due };
                let (workflow, entry, parent) = (workflow.clone(), entry.clone(), parent.clone());
                Input::Start { workflow, cause, entry, profile, depth: *depth, parent }
            }
        }
    }

    /// What ended a wait was an event, a change of a segment, or a signal: the journal has its name only.
    fn happened(&self, name: &str, cause: &str, payload: &Json, seen: &Json) -> Vec<Input> {
        let profile = if seen.is_null() { self.profile() } else { seen.clone() };
        let (cause_text, name_text) = (cause.to_owned(), name.to_owned());
        let signal = Input::Signal { run: self.run, cause: cause_text, name: name_text, payload: payload.clone() };
        let segment = [true, false].map(|entered| {
            let (cause, segment, profile) = (cause.to_owned(), name.to_owned(), profile.clone());
            Input::SegmentChange { cause, segment, entered, profile, late: true, depth: 0 }
        });
        std::iter::once(self.event(name, cause, payload, profile.clone())).chain(segment).chain([signal]).collect()
    }

    fn event(&self, name: &str, cause: &str, properties: &Json, profile: Json) -> Input {
        // Late, so that it begins nothing: what it began has a journal of its own.
        Input::Event { cause: cause.to_owned(), name: name.to_owned(), properties: properties.clone(), profile, late: true, depth: 0 }
    }

    /// The newest profile that the journal has: what came with an event is not in it.
    fn profile(&self) -> Json {
        self.state.runs.get(&self.run).map_or(Json::Null, |run| run.profile.clone())
    }
}

/// Where decided and recorded facts part, counted from the turn's first.
struct Mismatch {
    at: usize,
    expected: Option<Box<Fact>>,
}

/// What a definition reads of the profile is its own: facts that differ in that alone say the same. So do questions of before their digest
/// was kept.
fn is_same(recorded: &What, expected: &What) -> bool {
    let has_none = matches!(recorded, What::ApprovalRequested { shown, .. } if shown.is_empty());
    let without = |what: &What| {
        let mut what = what.clone();
        match &mut what {
            What::WaitMatched { profile, .. } => *profile = Json::Null,
            What::ApprovalRequested { shown, .. } => shown.clear(),
            _ => {}
        }
        what
    };
    let is_lenient = has_none || matches!(recorded, What::WaitMatched { .. });
    recorded == expected || (is_lenient && without(recorded) == without(expected))
}

fn is_of_policy(what: &What) -> bool {
    match what {
        What::PermitGranted { .. } | What::PermitRefused { .. } => true,
        What::ApprovalDecided { by, .. } => by.starts_with("rule: "),
        _ => false,
    }
}

fn in_full(fact: Option<&Fact>) -> String {
    fact.map_or_else(|| NOTHING.to_owned(), |fact| fact.parts().1)
}
