//! Where runs could go round through others: what they emit begins no more than a bounded row of them, who waits for one that did not begin
//! hears so, a campaign that speaks does not become a person, and what cannot be held is not lost.

use bytes::Bytes;
use flywheel::domain::HOUR_MS;
use flywheel::replay::redrive;
use flywheel::stream::{NamespaceClock, Topic};
use flywheel::workflow::{HELD_MAX, Input, What};
use serde_json::json;

use crate::spine_world::{START, World, track, user};
use crate::workflow_entries::{CHILD, HEARS, PARENT, SAYS, campaign, start};
use crate::workflow_world::{command, count, done, journal, kinds, open, pass, run_of, run_to_end};

const PING: &str = r#"
[workflow]
name = "ping"
entry = { event = "Ping", reenter = "always" }
[[node]]
name = "say"
kind = "emit"
event = "Pong"
next = "over"
[[node]]
name = "over"
kind = "exit"
"#;

#[test]
fn workflows_that_begin_each_other_by_what_they_emit_come_to_an_end() {
    let pong = PING.replace("Pong", "P").replace("Ping", "Pong").replace("\"P\"", "\"Ping\"").replace("\"ping\"", "\"pong\"");
    let world = World::new(NamespaceClock::Wall, "");
    let mut spine = open(&world, &[PING, &pong], None);
    world.drive(&mut spine);
    world.send(&[track("m1", "u1", "Ping", START)]);
    pass(&world, &mut spine, HOUR_MS);
    let facts = journal(&world).remove(&user("u1")).expect("facts");
    let depths: Vec<u8> =
        facts.iter().filter_map(|fact| if let What::RunStarted { depth, .. } = &fact.what { Some(*depth) } else { None }).collect();
    assert_eq!(depths, (0..16).collect::<Vec<_>>());
    let reasons: Vec<_> =
        facts.iter().filter_map(|fact| if let What::RunSkipped { reason, .. } = &fact.what { Some(*reason) } else { None }).collect();
    assert_eq!(reasons, [flywheel::workflow::Skipped::TooDeep], "and it is said why");
    assert_eq!(count(&world, Topic::DeadLetters), 0);
}

#[test]
fn so_do_those_that_go_round_through_a_segment() {
    let joins = PING.replace("event = \"Ping\"", "segment = \"odd\"").replace("Pong", "Joined").replace("\"ping\"", "\"joins\"");
    let segments = "[[segment]]\nname = \"odd\"\nwhen = \"count(\\\"Joined\\\") == count(\\\"Left\\\")\"\n";
    let leaves = PING.replace("event = \"Ping\"", "event = \"Joined\"").replace("Pong", "Left").replace("\"ping\"", "\"leaves\"");
    let world = World::new(NamespaceClock::Wall, segments);
    let mut spine = open(&world, &[&joins, &leaves], None);
    world.drive(&mut spine);
    world.send(&[track("m1", "u1", "Seen", START)]);
    pass(&world, &mut spine, HOUR_MS);
    let facts = journal(&world).remove(&user("u1")).expect("facts");
    let started = facts.iter().filter(|fact| matches!(fact.what, What::RunStarted { .. })).count();
    assert_eq!(started, 16, "each enters by what the other emitted");
}

#[test]
fn a_run_hears_at_once_that_the_one_it_waits_for_did_not_begin() {
    let choosy = CHILD.replace("command = true", "command = true, when = \"event.n > 5\"");
    let busy = CHILD.replace("command = true", "command = true, reenter = \"never\"");
    for (children, why) in [(vec![], "no such workflow"), (vec![&*choosy], "condition"), (vec![&*busy], "reentry")] {
        let world = World::new(NamespaceClock::Wall, "");
        let workflows: Vec<&str> = [PARENT].into_iter().chain(children).collect();
        let mut spine = open(&world, &workflows, None);
        world.drive(&mut spine);
        // One was there before, for the policy to say no.
        let sooner = Input::Start {
            workflow: "child".into(),
            cause: "s".into(),
            entry: json!({ "n": 1 }),
            profile: json!({}),
            depth: 0,
            parent: None,
        };
        command(&world, &user("u2"), &sooner, None);
        world.drive(&mut spine);
        start(&world, &user("u1"), "parent", json!({ "whom": "u:u2" }));
        pass(&world, &mut spine, 5_000);
        let facts = journal(&world).remove(&user("u1")).expect("facts");
        let heard =
            facts.iter().find_map(|fact| if let What::StartEnded { result, .. } = &fact.what { Some(result.clone()) } else { None });
        assert_eq!(heard.expect("within seconds, not hours")["skipped"], why.replace(' ', "_"));
        let moved = facts.iter().any(|fact| matches!(&fact.what, What::Moved { to, .. } if to == "failed"));
        assert!(moved, "{why}: {facts:#?}");
    }
}

#[test]
fn a_campaign_that_emits_is_heard_and_is_nobody() {
    for time in [NamespaceClock::Wall, NamespaceClock::Event] {
        let world = World::new(time, "[[segment]]\nname = \"everyone\"\nwhen = \"events >= 0\"\n");
        let mut spine = open(&world, &[SAYS, HEARS], None);
        world.drive(&mut spine);
        let key = campaign("says", "acme");
        let input =
            Input::Start { workflow: "says".into(), cause: "c".into(), entry: json!({}), profile: json!({}), depth: 0, parent: None };
        command(&world, &key, &input, Some(START));
        world.send(&[track("m1", "u1", "Seen", START)]);
        match time {
            NamespaceClock::Wall => pass(&world, &mut spine, 5_000),
            NamespaceClock::Event => {
                world.state_time(START + HOUR_MS);
                world.drive(&mut spine);
            }
        }
        assert_eq!(world.event_ids(&key).len(), 1, "it is an event");
        let started = kinds(&world, &key).iter().filter(|kind| *kind == "run_started").count();
        assert_eq!(started, 2, "that workflows hear");
        let profiles: std::collections::BTreeSet<Bytes> = world.records(Topic::Profiles).into_iter().map(|record| record.key).collect();
        assert_eq!(profiles, [user("u1")].into(), "and nobody's");
        assert_eq!(world.changes().len(), 1, "{:?}", world.changes());
    }
}

const ASKS: &str = r#"
[workflow]
name = "asks"
entry = { command = true }
[[node]]
name = "write"
kind = "effect"
agent = "writer"
timeout = "1m"
next = "over"
[[node]]
name = "over"
kind = "exit"
"#;

#[test]
fn what_cannot_be_held_is_a_dead_letter_and_taken_when_sent_again() {
    let world = World::new(NamespaceClock::Event, "");
    let mut spine = open(&world, &[ASKS], None);
    world.drive(&mut spine);
    let (key, topics) = (user("u1"), world.topics());
    let input = Input::Start { workflow: "asks".into(), cause: "c".into(), entry: json!({}), profile: json!({}), depth: 0, parent: None };
    command(&world, &key, &input, Some(START));
    let attribute = |n: usize| Input::Attribute { name: "n".into(), value: json!(n) };
    for n in 0..=HELD_MAX {
        command(&world, &key, &attribute(n), Some(START + 1 + n as i64));
    }
    world.drive(&mut spine);
    let mut sent = Vec::new();
    let redriven = redrive::redrive(&world.log, &topics.namespace, &redrive::Selection::default(), &mut |record| {
        sent.push(record);
        Ok(())
    });
    assert_eq!((redriven.expect("reads").sent, sent.len()), (1, 1), "one more than is held");
    let run = run_of("asks", &key, "c");
    assert!(!journal(&world)[&key].iter().any(|fact| matches!(fact.what, What::RunPaused { .. })), "the run is not to blame: {run}");
    run_to_end(&world, &mut spine, |_, _| done(json!({})));
    flywheel::log::LogWriter::append(&world.log, redrive::transaction(&topics, &sent[0])).expect("appends").wait().expect("appends");
    world.drive(&mut spine);
    let facts = journal(&world).remove(&key).expect("facts");
    let last =
        facts.iter().rev().find_map(|fact| if let What::AttributeSet { value, .. } = &fact.what { Some(value.clone()) } else { None });
    assert_eq!(last, Some(json!(HELD_MAX)));
}
