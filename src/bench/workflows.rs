//! `workflows.throughput`, `.cpu`, `.latency`, `.http`: runs of five effects, from the start's append to the end in the journal.
//!
//! One process holds everything: the log with its fsync, the folds, the executor, the read models, and whoever starts the runs and reads
//! their ends. Starts are appended to `commands` as the API does. A rate counts what has ended when the read model has it all.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use serde_json::json;

use super::figure::{FSYNC_LOG, Figure};
use super::folds::cpu_seconds;
use super::on_own_thread;
use crate::app::{Engine, Plan};
use crate::cli::wait;
use crate::config::Config;
use crate::domain::{Millis, Namespace, Offset, Subject, TenantId, partition_of};
use crate::engine::effects::{Call, Registry, WorkerOptions};
use crate::log::{BatchBuilder, TopicPartition, Transaction};
use crate::schema;
use crate::schema::records::{Command, CommandsRecord, JournalRecord};
use crate::stream::{NamespaceClock, Partitions, Topic, Topics, topology};
use crate::workflow::{Definition, Input, Outcome, Performer};

const NAMESPACE: &str = "main";
const IN_FLIGHT: usize = 256;
pub(super) const EFFECTS: usize = 5;
const RESULT_BYTES: usize = 200;
/// Runs before anything is measured, and runs of which each is timed.
const WARM_UP: usize = 200;
const TIMED: usize = 500;
const WAIT_AT_MOST: Duration = Duration::from_secs(120);
const FETCH_BYTES: usize = 1 << 20;

pub async fn run(dir: &Path, only: &dyn Fn(&str) -> bool, time: Duration, print: &dyn Fn(&Figure)) -> anyhow::Result<()> {
    let wants = |names: &[&str]| names.iter().any(|name| only(name));
    if wants(&["workflows.throughput", "workflows.cpu", "workflows.latency"]) {
        let mut load = Load::start(&dir.join("inline"), None).await?;
        if only("workflows.latency") {
            load.closed(1, Until::Runs(WARM_UP)).await?;
            let timed = load.closed(1, Until::Runs(TIMED)).await?;
            let setup = format!("{TIMED} runs one after the other, each {EFFECTS} effects in sequence, read models on");
            for (quantile, name) in [(0.5, "p50"), (0.99, "p99")] {
                let value = timed.latency_us.value_at_quantile(quantile) as f64 / 1e3;
                print(&Figure::new(format!("workflows.latency.{name}"), value, "ms", FSYNC_LOG, setup.clone()));
            }
        }
        if wants(&["workflows.throughput", "workflows.cpu"]) {
            load.closed(IN_FLIGHT, Until::Runs(10 * WARM_UP)).await?;
            let done = load.closed(IN_FLIGHT, Until::Elapsed(time)).await?;
            let setup = format!("{}; load included", done.setup("in-process executors"));
            print(&Figure::new("workflows.throughput", done.rate(), "runs/s", FSYNC_LOG, setup.clone()));
            print(&Figure::new("workflows.cpu", done.cpu_s / (done.runs as f64 / 1e3), "s/1,000 runs", FSYNC_LOG, setup));
        }
        load.stop().await?;
    }
    if only("workflows.http") {
        let url = worker()?;
        let mut load = Load::start(&dir.join("http"), Some(url)).await?;
        load.closed(IN_FLIGHT, Until::Runs(10 * WARM_UP)).await?;
        let done = load.closed(IN_FLIGHT, Until::Elapsed(time)).await?;
        let setup = format!("{}; worker and load included", done.setup("an HTTP worker on loopback"));
        print(&Figure::new("workflows.http", done.rate(), "runs/s", FSYNC_LOG, setup));
        load.stop().await?;
    }
    Ok(())
}

pub(super) fn workflow() -> anyhow::Result<Definition> {
    let mut text = "[workflow]\nname = \"five\"\n[workflow.entry]\ncommand = true\n".to_owned();
    for at in 0..EFFECTS {
        let next = if at + 1 < EFFECTS { format!("step{}", at + 1) } else { "over".to_owned() };
        text += &format!(
            "[[node]]\nname = \"step{at}\"\nkind = \"effect\"\nagent = \"bench\"\ninput = {{ step = \"{at}\" }}\ntimeout = \"1m\"\nnext = \"{next}\"\n"
        );
    }
    text += "[[node]]\nname = \"over\"\nkind = \"exit\"\noutcome = \"done\"\n";
    Ok(Definition::parse("five.toml", &text)?)
}

pub(super) fn result() -> serde_json::Value {
    json!({ "text": "x".repeat(RESULT_BYTES - "{\"text\":\"\"}".len()) })
}

/// An HTTP server with a thread of its own, which answers every call with the same result.
fn worker() -> anyhow::Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let url = format!("http://{}/", listener.local_addr()?);
    let serve = move || async move {
        let answer = bytes::Bytes::from(result().to_string());
        let app = axum::Router::new().route("/", axum::routing::post(move |_: bytes::Bytes| std::future::ready(answer.clone())));
        axum::serve(tokio::net::TcpListener::from_std(listener)?, app).await?;
        anyhow::Ok(())
    };
    // Lives as long as the process: the benchmark has no other use for it.
    tokio::spawn(on_own_thread(serve));
    Ok(url)
}

enum Until {
    Runs(usize),
    Elapsed(Duration),
}

struct Done {
    runs: usize,
    /// From the first start to the last end in the read model.
    elapsed_s: f64,
    /// Of which the read model took this much longer than the journal.
    behind_s: f64,
    cpu_s: f64,
    latency_us: Histogram<u64>,
}

impl Done {
    fn rate(&self) -> f64 {
        self.runs as f64 / self.elapsed_s
    }

    fn setup(&self, who: &str) -> String {
        let (p50, p99) = (self.latency_us.value_at_quantile(0.5) as f64 / 1e3, self.latency_us.value_at_quantile(0.99) as f64 / 1e3);
        format!(
            "{} runs of {EFFECTS} effects by {who}, {RESULT_BYTES}-byte results, {IN_FLIGHT} in flight (p50 {p50:.1} ms, p99 {p99:.1} ms), read models on, {:.2} s of it until SQL had the last",
            self.runs, self.behind_s
        )
    }
}

struct Load {
    engine: Engine,
    config: Config,
    topics: Topics,
    tenant: TenantId,
    /// How many were ever started: each run has a subject of its own.
    started: usize,
    ends: Vec<(TopicPartition, Offset)>,
}

impl Load {
    async fn start(dir: &Path, worker: Option<String>) -> anyhow::Result<Self> {
        let mut config = Config::default();
        config.data.dir = dir.to_owned();
        let performers = match worker {
            None => {
                let result = result();
                Registry::default().inline(Performer::Agent, "bench", move |_: &Call| Outcome::Done { result: result.clone() })
            }
            Some(url) => {
                let worker = WorkerOptions { url, token: None, concurrency: None, per_second: None };
                config.effects.workers.insert("bench".to_owned(), worker);
                Registry::default()
            }
        };
        let partitions = config.topology.partitions;
        let plan = Plan {
            namespace: Namespace::new(NAMESPACE)?,
            clock: NamespaceClock::Wall,
            topology: topology::load(&config.topology.default)?,
            partitions: Partitions { intake: partitions, events: partitions, inbox: 0 },
            workflows: vec![workflow()?],
            policy: None,
            performers,
            senders: Default::default(),
        };
        let starting = config.clone();
        let engine = tokio::task::spawn_blocking(move || Engine::start_with(&starting, Some(plan))).await??;
        let topics = Topics::find(&*engine.log, &Namespace::new(NAMESPACE)?)?.context("it was made just now")?;
        wait::run(&config, &*engine.log, NAMESPACE, WAIT_AT_MOST).await?;
        let ends = topics.partitions(Topic::Journal).map(|id| Ok((id, engine.log.watermarks(id)?.end)));
        let ends = ends.collect::<anyhow::Result<_>>()?;
        Ok(Self { engine, config, topics, tenant: TenantId::new("default")?, started: 0, ends })
    }

    async fn stop(self) -> anyhow::Result<()> {
        tokio::task::spawn_blocking(move || self.engine.stop()).await??;
        Ok(())
    }

    /// Keeps so many runs in flight, a new one for each that ends.
    async fn closed(&mut self, in_flight: usize, until: Until) -> anyhow::Result<Done> {
        let (cpu, begun) = (cpu_seconds(), Instant::now());
        let (runs, latency_us) = tokio::task::block_in_place(|| self.drive(in_flight, &until))?;
        let journal = begun.elapsed();
        wait::run(&self.config, &*self.engine.log, NAMESPACE, WAIT_AT_MOST).await?;
        let elapsed = begun.elapsed();
        let behind_s = (elapsed - journal).as_secs_f64();
        Ok(Done { runs, elapsed_s: elapsed.as_secs_f64(), behind_s, cpu_s: cpu_seconds() - cpu, latency_us })
    }

    fn drive(&mut self, in_flight: usize, until: &Until) -> anyhow::Result<(usize, Histogram<u64>)> {
        let mut latency_us = Histogram::new(3)?;
        let mut under_way: BTreeMap<Vec<u8>, Instant> = BTreeMap::new();
        let (begun, mut begun_runs, mut runs) = (Instant::now(), 0, 0);
        loop {
            let may_start = match until {
                Until::Runs(most) => most - begun_runs,
                Until::Elapsed(time) if begun.elapsed() < *time => usize::MAX,
                Until::Elapsed(_) => 0,
            };
            let count = may_start.min(in_flight - under_way.len());
            begun_runs += count;
            self.start_runs(count, &mut under_way)?;
            if under_way.is_empty() {
                return Ok((runs, latency_us));
            }
            ensure!(begun.elapsed() < WAIT_AT_MOST, "{} runs have not ended", under_way.len());
            self.engine.log.wait(&self.ends, Duration::from_millis(100))?;
            for at in 0..self.ends.len() {
                let (id, from) = self.ends[at];
                let fetched = self.engine.log.fetch(id, from, FETCH_BYTES)?;
                for record in fetched.records() {
                    let Some(value) = record.value else { continue };
                    let JournalRecord::Fact(fact) = schema::decode(value)? else { continue };
                    ensure!(!fact.body.starts_with("{\"run_paused\""), "a run was paused: {}", fact.body);
                    if fact.body.starts_with("{\"run_ended\"")
                        && let Some(start) = under_way.remove(record.key)
                    {
                        latency_us.record(start.elapsed().as_micros() as u64)?;
                        runs += 1;
                    }
                }
                self.ends[at].1 = fetched.next;
            }
        }
    }

    fn start_runs(&mut self, count: usize, under_way: &mut BTreeMap<Vec<u8>, Instant>) -> anyhow::Result<()> {
        if count == 0 {
            return Ok(());
        }
        let partitions = self.topics.count(Topic::Commands);
        let mut batches: Vec<BatchBuilder> = (0..partitions).map(|_| BatchBuilder::new()).collect();
        let now = Instant::now();
        for _ in 0..count {
            self.started += 1;
            let key = Subject::user(&format!("runner-{}", self.started)).key(&self.tenant);
            let cause = format!("bench-{}", self.started);
            let (entry, profile) = (json!({}), json!({}));
            let input = Input::Start { workflow: "five".to_owned(), cause, entry, profile, depth: 0, parent: None };
            let body = serde_json::to_string(&input)?;
            let record = CommandsRecord::Command(Command { kind: input.kind(), at: None, depth: 0, body: &body });
            let partition = partition_of(key.as_bytes(), partitions).0 as usize;
            batches[partition].push_with(key.as_bytes(), Millis(0), |buffer| schema::encode(&record, buffer))?;
            under_way.insert(key.as_bytes().to_vec(), now);
        }
        let parts = self.topics.partitions(Topic::Commands).zip(batches).filter(|(_, batch)| !batch.is_empty());
        let batches = parts.map(|(partition, batch)| (partition, batch.build())).collect();
        // Not waited for: its runs cannot end before it is durable.
        drop(Arc::clone(&self.engine.log).append(Transaction { batches, commits: Vec::new() })?);
        Ok(())
    }
}
