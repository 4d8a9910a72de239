//! A world of chance around the core: performers that answer late, twice, in another order or never; people who press buttons; time that
//! passes. Keeps every input with its time, so that the same can be played again to a state that was cut.

use std::sync::Arc;

use serde_json::json;

use super::super::{
    Category, Clock, Context, Definition, EffectId, Fact, Input, Library, Outcome, Policy, Rejection, RunId, Subject, What, apply, evolve,
};
use super::program::Choices;
use crate::domain::Millis;

pub(super) struct World {
    pub(super) library: Library,
    pub(super) policy: Policy,
    pub(super) state: Subject,
    pub(super) journal: Vec<Fact>,
    /// (time, input, length of the journal before it).
    pub(super) inputs: Vec<(Millis, Input, usize)>,
    pub(super) now: Millis,
    /// Attempts that were minted and may answer, some of them more than once.
    out: Vec<(EffectId, u32, bool)>,
    sent: u32,
}

pub(super) const SUBJECT: &str = "t\0u:ann";
pub(super) const EXECUTOR: &str = "0000000000000000000000000000000e";

impl World {
    pub(super) fn new(text: &str) -> Self {
        let definition = Definition::parse("random.toml", text).unwrap_or_else(|problems| panic!("{text}\n{problems}"));
        let mut library = Library::default();
        library.activate(Arc::new(definition));
        let now = Millis(1_700_000_000_000);
        Self {
            library,
            policy: Policy::shipped(),
            state: Subject::default(),
            journal: Vec::new(),
            inputs: Vec::new(),
            now,
            out: Vec::new(),
            sent: 0,
        }
    }

    pub(super) fn input(&mut self, input: Input) -> Result<(), Rejection> {
        self.inputs.push((self.now, input.clone(), self.journal.len()));
        let before = self.state.clone();
        let context = Context { subject: SUBJECT, library: &self.library, policy: &self.policy, clock: Clock::Wall };
        match apply(&mut self.state, context, &input, self.now) {
            Err(rejection) => {
                assert!(self.state == before, "a rejection changes nothing: {input:?}");
                Err(rejection)
            }
            Ok(facts) => {
                for fact in &facts {
                    if let What::AttemptMinted { effect, attempt, look_up, .. } = fact.what {
                        self.out.push((effect, attempt, look_up));
                    }
                }
                self.journal.extend(facts);
                Ok(())
            }
        }
    }

    pub(super) fn start(&mut self, cause: &str) {
        let input = Input::Start {
            workflow: "random".to_owned(),
            cause: cause.to_owned(),
            entry: json!({}),
            profile: json!({}),
            depth: 0,
            parent: None,
        };
        let _ = self.input(input);
    }

    fn run(&self, which: u8) -> RunId {
        let runs: Vec<RunId> = self.state.runs.keys().copied().collect();
        if runs.is_empty() { RunId(1) } else { runs[usize::from(which) % runs.len()] }
    }

    /// Lets something happen.
    pub(super) fn chance(&mut self, choices: &mut Choices<'_>) {
        let which = choices.below(255);
        let run = self.run(which);
        let by = "kim".to_owned();
        self.sent += 1;
        let cause = format!("c{}", if which.is_multiple_of(4) { self.sent / 2 } else { self.sent });
        let input = match choices.below(20) {
            0..=5 => return self.answer(which, choices),
            6..=9 => return self.pass(choices),
            10 => Input::Signal { run, cause, name: "s".to_owned(), payload: json!({ "n": which }) },
            11 => Input::Event { cause, name: "E".to_owned(), properties: json!({}), profile: json!({}), late: which > 128 },
            12 => match self.state.runs.get(&run).and_then(|run| run.steps.values().next().map(|step| step.node.clone())) {
                Some(node) => Input::Approval { run, node, approved: which > 100, by, comment: String::new() },
                None => Input::Due,
            },
            13 => Input::Pause { run, by, reason: "chance".to_owned() },
            14 => Input::Resume { run, by },
            15 => Input::Retry { run, by },
            16 => return self.start(&format!("start{}", which % 3)),
            17 if which > 200 => Input::Cancel { run, by, reason: String::new() },
            17 if which > 190 => Input::Event { cause, name: "Goal".to_owned(), properties: json!({}), profile: json!({}), late: false },
            18 => match self.out.get(usize::from(which) % self.out.len().max(1)) {
                Some((effect, ..)) => Input::Resolve { effect: *effect, done: (which > 99).then(|| json!({})), by },
                None => Input::Due,
            },
            _ => Input::Due,
        };
        let _ = self.input(input);
    }

    /// An attempt begins, ends, or does both; its answer may come again.
    fn answer(&mut self, which: u8, choices: &mut Choices<'_>) {
        if self.out.is_empty() {
            return;
        }
        let at = usize::from(which) % self.out.len();
        let (effect, attempt, _) = self.out[at];
        let outcome = match choices.below(8) {
            0 | 1 => {
                let _ = self.input(Input::EffectStarted { effect, attempt, executor: EXECUTOR.to_owned(), appended: self.now });
                return;
            }
            2 | 3 => {
                Outcome::Failed { category: Category::Integration, error: "503".to_owned(), permanent: which > 220, retry_after_ms: None }
            }
            4 => Outcome::Unknown { error: "connection lost".to_owned() },
            5 => Outcome::NotDone,
            _ => Outcome::Done { result: json!({ "ok": true }) },
        };
        if which.is_multiple_of(3) {
            self.out.remove(at);
        }
        let _ = self.input(Input::EffectFinished { effect, attempt, outcome });
    }

    /// Time passes to the next timer, or some of the way.
    fn pass(&mut self, choices: &mut Choices<'_>) {
        let short = i64::from(choices.below(120)) * 1_000;
        self.now = match self.state.next_wake(Clock::Wall) {
            Some(wake) if short > 30_000 => self.now.max(wake),
            Some(wake) => (self.now + short).min(wake.max(self.now)),
            None => self.now + short,
        };
        let _ = self.input(Input::Due);
        assert!(self.state.next_wake(Clock::Wall).is_none_or(|wake| wake > self.now), "none lost: a timer that is due was heard");
    }

    /// Everything is answered, resumed and waited for until no run is left.
    pub(super) fn finish(&mut self) {
        for _ in 0..400 {
            if self.state.runs.is_empty() {
                return;
            }
            for (_, effect, attempt) in self.state.to_perform() {
                let _ = self.input(Input::EffectStarted { effect, attempt, executor: EXECUTOR.to_owned(), appended: self.now });
                let _ = self.input(Input::EffectFinished { effect, attempt, outcome: Outcome::Done { result: json!({}) } });
            }
            let runs: Vec<RunId> = self.state.runs.keys().copied().collect();
            for run in runs {
                let _ = self.input(Input::Retry { run, by: "end".to_owned() });
                let _ = self.input(Input::Resume { run, by: "end".to_owned() });
                let approvals = self.state.runs.get(&run).map(|run| run.steps.values().map(|step| step.node.clone()).collect::<Vec<_>>());
                for node in approvals.unwrap_or_default() {
                    let _ = self.input(Input::Approval { run, node, approved: true, by: "end".to_owned(), comment: String::new() });
                }
            }
            // What was just minted is performed before its time is up.
            if self.state.to_perform().is_empty() {
                self.now = self.state.next_wake(Clock::Wall).map_or(self.now, |wake| wake.max(self.now));
                let _ = self.input(Input::Due);
            }
        }
        let last: Vec<_> = self.journal.iter().rev().take(12).rev().collect();
        panic!("stuck: {:#?}\nafter {last:#?}", self.state.runs.values().map(|run| (&run.steps, &run.paused)).collect::<Vec<_>>());
    }

    /// The state that the first `facts` of the journal leave, with the rest of the world as it is.
    pub(super) fn cut(&self, facts: usize) -> World {
        let mut state = Subject::default();
        self.journal[..facts].iter().for_each(|fact| evolve(&mut state, fact));
        let now = self.journal[..facts].last().map_or(self.now, |fact| fact.at);
        let journal = self.journal[..facts].to_vec();
        World {
            library: self.library.clone(),
            policy: self.policy.clone(),
            state,
            journal,
            inputs: Vec::new(),
            now,
            out: Vec::new(),
            sent: 0,
        }
    }
}
