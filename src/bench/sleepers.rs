//! `workflows.sleeping`: what a million runs cost that wait, and whether they all fire when their minute comes.
//!
//! In one process with everything else. The starts are appended to `commands` as a backend would, so that what is measured is the fold,
//! the index of timers and the read model, not a client.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use super::figure::{FSYNC_LOG, Figure};
use super::folds::resident_bytes;
use crate::app::{Engine, Folder};
use crate::cli::wait;
use crate::config::Config;
use crate::domain::{MINUTE_MS, Millis, Namespace, SECOND_MS, Subject, TenantId, partition_of};
use crate::log::{BatchBuilder, LogWriter, Ticket, Transaction};
use crate::projections::{self, Limits, Value};
use crate::schema;
use crate::schema::records::{Command, CommandsRecord};
use crate::stream::{Topic, Topics, activate_workflow};
use crate::workflow::{Definition, Input};

const RUNS: u64 = 1_000_000;
const NAMESPACE: &str = "main";
/// Starts that go in one append, and appends that may wait for the disk.
const BATCH: u64 = 2_000;
const UNDER_WAY_MAX: usize = 8;
/// From the first start to the first timer; all must sleep by then.
const LOAD_MS: i64 = 2 * MINUTE_MS;
const WAIT_AT_MOST: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_millis(200);

const SLEEP: &str = r#"
[workflow]
name = "sleep"
[workflow.entry]
command = true

[[node]]
name = "rest"
kind = "delay"
until_date = "entry.wake_at"
next = "over"

[[node]]
name = "over"
kind = "exit"
outcome = "rested"
"#;

/// Appends one start per subject, spread over the partitions.
fn start_all(log: &dyn LogWriter, topics: &Topics, first_due: Millis) -> anyhow::Result<()> {
    let tenant = TenantId::new("default")?;
    let count = topics.count(Topic::Commands);
    let mut under_way: std::collections::VecDeque<Ticket> = std::collections::VecDeque::new();
    for first in (0..RUNS).step_by(BATCH as usize) {
        let mut batches: Vec<BatchBuilder> = (0..count).map(|_| BatchBuilder::new()).collect();
        for number in first..RUNS.min(first + BATCH) {
            let due = first_due + (number * MINUTE_MS as u64 / RUNS) as i64;
            let key = Subject::user(&format!("sleeper-{number:07}")).key(&tenant);
            let input = Input::Start {
                workflow: "sleep".to_owned(),
                cause: format!("bench-{number}"),
                entry: json!({ "wake_at": due.0 }),
                profile: json!({}),
                depth: 0,
                parent: None,
            };
            let body = serde_json::to_string(&input)?;
            let record = CommandsRecord::Command(Command { kind: input.kind(), at: None, depth: 0, body: &body });
            let partition = partition_of(key.as_bytes(), count).0 as usize;
            batches[partition].push_with(key.as_bytes(), due, |buffer| schema::encode(&record, buffer))?;
        }
        let parts = topics.partitions(Topic::Commands).zip(batches).filter(|(_, batch)| !batch.is_empty());
        let batches = parts.map(|(partition, batch)| (partition, batch.build())).collect();
        under_way.push_back(log.append(Transaction { batches, commits: Vec::new() })?);
        if under_way.len() > UNDER_WAY_MAX {
            under_way.pop_front().context("just pushed")?.wait()?;
        }
    }
    under_way.into_iter().try_for_each(|ticket| ticket.wait().map(drop))?;
    Ok(())
}

pub async fn sleeping(dir: &Path, print: &dyn Fn(&Figure)) -> anyhow::Result<()> {
    let mut config = Config::default();
    config.data.dir = dir.to_owned();
    let starting = config.clone();
    let engine = tokio::task::spawn_blocking(move || Engine::start(&starting)).await??;
    let folder = Folder::new(dir);
    let topics = Topics::find(&*engine.log, &Namespace::new(NAMESPACE)?)?.context("main is always there")?;
    let definition = Definition::parse("sleep.toml", SLEEP)?;
    let (log, of, now) = (Arc::clone(&engine.log), topics.clone(), engine.clock.now());
    tokio::task::spawn_blocking(move || activate_workflow(&*log, &of, &definition, now)).await??;
    wait::run(&config, &*engine.log, NAMESPACE, WAIT_AT_MOST).await?;
    let before = sizes(&folder);

    let begun = engine.clock.now();
    let first_due = begun + LOAD_MS;
    let loading = (Arc::clone(&engine.log), topics.clone());
    tokio::task::spawn_blocking(move || start_all(&*loading.0, &loading.1, first_due)).await??;
    wait::run(&config, &*engine.log, NAMESPACE, WAIT_AT_MOST).await?;
    let asleep = engine.clock.now();
    ensure!(asleep < first_due, "{RUNS} starts took longer than {} s: the first timers fired meanwhile", LOAD_MS / SECOND_MS);
    // Until what is in memory alone has been stored.
    tokio::time::sleep(Duration::from_millis(config.stream.flush_age_ms_max as u64 * 2)).await;
    let resident = resident_bytes();
    let after = sizes(&folder);
    let rate = RUNS as f64 / (asleep.since_ms(begun) as f64 / 1e3);
    let setup = format!("{RUNS} runs of {RUNS} people in a delay, started at {rate:.0} runs/s to SQL, read models on");
    print(&Figure::new("workflows.sleeping", resident as f64 / 1e6, "MB resident", FSYNC_LOG, setup.clone()));
    let per_run = |(after, before): (u64, u64)| after.saturating_sub(before) as f64 / RUNS as f64;
    let [log, state, read] = [(after[0], before[0]), (after[1], before[1]), (after[2], before[2])].map(per_run);
    let parts = format!("{setup}; log {log:.0} (write-ahead file included), state {state:.0}, read model {read:.0}");
    print(&Figure::new("workflows.sleeping.disk", log + state + read, "bytes/run", FSYNC_LOG, parts));

    let last_due = first_due + MINUTE_MS;
    let deadline = Instant::now() + WAIT_AT_MOST;
    while is_any_open(&folder).await? {
        ensure!(Instant::now() < deadline, "not all of {RUNS} runs have ended");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let lag = engine.clock.now().since_ms(last_due) as f64 / 1e3;
    let setup = format!("{RUNS} timers within one minute; from the last one's time until every run's end is in SQL, ticks of 1 s included");
    print(&Figure::new("workflows.sleeping.lag", lag, "s", FSYNC_LOG, setup));
    tokio::task::spawn_blocking(move || engine.stop()).await??;
    Ok(())
}

/// By the index of runs that go on, so that looking costs nothing.
async fn is_any_open(folder: &Folder) -> anyhow::Result<bool> {
    let sql = "SELECT count(*) FROM (SELECT 1 FROM wf_runs WHERE ended_at IS NULL LIMIT 1)";
    let limits = Limits { time_ms_max: WAIT_AT_MOST.as_millis() as u64, rows_max: 1 };
    let found = projections::query(&folder.read(), &Namespace::new(NAMESPACE)?, sql, limits).await?;
    match found.rows.first().and_then(|row| row.first()) {
        Some(Value::Int(count)) => Ok(*count > 0),
        other => anyhow::bail!("a count is a number: {other:?}"),
    }
}

/// Bytes in the log, the state and the read models.
fn sizes(folder: &Folder) -> [u64; 3] {
    [folder.log(), folder.state(), folder.read()].map(|dir| size(&dir))
}

fn size(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let each = entries.filter_map(Result::ok).map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) => std::os::unix::fs::MetadataExt::blocks(&meta) * 512,
        Err(_) => 0,
    });
    each.sum()
}
