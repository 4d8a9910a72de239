//! What the spine as a whole does, on the memory log.

use flywheel::domain::{DAY_MS, Millis};
use flywheel::schema;
use flywheel::schema::profile::ProfileRecord;
use flywheel::schema::records::BatchOutcomes;
use flywheel::stream::{NamespaceClock, Stepped, Topic};

use crate::spine_world::{START, World, track, user};

const BUYERS: &str = r#"
[[segment]]
name = "buyer"
when = "orders >= 1"
[[segment]]
name = "quiet"
when = "days_since_seen >= 60"
"#;

#[test]
fn an_event_becomes_a_profile_and_a_segment_change_and_silence_one_more() {
    let world = World::new(NamespaceClock::Event, BUYERS);
    world.open();
    world.send(&[track("m1", "u1", "Order Completed", START), track("m1", "u1", "Order Completed", START)]);
    world.state_time(START + 61 * DAY_MS);
    world.run();
    assert_eq!(world.event_ids(&user("u1")), ["m1"]);
    let day = |days| START + days * DAY_MS;
    assert_eq!(world.changes(), [format!("u:u1 +buyer at {START}"), format!("u:u1 +quiet at {}", day(60))]);
    let profiles = world.records(Topic::Profiles);
    let last = profiles.last().expect("one profile");
    let profile: ProfileRecord<'_> = schema::decode(last.value.as_deref().expect("a value")).expect("decodes");
    assert_eq!((profile.subject, Millis(profile.as_of)), ("u:u1", day(60)));
    assert_eq!(profile.segments, ["buyer", "quiet"]);
    let outcomes = world.records(Topic::Outcomes);
    let tallies =
        outcomes.iter().map(|record| schema::decode::<BatchOutcomes>(record.value.as_deref().expect("a value")).expect("decodes"));
    let sum = tallies.fold((0, 0, 0), |sum, tally| (sum.0 + tally.records, sum.1 + tally.applied, sum.2 + tally.duplicate));
    assert_eq!(sum, (4, 1, 1), "two time statements, one event twice");
}

/// Otherwise ten thousand new people in one fetch make an append that no log takes.
#[test]
fn a_commit_is_cut_before_its_profiles_outgrow_an_append() {
    const PEOPLE: usize = 300;
    let mut world = World::new(NamespaceClock::Event, "");
    world.partitions.events = 1;
    world.options.output_bytes_max = 16 << 10;
    world.open();
    let bodies: Vec<String> = (0..PEOPLE).map(|at| track(&format!("m{at}"), &format!("u{at}"), "Product Viewed", START)).collect();
    world.send(&bodies);
    let mut spine = world.open();
    let bytes =
        |world: &World| world.records(Topic::Profiles).iter().map(|record| record.value.as_ref().map_or(0, |value| value.len())).sum();
    let (mut before, mut largest): (usize, usize) = (0, 0);
    loop {
        let mut worked = false;
        for worker in spine.workers() {
            worked |= matches!(worker.step().expect("steps"), Stepped::Worked);
            let after: usize = bytes(&world);
            largest = largest.max(after - before);
            before = after;
        }
        if !worked {
            break;
        }
    }
    assert_eq!(world.records(Topic::Profiles).len(), PEOPLE);
    assert!(largest < 32 << 10, "one commit wrote {largest} bytes of profiles");
}
