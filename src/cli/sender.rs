//! Sends events to a server as an SDK would: batches over HTTP, each retried until it is acknowledged or refused for good.
//!
//! One person's events always travel through the same worker, in order, so that parallel sending never makes them late. Nothing is
//! dropped: a batch that is refused stops the whole run with the server's words. Reading files is `send`'s and `demo`'s business.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::output::note;
use crate::domain::partition_of;

/// Longest wait between two tries; a server that is gone for longer than [`TRIES_MAX`] of these ends the run.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
const TRIES_MAX: u32 = 30;
/// After so many, a second or two, whoever waits hears of it.
const TRIES_TOLD: u32 = 4;

/// Events a worker may hold before the reader of the file waits.
const QUEUE_EVENTS: usize = 1_000;

#[derive(Debug, Clone)]
pub struct Options {
    /// Such as `http://127.0.0.1:8080`.
    pub url: String,
    pub write_key: String,
    pub batch: usize,
    pub connections: usize,
    pub historical: bool,
    /// Hears of every acknowledged batch: its last event, and when the answer came.
    pub acknowledgements: Option<mpsc::UnboundedSender<(String, Instant)>>,
}

enum Work {
    Event(String),
    /// Send what you hold and answer once it is acknowledged.
    Flush(oneshot::Sender<()>),
}

/// Counts as they grow, for progress.
#[derive(Debug, Default)]
pub struct Progress {
    pub acknowledged: AtomicU64,
    pub retries: AtomicU64,
}

pub struct Sender {
    workers: Vec<mpsc::Sender<Work>>,
    tasks: JoinSet<anyhow::Result<()>>,
    pub progress: Arc<Progress>,
}

impl Sender {
    pub fn start(options: &Options) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).pool_max_idle_per_host(options.connections).build()?;
        let progress = Arc::new(Progress::default());
        let mut tasks = JoinSet::new();
        let mut workers = Vec::new();
        for _ in 0..options.connections {
            let (sender, receiver) = mpsc::channel(QUEUE_EVENTS);
            let poster = Poster { client: client.clone(), options: options.clone(), progress: progress.clone() };
            tasks.spawn(poster.run(receiver));
            workers.push(sender);
        }
        Ok(Self { workers, tasks, progress })
    }

    /// Queues one event's JSON; `key` decides which worker keeps its order.
    pub async fn send(&mut self, key: &str, event: String) -> anyhow::Result<()> {
        let worker = partition_of(key.as_bytes(), self.workers.len() as u32).0 as usize;
        if self.workers[worker].send(Work::Event(event)).await.is_err() {
            return self.fail().await;
        }
        Ok(())
    }

    /// Returns once everything queued so far is acknowledged.
    pub async fn flush(&mut self) -> anyhow::Result<()> {
        let mut answers = Vec::new();
        for worker in &self.workers {
            let (done, answer) = oneshot::channel();
            if worker.send(Work::Flush(done)).await.is_ok() {
                answers.push(answer);
            }
        }
        for answer in answers {
            if answer.await.is_err() {
                return self.fail().await;
            }
        }
        Ok(())
    }

    pub async fn finish(mut self) -> anyhow::Result<u64> {
        self.flush().await?;
        self.workers.clear();
        while let Some(result) = self.tasks.join_next().await {
            result??;
        }
        Ok(self.progress.acknowledged.load(Ordering::Relaxed))
    }

    /// A worker ended early: its error is the reason.
    async fn fail(&mut self) -> anyhow::Result<()> {
        self.workers.clear();
        while let Some(result) = self.tasks.join_next().await {
            result??;
        }
        bail!("a sending task ended without saying why")
    }
}

struct Poster {
    client: reqwest::Client,
    options: Options,
    progress: Arc<Progress>,
}

impl Poster {
    async fn run(self, mut work: mpsc::Receiver<Work>) -> anyhow::Result<()> {
        let mut events = Vec::with_capacity(self.options.batch);
        while let Some(item) = work.recv().await {
            match item {
                Work::Event(event) => {
                    events.push(event);
                    if events.len() >= self.options.batch {
                        self.post(&mut events).await?;
                    }
                }
                Work::Flush(done) => {
                    self.post(&mut events).await?;
                    // The waiter may have given up; that is its business.
                    let _ = done.send(());
                }
            }
        }
        self.post(&mut events).await
    }

    async fn post(&self, events: &mut Vec<String>) -> anyhow::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let mark = if self.options.historical { "\"historical\":true," } else { "" };
        let body = format!("{{{mark}\"batch\":[{}]}}", events.join(","));
        let url = format!("{}/v1/batch", self.options.url);
        let mut last = String::new();
        for attempt in 0..TRIES_MAX {
            let request = self.client.post(&url).basic_auth(&self.options.write_key, Some("")).header("content-type", "application/json");
            let wait = match request.body(body.clone()).send().await {
                Ok(answer) if answer.status().as_u16() == 200 => {
                    self.progress.acknowledged.fetch_add(events.len() as u64, Ordering::Relaxed);
                    if let (Some(told), Some(last)) = (&self.options.acknowledgements, events.pop()) {
                        // Nobody listens any more; the events are safe all the same.
                        let _ = told.send((last, Instant::now()));
                    }
                    events.clear();
                    return Ok(());
                }
                Ok(answer) => {
                    let status = answer.status();
                    let retry_after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
                    let text = answer.text().await.unwrap_or_default();
                    last = format!("{status}: {text}");
                    if status == reqwest::StatusCode::UNAUTHORIZED {
                        bail!("{url} does not take this write key ({last}); pass --write-key with that of a [[sources]] entry");
                    }
                    if status.is_client_error() && !matches!(status.as_u16(), 408 | 429) {
                        bail!("{url} refused a batch of {} events with {last}", events.len());
                    }
                    retry_after.map(Duration::from_secs)
                }
                Err(error) => {
                    last = error.to_string();
                    None
                }
            };
            self.progress.retries.fetch_add(1, Ordering::Relaxed);
            if attempt == TRIES_TOLD {
                note!("{url} took nothing in {TRIES_TOLD} tries ({last}); trying on");
            }
            let backoff = Duration::from_millis(100 << attempt.min(6)).min(BACKOFF_MAX);
            tokio::time::sleep(wait.unwrap_or(backoff)).await;
        }
        Err(anyhow::anyhow!("{last}")).context(format!("{url} took no batch in {TRIES_MAX} tries"))
    }
}
