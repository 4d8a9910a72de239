//! A history folded again, without the log it would write to and without SQL: for measuring, and for derivations under other definitions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::domain::{Namespace, PartitionId};
use crate::log::{LogReader, RecordBatch, TopicPartition};
use crate::state::{MemoryStore, StateStore};
use crate::stream::topology::Topology;
use crate::stream::{Error, Library, NamespaceClock, Options, ProfileFold, ProfileSetup, Refolded, Topic, Topics, clock_of, refold};

/// What folding came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Folded {
    pub records: u64,
    /// Of them, those that could not be applied and were passed over.
    pub dead_lettered: u64,
    /// What would have been appended.
    pub outputs: u64,
    pub output_bytes: u64,
}

/// Folds the namespace's `events` from their beginning through the profile fold, `threads` partitions at a time. Recorded absorbs are taken
/// as they are.
pub fn fold(log: &Arc<dyn LogReader>, namespace: &Namespace, topology: &Arc<Topology>, threads: usize) -> Result<Folded, Error> {
    let Some(topics) = Topics::find(&**log, namespace)? else { return Ok(Folded::default()) };
    let clock = clock_of(&**log, &topics)?.unwrap_or(NamespaceClock::Event);
    let library = Arc::new(Library::new(Arc::clone(log), topics.clone()));
    library.add(Arc::clone(topology));
    let partitions: Vec<TopicPartition> = topics.partitions(Topic::Events).collect();
    let next = AtomicUsize::new(0);
    let fold_some = || -> Result<Vec<Folded>, Error> {
        let mut folded = Vec::new();
        while let Some(id) = partitions.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (log, library, topology) = (Arc::clone(log), Arc::clone(&library), Arc::clone(topology));
            folded.push(fold_partition(log, topics.clone(), library, topology, clock, id.partition)?);
        }
        Ok(folded)
    };
    let panicked = || Error::Thread { what: "a fold".to_owned(), detail: "it panicked".to_owned() };
    let results: Vec<Result<Vec<Folded>, Error>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(fold_some)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked()))).collect()
    });
    let mut folded = Folded::default();
    for result in results {
        for part in result? {
            folded.records += part.records;
            folded.dead_lettered += part.dead_lettered;
            folded.outputs += part.outputs;
            folded.output_bytes += part.output_bytes;
        }
    }
    Ok(folded)
}

fn fold_partition(
    log: Arc<dyn LogReader>,
    topics: Topics,
    library: Arc<Library>,
    topology: Arc<Topology>,
    clock: NamespaceClock,
    partition: PartitionId,
) -> Result<Folded, Error> {
    let options = Options::default();
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
    let setup = ProfileSetup { partition, clock, library, initial: topology, writes_again: false };
    let fold = ProfileFold::new(Arc::clone(&store), topics.clone(), &options, setup);
    let mut folded = Folded::default();
    let take = |batches: Vec<(TopicPartition, RecordBatch)>| {
        for (_, batch) in batches {
            folded.outputs += batch.len() as u64;
            folded.output_bytes += batch.data().len() as u64;
        }
        Ok(())
    };
    let Refolded { records, dead_lettered } = refold(log, store, topics, fold, &options, take)?;
    (folded.records, folded.dead_lettered) = (records, dead_lettered);
    Ok(folded)
}
