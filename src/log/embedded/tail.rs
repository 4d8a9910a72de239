//! The newest records in memory, so that readers who keep up share the committer's buffer and touch no file.
//!
//! Bounded over all partitions together: the oldest records go first, whosever they are. What has gone is read from the file.

use std::collections::VecDeque;

use super::index::{Index, WalEntry};
use crate::log::TopicPartition;

pub(super) struct Tail {
    bytes_max: usize,
    bytes: usize,
    entries: VecDeque<(TopicPartition, u64, usize)>,
}

impl Tail {
    pub(super) fn new(bytes_max: usize) -> Tail {
        Tail { bytes_max, bytes: 0, entries: VecDeque::new() }
    }

    pub(super) fn add(&mut self, id: TopicPartition, entry: &WalEntry) {
        self.bytes += entry.len as usize;
        self.entries.push_back((id, entry.base, entry.len as usize));
    }

    /// Lets go of the oldest records until the rest is within the bound.
    pub(super) fn shrink(&mut self, index: &mut Index) {
        while self.bytes > self.bytes_max {
            let Some((id, base, len)) = self.entries.pop_front() else { return };
            self.bytes -= len;
            let Some(partition) = index.partitions.get_mut(&id) else { continue };
            // Sorted into a segment meanwhile, it is not here any more.
            if let Ok(at) = partition.wal.binary_search_by_key(&base, |entry| entry.base) {
                partition.wal[at].tail = None;
            }
        }
    }
}
