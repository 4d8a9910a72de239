//! Identity through the whole spine: handing over, waiting, shared devices, late events; whatever partition is faster.

use flywheel::domain::{DAY_MS, HOUR_MS, Millis, Namespace};
use flywheel::log::LogWriter;
use flywheel::replay::redrive::{Redriven, Selection, redrive, transaction};
use flywheel::schema;
use flywheel::schema::profile::ProfileRecord;
use flywheel::stream::{NamespaceClock, Topic, Topics, drive};

use crate::spine_world::{START, World, anonymous, identify, track, user};

const SEGMENTS: &str = r#"
[[segment]]
name = "buyer"
when = "orders >= 1"
[[segment]]
name = "watcher"
when = "orders == 0 && events >= 2"
"#;

/// (subject, events, orders) of the newest record of each person, `None` for who was removed.
fn people(world: &World) -> Vec<(String, Option<(i64, i64)>)> {
    let mut people = std::collections::BTreeMap::new();
    for record in world.records(Topic::Profiles) {
        let who = String::from_utf8_lossy(&record.key[5..]).into_owned();
        let counts = record.value.as_deref().map(|value| {
            let profile: ProfileRecord<'_> = schema::decode(value).expect("decodes");
            let total = |name: &str| profile.events.iter().filter(|totals| totals.event == name).map(|totals| totals.total).sum::<i64>();
            (profile.events.iter().map(|totals| totals.total).sum(), total("Order Completed"))
        });
        people.insert(who, counts);
    }
    people.into_iter().collect()
}

fn world() -> World {
    let world = World::new(NamespaceClock::Event, SEGMENTS);
    world.open();
    world
}

#[test]
fn what_a_device_did_before_login_becomes_the_users_once() {
    let world = world();
    world.send(&[
        track("m1", "a:d1", "Product Viewed", START),
        track("m2", "a:d1", "Order Completed", START + HOUR_MS),
        identify("i1", "d1", "u1", START + 2 * HOUR_MS),
        identify("i2", "d1", "u1", START + 3 * HOUR_MS),
        track("m3", "a:d1", "Product Viewed", START + 4 * HOUR_MS),
    ]);
    world.run();
    assert_eq!(world.event_ids(&anonymous("d1")), ["m1", "m2", "handover"]);
    assert_eq!(world.event_ids(&user("u1")).iter().filter(|id| *id == "absorb").count(), 1);
    assert_eq!(people(&world), [("a:d1".to_owned(), None), ("u:u1".to_owned(), Some((5, 1)))]);
    let (time, later) = (START + HOUR_MS, START + 2 * HOUR_MS);
    assert_eq!(world.changes(), [format!("a:d1 +buyer at {time}"), format!("a:d1 -buyer at {later}"), format!("u:u1 +buyer at {time}")]);
}

#[test]
fn a_user_waits_for_what_came_before_login_whichever_partition_is_faster() {
    let mut results = Vec::new();
    for anonymous_first in [true, false] {
        let world = world();
        let bodies = [
            track("m1", "a:d1", "Order Completed", START),
            identify("i1", "d1", "u1", START + HOUR_MS),
            track("m2", "a:d1", "Product Viewed", START + 2 * HOUR_MS),
            track("m3", "a:d1", "Product Viewed", START + 3 * HOUR_MS),
        ];
        world.send(&bodies);
        let mut spine = world.open();
        drive(&mut spine.workers()[..2]).expect("runs intake");
        let users = 2 + flywheel::domain::partition_of(&user("u1"), 3).0 as usize;
        let devices = 2 + flywheel::domain::partition_of(&anonymous("d1"), 3).0 as usize;
        let order = if anonymous_first { [devices, users] } else { [users, devices] };
        for at in order {
            drive(std::slice::from_mut(&mut spine.workers()[at])).expect("runs");
        }
        if !anonymous_first && users != devices {
            assert!(
                world.changes().iter().all(|change| !change.starts_with("u:u1")),
                "u1 watched before the order came: {:?}",
                world.changes()
            );
        }
        world.drive(&mut spine);
        results.push((people(&world), world.changes()));
    }
    assert_eq!(results[0], results[1]);
    assert!(results[0].1.iter().all(|change| !change.starts_with("u:u1 +watcher")), "{:?}", results[0].1);
}

#[test]
fn on_a_shared_device_earlier_history_goes_to_the_first_user_and_late_events_to_the_tie_of_their_time() {
    let world = world();
    let hour = |hours: i64| START + hours * HOUR_MS;
    world.send(&[
        track("m1", "a:d1", "Product Viewed", hour(0)),
        identify("i1", "d1", "u1", hour(10)),
        track("m2", "a:d1", "Product Viewed", hour(11)),
        identify("i2", "d1", "u2", hour(20)),
        track("m3", "a:d1", "Product Viewed", hour(21)),
        track("late1", "a:d1", "Order Completed", hour(12)),
        track("late0", "a:d1", "Product Viewed", hour(1)),
    ]);
    world.run();
    let ids = |who: &str| -> Vec<String> {
        world.event_ids(&user(who)).into_iter().filter(|id| !["expect", "absorb"].contains(&id.as_str())).collect()
    };
    assert_eq!(ids("u1"), ["i1", "m2", "late1", "late0"]);
    assert_eq!(ids("u2"), ["i2", "m3"]);
    let people = people(&world);
    assert_eq!(people[1..], [("u:u1".to_owned(), Some((5, 1))), ("u:u2".to_owned(), Some((2, 0)))]);
}

#[test]
fn a_crash_between_handover_and_absorb_loses_and_doubles_nothing() {
    for commits in 1.. {
        let mut world = world();
        world.options.fetch_bytes_max = 1;
        world.send(&[
            track("m1", "a:d1", "Order Completed", START),
            identify("i1", "d1", "u1", START + HOUR_MS),
            track("m2", "a:d1", "Product Viewed", START + 2 * HOUR_MS),
        ]);
        let mut spine = world.open();
        world.log.stop_after(commits);
        let finished = drive(spine.workers()).is_ok();
        drop(spine);
        world.log = world.log.reopen();
        world.run();
        assert_eq!(people(&world), [("a:d1".to_owned(), None), ("u:u1".to_owned(), Some((3, 1)))], "after {commits} commits");
        if finished {
            return;
        }
    }
}

#[test]
fn a_dead_letter_sent_again_is_no_duplicate_and_goes_once() {
    let world = world();
    world.send(&[r#"{"type":"track","messageId":"m1","userId":"u1"}"#.to_owned()]);
    world.run();
    let namespace = Namespace::new("t").expect("a slug");
    let all = Selection::default();
    let sent = |sent, already| Redriven { sent, already, hopeless: 0 };
    let topics = Topics::find(&world.log, &namespace).expect("reads").expect("is there");
    let again = |selection: &Selection| {
        let mut send = |record| Ok(world.log.append(transaction(&topics, &record))?.wait().map(drop)?);
        redrive(&world.log, &namespace, selection, &mut send).expect("redrives")
    };
    assert_eq!(again(&all), sent(1, 0));
    world.run();
    assert_eq!(again(&Selection { reason: Some("other".into()), ..all.clone() }), sent(0, 0));
    // It fails again, as nothing was fixed; the first letter was sent, the second was not yet.
    assert_eq!(again(&all), sent(1, 1));
    world.send(&[track("m1", "u1", "Order Completed", START)]);
    world.run();
    assert_eq!(world.event_ids(&user("u1")), ["m1"], "the id was never marked by what failed");
}

#[test]
fn what_was_not_applied_says_whose_it_was() {
    let world = world();
    world.send(&[track("m1", "u1", "Page", START), track("m1", "u1", "Page", START), r#"{"type":"track","userId":"u1"}"#.to_owned()]);
    world.run();
    let outcomes = world.records(Topic::Outcomes);
    let exceptions = outcomes.iter().flat_map(|record| {
        let batch: schema::records::BatchOutcomes = schema::decode(record.value.as_deref().expect("a value")).expect("decodes");
        batch.exceptions.into_iter().map(|exception| (exception.tenant, exception.kind))
    });
    let said = |kind: &str| ("acme".to_owned(), kind.to_owned());
    assert_eq!(exceptions.collect::<Vec<_>>(), [said("duplicate"), said("dead_lettered")]);
}

#[test]
fn a_user_may_not_become_a_user() {
    let world = world();
    world.send(&[
        identify("i1", "u2", "u1", START),
        format!(r#"{{"type":"alias","messageId":"x","previousId":"u1","userId":"u1","timestamp":"{}"}}"#, Millis(START.0 + DAY_MS)),
    ]);
    world.run();
    let letters = world.records(Topic::DeadLetters);
    assert_eq!(letters.len(), 1);
    let letter: schema::records::DeadLetter<'_> = schema::decode(letters[0].value.as_deref().expect("a value")).expect("decodes");
    assert_eq!((letter.reason, letter.stage), ("identity_loop", "intake"));
}
