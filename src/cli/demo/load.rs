//! Sends the history to a server in this process, month by month, and measures what it sustained.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use super::dataset::History;
use super::{Scene, campaigns};
use crate::app::{Engine, Server, read_models};
use crate::cli::send::state_time;
use crate::cli::sender::{Options, Sender};
use crate::cli::wait;
use crate::config::Config;
use crate::domain::Millis;
use crate::projections::{self, Limits, Reader};

const CONNECTIONS: usize = 8;
const WAIT_AT_MOST: Duration = Duration::from_secs(300);
/// How often the sampler looks for its event in SQL: the measurement's resolution.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Batches followed at once, so that looking costs little.
const FOLLOWED_MAX: usize = 32;

/// What loading measured.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub seconds: f64,
    pub events_per_second: f64,
    /// From acknowledgement to visible in SQL, milliseconds.
    pub visible_p50_ms: f64,
    pub visible_p99_ms: f64,
    pub samples: u64,
}

pub async fn run(
    config: &Config,
    engine: Engine,
    scene: &Scene,
    history: &History,
    batch: usize,
    reader: &Reader,
) -> anyhow::Result<Loaded> {
    let log = std::sync::Arc::clone(&engine.log);
    let server = Server::start(engine, None).await?;
    let (acknowledged, samples) = mpsc::unbounded_channel();
    let sampler = tokio::spawn(sample(samples, reader.clone(), scene.clone()));
    let options = Options {
        url: format!("http://{}", server.address),
        write_key: scene.write_key.clone(),
        batch,
        connections: CONNECTIONS,
        historical: false,
        acknowledgements: Some(acknowledged),
    };
    // What an earlier run was cut short over is folded first: whatever it had acknowledged is not sent again, however long ago that was.
    wait::run(config, &*log, scene.namespace.as_str(), WAIT_AT_MOST).await?;
    let applied = applied(config, scene, history).await?;
    let missing: Vec<_> = history.events.iter().filter(|event| !applied.contains(&event.message_id)).collect();
    let bar = ProgressBar::new(missing.len() as u64);
    bar.set_style(ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {per_sec}").expect("the template is valid"));
    let started = Instant::now();
    let mut sender = Sender::start(&options)?;
    let mut month = String::new();
    let mut has_campaign = false;
    for event in &missing {
        let this = month_of(event.time);
        if this != month {
            sender.flush().await?;
            if !month.is_empty() {
                state_time(&options.url, Some(&scene.write_key), scene.namespace.as_str(), first_of(&this)).await?;
                if !has_campaign {
                    // It begins where time then is.
                    wait::run(config, &*log, scene.namespace.as_str(), WAIT_AT_MOST).await?;
                    campaigns::start_graph(&options.url, scene).await?;
                    has_campaign = true;
                }
            }
            bar.set_message(this.clone());
            month = this;
        }
        sender.send(&event.user, event.json.clone()).await?;
        bar.set_position(sender.progress.acknowledged.load(Ordering::Relaxed));
    }
    sender.finish().await?;
    let url = options.url.clone();
    // The last holder of the channel: the sampler ends when it has seen what was acknowledged.
    drop(options);
    state_time(&url, Some(&scene.write_key), scene.namespace.as_str(), history.end).await?;
    wait::run(config, &*log, scene.namespace.as_str(), WAIT_AT_MOST).await?;
    let seconds = started.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let visible = sampler.await??;
    settle(config, scene, &server).await?;
    server.stop().await?;
    Ok(Loaded {
        seconds,
        events_per_second: missing.len() as f64 / seconds,
        visible_p50_ms: visible.value_at_quantile(0.5) as f64 / 1_000.0,
        visible_p99_ms: visible.value_at_quantile(0.99) as f64 / 1_000.0,
        samples: visible.len(),
    })
}

/// The message ids that SQL has.
async fn applied(config: &Config, scene: &Scene, history: &History) -> anyhow::Result<HashSet<String>> {
    let limits = Limits { time_ms_max: WAIT_AT_MOST.as_millis() as u64, rows_max: 2 * history.events.len() };
    let dir = read_models(config)?;
    let found = match projections::query(&dir, &scene.namespace, "SELECT message_id FROM events", limits).await {
        Err(projections::Error::Missing(_)) => return Ok(HashSet::new()),
        found => found?,
    };
    let text = |value| match value {
        projections::Value::Text(text) => Some(text),
        _ => None,
    };
    Ok(found.rows.into_iter().flatten().filter_map(text).collect())
}

/// Only says that the history has ended, and waits until that is in the tables.
pub async fn end(config: &Config, engine: Engine, scene: &Scene, history: &History) -> anyhow::Result<()> {
    let log = std::sync::Arc::clone(&engine.log);
    let server = Server::start(engine, None).await?;
    let url = format!("http://{}", server.address);
    state_time(&url, Some(&scene.write_key), scene.namespace.as_str(), history.end).await?;
    wait::run(config, &*log, scene.namespace.as_str(), WAIT_AT_MOST).await?;
    settle(config, scene, &server).await?;
    server.stop().await?;
    Ok(())
}

async fn settle(config: &Config, scene: &Scene, server: &Server) -> anyhow::Result<()> {
    let world = server.engine.world(scene.namespace.as_str()).context("the demonstration's namespace runs")?;
    campaigns::settle(config, scene, world).await
}

fn month_of(time: Millis) -> String {
    time.to_rfc3339().unwrap_or_default().chars().take(7).collect()
}

fn first_of(month: &str) -> Millis {
    Millis::parse(&format!("{month}-01")).expect("a month of the calendar")
}

/// Follows acknowledged batches, in their order, until each can be read in SQL. Beyond [`FOLLOWED_MAX`] at once they are passed over.
async fn sample(
    mut acknowledged: mpsc::UnboundedReceiver<(String, Instant)>,
    reader: Reader,
    scene: Scene,
) -> anyhow::Result<Histogram<u64>> {
    let mut seen = Histogram::new(3)?;
    let mut followed: VecDeque<(String, Instant)> = VecDeque::new();
    let mut is_open = true;
    while is_open || !followed.is_empty() {
        loop {
            match acknowledged.try_recv() {
                Ok((event, at)) if followed.len() < FOLLOWED_MAX => {
                    let event: serde_json::Value = serde_json::from_str(&event)?;
                    followed.push_back((event["messageId"].as_str().unwrap_or_default().to_owned(), at));
                }
                Ok(_) => {}
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    is_open = false;
                    break;
                }
            }
        }
        while let Some((message, at)) = followed.front() {
            if !reader.is_visible(&scene.tenant, message).await.unwrap_or(false) {
                break;
            }
            seen.record(at.elapsed().as_micros() as u64)?;
            followed.pop_front();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(seen)
}
