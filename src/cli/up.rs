//! `flywheel up`: serve until told to stop, then stop in order.

use std::io::Write;

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{Edge, Opened, check_read_models, takes_development_key};
use crate::config::Config;
use crate::{log, projections, stream};

/// Upper bounds of latency histograms, in seconds. Buckets, unlike quantiles, add up over servers.
const LATENCY_BUCKETS: [f64; 12] = [0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 5.0];

/// The same for one sync of the disk, which a good one does in a fifth of a millisecond.
const SYNC_BUCKETS: [f64; 12] = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0];

pub async fn run(config: &Config) -> anyhow::Result<()> {
    let metrics = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_BUCKETS)?;
    let metrics = metrics.set_buckets_for_metric(Matcher::Full(log::embedded::metrics::SYNC_SECONDS.to_owned()), &SYNC_BUCKETS)?;
    let metrics = metrics.install_recorder().context("metrics")?;
    log::embedded::metrics::describe();
    stream::metrics::describe();
    projections::metrics::describe();
    let asked = asked_to_stop()?;
    check_read_models(config).await?;
    let opening = config.clone();
    let opened = tokio::task::spawn_blocking(move || Opened::open(&opening)).await??;
    let namespaces = opened.namespaces();
    // Acknowledging needs the log only: whoever sends need not wait for state and folds.
    let edge = Edge::open(&opened.ground, &namespaces, Some(metrics)).await?;
    let names: Vec<&str> = namespaces.iter().map(|(namespace, _)| namespace.as_str()).collect();
    announce(format_args!("flywheel {} on {}; namespaces: {}", env!("CARGO_PKG_VERSION"), config.data.dir.display(), names.join(", ")));
    if let Some(key) = takes_development_key(config) {
        announce(format_args!("no source is configured: the write key is {key:?}, from this machine only"));
    }
    announce(format_args!("listening on http://{}", edge.address));
    edge.run(opened, asked).await?;
    announce(format_args!("stopped; everything acknowledged is on disk"));
    Ok(())
}

/// Resolves on SIGINT or SIGTERM.
pub fn asked_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Whoever started a server may have stopped listening; it serves all the same.
fn announce(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
