//! The digest of a namespace is the same whatever the batches, interleavings, restarts and crashes that led to it.

use std::sync::Arc;

use flywheel::domain::{DAY_MS, HOUR_MS, MINUTE_MS, Namespace};
use flywheel::log;
use flywheel::replay::digest::{NamespaceDigest, digest};
use flywheel::state::MemoryStore;
use flywheel::stream::{Error, NamespaceClock, Options, drive};

use crate::spine_world::{START, World, drive_in_order, identify, track};

pub const SEGMENTS: &str = r#"
[[segment]]
name = "busy"
when = "events_1h >= 3"
[[segment]]
name = "buyer"
when = "orders >= 1 && orders_30d < 3"
[[segment]]
name = "likely"
when = "engagement > 0.1"
[[segment]]
name = "quiet"
when = "days_since_seen >= 3"
"#;

/// Three months of a handful of people, one of them first seen as a device; retries, rubbish and long silences included.
pub fn load(world: &World, rounds: i64) {
    let day = |days: i64| START + days * DAY_MS;
    let mut bodies = Vec::new();
    for round in 0..rounds {
        for (at, who) in ["u1", "u2", "a:d1", "u3"].into_iter().enumerate() {
            let at = at as i64;
            let time = day(round * (3 + at)) + at * HOUR_MS;
            let name = if (round + at) % 3 == 0 { "Order Completed" } else { "Product Viewed" };
            bodies.push((time, track(&format!("{who}-{round}"), who, name, time)));
            bodies.push((time + 7 * MINUTE_MS, track(&format!("{who}-{round}-b"), who, "Product Viewed", time + 7 * MINUTE_MS)));
        }
        bodies.push((day(round * 3 + 1), track("u1-0", "u1", "Order Completed", day(0))));
    }
    bodies.push((day(17), identify("login", "d1", "u9", day(17))));
    bodies.push((day(17), r#"{"type":"track","messageId":"bad","userId":"u1"}"#.to_owned()));
    bodies.push((day(18), "not json".to_owned()));
    // An importer sends in order of time: what it has stated to be over does not come any more.
    bodies.sort_by_key(|(time, _)| *time);
    for (at, (time, body)) in bodies.iter().enumerate() {
        if at == bodies.len() / 2 {
            world.state_time(*time);
        }
        world.send(std::slice::from_ref(body));
    }
    world.state_time(day(90));
}

fn world(options: Options) -> World {
    let mut world = World::new(NamespaceClock::Event, SEGMENTS);
    world.options = Options { linger_ms: 0, ..options };
    world.open();
    load(&world, 6);
    world
}

pub fn digest_of(world: &World) -> NamespaceDigest {
    digest(&world.log, &Namespace::new("t").expect("a slug")).expect("reads").expect("exists")
}

fn undisturbed() -> NamespaceDigest {
    let world = world(Options::default());
    world.run();
    digest_of(&world)
}

#[test]
fn the_load_says_something() {
    let digest = undisturbed();
    let counts: Vec<(u64, u64)> = digest.topics.iter().map(|topic| (topic.keys, topic.records)).collect();
    assert_eq!(counts[1], (4, 4), "the device became u9, the others stay: {digest:?}");
    assert!(counts[0].1 > 48 && counts[2].1 > 10, "{digest:?}");
}

#[test]
fn is_the_same_for_batches_of_any_size() {
    let expected = undisturbed();
    let small = [
        Options { fetch_bytes_max: 1, ..Options::default() },
        Options { output_bytes_max: 1, ..Options::default() },
        Options { wakes_per_commit_max: 1, ..Options::default() },
        Options { cache_bytes_max: 1, flush_age_ms_max: 0, ..Options::default() },
        Options { fetch_bytes_max: 600, wakes_per_commit_max: 2, flush_bytes_max: 1, ..Options::default() },
    ];
    for options in small {
        let world = world(options.clone());
        world.run();
        assert_eq!(digest_of(&world), expected, "{options:?}");
    }
}

#[test]
fn is_the_same_for_any_interleaving_of_partitions() {
    let expected = undisturbed();
    for seed in 0..20u64 {
        let world =
            world(Options { fetch_bytes_max: if seed % 2 == 0 { 1 } else { 2_000 }, wakes_per_commit_max: 3, ..Options::default() });
        let mut spine = world.open();
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let pick = |count: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % count
        };
        drive_in_order(&mut spine, pick).expect("runs");
        assert_eq!(digest_of(&world), expected, "seed {seed}");
    }
}

#[test]
fn is_the_same_when_records_come_while_it_runs_and_for_any_number_of_threads() {
    let expected = undisturbed();
    for threads in [1, 2, 5] {
        let mut world = World::new(NamespaceClock::Event, SEGMENTS);
        world.options = Options { linger_ms: 0, threads, ..Options::default() };
        let handle = world.open().run();
        load(&world, 6);
        world.wait_until_done(&handle);
        handle.stop().expect("stops");
        assert_eq!(digest_of(&world), expected, "{threads} threads");
    }
}

#[test]
fn is_the_same_after_clean_restarts_every_few_steps() {
    let expected = undisturbed();
    let world = world(Options { fetch_bytes_max: 1, wakes_per_commit_max: 2, ..Options::default() });
    for _ in 0..40 {
        let mut spine = world.open();
        for worker in spine.workers() {
            worker.step().expect("steps");
            worker.step().expect("steps");
            worker.stop().expect("stops");
        }
    }
    world.run();
    assert_eq!(digest_of(&world), expected);
}

/// What survives a crash of the states.
#[derive(Debug, Clone, Copy, PartialEq)]
enum States {
    FlushedRarely,
    FlushedAlways,
    Lost,
}

fn crash_at_every_commit(states: States) {
    let expected = undisturbed();
    let flush_age_ms_max = if states == States::FlushedAlways { 0 } else { 1_000_000 };
    for commits in 1.. {
        let options = Options { fetch_bytes_max: 900, wakes_per_commit_max: 2, flush_age_ms_max, ..Options::default() };
        let mut world = world(options);
        let mut spine = world.open();
        if states == States::FlushedRarely {
            // Something is stored, and more than that is committed.
            for worker in spine.workers() {
                worker.step().expect("steps");
                worker.stop().expect("stops");
            }
        }
        world.log.stop_after(commits);
        let crashed = match drive(spine.workers()) {
            Ok(()) => false,
            Err(Error::Log(log::Error::Closed)) => true,
            Err(error) => panic!("{error}"),
        };
        drop(spine);
        world.log = world.log.reopen();
        if states == States::Lost {
            world.state = Arc::new(MemoryStore::new());
        }
        world.run();
        assert_eq!(digest_of(&world), expected, "{states:?}, after {commits} commits");
        if !crashed {
            assert!(commits > 20, "the load is worth crashing");
            return;
        }
    }
}

#[test]
fn is_the_same_after_a_crash_at_any_commit_with_states_behind() {
    crash_at_every_commit(States::FlushedRarely);
}

#[test]
fn is_the_same_after_a_crash_at_any_commit_with_states_at_the_last_commit() {
    crash_at_every_commit(States::FlushedAlways);
}

#[test]
fn is_the_same_after_a_crash_at_any_commit_with_all_states_lost() {
    crash_at_every_commit(States::Lost);
}

#[test]
fn tells_different_histories_apart() {
    let world = world(Options::default());
    world.send(&[track("one-more", "u1", "Product Viewed", START + 80 * DAY_MS)]);
    world.run();
    let (other, expected) = (digest_of(&world), undisturbed());
    assert_ne!(other.digest, expected.digest);
    assert_ne!(other.topics[0], expected.topics[0]);
}
