//! The projector against a log in memory and real SQLite files: exactly once, whatever runs beside it or crashes.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::generation::Generations;
use super::tail::Tail;
use super::*;
use crate::domain::Value as Field;
use crate::domain::{Millis, Money, Namespace, Offset, PartitionId, Subject, TenantId};
use crate::env::{Clock, ManualClock};
use crate::log::memory::MemoryLog;
use crate::log::{BatchBuilder, Cleanup, LogReader, LogWriter, Retention, TopicName, TopicPartition, TopicSpec, Transaction};
use crate::schema::Wire;
use crate::schema::profile::{EventTotals, Features, FunnelStep, ProfileRecord, ReasonRecord, ScoreRecord};
use crate::schema::records::{
    BatchOutcomes, DeadLetter, EventBody, EventsRecord, IdentityRecord, IntakeItem, IntakeRecord, Origin, RecordOutcome, SegmentChange,
    Tick, Tie,
};

const DAY: i64 = crate::domain::DAY_MS;

/// A log with a namespace's topics, two partitions each, and the folder for its read model.
pub(super) struct World {
    pub log: Arc<MemoryLog>,
    pub clock: ManualClock,
    pub dir: tempfile::TempDir,
    pub namespace: Namespace,
}

impl World {
    pub fn new() -> Self {
        let clock = ManualClock::at(Millis(1_700_000_000_000));
        let log = Arc::new(MemoryLog::new(Arc::new(clock.clone())));
        let world = Self { log, clock, dir: tempfile::tempdir().unwrap(), namespace: Namespace::new("shop").unwrap() };
        for topic in tables::TOPICS {
            world.create(topic);
        }
        world
    }

    fn create(&self, topic: &str) {
        let name = TopicName::new(&self.namespace, topic);
        let spec = TopicSpec { name, partitions: 2, retention: Retention::Forever, cleanup: Cleanup::Delete };
        self.log.create_topic(&spec).unwrap();
    }

    pub fn partition(&self, topic: &str, partition: u32) -> TopicPartition {
        let topics = self.log.topics().unwrap();
        let info = topics.into_iter().find(|info| info.spec.name == TopicName::new(&self.namespace, topic)).unwrap();
        TopicPartition { topic: info.id, partition: PartitionId(partition) }
    }

    /// Appends one record under `subject` (`u:..` or `a:..`).
    pub fn append<'a, T: Wire<'a>>(&self, topic: &str, partition: u32, subject: &str, record: &T) -> Offset {
        let tenant = TenantId::new("acme").unwrap();
        let key = match subject.split_once(':') {
            Some(("u", id)) => Subject::user(id).key(&tenant).bytes().clone(),
            Some((_, id)) => Subject::anonymous(id).key(&tenant).bytes().clone(),
            None => Default::default(),
        };
        let mut value = Vec::new();
        crate::schema::encode(record, &mut value).unwrap();
        let mut batch = BatchBuilder::new();
        batch.push(&key, Some(&value), self.clock.now());
        let batches = vec![(self.partition(topic, partition), batch.build())];
        let appended = self.log.append(Transaction { batches, commits: Vec::new() }).unwrap().wait().unwrap();
        appended.first_offsets[0]
    }

    /// Appends a record that removes `subject` from a compacted topic.
    fn remove(&self, topic: &str, partition: u32, subject: &str) {
        let mut batch = BatchBuilder::new();
        batch.push(format!("acme\0{subject}").as_bytes(), None, self.clock.now());
        let batches = vec![(self.partition(topic, partition), batch.build())];
        self.log.append(Transaction { batches, commits: Vec::new() }).unwrap().wait().unwrap();
    }

    pub fn event(&self, partition: u32, subject: &str, name: &str, at: i64, properties: &str) -> Offset {
        self.append("events", partition, subject, &EventsRecord::Event(event(name, at, properties)))
    }

    pub fn start(&self) -> Handle {
        let options = Options { clock: Arc::new(self.clock.clone()), ..Options::default() };
        Projector::start(self.log.clone(), self.dir.path(), &self.namespace, options).unwrap()
    }

    /// Starts a projector, waits until it has everything, stops it.
    pub fn project(&self) {
        let handle = self.start();
        self.wait(&handle);
        handle.stop();
        assert_eq!(handle.health(), Health::Stopped(None));
    }

    pub fn wait(&self, handle: &Handle) {
        for topic in tables::TOPICS {
            for partition in [0, 1] {
                let end = self.log.watermarks(self.partition(topic, partition)).unwrap().end;
                if end.0 > 0 {
                    let last = Offset(end.0 - 1);
                    assert!(handle.wait_applied(topic, PartitionId(partition), last, Duration::from_secs(20)), "{:?}", handle.health());
                }
            }
        }
    }

    /// The answer as lines of `|`-separated values.
    pub fn sql(&self, sql: &str) -> Vec<String> {
        let rows = block_on(query(self.dir.path(), &self.namespace, sql, Limits::default())).unwrap();
        rows.rows.iter().map(|row| row.iter().map(text).collect::<Vec<_>>().join("|")).collect()
    }

    async fn tail(&self) -> Tail {
        let generations = Generations::new(self.dir.path(), &self.namespace);
        let path = generations.db(generations.current().unwrap().unwrap());
        let connection = store::open(&path, self.namespace.as_str()).await.unwrap();
        Tail::new(self.log.clone(), &Options::default(), &self.namespace, &path, connection).await.unwrap()
    }
}

pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(value) => value.clone(),
        Value::Blob(value) => format!("{value:?}"),
    }
}

fn event<'a>(name: &'a str, at: i64, properties: &'a str) -> EventBody<'a> {
    let origin = Origin { incarnation: 1, partition: 0, offset: 7 };
    EventBody {
        message_id: name,
        kind: "track",
        name,
        event_time: at,
        received_at: at,
        user_id: "",
        anonymous_id: "",
        source: "web",
        historical: false,
        properties,
        context: r#"{"sessionId":42}"#,
        origin,
    }
}

#[test]
fn events_are_rows_and_daily_counts() {
    let world = World::new();
    world.event(0, "u:ann", "Page", DAY, r#"{"a":1}"#);
    world.event(0, "u:ann", "Page", DAY + 5, "");
    world.event(1, "a:x", "Buy", 2 * DAY - 1, "");
    world.append("events", 1, "", &EventsRecord::Tick(Tick { feeder: 0, feeders: 1, time: 9 }));
    world.event(1, "a:x", "Buy", 2 * DAY, "");
    world.project();
    world.event(0, "u:bob", "Page", DAY, "");
    world.project();
    let rows =
        world.sql("SELECT tenant_id, user_id, anonymous_id, event_name, properties, session_id FROM events ORDER BY timestamp, user_id");
    let expected =
        ["acme|ann|-|Page|{\"a\":1}|42", "acme|bob|-|Page|-|42", "acme|ann|-|Page|-|42", "acme|-|x|Buy|-|42", "acme|-|x|Buy|-|42"];
    assert_eq!(rows, expected);
    assert_eq!(world.sql("SELECT day, events, actives FROM v_daily"), ["1970-01-02|4|3", "1970-01-03|1|1"]);
    let names = world.sql("SELECT day, event_name, events FROM daily_events");
    assert_eq!(names, ["1970-01-02|Buy|1", "1970-01-02|Page|3", "1970-01-03|Buy|1"]);
    let status = world.sql("SELECT partition, next_offset, lag, applied, skipped FROM processing_status WHERE topic = 'events'");
    assert_eq!(status, ["0|3|0|3|0", "1|3|0|2|1"]);
}

#[test]
fn revenue_is_exact_per_day_and_currency() {
    let world = World::new();
    let acme = TenantId::new("acme").unwrap();
    for (name, properties) in [
        ("Order Completed", r#"{"revenue": 11.77}"#),
        ("Order Completed", r#"{"revenue": "0.10", "currency": "eur"}"#),
        ("Order Completed", r#"{"revenue": 0.2, "currency": "EUR"}"#),
        ("Order Refunded", r#"{"total": 1.77}"#),
        ("Page", r#"{"revenue": 5}"#),
    ] {
        world.event(0, "u:ann", name, DAY, properties);
        world.project();
    }
    let rows = world.sql("SELECT day, currency, orders, revenue_micros, refunds_micros FROM daily_revenue");
    assert_eq!(rows, ["1970-01-02|EUR|2|300000|0", "1970-01-02|USD|1|11770000|1770000"]);
    let reconciled = block_on(Reader::new(world.dir.path(), &world.namespace).reconciliation(&acme)).unwrap();
    assert_eq!((reconciled.events, reconciled.subjects), (5, 1));
    assert_eq!(
        reconciled.revenue[1],
        Revenue { currency: "USD".to_owned(), orders: 1, amount: Money(11_770_000), refunds: Money(1_770_000) }
    );
}

/// A record with the given features and nothing in all others.
pub(super) fn profile<'a>(subject: &'a str, features: &[(&str, Field<'a>)]) -> ProfileRecord<'a> {
    let value = |column: &crate::schema::profile::Column| {
        let given = features.iter().find(|(name, _)| *name == column.name);
        given.map_or(Field::Null, |(_, value)| value.clone())
    };
    ProfileRecord {
        subject,
        as_of: 2 * DAY,
        fold_version: 1,
        traits: r#"{"email":"ann@example.com"}"#,
        consent: "",
        features: Features(crate::schema::profile::columns().iter().map(value).collect()),
        events: vec![EventTotals { event: "Page", total: 3, d7: 3, d30: 3, d90: 3 }],
        currencies: Vec::new(),
        funnels: vec![FunnelStep { funnel: "buy", step: 1, steps: 2 }],
        scores: vec![ScoreRecord {
            score: "churn",
            value: 0.25,
            model: "silence",
            version: 1,
            reasons: vec![ReasonRecord { feature: "days_since_seen", effect: 0.25 }],
        }],
        segments: vec!["new", "vip"],
    }
}

#[test]
fn profiles_are_rows_with_a_column_per_feature_and_the_latest_wins() {
    let world = World::new();
    let orders =
        |orders, revenue| [("orders", Field::Int(orders)), ("revenue", Field::Money(Money(revenue))), ("churn", Field::Float(0.25))];
    world.append("profiles", 0, "u:ann", &profile("u:ann", &orders(1, 1_500_000)));
    world.append("profiles", 0, "a:x", &profile("a:x", &[("last_seen", Field::Time(Millis(DAY))), ("session_open", Field::Bool(true))]));
    world.append("profiles", 0, "u:ann", &profile("u:ann", &orders(2, 3_250_000)));
    world.project();
    let rows = world.sql("SELECT subject, user_id, orders, revenue, last_seen, session_open FROM profiles ORDER BY 1");
    assert_eq!(rows, [format!("a:x|-|-|-|{DAY}|1"), "u:ann|ann|2|3.25|-|-".to_owned()]);
    world.append("profiles", 0, "u:ann", &profile("u:ann", &orders(3, 4_000_000)));
    world.remove("profiles", 0, "a:x");
    world.project();
    assert_eq!(world.sql("SELECT subject, orders FROM profiles"), ["u:ann|3"]);
    assert_eq!(world.sql("SELECT email, segment, churn_risk FROM users"), ["ann@example.com|new, vip|0.25"]);
    assert_eq!(world.sql("SELECT score, model, rank, feature, effect FROM v_scores"), ["churn|silence|1|days_since_seen|0.25"]);
    assert_eq!(world.sql("SELECT funnel, step, people FROM v_funnel"), ["buy|1|1", "buy|2|0"]);
}

#[test]
fn a_profile_is_shown_as_json() {
    let world = World::new();
    let features = [("orders", Field::Int(2)), ("revenue", Field::Money(Money(3_250_000))), ("last_seen", Field::Time(Millis(DAY)))];
    world.append("profiles", 0, "u:ann", &profile("u:ann", &features));
    world.project();
    let reader = Reader::new(world.dir.path(), &world.namespace);
    let acme = TenantId::new("acme").unwrap();
    let ann = block_on(reader.profile(&acme, &Subject::user("ann"))).unwrap().unwrap();
    assert_eq!(ann["user_id"], "ann");
    assert_eq!(ann["as_of"], "1970-01-03T00:00:00.000Z");
    assert_eq!(ann["traits"]["email"], "ann@example.com");
    assert_eq!(ann["features"]["revenue"], 3.25);
    assert_eq!(ann["features"]["last_seen"], "1970-01-02T00:00:00.000Z");
    assert_eq!(ann["features"]["first_seen"], serde_json::Value::Null);
    assert_eq!(ann["scores"][0]["reasons"][0]["feature"], "days_since_seen");
    assert_eq!(ann["segments"][1], "vip");
    assert_eq!(block_on(reader.profile(&acme, &Subject::anonymous("ann"))).unwrap(), None);
}

#[test]
fn what_was_not_projected_is_pinned_in_the_log() {
    let world = World::new();
    world.event(0, "u:ann", "Page", 1, "");
    let pins = Arc::new(Recorded::default());
    let options = Options { pins: Some(pins.clone()), ..Options::default() };
    let handle = Projector::start(world.log.clone(), world.dir.path(), &world.namespace, options).unwrap();
    world.wait(&handle);
    handle.stop();
    let pins = pins.0.lock();
    let events: Vec<Offset> = pins.iter().filter(|(partition, _)| *partition == world.partition("events", 0)).map(|pin| pin.1).collect();
    assert_eq!((events.first(), events.last()), (Some(&Offset(0)), Some(&Offset(1))), "at the start and at the stop at the latest");
}

#[derive(Default)]
struct Recorded(parking_lot::Mutex<Vec<(TopicPartition, Offset)>>);

impl Pins for Recorded {
    fn pin(&self, name: &str, partition: TopicPartition, offset: Option<Offset>) -> Result<(), log::Error> {
        assert_eq!(name, "projections.shop");
        self.0.lock().push((partition, offset.expect("never dropped")));
        Ok(())
    }
}

#[test]
fn every_view_can_be_read() {
    let world = World::new();
    world.event(0, "u:ann", "Page", 1, "");
    world.project();
    let views = world.sql("SELECT name FROM sqlite_schema WHERE type = 'view' ORDER BY name");
    assert!(views.len() > 10, "{views:?}");
    for view in views {
        world.sql(&format!("SELECT * FROM {view}"));
    }
}

#[test]
fn a_feature_that_a_file_lacks_gets_its_column_when_it_is_opened() {
    let world = World::new();
    world.append("profiles", 0, "u:ann", &profile("u:ann", &[("orders", Field::Int(1))]));
    world.project();
    block_on(tamper(&world, "ALTER TABLE profiles DROP COLUMN preferred_hour"));
    world.append("profiles", 0, "u:bob", &profile("u:bob", &[("preferred_hour", Field::Int(7))]));
    world.project();
    assert_eq!(world.sql("SELECT user_id, preferred_hour FROM profiles ORDER BY 1"), ["ann|-", "bob|7"]);
}

#[test]
fn segment_changes_are_membership_history_and_daily_counts() {
    let world = World::new();
    let change = |segment, entered, at| SegmentChange { segment, digest: "d", entered, at, cause: "m" };
    world.append("segment_changes", 0, "u:ann", &change("vip", true, DAY));
    world.append("segment_changes", 0, "u:ann", &change("vip", false, DAY + 1));
    world.append("segment_changes", 0, "u:ann", &change("new", true, DAY + 2));
    world.project();
    world.append("segment_changes", 0, "u:ann", &change("vip", true, 2 * DAY));
    world.append("segment_changes", 0, "u:ann", &change("new", false, 2 * DAY));
    world.project();
    assert_eq!(world.sql("SELECT segment, subject, since FROM membership"), [format!("vip|u:ann|{}", 2 * DAY)]);
    assert_eq!(world.sql("SELECT count(*) FROM membership_history"), ["5"]);
    let daily = world.sql("SELECT segment, day, entered, left FROM segment_daily ORDER BY 1, 2");
    assert_eq!(daily, ["new|1970-01-02|1|0", "new|1970-01-03|0|1", "vip|1970-01-02|1|1", "vip|1970-01-03|1|0"]);
}

#[test]
fn outcomes_add_up_and_identities_are_replaced() {
    let world = World::new();
    let exception = |offset, kind: &str, reason: &str| RecordOutcome {
        offset,
        message_id: format!("m{offset}"),
        kind: kind.to_owned(),
        reason: reason.to_owned(),
    };
    let mut batch = BatchOutcomes {
        stage: "intake".to_owned(),
        partition: 0,
        from_offset: 0,
        to_offset: 10,
        at: 5,
        records: 10,
        applied: 6,
        duplicate: 2,
        filtered: 1,
        dead_lettered: 0,
        control: 1,
        exceptions: vec![exception(3, "duplicate", ""), exception(4, "filtered", "bot")],
    };
    world.append("outcomes", 0, "", &batch);
    batch.from_offset = 12;
    batch.to_offset = 22;
    world.append("outcomes", 0, "", &batch);
    let tie = |user_id: &str, from| Tie { user_id: user_id.to_owned(), from };
    world.append("identities", 0, "a:x", &IdentityRecord { ties: vec![tie("ann", 1)] });
    world.append("identities", 0, "a:x", &IdentityRecord { ties: vec![tie("ann", 1), tie("bob", 2)] });
    world.project();
    let totals = world.sql("SELECT kind, reason, records FROM outcome_totals");
    assert_eq!(totals, ["applied||12", "control||2", "duplicate||4", "filtered|bot|2"]);
    assert_eq!(world.sql("SELECT from_offset, to_offset, records, gaps FROM outcome_coverage"), ["0|22|20|1"]);
    assert_eq!(world.sql("SELECT anonymous_id, ordinal, user_id FROM identities"), ["x|0|ann", "x|1|bob"]);
}

#[test]
fn of_two_projectors_each_record_is_applied_by_one() {
    let world = World::new();
    world.event(0, "u:ann", "Page", 1, "");
    world.project();
    let (mut first, mut second) = (block_on(world.tail()), block_on(world.tail()));
    world.event(0, "u:ann", "Page", 2, "");
    assert_eq!(block_on(first.step(1 << 20)).unwrap().records, 1);
    let refused = block_on(second.step(1 << 20));
    assert!(matches!(refused, Err(Error::Overtaken { .. })), "{refused:?}");
    block_on(second.reload()).unwrap();
    assert_eq!(block_on(second.step(1 << 20)).unwrap().records, 0);
    world.event(0, "u:ann", "Page", 3, "");
    assert_eq!(block_on(second.step(1 << 20)).unwrap().records, 1);
    assert_eq!(world.sql("SELECT count(*), (SELECT events FROM daily_totals) FROM events"), ["3|3"]);
}

#[test]
fn a_record_that_cannot_be_read_is_listed_and_the_rest_goes_on() {
    let world = World::new();
    let mut batch = BatchBuilder::new();
    batch.push(b"acme\0u:ann", Some(b"\0\x63garbage"), Millis(1));
    let batches = vec![(world.partition("events", 0), batch.build())];
    world.log.append(Transaction { batches, commits: Vec::new() }).unwrap().wait().unwrap();
    world.event(0, "u:ann", "Page", 1, "");
    world.project();
    assert_eq!(world.sql("SELECT topic, log_offset FROM unreadable_records"), ["events|0"]);
    assert_eq!(world.sql("SELECT applied, unreadable FROM processing_status WHERE topic = 'events' AND partition = 0"), ["1|1"]);
}

#[test]
fn lookups_by_user_and_message_use_the_bucketed_indexes() {
    let world = World::new();
    world.event(0, "u:ann", "Page", 1, "");
    world.project();
    let plan = |sql: &str| world.sql(&format!("EXPLAIN QUERY PLAN {sql}")).join(" ");
    assert!(plan("SELECT * FROM events WHERE user_id = 'ann'").contains("events_by_user (ANY(bucket) AND user_id=?)"));
    assert!(plan("SELECT * FROM events WHERE message_id = 'm'").contains("events_by_message (ANY(bucket) AND message_id=?)"));
}

#[test]
fn a_query_is_bounded_in_rows_and_time() {
    let world = World::new();
    world.event(0, "u:ann", "Page", 1, "");
    world.project();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let limits = Limits { time_ms_max: 30_000, rows_max: 5 };
    let rows = block_on(query(world.dir.path(), &world.namespace, endless, limits)).unwrap();
    assert_eq!((rows.rows.len(), rows.truncated), (5, true));
    let limits = Limits { time_ms_max: 20, rows_max: 5 };
    let slow = block_on(query(world.dir.path(), &world.namespace, &format!("SELECT count(*) FROM ({endless})"), limits));
    assert!(matches!(slow, Err(Error::Timeout { ms: 20 })), "{slow:?}");
    let empty = block_on(query(world.dir.path(), &world.namespace, "SELECT user_id FROM events WHERE 0", limits)).unwrap();
    assert_eq!((empty.columns[0].name.as_str(), empty.rows.len()), ("user_id", 0));
}

async fn tamper(world: &World, sql: &'static str) {
    use sqlx::ConnectOptions;
    let generations = Generations::new(world.dir.path(), &world.namespace);
    let path = generations.db(generations.current().unwrap().unwrap());
    let mut connection = store::write_options(&path).connect().await.unwrap();
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
}

#[test]
fn a_file_ahead_of_the_log_or_of_another_incarnation_is_refused_and_rebuilt() {
    let distrusted = [
        "UPDATE processing_status SET incarnation = 7 WHERE topic = 'events'",
        "UPDATE processing_status SET next_offset = 99 WHERE topic = 'events' AND partition = 1",
        "UPDATE meta SET value = '0' WHERE key = 'projection_version'",
        "INSERT INTO processing_status (topic, partition, incarnation, next_offset) VALUES ('events', 5, 1, 0)",
    ];
    for sql in distrusted {
        let world = World::new();
        world.event(0, "u:ann", "Page", 1, "");
        world.project();
        block_on(tamper(&world, sql));
        block_on(tamper(&world, "UPDATE events SET event_name = 'wrong'"));
        world.project();
        assert_eq!(world.sql("SELECT event_name FROM events"), ["Page"], "{sql}");
        assert_eq!(Generations::new(world.dir.path(), &world.namespace).current().unwrap(), Some(2), "{sql}");
    }
}

#[test]
fn a_damaged_or_missing_file_is_rebuilt() {
    for damage in [None, Some(b"not a database at all, whatever it is called".repeat(200))] {
        let world = World::new();
        world.event(0, "u:ann", "Page", 1, "");
        world.project();
        let path = Generations::new(world.dir.path(), &world.namespace).db(1);
        match &damage {
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        world.project();
        assert_eq!(world.sql("SELECT event_name FROM events"), ["Page"]);
    }
}

#[test]
fn a_rebuild_is_swapped_in_under_a_running_projector() {
    let world = World::new();
    for at in 0..50 {
        world.event(at % 2, "u:ann", "Page", i64::from(at), "");
    }
    let handle = world.start();
    world.wait(&handle);
    let mut seen = Vec::new();
    let rebuilt = block_on(rebuild(world.log.clone(), world.dir.path(), &world.namespace, &Options::default(), &mut |progress| {
        seen.push(progress);
        ControlFlow::Continue(())
    }));
    assert_eq!(rebuilt.unwrap(), Rebuilt { generation: 2, records: 50 });
    assert_eq!(seen.last(), Some(&Progress { records: 50, left: 0 }));
    world.event(0, "u:bob", "Page", 1, "");
    world.wait(&handle);
    // The projector may have put bob into the old file just before it saw the swap; then it puts him into the new one again.
    while world.sql("SELECT count(*) FROM events") != ["51"] {
        std::thread::yield_now();
    }
    handle.stop();
    assert_eq!(world.sql("SELECT sum(events), count(*) FROM daily_totals"), ["51|1"]);
    assert!(!Generations::new(world.dir.path(), &world.namespace).db(1).exists());
}

#[test]
fn a_rebuild_that_does_not_finish_leaves_the_old_one() {
    let world = World::new();
    world.event(0, "u:ann", "Page", 1, "");
    world.project();
    let called_off =
        block_on(rebuild(world.log.clone(), world.dir.path(), &world.namespace, &Options::default(), &mut |_| ControlFlow::Break(())));
    assert!(matches!(called_off, Err(Error::Stopped(_))), "{called_off:?}");
    // What a crash leaves: a file that no pointer names.
    block_on(async {
        drop(store::create(&Generations::new(world.dir.path(), &world.namespace).db(7)).await.unwrap());
    });
    assert_eq!(world.sql("SELECT count(*) FROM events"), ["1"]);
    let again =
        block_on(rebuild(world.log.clone(), world.dir.path(), &world.namespace, &Options::default(), &mut |_| ControlFlow::Continue(())));
    assert_eq!(again.unwrap(), Rebuilt { generation: 8, records: 1 });
    assert!(!Generations::new(world.dir.path(), &world.namespace).db(7).exists());
}

#[test]
fn a_trace_finds_messages_people_and_what_was_not_applied() {
    let world = World::new();
    let acme = TenantId::new("acme").unwrap();
    world.event(0, "u:ann", "Page", 1, "");
    world.event(1, "a:x", "Buy", 2, "");
    let body = r#"{"type":"track"}"#;
    let item = IntakeItem {
        source: "web",
        message_id: "bad-1",
        message_id_derived: false,
        received_at: 3,
        sent_at: None,
        route: "",
        remote_ip: "",
        user_agent: "",
        historical: false,
        body,
        batch: "",
        redriven_from: None,
    };
    let mut value = Vec::new();
    crate::schema::encode(&IntakeRecord::Item(item), &mut value).unwrap();
    let letter = DeadLetter {
        topic: "intake",
        origin: Origin { incarnation: 1, partition: 1, offset: 8 },
        stage: "intake",
        reason: "missing_field",
        detail: "a track needs an event name",
        message_id: "bad-1",
        at: 4,
        value: &value,
    };
    world.append("dead_letters", 0, "u:ann", &letter);
    world.project();
    let reader = Reader::new(world.dir.path(), &world.namespace);
    block_on(async {
        let page = reader.trace(&acme, "Page").await.unwrap();
        assert_eq!((page.events.len(), page.events[0].user_id.as_deref(), page.events[0].intake), (1, Some("ann"), (0, 7)));
        let ann = reader.trace(&acme, "ann").await.unwrap();
        assert_eq!((ann.events.len(), ann.dead_letters.len()), (1, 1));
        assert_eq!(ann.dead_letters[0].detail.as_deref(), Some("a track needs an event name"));
        assert_eq!(reader.trace(&acme, "a:x").await.unwrap().events[0].name, "Buy");
        assert_eq!(reader.trace(&acme, "bad-1").await.unwrap().dead_letters[0].offset, 8);
        let other = TenantId::new("other").unwrap();
        assert!(reader.trace(&other, "ann").await.unwrap().is_empty(), "another tenant's data is not shown");
        assert!(reader.is_visible(&acme, "Buy").await.unwrap());
        assert!(!reader.is_visible(&acme, "Sold").await.unwrap());
    });
    assert_eq!(world.sql("SELECT body FROM dead_letters"), [body]);
}

#[test]
fn segment_sizes_have_no_missing_days() {
    let world = World::new();
    let acme = TenantId::new("acme").unwrap();
    for (subject, entered, day) in [("u:ann", true, 1), ("u:bob", true, 1), ("u:ann", false, 4)] {
        let change = SegmentChange { segment: "vip", digest: "d", entered, at: day * DAY, cause: "" };
        world.append("segment_changes", 0, subject, &change);
    }
    world.project();
    let reader = Reader::new(world.dir.path(), &world.namespace);
    block_on(async {
        let sizes = reader.segment_sizes(&acme, "vip").await.unwrap();
        let sizes: Vec<(&str, i64)> = sizes.iter().map(|size| (size.day.as_str(), size.members)).collect();
        assert_eq!(sizes, [("1970-01-02", 2), ("1970-01-03", 2), ("1970-01-04", 2), ("1970-01-05", 1)]);
        let members = reader.members(&acme, "vip", None, 10).await.unwrap();
        assert_eq!(members, [Member { subject: "u:bob".to_owned(), since: Millis(DAY) }]);
        assert!(reader.members(&acme, "vip", Some("u:bob"), 10).await.unwrap().is_empty());
        assert_eq!(reader.segments(&acme).await.unwrap()[0].members, 1);
    });
}
