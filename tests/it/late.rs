//! Late events: what they change about the past is in the profile, in SQL and, for whoever acted on it before, a fact of its own.

use std::sync::Arc;

use flywheel::domain::{MINUTE_MS, Millis, Namespace, Offset};
use flywheel::log::LogReader;
use flywheel::projections::{self, Limits, Projector};
use flywheel::schema::{self, records::CorrectionsRecord};
use flywheel::stream::{NamespaceClock, Topic};

use crate::spine_world::{START, World, track};

fn page(id: &str, minute: i64) -> String {
    track(id, "u1", "Page", Millis(START.0 + minute * MINUTE_MS))
}

fn corrections(world: &World) -> Vec<String> {
    let line = |record: &flywheel::log::Record| {
        let CorrectionsRecord::SessionsJoined(joined) = schema::decode(record.value.as_deref().expect("a value")).expect("decodes");
        let minutes = [joined.first_start, joined.second_start, joined.at].map(|at| (at - START.0) / MINUTE_MS);
        format!("{} {minutes:?} {}", String::from_utf8_lossy(&record.key[5..]), joined.cause)
    };
    world.records(Topic::Corrections).iter().map(line).collect()
}

/// The answer's rows, after everything in the log is in the tables.
fn sql(world: &World, sql: &str) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a folder");
    let (log, namespace) = (Arc::new(world.log.clone()), Namespace::new("t").expect("a slug"));
    let projector = Projector::start(log, dir.path(), &namespace, projections::Options::default()).expect("starts");
    let topics = world.topics();
    for topic in [Topic::Events, Topic::Profiles, Topic::Corrections] {
        for partition in topics.partitions(topic) {
            let end = LogReader::watermarks(&world.log, partition).expect("reads").end;
            let last = Offset(end.0.saturating_sub(1));
            let is_there =
                end == Offset(0) || projector.wait_applied(topic.as_str(), partition.partition, last, std::time::Duration::from_secs(20));
            assert!(is_there, "{:?}", projector.health());
        }
    }
    projector.stop();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let found = runtime.block_on(projections::query(dir.path(), &namespace, sql, Limits::default())).expect("reads");
    found.rows.iter().map(|row| format!("{row:?}")).collect()
}

#[test]
fn a_late_event_that_joins_two_sessions_is_a_correction_and_sql_has_one_session() {
    for time in [NamespaceClock::Event, NamespaceClock::Wall] {
        let world = World::new(time, "");
        world.clock.set(Millis(START.0 + 60 * MINUTE_MS));
        world.open();
        world.send(&[page("m1", 0), page("m2", 40)]);
        world.run();
        assert_eq!(corrections(&world), Vec::<String>::new());
        assert_eq!(sql(&world, "SELECT seconds, events FROM v_sessions ORDER BY number").len(), 2);
        world.send(&[page("late", 20), page("later", 21)]);
        world.run();
        assert_eq!(corrections(&world), ["u:u1 [0, 40, 20] late"]);
        assert_eq!(sql(&world, "SELECT seconds, events FROM v_sessions"), ["[Int(2400), Int(4)]"]);
        assert_eq!(sql(&world, "SELECT sessions, session_events, session_s FROM profiles"), ["[Int(1), Int(4), Float(2400.0)]"]);
        let rows = sql(&world, "SELECT subject, cause, (second_start - first_start) / 60000 FROM session_corrections");
        assert_eq!(rows, [r#"[Text("u:u1"), Text("late"), Int(40)]"#]);
    }
}

#[test]
fn a_topology_that_does_not_list_them_gets_no_corrections() {
    let mut world = World::new(NamespaceClock::Event, "");
    let text = world.topology.canonical.replace("\"corrections\", ", "").replace(", \"corrections\"", "");
    world.topology =
        Arc::new(flywheel::stream::topology::Topology::parse("test.toml", &text).unwrap_or_else(|problems| panic!("{problems}")));
    world.open();
    world.send(&[page("m1", 0), page("m2", 40), page("late", 20)]);
    world.run();
    assert_eq!(corrections(&world), Vec::<String>::new());
}
