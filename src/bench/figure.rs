//! A measured figure as one JSON line, and the table of what each name means.

use serde::Serialize;

use crate::cli::output::outln;

#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// What the machine gave without us, in the same run and unit; absent where nothing comparable exists.
    pub floor: Option<f64>,
    pub ratio: Option<f64>,
    pub durability: &'static str,
    pub setup: String,
}

pub const FSYNC: &str = "fdatasync before every acknowledgement, shared by those who wait";
pub const FSYNC_LOG: &str = "log fsynced; profiles committed with their offset; state not fsynced (rebuilt from the log)";
pub const NOTHING: &str = "none: reads only";

impl Figure {
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str, durability: &'static str, setup: impl Into<String>) -> Self {
        Self { name: name.into(), value, unit, floor: None, ratio: None, durability, setup: setup.into() }
    }

    pub fn against(mut self, floor: f64) -> Self {
        self.floor = Some(floor);
        self.ratio = Some(self.value / floor);
        self
    }

    pub fn print(&self) {
        outln!("{}", serde_json::to_string(self).expect("a figure is JSON"));
    }
}

/// (prefix, what is measured).
pub const CATALOGUE: &[(&str, &str)] = &[
    (
        "ingest.b1",
        "HTTP to fsynced log, 128 connections, 400-byte events, one event a request; floor: bare axum and one file with shared fdatasync",
    ),
    ("ingest.b10", "the same in batches of 10"),
    ("ingest.b100", "the same in batches of 100"),
    ("ingest.b100.gzip", "the same, bodies compressed"),
    ("ingest.latency", "open loop at half of ingest.b1's rate: p99 from when a request was due to its answer"),
    ("api.c1000", "1,000 open connections, 9 parts track to 1 part profile read, 2,000 requests a second: p99"),
    ("features", "`events` to committed `profiles`: every feature, scores, segments; 2 million events, 50,000 users, Zipf"),
    ("features.cpu", "CPU seconds per million events of the same run"),
    ("features.cold", "the same fold over 10 million users, uniform, state larger than the cache; per core"),
    ("spine.sustained", "HTTP to committed SQL row, closed loop until the lag stays level, nothing lagging at the end"),
    ("spine.visible", "acknowledgement to visible in SQL at half of that rate: p99"),
    ("recovery.ack", "kill -9 under load: restart to the first acknowledgement"),
    ("recovery.caught_up", "kill -9 under load: restart until nothing lags"),
    ("replay.fold", "history through the profile fold, no SQL"),
    ("log.append", "100 records of 400 bytes a call, 64 callers; floor: the disk's own group fsync"),
    ("log.fetch", "sequential read of the same records from the page cache"),
    (
        "workflows.throughput",
        "5 effects in sequence, in-process executors, 200-byte results, 256 runs in flight: completed runs a second, to SQL",
    ),
    ("workflows.cpu", "CPU seconds per 1,000 runs of the same load"),
    ("workflows.latency", "one run of 5 effects after the other on an idle machine: start handed in to end read, p50 and p99"),
    ("workflows.http", "the same 5 effects, performed by an HTTP worker, 256 runs in flight"),
    ("workflows.recovery.first", "kill -9 in the middle of 2,000 runs of 5 effects: until the next effect is executed"),
    ("workflows.recovery.all", "the same: from the first start to the last effect; floor: undisturbed"),
    ("workflows.recovery.twice", "the same: executions beyond one per key, counted by the worker outside"),
    ("workflows.long.recovery", "a run with a million facts: kill -9 until it has decided its next signal; floor: a run of ten facts"),
    ("workflows.long.memory", "resident memory of that process then"),
    ("workflows.sleeping", "a million runs in a delay: resident memory"),
    ("workflows.sleeping.disk", "the same: bytes on disk per run, in log, state and read model"),
    ("workflows.sleeping.lag", "their timers fire within one minute: from the last one's time until every end is in SQL"),
    ("read_models.runs", "`journal` to SQL rows: runs of 5 effects a second from a journal that lies there"),
    ("read_models.cpu", "CPU milliseconds per run of the same load"),
    ("read_models.cpu.live", "the same where 2,500 runs a second come in, so that transactions are small"),
    (
        "cluster.projection",
        "events and profiles to Postgres rows with all indexes, at postgres.url; floor: COPY of the same rows into the same tables",
    ),
    ("memory.profile", "bytes per profile on disk, median and most"),
    ("memory.rss", "resident memory after folding 10 million users"),
];
