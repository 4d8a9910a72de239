//! The data's own clock: the same journal however late answers come.

use serde_json::json;

use super::super::{Category, Clock, EffectId, Input, Outcome, Rejection, Subject, What};
use super::scene::{COMMAND, EFFECT, EXECUTOR, Scene, failed};
use crate::domain::{DAY_MS, HOUR_MS, MINUTE_MS, Millis};

fn done() -> Outcome {
    Outcome::Done { result: json!({}) }
}

fn event_time(entry: &str, nodes: &str) -> Scene {
    let mut scene = Scene::new(entry, nodes);
    scene.clock = Clock::Event;
    scene
}

fn signal(scene: &Scene) -> Input {
    Input::Signal { run: scene.run(), cause: "s1".to_owned(), name: "stop".to_owned(), payload: json!({}) }
}

const AGENT: &str = "[[node]]\nname = \"e\"\nkind = \"effect\"\nagent = \"x\"\ntimeout = \"1m\"\nnext = \"w\"\n";
const WAIT: &str = "[[node]]\nname = \"w\"\nkind = \"wait_for\"\nany = [{ signal = \"stop\" }]\ntimeout = \"1h\"\nnext = \"end\"\n";

#[test]
fn what_happens_while_an_answer_is_missing_is_held_and_decided_after_it() {
    let mut scene = event_time(COMMAND, &format!("{AGENT}{WAIT}"));
    let start = scene.now;
    scene.start("m1").unwrap();
    assert!(scene.state.has_open_attempt());
    scene.now = start + 10 * MINUTE_MS;
    scene.give(signal(&scene)).unwrap();
    scene.tells(&["e attempt 1", "signal is decided later"]);
    // Time goes on, and says nothing about how long the executor takes.
    scene.now = start + DAY_MS;
    scene.give(Input::Due).unwrap();
    assert_eq!(scene.state.next_wake(Clock::Event), None);
    scene.finish(done()).unwrap();
    scene.tells(&[
        "signal is decided later",
        "e done",
        "w waiting for signal stop",
        "1 held until now",
        "w saw stop",
        "run ended completed",
    ]);
    let at = |is: fn(&What) -> bool| scene.journal.iter().find(|fact| is(&fact.what)).map(|fact| fact.at);
    assert_eq!(at(|what| matches!(what, What::EffectCompleted { .. })), Some(start), "at the time of the minting");
    assert_eq!(at(|what| matches!(what, What::WaitMatched { .. })), Some(start + 10 * MINUTE_MS));
}

#[test]
fn timers_between_fire_at_their_own_times() {
    let mut scene = event_time(COMMAND, &format!("{AGENT}{WAIT}"));
    let start = scene.now;
    scene.start("m1").unwrap();
    scene.now = start + 2 * HOUR_MS;
    scene.give(signal(&scene)).unwrap();
    scene.finish(done()).unwrap();
    scene.tells(&["e done", "w timer fired", "run ended completed", "1 held until now", "signal came to nothing: there is no run"]);
    let fired = scene.journal.iter().find(|fact| matches!(fact.what, What::TimerFired { .. })).map(|fact| fact.at);
    assert_eq!(fired, Some(start + HOUR_MS));
}

#[test]
fn a_declared_delay_lets_through_what_happens_before_it_is_over() {
    let nodes = format!("{}{WAIT}", AGENT.replace("timeout = \"1m\"", "timeout = \"1m\"\ntakes = \"30m\""));
    let told = |answer_first: bool| {
        let mut scene = event_time("{ event = \"Go\", reenter = \"always\" }", &nodes);
        let start = scene.now;
        scene.event("Go", "m1", json!({}));
        let (effect, attempt) = scene.effect();
        let finished = Input::EffectFinished { effect, attempt, outcome: done() };
        if answer_first {
            scene.give(finished.clone()).unwrap();
        }
        scene.now = start + 10 * MINUTE_MS;
        scene.give(Input::Attribute { name: "city".to_owned(), value: json!("Oslo") }).unwrap();
        scene.now = start + 40 * MINUTE_MS;
        scene.give(Input::Attribute { name: "city".to_owned(), value: json!("Rome") }).unwrap();
        if !answer_first {
            scene.give(finished).unwrap();
        }
        let facts = scene.journal.iter().filter(|fact| !matches!(fact.what, What::Held { .. } | What::Taken { .. }));
        facts.map(|fact| (fact.at, format!("{:?}", fact.what))).collect::<Vec<_>>()
    };
    let (early, late) = (told(true), told(false));
    assert_eq!(early, late);
    let completed = early.iter().find(|(_, what)| what.starts_with("EffectCompleted")).unwrap().0;
    assert_eq!(completed, Millis(12 * HOUR_MS) + 30 * MINUTE_MS);
}

#[test]
fn a_message_is_begun_and_permitted_at_the_time_of_its_minting() {
    let mut scene = event_time("{ event = \"Go\" }", EFFECT);
    let start = scene.now;
    scene.event("Go", "m1", json!({}));
    scene.now = start + DAY_MS;
    // Said a day after the message was due, and heard of before the executor came round to it.
    scene.says("marketing", false);
    let (effect, attempt) = scene.effect();
    scene.give(Input::EffectStarted { effect, attempt, executor: EXECUTOR.to_owned(), appended: scene.now }).unwrap();
    scene.give(Input::EffectFinished { effect, attempt, outcome: done() }).unwrap();
    scene.tells(&[
        "consent is decided later",
        "e begun",
        "e permitted",
        "e done",
        "run ended completed",
        "1 held until now",
        "the person said no",
    ]);
    let permitted = scene.journal.iter().find(|fact| matches!(fact.what, What::PermitGranted { .. })).map(|fact| fact.at);
    assert_eq!(permitted, Some(start));
}

#[test]
fn two_answers_are_taken_in_the_order_of_their_effects_whichever_comes_first() {
    let nodes = "[[node]]\nname = \"p\"\nkind = \"parallel\"\nbranches = [\"a\", \"b\"]\njoin = \"j\"\n\
                 [[node]]\nname = \"a\"\nkind = \"effect\"\nagent = \"x\"\ntimeout = \"1m\"\nnext = \"j\"\n\
                 [[node]]\nname = \"b\"\nkind = \"effect\"\nagent = \"x\"\ntimeout = \"1m\"\nnext = \"j\"\n\
                 [[node]]\nname = \"j\"\nkind = \"join\"\nnext = \"end\"";
    let told = |backwards: bool| {
        let mut scene = event_time(COMMAND, nodes);
        scene.start("m1").unwrap();
        let mut open: Vec<(EffectId, u32)> = scene.state.to_perform().into_iter().map(|(_, effect, attempt)| (effect, attempt)).collect();
        open.sort();
        if backwards {
            open.reverse();
        }
        for (effect, attempt) in open {
            scene.give(Input::EffectFinished { effect, attempt, outcome: done() }).unwrap();
        }
        let facts = scene.journal.iter().filter(|fact| !matches!(fact.what, What::Held { .. } | What::Taken { .. }));
        facts.map(|fact| (fact.at, format!("{:?}", fact.what))).collect::<Vec<_>>()
    };
    assert_eq!(told(false), told(true));
}

#[test]
fn a_retry_is_minted_at_its_own_time() {
    let mut scene =
        event_time(COMMAND, &format!("{}{WAIT}", AGENT.replace("timeout", "retry = { attempts = 3, first = \"1h\" }\ntimeout")));
    scene.start("m1").unwrap();
    scene.finish(failed(Category::System)).unwrap();
    let due = scene.state.next_wake(Clock::Event).unwrap();
    scene.now = due + DAY_MS;
    scene.give(Input::Due).unwrap();
    let minted = scene.journal.iter().rev().find(|fact| matches!(fact.what, What::AttemptMinted { attempt: 2, .. })).map(|fact| fact.at);
    assert_eq!(minted, Some(due));
}

#[test]
fn whoever_does_not_answer_can_be_ended_by_hand() {
    let mut scene = event_time(COMMAND, &format!("{AGENT}{WAIT}"));
    scene.start("m1").unwrap();
    let run = scene.run();
    scene.now = scene.now + DAY_MS;
    scene.give(signal(&scene)).unwrap();
    scene.give(Input::Terminate { run, by: "kim".to_owned(), reason: "lost".to_owned() }).unwrap();
    scene.tells(&["run ended terminated", "1 held until now", "signal came to nothing"]);
}

#[test]
fn no_more_is_held_than_anyone_can_have_meant() {
    let mut scene = event_time(COMMAND, &format!("{AGENT}{WAIT}"));
    scene.start("m1").unwrap();
    let mut given = Ok(());
    for number in 0..=super::super::HELD_MAX {
        given = scene.give(Input::Attribute { name: "n".to_owned(), value: json!(number) });
        if given.is_err() {
            break;
        }
    }
    assert_eq!(given, Err(Rejection::TooMuchHeld(super::super::HELD_MAX)));
    scene.finish(done()).unwrap();
    assert!(scene.state.held.is_empty());
    assert_eq!(scene.state.attributes["n"], json!(super::super::HELD_MAX - 1));
}

#[test]
fn a_word_against_sending_counts_also_where_nothing_more_is_held() {
    let mut scene = event_time(COMMAND, &format!("{AGENT}{WAIT}"));
    scene.start("m1").unwrap();
    let kept = super::super::Kept { at: scene.now, input: Input::Attribute { name: "n".to_owned(), value: json!(1) } };
    scene.state.held = vec![kept; super::super::HELD_MAX].into();
    let said = |purpose: &str, granted| crate::consent::Stated { purpose: purpose.to_owned(), channel: String::new(), granted };
    let consent = Input::Consent { cause: "c".to_owned(), at: scene.now, stated: vec![said("marketing", false), said("product", true)] };
    let too_much = Err(Rejection::TooMuchHeld(super::super::HELD_MAX));
    assert_eq!(scene.give(consent), too_much, "to be sent again, for the rest of it");
    scene.tells(&["the person said no to marketing"]);
    assert_eq!(scene.count(|what| matches!(what, What::ConsentStated { stated, .. } if stated.len() == 1)), 1, "a yes waits its turn");
    let address = crate::permit::AddressKey::of("email", "ann@example.org");
    let (channel, reason, at) = ("email".to_owned(), crate::permit::Cause::Complaint, scene.now);
    assert_eq!(scene.give(Input::Suppress { address, channel, reason, at, until: None, by: String::new() }), too_much);
    scene.tells(&["the email address was suppressed"]);
}

#[test]
fn that_a_logins_history_was_told_is_decided_after_that_it_is_coming() {
    let mut scene = event_time(COMMAND, &format!("{AGENT}{WAIT}"));
    scene.start("m1").unwrap();
    scene.give(Input::Expect { anonymous: "a1".to_owned(), absorb: true }).unwrap();
    scene.give(Input::Absorbed { anonymous: "a1".to_owned() }).unwrap();
    assert!(scene.state.absorbing.is_empty() && scene.state.held.len() == 2);
    scene.finish(done()).unwrap();
    assert!(scene.state.absorbing.is_empty() && scene.state.held.is_empty(), "{:?}", scene.state.absorbing);
    assert_eq!(scene.count(|what| matches!(what, What::Absorbed { .. })), 1);
}

#[test]
fn what_begins_at_the_time_of_a_login_waits_for_its_history_and_not_the_other_way_round() {
    for others in 0..2 {
        let mut scene = event_time(COMMAND, &format!("{AGENT}{WAIT}"));
        scene.start("m1").unwrap();
        let start =
            Input::Start { workflow: "w".to_owned(), cause: "m2".to_owned(), entry: json!({}), profile: json!({}), depth: 0, parent: None };
        let expect = Input::Expect { anonymous: "a1".to_owned(), absorb: true };
        let both = if others == 0 { [expect, start] } else { [start, expect] };
        both.into_iter().for_each(|input| scene.give(input).unwrap());
        scene.give(Input::Carry(Box::new(Subject::default().carry("a1")))).unwrap();
        scene.give(Input::Absorbed { anonymous: "a1".to_owned() }).unwrap();
        assert_eq!(scene.state.held.len(), 3);
        scene.finish(done()).unwrap();
        assert!(scene.state.absorbing.is_empty() && scene.state.held.is_empty(), "{:?}", scene.state.held);
    }
}
