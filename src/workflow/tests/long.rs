//! Long lives: what a run leaves behind follows from what goes on, not from how much has happened.

use serde_json::json;

use super::super::{Clock, Context, Definition, Input, Library, Outcome, Policy, Subject, What, drive};
use crate::domain::{Millis, SECOND_MS};

struct Long {
    library: Library,
    policy: Policy,
    state: Subject,
    facts: u64,
    now: Millis,
}

impl Long {
    fn new(nodes: &str) -> Self {
        let entry = "{ command = true, reenter = \"always\" }";
        let text = format!("[workflow]\nname = \"w\"\nentry = {entry}\n{nodes}\n[[node]]\nname = \"end\"\nkind = \"exit\"\n");
        let mut library = Library::default();
        library.activate(Definition::parse("w.toml", &text).unwrap_or_else(|problems| panic!("{problems}")).into());
        Self { library, policy: Policy::shipped(), state: Subject::default(), facts: 0, now: Millis(0) }
    }

    /// Gives an input, and says which effects were asked for.
    fn give(&mut self, input: &Input) -> Vec<Input> {
        let context = Context {
            subject: "t\0u:ann",
            library: &self.library,
            policy: &self.policy,
            clock: Clock::Wall,
            is_held: false,
            heard: Millis::MAX,
        };
        let driven = drive(&mut self.state, context, input, self.now);
        assert_eq!(driven.rejected, None);
        self.facts += driven.facts.len() as u64;
        let minted = driven.facts.iter().filter_map(|fact| match fact.what {
            What::AttemptMinted { effect, attempt, .. } => {
                let result = json!({ "text": "x".repeat(180) });
                Some(Input::EffectFinished { effect, attempt, outcome: Outcome::Done { result } })
            }
            _ => None,
        });
        minted.collect()
    }

    fn start(&mut self, cause: String) -> Vec<Input> {
        let input = Input::Start { workflow: "w".to_owned(), cause, entry: json!({}), profile: json!({}), depth: 0, parent: None };
        self.give(&input)
    }

    fn bytes(&self) -> usize {
        let mut bytes = Vec::new();
        self.state.encode(&mut bytes);
        bytes.len()
    }
}

#[test]
fn a_run_of_a_million_facts_has_the_state_of_one_of_fifty() {
    let nodes = "[[node]]\nname = \"l\"\nkind = \"loop\"\nmost = 10000000\nbody = \"d\"\nnext = \"end\"\n\
                 [[node]]\nname = \"d\"\nkind = \"delay\"\nwait = \"1s\"\nnext = \"l\"";
    let mut long = Long::new(nodes);
    long.start("m".to_owned());
    let mut early = 0;
    // Five facts a round.
    let rounds = 200_000;
    for round in 0..rounds {
        long.now = long.now + SECOND_MS;
        long.give(&Input::Due);
        if round == 10 {
            early = long.bytes();
        }
    }
    assert!(long.facts >= 1_000_000 && long.facts == long.state.facts);
    assert!(long.bytes() < early + 60, "{early} bytes, then {}", long.bytes());
}

#[test]
fn many_runs_of_five_effects_leave_marks_and_nothing_else() {
    let effects: Vec<String> = (0..5)
        .map(|number| {
            let next = if number == 4 { "end".to_owned() } else { format!("e{}", number + 1) };
            format!("[[node]]\nname = \"e{number}\"\nkind = \"effect\"\nagent = \"x\"\ntimeout = \"1m\"\nnext = \"{next}\"")
        })
        .collect();
    let mut long = Long::new(&effects.join("\n"));
    let runs = if cfg!(debug_assertions) { 500 } else { 100_000 };
    for number in 0..runs {
        let mut todo = long.start(format!("m{number}"));
        while let Some(answer) = todo.pop() {
            todo.extend(long.give(&answer));
        }
        assert!(long.state.runs.is_empty() && long.state.settling.is_empty());
    }
    assert_eq!(long.facts, runs * 22);
    assert!(long.bytes() < 5_000, "{}", long.bytes());
}
