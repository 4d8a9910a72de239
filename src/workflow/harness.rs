//! Runs a workflow's `[[test]]` blocks in virtual time: no engine, no clock, no performers, only the core and a list of what comes next.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::cases::{Answer, AnswerWhat, Case, Given, GivenWhat, Line};
use super::context::{Clock, Context};
use super::definition::{Definition, EntryBy};
use super::drive::drive;
use super::fact::{Fact, What};
use super::ids::{EffectId, RunId};
use super::input::{Input, Outcome};
use super::library::Library;
use super::question::Provenance;
use super::state::Subject;
use super::story::Story;
use super::vocabulary::{Category, Performer, Unknown};
use crate::domain::Millis;
use crate::permit::{AddressKey, Cause};

/// The one executor of a test.
const EXECUTOR: &str = "00000000000000000000000000000001";

/// What became of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub name: String,
    pub line: usize,
    /// What was expected and is not there, or is there and should not be.
    pub failures: Vec<String>,
    /// The whole story, for whoever looks for why.
    pub story: Vec<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.failures.is_empty() {
            return writeln!(f, "ok: {}", self.name);
        }
        writeln!(f, "failed (line {}): {}", self.line, self.name)?;
        self.failures.iter().try_for_each(|failure| writeln!(f, "  {failure}"))?;
        writeln!(f, "  the story was:")?;
        self.story.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

/// Runs every test of a definition.
pub fn test(definition: &Definition) -> Vec<Verdict> {
    definition.tests.iter().map(|case| verdict(case, &run(definition, case))).collect()
}

/// The journal that a test gives.
pub fn run(definition: &Definition, case: &Case) -> Vec<Fact> {
    let mut library = Library::default();
    library.activate(Arc::new(definition.clone()));
    let mut world = World { state: Subject::default(), library, case, profile: case.profile.clone(), now: case.start, ..World::new(case) };
    for (name, value) in &case.attributes {
        world.input(&Input::Attribute { name: name.clone(), value: value.clone() });
    }
    if !case.consent.is_empty() {
        world.input(&Input::Consent { cause: "given".to_owned(), at: case.start, stated: case.consent.clone() });
    }
    for (number, given) in case.given.iter().enumerate() {
        world.pass_until(given.at);
        world.give(definition, given, number);
    }
    world.pass_until(case.end);
    world.journal
}

struct World<'w> {
    state: Subject,
    library: Library,
    case: &'w Case,
    profile: Json,
    now: Millis,
    journal: Vec<Fact>,
    /// Answers on their way, by when they come and in which order they were caused.
    coming: BTreeMap<(Millis, usize), Input>,
    caused: usize,
    /// How often each node's effect was answered.
    answered: BTreeMap<String, u32>,
    nodes: BTreeMap<EffectId, Asked>,
}

/// What a run asked for, as far as its performer is concerned.
#[derive(Clone)]
struct Asked {
    node: String,
    unknown: Unknown,
    by: Performer,
    timeout_ms: i64,
}

impl<'w> World<'w> {
    fn new(case: &'w Case) -> Self {
        World {
            state: Subject::default(),
            library: Library::default(),
            case,
            profile: Json::Null,
            now: case.start,
            journal: Vec::new(),
            coming: BTreeMap::new(),
            caused: 0,
            answered: BTreeMap::new(),
            nodes: BTreeMap::new(),
        }
    }

    /// Lets time pass: timers and answers come in their order.
    fn pass_until(&mut self, until: Millis) {
        loop {
            let wake = self.state.next_wake(Clock::Wall).map(|wake| wake.max(self.now));
            let answer = self.coming.keys().next().copied();
            match (wake, answer) {
                (wake, Some((at, order))) if at <= until && wake.is_none_or(|wake| at <= wake) => {
                    self.now = self.now.max(at);
                    if let Some(input) = self.coming.remove(&(at, order)) {
                        self.input(&input);
                    }
                }
                (Some(wake), _) if wake <= until => {
                    self.now = wake;
                    self.input(&Input::Due);
                }
                _ => break,
            }
        }
        self.now = self.now.max(until);
    }

    fn give(&mut self, definition: &Definition, given: &Given, number: usize) {
        if let Some(profile) = &given.profile {
            self.profile = profile.clone();
        }
        let cause = format!("given-{number}");
        let profile = self.profile.clone();
        // What is done to a run is done to the oldest.
        let run = self.state.runs.iter().min_by_key(|(id, run)| (run.started, **id)).map_or(RunId(0), |(id, _)| *id);
        let by = "someone".to_owned();
        let input = match &given.what {
            GivenWhat::Segment { name, entered } if *entered && is_broadcast(definition, name) => Input::Start {
                workflow: definition.name.clone(),
                cause,
                entry: json!({ "segment": name }),
                profile,
                depth: 0,
                parent: None,
            },
            GivenWhat::Segment { name, entered } => {
                Input::SegmentChange { cause, segment: name.clone(), entered: *entered, profile, late: false, depth: 0 }
            }
            GivenWhat::Event { name, id, properties } => {
                let cause = id.clone().unwrap_or(cause);
                Input::Event { cause, name: name.clone(), properties: properties.clone(), profile, late: false, depth: 0 }
            }
            GivenWhat::Start { input } => {
                Input::Start { workflow: definition.name.clone(), cause, entry: input.clone(), profile, depth: 0, parent: None }
            }
            GivenWhat::Signal { name, payload } => Input::Signal { run, cause, name: name.clone(), payload: payload.clone() },
            GivenWhat::Approval { node, approved, by } => Input::Approval {
                run,
                node: node.clone(),
                approved: *approved,
                by: by.clone(),
                comment: String::new(),
                visit: None,
                provenance: Provenance::default(),
            },
            GivenWhat::Pause => Input::Pause { run, by, reason: "asked to".to_owned() },
            GivenWhat::Resume => Input::Resume { run, by },
            GivenWhat::Cancel => Input::Cancel { run, by, reason: String::new() },
            GivenWhat::Retry => Input::Retry { run, by },
            GivenWhat::Consent { stated } => Input::Consent { cause, at: self.now, stated: stated.clone() },
            GivenWhat::Suppress { channel } => Input::Suppress {
                address: AddressKey::of(channel, self.state.address(channel).unwrap_or_default()),
                channel: channel.clone(),
                reason: Cause::Manual,
                at: self.now,
                until: None,
                by: String::new(),
            },
        };
        self.input(&input);
    }

    fn input(&mut self, input: &Input) {
        let (subject, policy) = (self.case.subject.as_str(), &self.case.policy);
        let context = Context { subject, library: &self.library, policy, clock: Clock::Wall, is_held: false, heard: Millis::MAX };
        // A rejection is what the story then lacks.
        for fact in drive(&mut self.state, context, input, self.now).facts {
            self.perform(&fact);
            self.journal.push(fact);
        }
    }

    /// What the world outside does about a fact.
    fn perform(&mut self, fact: &Fact) {
        match &fact.what {
            What::EffectRequested { effect, node, unknown, by, timeout_ms, .. } => {
                self.nodes.insert(*effect, Asked { node: node.clone(), unknown: *unknown, by: *by, timeout_ms: *timeout_ms });
            }
            What::AttemptMinted { effect, attempt, look_up, .. } => self.begin(*effect, *attempt, *look_up),
            What::PermitGranted { effect, attempt, .. } => self.answer(*effect, *attempt, false),
            What::ProfileAsked { .. } => {
                let (run, profile) = (fact.run.unwrap_or(RunId(0)), self.profile.clone());
                self.come(0, Input::Answer { run, profile });
            }
            _ => {}
        }
    }

    fn come(&mut self, after_ms: i64, input: Input) {
        self.caused += 1;
        self.coming.insert((self.now + after_ms, self.caused), input);
    }

    /// What has to be announced is, and a message waits for its permit.
    fn begin(&mut self, effect: EffectId, attempt: u32, look_up: bool) {
        let Some(Asked { node, unknown, by, timeout_ms }) = self.nodes.get(&effect).cloned() else { return };
        if !self.knows(&node) {
            let error = format!("no answer in time: the test's `effects` say nothing of `{node}`");
            let outcome = Outcome::Failed { category: Category::System, error, permanent: true, retry_after_ms: None };
            return self.come(timeout_ms, Input::EffectFinished { effect, attempt, outcome });
        }
        let is_message = by == Performer::Channel && !look_up;
        if is_message || (unknown != Unknown::Retry && !look_up) {
            self.come(0, Input::EffectStarted { effect, attempt, executor: EXECUTOR.to_owned(), appended: self.now });
        }
        if !is_message {
            self.answer(effect, attempt, look_up);
        }
    }

    /// Whether the test says anything about the node's effect; if not nobody takes it up, and it fails once its time is over.
    fn knows(&self, node: &str) -> bool {
        self.case.answers.iter().any(|answer| answer.node == node)
    }

    fn answer(&mut self, effect: EffectId, attempt: u32, look_up: bool) {
        let Some(Asked { node, unknown, timeout_ms, .. }) = self.nodes.get(&effect).cloned() else { return };
        let count = self.answered.entry(node.clone()).or_default();
        let Some(answer) = pick(&self.case.answers, &node, *count).cloned() else { return };
        *count += 1;
        let outcome = match answer.what {
            AnswerWhat::Done(result) => Outcome::Done { result },
            _ if look_up => Outcome::NotDone,
            AnswerWhat::Failed { category, error } => Outcome::Failed { category, error, permanent: false, retry_after_ms: None },
            // Who was announced is given up by the run itself. Else an executor cuts off what does not answer, and says so.
            AnswerWhat::Lost if unknown == Unknown::Retry => {
                let outcome = Outcome::Unknown { error: "no answer in time".to_owned() };
                return self.come(timeout_ms, Input::EffectFinished { effect, attempt, outcome });
            }
            AnswerWhat::Lost => return,
        };
        self.come(answer.takes_ms, Input::EffectFinished { effect, attempt, outcome });
    }
}

fn is_broadcast(definition: &Definition, segment: &str) -> bool {
    matches!(&definition.entry.by, EntryBy::Broadcast { segment: known, .. } if known == segment)
}

/// The `count`-th answer of a node, the last one for all after it.
fn pick<'a>(answers: &'a [Answer], node: &str, count: u32) -> Option<&'a Answer> {
    let mut left = count;
    let mut last = None;
    for answer in answers.iter().filter(|answer| answer.node == node) {
        if left < answer.times {
            return Some(answer);
        }
        left -= answer.times;
        last = Some(answer);
    }
    last
}

fn verdict(case: &Case, journal: &[Fact]) -> Verdict {
    let mut story = Story::default();
    let lines: Vec<(Millis, String)> = journal.iter().map(|fact| (fact.at, story.line(fact))).collect();
    let mut failures = Vec::new();
    let mut from = 0;
    for expected in &case.expect {
        match lines[from..].iter().position(|line| is(expected, line)) {
            Some(at) => from += at + 1,
            None => failures.push(format!("line {}: expected{} and in this order: {}", expected.line, when(expected), expected.text)),
        }
    }
    for unwanted in &case.never {
        if let Some((at, line)) = lines.iter().find(|line| is(unwanted, line)) {
            failures.push(format!("line {}: never expected, and there it is at {at}: {line}", unwanted.line));
        }
    }
    let story = lines.into_iter().map(|(at, line)| format!("{at} {line}")).collect();
    Verdict { name: case.name.clone(), line: case.line, failures, story }
}

/// A line that begins as expected, at the expected time if there is one.
fn is(expected: &Line, (at, line): &(Millis, String)) -> bool {
    expected.at.is_none_or(|expected| expected == *at) && line.starts_with(&expected.text)
}

fn when(line: &Line) -> String {
    line.at.map_or(String::new(), |at| format!(" at {at}"))
}
