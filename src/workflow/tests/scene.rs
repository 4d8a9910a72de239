//! One subject and its journal, for tests that tell what happens step by step.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::super::{
    Category, Clock, Context, Definition, EffectId, Fact, Input, Library, Outcome, Policy, Rejection, RunId, Story, Subject, What, drive,
};
use crate::consent::Stated;
use crate::domain::{HOUR_MS, Millis};

pub(super) struct Scene {
    pub(super) state: Subject,
    pub(super) library: Library,
    pub(super) policy: Policy,
    pub(super) clock: Clock,
    /// How far partition time is behind the clock.
    pub(super) behind_ms: i64,
    pub(super) journal: Vec<Fact>,
    pub(super) now: Millis,
}

impl Scene {
    pub(super) fn new(entry: &str, nodes: &str) -> Self {
        let text = format!("[workflow]\nname = \"w\"\nentry = {entry}\n{nodes}\n[[node]]\nname = \"end\"\nkind = \"exit\"\n");
        let definition = Definition::parse("w.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
        let mut library = Library::default();
        library.activate(Arc::new(definition));
        let mut scene = Self {
            state: Subject::default(),
            library,
            policy: Policy::shipped(),
            clock: Clock::Wall,
            behind_ms: 0,
            journal: Vec::new(),
            now: Millis(0),
        };
        // Noon: no quiet hours, wherever the test goes on from here by hours.
        scene.now = Millis(12 * HOUR_MS);
        scene.give(Input::Attribute { name: "email".to_owned(), value: json!("ann@example.org") }).unwrap();
        scene
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context {
            subject: "t\0u:ann",
            library: &self.library,
            policy: &self.policy,
            clock: self.clock,
            is_held: false,
            heard: self.now + -self.behind_ms,
        }
    }

    pub(super) fn give(&mut self, input: Input) -> Result<(), Rejection> {
        let context = Context {
            subject: "t\0u:ann",
            library: &self.library,
            policy: &self.policy,
            clock: self.clock,
            is_held: false,
            heard: self.now + -self.behind_ms,
        };
        let driven = drive(&mut self.state, context, &input, self.now);
        self.journal.extend(driven.facts);
        driven.rejected.map_or(Ok(()), Err)
    }

    pub(super) fn event(&mut self, name: &str, cause: &str, properties: Json) {
        let input = Input::Event { cause: cause.to_owned(), name: name.to_owned(), properties, profile: json!({}), late: false, depth: 0 };
        self.give(input).unwrap();
    }

    pub(super) fn start(&mut self, cause: &str) -> Result<(), Rejection> {
        let (workflow, cause) = ("w".to_owned(), cause.to_owned());
        self.give(Input::Start { workflow, cause, entry: json!({}), profile: json!({}), depth: 0, parent: None })
    }

    pub(super) fn run(&self) -> RunId {
        *self.state.runs.keys().next().expect("a run in progress")
    }

    pub(super) fn effect(&self) -> (EffectId, u32) {
        let (_, effect, attempt) = self.state.to_perform()[0];
        (effect, attempt)
    }

    pub(super) fn finish(&mut self, outcome: Outcome) -> Result<(), Rejection> {
        let (effect, attempt) = self.effect();
        self.give(Input::EffectFinished { effect, attempt, outcome })
    }

    pub(super) fn wait(&mut self, ms: i64) {
        self.now = self.now + ms;
        self.give(Input::Due).unwrap();
    }

    /// An executor takes up the one attempt that is to be performed.
    pub(super) fn begin(&mut self) -> Result<(), Rejection> {
        let (effect, attempt) = self.effect();
        self.give(Input::EffectStarted { effect, attempt, executor: EXECUTOR.to_owned(), appended: self.now })
    }

    pub(super) fn says(&mut self, purpose: &str, granted: bool) {
        let stated = vec![Stated { purpose: purpose.to_owned(), channel: String::new(), granted }];
        self.give(Input::Consent { cause: "c".to_owned(), at: self.now, stated }).unwrap();
    }

    pub(super) fn count(&self, is: impl Fn(&What) -> bool) -> usize {
        self.journal.iter().filter(|fact| is(&fact.what)).count()
    }

    #[track_caller]
    pub(super) fn tells(&self, lines: &[&str]) {
        let mut story = Story::default();
        let told: Vec<String> = self.journal.iter().map(|fact| story.line(fact)).collect();
        let mut rest = told.iter();
        for line in lines {
            assert!(rest.any(|told| told.starts_with(line)), "expected {line:?} in its place of {told:#?}");
        }
    }
}

pub(super) fn failed(category: Category) -> Outcome {
    Outcome::Failed { category, error: "no".to_owned(), permanent: false, retry_after_ms: None }
}

pub(super) const EFFECT: &str =
    "[[node]]\nname = \"e\"\nkind = \"effect\"\nchannel = \"email\"\ntimeout = \"1m\"\nretry = { attempts = 2 }\nnext = \"end\"";
pub(super) const EXECUTOR: &str = super::world::EXECUTOR;
pub(super) const COMMAND: &str = "{ command = true }";
