//! `spine.*` and `api.c1000`: everything in one process, HTTP to SQL, with the load beside it on the same two cores.
//!
//! Sustained is not the fastest burst: the load stops sending whenever more than [`BACKLOG_MAX`] records wait anywhere behind it, and the
//! time counts until the last record is in SQL.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::figure::{FSYNC, Figure};
use super::load::{self, Pace, Shape};
use super::on_own_thread;
use crate::app::{Engine, Server, World};
use crate::cli::wait;
use crate::config::{Config, DEVELOPMENT_WRITE_KEY};
use crate::domain::{Namespace, TenantId};
use crate::projections::Reader;

const CONNECTIONS: usize = 16;
const BATCH: usize = 50;
const EVENT_BYTES: usize = 400;
const USERS: u64 = 50_000;
/// Records that may wait between acknowledgement and SQL before the load pauses.
const BACKLOG_MAX: u64 = 60_000;
const LOOK_EVERY: Duration = Duration::from_millis(5);
const WAIT_AT_MOST: Duration = Duration::from_secs(120);
const NAMESPACE: &str = "main";

/// A server on a folder of its own, with the default topology and no flood limit (the load's people are few and busy).
pub async fn serve(dir: &Path) -> anyhow::Result<(Server, Config)> {
    let mut config = Config::default();
    config.data.dir = dir.to_owned();
    config.server.listen = "127.0.0.1:0".to_owned();
    config.topology.default = without_flood_limit(dir)?;
    let starting = config.clone();
    let engine = tokio::task::spawn_blocking(move || Engine::start(&starting)).await??;
    Ok((Server::start(engine, None).await?, config))
}

fn without_flood_limit(dir: &Path) -> anyhow::Result<String> {
    let shipped = crate::stream::topology::SHIPPED.iter().find(|(name, _)| *name == "spine").expect("it is shipped").1;
    let mut table: toml::Table = shipped.parse()?;
    let intake = table.entry("intake").or_insert_with(|| toml::Value::Table(toml::Table::new()));
    let flood: toml::Table = "flood = { events_per_second = 0 }".parse()?;
    intake.as_table_mut().expect("intake is a table").extend(flood);
    let path = dir.join("bench-topology.toml");
    std::fs::write(&path, table.to_string())?;
    Ok(path.display().to_string())
}

fn backlog(world: &World) -> u64 {
    let folds: u64 = world.status().iter().map(|partition| partition.lag_records()).sum();
    folds + world.projection_lag()
}

/// `spine.sustained`, then `spine.visible` at half of its rate.
pub async fn run(dir: &Path, only: &dyn Fn(&str) -> bool, time: Duration, print: &dyn Fn(&Figure)) -> anyhow::Result<()> {
    let (server, config) = serve(dir).await?;
    let address = server.address;
    let numbers = Arc::new(AtomicU64::new(0));
    let paused = Arc::new(AtomicBool::new(false));
    // `spine.visible` by itself needs only a rate to halve.
    let sustained = if only("spine.sustained") { time } else { time.min(super::PHASE_MAX) };
    let shape = Shape { events: BATCH, event_bytes: EVENT_BYTES, gzip: false, users: USERS };
    let request = load::batch_request(&address.to_string(), DEVELOPMENT_WRITE_KEY, shape);
    let cpu = super::folds::cpu_seconds();
    let started = Instant::now();
    let loading = {
        let (request, numbers, paused) = (request.clone(), Arc::clone(&numbers), Arc::clone(&paused));
        tokio::spawn(on_own_thread(move || async move {
            load::run_gated(address, &request, CONNECTIONS, Pace::Closed, sustained, &numbers, Some(&paused)).await
        }))
    };
    while !loading.is_finished() {
        let world = server.engine.world(NAMESPACE).expect("main always runs");
        paused.store(backlog(world) > BACKLOG_MAX, Ordering::Relaxed);
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let measured = loading.await??;
    wait::run(&config, &*server.engine.log, NAMESPACE, WAIT_AT_MOST).await?;
    let elapsed = started.elapsed().as_secs_f64();
    let events = (measured.requests * BATCH as u64) as f64;
    let rate = events / elapsed;
    if only("spine.sustained") {
        let setup = format!(
            "{CONNECTIONS} connections, batches of {BATCH}, {USERS} users, {} s and then until nothing lagged ({elapsed:.1} s in all), {:.1} CPU s per million events with the load",
            sustained.as_secs(),
            (super::folds::cpu_seconds() - cpu) / (events / 1e6),
        );
        print(&Figure::new("spine.sustained", rate, "events/s", FSYNC, setup));
    }
    if only("spine.visible") {
        let visible = visible(&server, &config, &request, rate / 2.0, time.min(super::PHASE_MAX), &numbers).await?;
        let setup = format!(
            "open loop at {:.0} events/s, {} batches followed, p50 {:.0} ms",
            rate / 2.0,
            visible.len(),
            visible.value_at_quantile(0.5) as f64 / 1e3
        );
        print(&Figure::new("spine.visible", visible.value_at_quantile(0.99) as f64 / 1e3, "ms p99", FSYNC, setup));
    }
    server.stop().await?;
    Ok(())
}

/// Microseconds from an acknowledgement to the row, one batch followed after the other.
async fn visible(
    server: &Server,
    config: &Config,
    request: &load::Request,
    rate: f64,
    time: Duration,
    numbers: &Arc<AtomicU64>,
) -> anyhow::Result<Histogram<u64>> {
    let address = server.address;
    let reader = Reader::new(crate::app::read_models(config)?, &Namespace::new(NAMESPACE)?);
    let tenant = TenantId::new("default")?;
    let (told, mut acknowledged) = tokio::sync::mpsc::unbounded_channel();
    let mut request = request.clone();
    request.acknowledged = Some(told);
    let loading = {
        let numbers = Arc::clone(numbers);
        tokio::spawn(on_own_thread(move || async move {
            let pace = Pace::Open(rate / BATCH as f64);
            load::run(address, &request, CONNECTIONS, pace, time, &numbers).await
        }))
    };
    let mut seen = Histogram::new(3)?;
    while let Some((number, at)) = acknowledged.recv().await {
        let message = format!("bench-{number:016}");
        while !reader.is_visible(&tenant, &message).await? {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        seen.record(at.elapsed().as_micros() as u64)?;
        while acknowledged.try_recv().is_ok() {}
    }
    loading.await??;
    Ok(seen)
}

/// `api.c1000`: many open connections, writes and profile reads mixed.
pub async fn api(dir: &Path, time: Duration, print: &dyn Fn(&Figure)) -> anyhow::Result<()> {
    const OPEN: usize = 1_000;
    const RATE: f64 = 2_000.0;
    let (server, config) = serve(dir).await?;
    let address = server.address;
    let numbers = Arc::new(AtomicU64::new(0));
    let shape = Shape { events: 1, event_bytes: EVENT_BYTES, gzip: false, users: 10_000 };
    let track = load::batch_request(&address.to_string(), DEVELOPMENT_WRITE_KEY, shape);
    // So that there is somebody to read.
    let (first, count) = (track.clone(), Arc::clone(&numbers));
    on_own_thread(move || async move { load::run(address, &first, 64, Pace::Closed, Duration::from_secs(3), &count).await }).await?;
    wait::run(&config, &*server.engine.log, NAMESPACE, WAIT_AT_MOST).await?;
    let read = load::profile_request(&address.to_string(), 10_000);
    let measured =
        on_own_thread(move || async move { load::run_mixed(address, &[(track, 9), (read, 1)], OPEN, RATE, time, &numbers).await }).await?;
    let setup = format!(
        "{OPEN} connections, {RATE} requests/s open loop, 9 track to 1 profile, {} s, p50 {:.1} ms, {} refused",
        time.as_secs(),
        measured.millis_at(0.5),
        measured.refused,
    );
    print(&Figure::new("api.c1000", measured.millis_at(0.99), "ms p99", FSYNC, setup));
    server.stop().await?;
    Ok(())
}
