//! `workflows.recovery.*`: a server of its own process, killed with SIGKILL in the middle of 2,000 runs of five effects and started again.
//!
//! The effects are performed by an HTTP worker in this process, which outlives the server and counts each execution by its key: what was
//! executed twice is known from outside.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use axum::http::HeaderMap;
use parking_lot::Mutex;
use serde_json::json;

use super::figure::{FSYNC_LOG, Figure};
use super::workflows::{EFFECTS, result, workflow};
use super::{on_own_thread, recovery};

const RUNS: usize = 2_000;
/// Starts under way at once.
const STARTERS: usize = 32;
const EXECUTIONS: usize = RUNS * EFFECTS;
const LOOK_EVERY: Duration = Duration::from_millis(5);
const WAIT_AT_MOST: Duration = Duration::from_secs(120);

/// Executions by key, and when the last one came.
#[derive(Default)]
struct Seen {
    by_key: BTreeMap<String, u32>,
    total: usize,
}

type Shared = Arc<Mutex<Seen>>;

pub async fn run(dir: &Path, print: &dyn Fn(&Figure)) -> anyhow::Result<()> {
    let whole = measured(&dir.join("whole"), false).await?;
    let cut = measured(&dir.join("cut"), true).await?;
    let setup = format!("{RUNS} runs of {EFFECTS} effects by an HTTP worker, kill -9 when half of the effects had been executed");
    let first = cut.first_s.context("it was killed")?;
    print(&Figure::new("workflows.recovery.first", first, "s", FSYNC_LOG, format!("{setup}; until the next one was")));
    let all = format!("{setup}; from the first start to the last end, the time without a server included; floor: undisturbed");
    print(&Figure::new("workflows.recovery.all", cut.all_s, "s", FSYNC_LOG, all).against(whole.all_s));
    let twice = format!("{setup}; executions beyond one per key, of at most {} in flight", cut.in_flight);
    print(&Figure::new("workflows.recovery.twice", cut.twice as f64, "executions", FSYNC_LOG, twice));
    Ok(())
}

struct Measured {
    /// From the kill to the next execution.
    first_s: Option<f64>,
    all_s: f64,
    twice: usize,
    /// Executed at the kill, and not yet answered by a result that is on disk, at most.
    in_flight: usize,
}

async fn measured(data: &Path, is_cut: bool) -> anyhow::Result<Measured> {
    std::fs::create_dir_all(data)?;
    let seen = Shared::default();
    let url = worker(&seen)?;
    let config = data.with_extension("toml");
    std::fs::write(&config, format!("[effects.workers.bench]\nurl = {}\n", json!(url)))?;
    let (mut child, address) = recovery::start_with(data, &config)?;
    let client = reqwest::Client::new();
    let published =
        client.post(format!("http://{address}/api/v1/workflows")).json(&json!({ "text": workflow()?.canonical })).send().await?;
    ensure!(published.status().is_success(), "{}", published.text().await?);
    let begun = Instant::now();
    let mut starting = tokio::task::JoinSet::new();
    for starter in 0..STARTERS {
        let client = client.clone();
        starting.spawn(async move {
            for number in (starter..RUNS).step_by(STARTERS) {
                let body = json!({ "workflow": "five", "user_id": format!("runner-{number}"), "id": format!("bench-{number}") });
                let answer = client.post(format!("http://{address}/api/v1/campaigns/create")).json(&body).send().await?;
                ensure!(answer.status().is_success(), "{}", answer.text().await?);
            }
            anyhow::Ok(())
        });
    }
    let mut first_s = None;
    let mut in_flight = 0;
    if is_cut {
        // All have been acknowledged by then, or the rest of them would be lost with good reason.
        while let Some(started) = starting.join_next().await {
            started??;
        }
        until(|| seen.lock().total >= EXECUTIONS / 2).await?;
        child.kill()?;
        let killed = Instant::now();
        let before = seen.lock().total;
        in_flight = RUNS.min(before);
        let (again, _) = recovery::start_with(data, &config)?;
        child = again;
        until(|| seen.lock().total > before).await?;
        first_s = Some(killed.elapsed().as_secs_f64());
    }
    until(|| seen.lock().by_key.len() >= EXECUTIONS).await?;
    while let Some(started) = starting.join_next().await {
        started??;
    }
    let all_s = begun.elapsed().as_secs_f64();
    child.kill()?;
    let seen = seen.lock();
    Ok(Measured { first_s, all_s, twice: seen.total - seen.by_key.len(), in_flight })
}

async fn until(reached: impl Fn() -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !reached() {
        ensure!(begun.elapsed() < WAIT_AT_MOST, "the runs do not go on");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Counts and answers every call; lives as long as the process.
fn worker(seen: &Shared) -> anyhow::Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let url = format!("http://{}/", listener.local_addr()?);
    let seen = Arc::clone(seen);
    let serve = move || async move {
        let answer = bytes::Bytes::from(result().to_string());
        let count = move |headers: HeaderMap, _: bytes::Bytes| {
            let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default().to_owned();
            let mut seen = seen.lock();
            *seen.by_key.entry(key).or_insert(0) += 1;
            seen.total += 1;
            std::future::ready(answer.clone())
        };
        let app = axum::Router::new().route("/", axum::routing::post(count));
        axum::serve(tokio::net::TcpListener::from_std(listener)?, app).await?;
        anyhow::Ok(())
    };
    tokio::spawn(on_own_thread(serve));
    Ok(url)
}
