//! Recovery: one test per rule and interleaving that `Recovery` of the semantics names for the profile fold and its loop.

use flywheel::domain::{DAY_MS, Incarnation, Offset};
use flywheel::log::{self, MemoryLog};
use flywheel::state::{Flush, StateStore, Table};
use flywheel::stream::{Error, NamespaceClock, Progress, Spine, Topic, Watermark, drive};

use crate::spine_world::{START, World, track};

const BUYERS: &str = r#"
[[segment]]
name = "buyer"
when = "orders >= 1"
"#;

/// Stored up to the first event, committed up to the second of each person.
fn behind() -> World {
    let world = World::new(NamespaceClock::Event, BUYERS);
    world.open();
    let both = |id: &str, at: i64| ["u1", "u2", "u3", "u4"].map(|who| track(&format!("{id}{who}"), who, "Order Completed", START + at));
    world.send(&both("m", 0));
    world.run();
    let mut spine = world.open();
    world.send(&both("n", DAY_MS));
    world.drive(&mut spine);
    world
}

fn counts(world: &World) -> [usize; 4] {
    [Topic::Events, Topic::Profiles, Topic::SegmentChanges, Topic::Identities].map(|topic| world.records(topic).len())
}

fn change_watermarks(world: &World, change: impl Fn(&mut Watermark)) {
    for table in world.state.tables().expect("lists") {
        let Some(bytes) = world.state.watermark(&table).expect("reads") else { continue };
        let mut watermark = Watermark::decode(&bytes).expect("decodes");
        change(&mut watermark);
        let upto = watermark.progress.upto(watermark.incarnation);
        world.state.flush(&table, Flush { upto, watermark: Some(watermark.encode()), ..Flush::default() }).expect("flushes");
    }
}

fn refusal(world: &World) -> String {
    match Spine::open(world.setup()) {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_is_committed_but_not_stored_is_read_again_silently() {
    let world = behind();
    let before = counts(&world);
    world.run();
    assert_eq!(counts(&world), before);
    world.send(&[track("o", "u1", "Order Completed", START + 2 * DAY_MS)]);
    world.run();
    assert_eq!(counts(&world), [before[0] + 1, before[1] + 1, before[2], before[3]]);
}

#[test]
fn state_of_another_fold_version_is_refused_with_both_ways_out() {
    let world = behind();
    change_watermarks(&world, |watermark| watermark.fold_version = 77);
    let refusal = refusal(&world);
    assert!(refusal.contains("version 77") && refusal.contains("Stop it cleanly".to_lowercase().as_str()), "{refusal}");
    assert!(refusal.contains("FLYWHEEL_STREAM__REBUILD_STATE=true"), "{refusal}");
}

#[test]
fn state_of_another_fold_version_that_was_stopped_cleanly_is_taken_over() {
    let world = behind();
    world.run();
    let before = counts(&world);
    change_watermarks(&world, |watermark| watermark.fold_version = 77);
    world.run();
    assert_eq!(counts(&world), before);
}

#[test]
fn a_rebuild_is_the_other_way_out() {
    let mut world = behind();
    let before = counts(&world);
    change_watermarks(&world, |watermark| watermark.fold_version = 77);
    world.options.rebuild_state = true;
    world.run();
    assert_eq!(counts(&world), before, "built again without saying anything twice");
}

#[test]
fn state_of_another_incarnation_is_built_again() {
    let world = behind();
    let before = counts(&world);
    change_watermarks(&world, |watermark| watermark.incarnation = Incarnation(9));
    world.run();
    assert_eq!(counts(&world), before);
    world.send(&[track("o", "u1", "Order Completed", START + 2 * DAY_MS)]);
    world.run();
    assert_eq!(counts(&world)[2], before[2], "u1 is known to be a buyer");
}

#[test]
fn state_past_what_is_committed_is_built_again() {
    let world = behind();
    let before = counts(&world);
    change_watermarks(&world, |watermark| watermark.progress = Progress::at(Offset(9_999)));
    world.run();
    assert_eq!(counts(&world), before);
}

#[test]
fn state_without_a_committed_offset_is_built_again() {
    let mut world = behind();
    world.log = MemoryLog::new(std::sync::Arc::new(world.clock.clone()));
    world.open();
    world.send(&[track("m", "u1", "Order Completed", START)]);
    world.run();
    assert_eq!(world.changes(), [format!("u:u1 +buyer at {START}")], "nobody is a buyer from before");
}

#[test]
fn a_clean_stop_stores_everything() {
    let world = behind();
    world.run();
    let topics = world.topics();
    for id in topics.partitions(Topic::Events) {
        let table = Table(format!("t.profiles.{}.i1", id.partition).into());
        let watermark = Watermark::decode(&world.state.watermark(&table).expect("reads").expect("stored")).expect("decodes");
        let end = flywheel::log::LogReader::watermarks(&world.log, id).expect("reads").end;
        assert_eq!(watermark.progress, Progress::at(end));
    }
}

#[test]
fn a_replaced_owner_cannot_commit() {
    let world = World::new(NamespaceClock::Event, BUYERS);
    let mut stale = world.open();
    let mut fresh = world.open();
    world.send(&[track("m", "u1", "Order Completed", START)]);
    let refused = drive(stale.workers());
    assert!(matches!(refused, Err(Error::Log(log::Error::Fenced(_)))), "{refused:?}");
    assert!(world.records(Topic::Profiles).is_empty());
    world.drive(&mut fresh);
    assert_eq!(world.records(Topic::Profiles).len(), 1);
}

#[test]
fn duplicates_are_known_after_a_restart_and_after_a_crash() {
    let world = behind();
    let before = counts(&world);
    world.send(&[track("mu1", "u1", "Order Completed", START), track("nu2", "u2", "Order Completed", START)]);
    world.run();
    assert_eq!(counts(&world), before);
}

#[test]
fn intake_state_is_built_again_from_what_is_left_of_intake_and_the_ties() {
    let mut world = World::new(NamespaceClock::Event, BUYERS);
    world.open();
    world.send(&[track("m1", "a:d1", "Page", START), crate::spine_world::identify("i", "d1", "u1", START + 1)]);
    world.run();
    // Intake is trimmed as its retention says, and the states are gone.
    world.clock.set(START + 30 * DAY_MS);
    flywheel::log::LogWriter::clean(&world.log, START + 30 * DAY_MS).expect("cleans");
    world.state = std::sync::Arc::default();
    world.send(&[track("m2", "a:d1", "Order Completed", START + 2)]);
    world.run();
    assert_eq!(world.event_ids(&crate::spine_world::user("u1")).last().map(String::as_str), Some("m2"), "still u1's device");
}

/// How a state store may come back after the power went: as it was, without what it had not synced, with nothing.
enum Kept {
    All,
    TillRestart,
    Nothing,
}

#[test]
fn what_was_decided_under_new_intake_settings_is_read_again_under_them_whatever_is_left_of_the_state() {
    let with = |settings: &str| crate::spine_world::topology(&format!("{BUYERS}\n[intake]\n{settings}\n"));
    for kept in [Kept::All, Kept::TillRestart, Kept::Nothing] {
        let mut world = World::new(NamespaceClock::Event, BUYERS);
        world.topology = with("disabled_sources = [\"web\"]");
        world.open();
        world.send(&[track("old", "u1", "Order Completed", START)]);
        world.run();
        let till_restart = std::sync::Arc::new(world.state.fork());
        // Killed with a record decided under the new settings and nothing stored since.
        world.topology = with("disabled_sources = []");
        let mut spine = world.open();
        world.send(&[track("new", "u1", "Order Completed", START + 1)]);
        world.drive(&mut spine);
        drop(spine);
        match kept {
            Kept::All => {}
            Kept::TillRestart => world.state = till_restart,
            Kept::Nothing => world.state = std::sync::Arc::default(),
        }
        // Old was filtered when it came and is new today; new has a mark, although today's settings filter it.
        world.topology = with("disabled_sources = [\"web\", \"ios\"]");
        world.run();
        world.topology = with("disabled_sources = []");
        world.send(&[track("new", "u1", "Order Completed", START + 1), track("old", "u1", "Order Completed", START + 2)]);
        world.run();
        assert_eq!(world.event_ids(&crate::spine_world::user("u1")), ["new", "old"]);
    }
}

#[test]
fn who_was_silent_for_longer_than_intake_keeps_still_hands_over_after_the_state_was_lost() {
    let world = World::new(NamespaceClock::Event, BUYERS);
    world.open();
    world.send(&[track("m1", "a:d1", "Order Completed", START)]);
    world.run();
    world.clock.set(START + 30 * DAY_MS);
    flywheel::log::LogWriter::clean(&world.log, START + 30 * DAY_MS).expect("cleans");
    let lost: Vec<Table> = world.state.tables().expect("lists").into_iter().filter(|table| !table.0.contains(".profiles.")).collect();
    lost.iter().for_each(|table| world.state.drop_table(table).expect("drops"));
    // Built again, and once more taken up from what is stored.
    world.run();
    world.send(&[track("m2", "u9", "Page", START + 1)]);
    world.run();
    world.send(&[crate::spine_world::identify("i", "d1", "u1", START + DAY_MS)]);
    world.run();
    assert_eq!(world.event_ids(&crate::spine_world::anonymous("d1")), ["m1", "handover"]);
    assert_eq!(world.event_ids(&crate::spine_world::user("u1")), ["expect", "i", "absorb"]);
    assert!(world.changes().iter().any(|change| change.starts_with("u:u1 +buyer")), "{:?}", world.changes());
}
