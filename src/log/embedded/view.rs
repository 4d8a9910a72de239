//! Reading: the log as an index and the files it points to. Shared by the log itself and the reader beside it.
//!
//! An answer is planned under the index's lock and read without it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};

use super::index::{Index, Plan, WalEntry};
use crate::domain::{Millis, Offset};
use crate::env::fs::Fs;
use crate::log::{Committed, Error, Fetched, Group, RecordBatch, TopicInfo, TopicPartition, Watermarks};

pub(super) struct View {
    pub fs: Arc<dyn Fs>,
    pub dir: PathBuf,
    pub index: RwLock<Index>,
    /// Set when the log closes: nobody waits any longer.
    is_closed: Mutex<bool>,
    changed: Condvar,
}

impl View {
    pub(super) fn new(fs: Arc<dyn Fs>, dir: PathBuf, index: Index) -> View {
        View { fs, dir, index: RwLock::new(index), is_closed: Mutex::new(false), changed: Condvar::new() }
    }

    pub(super) fn tell_waiters(&self) {
        // Taken so that nobody is between looking and waiting.
        drop(self.is_closed.lock());
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        *self.is_closed.lock() = true;
        self.changed.notify_all();
    }

    pub(super) fn topics(&self) -> Vec<TopicInfo> {
        self.index.read().topics.clone()
    }

    pub(super) fn watermarks(&self, id: TopicPartition) -> Result<Watermarks, Error> {
        let index = self.index.read();
        let partition = index.partition(id)?;
        Ok(Watermarks { start: Offset(partition.start), end: Offset(partition.end) })
    }

    pub(super) fn committed(&self, group: &Group, id: TopicPartition) -> Result<Option<Committed>, Error> {
        let index = self.index.read();
        index.partition(id)?;
        Ok(index.groups.get(&(group.clone(), id)).and_then(|state| state.committed.clone()))
    }

    pub(super) fn fetch(&self, id: TopicPartition, from: Offset, bytes_max: usize) -> Result<Fetched, Error> {
        let plan = self.index.read().plan(id, from, bytes_max)?;
        match plan {
            Plan::Nothing { next } => Ok(Fetched { batches: Vec::new(), next: Offset(next) }),
            Plan::Wal(entries) => self.fetch_entries(id, from, bytes_max, entries),
            Plan::Segment { .. } => Err(Error::Corrupt("segments come next".into())),
        }
    }

    fn fetch_entries(&self, id: TopicPartition, from: Offset, bytes_max: usize, entries: Vec<WalEntry>) -> Result<Fetched, Error> {
        let mut fetched = Fetched { batches: Vec::with_capacity(entries.len()), next: from };
        for entry in &entries {
            let batch = match read_entry(id, entry) {
                Ok(batch) => batch,
                // Those before it are good; the damage is named when it is asked for.
                Err(_) if !fetched.is_empty() => break,
                Err(error) => return Err(error),
            };
            fetched.next = Offset(entry.end());
            fetched.batches.extend(batch.starting_at(from));
        }
        Ok(trimmed(fetched, bytes_max))
    }

    pub(super) fn offset_at(&self, id: TopicPartition, time: Millis) -> Result<Offset, Error> {
        let index = self.index.read();
        let partition = index.partition(id)?;
        let at = partition.wal.partition_point(|entry| entry.append_time < time);
        Ok(Offset(partition.wal.get(at).map_or(partition.end, |entry| entry.base)))
    }

    pub(super) fn wait(&self, positions: &[(TopicPartition, Offset)], at_most: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + at_most;
        let mut is_closed = self.is_closed.lock();
        loop {
            if *is_closed {
                return Err(Error::Closed);
            }
            if self.has_any(positions)? {
                return Ok(true);
            }
            if self.changed.wait_until(&mut is_closed, deadline).timed_out() {
                return self.has_any(positions);
            }
        }
    }

    pub(super) fn has_any(&self, positions: &[(TopicPartition, Offset)]) -> Result<bool, Error> {
        let index = self.index.read();
        for (id, offset) in positions {
            if index.partition(*id)?.end > offset.0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The records of a write-ahead entry, from memory or from its file; damaged ones are a hole.
pub(super) fn read_entry(id: TopicPartition, entry: &WalEntry) -> Result<RecordBatch, Error> {
    let data = match &entry.tail {
        Some(data) => data.clone(),
        None => {
            let mut data = vec![0; entry.len as usize];
            entry.file.file.read_exact_at(&mut data, entry.at).map_err(|error| super::io_error("reading", &entry.file.path, &error))?;
            if crc32c::crc32c(&data) != entry.crc {
                return Err(Error::Hole { partition: id, from: Offset(entry.base), to: Offset(entry.end()) });
            }
            Bytes::from(data)
        }
    };
    Ok(RecordBatch { base: Offset(entry.base), append_time: entry.append_time, count: entry.count, offsets: None, data })
}

/// Cuts a fetch that is larger than asked for: a group's records for one partition are one batch, however many callers there were.
pub(super) fn trimmed(mut fetched: Fetched, bytes_max: usize) -> Fetched {
    let mut bytes = 0;
    for (nth, batch) in fetched.batches.iter().enumerate() {
        bytes += batch.data().len();
        if bytes > bytes_max {
            let room = bytes_max.saturating_sub(bytes - batch.data().len());
            let kept = batch.within_bytes(room, nth == 0);
            let first = batch.iter().next().expect("no batch is empty").offset;
            fetched.next = kept.as_ref().and_then(RecordBatch::last_offset).map_or(first, Offset::next);
            fetched.batches.truncate(nth);
            fetched.batches.extend(kept);
            break;
        }
    }
    fetched
}
