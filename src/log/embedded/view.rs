//! Reading: the log as an index and the files it points to. Shared by the log itself and the reader beside it.
//!
//! An answer is planned under the index's lock and read without it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};

use super::index::{Index, Plan, WalEntry};
use super::manifest::SegmentMeta;
use super::options::Options;
use super::segment::cache::Segments;
use crate::domain::{Millis, Offset};
use crate::env::fs::Fs;
use crate::log::{Committed, Error, Fetched, Group, RecordBatch, TopicInfo, TopicPartition, Watermarks};

pub(super) struct View {
    pub segments: Segments,
    pub index: RwLock<Index>,
    /// Set when the log closes: nobody waits any longer.
    is_closed: Mutex<bool>,
    changed: Condvar,
}

impl View {
    pub(super) fn new(fs: Arc<dyn Fs>, dir: &Path, options: &Options, index: Index) -> View {
        let segments = Segments::new(fs, dir, options.open_segments_max, options.block_cache_bytes_max);
        View { segments, index: RwLock::new(index), is_closed: Mutex::new(false), changed: Condvar::new() }
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

    pub(super) fn has_declared_holes(&self, id: TopicPartition) -> Result<bool, Error> {
        Ok(self.index.read().partition(id)?.holes.iter().any(|hole| hole.declared))
    }

    pub(super) fn committed(&self, group: &Group, id: TopicPartition) -> Result<Option<Committed>, Error> {
        let index = self.index.read();
        index.partition(id)?;
        Ok(index.groups.get(&(group.clone(), id)).and_then(|state| state.committed.clone()))
    }

    pub(super) fn fetch(&self, id: TopicPartition, from: Offset, bytes_max: usize) -> Result<Fetched, Error> {
        self.read(id, from, bytes_max).map_err(|error| error.named(&self.index.read().topics))
    }

    fn read(&self, id: TopicPartition, from: Offset, bytes_max: usize) -> Result<Fetched, Error> {
        let mut at = from;
        loop {
            let plan = self.index.read().plan(id, at, bytes_max)?;
            let fetched = match plan {
                Plan::Nothing { next } => return Ok(Fetched { batches: Vec::new(), next: Offset(next) }),
                Plan::Wal(entries) => self.fetch_entries(id, at, bytes_max, entries)?,
                Plan::Segment { segment, from, until } => match self.segments.fetch(id, &segment, (from, until), bytes_max) {
                    Ok(fetched) => trimmed(fetched, bytes_max),
                    // Retention or compaction took the file between plan and read; the next plan knows.
                    Err(_) if !self.has_segment(id, &segment) => continue,
                    Err(error) => return Err(error),
                },
            };
            // Compaction may have left nothing up to here: the next record is further on.
            if !fetched.is_empty() {
                return Ok(fetched);
            }
            at = fetched.next;
        }
    }

    fn has_segment(&self, id: TopicPartition, segment: &SegmentMeta) -> bool {
        let index = self.index.read();
        index.partitions.get(&id).is_some_and(|partition| partition.segments.iter().any(|other| other.file == segment.file))
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
        let (segment, in_wal) = {
            let index = self.index.read();
            let partition = index.partition(id)?;
            let segment = partition.segments.partition_point(|segment| segment.last_append_ms < time.0);
            let at = partition.wal.partition_point(|entry| entry.append_time < time);
            let in_wal = partition.wal.get(at).map_or(partition.end, |entry| entry.base);
            (partition.segments.get(segment).cloned(), in_wal)
        };
        let Some(segment) = segment else { return Ok(Offset(in_wal)) };
        match self.segments.offset_at(id, &segment, time) {
            Err(_) if !self.has_segment(id, &segment) => self.offset_at(id, time),
            found => Ok(Offset(found?.unwrap_or(segment.end))),
        }
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
                return Err(Error::Hole { partition: id.into(), from: Offset(entry.base), to: Offset(entry.end()) });
            }
            Bytes::from(data)
        }
    };
    Ok(RecordBatch { base: Offset(entry.base), append_time: entry.append_time, count: entry.count, offsets: None, data })
}

/// Cuts a fetch that is larger than asked for: a group's records for one partition are one batch, however many callers there were.
pub(super) fn trimmed(mut fetched: Fetched, bytes_max: usize) -> Fetched {
    let mut bytes = 0;
    for nth in 0..fetched.batches.len() {
        let len = fetched.batches[nth].data().len();
        if bytes + len > bytes_max {
            let (kept, rest) = fetched.batches[nth].split_at_bytes(bytes_max.saturating_sub(bytes));
            let past_kept = kept.last_offset().map(Offset::next);
            let is_all = rest.is_none() && nth + 1 == fetched.batches.len();
            fetched.batches.truncate(nth);
            fetched.batches.push(kept);
            fetched.next = past_kept.filter(|_| !is_all).unwrap_or(fetched.next);
            break;
        }
        bytes += len;
    }
    fetched
}
