//! Building a read model anew: the next generation is filled beside the one in force, from the log's first offset, then swapped in.
//!
//! Queries go on reading the old file until the pointer changes; a running projector notices and goes on with the new one. A crash on
//! the way leaves the old one in force and a file that the next rebuild removes.

use std::fs::TryLockError;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::generation::Generations;
use super::projector::Options;
use super::tail::Tail;
use super::{Error, store};
use crate::domain::Namespace;
use crate::log::LogReader;

/// Per transaction; nobody waits for these rows, so they are large.
const STEP_BYTES: usize = 32 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub records: u64,
    /// Records in the log that are not in the new file yet.
    pub left: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    pub generation: u64,
    pub records: u64,
}

/// Rebuilds and swaps. `progress` is told after every transaction and may stop it with [`ControlFlow::Break`]; then the old one stays.
pub async fn rebuild(
    log: Arc<dyn LogReader>,
    dir: &Path,
    namespace: &Namespace,
    options: &Options,
    progress: &mut (dyn FnMut(Progress) -> ControlFlow<()> + Send),
) -> Result<Rebuilt, Error> {
    let generations = Generations::new(dir, namespace);
    let _lock = lock(&generations, dir)?;
    let generation = generations.next()?;
    let filled = fill(log, &generations, generation, options, progress).await;
    match filled {
        Ok(records) => {
            generations.switch_to(generation)?;
            generations.remove_others()?;
            Ok(Rebuilt { generation, records })
        }
        Err(error) => {
            // The error is what counts; a file that cannot be removed now is removed by the next rebuild.
            let _ = generations.remove(generation);
            Err(error)
        }
    }
}

/// Fills a generation up to the log's end and makes it durable.
async fn fill(
    log: Arc<dyn LogReader>,
    generations: &Generations,
    generation: u64,
    options: &Options,
    progress: &mut (dyn FnMut(Progress) -> ControlFlow<()> + Send),
) -> Result<u64, Error> {
    let path = generations.db(generation);
    let mut connection = store::create(&path).await?;
    store::set_durable(&mut connection, false).await?;
    let mut tail = Tail::new(log, options, generations.namespace(), &path, connection).await?;
    let mut records = 0;
    loop {
        let step = tail.step(STEP_BYTES).await?;
        records += step.records as u64;
        if progress(Progress { records, left: step.lag }).is_break() {
            return Err(Error::Stopped("the rebuild was called off; the read model is as before".to_owned()));
        }
        if step.lag == 0 {
            break;
        }
        tail.tend_waiting().await?;
    }
    tail.finish().await?;
    std::fs::File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io(&path))?;
    Ok(records)
}

/// One rebuild at a time: the second would remove the first one's file.
fn lock(generations: &Generations, dir: &Path) -> Result<std::fs::File, Error> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let path = dir.join(format!("{}.rebuild.lock", generations.namespace()));
    let file = std::fs::File::create(&path).map_err(Error::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::RebuildRuns(generations.namespace().to_string())),
        Err(TryLockError::Error(error)) => Err(Error::io(path)(error)),
    }
}
