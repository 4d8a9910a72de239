//! `recovery.*`: a server of its own process, killed with SIGKILL under load, started again on the same folder.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::figure::{FSYNC, Figure};
use super::folds::{People, When, write_history_in};
use super::load::{self, Pace, Shape};
use super::on_own_thread;
use crate::app::Engine;
use crate::cli::wait;
use crate::config::{Config, DEVELOPMENT_WRITE_KEY};
use crate::env::Clock;
use crate::env::fs::RealFs;
use crate::log::embedded::EmbeddedReader;

const CONNECTIONS: usize = 16;
const BATCH: usize = 10;
/// Everyone has a stored profile and a row before the load begins.
const USERS: u32 = 1_000_000;
/// A rate that this machine keeps up with, so that what is measured is recovery and not a backlog.
const EVENTS_PER_SECOND: f64 = 4_000.0;
const LOAD: Duration = Duration::from_secs(8);
const WAIT_AT_MOST: Duration = Duration::from_secs(300);
const NAMESPACE: &str = "main";

pub async fn run(dir: &Path, print: &dyn Fn(&Figure)) -> anyhow::Result<()> {
    let data = dir.join("data");
    let mut config = Config::default();
    config.data.dir.clone_from(&data);
    seed(&data, &config).await?;

    let (mut child, address) = start(&data)?;
    let numbers = Arc::new(AtomicU64::new(0));
    let shape = Shape { events: BATCH, event_bytes: 400, gzip: false, users: u64::from(USERS) };
    let request = load::batch_request(&address.to_string(), DEVELOPMENT_WRITE_KEY, shape);
    let loading = {
        let numbers = Arc::clone(&numbers);
        let pace = Pace::Open(EVENTS_PER_SECOND / BATCH as f64);
        // Ends with an error when the server dies under it, as meant.
        tokio::spawn(on_own_thread(move || async move { load::run(address, &request, CONNECTIONS, pace, LOAD * 2, &numbers).await }))
    };
    tokio::time::sleep(LOAD).await;
    child.kill()?;
    drop(loading.await);

    let killed = Instant::now();
    let (mut child, address) = start(&data)?;
    let request = load::batch_request(&address.to_string(), DEVELOPMENT_WRITE_KEY, Shape { events: 1, ..shape });
    let first = on_own_thread(move || async move {
        load::run(address, &request, 1, Pace::Closed, Duration::from_millis(1), &Arc::new(AtomicU64::new(1 << 40))).await
    });
    first.await?;
    let acknowledged = killed.elapsed().as_secs_f64();
    let log = EmbeddedReader::open(Arc::new(RealFs), &crate::app::Folder::new(&data).log())?;
    let caught_up = wait::run(&config, &log, NAMESPACE, WAIT_AT_MOST).await;
    let whole = killed.elapsed().as_secs_f64();
    child.kill()?;
    caught_up?;
    let setup = format!("{USERS} users; kill -9 under an open loop of {EVENTS_PER_SECOND} events/s over all of them");
    print(&Figure::new("recovery.ack", acknowledged, "s", FSYNC, setup.clone()));
    print(&Figure::new("recovery.caught_up", whole, "s", FSYNC, format!("{setup}; until everything acknowledged is in SQL")));
    Ok(())
}

/// One event of everyone, folded and projected, then a clean stop.
async fn seed(data: &Path, config: &Config) -> anyhow::Result<()> {
    let dir = data.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&dir)?;
        let when = When::Before(crate::env::SystemClock.now());
        write_history_in(NAMESPACE, &dir, People::Everyone, when, u64::from(USERS))?.log.close();
        anyhow::Ok(())
    });
    written.await??;
    let config = config.clone();
    let starting = config.clone();
    let engine = tokio::task::spawn_blocking(move || Engine::start(&starting)).await??;
    wait::run(&config, &*engine.log, NAMESPACE, WAIT_AT_MOST).await?;
    tokio::task::spawn_blocking(move || engine.stop()).await??;
    Ok(())
}

/// Starts this very binary and waits until it listens.
/// A server of its own process, which never outlives who started it.
pub(super) struct Served(Child);

impl Served {
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// SIGKILL, and until it is gone.
    pub fn kill(&mut self) -> std::io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.kill();
    }
}

pub(super) fn start(data: &Path) -> anyhow::Result<(Served, SocketAddr)> {
    start_with(data, Path::new("/dev/null"))
}

/// The same with a configuration.
pub(super) fn start_with(data: &Path, config: &Path) -> anyhow::Result<(Served, SocketAddr)> {
    let mut served = Command::new(std::env::current_exe()?)
        .arg("--config")
        .arg(config)
        .arg("--data")
        .arg(data)
        .args(["up", "--listen", "127.0.0.1:0"])
        .env("FLYWHEEL_OBSERVE__LOG_LEVEL", std::env::var("FLYWHEEL_OBSERVE__LOG_LEVEL").unwrap_or_else(|_| "error".to_owned()))
        .stdout(Stdio::piped())
        .spawn()
        .map(Served)?;
    let mut lines = BufReader::new(served.0.stdout.take().context("stdout is piped")?).lines();
    let address = loop {
        let line = lines.next().context("the server ended before it listened")??;
        if let Some(url) = line.strip_prefix("listening on http://") {
            break url.trim().parse()?;
        }
    };
    // Keeps the pipe open and empty.
    std::thread::spawn(move || lines.for_each(drop));
    Ok((served, address))
}
