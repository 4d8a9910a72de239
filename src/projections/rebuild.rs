//! Building a read model anew: the next generation is filled beside the one in force, from the log's first offset, then swapped in.
//!
//! Queries go on reading the old one until the swap; a running projector notices and goes on with the new one. A crash on the way leaves
//! the old one in force and a generation that the next rebuild removes.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::generation::Generations;
use super::projector::Options;
use super::tail::Tail;
use super::{Error, Place};
use crate::domain::Namespace;
use crate::log::LogReader;

/// Per transaction; nobody waits for these rows, so they are large.
const STEP_BYTES: usize = 32 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub records: u64,
    /// Records in the log that are not in the new generation yet.
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
    place: impl Into<Place>,
    namespace: &Namespace,
    options: &Options,
    progress: &mut (dyn FnMut(Progress) -> ControlFlow<()> + Send),
) -> Result<Rebuilt, Error> {
    let generations = Generations::new(&place.into(), namespace);
    let _lock = generations.lock().await?;
    let generation = generations.next().await?;
    let filled = fill(log, &generations, generation, options, progress).await;
    match filled {
        Ok(records) => {
            generations.switch_to(generation).await?;
            generations.remove_others().await?;
            Ok(Rebuilt { generation, records })
        }
        Err(error) => {
            // The error is what counts; what cannot be removed now is removed by the next rebuild.
            let _ = generations.remove(generation).await;
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
    let mut store = generations.create(generation).await?;
    store.set_durable(false).await?;
    let mut tail = Tail::new(log, options, generations.namespace(), store).await?;
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
    Ok(records)
}
