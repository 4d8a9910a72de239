//! A fold driven over a partition's history without committing anything: what it makes goes to the caller.
//!
//! It is the live loop itself, on a log that reads the history and only hands on what would be appended. So a record that cannot be
//! applied, one that panics and one whose work takes several commits are treated as they are live, and states are stored as often.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::fold::Fold;
use super::worker::{Stepped, Surroundings, Worker};
use super::{Error, Options, Stopping, Topics};
use crate::domain::{Millis, Offset};
use crate::env::ManualClock;
use crate::log::{
    self, Appended, Committed, Fetched, Group, LogReader, LogWriter, Ownership, RecordBatch, Ticket, TopicInfo, TopicPartition, TopicSpec,
    Transaction, Watermarks,
};
use crate::state::StateStore;

/// How much was folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refolded {
    pub records: u64,
    /// Of them, those that could not be applied and were passed over.
    pub dead_lettered: u64,
}

/// Folds everything that is there when it begins; `take` gets the outputs, commit by commit. `store` is the fold's own, and empty.
pub fn refold<F: Fold>(
    log: Arc<dyn LogReader>,
    store: Arc<dyn StateStore>,
    topics: Topics,
    fold: F,
    options: &Options,
    mut take: impl FnMut(Vec<(TopicPartition, RecordBatch)>) -> Result<(), Error>,
) -> Result<Refolded, Error> {
    let (topic, partition) = fold.input();
    let input = topics.partition(topic, partition);
    let end = log.watermarks(input)?.end;
    let dry = Arc::new(Dry { log, input, end, committed: Mutex::default(), made: Mutex::default() });
    let around = Surroundings {
        // It writes no ticks.
        pulse: Arc::new(super::Pulse::new(usize::MAX)),
        log: Arc::clone(&dry) as Arc<dyn LogWriter>,
        state: store,
        // Stands still: nothing waits for company, and states are stored when there are many, not when they are old.
        clock: Arc::new(ManualClock::at(Millis(0))),
        topics,
        options: Options { linger_ms: 0, ..options.clone() },
        stopping: Arc::new(Stopping::default()),
    };
    let mut worker = Worker::open(around, fold)?;
    loop {
        let stepped = worker.step()?;
        take(std::mem::take(&mut *dry.made.lock()))?;
        if !matches!(stepped, Stepped::Worked) {
            break;
        }
    }
    let status = worker.shared().status();
    Ok(Refolded { records: status.records, dead_lettered: status.dead_lettered })
}

/// The history up to `end`, and what would be appended behind it.
struct Dry {
    log: Arc<dyn LogReader>,
    input: TopicPartition,
    end: Offset,
    committed: Mutex<Option<Committed>>,
    made: Mutex<Vec<(TopicPartition, RecordBatch)>>,
}

impl LogReader for Dry {
    fn topics(&self) -> Result<Vec<TopicInfo>, log::Error> {
        self.log.topics()
    }

    fn watermarks(&self, partition: TopicPartition) -> Result<Watermarks, log::Error> {
        let marks = self.log.watermarks(partition)?;
        Ok(if partition == self.input { Watermarks { end: self.end, ..marks } } else { marks })
    }

    fn fetch(&self, partition: TopicPartition, from: Offset, bytes_max: usize) -> Result<Fetched, log::Error> {
        let mut fetched = self.log.fetch(partition, from, bytes_max)?;
        if partition == self.input {
            // The end lay between two appends, and so does it between two batches.
            fetched.batches.retain(|batch| batch.iter().next().is_none_or(|record| record.offset < self.end));
            fetched.next = fetched.next.min(self.end);
        }
        Ok(fetched)
    }

    fn offset_at(&self, partition: TopicPartition, time: Millis) -> Result<Offset, log::Error> {
        self.log.offset_at(partition, time)
    }

    fn committed(&self, _: &Group, _: TopicPartition) -> Result<Option<Committed>, log::Error> {
        Ok(self.committed.lock().clone())
    }

    fn wait(&self, _: &[(TopicPartition, Offset)], _: Duration) -> Result<bool, log::Error> {
        Ok(false)
    }
}

impl LogWriter for Dry {
    fn create_topic(&self, spec: &TopicSpec) -> Result<TopicInfo, log::Error> {
        Err(log::Error::UnknownTopic(spec.name.to_string()))
    }

    fn acquire(&self, group: &Group, partition: TopicPartition) -> Result<Ownership, log::Error> {
        Ok(Ownership { group: group.clone(), partition, epoch: 1 })
    }

    fn append(&self, transaction: Transaction) -> Result<Ticket, log::Error> {
        let (sender, ticket) = Ticket::new();
        let first_offsets = vec![Offset(0); transaction.batches.len()];
        self.made.lock().extend(transaction.batches);
        if let Some((_, committed)) = transaction.commits.into_iter().next_back() {
            *self.committed.lock() = Some(committed);
        }
        // A caller that dropped its ticket does not care.
        sender.send(Ok(Appended { first_offsets, append_time: Millis(0) })).ok();
        Ok(ticket)
    }

    fn health(&self) -> Result<(), log::Error> {
        Ok(())
    }

    fn pin(&self, _: &str, _: TopicPartition, _: Option<Offset>) -> Result<(), log::Error> {
        Ok(())
    }

    fn clean(&self, _: Millis) -> Result<u64, log::Error> {
        Ok(0)
    }
}
