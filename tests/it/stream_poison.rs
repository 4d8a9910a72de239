//! One person whose wake-up cannot be worked out costs that person's wake-up, not the tick, the flush or anyone else's; and an event that
//! panicked is applied once when it is sent again to a build that does not.

use std::sync::Arc;

use flywheel::domain::{DAY_MS, HOUR_MS, Millis, Namespace, Offset, PartitionId};
use flywheel::log::{LogReader, LogWriter, RecordBatch, TopicPartition};
use flywheel::projections::{self, Limits, Projector};
use flywheel::replay::fold;
use flywheel::replay::redrive::{Redriven, Selection, redrive, transaction};
use flywheel::schema::{self, profile::ProfileRecord};
use flywheel::segments::{self, Catalog, Clock, Segment, SegmentSet, Type};
use flywheel::state::{MemoryStore, StateStore};
use flywheel::stream::topology::{Field, Fields, Topology};
use flywheel::stream::{Library, NamespaceClock, Options, ProfileFold, ProfileSetup, Topic, drive, refold};

use crate::spine_world::{START, World, anonymous, identify, topology, track, user};

const SEGMENTS: &str = r#"
[[segment]]
name = "quiet"
when = "days_since_seen >= 1"
[[segment]]
name = "lapsed"
when = "days_since_order >= 2"
"#;

/// Says of the days since an order that they run backwards, so that looking for the next change of whoever ordered panics.
struct Lying(Fields);

impl Catalog for Lying {
    type Id = Field;
    fn field(&self, name: &str) -> Option<segments::Field<Field>> {
        let field = self.0.field(name)?;
        let clock = if name == "days_since_order" { Clock::Counts { every_ms: -DAY_MS } } else { field.clock };
        Some(segments::Field { clock, ..field })
    }
    fn call(&self, function: &str, arguments: &[&str]) -> Option<Result<segments::Field<Field>, String>> {
        self.0.call(function, arguments)
    }
    fn trait_as(&self, name: &str, ty: Type) -> Option<segments::Field<Field>> {
        self.0.trait_as(name, ty)
    }
    fn names(&self) -> Vec<String> {
        self.0.names()
    }
}

fn poisoned() -> Arc<Topology> {
    let mut topology = (*topology(SEGMENTS)).clone();
    let catalog = Lying(Fields::new(&topology.rules));
    let again = |segment: &Segment<Field>| Segment::compile(&segment.name, "", &segment.canonical_when(), &catalog).expect("compiles");
    topology.segments = SegmentSet::new(topology.segments.iter().map(again).collect());
    Arc::new(topology)
}

/// Twelve people, in every partition; one of them ordered something.
fn world() -> World {
    let mut world = World::new(NamespaceClock::Wall, SEGMENTS);
    world.topology = poisoned();
    world
}

fn send(world: &World) {
    let mut bodies: Vec<String> = (0..12).map(|n| track(&format!("m{n}"), &format!("u{n}"), "Page", START)).collect();
    bodies.push(track("poison", "u0", "Order Completed", START));
    world.send(&bodies);
}

fn everyone_else_is_quiet(world: &World) {
    let changes = world.changes();
    let others = changes.iter().filter(|change| change.contains(" +quiet ") && !change.starts_with("u:u0 ")).count();
    assert_eq!(others, 11, "{changes:?}");
    assert!(world.records(Topic::DeadLetters).is_empty(), "no tick was lost");
}

#[test]
fn a_tick_wakes_everyone_else_when_one_who_was_just_seen_cannot_be_asked() {
    let world = world();
    let mut spine = world.open();
    send(&world);
    world.drive(&mut spine);
    world.clock.set(START + 2 * DAY_MS);
    world.drive(&mut spine);
    everyone_else_is_quiet(&world);
}

#[test]
fn a_flush_stores_everyone_when_one_cannot_be_asked() {
    let world = world();
    world.open();
    send(&world);
    world.run();
    world.clock.set(START + 2 * DAY_MS);
    world.run();
    everyone_else_is_quiet(&world);
}

/// The rows that the log's events make: events, orders.
fn rows(world: &World) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a folder");
    let (log, namespace) = (Arc::new(world.log.clone()), Namespace::new("t").expect("a slug"));
    let projector = Projector::start(log, dir.path(), &namespace, projections::Options::default()).expect("starts");
    for partition in world.topics().partitions(Topic::Events) {
        let end = LogReader::watermarks(&world.log, partition).expect("reads").end;
        if end > Offset(0) {
            assert!(projector.wait_applied("events", partition.partition, Offset(end.0 - 1), std::time::Duration::from_secs(20)));
        }
    }
    projector.stop();
    let sql = "SELECT message_id, count(*) FROM events GROUP BY 1 ORDER BY 1";
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let found = runtime.block_on(projections::query(dir.path(), &namespace, sql, Limits::default())).expect("reads");
    found.rows.iter().map(|row| format!("{row:?}")).collect()
}

/// How many events the newest profile of `u0` counts.
fn events_of_u0(world: &World) -> i64 {
    let profiles = world.records(Topic::Profiles);
    let newest = profiles.iter().rev().find(|record| record.key.ends_with(b"u:u0")).and_then(|record| record.value.as_deref());
    if newest.is_none() {
        return 0;
    }
    let profile: ProfileRecord<'_> = schema::decode(newest.expect("was written")).expect("decodes");
    profile.events.iter().map(|totals| totals.total).sum()
}

#[test]
fn an_event_sent_again_to_a_fixed_build_counts_once_in_profiles_in_sql_and_after_a_rebuild() {
    let mut world = World::new(NamespaceClock::Event, SEGMENTS);
    world.topology = poisoned();
    world.open();
    world.send(&[track("m1", "u0", "Order Completed", START), track("m2", "u0", "Page", Millis(START.0 + DAY_MS))]);
    world.run();
    assert_eq!(world.records(Topic::DeadLetters).len(), 1, "asking when to wake them before the second event panics");
    assert_eq!(events_of_u0(&world), 1);

    let offline = || {
        let log: Arc<dyn LogReader> = Arc::new(world.log.clone());
        let folded = fold::fold(&log, &Namespace::new("t").expect("a slug"), &world.topology, 2).expect("folds");
        (folded.records, folded.dead_lettered)
    };
    assert_eq!(offline(), (world.records(Topic::Events).len() as u64, 1), "offline it is passed over too");

    world.topology = topology(SEGMENTS);
    let topics = world.topics();
    let again = || {
        let mut send = |record| Ok(world.log.append(transaction(&topics, &record))?.wait().map(drop)?);
        redrive(&world.log, &Namespace::new("t").expect("a slug"), &Selection::default(), &mut send).expect("redrives")
    };
    assert_eq!(again(), Redriven { sent: 1, already: 0, hopeless: 0 });
    assert_eq!(again(), Redriven { sent: 0, already: 1, hopeless: 0 });
    world.run();
    assert_eq!(events_of_u0(&world), 2);
    let rows = rows(&world);
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows.iter().all(|row| row.contains("Int(1)")), "{rows:?}");

    // The fixed build refuses nothing, so that on a rebuild the copy is the one too many.
    world.state = Arc::new(MemoryStore::new());
    world.run();
    world.send(&[track("m3", "u0", "Page", Millis(START.0 + 2 * DAY_MS))]);
    world.run();
    assert_eq!(events_of_u0(&world), 3);
}

#[test]
fn folding_again_stores_states_on_the_way_and_writes_nothing_to_the_log() {
    let mut world = World::new(NamespaceClock::Event, SEGMENTS);
    world.topology = topology(SEGMENTS);
    world.open();
    for n in 0..40 {
        world.send(&[track(&format!("m{n}"), &format!("u{n}"), "Page", START)]);
    }
    world.run();
    let before = world.records(Topic::Profiles).len();
    let (log, topics): (Arc<dyn LogReader>, _) = (Arc::new(world.log.clone()), world.topics());
    let library = Arc::new(Library::new(Arc::clone(&log), topics.clone()));
    library.add(Arc::clone(&world.topology));
    let (store, options): (Arc<dyn StateStore>, _) =
        (Arc::new(MemoryStore::new()), Options { flush_bytes_max: 1, output_bytes_max: 1, ..Options::default() });
    let partition = PartitionId(0);
    let setup =
        ProfileSetup { partition, clock: NamespaceClock::Event, library, initial: Arc::clone(&world.topology), writes_again: false };
    let profiles = ProfileFold::new(Arc::clone(&store), topics.clone(), &options, setup);
    let (mut commits, mut made) = (0, 0);
    let take = |batches: Vec<(TopicPartition, RecordBatch)>| {
        commits += usize::from(!batches.is_empty());
        let of_profiles = batches.iter().filter(|(to, _)| to.topic == topics.partition(Topic::Profiles, partition).topic);
        made += of_profiles.map(|(_, batch)| batch.len()).sum::<usize>();
        Ok(())
    };
    refold(log, Arc::clone(&store), topics.clone(), profiles, &options, take).expect("folds");
    let people = store.scan(&store.tables().expect("lists")[0], None, usize::MAX).expect("reads").len();
    assert!(people > 1 && people == made && commits == made, "{people} people, {made} profiles in {commits} commits");
    assert_eq!(world.records(Topic::Profiles).len(), before);
}

/// Sends every dead letter again, twice: how many went at first, after which none does.
fn redrive_all(world: &World) -> u64 {
    let topics = world.topics();
    let again = || {
        let mut send = |record| Ok(world.log.append(transaction(&topics, &record))?.wait().map(drop)?);
        redrive(&world.log, &Namespace::new("t").expect("a slug"), &Selection::default(), &mut send).expect("redrives")
    };
    let first = again();
    assert_eq!(again(), Redriven { sent: 0, already: first.sent, hopeless: 0 });
    assert_eq!(first.hopeless, 0);
    first.sent
}

/// The kinds of record among the dead letters that are about somebody, by the ids that `event_ids` gives.
fn refused(world: &World) -> Vec<&'static str> {
    let kind = |record: &flywheel::log::Record| {
        let letter: schema::records::DeadLetter<'_> = schema::decode(record.value.as_deref().expect("a value")).expect("decodes");
        match schema::decode(letter.value).expect("decodes") {
            schema::records::EventsRecord::Event(_) => "event",
            schema::records::EventsRecord::Handover(_) => "handover",
            schema::records::EventsRecord::Expect(_) => "expect",
            schema::records::EventsRecord::Absorb(_) => "absorb",
            _ => "control",
        }
    };
    let mut kinds: Vec<_> = world.records(Topic::DeadLetters).iter().map(kind).collect();
    kinds.sort_unstable();
    kinds
}

fn hour(hours: i64) -> Millis {
    START + hours * HOUR_MS
}

/// A fixed build takes the letters, once, and states built again from the log say the same.
fn a_fixed_build_merges_once(world: &mut World, sent: u64, events: i64, next: impl Fn(&World)) {
    world.topology = topology(SEGMENTS);
    world.open();
    assert_eq!(redrive_all(world), sent);
    world.run();
    assert_eq!(events_of_u0(world), events);
    world.state = Arc::new(MemoryStore::new());
    world.run();
    next(world);
    world.run();
    assert_eq!(events_of_u0(world), events + 1);
}

#[test]
fn a_handover_that_panicked_freezes_nobody_and_is_made_up_for_when_sent_again() {
    let mut world = World::new(NamespaceClock::Event, SEGMENTS);
    world.topology = poisoned();
    world.open();
    world.send(&[track("m1", "a:d1", "Order Completed", hour(0)), identify("i1", "d1", "u0", hour(1)), track("m2", "u0", "Page", hour(2))]);
    world.run();
    assert_eq!(refused(&world), ["handover"]);
    assert_eq!(events_of_u0(&world), 2, "u0 does not wait for what does not come");
    a_fixed_build_merges_once(&mut world, 1, 3, |world| world.send(&[track("m3", "u0", "Page", hour(30))]));
    assert_eq!(world.event_ids(&anonymous("d1")), ["m1", "handover", "handover"]);
    assert_eq!(world.event_ids(&user("u0")), ["expect", "i1", "m2", "absorb", "absorb", "m3"]);
}

#[test]
fn an_expect_that_panicked_keeps_nothing_back_when_sent_again() {
    let mut world = World::new(NamespaceClock::Event, SEGMENTS);
    world.topology = poisoned();
    world.open();
    world.send(&[track("m0", "u0", "Order Completed", hour(0)), track("m1", "a:d1", "Page", hour(1)), identify("i1", "d1", "u0", hour(2))]);
    world.run();
    assert_eq!(refused(&world), ["event", "expect"]);
    a_fixed_build_merges_once(&mut world, 2, 3, |world| world.send(&[track("m3", "u0", "Page", hour(30))]));
}

#[test]
fn an_absorb_that_panicked_freezes_nobody_and_is_merged_once_when_sent_again() {
    let mut world = World::new(NamespaceClock::Event, SEGMENTS);
    world.topology = poisoned();
    let mut spine = world.open();
    world.send(&[track("m1", "a:d1", "Order Completed", hour(0)), identify("i1", "d1", "u0", hour(0)), track("m2", "u0", "Page", hour(1))]);
    // All of it is there before the absorb: it is m2, kept back, over which whoever ordered panics.
    drive(&mut spine.workers()[..2]).expect("runs intake");
    world.drive(&mut spine);
    spine.workers().iter_mut().for_each(|worker| worker.stop().expect("stops"));
    assert_eq!(refused(&world), ["absorb"]);
    assert_eq!(events_of_u0(&world), 2, "applied without waiting on");
    a_fixed_build_merges_once(&mut world, 1, 3, |world| world.send(&[track("m3", "u0", "Page", hour(30))]));
}

#[test]
fn on_wall_time_a_person_waits_an_hour_for_an_absorb_and_it_is_merged_when_it_comes() {
    let world = World::new(NamespaceClock::Wall, SEGMENTS);
    world.open();
    world.send(&[track("m1", "a:d1", "Page", START)]);
    world.run();
    // A handover that nobody has seen, as after a hole in the log.
    let (topics, origin) = (world.topics(), schema::records::Origin { incarnation: 1, partition: 0, offset: 1 });
    let send = |key: &[u8], record: &schema::records::EventsRecord<'_>| {
        let partition = flywheel::domain::partition_of(key, topics.count(Topic::Events));
        world.append(&topics, Topic::Events, partition, key, START, record);
    };
    let (anonymous_id, user_id, at) = ("d1", "u0", START.0);
    let expect = schema::records::Expect { anonymous_id, user_id, at, origin, redriven_from: None };
    send(&user("u0"), &schema::records::EventsRecord::Expect(expect));
    world.send(&[track("m2", "u0", "Page", START)]);
    world.run();
    world.clock.set(START + HOUR_MS - 1_000);
    world.run();
    assert_eq!(events_of_u0(&world), 0, "kept back");
    world.clock.set(START + HOUR_MS);
    world.run();
    assert_eq!(events_of_u0(&world), 1, "no longer");
    world.send(&[track("m3", "u0", "Page", START + HOUR_MS)]);
    world.run();
    assert_eq!(events_of_u0(&world), 2);
    let handover = schema::records::Handover { anonymous_id, user_id, at, origin, redriven_from: None };
    send(&anonymous("d1"), &schema::records::EventsRecord::Handover(handover));
    world.run();
    assert_eq!(events_of_u0(&world), 3, "merged late");
    world.clock.set(START + 3 * DAY_MS);
    world.run();
    assert!(world.changes().iter().any(|change| change.starts_with("u:u0 +quiet")), "woken as anyone: {:?}", world.changes());
}
