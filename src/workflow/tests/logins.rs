//! What a login brings of before it: the user's waits and goals see what was done under another name, from their own beginning on.

use serde_json::json;

use super::super::{Clock, Fact, Input, What, evolve};
use super::scene::{COMMAND, Scene};
use crate::domain::{HOUR_MS, Millis};

const GOAL_AND_WAIT: &str = r#"
[[node]]
name = "bought"
kind = "goal"
event = "Order"
when = "event.total > 10.0"
[[node]]
name = "rest"
kind = "delay"
wait = "1h"
next = "w"
[[node]]
name = "w"
kind = "wait_for"
any = [{ event = "Reviewed", next = "end" }]
timeout = "1h"
next = "end"
"#;

fn expect(absorb: bool) -> Input {
    Input::Expect { anonymous: "a1".to_owned(), absorb }
}

fn absorbed() -> Input {
    Input::Absorbed { anonymous: "a1".to_owned() }
}

fn carry() -> Input {
    Input::Carry(Box::new(super::super::Subject::default().carry("a1")))
}

fn past(at: Millis, name: &str, total: f64) -> Input {
    let cause = format!("{name}@{}", at.0);
    Input::Past { at, cause, name: name.to_owned(), properties: json!({ "total": total }), profile: json!({}) }
}

#[test]
fn a_goal_is_reached_by_what_was_done_before_the_login_and_after_the_run_began() {
    let mut scene = Scene::new(COMMAND, GOAL_AND_WAIT);
    scene.start("c").unwrap();
    scene.now = scene.now + 1_000;
    let began = scene.now + -1_000;
    scene.give(past(began + -1, "Order", 50.0)).unwrap();
    scene.give(past(began + 5, "Order", 5.0)).unwrap();
    assert_eq!(scene.count(|what| matches!(what, What::GoalReached { .. })), 0, "before the run, and not what it is for");
    scene.give(past(began + 6, "Order", 50.0)).unwrap();
    scene.tells(&["goal bought reached", "run ended goal"]);
}

#[test]
fn what_was_done_before_the_login_begins_nothing() {
    let mut scene = Scene::new("{ event = \"Order\" }", GOAL_AND_WAIT);
    scene.give(past(scene.now, "Order", 50.0)).unwrap();
    assert!(scene.state.runs.is_empty());
}

#[test]
fn no_silence_is_concluded_before_what_was_done_has_been_told_and_then_none_where_something_was() {
    for reviewed in [true, false] {
        let mut scene = Scene::new(COMMAND, GOAL_AND_WAIT);
        scene.start("c").unwrap();
        scene.wait(HOUR_MS);
        let waits_from = scene.now;
        scene.wait(HOUR_MS - 1_000);
        scene.give(expect(true)).unwrap();
        scene.give(carry()).unwrap();
        scene.wait(60_000);
        assert_eq!(scene.count(|what| matches!(what, What::TimerFired { .. })), 1, "what it leaves has come, what it did has not");
        scene.give(past(waits_from + -1, "Reviewed", 0.0)).unwrap();
        scene.give(past(waits_from + HOUR_MS + 1, "Reviewed", 0.0)).unwrap();
        if reviewed {
            scene.give(past(waits_from + 1, "Reviewed", 0.0)).unwrap();
        }
        assert_eq!(scene.count(|what| matches!(what, What::WaitMatched { .. })), usize::from(reviewed), "while it waited, not around it");
        scene.give(absorbed()).unwrap();
        scene.wait(0);
        scene.tells(&["waits for what a1 leaves", "took in what a1 left"]);
        let timers = scene.count(|what| matches!(what, What::TimerFired { .. }));
        assert_eq!((scene.state.is_merging(), timers), (false, if reviewed { 1 } else { 2 }));
    }
}

#[test]
fn either_may_come_first_and_both_are_waited_for() {
    let ways = [
        [(expect(true), true), (carry(), true), (absorbed(), false)],
        [(expect(true), true), (absorbed(), true), (carry(), false)],
        [(carry(), false), (expect(true), true), (absorbed(), false)],
    ];
    for inputs in ways {
        let mut scene = Scene::new(COMMAND, GOAL_AND_WAIT);
        for (input, waits) in inputs {
            let said = format!("{input:?}");
            scene.give(input).unwrap();
            assert_eq!(scene.state.is_merging(), waits, "after {said}");
        }
    }
    let mut scene = Scene::new(COMMAND, GOAL_AND_WAIT);
    scene.give(carry()).unwrap();
    scene.give(expect(true)).unwrap();
    assert!(scene.state.is_merging() && scene.state.expecting.is_empty(), "what it left came first: only what it did is waited for");
    scene.wait(HOUR_MS);
    assert!(!scene.state.is_merging(), "not for ever");
    scene.give(absorbed()).unwrap();
    scene.tells(&["took in what a1 left", "waits for what a1 leaves", "waits no longer for what a1 leaves"]);
}

#[test]
fn a_journal_of_before_reads_as_it_was_meant() {
    let read = |body: &str| Fact::from_parts(Millis(5), "", body).unwrap();
    let mut subject = super::super::Subject::default();
    evolve(&mut subject, &read(r#"{"expecting":{"anonymous":"a1"}}"#));
    assert!(subject.is_merging());
    let (_, carried) = Fact { at: Millis(6), run: None, what: What::Carried { carry: Box::new(subject.carry("a1")) } }.parts();
    evolve(&mut subject, &read(&carried));
    assert!(!subject.is_merging(), "nobody says there that what was done has been told");
}

#[test]
fn under_the_datas_own_clock_it_has_its_place_among_timers_and_answers() {
    let nodes = format!(
        "[[node]]\nname = \"write\"\nkind = \"effect\"\nagent = \"writer\"\ntimeout = \"1m\"\nnext = \"rest\"\n{}",
        GOAL_AND_WAIT.trim_start()
    );
    // The goal stands first in the shared text, the entry leads to the first node that is none.
    let mut scene = Scene::new(COMMAND, &nodes);
    scene.clock = Clock::Event;
    scene.start("c").unwrap();
    let began = scene.now;
    // The writer has not answered, and time is far past everything.
    scene.now = began + 10 * HOUR_MS;
    scene.give(expect(true)).unwrap();
    let logged_in = scene.now;
    scene.now = began + HOUR_MS + 5;
    scene.give(past(scene.now, "Reviewed", 0.0)).unwrap();
    scene.now = logged_in;
    scene.give(absorbed()).unwrap();
    scene.give(carry()).unwrap();
    assert_eq!(scene.count(|what| matches!(what, What::WaitMatched { .. })), 0);
    scene.finish(super::super::Outcome::Done { result: json!({}) }).unwrap();
    scene.tells(&["write done", "rest timer fired", "w saw Reviewed", "run ended completed"]);
}
