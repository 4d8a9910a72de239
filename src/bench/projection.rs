//! `cluster.projection`: events and profiles into Postgres with all its indexes, against COPY of the same rows into the same tables.
//!
//! The log is in memory and lies there, so that what is measured is the projector and the server. Then the rows are copied out, and in
//! again into a second read model's tables, made alike: that is what the server alone takes for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use super::figure::Figure;
use crate::domain::{DAY_MS, FieldType, Millis, Money, Namespace, Offset, PartitionId, Subject, TenantId, Value};
use crate::env::SystemClock;
use crate::log::memory::MemoryLog;
use crate::log::{BatchBuilder, LogReader, LogWriter, TopicPartition, Transaction};
use crate::projections::{Handle, Options, Place, PostgresOptions, Projector};
use crate::schema::profile::{self, EventTotals, Features, ProfileRecord};
use crate::schema::records::{EventBody, EventsRecord, Origin};
use crate::schema::{self, Wire};
use crate::stream::{Partitions, Topic, Topics};

const EVENTS: usize = 200_000;
const PEOPLE: usize = 20_000;
/// One profile is written for so many events.
const EVENTS_PER_PROFILE: usize = 5;
const WAIT_AT_MOST: Duration = Duration::from_secs(300);
/// Those that are measured; the rest are counts of these rows.
const TABLES: [&str; 2] = ["events", "profiles"];
const DURABILITY: &str = "Postgres commits with fsync; rows and offsets in one transaction";

/// Measures on the database at `url`, in schemas of its own, which it removes.
pub async fn run(url: &str) -> anyhow::Result<Figure> {
    let marks = ["bench_a_", "bench_b_"];
    let options: PgConnectOptions = url.parse()?;
    let mut connection = options.connect().await?;
    remove(&mut connection, &marks).await?;
    let url = url.to_owned();
    let seconds = tokio::task::spawn_blocking(move || {
        let measured = project(&url, marks[0], EVENTS)?;
        // The second one's tables and month, with next to nothing in them.
        project(&url, marks[1], 1)?;
        anyhow::Ok(measured)
    })
    .await??;
    let (mut rows, mut floor) = (0, 0.0);
    for table in TABLES {
        let columns = columns(&mut connection, marks[0], table).await?;
        let (from, into) = (tables(marks[0]), tables(marks[1]));
        let out = format!("COPY (SELECT {columns} FROM {from}.{table}) TO STDOUT (FORMAT binary)");
        let bytes: Vec<u8> = connection.copy_out_raw(&out).await?.try_fold(Vec::new(), collect).await?;
        let begun = Instant::now();
        let mut copy = connection.copy_in_raw(&format!("COPY {into}.{table} ({columns}) FROM STDIN (FORMAT binary)")).await?;
        for piece in bytes.chunks(64 << 10) {
            copy.send(piece).await?;
        }
        rows += copy.finish().await?;
        floor += begun.elapsed().as_secs_f64();
    }
    remove(&mut connection, &marks).await?;
    connection.close().await?;
    let setup = format!(
        "{EVENTS} events of {PEOPLE} people and a profile for every {EVENTS_PER_PROFILE}th, {rows} rows in the end; daily counts besides; \
         log in memory; floor: COPY of these rows into the same tables with the same indexes"
    );
    let written = (EVENTS + EVENTS / EVENTS_PER_PROFILE) as f64;
    Ok(Figure::new("cluster.projection", written / seconds, "rows/s", DURABILITY, setup).against(rows as f64 / floor))
}

async fn collect(mut all: Vec<u8>, bytes: bytes::Bytes) -> Result<Vec<u8>, sqlx::Error> {
    all.extend_from_slice(&bytes);
    Ok(all)
}

fn tables(mark: &str) -> String {
    format!("\"{mark}main$g1\"")
}

async fn columns(connection: &mut PgConnection, mark: &str, table: &str) -> anyhow::Result<String> {
    let sql = "SELECT string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position) FROM information_schema.columns \
               WHERE table_schema = $1 AND table_name = $2 AND column_name <> 'event_id'";
    Ok(sqlx::query_scalar(sql).bind(format!("{mark}main$g1")).bind(table).fetch_one(connection).await?)
}

async fn remove(connection: &mut PgConnection, marks: &[&str]) -> anyhow::Result<()> {
    for mark in marks {
        let sql = format!("DROP SCHEMA IF EXISTS \"{mark}main\" CASCADE; DROP SCHEMA IF EXISTS {} CASCADE", tables(mark));
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Seconds from a projector's start until everything is in the tables.
fn project(url: &str, mark: &str, events: usize) -> anyhow::Result<f64> {
    let log = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
    let namespace = Namespace::new("main")?;
    let topics = Topics::create(&*log, &namespace, Partitions::default())?;
    fill(&log, &topics, events)?;
    let options = PostgresOptions { url: url.to_owned(), prefix: mark.to_owned(), timeout_ms: 60_000, ..PostgresOptions::default() };
    let begun = Instant::now();
    let handle = Projector::start(Arc::clone(&log) as _, Place::postgres(&options)?, &namespace, Options::default())?;
    wait(&log, &topics, &handle)?;
    let seconds = begun.elapsed().as_secs_f64();
    handle.stop();
    Ok(seconds)
}

fn wait(log: &MemoryLog, topics: &Topics, handle: &Handle) -> anyhow::Result<()> {
    for topic in [Topic::Events, Topic::Profiles] {
        for number in 0..topics.count(topic) {
            let partition = PartitionId(number);
            let end = log.watermarks(topics.partition(topic, partition))?.end;
            let Some(last) = end.0.checked_sub(1) else { continue };
            let there = handle.wait_applied(topic.as_str(), partition, Offset(last), WAIT_AT_MOST);
            anyhow::ensure!(there, "the read model did not come to the end: {:?}", handle.health());
        }
    }
    Ok(())
}

fn fill(log: &MemoryLog, topics: &Topics, events: usize) -> anyhow::Result<()> {
    let tenant = TenantId::new("default")?;
    let begin = Millis::parse("2024-03-01T00:00:00Z").map_or(0, |time| time.0);
    let mut written = Written { log, topics, batches: Vec::new() };
    for number in 0..events {
        let person = mixed(number) % PEOPLE;
        let id = format!("user-{person}");
        let subject = Subject::user(&id);
        let key = subject.key(&tenant);
        let at = begin + (number as i64 * 28 * DAY_MS) / EVENTS as i64;
        let message_id = format!("{:016x}-{:016x}", mixed(number), mixed(number + EVENTS));
        let properties =
            format!(r#"{{"path":"/products/{}","title":"A product that people look at","price":19.99,"currency":"USD"}}"#, person % 500);
        let event = EventBody {
            message_id: &message_id,
            kind: "track",
            name: ["Page", "Product Viewed", "Product Added", "Order Completed"][number % 4],
            event_time: at,
            received_at: at,
            user_id: "",
            anonymous_id: "8f1c2c6e-5a0b-4e55-9a53-b7d3a6f0c001",
            source: "web",
            historical: false,
            properties: &properties,
            context: r#"{"library":{"name":"analytics.js","version":"4.2.0"},"page":{"url":"https://shop.example.com/"},"locale":"en-US"}"#,
            origin: Origin { incarnation: 1, partition: 0, offset: number as i64 },
            redriven_from: None,
            depth: 0,
        };
        written.push(Topic::Events, person, key.bytes(), &EventsRecord::Event(event))?;
        if number % EVENTS_PER_PROFILE == 0 {
            let subject = subject.to_string();
            written.push(Topic::Profiles, person, key.bytes(), &profile_of(&subject, at))?;
        }
        if number % 1_000 == 999 {
            written.flush()?;
        }
    }
    written.flush()
}

fn profile_of(subject: &str, at: i64) -> ProfileRecord<'_> {
    let value = |(number, column): (usize, &profile::Column)| match column.kind {
        FieldType::Int => Value::Int(number as i64),
        FieldType::Float => Value::Float(number as f64 / 7.0),
        FieldType::Bool => Value::Bool(number % 2 == 0),
        FieldType::Text => Value::Null,
        FieldType::Time => Value::Time(Millis(at)),
        FieldType::Money => Value::Money(Money(number as i64 * 10_000)),
    };
    ProfileRecord {
        subject,
        as_of: at,
        fold_version: 1,
        traits: r#"{"email":"somebody@example.com","plan":"free"}"#,
        consent: "",
        features: Features(profile::columns().iter().enumerate().map(value).collect()),
        events: vec![EventTotals { event: "Page", total: 3, d7: 3, d30: 3, d90: 3 }],
        currencies: Vec::new(),
        funnels: Vec::new(),
        scores: Vec::new(),
        segments: vec!["customers"],
    }
}

/// Records on their way into the log.
struct Written<'l> {
    log: &'l MemoryLog,
    topics: &'l Topics,
    batches: Vec<(TopicPartition, BatchBuilder)>,
}

impl Written<'_> {
    fn push<'a, T: Wire<'a>>(&mut self, topic: Topic, person: usize, key: &[u8], record: &T) -> anyhow::Result<()> {
        let mut value = Vec::new();
        schema::encode(record, &mut value)?;
        let partition = self.topics.partition(topic, PartitionId(person as u32 % self.topics.count(topic)));
        let at = match self.batches.iter().position(|(known, _)| *known == partition) {
            Some(at) => at,
            None => {
                self.batches.push((partition, BatchBuilder::new()));
                self.batches.len() - 1
            }
        };
        self.batches[at].1.push(key, Some(&value), Millis(0));
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let batches = self.batches.drain(..).map(|(partition, batch)| (partition, batch.build())).collect();
        self.log.append(Transaction { batches, commits: Vec::new() })?.wait()?;
        Ok(())
    }
}

/// A hash of a number, so that ids lie as ids do: anywhere.
fn mixed(number: usize) -> usize {
    let mut x = (number as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) as usize
}
