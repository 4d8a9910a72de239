//! `flywheel send`: events from NDJSON or CSV to a server, in order per person, with progress, until every one is acknowledged.
//!
//! Reading and mapping are in `read`; the HTTP side is `super::sender`. A row that cannot be read stops the run before anything behind
//! it is sent, with its line and with how many rows before it are there; nothing is skipped silently.

mod read;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use super::args;
use super::output::{grouped, outln, print_json};
use super::sender::{Options, Sender};
use crate::config::DEVELOPMENT_WRITE_KEY;
use crate::domain::Millis;

pub use read::{Mapping, Source, events};

/// How often the progress line changes.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

pub async fn run(send: &args::Send, url: String, namespace_time: Option<&str>, json: bool) -> anyhow::Result<()> {
    let mapping = Mapping::parse(&send.map)?;
    let source = Source::open(&send.file, send.format)?;
    let options = Options {
        url: url.trim_end_matches('/').to_owned(),
        write_key: send.write_key.clone().unwrap_or_else(|| DEVELOPMENT_WRITE_KEY.to_owned()),
        batch: send.batch as usize,
        connections: usize::from(send.connections),
        historical: send.historical,
        acknowledgements: None,
    };
    let started = Instant::now();
    let bar = indicatif::ProgressBar::new_spinner().with_style(
        indicatif::ProgressStyle::with_template("{spinner} {human_pos} acknowledged, {rate} a second, {elapsed}")
            .expect("the template is valid")
            .with_key("rate", |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                // A progress line that cannot be written is none.
                let _ = out.write_str(&grouped(state.per_sec() as u64));
            }),
    );
    bar.enable_steady_tick(PROGRESS_EVERY);
    let mut sender = Sender::start(&options)?;
    let mut newest = Millis::MIN;
    let progress = sender.progress.clone();
    let acknowledged = || progress.acknowledged.load(Ordering::Relaxed);
    for (before, event) in events(source, &mapping).enumerate() {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                sender.finish().await.map_err(|failure| failure.context(so_far(acknowledged())))?;
                bar.finish_and_clear();
                return Err(error.context(stopped(before)));
            }
        };
        newest = newest.max(event.time.unwrap_or(Millis::MIN));
        sender.send(&event.person, event.json).await.map_err(|failure| failure.context(so_far(acknowledged())))?;
        bar.set_position(acknowledged());
    }
    let sent = sender.finish().await.map_err(|failure| failure.context(so_far(acknowledged())))?;
    bar.finish_and_clear();
    if let Some(stated) = &send.state_time {
        let time = match stated.as_str() {
            "end" if newest == Millis::MIN => bail!("--state-time end: no event had a timestamp"),
            "end" => newest + 1,
            text => Millis::parse(text).with_context(|| format!("--state-time {text:?} is no RFC 3339 instant"))?,
        };
        let namespace = namespace_time.context("--state-time needs --namespace: the one that the write key belongs to")?;
        state_time(&options.url, send.api_key.as_deref(), namespace, time).await?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let retries = progress.retries.load(Ordering::Relaxed);
    if json {
        print_json(&json!({"acknowledged": sent, "seconds": seconds, "retries": retries}));
    } else {
        outln!(
            "{} events acknowledged in {seconds:.1} s ({} a second, {retries} retries)",
            grouped(sent),
            grouped((sent as f64 / seconds) as u64)
        );
    }
    Ok(())
}

/// Why it is safe to run again.
const AGAIN: &str = "run it again: for at least 24 hours what was acknowledged is recognised by its message id and not counted twice";

/// A row cannot be read; `before` rows before it could.
fn stopped(before: usize) -> String {
    match before {
        0 => "nothing was sent: the first row cannot be read".to_owned(),
        rows => format!("{} rows were sent and acknowledged, then one cannot be read; correct it and {AGAIN}", grouped(rows as u64)),
    }
}

/// The server is at fault, after this many.
fn so_far(acknowledged: u64) -> String {
    match acknowledged {
        0 => "nothing was acknowledged".to_owned(),
        events => format!("{} events were acknowledged, then it failed; {AGAIN}", grouped(events)),
    }
}

/// Tells the server that everything before `time` has been sent. Without an API key a server takes this from its own machine only.
pub async fn state_time(url: &str, api_key: Option<&str>, namespace: &str, time: Millis) -> anyhow::Result<()> {
    let url = format!("{url}/v1/namespaces/{namespace}/time");
    let body = json!({"time": time.to_rfc3339().context("a time outside of the calendar")?});
    let request = reqwest::Client::new().post(&url).json(&body);
    let request = match api_key {
        Some(key) => request.bearer_auth(key),
        None => request,
    };
    let answer = request.send().await?;
    if answer.status() == reqwest::StatusCode::UNAUTHORIZED {
        bail!(
            "the events are acknowledged, but {url} wants --api-key with that of an [[api_keys]] entry of this namespace to state its time"
        );
    }
    if !answer.status().is_success() {
        bail!("{url} answered {}: {}", answer.status(), answer.text().await.unwrap_or_default());
    }
    Ok(())
}
