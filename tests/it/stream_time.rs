//! Time travels with the data: one test per interleaving that `Time` of the semantics names.

use flywheel::domain::{DAY_MS, HOUR_MS, Incarnation, PartitionId, partition_of};
use flywheel::env::Clock;
use flywheel::log::{BatchBuilder, LogWriter, Transaction};
use flywheel::schema;
use flywheel::schema::profile::ProfileRecord;
use flywheel::schema::records::EventsRecord;
use flywheel::stream::{NamespaceClock, Options, Setup, Spine, Stepped, Topic, drive, override_of, release};

use crate::spine_world::{START, World, track, user};

const QUIET: &str = r#"
[[segment]]
name = "quiet"
when = "days_since_seen >= 1"
"#;

/// The intake partition of a user, and one that is not.
fn partitions(world: &World, who: &str) -> (usize, usize) {
    let own = partition_of(&user(who), world.partitions.intake);
    (own.0 as usize, usize::from(own == PartitionId(0)))
}

#[test]
fn no_silence_is_concluded_while_an_earlier_record_waits_in_a_partition_that_nobody_reads() {
    let world = World::new(NamespaceClock::Wall, QUIET);
    let mut spine = world.open();
    world.send(&[track("m1", "u1", "Page", START)]);
    world.drive(&mut spine);
    // Acknowledged just in time, but its partition is slow.
    world.clock.set(START + DAY_MS - 1);
    world.send(&[track("m2", "u1", "Page", START + DAY_MS - 1)]);
    world.clock.set(START + DAY_MS + 10_000);
    let (own, other) = partitions(&world, "u1");
    for _ in 0..3 {
        spine.workers()[other].step().expect("steps");
        drive(&mut spine.workers()[2..]).expect("runs");
    }
    assert!(world.changes().is_empty(), "time waits for the slow partition: {:?}", world.changes());
    spine.workers()[own].step().expect("steps");
    world.drive(&mut spine);
    assert!(world.changes().is_empty(), "m2 was in time: {:?}", world.changes());
    world.clock.set(START + 2 * DAY_MS);
    world.drive(&mut spine);
    assert_eq!(world.changes(), [format!("u:u1 +quiet at {}", START + 2 * DAY_MS)], "woken at the tick's time");
}

/// Offsets that `events` grew by while the clock went on for `seconds`, one at a time.
fn written_in(world: &World, spine: &mut flywheel::stream::Spine, seconds: i64) -> usize {
    let before = world.records(Topic::Events).len();
    for _ in 0..seconds {
        world.clock.advance(1_000);
        world.drive(spine);
    }
    world.records(Topic::Events).len() - before
}

#[test]
fn time_is_told_seldom_while_nothing_comes_and_at_once_when_something_does_or_somebody_is_due() {
    let world = World::new(NamespaceClock::Wall, QUIET);
    let mut spine = world.open();
    world.send(&[track("m1", "u1", "Page", START)]);
    world.drive(&mut spine);
    let busy = written_in(&world, &mut spine, 10);
    let ticks_each = (world.partitions.intake * world.partitions.events) as usize;
    assert!(busy >= 9 * ticks_each, "{busy} in ten seconds after an event");
    let quiet = written_in(&world, &mut spine, 600);
    assert!(quiet <= 12 * ticks_each, "{quiet} in ten minutes of silence");
    world.send(&[track("m2", "u1", "Page", world.clock.now())]);
    let again = written_in(&world, &mut spine, 5);
    assert!(again > 4 * ticks_each, "{again} in the five seconds after the next event");
    let due = world.clock.now() + DAY_MS - 5_000;
    world.clock.set(due - 30_000);
    world.drive(&mut spine);
    assert!(world.changes().is_empty());
    written_in(&world, &mut spine, 33);
    assert_eq!(world.changes().len(), 1, "woken within seconds of being due");
}

#[test]
fn an_edge_partition_without_an_owner_stops_time() {
    let world = World::new(NamespaceClock::Wall, QUIET);
    let mut spine = world.open();
    world.send(&[track("m1", "u1", "Page", START)]);
    world.drive(&mut spine);
    let (_, other) = partitions(&world, "u1");
    let before = spine.workers()[2].shared().status().time;
    for days in 2..5 {
        world.clock.set(START + days * DAY_MS);
        for worker in [1 - other, 2, 3, 4] {
            spine.workers()[worker].step().expect("steps");
        }
    }
    assert_eq!(spine.workers()[2].shared().status().time, before);
    assert!(world.changes().is_empty());
}

#[test]
fn behind_its_end_an_edge_knows_only_the_append_time_of_what_it_folded() {
    let mut world = World::new(NamespaceClock::Wall, QUIET);
    world.options = Options { linger_ms: 0, fetch_bytes_max: 1, ..Options::default() };
    let mut spine = world.open();
    world.drive(&mut spine);
    let own = partitions(&world, "u1").0;
    world.send(&[track("m1", "u1", "Page", START)]);
    world.clock.set(START + HOUR_MS);
    world.send(&[track("m2", "u1", "Page", START + HOUR_MS)]);
    world.clock.set(START + 5 * HOUR_MS);
    spine.workers()[own].step().expect("folds m1");
    assert_eq!(spine.workers()[own].shared().status().time, Some(START.0), "m2 is still to come");
    spine.workers()[own].step().expect("folds m2");
    world.clock.set(START + 6 * HOUR_MS);
    spine.workers()[own].step().expect("asks for the end");
    assert_eq!(spine.workers()[own].shared().status().time, Some((START + 6 * HOUR_MS).0));
}

#[test]
fn a_tick_of_many_wake_ups_takes_several_commits_and_wakes_each_once_whatever_crashes() {
    let people = 23;
    for commits in 1.. {
        let mut world = World::new(NamespaceClock::Wall, QUIET);
        world.options = Options { linger_ms: 0, wakes_per_commit_max: 3, ..Options::default() };
        let mut spine = world.open();
        let bodies: Vec<String> = (0..people).map(|n| track(&format!("m{n}"), &format!("u{n}"), "Page", START + n)).collect();
        world.clock.set(START + people);
        world.send(&bodies);
        world.drive(&mut spine);
        spine.workers().iter_mut().for_each(|worker| worker.stop().expect("stops"));
        world.clock.set(START + 2 * DAY_MS);
        world.log.stop_after(commits);
        let finished = drive(spine.workers()).is_ok();
        drop(spine);
        world.log = world.log.reopen();
        world.run();
        let changes = world.changes();
        assert_eq!(changes.len(), people as usize, "crash after {commits} commits: {changes:?}");
        assert!(changes.iter().all(|change| change.contains(" +quiet at ")));
        if finished {
            assert!(commits > 8, "23 people in threes");
            return;
        }
    }
}

#[test]
fn in_event_time_a_persons_own_wake_ups_run_before_their_next_record_wherever_other_partitions_are() {
    let world = World::new(NamespaceClock::Event, QUIET);
    let mut spine = world.open();
    world.send(&[track("m1", "u1", "Page", START), track("m2", "u1", "Page", START + 3 * DAY_MS)]);
    world.drive(&mut spine);
    // Nobody has stated any time yet.
    let expected = [format!("u:u1 +quiet at {}", START + DAY_MS), format!("u:u1 -quiet at {}", START + 3 * DAY_MS)];
    assert_eq!(world.changes(), expected);
}

#[test]
fn in_event_time_the_wall_clock_moves_nothing() {
    let world = World::new(NamespaceClock::Event, QUIET);
    let mut spine = world.open();
    world.send(&[track("m1", "u1", "Page", START)]);
    world.drive(&mut spine);
    world.clock.set(START + 400 * DAY_MS);
    world.drive(&mut spine);
    assert!(world.changes().is_empty());
    world.state_time(START + 2 * DAY_MS);
    world.drive(&mut spine);
    assert_eq!(world.changes(), [format!("u:u1 +quiet at {}", START + DAY_MS)]);
}

#[test]
fn an_event_a_day_late_on_receipt_makes_a_member_but_says_that_it_is_old_news() {
    let world = World::new(NamespaceClock::Wall, "[[segment]]\nname = \"buyer\"\nwhen = \"orders >= 1\"\n");
    let mut spine = world.open();
    world.clock.set(START + 2 * DAY_MS);
    world.send(&[track("old", "u1", "Order Completed", START), track("new", "u2", "Order Completed", START + 2 * DAY_MS)]);
    world.drive(&mut spine);
    let mut changes = world.changes();
    changes.sort();
    assert_eq!(changes, [format!("u:u1 +buyer at {START} late"), format!("u:u2 +buyer at {}", START + 2 * DAY_MS)]);
    let profiles = world.records(Topic::Profiles);
    assert_eq!(profiles.len(), 2);
    for record in profiles {
        let profile: ProfileRecord<'_> = schema::decode(record.value.as_deref().expect("a value")).expect("decodes");
        let orders = profile.events.iter().find(|totals| totals.event == "Order Completed").map(|totals| totals.total);
        assert_eq!(orders, Some(1), "{}", profile.subject);
    }
}

#[test]
fn a_changed_definition_decides_everyone_once_at_the_first_tick_past_its_time() {
    for commits in 1.. {
        let mut world = World::new(NamespaceClock::Wall, QUIET);
        world.options = Options { linger_ms: 0, wakes_per_commit_max: 2, ..Options::default() };
        let bodies: Vec<String> = (0..9).map(|n| track(&format!("m{n}"), &format!("u{n}"), "Order Completed", START)).collect();
        world.open();
        world.send(&bodies);
        world.run();
        assert!(world.changes().is_empty());
        world.topology = crate::spine_world::topology("[[segment]]\nname = \"buyer\"\nwhen = \"orders >= 1\"\n");
        world.clock.set(START + 5_000);
        let mut spine = world.open();
        world.clock.set(START + 7_000);
        world.log.stop_after(commits);
        let finished = drive(spine.workers()).is_ok();
        drop(spine);
        world.log = world.log.reopen();
        world.run();
        let changes = world.changes();
        assert_eq!(changes.len(), 9, "crash after {commits} commits: {changes:?}");
        assert!(changes.iter().all(|change| change.contains(" +buyer at ")), "{changes:?}");
        if finished {
            return;
        }
    }
}

#[test]
fn a_segment_that_is_no_longer_defined_is_left() {
    let mut world = World::new(NamespaceClock::Event, "[[segment]]\nname = \"buyer\"\nwhen = \"orders >= 1\"\n");
    world.open();
    world.send(&[track("m1", "u1", "Order Completed", START)]);
    world.run();
    world.topology = crate::spine_world::topology(QUIET);
    world.run();
    assert_eq!(world.changes(), [format!("u:u1 +buyer at {START}"), format!("u:u1 -buyer at {START}")]);
}

#[test]
fn in_a_copy_of_a_log_time_stands_still_until_an_operator_releases_it() {
    let world = World::new(NamespaceClock::Wall, QUIET);
    world.open();
    world.send(&[track("m1", "u1", "Page", START)]);
    world.run();
    let copied = Some(Incarnation(2));
    let open = || Spine::open(Setup { copied, ..world.setup() }).expect("opens");
    let mut spine = open();
    world.clock.set(START + 2 * DAY_MS);
    world.send(&[track("m2", "u2", "Page", START + 2 * DAY_MS)]);
    world.drive(&mut spine);
    assert_eq!(world.event_ids(&user("u2")), ["m2"], "events are taken and folded");
    assert!(world.changes().is_empty(), "but nobody goes quiet: {:?}", world.changes());

    let topics = world.topics();
    let say = |incarnation| {
        let (key, value) = release(&topics.namespace, incarnation).expect("encodes");
        let mut batch = BatchBuilder::new();
        batch.push(&key, Some(&value), START);
        let batches = vec![(topics.partition(Topic::Definitions, PartitionId(0)), batch.build())];
        world.log.append(Transaction { batches, commits: Vec::new() }).and_then(|ticket| ticket.wait()).expect("appends");
    };
    say(Incarnation(1));
    world.clock.set(START + 2 * DAY_MS + 10_000);
    world.drive(&mut spine);
    assert!(world.changes().is_empty(), "that was another copy's release");
    say(Incarnation(2));
    let at = START + 2 * DAY_MS + 20_000;
    world.clock.set(at);
    world.drive(&mut spine);
    assert_eq!(world.changes(), [format!("u:u1 +quiet at {at}")]);
    drop(spine);
    world.clock.set(START + 4 * DAY_MS);
    world.drive(&mut open());
    assert_eq!(world.changes().len(), 2, "once released, also after a restart: {:?}", world.changes());
}

#[test]
fn what_all_of_intake_has_stated_can_be_read_from_the_log() {
    let world = World::new(NamespaceClock::Event, QUIET);
    let mut spine = world.open();
    let stated = || flywheel::replay::stated(&world.log, &world.topics()).expect("reads");
    assert_eq!(stated(), None);
    world.state_time(START);
    world.drive(&mut spine);
    assert_eq!(stated(), Some(START));
    world.state_time(START + DAY_MS);
    spine.workers()[0].step().expect("steps");
    spine.workers()[0].step().expect("steps");
    assert_eq!(stated(), Some(START), "one partition of intake has not got so far");
    world.drive(&mut spine);
    assert_eq!(stated(), Some(START + DAY_MS));
}

#[test]
fn event_time_passes_in_a_copy_too_as_its_importer_says() {
    let world = World::new(NamespaceClock::Event, QUIET);
    let mut spine = Spine::open(Setup { copied: Some(Incarnation(2)), ..world.setup() }).expect("opens");
    world.send(&[track("m1", "u1", "Page", START)]);
    world.state_time(START + DAY_MS);
    world.drive(&mut spine);
    assert_eq!(world.changes().len(), 1, "{:?}", world.changes());
}

#[test]
fn an_operator_states_the_time_in_place_of_an_edge_partition_that_has_stopped_and_it_is_a_record() {
    let world = World::new(NamespaceClock::Wall, QUIET);
    let mut spine = world.open();
    world.send(&[track("m1", "u1", "Page", START)]);
    world.drive(&mut spine);
    world.clock.set(START + 2 * DAY_MS);
    let stopped = 1;
    let step = |spine: &mut Spine| {
        spine.workers()[1 - stopped].step().expect("steps");
        drive(&mut spine.workers()[2..]).expect("runs");
    };
    step(&mut spine);
    assert!(world.changes().is_empty());
    let (topics, at) = (world.topics(), START + DAY_MS);
    let value = override_of(&topics, PartitionId(stopped as u32), at).expect("encodes");
    for id in topics.partitions(Topic::Events) {
        let record = schema::decode::<EventsRecord<'_>>(&value).expect("decodes");
        assert!(matches!(&record, EventsRecord::Tick(tick) if tick.by_operator));
        world.append(&topics, Topic::Events, id.partition, b"", at, &record);
    }
    step(&mut spine);
    assert_eq!(world.changes(), [format!("u:u1 +quiet at {at}")], "time is the least of the running feeder's and the operator's");
    // Back again, the partition goes on from its own time, which is later.
    world.drive(&mut spine);
    assert_eq!(spine.workers()[2].shared().status().time, Some((START + 2 * DAY_MS).0));
}

/// How often the loop of the threads comes around within an idle minute.
fn rounds_of_an_idle_minute(world: &World, spine: &mut Spine) -> usize {
    world.drive(spine);
    let end = world.clock.now() + 60_000;
    let mut rounds = 0;
    while world.clock.now() < end {
        let mut until = end;
        for worker in spine.workers() {
            match worker.step().expect("steps") {
                Stepped::Worked => until = world.clock.now(),
                Stepped::Idle { until: duty } | Stepped::Lingering { until: duty } => until = until.min(duty),
            }
        }
        rounds += 1;
        world.clock.advance(until.since_ms(world.clock.now()).max(1));
    }
    rounds
}

#[test]
fn an_idle_namespace_wakes_about_once_a_second_whether_or_not_it_states_time() {
    for (time, copied) in [(NamespaceClock::Event, None), (NamespaceClock::Wall, None), (NamespaceClock::Wall, Some(Incarnation(2)))] {
        for events in [0, 2] {
            let world = World::new(time, QUIET);
            let mut spine = Spine::open(Setup { copied, ..world.setup() }).expect("opens");
            world.send(&[track("m1", "u1", "Page", START), track("m2", "u2", "Page", START)][..events]);
            let rounds = rounds_of_an_idle_minute(&world, &mut spine);
            assert!((1..=240).contains(&rounds), "{time:?}, a copy: {}, {events} events: {rounds} rounds", copied.is_some());
        }
    }
}
