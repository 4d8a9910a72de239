//! What the spine as a whole does, on the memory log.

use flywheel::domain::{DAY_MS, Millis};
use flywheel::schema;
use flywheel::schema::profile::ProfileRecord;
use flywheel::schema::records::BatchOutcomes;
use flywheel::stream::{NamespaceClock, Topic};

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
