//! `features`, `features.cpu`, `features.cold`, `replay.fold`, `memory.*`: the profile fold over records that lie in the log already.
//!
//! A fold is timed from its start until every record is committed (not merely folded). `features` runs the whole spine on the embedded
//! log; what is committed is what a reader of `profiles` could see.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::figure::{FSYNC_LOG, Figure, NOTHING};
use super::floor;
use crate::domain::{Millis, Namespace, PartitionId, Subject, TenantId, partition_of};
use crate::env::fs::RealFs;
use crate::env::{Clock, SystemClock};
use crate::log::embedded::{EmbeddedLog, Options};
use crate::log::{BatchBuilder, LogReader, LogWriter, Transaction};
use crate::schema;
use crate::schema::records::{EventBody, EventsRecord, Origin};
use crate::state::{FjallOptions, FjallStore, Flush, StateStore};
use crate::stream::{self, NamespaceClock, Partitions, Spine, Topic, Topics, topology};

const PARTITIONS: u32 = 4;
/// Records per append while the history is written.
const APPEND_RECORDS: usize = 2_000;
const START: i64 = 1_700_000_000_000;
/// Between two looks at how far the fold is.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Who the events are of.
#[derive(Debug, Clone, Copy)]
pub enum People {
    /// Few are busy, most are not: exponent 1.
    Zipf(u32),
    Uniform(u32),
    /// The number of the event is the person.
    Everyone,
}

/// Draws a person.
struct Draw {
    people: People,
    /// Cumulated weights of a Zipf law.
    cumulated: Vec<f64>,
}

impl Draw {
    fn new(people: People) -> Self {
        let cumulated = match people {
            People::Uniform(_) | People::Everyone => Vec::new(),
            People::Zipf(count) => {
                let mut sum = 0.0;
                (1..=count)
                    .map(|rank| {
                        sum += 1.0 / f64::from(rank);
                        sum
                    })
                    .collect()
            }
        };
        Self { people, cumulated }
    }

    fn next(&self, number: u64, random: &mut ChaCha8Rng) -> u32 {
        match self.people {
            People::Everyone => number as u32,
            People::Uniform(count) => random.random_range(0..count),
            People::Zipf(_) => {
                let total = *self.cumulated.last().expect("someone");
                let point = random.random_range(0.0..total);
                self.cumulated.partition_point(|sum| *sum < point) as u32
            }
        }
    }
}

const NAMES: &[(&str, &str)] = &[
    ("Product Viewed", r#"{"product_id":"sku-1234","category":"shoes","price":59.9,"currency":"USD"}"#),
    ("Product Added", r#"{"product_id":"sku-77","category":"bags","price":19.5,"currency":"USD","quantity":1}"#),
    ("Order Completed", r#"{"order_id":"o-1","total":79.4,"currency":"USD","products":[{"product_id":"sku-77","category":"bags"}]}"#),
    ("Email Opened", r#"{"campaign":"spring","channel":"email"}"#),
    ("Search", r#"{"query":"red shoes size 42"}"#),
];
const CONTEXT: &str = r#"{"library":{"name":"bench","version":"1"},"page":{"path":"/p/sku-1234","referrer":"https://example.com/"},"timezone":"Europe/Berlin"}"#;

/// When the events happened.
#[derive(Debug, Clone, Copy)]
pub enum When {
    /// One every 20 ms from a moment in the past: for event-time namespaces.
    LongAgo,
    /// Within the minute before this time: for wall-clock namespaces, where old events would wake everyone at once.
    Before(Millis),
}

impl When {
    fn of(self, number: u64) -> i64 {
        match self {
            When::LongAgo => START + number as i64 * 20,
            When::Before(now) => now.0 - (number % 60_000) as i64,
        }
    }
}

/// A log with `count` events in `bench.events`.
pub struct History {
    pub log: Arc<EmbeddedLog>,
    pub topics: Topics,
    when: When,
}

pub fn write_history(dir: &Path, people: People, count: u64) -> anyhow::Result<History> {
    write_history_in("bench", dir, people, When::LongAgo, count)
}

/// The same in a namespace of any name.
pub fn write_history_in(namespace: &str, dir: &Path, people: People, when: When, count: u64) -> anyhow::Result<History> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log = EmbeddedLog::open(Arc::new(RealFs), &dir.join("log"), Options::default(), clock)?;
    let namespace = Namespace::new(namespace)?;
    let topics = Topics::create(&*log, &namespace, Partitions { intake: PARTITIONS, events: PARTITIONS, inbox: 0 })?;
    let history = History { log, topics, when };
    history.append(people, 0, count)?;
    Ok(history)
}

impl History {
    /// Appends `count` more events, numbered from `first`.
    pub fn append(&self, people: People, first: u64, count: u64) -> anyhow::Result<()> {
        let tenant = TenantId::new("default")?;
        let draw = Draw::new(people);
        let mut random = ChaCha8Rng::seed_from_u64(first ^ 0x5eed);
        let mut builders: Vec<BatchBuilder> = (0..PARTITIONS).map(|_| BatchBuilder::new()).collect();
        let mut tickets = std::collections::VecDeque::new();
        for number in first..first + count {
            let person = draw.next(number, &mut random);
            let user = format!("user-{person:08}");
            let message = format!("bench-{number:016}");
            let (name, properties) = NAMES[(random.random_range(0..100u32) as usize).min(99) * NAMES.len() / 100];
            let time = self.when.of(number);
            let event = EventsRecord::Event(EventBody {
                message_id: &message,
                kind: "track",
                name,
                event_time: time,
                received_at: time,
                user_id: &user,
                anonymous_id: "",
                source: "bench",
                historical: false,
                properties,
                context: CONTEXT,
                origin: Origin { incarnation: 1, partition: 0, offset: number as i64 },
                redriven_from: None,
                depth: 0,
            });
            let key = Subject::user(&user).key(&tenant);
            let partition = partition_of(key.as_bytes(), PARTITIONS).0 as usize;
            builders[partition].push_with(key.as_bytes(), Millis(time), |out| schema::encode(&event, out))?;
            if builders[partition].len() == APPEND_RECORDS {
                let batch = std::mem::take(&mut builders[partition]).build();
                tickets.push_back(self.append_batch(partition, batch)?);
                if tickets.len() > 8 {
                    tickets.pop_front().expect("there are eight").wait()?;
                }
            }
        }
        for (partition, builder) in builders.into_iter().enumerate().filter(|(_, builder)| !builder.is_empty()) {
            tickets.push_back(self.append_batch(partition, builder.build())?);
        }
        for ticket in tickets {
            ticket.wait()?;
        }
        Ok(())
    }

    fn append_batch(&self, partition: usize, batch: crate::log::RecordBatch) -> anyhow::Result<crate::log::Ticket> {
        let partition = self.topics.partition(Topic::Events, PartitionId(partition as u32));
        let mut batch = Some(batch);
        loop {
            let again = batch.clone().expect("kept until it is taken");
            match self.log.append(Transaction { batches: vec![(partition, again)], commits: Vec::new() }) {
                Ok(ticket) => {
                    batch = None;
                    drop(batch);
                    return Ok(ticket);
                }
                Err(error) if error.advice() == crate::log::Advice::Retry => std::thread::yield_now(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Runs the spine until every event is committed; returns seconds of wall and of CPU.
    pub fn fold(&self, dir: &Path, options: stream::Options) -> anyhow::Result<Timed> {
        let (state, _) = FjallStore::open_or_rebuild(&dir.join("state"), FjallOptions::default())?;
        let setup = stream::Setup {
            log: Arc::clone(&self.log) as _,
            state: Arc::new(state),
            clock: Arc::new(SystemClock),
            namespace: self.topics.namespace.clone(),
            time: NamespaceClock::Event,
            partitions: Partitions { intake: PARTITIONS, events: PARTITIONS, inbox: 0 },
            topology: Arc::new(topology::load("spine")?),
            options,
            copied: None,
            inbox: Default::default(),
        };
        let cpu = cpu_seconds();
        let started = Instant::now();
        let handle = Spine::start(setup)?;
        loop {
            let status = handle.status();
            let behind: u64 =
                status.iter().filter(|one| one.stage == "profiles").map(|one| one.end.max(1).saturating_sub(one.committed)).sum();
            if behind == 0 || handle.has_failed() {
                break;
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        let timed = Timed { wall: started.elapsed().as_secs_f64(), cpu: cpu_seconds() - cpu };
        handle.stop()?;
        Ok(timed)
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Timed {
    pub wall: f64,
    pub cpu: f64,
}

/// User and system time of this process.
pub fn cpu_seconds() -> f64 {
    // SAFETY: getrusage fills the struct it is given.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0, "a process may ask about itself");
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Resident memory of this process, bytes.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}

const EVENTS: u64 = 2_000_000;
const USERS: u32 = 50_000;

/// `features`, `features.cpu`.
pub fn features(dir: &Path) -> anyhow::Result<Vec<Figure>> {
    let history = write_history(dir, People::Zipf(USERS), EVENTS)?;
    let timed = history.fold(dir, stream::Options::default())?;
    let rate = EVENTS as f64 / timed.wall;
    let bodies: Vec<String> = (0..200_000).map(|_| super::load::event_json(229, "2026-01-01T00:00:00Z")).collect();
    let bare = floor::parse_and_fold(&bodies);
    let setup = format!(
        "burst of {EVENTS} events, {USERS} users, Zipf 1, {PARTITIONS} partitions, default topology; floor: bare parse and fold, one thread"
    );
    let cpu = timed.cpu / (EVENTS as f64 / 1e6);
    history.log.close();
    Ok(vec![
        Figure::new("features", rate, "events/s", FSYNC_LOG, setup.clone()).against(bare),
        Figure::new("features.cpu", cpu, "CPU s per million", FSYNC_LOG, setup).against(1e6 / bare),
    ])
}

/// `replay.fold`: the same history through the fold alone, nothing appended, no SQL.
pub fn replay(dir: &Path) -> anyhow::Result<Vec<Figure>> {
    let history = write_history(dir, People::Zipf(USERS), EVENTS)?;
    // The namespace's clock and definitions are there once a spine has run on it.
    let topology = Arc::new(topology::load("spine")?);
    let reader: Arc<dyn LogReader> = Arc::clone(&history.log) as _;
    let started = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let folded = crate::replay::fold::fold(&reader, &history.topics.namespace, &topology, threads)?;
    let elapsed = started.elapsed().as_secs_f64();
    history.log.close();
    anyhow::ensure!(folded.records >= EVENTS, "folded {} of {EVENTS}", folded.records);
    let setup = format!("{EVENTS} events, {USERS} users, Zipf 1, one thread per core, outputs discarded");
    Ok(vec![Figure::new("replay.fold", EVENTS as f64 / elapsed, "events/s", NOTHING, setup)])
}

/// People of the cold figures.
const COLD_USERS: u32 = 10_000_000;
/// Events measured once all of them exist.
const COLD_EVENTS: u64 = 500_000;
/// Of all states in memory, per partition: a small part.
const COLD_CACHE_BYTES: usize = 16 << 20;

/// Folded in earnest before the others are made after them.
const COLD_FOLDED: u32 = 100_000;
/// Spreads consecutive people over the key range, so that the store is filled in no order: prime, and no divisor of the count.
const COLD_STRIDE: u64 = 7_368_787;
/// States of one flush.
const COLD_FLUSH: usize = 20_000;

/// `features.cold`, `memory.*`: everyone has one event already, then events of people drawn at random, nearly all of whom are on disk.
pub fn cold(dir: &Path) -> anyhow::Result<Vec<Figure>> {
    let options = stream::Options { cache_bytes_max: COLD_CACHE_BYTES, ..stream::Options::default() };
    let history = write_history(dir, People::Everyone, u64::from(COLD_FOLDED))?;
    history.fold(dir, options.clone())?;
    let started = Instant::now();
    multiply(dir)?;
    let made = started.elapsed().as_secs_f64();
    history.append(People::Uniform(COLD_USERS), u64::from(COLD_FOLDED), COLD_EVENTS)?;
    let timed = history.fold(dir, options)?;
    let resident = resident_bytes();
    history.log.close();
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let rate = COLD_EVENTS as f64 / timed.wall / cores;
    let setup = format!(
        "{COLD_USERS} users on disk (states of {COLD_FOLDED} folded ones under everyone's key, stored in {made:.0} s), {COLD_EVENTS} uniform \
         events, {} MB of state cache in all, {cores} cores",
        (COLD_CACHE_BYTES * PARTITIONS as usize) >> 20,
    );
    let mut figures = vec![
        Figure::new("features.cold", rate, "events/s per core", FSYNC_LOG, setup.clone()),
        Figure::new("memory.rss", resident as f64 / 1e6, "MB", FSYNC_LOG, setup),
    ];
    figures.extend(profile_sizes(dir)?);
    Ok(figures)
}

/// Gives everyone who was not folded the state of someone who was. What the store holds is what ten million first events would have
/// left in it, without folding each of them.
fn multiply(dir: &Path) -> anyhow::Result<()> {
    let (state, _) = FjallStore::open_or_rebuild(&dir.join("state"), FjallOptions::default())?;
    let tenant = TenantId::new("default")?;
    let mut tables = state.tables()?;
    tables.retain(|table| table.0.contains(".profiles."));
    tables.sort();
    anyhow::ensure!(tables.len() == PARTITIONS as usize, "{} tables of profiles", tables.len());
    let samples: Vec<Vec<bytes::Bytes>> = tables
        .iter()
        .map(|table| Ok(state.scan(table, None, COLD_FLUSH)?.into_iter().map(|(_, stored)| stored.state).collect()))
        .collect::<anyhow::Result<_>>()?;
    let mut flushes: Vec<Flush> = tables.iter().map(|_| Flush::default()).collect();
    for number in 0..u64::from(COLD_USERS) {
        let person = number * COLD_STRIDE % u64::from(COLD_USERS);
        if person < u64::from(COLD_FOLDED) {
            continue;
        }
        let key = Subject::user(&format!("user-{person:08}")).key(&tenant);
        let partition = partition_of(key.as_bytes(), PARTITIONS).0 as usize;
        let sample = &samples[partition][number as usize % samples[partition].len()];
        let flush = &mut flushes[partition];
        flush.states.push((bytes::Bytes::copy_from_slice(key.as_bytes()), Some(sample.clone())));
        if flush.states.len() == COLD_FLUSH {
            state.flush(&tables[partition], std::mem::take(flush))?;
        }
    }
    for (table, flush) in tables.iter().zip(flushes) {
        state.flush(table, flush)?;
    }
    Ok(())
}

/// Bytes of stored profiles: a sample of the busiest load, where they are largest.
fn profile_sizes(dir: &Path) -> anyhow::Result<Vec<Figure>> {
    let busy = dir.join("busy");
    std::fs::create_dir_all(&busy)?;
    let history = write_history(&busy, People::Zipf(USERS), EVENTS / 2)?;
    history.fold(&busy, stream::Options::default())?;
    history.log.close();
    let (state, _) = FjallStore::open_or_rebuild(&busy.join("state"), FjallOptions::default())?;
    let mut sizes = Vec::new();
    for table in state.tables()?.into_iter().filter(|table| table.0.contains("profiles")) {
        let mut after: Option<bytes::Bytes> = None;
        loop {
            let page = state.scan(&table, after.as_deref(), 10_000)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            sizes.extend(page.iter().map(|(_, stored)| stored.state.len() as u64));
        }
    }
    sizes.sort_unstable();
    let (Some(most), Some(median)) = (sizes.last(), sizes.get(sizes.len() / 2)) else { return Ok(Vec::new()) };
    let setup = format!("{} profiles after {} events, Zipf 1; before the store's compression", sizes.len(), EVENTS / 2);
    Ok(vec![
        Figure::new("memory.profile.median", *median as f64, "bytes", NOTHING, setup.clone()),
        Figure::new("memory.profile.most", *most as f64, "bytes", NOTHING, setup),
    ])
}
