//! Workflows on the stream: from an event or a segment change to facts in the journal, whatever crashes between.

use flywheel::domain::{DAY_MS, HOUR_MS, Incarnation, Millis};
use flywheel::replay::redrive;
use flywheel::state::MemoryStore;
use flywheel::stream::{self, NamespaceClock, Topic, drive};
use flywheel::workflow::{Fact, Input};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::spine_world::{START, World, identify, track, user};
use crate::workflow_world::{command, count, done, journal, journal_bytes, kinds, open, open_copied, pass, run_of, run_to_end};

const WELCOME: &str = r#"
[workflow]
name = "welcome"
[workflow.entry]
event = "Signed Up"
reenter = "never"

[[node]]
name = "bought"
kind = "goal"
event = "Order Completed"

[[node]]
name = "write"
kind = "effect"
agent = "writer"
input = { plan = "entry.plan", events = "events" }
returns = { text = "string" }
timeout = "1m"
next = "rest"

[[node]]
name = "rest"
kind = "delay"
wait = "2h"
next = "over"

[[node]]
name = "over"
kind = "exit"
outcome = "rested"
"#;

const LAPSED: &str = r#"
[workflow]
name = "lapsed"
[workflow.entry]
segment = "quiet"

[[node]]
name = "rest"
kind = "delay"
wait = "1d"
next = "over"

[[node]]
name = "over"
kind = "exit"
outcome = "rested"
"#;

const QUIET: &str = r#"
[[segment]]
name = "quiet"
when = "days_since_seen >= 1"
"#;

#[test]
fn an_event_starts_a_run_an_effect_and_a_timer_end_it() {
    let world = World::new(NamespaceClock::Wall, "");
    let mut spine = open(&world, &[WELCOME], None);
    world.drive(&mut spine);
    world.send(&[track("m1", "u1", "Signed Up", START)]);
    run_to_end(&world, &mut spine, |node, input| {
        assert_eq!((node, &input["events"]), ("write", &json!(1)), "the profile came along");
        done(json!({"text": "hello"}))
    });
    let key = user("u1");
    assert_eq!(kinds(&world, &key), ["run_started", "effect_requested", "attempt_minted", "effect_completed", "moved", "delayed"]);
    pass(&world, &mut spine, 2 * HOUR_MS);
    assert_eq!(kinds(&world, &key).last().map(String::as_str), Some("run_ended"));
    let ended = journal(&world)[&key].last().unwrap().clone();
    assert_eq!(ended.run, Some(run_of("welcome", &key, "m1")), "the same cause gives the same run");
}

#[test]
fn a_segment_entered_by_time_alone_starts_a_run() {
    let world = World::new(NamespaceClock::Wall, QUIET);
    let mut spine = open(&world, &[LAPSED], None);
    world.drive(&mut spine);
    world.send(&[track("m1", "u1", "Page", START)]);
    pass(&world, &mut spine, DAY_MS);
    assert_eq!(kinds(&world, &user("u1")).first().map(String::as_str), Some("run_started"));
    pass(&world, &mut spine, DAY_MS);
    assert_eq!(kinds(&world, &user("u1")).last().map(String::as_str), Some("run_ended"));
}

#[test]
fn in_event_time_a_run_lives_in_the_time_of_its_events() {
    let world = World::new(NamespaceClock::Event, QUIET);
    let mut spine = open(&world, &[WELCOME, LAPSED], None);
    world.send(&[
        track("m1", "u1", "Signed Up", START),
        track("m2", "u1", "Page", START + HOUR_MS),
        track("m3", "u2", "Signed Up", START),
        track("m4", "u2", "Order Completed", START + HOUR_MS),
    ]);
    world.state_time(START + 10 * DAY_MS);
    run_to_end(&world, &mut spine, |_, _| done(json!({"text": "hello"})));
    let all = journal(&world);
    let ended = |who: &str| -> Vec<(Millis, String)> {
        let facts = all[&user(who)].iter().filter(|fact| fact.parts().1.starts_with("{\"run_ended\""));
        facts.map(|fact| (fact.at, fact.parts().1.split("\"ending\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned())).collect()
    };
    assert_eq!(
        ended("u1"),
        [(START + 2 * HOUR_MS, "completed".to_owned()), (START + HOUR_MS + 2 * DAY_MS, "completed".to_owned())],
        "two hours after the sign-up; a day after the day of silence"
    );
    assert_eq!(ended("u2")[0], (START + HOUR_MS, "goal".to_owned()), "the order was kept back until the effect had answered");
}

#[test]
fn whatever_was_decided_is_not_decided_again_after_a_crash_anywhere() {
    let whole = {
        let world = World::new(NamespaceClock::Wall, QUIET);
        let mut spine = open(&world, &[WELCOME], None);
        world.drive(&mut spine);
        for user in 0..20 {
            world.send(&[track(&format!("m{user}"), &format!("u{user}"), "Signed Up", START)]);
        }
        run_to_end(&world, &mut spine, |_, _| done(json!({"text": "hello"})));
        pass(&world, &mut spine, 2 * HOUR_MS);
        journal(&world)
    };
    // A crash after every so many steps, with the states as they were stored, or lost.
    for (every, keeps_state) in [(1, true), (2, false), (3, true), (5, false), (8, true)] {
        let mut world = World::new(NamespaceClock::Wall, QUIET);
        let mut spine = open(&world, &[WELCOME], None);
        world.drive(&mut spine);
        for user in 0..20 {
            world.send(&[track(&format!("m{user}"), &format!("u{user}"), "Signed Up", START)]);
        }
        for round in 0..200 {
            for at in 0..every {
                let count = spine.workers().len();
                spine.workers()[(round + at) % count].step().expect("steps");
            }
            drop(spine);
            if !keeps_state {
                world.state = Arc::new(MemoryStore::new());
            }
            spine = open(&world, &[WELCOME], None);
        }
        run_to_end(&world, &mut spine, |_, _| done(json!({"text": "hello"})));
        pass(&world, &mut spine, 2 * HOUR_MS);
        assert_eq!(what_happened(&journal(&world)), what_happened(&whole), "a crash every {every} steps, states kept: {keeps_state}");
    }
}

/// The kinds of facts of each subject, without their times: those depend on when ticks came.
fn what_happened(all: &BTreeMap<bytes::Bytes, Vec<Fact>>) -> Vec<(bytes::Bytes, Vec<String>)> {
    let kind = |fact: &Fact| fact.parts().1.split('"').nth(1).unwrap().to_owned();
    all.iter().map(|(key, facts)| (key.clone(), facts.iter().map(kind).collect())).collect()
}

#[test]
fn states_are_a_fold_of_the_journal_alone() {
    let mut world = World::new(NamespaceClock::Wall, QUIET);
    let mut spine = open(&world, &[WELCOME], None);
    world.drive(&mut spine);
    world.send(&[track("m1", "u1", "Signed Up", START)]);
    run_to_end(&world, &mut spine, |_, _| done(json!({"text": "hello"})));
    for worker in spine.workers() {
        worker.stop().expect("stops");
    }
    drop(spine);
    world.state = Arc::new(MemoryStore::new());
    let before = journal_bytes(&world);
    let mut spine = open(&world, &[WELCOME], None);
    world.drive(&mut spine);
    assert_eq!(journal_bytes(&world).len(), before.len(), "nothing is decided by starting");
    pass(&world, &mut spine, 2 * HOUR_MS);
    assert_eq!(kinds(&world, &user("u1")).last().map(String::as_str), Some("run_ended"), "its timer was in the journal");
}

#[test]
fn the_same_start_twice_is_one_run_and_what_is_not_awaited_is_refused() {
    let world = World::new(NamespaceClock::Wall, "");
    let mut spine = open(&world, &[LAPSED], None);
    world.drive(&mut spine);
    let key = user("u1");
    let start =
        Input::Start { workflow: "lapsed".into(), cause: "once".into(), entry: json!({}), profile: json!({}), depth: 0, parent: None };
    command(&world, &key, &start, None);
    command(&world, &key, &start, None);
    let signal = Input::Signal { run: run_of("lapsed", &key, "once"), cause: "s".into(), name: "nobody".into(), payload: json!({}) };
    command(&world, &key, &signal, None);
    world.drive(&mut spine);
    assert_eq!(kinds(&world, &key).iter().filter(|kind| *kind == "run_started").count(), 1);
    let status: Vec<_> =
        spine.workers().iter().map(|worker| worker.shared().status()).filter(|status| status.stage == "workflows").collect();
    assert_eq!(status.iter().map(|status| status.dead_lettered).sum::<u64>(), 0);
    assert!(status.iter().map(|status| status.filtered).sum::<u64>() > 0);
}

#[test]
fn a_command_that_went_through_too_many_subjects_is_a_dead_letter() {
    let world = World::new(NamespaceClock::Wall, "");
    let mut spine = open(&world, &[LAPSED], None);
    world.drive(&mut spine);
    let topics = world.topics();
    let key = user("u1");
    let record = flywheel::schema::records::CommandsRecord::Command(flywheel::schema::records::Command {
        kind: "due",
        at: None,
        depth: 16,
        body: "\"due\"",
    });
    let partition = flywheel::domain::partition_of(&key, topics.count(Topic::Commands));
    world.append(&topics, Topic::Commands, partition, &key, START, &record);
    drive(spine.workers()).unwrap();
    assert_eq!(count(&world, Topic::DeadLetters), 1);
    let again = || {
        let mut sent = Vec::new();
        let redriven = redrive::redrive(&world.log, &topics.namespace, &redrive::Selection::default(), &mut |record| {
            sent.push(record);
            Ok(())
        });
        (redriven.unwrap(), sent)
    };
    let (redriven, sent) = again();
    assert_eq!((redriven.sent, sent[0].topic, &sent[0].key), (1, Topic::Commands, &key));
    flywheel::log::LogWriter::append(&world.log, redrive::transaction(&topics, &sent[0])).unwrap().wait().unwrap();
    assert_eq!(again().0.already, 1);
}

#[test]
fn a_login_ends_the_anonymous_runs_and_carries_what_they_left_over() {
    let world = World::new(NamespaceClock::Wall, "");
    let mut spine = open(&world, &[WELCOME], None);
    world.drive(&mut spine);
    world.send(&[track("m1", "a:phone", "Signed Up", START)]);
    run_to_end(&world, &mut spine, |_, _| done(json!({"text": "hello"})));
    world.send(&[identify("m2", "phone", "u1", START + 1), track("m3", "u1", "Signed Up", START + 2)]);
    run_to_end(&world, &mut spine, |_, _| done(json!({"text": "hello"})));
    let anonymous = crate::spine_world::anonymous("phone");
    assert_eq!(kinds(&world, &anonymous).last().map(String::as_str), Some("run_ended"));
    let started = kinds(&world, &user("u1")).iter().filter(|kind| *kind == "run_started").count();
    assert_eq!(started, 0, "`reenter = never` holds for the same person under another name");
}

const RECEIPT: &str = r#"
[workflow]
name = "receipt"
[workflow.entry]
command = true

[[node]]
name = "send"
kind = "effect"
channel = "email"
purpose = "transactional"
input = { template = "'receipt'" }
unknown = "look_up"
timeout = "1m"
next = "over"

[[node]]
name = "over"
kind = "exit"
"#;

#[test]
fn in_a_restored_folder_not_even_a_receipt_goes_out_before_an_operator_lets_time_pass() {
    let world = World::new(NamespaceClock::Wall, "");
    let mut spine = open(&world, &[RECEIPT], None);
    world.drive(&mut spine);
    let key = user("u1");
    let start =
        Input::Start { workflow: "receipt".into(), cause: "m".into(), entry: json!({}), profile: json!({}), depth: 0, parent: None };
    command(&world, &key, &Input::Attribute { name: "email".into(), value: json!("ada@example.com") }, None);
    command(&world, &key, &start, None);
    world.drive(&mut spine);
    let begin = |world: &World| {
        let (key, effect, attempt, ..) = crate::workflow_world::open_attempts(world).remove(0);
        let executor = "00000000000000000000000000000001".to_owned();
        command(world, &key, &Input::EffectStarted { effect, attempt, executor, appended: START }, None);
    };
    drop(spine);
    let mut spine = open_copied(&world, Incarnation(2));
    world.clock.advance(5_000);
    begin(&world);
    world.drive(&mut spine);
    assert!(!kinds(&world, &key).contains(&"permit_granted".to_owned()), "{:?}", kinds(&world, &key));
    let topics = world.topics();
    let (record, value) = stream::release(&topics.namespace, Incarnation(2)).unwrap();
    let mut batch = flywheel::log::BatchBuilder::new();
    batch.push(&record, Some(&value), START);
    let definitions = topics.partition(Topic::Definitions, flywheel::domain::PartitionId(0));
    let transaction = flywheel::log::Transaction { batches: vec![(definitions, batch.build())], commits: Vec::new() };
    flywheel::log::LogWriter::append(&world.log, transaction).unwrap().wait().unwrap();
    for _ in 0..3 {
        world.clock.advance(2_000);
        world.drive(&mut spine);
    }
    assert!(kinds(&world, &key).contains(&"permit_granted".to_owned()), "{:?}", kinds(&world, &key));
}
