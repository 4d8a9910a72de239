//! `workflows.long.*`: a run with a million facts, killed with SIGKILL and started again, beside a run of ten: how soon it goes on and what
//! the process then holds.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use super::figure::{FSYNC, Figure};
use super::load::{self, Pace, Request};
use super::{on_own_thread, recovery};
use crate::config::Config;

/// Each makes five facts: the wait is matched and left, the loop entered and left, the next wait begun.
const SIGNALS: u64 = 200_000;
const SIGNALS_SHORT: u64 = 2;
const CONNECTIONS: usize = 64;
/// Times each is killed and started again.
const RESTARTS: usize = 9;
const NUMBER: &str = "0000000000000000";
const LOAD_AT_MOST: Duration = Duration::from_secs(10);
const SUBJECT: &str = "u:long";

const LONG: &str = r#"
[workflow]
name = "long"
[workflow.entry]
command = true

[[node]]
name = "rounds"
kind = "loop"
most = 10000000
body = "rest"
next = "over"

[[node]]
name = "rest"
kind = "wait_for"
any = [{ signal = "go" }]
timeout = "365d"
next = "rounds"
on_timeout = "over"

[[node]]
name = "over"
kind = "exit"
outcome = "done"
"#;

struct Recovered {
    seconds: f64,
    resident: u64,
}

pub async fn run(dir: &Path, print: &dyn Fn(&Figure)) -> anyhow::Result<()> {
    let folders = [dir.join("short"), dir.join("long")];
    let runs = [lived(&folders[0], SIGNALS_SHORT).await?, lived(&folders[1], SIGNALS).await?];
    // In turns, so that what else the machine does meets both.
    let mut seen = [Vec::new(), Vec::new()];
    for _ in 0..RESTARTS {
        for (nth, seen) in seen.iter_mut().enumerate() {
            seen.push(recovered(&folders[nth], &runs[nth]).await?);
        }
    }
    let [short, long] = seen.map(median);
    let setup = format!(
        "a run of {} facts, stored, kill -9, until it has decided its next signal; floor: a run of {} facts; medians of {RESTARTS} in turns",
        5 * SIGNALS,
        5 * SIGNALS_SHORT
    );
    print(&Figure::new("workflows.long.recovery", long.seconds, "s", FSYNC, setup.clone()).against(short.seconds));
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    print(&Figure::new("workflows.long.memory", megabytes(long.resident), "MB resident", FSYNC, setup).against(megabytes(short.resident)));
    Ok(())
}

fn median(mut seen: Vec<Recovered>) -> Recovered {
    let middle = seen.len() / 2;
    seen.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    let seconds = seen[middle].seconds;
    seen.sort_by_key(|one| one.resident);
    Recovered { seconds, resident: seen[middle].resident }
}

/// Begins a run, sends it so many signals and kills its server; the run's id.
async fn lived(data: &Path, signals: u64) -> anyhow::Result<String> {
    std::fs::create_dir_all(data)?;
    let (mut child, address) = recovery::start(data)?;
    let url = format!("http://{address}");
    let client = reqwest::Client::new();
    let published = client.post(format!("{url}/api/v1/workflows")).json(&json!({ "text": LONG })).send().await?;
    ensure!(published.status().is_success(), "{}", published.text().await?);
    let body = json!({ "workflow": "long", "subject": SUBJECT, "id": "bench" });
    let started = client.post(format!("{url}/api/v1/campaigns/create?wait=30")).json(&body).send().await?;
    ensure!(started.status().is_success(), "{}", started.text().await?);
    let started: serde_json::Value = started.json().await?;
    let run = started["run"].as_str().context("a start's answer names its run")?.to_owned();
    let sent = Arc::new(AtomicU64::new(0));
    while sent.load(std::sync::atomic::Ordering::Relaxed) < signals {
        let left = signals - sent.load(std::sync::atomic::Ordering::Relaxed);
        if left <= CONNECTIONS as u64 {
            for _ in 0..left {
                signal(&client, address, &run, "").await?;
                sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            break;
        }
        let (request, sent) = (request(address, &run), Arc::clone(&sent));
        let measured =
            on_own_thread(move || async move { load::run(address, &request, CONNECTIONS, Pace::Closed, LOAD_AT_MOST, &sent).await })
                .await?;
        ensure!(measured.refused == 0, "{} signals were refused", measured.refused);
    }
    signal(&client, address, &run, "?wait=30").await?;
    // Until the states are stored: what was decided since is decided again, as much for a run of ten facts under the same load.
    tokio::time::sleep(Duration::from_millis(Config::default().stream.flush_age_ms_max as u64 * 2)).await;
    child.kill()?;
    Ok(run)
}

/// From the start on what a killed server left until the run has decided its next signal; killed again.
async fn recovered(data: &Path, run: &str) -> anyhow::Result<Recovered> {
    let client = reqwest::Client::new();
    let killed = Instant::now();
    let (mut child, address) = recovery::start(data)?;
    while signal(&client, address, run, "?wait=30").await.is_err() {
        ensure!(killed.elapsed() < Duration::from_secs(120), "the run does not go on");
    }
    let seconds = killed.elapsed().as_secs_f64();
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", child.id()))?;
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).context("a process has pages")?;
    child.kill()?;
    Ok(Recovered { seconds, resident: pages * 4096 })
}

async fn signal(client: &reqwest::Client, address: SocketAddr, run: &str, wait: &str) -> anyhow::Result<()> {
    let body = json!({ "subject": SUBJECT, "name": "go", "id": uuid::Uuid::new_v4().to_string() });
    let answer = client.post(format!("http://{address}/api/v1/campaigns/{run}/signal{wait}")).json(&body).send().await?;
    ensure!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await?);
    Ok(())
}

/// A signal whose id is a running number.
fn request(address: SocketAddr, run: &str) -> Request {
    let body = format!(r#"{{"subject":"{SUBJECT}","name":"go","id":"{NUMBER}"}}"#);
    let head = format!(
        "POST /api/v1/campaigns/{run}/signal HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let place = head.len() + body.find(NUMBER).expect("it is there");
    Request { bytes: (head + &body).into_bytes(), patches: vec![place], users: Vec::new(), users_max: 1, acknowledged: None }
}
