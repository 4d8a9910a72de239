//! `flywheel bench`: what this build does on this machine, one JSON line per figure, each beside the floor measured in the same run.
//!
//! Every line says what was done about durability and under what setup. Loads stay on loopback, bounded in count and time.

mod figure;
mod floor;
mod folds;
mod ingest;
mod interrupted;
mod load;
mod logs;
mod long;
#[cfg(feature = "postgres")]
pub mod projection;
mod read_models;
mod recovery;
mod sleepers;
mod spine;
mod workflows;

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use crate::cli::args;
use crate::cli::output::outln;
use crate::config::Config;

pub use figure::{CATALOGUE, Figure};

/// The longest that one load lasts where nothing else is said: a figure alone takes at most two minutes, its floor included.
const PHASE_MAX: Duration = Duration::from_secs(15);

pub async fn run(config: &Config, asked: &args::Bench) -> anyhow::Result<()> {
    if asked.list {
        for (name, meaning) in CATALOGUE {
            outln!("{name:<20} {meaning}");
        }
        return Ok(());
    }
    let only = |name: &str| asked.only.as_deref().is_none_or(|prefix| name.starts_with(prefix));
    let any = |prefix: &str| CATALOGUE.iter().any(|(name, _)| name.starts_with(prefix) && only(name));
    anyhow::ensure!(any(""), "there is no figure {:?}; `flywheel bench --list` names them", asked.only);
    // Beside the data folder, so that the disk is the one that serves.
    let dir = config.data.dir.with_extension("bench");
    let scratch = Scratch::new(&dir)?;
    let time = Duration::from_secs(u64::from(asked.seconds));
    if any("log.") {
        for figure in logs::run(scratch.path("logs")?.as_path(), time.min(Duration::from_secs(10)))? {
            if only(&figure.name) {
                figure.print();
            }
        }
    }
    if any("ingest.") {
        ingest::run(scratch.path("ingest")?.as_path(), &only, time.min(PHASE_MAX), &Figure::print).await?;
    }
    if any("spine.") {
        spine::run(scratch.path("spine")?.as_path(), &only, time, &Figure::print).await?;
    }
    if only("api.c1000") {
        spine::api(scratch.path("api")?.as_path(), time.min(PHASE_MAX), &Figure::print).await?;
    }
    #[cfg(feature = "postgres")]
    if only("cluster.projection") && !config.postgres.url.is_empty() {
        projection::run(&config.postgres.url).await?.print();
    }
    type Measure = fn(&Path) -> anyhow::Result<Vec<Figure>>;
    let mut folds: Vec<(&str, Measure)> = Vec::new();
    if only("features") || only("features.cpu") {
        folds.push(("features", folds::features));
    }
    if any("replay.") {
        folds.push(("replay", folds::replay));
    }
    if only("features.cold") || any("memory.") {
        folds.push(("cold", folds::cold));
    }
    if any("read_models.") {
        folds.push(("read_models", read_models::run));
    }
    for (name, measure) in folds {
        let dir = scratch.path(name)?;
        let figures = tokio::task::spawn_blocking(move || measure(&dir)).await??;
        figures.iter().filter(|figure| only(&figure.name)).for_each(Figure::print);
    }
    if any("recovery.") {
        recovery::run(scratch.path("recovery")?.as_path(), &Figure::print).await?;
    }
    workflows::run(scratch.path("workflows")?.as_path(), &only, time.min(PHASE_MAX), &Figure::print).await?;
    if any("workflows.recovery") {
        interrupted::run(scratch.path("interrupted")?.as_path(), &Figure::print).await?;
    }
    if any("workflows.long") {
        long::run(scratch.path("long")?.as_path(), &Figure::print).await?;
    }
    if any("workflows.sleeping") {
        sleepers::sleeping(scratch.path("sleeping")?.as_path(), &Figure::print).await?;
    }
    Ok(())
}

/// Runs a load on a runtime of its own, so that it takes no worker of the server's.
async fn on_own_thread<F, R, T>(make: F) -> anyhow::Result<T>
where
    F: FnOnce() -> R + Send + 'static,
    R: Future<Output = anyhow::Result<T>>,
    T: Send + 'static,
{
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("load".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let ran = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(make()));
        // The receiver waits below for as long as this takes.
        let _ = done.send(ran);
    })?;
    result.await?
}

/// A folder that is gone when the benchmark is.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(Self(dir.to_owned()))
    }

    fn path(&self, name: &str) -> anyhow::Result<std::path::PathBuf> {
        let path = self.0.join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is found beside the data folder by its name.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
