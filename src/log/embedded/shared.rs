//! What the log's threads and its callers share, and the one way in which a durable group becomes visible.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::committer::{Queues, entries};
use super::encoder::EncodedGroup;
use super::format::PreviousEntry;
use super::index::Index;
use super::manifest::Manifest;
use super::metrics::Metrics;
use super::options::Options;
use super::sorter::Sorting;
use super::tail::Tail;
use super::view::View;
use super::wal::{Placement, Spares};
use crate::env::Clock;
use crate::env::fs::Fs;
use crate::log::Error;

pub(super) struct Shared {
    pub fs: Arc<dyn Fs>,
    pub dir: PathBuf,
    pub options: Options,
    pub clock: Arc<dyn Clock>,
    pub queues: Queues,
    pub view: View,
    /// What is on disk. Held while it is replaced; `view.index` is locked after it, never before.
    pub manifest: Mutex<Manifest>,
    pub sorting: Sorting,
    pub spares: Arc<Mutex<Spares>>,
    /// The write-ahead file of the last published group: those below it are full.
    pub active_file: AtomicU64,
    /// Held by whoever rewrites segments, so that only one does.
    pub maintenance: Mutex<()>,
    pub tail: Mutex<Tail>,
    /// What the last published frame held.
    pub previous: RwLock<Vec<PreviousEntry>>,
    pub metrics: Metrics,
}

impl Shared {
    /// Makes a durable group visible to readers.
    pub(super) fn publish(&self, group: &EncodedGroup, placement: &Placement) {
        let mut index = self.view.index.write();
        let mut tail = self.tail.lock();
        for (id, entry) in entries(group, placement) {
            let Some(partition) = index.partitions.get_mut(&id) else { continue };
            partition.end = entry.end();
            tail.add(id, &entry);
            partition.wal.push_back(entry);
        }
        tail.shrink(&mut index);
        for frame in &group.frames {
            index.apply_progress(&frame.head);
        }
        if let Some(last) = group.frames.last() {
            *self.previous.write() = last.head.as_previous();
        }
        drop(tail);
        drop(index);
        self.view.tell_waiters();
        let active = placement.file.number;
        if self.active_file.swap(active, Ordering::AcqRel) != active {
            let first = group.frames.first().map_or(0, |frame| frame.head.sequence);
            self.sorting.file_begun(&placement.file, first);
        }
    }

    /// Replaces the manifest by one that `edit` changed, and only then lets `apply` change what readers see.
    /// Nothing happens if `edit` says `None`. Answers whether something did.
    pub(super) fn edit_manifest<T>(
        &self,
        edit: impl FnOnce(&mut Manifest) -> Option<T>,
        apply: impl FnOnce(&mut Index, T),
    ) -> Result<bool, Error> {
        let mut manifest = self.manifest.lock();
        let mut next = manifest.clone();
        {
            let index = self.view.index.read();
            let (groups, pins) = index.progress();
            (next.groups, next.pins) = (groups, pins);
            next.last_append_ms = index.last_append.0;
        }
        let Some(edited) = edit(&mut next) else { return Ok(false) };
        next.generation += 1;
        next.next_file = self.spares.lock().next_number;
        next.write(&*self.fs, &self.dir)?;
        *manifest = next;
        apply(&mut self.view.index.write(), edited);
        Ok(true)
    }

    /// The last published sequence and what its frame held.
    pub(super) fn last_published(&self) -> (u64, Vec<PreviousEntry>) {
        (self.view.index.read().sequence, self.previous.read().clone())
    }
}
