//! The log in memory, for tests and simulation: the port's promises with nothing behind them.
//!
//! An append is durable at once, a batch is its own segment, and what "survives" a restart is what [`MemoryLog::reopen`] carries over.
//! [`MemoryLog::stop_after`] cuts the log after any number of transactions, so that a test can crash a program at every commit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{
    Appended, COMMIT_METADATA_BYTES_MAX, Cleanup, Committed, Error, Fetched, Group, LogReader, LogWriter, Ownership, RECORD_BYTES_MAX,
    RecordBatch, Retention, Ticket, TopicId, TopicInfo, TopicPartition, TopicSpec, Transaction, Watermarks, agreed,
};
use crate::domain::{Incarnation, Millis, Offset, PartitionId};
use crate::env::Clock;

/// A cheap handle; clones share the log.
#[derive(Clone)]
pub struct MemoryLog {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    appended: Condvar,
    clock: Arc<dyn Clock>,
}

#[derive(Clone, Default)]
struct State {
    topics: Vec<TopicInfo>,
    partitions: BTreeMap<TopicPartition, Partition>,
    /// The newest epoch ever given out, and the one that may commit: none until this process acquires.
    epochs: BTreeMap<(Group, TopicPartition), u64>,
    owners: BTreeMap<(Group, TopicPartition), u64>,
    commits: BTreeMap<(Group, TopicPartition), Committed>,
    pins: BTreeMap<(String, TopicPartition), Offset>,
    last_append: Millis,
    /// How many more transactions are taken before the log plays dead.
    appends_left: Option<u64>,
}

#[derive(Clone, Default)]
struct Partition {
    batches: VecDeque<RecordBatch>,
    start: u64,
    end: u64,
}

impl MemoryLog {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::default(), appended: Condvar::new(), clock }) }
    }

    /// Takes `transactions` more appends and then answers every call with [`Error::Closed`], as if the process had been killed there.
    /// The last one is kept but not acknowledged: its ticket resolves to `Closed` too.
    pub fn stop_after(&self, transactions: u64) {
        self.shared.state.lock().appends_left = Some(transactions);
        self.shared.appended.notify_all();
    }

    /// The same log opened by the next process: all that was appended, committed and pinned, on the same clock. Ownerships have ended.
    pub fn reopen(&self) -> MemoryLog {
        let state = State { appends_left: None, owners: BTreeMap::new(), ..self.shared.state.lock().clone() };
        let shared = Shared { state: Mutex::new(state), appended: Condvar::new(), clock: Arc::clone(&self.shared.clock) };
        MemoryLog { shared: Arc::new(shared) }
    }

    fn open_state(&self) -> Result<parking_lot::MutexGuard<'_, State>, Error> {
        let state = self.shared.state.lock();
        if state.appends_left == Some(0) { Err(Error::Closed) } else { Ok(state) }
    }
}

impl State {
    fn partition(&self, id: TopicPartition) -> Result<&Partition, Error> {
        self.partitions.get(&id).ok_or_else(|| Error::UnknownTopic(format!("{id:?}")))
    }

    /// Refuses what must leave no trace, before any of it is applied.
    fn check(&self, transaction: &Transaction) -> Result<(), Error> {
        for (id, batch) in &transaction.batches {
            self.partition(*id)?;
            let largest = batch.iter().map(|record| record.bytes()).max().unwrap_or(0);
            if largest > RECORD_BYTES_MAX {
                return Err(Error::TooLarge { bytes: largest, max: RECORD_BYTES_MAX });
            }
        }
        for (owner, committed) in &transaction.commits {
            let current = self.owners.get(&(owner.group.clone(), owner.partition));
            if current != Some(&owner.epoch) {
                return Err(Error::Fenced(owner.partition));
            }
            if committed.metadata.len() > COMMIT_METADATA_BYTES_MAX {
                return Err(Error::TooLarge { bytes: committed.metadata.len(), max: COMMIT_METADATA_BYTES_MAX });
            }
        }
        Ok(())
    }

    fn apply(&mut self, transaction: Transaction, append_time: Millis) -> Appended {
        let mut first_offsets = Vec::with_capacity(transaction.batches.len());
        for (id, batch) in transaction.batches {
            let partition = self.partitions.get_mut(&id).expect("checked before");
            let base = Offset(partition.end);
            first_offsets.push(base);
            partition.end += batch.len() as u64;
            if !batch.is_empty() {
                partition.batches.push_back(RecordBatch { base, append_time, ..batch });
            }
        }
        for (owner, committed) in transaction.commits {
            self.commits.insert((owner.group, owner.partition), committed);
        }
        Appended { first_offsets, append_time }
    }

    /// Everything at or past this offset is still needed by a group that owns the partition, or pinned.
    fn needed_from(&self, id: TopicPartition) -> u64 {
        let groups = self.epochs.keys().filter(|(_, partition)| *partition == id);
        let read = groups.map(|key| self.commits.get(key).map_or(0, |committed| committed.offset.0));
        let pinned = self.pins.iter().filter(|((_, partition), _)| *partition == id).map(|(_, offset)| offset.0);
        read.chain(pinned).min().unwrap_or(u64::MAX)
    }

    fn has_any(&self, positions: &[(TopicPartition, Offset)]) -> Result<bool, Error> {
        for (id, offset) in positions {
            if self.partition(*id)?.end > offset.0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Partition {
    /// Drops whole batches that are older than `keep_after` and below `needed_from`.
    fn trim(&mut self, keep_after: Millis, needed_from: u64) -> u64 {
        let mut freed = 0;
        while let Some(oldest) = self.batches.front() {
            let past_last = oldest.last_offset().expect("no batch is empty").0 + 1;
            if oldest.append_time >= keep_after || past_last > needed_from {
                break;
            }
            freed += oldest.data().len() as u64;
            self.start = past_last;
            self.batches.pop_front();
        }
        freed
    }

    /// Keeps the newest record of every key, no removed key, and everything from `needed_from` on.
    fn compact(&mut self, needed_from: u64) -> u64 {
        let mut newest: BTreeMap<&[u8], u64> = BTreeMap::new();
        for record in self.batches.iter().flat_map(RecordBatch::iter) {
            newest.insert(record.key, record.offset.0);
        }
        let is_kept = |record: &super::RecordRef<'_>| {
            record.offset.0 >= needed_from || (newest.get(record.key) == Some(&record.offset.0) && record.value.is_some())
        };
        let kept: VecDeque<RecordBatch> = self.batches.iter().filter_map(|batch| batch.keeping(is_kept)).collect();
        let bytes = |batches: &VecDeque<RecordBatch>| batches.iter().map(|batch| batch.data().len() as u64).sum::<u64>();
        let freed = bytes(&self.batches) - bytes(&kept);
        self.batches = kept;
        freed
    }
}

impl LogReader for MemoryLog {
    fn topics(&self) -> Result<Vec<TopicInfo>, Error> {
        Ok(self.open_state()?.topics.clone())
    }

    fn watermarks(&self, partition: TopicPartition) -> Result<Watermarks, Error> {
        let state = self.open_state()?;
        let partition = state.partition(partition)?;
        Ok(Watermarks { start: Offset(partition.start), end: Offset(partition.end) })
    }

    fn fetch(&self, id: TopicPartition, from: Offset, bytes_max: usize) -> Result<Fetched, Error> {
        let state = self.open_state()?;
        let partition = state.partition(id)?;
        if from.0 < partition.start || from.0 > partition.end {
            return Err(Error::OffsetOutOfRange {
                partition: id.into(),
                asked: from,
                start: Offset(partition.start),
                end: Offset(partition.end),
            });
        }
        let first = partition.batches.partition_point(|batch| batch.last_offset().is_some_and(|last| last < from));
        let mut fetched = Fetched { batches: Vec::new(), next: Offset(partition.end) };
        let mut bytes = 0;
        for batch in partition.batches.iter().skip(first) {
            if bytes > 0 && bytes + batch.data().len() > bytes_max {
                fetched.next = batch.iter().next().expect("no batch is empty").offset;
                break;
            }
            let batch = batch.starting_at(from).expect("batches below were skipped");
            bytes += batch.data().len();
            fetched.batches.push(batch);
        }
        Ok(fetched)
    }

    fn offset_at(&self, partition: TopicPartition, time: Millis) -> Result<Offset, Error> {
        let state = self.open_state()?;
        let partition = state.partition(partition)?;
        let at = partition.batches.partition_point(|batch| batch.append_time < time);
        let first = partition.batches.get(at).and_then(|batch| batch.iter().next());
        Ok(first.map_or(Offset(partition.end), |record| record.offset))
    }

    fn committed(&self, group: &Group, partition: TopicPartition) -> Result<Option<Committed>, Error> {
        let state = self.open_state()?;
        state.partition(partition)?;
        Ok(state.commits.get(&(group.clone(), partition)).cloned())
    }

    fn wait(&self, positions: &[(TopicPartition, Offset)], at_most: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + at_most;
        let mut state = self.open_state()?;
        loop {
            if state.appends_left == Some(0) {
                return Err(Error::Closed);
            }
            if state.has_any(positions)? {
                return Ok(true);
            }
            if self.shared.appended.wait_until(&mut state, deadline).timed_out() {
                return state.has_any(positions);
            }
        }
    }
}

impl LogWriter for MemoryLog {
    fn create_topic(&self, spec: &TopicSpec) -> Result<TopicInfo, Error> {
        let mut state = self.open_state()?;
        if let Some(existing) = state.topics.iter_mut().find(|info| info.spec.name == spec.name) {
            *existing = agreed(existing, spec)?;
            return Ok(existing.clone());
        }
        let id = TopicId(state.topics.len() as u32);
        let info = TopicInfo { id, spec: spec.clone(), incarnation: Incarnation(1) };
        for partition in 0..spec.partitions {
            state.partitions.insert(TopicPartition { topic: id, partition: PartitionId(partition) }, Partition::default());
        }
        state.topics.push(info.clone());
        Ok(info)
    }

    fn acquire(&self, group: &Group, partition: TopicPartition) -> Result<Ownership, Error> {
        let mut state = self.open_state()?;
        state.partition(partition)?;
        let epoch = state.epochs.entry((group.clone(), partition)).or_default();
        *epoch += 1;
        let epoch = *epoch;
        state.owners.insert((group.clone(), partition), epoch);
        Ok(Ownership { group: group.clone(), partition, epoch })
    }

    fn health(&self) -> Result<(), Error> {
        self.open_state().map(drop)
    }

    fn append(&self, transaction: Transaction) -> Result<Ticket, Error> {
        let (sender, ticket) = Ticket::new();
        let mut state = self.open_state()?;
        state.check(&transaction)?;
        state.last_append = state.last_append.max(self.shared.clock.now());
        let append_time = state.last_append;
        let appended = state.apply(transaction, append_time);
        state.appends_left = state.appends_left.map(|left| left - 1);
        let outcome = if state.appends_left == Some(0) { Err(Error::Closed) } else { Ok(appended) };
        drop(state);
        self.shared.appended.notify_all();
        // A caller that dropped its ticket does not care.
        sender.send(outcome).ok();
        Ok(ticket)
    }

    fn pin(&self, name: &str, partition: TopicPartition, offset: Option<Offset>) -> Result<(), Error> {
        let mut state = self.open_state()?;
        state.partition(partition)?;
        let key = (name.to_owned(), partition);
        match offset {
            Some(offset) => state.pins.insert(key, offset),
            None => state.pins.remove(&key),
        };
        Ok(())
    }

    fn clean(&self, now: Millis) -> Result<u64, Error> {
        let mut state = self.open_state()?;
        let ids: Vec<TopicPartition> = state.partitions.keys().copied().collect();
        let mut freed = 0;
        for id in ids {
            let needed_from = state.needed_from(id);
            let spec = state.topics[id.topic.0 as usize].spec.clone();
            let partition = state.partitions.get_mut(&id).expect("listed above");
            if spec.cleanup == Cleanup::Compact {
                freed += partition.compact(needed_from);
            } else if let Retention::Age(age) = spec.retention {
                let keep_after = Millis(now.0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
                freed += partition.trim(keep_after, needed_from);
            }
        }
        Ok(freed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Namespace;
    use crate::env::ManualClock;
    use crate::log::{BatchBuilder, TopicName};

    fn one_record(partition: TopicPartition) -> Transaction {
        let mut batch = BatchBuilder::new();
        batch.push(b"key", Some(b"value"), Millis(0));
        Transaction { batches: vec![(partition, batch.build())], commits: Vec::new() }
    }

    #[test]
    fn a_stopped_log_keeps_its_last_append_unacknowledged_and_opens_again() {
        let log = MemoryLog::new(Arc::new(ManualClock::at(Millis(5))));
        let name = TopicName::new(&Namespace::new("demo").unwrap(), "events");
        let spec = TopicSpec { name, partitions: 1, retention: Retention::Forever, cleanup: Cleanup::Delete };
        let partition = TopicPartition { topic: log.create_topic(&spec).unwrap().id, partition: PartitionId(0) };
        log.stop_after(2);
        log.append(one_record(partition)).unwrap().wait().unwrap();
        assert!(matches!(log.append(one_record(partition)).unwrap().wait(), Err(Error::Closed)));
        assert!(matches!(log.append(one_record(partition)), Err(Error::Closed)));
        assert!(matches!(log.watermarks(partition), Err(Error::Closed)));
        let next = log.reopen();
        assert_eq!(next.watermarks(partition).unwrap().end, Offset(2));
        next.append(one_record(partition)).unwrap().wait().unwrap();
        assert_eq!(next.fetch(partition, Offset(1), usize::MAX).unwrap().len(), 2);
    }
}
