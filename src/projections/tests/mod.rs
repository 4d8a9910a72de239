//! The projector against a log in memory and real databases, SQLite and, in a build that has it, Postgres: exactly once, whatever runs beside
//! it or crashes.

#[cfg(feature = "postgres")]
mod analysts;
mod campaign;
mod docs;
mod failing;
#[cfg(feature = "postgres")]
mod faults;
mod reading;
mod rows;
mod running;
#[cfg(feature = "postgres")]
mod same_rows;
#[cfg(feature = "postgres")]
mod services;
mod workflows;

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::generation::Generations;
use super::store::Store;
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

/// A log with a namespace's topics, two partitions each, and the place of its read model.
pub(super) struct World {
    pub log: Arc<MemoryLog>,
    pub clock: ManualClock,
    pub place: Place,
    pub dir: tempfile::TempDir,
    pub namespace: Namespace,
}

impl World {
    /// One for each database, freshly made.
    pub fn on_each() -> impl Iterator<Item = Self> {
        std::iter::once(Self::new()).chain(Self::on_postgres())
    }

    /// Over SQLite.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::of(Place::from(dir.path()), dir)
    }

    #[cfg(not(feature = "postgres"))]
    pub fn on_postgres() -> Option<Self> {
        None
    }

    #[cfg(feature = "postgres")]
    pub fn on_postgres() -> Option<Self> {
        let options = PostgresOptions {
            url: services::database()?.to_owned(),
            prefix: format!("{}_", services::fresh_name("t")),
            // Others compile beside the tests.
            timeout_ms: 60_000,
            ..PostgresOptions::default()
        };
        Some(Self::of(Place::postgres(&options).unwrap(), tempfile::tempdir().unwrap()))
    }

    fn of(place: Place, dir: tempfile::TempDir) -> Self {
        let clock = ManualClock::at(Millis(1_700_000_000_000));
        let log = Arc::new(MemoryLog::new(Arc::new(clock.clone())));
        let world = Self { log, clock, place, dir, namespace: Namespace::new("shop").unwrap() };
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

    /// Appends one record under `subject` (`u:..`, `a:..` or `@:..`).
    pub fn append<'a, T: Wire<'a>>(&self, topic: &str, partition: u32, subject: &str, record: &T) -> Offset {
        self.append_of("acme", topic, partition, subject, record)
    }

    pub fn append_of<'a, T: Wire<'a>>(&self, tenant: &str, topic: &str, partition: u32, subject: &str, record: &T) -> Offset {
        let tenant = TenantId::new(tenant).unwrap();
        let key = match subject.split_once(':') {
            Some(("u", id)) => Subject::user(id).key(&tenant).bytes().clone(),
            Some(("@", hash)) => Subject::address(hash).key(&tenant).bytes().clone(),
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
        Projector::start(self.log.clone(), &self.place, &self.namespace, options).unwrap()
    }

    /// Starts a projector, waits until it has everything, stops it.
    pub fn project(&self) {
        let handle = self.start();
        self.wait(&handle);
        handle.stop();
        assert_eq!(handle.health(), Health::Stopped);
    }

    pub fn wait(&self, handle: &Handle) {
        for topic in tables::TOPICS {
            for partition in [0, 1] {
                let end = self.log.watermarks(self.partition(topic, partition)).unwrap().end;
                if end.0 > 0 {
                    let last = Offset(end.0 - 1);
                    assert!(handle.wait_applied(topic, PartitionId(partition), last, Duration::from_secs(120)), "{:?}", handle.health());
                }
            }
        }
    }

    /// The answer as lines of `|`-separated values.
    pub fn sql(&self, sql: &str) -> Vec<String> {
        let rows = block_on(query(&self.place, &self.namespace, sql, Limits::default())).unwrap_or_else(|error| panic!("{sql}: {error}"));
        rows.rows.iter().map(|row| row.iter().map(text).collect::<Vec<_>>().join("|")).collect()
    }

    async fn tail(&self) -> Tail {
        Tail::new(self.log.clone(), &Options::default(), &self.namespace, self.store().await).await.unwrap()
    }

    pub fn generations(&self) -> Generations {
        Generations::new(&self.place, &self.namespace)
    }

    async fn store(&self) -> Store {
        let generations = self.generations();
        generations.open(generations.current().await.unwrap().unwrap()).await.unwrap()
    }

    pub fn reader(&self) -> Reader {
        Reader::new(&self.place, &self.namespace)
    }
}

pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    // One for all: connections to Postgres live as long as what they were made on.
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
    RUNTIME.block_on(future)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => format!("{value:?}"),
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
        redriven_from: None,
        depth: 0,
    }
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

async fn tamper(world: &World, sql: &'static str) {
    let mut store = world.store().await;
    store.execute("tamper", sql, Vec::new()).await.unwrap();
    store.close().await.unwrap();
}
