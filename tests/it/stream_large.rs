//! What one record makes of many people is cut to what one append may hold, however large the people are.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use flywheel::domain::{DAY_MS, Millis};
use flywheel::stream::{NamespaceClock, Options, Setup, Spine, Topic, drive};

use crate::spine_world::{START, World, topology, track};
use crate::stream_loop::Filling;

const QUIET: &str = "[[segment]]\nname = \"quiet\"\nwhen = \"days_since_seen >= 1\"\n";
const SEEN: &str = "[[segment]]\nname = \"seen\"\nwhen = \"days_since_seen >= 0\"\n";

const PEOPLE: usize = 300;
/// What an append may hold: a few of these people.
const APPEND_BYTES_MAX: usize = 64 << 10;

/// A world whose people have many traits, and its log with a bound on appends.
fn large_people(output_bytes_max: usize) -> World {
    let mut world = World::new(NamespaceClock::Wall, QUIET);
    world.options = Options { linger_ms: 0, output_bytes_max, ..Options::default() };
    let mut spine = open(&world);
    send_everyone(&world);
    drive(spine.workers()).expect("folds");
    spine.workers().iter_mut().for_each(|worker| worker.stop().expect("stops"));
    world
}

fn open(world: &World) -> Spine {
    let log = Filling::over(world.log.clone());
    log.bytes_max.store(APPEND_BYTES_MAX, Ordering::Relaxed);
    Spine::open(Setup { log: Arc::new(log), ..world.setup() }).expect("opens")
}

fn send_everyone(world: &World) {
    let of = |n: usize| [identify(&format!("u{n:03}"), START), track(&format!("p{n}"), &format!("u{n:03}"), "Page", START)];
    world.send(&(0..PEOPLE).flat_map(of).collect::<Vec<_>>());
}

fn identify(who: &str, at: Millis) -> String {
    let traits: Vec<String> = (0..24).map(|n| format!(r#""trait_{n}":"{}""#, "x".repeat(200))).collect();
    let at = at.to_rfc3339().expect("in range");
    format!(r#"{{"type":"identify","messageId":"m{who}","userId":"{who}","timestamp":"{at}","traits":{{{}}}}}"#, traits.join(","))
}

/// Bounded by what the commits hold, and only by what the log refuses.
const OUTPUT_BYTES_MAX: [usize; 2] = [APPEND_BYTES_MAX / 2, usize::MAX / 2];

#[test]
fn a_new_topology_sweeps_large_people_in_as_many_commits_as_it_takes() {
    for output_bytes_max in OUTPUT_BYTES_MAX {
        let mut world = large_people(output_bytes_max);
        world.topology = topology(SEEN);
        world.clock.advance(2_000);
        let mut spine = open(&world);
        world.clock.advance(2_000);
        drive(spine.workers()).expect("sweeps");
        assert_eq!(world.changes().len(), PEOPLE, "everyone enters, once");
    }
}

#[test]
fn a_tick_wakes_large_people_in_as_many_commits_as_it_takes() {
    for output_bytes_max in OUTPUT_BYTES_MAX {
        let world = large_people(output_bytes_max);
        let mut spine = open(&world);
        world.clock.advance(2 * DAY_MS);
        drive(spine.workers()).expect("wakes");
        assert_eq!(world.changes().len(), PEOPLE, "everyone is quiet, once");
    }
}

#[test]
fn what_was_read_again_is_not_written_again_with_the_next_commit() {
    let mut world = World::new(NamespaceClock::Wall, QUIET);
    world.options = Options { linger_ms: 0, output_bytes_max: APPEND_BYTES_MAX / 2, ..Options::default() };
    let mut spine = open(&world);
    send_everyone(&world);
    drive(spine.workers()).expect("folds");
    // Killed before anything was stored.
    drop(spine);
    let before = world.records(Topic::Profiles).len();
    let mut spine = open(&world);
    world.send(&[identify("u000", START).replace("mu000", "again")]);
    drive(spine.workers()).expect("goes on");
    assert_eq!(world.records(Topic::Profiles).len(), before + 1);
}

#[test]
fn one_large_person_makes_only_the_next_commits_small() {
    let mut world = World::new(NamespaceClock::Event, QUIET);
    world.partitions = flywheel::stream::Partitions { intake: 1, events: 1, inbox: 0 };
    world.options = Options { linger_ms: 0, output_bytes_max: 6 << 10, ..Options::default() };
    let mut spine = world.open();
    let traits: Vec<String> = (0..30).map(|n| format!(r#""trait_{n}":"{}""#, "x".repeat(200))).collect();
    let at = START.to_rfc3339().expect("in range");
    world
        .send(&[format!(r#"{{"type":"identify","messageId":"m","userId":"large","timestamp":"{at}","traits":{{{}}}}}"#, traits.join(","))]);
    world.drive(&mut spine);
    let large = world.records(Topic::Profiles)[0].value.as_ref().expect("a value").len();
    let of = |n: usize| track(&format!("p{n}"), &format!("u{n:03}"), "Page", START);
    world.send(&(0..PEOPLE * 2).map(of).collect::<Vec<_>>());
    drive(&mut spine.workers()[..1]).expect("runs intake");
    let mut commits = 0;
    while spine.workers()[1].step().expect("steps") == flywheel::stream::Stepped::Worked {
        commits += 1;
    }
    let as_if_all_were_large = PEOPLE * 2 / ((6 << 10) / large + 1);
    assert!(commits * 2 < as_if_all_were_large, "{commits} commits, {as_if_all_were_large} if all were of {large} bytes");
}
