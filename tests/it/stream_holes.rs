//! A declared hole in `profiles`: everyone is written again once their states are built again, so that SQL lacks nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use flywheel::domain::Namespace;
use flywheel::replay::digest::digest;
use flywheel::state::MemoryStore;
use flywheel::stream::{NamespaceClock, Setup, Spine, Topic};

use crate::spine_world::{START, World, identify, track};
use crate::stream_loop::Filling;

const PEOPLE: usize = 30;

/// Thirty people, one of them first seen as a device; then all states are gone, as they are of no use in a new incarnation.
fn world(output_bytes_max: usize) -> World {
    let mut world = World::new(NamespaceClock::Event, "");
    world.options.output_bytes_max = output_bytes_max;
    world.open();
    let mut bodies: Vec<String> = (1..PEOPLE).map(|n| track(&format!("m{n}"), &format!("u{n}"), "Page", START)).collect();
    bodies.push(track("d", "a:device", "Page", START));
    bodies.push(identify("i", "device", "u0", START + 1));
    world.send(&bodies);
    world.run();
    world.state = Arc::new(MemoryStore::new());
    world
}

fn open(world: &World, has_lost: bool) -> Spine {
    let log = Filling::over(world.log.clone());
    log.has_lost.store(has_lost, Ordering::Relaxed);
    Spine::open(Setup { log: Arc::new(log), ..world.setup() }).expect("opens")
}

/// How often each person was written after the first `skip` records.
fn written(world: &World, before: &[usize]) -> BTreeMap<String, usize> {
    let mut written = BTreeMap::new();
    for (partition, skip) in world.topics().partitions(Topic::Profiles).zip(before) {
        let fetched = flywheel::log::LogReader::fetch(&world.log, partition, flywheel::domain::Offset(0), usize::MAX).expect("reads");
        for record in fetched.records().skip(*skip) {
            *written.entry(String::from_utf8_lossy(&record.key[5..]).into_owned()).or_default() += 1;
        }
    }
    written
}

fn ends(world: &World) -> Vec<usize> {
    let end = |id| flywheel::log::LogReader::watermarks(&world.log, id).expect("reads").end.0 as usize;
    world.topics().partitions(Topic::Profiles).map(end).collect()
}

fn digest_of(world: &World) -> String {
    digest(&world.log, &Namespace::new("t").expect("a slug")).expect("reads").expect("is there").digest
}

#[test]
fn everyone_is_written_once_more_in_commits_of_any_size_and_says_the_same() {
    for output_bytes_max in [1, 3_000, 8 << 20] {
        let world = world(output_bytes_max);
        let (before, said) = (ends(&world), digest_of(&world));
        world.drive(&mut open(&world, true));
        let again = written(&world, &before);
        assert_eq!(again.len(), PEOPLE, "but for the device, which is nobody any more: {again:?}");
        assert!(again.values().all(|times| *times == 1), "{again:?}");
        assert_eq!(digest_of(&world), said);
        // Stored with the next thing that happens; and then it is over.
        world.send(&[track("next", "u1", "Page", START + 2)]);
        let before = ends(&world);
        world.drive(&mut open(&world, true));
        world.run();
        assert!(written(&world, &before).len() <= PEOPLE);
    }
}

#[test]
fn a_crash_on_the_way_leaves_nobody_out() {
    for steps in 1..60 {
        let world = world(1);
        let before = ends(&world);
        let mut spine = open(&world, true);
        for _ in 0..steps {
            for worker in spine.workers() {
                worker.step().expect("steps");
            }
        }
        drop(spine);
        world.send(&[track("late", "u7", "Page", START + 2)]);
        world.drive(&mut open(&world, true));
        assert_eq!(written(&world, &before).len(), PEOPLE, "{steps} steps");
    }
}

#[test]
fn states_built_again_for_another_reason_write_nothing_again() {
    let world = world(8 << 20);
    let before = ends(&world);
    world.drive(&mut open(&world, false));
    assert_eq!(ends(&world), before);
}
