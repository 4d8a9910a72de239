//! The data's own clock held against chance: however late executors answer and however often time is stated, the journal is the same.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::super::{
    Category, Clock, Context, Definition, EffectId, Fact, Input, Library, Outcome, Performer, Policy, RunId, Subject, Unknown, What,
    chance, drive, evolve,
};
use super::program::{Choices, program};
use super::world::{EXECUTOR, POLICY, SUBJECT};
use crate::consent::Stated;
use crate::domain::{DAY_MS, Millis};

/// Someone who performs what is asked for, as its id says, whenever he comes round to it.
struct Life {
    library: Library,
    policy: Policy,
    state: Subject,
    journal: Vec<Fact>,
    /// The newest time that is known.
    time: Millis,
    todo: VecDeque<Task>,
    effects: std::collections::BTreeMap<EffectId, (Performer, Unknown)>,
}

#[derive(Debug, Clone, Copy)]
struct Task {
    effect: EffectId,
    attempt: u32,
    look_up: bool,
    /// Announced, and for a message permitted.
    may: bool,
}

impl Life {
    fn new(text: &str) -> Self {
        let definition = Definition::parse("random.toml", text).unwrap_or_else(|problems| panic!("{text}\n{problems}"));
        let mut library = Library::default();
        library.activate(Arc::new(definition));
        let policy = Policy::parse("policy", POLICY).unwrap_or_else(|problems| panic!("{problems}"));
        let time = Millis(1_700_000_000_000);
        let (state, journal, todo, effects) = (Subject::default(), Vec::new(), VecDeque::new(), Default::default());
        let mut life = Self { library, policy, state, journal, time, todo, effects };
        for (name, value) in [("email", "ann@example.org"), ("phone", "+4917")] {
            life.give(&Input::Attribute { name: name.to_owned(), value: json!(value) }, time);
        }
        life
    }

    fn give(&mut self, input: &Input, at: Millis) {
        let context = Context {
            subject: SUBJECT,
            library: &self.library,
            policy: &self.policy,
            clock: Clock::Event,
            is_held: false,
            heard: Millis::MAX,
        };
        let driven = drive(&mut self.state, context, input, at);
        for fact in &driven.facts {
            self.see(fact);
        }
        self.journal.extend(driven.facts);
    }

    fn see(&mut self, fact: &Fact) {
        match &fact.what {
            What::EffectRequested { effect, by, unknown, .. } => {
                self.effects.insert(*effect, (*by, *unknown));
            }
            What::AttemptMinted { effect, attempt, look_up, .. } => {
                let (by, unknown) = self.effects[effect];
                let may = *look_up || (by != Performer::Channel && unknown == Unknown::Retry);
                self.todo.push_back(Task { effect: *effect, attempt: *attempt, look_up: *look_up, may });
            }
            What::PermitRefused { effect, attempt, .. } => {
                self.todo.retain(|task| (task.effect, task.attempt) != (*effect, *attempt));
            }
            _ => {}
        }
    }

    /// Performs a step of one of the things to do.
    fn work(&mut self, which: usize) {
        if self.todo.is_empty() {
            return;
        }
        let at = which % self.todo.len();
        let task = self.todo[at];
        let (effect, attempt) = (task.effect, task.attempt);
        if !task.may {
            self.todo[at].may = true;
            let input = Input::EffectStarted { effect, attempt, executor: EXECUTOR.to_owned(), appended: self.time };
            return self.give(&input, self.time);
        }
        self.todo.remove(at);
        let drawn = chance(&["outcome", &effect.to_string(), &attempt.to_string()], 8);
        let outcome = match drawn {
            // A look-up that fails has someone find out, which is no calm life.
            0..=2 if task.look_up => Outcome::NotDone,
            0 => Outcome::Failed { category: Category::Integration, error: "503".to_owned(), permanent: false, retry_after_ms: None },
            1 => Outcome::Failed { category: Category::Data, error: "no".to_owned(), permanent: false, retry_after_ms: None },
            2 => Outcome::Unknown { error: "lost".to_owned() },
            _ => Outcome::Done { result: json!({ "n": drawn }) },
        };
        self.give(&Input::EffectFinished { effect, attempt, outcome }, self.time);
    }

    fn finish(&mut self) {
        for _ in 0..2_000 {
            if self.todo.is_empty() && self.state.next_wake(Clock::Event).is_none() {
                break;
            }
            self.work(0);
            self.time = self.time + DAY_MS;
            self.give(&Input::Due, self.time);
        }
        assert!(
            self.state.runs.is_empty() && self.state.held.is_empty(),
            "stuck: {:?} {:?} {:?}",
            self.state.held,
            self.todo,
            self.state.runs.values().map(|run| (&run.steps, &run.paused)).collect::<Vec<_>>()
        );
    }

    /// What was decided, without what says in which order it was heard of.
    fn told(&self) -> Vec<(Millis, String)> {
        let hearsay = |what: &What| matches!(what, What::Held { .. } | What::Taken { .. } | What::HeldRejected { .. });
        self.journal.iter().filter(|fact| !hearsay(&fact.what)).map(|fact| (fact.at, format!("{:?} {:?}", fact.run, fact.what))).collect()
    }
}

/// What happens, with its time; the same whoever hears of it when.
fn script(bytes: &[u8]) -> Vec<(Millis, Input)> {
    let mut choices = Choices::new(bytes);
    let mut at = Millis(1_700_000_000_000);
    let mut script = Vec::new();
    for number in 0..bytes.len() / 3 {
        at = at + i64::from(choices.below(4)) * i64::from(choices.below(60)) * 30_000;
        let cause = format!("c{number}");
        let run = RunId::of("random", SUBJECT, "c0");
        let input = match choices.below(8) {
            0 | 1 => Input::Start { workflow: "random".to_owned(), cause, entry: json!({}), profile: json!({}), depth: 0, parent: None },
            2 => Input::Signal { run, cause, name: "s".to_owned(), payload: json!({}) },
            3 => Input::Event { cause, name: "E".to_owned(), properties: json!({}), profile: json!({}), late: false, depth: 0 },
            4 => Input::Attribute { name: "n".to_owned(), value: json!(number) },
            5 => {
                let stated = vec![Stated { purpose: "marketing".to_owned(), channel: String::new(), granted: number % 2 == 0 }];
                Input::Consent { cause, at, stated }
            }
            _ => Input::Event { cause, name: "Other".to_owned(), properties: json!({}), profile: json!({}), late: false, depth: 0 },
        };
        script.push((at, input));
    }
    script
}

fn lived(definition: &[u8], script: &[(Millis, Input)], pace: &[u8]) -> Life {
    let mut life = Life::new(&program(definition, true));
    let mut pace = Choices::new(pace);
    for (at, input) in script {
        if pace.below(3) == 1 {
            life.give(&Input::Due, *at);
        }
        life.time = life.time.max(*at);
        life.give(input, *at);
        for _ in 0..pace.below(6) {
            let which = usize::from(pace.below(8));
            life.work(which);
        }
    }
    life.finish();
    life
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_journal_does_not_depend_on_how_fast_executors_are(
        definition in prop::collection::vec(any::<u8>(), 0..60),
        what in prop::collection::vec(any::<u8>(), 3..60),
        one in prop::collection::vec(any::<u8>(), 0..120),
        other in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let script = script(&what);
        let (one, other) = (lived(&definition, &script, &one), lived(&definition, &script, &other));
        let (told, retold) = (one.told(), other.told());
        let differs = told.iter().zip(&retold).position(|(one, other)| one != other).unwrap_or(told.len().min(retold.len()));
        prop_assert!(told == retold, "{:#?}\nand not\n{:#?}", told.get(differs), retold.get(differs));
        let mut again = Subject::default();
        one.journal.iter().for_each(|fact| evolve(&mut again, fact));
        prop_assert!(again == one.state);
        for pair in one.journal.windows(2) {
            prop_assert!(pair[0].at <= pair[1].at, "{:?}", pair);
        }
    }
}

/// An idle partition hears time once a minute, and a busy one once a second.
mod behind {
    use serde_json::json;

    use super::super::super::{Clock, Input, What};
    use super::super::scene::{COMMAND, EFFECT, Scene};
    use crate::domain::{MINUTE_MS, SECOND_MS};

    fn scene(entry: &str, nodes: &str) -> Scene {
        let mut scene = Scene::new(entry, nodes);
        scene.behind_ms = MINUTE_MS;
        scene
    }

    #[test]
    fn a_delay_is_never_shorter_than_it_says() {
        let mut scene = scene(COMMAND, "[[node]]\nname = \"d\"\nkind = \"delay\"\nwait = \"30s\"\nnext = \"end\"");
        scene.start("m1").unwrap();
        assert_eq!(scene.state.next_wake(Clock::Wall), Some(scene.now + 30 * SECOND_MS));
        scene.behind_ms = 0;
        scene.wait(29 * SECOND_MS);
        assert_eq!(scene.state.runs.len(), 1);
        scene.wait(SECOND_MS);
        scene.tells(&["run ended completed"]);
    }

    #[test]
    fn silence_is_concluded_only_once_everything_that_was_done_has_come() {
        let nodes = "[[node]]\nname = \"w\"\nkind = \"wait_for\"\nany = [{ event = \"Bought\" }]\ntimeout = \"10s\"\nnext = \"end\"\non_timeout = \"e\"\n";
        let mut scene = scene(COMMAND, &format!("{nodes}{EFFECT}"));
        scene.start("m1").unwrap();
        scene.now = scene.now + 40 * SECOND_MS;
        scene.give(Input::Attribute { name: "plan".to_owned(), value: json!("pro") }).unwrap();
        assert_eq!(scene.count(|what| matches!(what, What::TimerFired { .. })), 0, "nobody has heard that ten seconds are over");
        scene.event("Bought", "m2", json!({}));
        scene.tells(&["w saw Bought", "run ended completed"]);
    }

    #[test]
    fn a_permit_waits_until_what_was_said_before_it_was_asked_for_has_come() {
        let mut scene = scene(COMMAND, EFFECT);
        scene.start("m1").unwrap();
        scene.begin().unwrap();
        assert_eq!(scene.count(|what| matches!(what, What::PermitGranted { .. })), 0);
        scene.behind_ms = 0;
        scene.give(Input::Due).unwrap();
        assert_eq!(scene.count(|what| matches!(what, What::PermitGranted { .. })), 1);
    }
}
