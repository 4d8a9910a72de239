//! How runs begin that no event of the person begins, and what runs do beyond their own subject: schedules, broadcasts, runs of others,
//! questions, events.

use bytes::Bytes;
use flywheel::domain::{DAY_MS, HOUR_MS, Millis, SubjectKey, TenantId};
use flywheel::stream::{NamespaceClock, Topic};
use flywheel::workflow::{Input, RunId, What, stagger};
use serde_json::json;

use crate::spine_world::{START, World, anonymous, tenant, track, user};
use crate::workflow_world::{command, count, done, journal, kinds, open, pass, run_of, run_to_end};

const REPORT: &str = r#"
[workflow]
name = "report"
[workflow.entry]
every = "1h"
[[node]]
name = "over"
kind = "exit"
"#;

pub fn campaign(name: &str, tenant: &str) -> Bytes {
    let tenant = TenantId::new(tenant).expect("a slug");
    flywheel::domain::Subject::user(&format!("campaign:{name}")).key(&tenant).bytes().clone()
}

/// What caused each run of a subject, with the time at which it began.
fn begun(world: &World, key: &Bytes) -> Vec<(Millis, String)> {
    let facts = journal(world).remove(key).unwrap_or_default();
    let began = |fact: flywheel::workflow::Fact| match fact.what {
        What::RunStarted { cause, .. } => Some((fact.at, cause)),
        _ => None,
    };
    facts.into_iter().filter_map(began).collect()
}

#[test]
fn a_schedule_begins_a_run_each_time_it_comes_round_and_one_for_all_that_were_missed() {
    let world = World::new(NamespaceClock::Wall, "");
    let mut spine = open(&world, &[REPORT], None);
    world.drive(&mut spine);
    let key = campaign("report", "default");
    pass(&world, &mut spine, HOUR_MS);
    pass(&world, &mut spine, HOUR_MS);
    let hour = |hours: i64| format!("schedule:report:{}", (START + hours * HOUR_MS).0);
    let causes = |world: &World| begun(world, &key).into_iter().map(|(_, cause)| cause).collect::<Vec<_>>();
    assert_eq!(causes(&world), [hour(1), hour(2)]);
    drop(spine);
    // Nobody was there for half a day.
    world.clock.advance(12 * HOUR_MS);
    let mut spine = open(&world, &[REPORT], None);
    pass(&world, &mut spine, 2_000);
    assert_eq!(causes(&world), [hour(1), hour(2), hour(14)]);
    assert_eq!(journal(&world).len(), 1, "one subject, whatever the partitions");
}

#[test]
fn in_event_time_a_schedule_begins_at_its_own_time() {
    let world = World::new(NamespaceClock::Event, "");
    let mut spine = open(&world, &[REPORT], None);
    for minutes in [10, 70, 75, 500] {
        world.state_time(START + minutes * 60_000);
        world.drive(&mut spine);
    }
    let times: Vec<Millis> = begun(&world, &campaign("report", "default")).into_iter().map(|(at, _)| at).collect();
    assert_eq!(times, [START + HOUR_MS, START + 8 * HOUR_MS], "when the clock struck, not when it was said; the last of those missed");
}

const BUYERS: &str = r#"
[[segment]]
name = "buyer"
when = "orders >= 1"
"#;

const NEWS: &str = r#"
[workflow]
name = "news"
[workflow.entry]
broadcast = "buyer"
throttle = "1h"
reenter = "always"
[[node]]
name = "write"
kind = "effect"
agent = "writer"
input = { orders = "orders", issue = "entry.issue" }
timeout = "1m"
next = "over"
[[node]]
name = "over"
kind = "exit"
"#;

fn broadcast(world: &World, cause: &str) -> RunId {
    let key = campaign("news", tenant().as_str());
    let (workflow, cause) = ("news".to_owned(), cause.to_owned());
    let id = run_of("news", &key, &cause);
    command(world, &key, &Input::Start { workflow, cause, entry: json!({ "issue": 7 }), profile: json!({}), depth: 0, parent: None }, None);
    id
}

/// Twenty people; every second one has bought something.
fn people(world: &World) {
    let bodies: Vec<String> =
        (0..20).map(|n| track(&format!("m{n}"), &format!("u{n}"), if n % 2 == 0 { "Order Completed" } else { "Page" }, START)).collect();
    world.send(&bodies);
}

#[test]
fn a_broadcast_reaches_each_member_once_at_a_time_of_its_own_within_the_throttle() {
    let mut world = World::new(NamespaceClock::Wall, BUYERS);
    world.options.wakes_per_commit_max = 2;
    let mut spine = open(&world, &[NEWS], None);
    people(&world);
    pass(&world, &mut spine, 1_000);
    let at = flywheel::env::Clock::now(&world.clock);
    let id = broadcast(&world, "issue-7");
    // Said again, as by a client that did not hear the answer.
    broadcast(&world, "issue-7");
    pass(&world, &mut spine, 2_000);
    let runs = |world: &World| (0..20).map(|n| begun(world, &user(&format!("u{n}"))).len()).collect::<Vec<_>>();
    assert!(runs(&world).iter().sum::<usize>() < 5, "spread over an hour: {:?}", runs(&world));
    pass(&world, &mut spine, HOUR_MS);
    assert_eq!(runs(&world), (0..20).map(|n| usize::from(n % 2 == 0)).collect::<Vec<_>>());
    for n in (0..20).step_by(2) {
        let key = user(&format!("u{n}"));
        let (began, cause) = begun(&world, &key).remove(0);
        assert_eq!(cause, id.to_string());
        let due = stagger(&cause, &format!("u:u{n}"), HOUR_MS);
        let since = began.since_ms(at);
        assert!(since >= due && since < due + 610_000, "u{n}: {since} ms after the broadcast, due after {due}");
    }
    run_to_end(&world, &mut spine, |_, input| {
        assert_eq!(input, &json!({ "orders": 1, "issue": 7 }), "the member's own profile, and what was sent along");
        done(json!({}))
    });
    let skipped = journal(&world)[&campaign("news", "acme")].iter().filter(|fact| matches!(fact.what, What::RunSkipped { .. })).count();
    assert_eq!(skipped, 1, "the second word is no second broadcast");
}

#[test]
fn a_broadcast_goes_on_after_a_crash_anywhere_and_reaches_nobody_twice() {
    for commits in 1.. {
        let mut world = World::new(NamespaceClock::Wall, BUYERS);
        world.options.wakes_per_commit_max = 2;
        let mut spine = open(&world, &[NEWS], None);
        people(&world);
        pass(&world, &mut spine, 1_000);
        broadcast(&world, "issue-7");
        world.log.stop_after(commits);
        let finished = flywheel::stream::drive(spine.workers()).is_ok();
        drop(spine);
        world.log = world.log.reopen();
        if commits % 2 == 0 {
            world.state = std::sync::Arc::default();
        }
        let mut spine = open(&world, &[NEWS], None);
        pass(&world, &mut spine, HOUR_MS);
        pass(&world, &mut spine, 2_000);
        let runs: Vec<usize> = (0..20).map(|n| begun(&world, &user(&format!("u{n}"))).len()).collect();
        assert_eq!(runs, (0..20).map(|n| usize::from(n % 2 == 0)).collect::<Vec<_>>(), "a crash after {commits} commits");
        if finished {
            assert!(commits > 5, "ten members in twos");
            return;
        }
    }
}

#[test]
fn a_broadcast_reaches_nobody_of_another_tenant() {
    let world = World::new(NamespaceClock::Wall, BUYERS);
    let mut spine = open(&world, &[NEWS], None);
    people(&world);
    pass(&world, &mut spine, 1_000);
    let key = campaign("news", "other");
    let start = Input::Start { workflow: "news".into(), cause: "c".into(), entry: json!({}), profile: json!({}), depth: 0, parent: None };
    command(&world, &key, &start, None);
    pass(&world, &mut spine, 2 * HOUR_MS);
    assert_eq!(journal(&world).values().flatten().filter(|fact| matches!(fact.what, What::RunStarted { .. })).count(), 0);
}

pub const PARENT: &str = r#"
[workflow]
name = "parent"
entry = { command = true }
[[node]]
name = "ask"
kind = "start"
workflow = "child"
subject = "entry.whom"
input = { n = "1" }
timeout = "2h"
on_failure = "failed"
next = "over"
[[node]]
name = "over"
kind = "exit"
outcome = "heard"
[[node]]
name = "failed"
kind = "exit"
failed = true
"#;

pub const CHILD: &str = r#"
[workflow]
name = "child"
entry = { command = true }
[[node]]
name = "rest"
kind = "wait_for"
any = [{ signal = "well", next = "good" }, { signal = "badly", next = "bad" }]
timeout = "1d"
next = "good"
[[node]]
name = "good"
kind = "exit"
outcome = "well"
[[node]]
name = "bad"
kind = "exit"
failed = true
"#;

pub fn start(world: &World, key: &Bytes, workflow: &str, entry: serde_json::Value) {
    let input = Input::Start { workflow: workflow.into(), cause: "c".into(), entry, profile: json!({}), depth: 0, parent: None };
    command(world, key, &input, None);
}

#[test]
fn a_run_starts_one_of_another_subject_and_hears_of_its_end_or_of_none() {
    for (signal, last) in [(Some("well"), "heard"), (Some("badly"), ""), (None, "")] {
        for whom in ["u:u2", "a:phone", "u1"] {
            let world = World::new(NamespaceClock::Wall, "");
            let mut spine = open(&world, &[PARENT, CHILD], None);
            world.drive(&mut spine);
            start(&world, &user("u1"), "parent", json!({ "whom": whom }));
            pass(&world, &mut spine, 1_000);
            let key = match whom {
                "a:phone" => anonymous("phone"),
                whom => user(whom.trim_start_matches("u:")),
            };
            let facts = journal(&world).remove(&key).expect("a run of the other");
            let child = facts.iter().rev().find(|fact| matches!(&fact.what, What::RunStarted { workflow, .. } if workflow == "child"));
            let run = child.and_then(|fact| fact.run).expect("started");
            if let Some(signal) = signal {
                let input = Input::Signal { run, cause: "s".into(), name: signal.into(), payload: json!({}) };
                command(&world, &key, &input, None);
            }
            pass(&world, &mut spine, 2 * HOUR_MS);
            let parent = run_of("parent", &user("u1"), "c");
            let ended = journal(&world)[&user("u1")].iter().find_map(|fact| match &fact.what {
                What::RunEnded { outcome, .. } if fact.run == Some(parent) => Some(outcome.clone()),
                _ => None,
            });
            assert_eq!(ended.as_deref(), Some(last), "{signal:?} by {whom}");
        }
    }
}

const FRESH: &str = r#"
[workflow]
name = "fresh"
entry = { command = true }
[[node]]
name = "rest"
kind = "delay"
wait = "1h"
next = "look"
[[node]]
name = "look"
kind = "branch"
fresh = true
cases = [{ when = "orders > 0", next = "bought" }]
otherwise = "not"
[[node]]
name = "bought"
kind = "exit"
outcome = "bought"
[[node]]
name = "not"
kind = "exit"
outcome = "not"
"#;

#[test]
fn a_fresh_branch_decides_by_what_the_profile_is_then() {
    for (time, buys) in
        [(NamespaceClock::Wall, true), (NamespaceClock::Wall, false), (NamespaceClock::Event, true), (NamespaceClock::Event, false)]
    {
        let world = World::new(time, "");
        let mut spine = open(&world, &[FRESH], None);
        world.drive(&mut spine);
        world.send(&[track("m1", "u1", "Page", START)]);
        let input = Input::Start {
            workflow: "fresh".into(),
            cause: "c".into(),
            entry: json!({}),
            profile: json!({ "orders": 0 }),
            depth: 0,
            parent: None,
        };
        command(&world, &user("u1"), &input, Some(START));
        world.drive(&mut spine);
        let event = if buys { "Order Completed" } else { "Page" };
        world.send(&[track("m2", "u1", event, START + 60_000)]);
        match time {
            NamespaceClock::Wall => pass(&world, &mut spine, HOUR_MS),
            NamespaceClock::Event => {
                world.state_time(START + 2 * HOUR_MS);
                world.drive(&mut spine);
            }
        }
        let expect = ["run_started", "delayed", "timer_fired", "moved", "profile_asked", "profile_seen", "moved", "run_ended"];
        assert_eq!(kinds(&world, &user("u1")), expect);
        let facts = journal(&world);
        let What::RunEnded { outcome, .. } = &facts[&user("u1")].last().expect("facts").what else { panic!("ended") };
        assert_eq!(outcome, if buys { "bought" } else { "not" }, "{time:?}");
    }
}

pub const SAYS: &str = r#"
[workflow]
name = "says"
entry = { command = true }
[[node]]
name = "say"
kind = "emit"
event = "Order Completed"
properties = { revenue = "12.5" }
next = "over"
[[node]]
name = "over"
kind = "exit"
"#;

pub const HEARS: &str = r#"
[workflow]
name = "hears"
entry = { event = "Order Completed" }
[[node]]
name = "over"
kind = "exit"
"#;

#[test]
fn an_emitted_event_is_one_like_any_other_and_once_whatever_crashes() {
    for commits in 1.. {
        let mut world = World::new(NamespaceClock::Wall, BUYERS);
        let mut spine = open(&world, &[SAYS, HEARS], None);
        pass(&world, &mut spine, 1_000);
        start(&world, &user("u1"), "says", json!({}));
        world.log.stop_after(commits);
        let finished = flywheel::stream::drive(spine.workers()).is_ok();
        drop(spine);
        world.log = world.log.reopen();
        let mut spine = open(&world, &[SAYS, HEARS], None);
        pass(&world, &mut spine, 2_000);
        assert_eq!(world.event_ids(&user("u1")).len(), 1, "a crash after {commits} commits");
        assert_eq!(world.changes().len(), 1, "it counts for features and segments");
        let started = kinds(&world, &user("u1")).iter().filter(|kind| *kind == "run_started").count();
        assert_eq!(started, 2, "and for other workflows");
        if finished {
            return;
        }
    }
}

const ROUND: &str = r#"
[workflow]
name = "round"
entry = { command = true, reenter = "always" }
[[node]]
name = "again"
kind = "start"
workflow = "round"
subject = "'u:u1'"
next = "over"
[[node]]
name = "over"
kind = "exit"
"#;

#[test]
fn a_workflow_that_starts_itself_comes_to_an_end() {
    let world = World::new(NamespaceClock::Wall, "");
    let mut spine = open(&world, &[ROUND], None);
    world.drive(&mut spine);
    start(&world, &user("u1"), "round", json!({}));
    pass(&world, &mut spine, DAY_MS);
    let key = SubjectKey::from_bytes(user("u1")).expect("a key");
    let facts = journal(&world).remove(key.bytes()).expect("facts");
    assert_eq!(facts.iter().filter(|fact| matches!(fact.what, What::RunStarted { .. })).count(), 16);
    assert!(facts.iter().any(|fact| matches!(&fact.what, What::RunPaused { reason, .. } if reason.contains("in a row"))));
    assert_eq!(count(&world, Topic::DeadLetters), 0);
}
