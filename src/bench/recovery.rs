//! `recovery.*`: a server of its own process, killed with SIGKILL under load, started again on the same folder.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::figure::{FSYNC, Figure};
use super::load::{self, Pace, Shape};
use super::on_own_thread;
use crate::cli::wait;
use crate::config::{Config, DEVELOPMENT_WRITE_KEY};
use crate::env::fs::RealFs;
use crate::log::embedded::EmbeddedReader;

const CONNECTIONS: usize = 16;
const BATCH: usize = 100;
const USERS: u64 = 1_000_000;
const LOAD: Duration = Duration::from_secs(35);
const WAIT_AT_MOST: Duration = Duration::from_secs(120);

pub async fn run(dir: &Path, print: &dyn Fn(&Figure)) -> anyhow::Result<()> {
    let data = dir.join("data");
    let mut config = Config::default();
    config.data.dir.clone_from(&data);
    let (mut child, address) = start(&data)?;
    let numbers = Arc::new(AtomicU64::new(0));
    let shape = Shape { events: BATCH, event_bytes: 400, gzip: false, users: USERS };
    let request = load::batch_request(&address.to_string(), DEVELOPMENT_WRITE_KEY, shape);
    let loading = {
        let numbers = Arc::clone(&numbers);
        // Ends with an error when the server dies under it, as meant.
        tokio::spawn(on_own_thread(
            move || async move { load::run(address, &request, CONNECTIONS, Pace::Closed, LOAD * 2, &numbers).await },
        ))
    };
    tokio::time::sleep(LOAD).await;
    child.kill()?;
    child.wait()?;
    drop(loading.await);
    let sent = numbers.load(Ordering::Relaxed);

    let killed = Instant::now();
    let (mut child, address) = start(&data)?;
    let request = load::batch_request(&address.to_string(), DEVELOPMENT_WRITE_KEY, Shape { events: 1, ..shape });
    let first = on_own_thread(move || async move {
        load::run(address, &request, 1, Pace::Closed, Duration::from_millis(1), &Arc::new(AtomicU64::new(1 << 40))).await
    });
    first.await?;
    let acknowledged = killed.elapsed().as_secs_f64();
    let log = EmbeddedReader::open(Arc::new(RealFs), &crate::app::Folder::new(&data).log())?;
    let caught_up = wait::run(&config, &log, "main", WAIT_AT_MOST).await;
    let whole = killed.elapsed().as_secs_f64();
    child.kill()?;
    child.wait()?;
    caught_up?;
    let setup = format!(
        "kill -9 under a closed loop of {CONNECTIONS} connections after about {sent} events of {USERS} users in {} s",
        LOAD.as_secs()
    );
    print(&Figure::new("recovery.ack", acknowledged, "s", FSYNC, setup.clone()));
    print(&Figure::new("recovery.caught_up", whole, "s", FSYNC, format!("{setup}; until everything acknowledged is in SQL")));
    Ok(())
}

/// Starts this very binary and waits until it listens.
fn start(data: &Path) -> anyhow::Result<(Child, SocketAddr)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--config", "/dev/null", "--data"])
        .arg(data)
        .args(["up", "--listen", "127.0.0.1:0"])
        .env("FLYWHEEL_OBSERVE__LOG_LEVEL", "error")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
    let address = loop {
        let line = lines.next().context("the server ended before it listened")??;
        if let Some(url) = line.strip_prefix("listening on http://") {
            break url.trim().parse()?;
        }
    };
    // Keeps the pipe open and empty.
    std::thread::spawn(move || lines.for_each(drop));
    Ok((child, address))
}
