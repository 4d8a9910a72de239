//! The product's own log: one folder, one writer process, any number of readers beside it.
//!
//! Owns the folder's files. `open` opens for writing, `encoder`, `committer` and `wal` are the way of an append, `sorter` turns full
//! write-ahead files into segments, `retention`, `compact` and `merge` rewrite those; `index`, `view`, `tail` and `segment` are reading,
//! `reader` reads without the lock; `scan` and `recover` take over what was left; `doctor` and `backup` look after a folder.
//! This file is the port's face. Not here: what records mean, and who cleans or reads when.
//!
//! # The folder
//!
//! | file | holds |
//! |---|---|
//! | `LOCK` | locked (`flock`) by the writer, and its name |
//! | `INSTANCE` | the mark: equal to the manifest's `instance`, or the next opening begins a new incarnation. Backups have none |
//! | `COPIED` | the last incarnation that began so; in a folder that was never one, no such file. Backups have none |
//! | `MANIFEST` | what the other files mean; replaced by renaming `MANIFEST.new` |
//! | `N.wal` | write-ahead files, N of ten digits, in the order of N |
//! | `N.seg` | segments, numbered from the same counter; those that the manifest does not name are leftovers |
//!
//! All integers are little endian, all checksums CRC-32C, all times milliseconds since 1970 (i64). Records are as `log::record` says.
//!
//! ## MANIFEST
//!
//! The line `flywheel-log 1 CRC LENGTH` (checksum of the body in eight hex digits, its length in decimal), then the body, JSON:
//! `generation` rises with each replacement; `incarnation`; `epoch` rises with each opening for writing; `instance`;
//! `sorted_through`: frames up to this sequence are in segments; `wal_first`: write-ahead files below this number are leftovers;
//! `next_file`; `last_append_ms`; `topics` (`id`, `name`, `partitions`, `retention_ms` or null, `compact`);
//! `partitions` (`topic`, `partition`, `start`, `end` of what is sorted, `segments`, `holes`); a segment is `file` (its number), offsets
//! `[base, end)` that it answers for, `bytes`, `records`, `first_append_ms`, `last_append_ms`, `compacted`; a hole is `[from, to)` and
//! whether it is `declared`; `groups` (`group`, `topic`, `partition`, `epoch`, `sequence` of the frame that committed, `offset` or null,
//! `metadata` in base64), to be overruled by frames of a higher sequence; `pins` (`name`, `topic`, `partition`, `offset`).
//!
//! ## Write-ahead files
//!
//! A file is zero-filled before use and may hold older bytes when it is used again. Byte 0: the head, 64 bytes:
//! `"FLYWAL\r\n" | version u16 = 1 | 0 u16 | crc u32 of bytes 16..64 | number u64 | epoch u64 | first sequence u64 | created i64 | 0`.
//! The number must be the name's; a file without a valid head and without a frame past `sorted_through` was never begun. Every sequence
//! below `first sequence` was durable when the head was written, and frames of earlier files from it on are void.
//! Byte 512: the note an idle writer leaves, not synced: `number u64 | synced u64 | crc u32 of these 16 | 0 u32`.
//! From byte 4096: frames, one after the other, each beginning at a multiple of 8. A frame is written whole, holds one or more whole
//! appends, and takes effect whole. Its head:
//!
//! | at | field |
//! |---|---|
//! | 0 | `"FRM1"` |
//! | 4 | crc u32 of the head from byte 8 on, entries included |
//! | 8 | length of the frame u32, a multiple of 8; length of the head with its entries u32 |
//! | 16 | sequence u64: one more than the frame's before, through all files |
//! | 24 | epoch u64 of the opening that wrote it |
//! | 32 | the highest sequence known synced when this was written, u64 |
//! | 40 | append time i64, never less than the frame's before |
//! | 48 | numbers of batches, previous entries, commits, acquisitions: u32 each |
//! | 64 | batches: `topic u32, partition u32, base offset u64, records u32, bytes u32, crc u32 of the records, 0 u32` |
//! | | previous entries, what the frame before held: `topic u32, partition u32, base offset u64, records u32, 0 u32` |
//! | | commits: `topic u32, partition u32, epoch u64, offset u64, group length u32, metadata length u32, group, metadata` |
//! | | acquisitions: `topic u32, partition u32, epoch u64, group length u32, 0 u32, group` |
//!
//! then the batches' records in the order of their entries, then zeros up to the frame's length.
//!
//! Reading: from `wal_first` on, take frames while the next one is whole and its sequence is the next. Where it is not, look further, at
//! multiples of 8, for a whole head with a higher sequence (and below the `first sequence` of every later file). A missing or damaged
//! frame is *attested* if any frame's synced field, note, or later head says that its sequence was synced. The first one that is not
//! attested ends the log: it and everything after it are cut off. The offsets of attested ones are holes: known from the damaged frame's own
//! head, from the previous entries or base offsets of frames after it; where nothing tells, every partition skips as many offsets as the
//! damaged bytes can have held records (18 bytes each), so that no offset is given out twice.
//!
//! ## Segments
//!
//! Head, 64 bytes: `"FLYSEG\r\n" | version u16 = 1 | 0 u16... | crc u32 at 12 of bytes 16..64 | topic u32 | partition u32 | base u64 |
//! number u64 | 0`. Then blocks: `"BLK1" | crc u32 of the block from byte 8 on | payload bytes u32 | body bytes u32 | codec u32 (0 plain,
//! 1 zstd) | records u32 | batches u32 | 0 u32 | base u64 | end u64 | first append i64 | last append i64 | payload`. A block answers for the
//! offsets `[base, end)`, and the next one begins where it ends. The body: per batch `base u64 | append time i64 | records u32 | bytes u32 |
//! explicit offsets u32 (0, or one per record) | 0 u32`; then all explicit offsets, u64 each; then all records.
//! Then the index, per block `base u64 | end u64 | first append i64 | last append i64 | at u64 | bytes with head u32 | records u32`, and
//! the trailer: `index at u64 | blocks u32 | crc u32 of all before it from the index on | "FLYSEGIX"`. Without a valid index, blocks are found by searching.
//!
//! # Why it holds
//!
//! An append is answered after the `fdatasync` of the file that holds its frame and, when that file is new, of its head with it; the
//! file's name was synced before. After a failed write or sync nothing is written to that file again. Segments are synced, then their
//! names, then the manifest replaced and its name synced; only then do write-ahead files or older segments go.

pub mod backup;
mod committer;
mod compact;
pub mod doctor;
mod encoder;
mod format;
mod index;
mod manifest;
mod merge;
pub mod metrics;
mod open;
mod options;
mod reader;
mod recover;
mod retention;
mod scan;
mod segment;
mod shared;
mod sorter;
mod tail;
#[cfg(test)]
mod tests;
mod view;
mod wal;
mod window;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

pub use options::{Driver, Options};
pub use reader::EmbeddedReader;

use self::committer::Machine;
use self::encoder::Pending;
use self::manifest::{Partition as ManifestPartition, Pin, Topic};
use self::shared::Shared;
use crate::domain::{Incarnation, Millis, Offset, PartitionId};
use crate::env::Clock;
use crate::env::fs::{Fs, Lock};
use crate::log::{
    Appended, COMMIT_METADATA_BYTES_MAX, Committed, Error, Fetched, Group, LogReader, LogWriter, Ownership, RECORD_BYTES_MAX, RecordBatch,
    Ticket, TopicId, TopicInfo, TopicPartition, TopicSpec, Transaction, Watermarks, agreed,
};

/// A log opened for writing. Dropping it waits for what was handed in and frees the folder.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    machine: Mutex<Option<Machine>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held while a topic is created, so that no name is taken twice.
    creating: Mutex<()>,
    lock: Mutex<Option<Box<dyn Lock>>>,
    copied: Option<Incarnation>,
}

impl EmbeddedLog {
    /// Opens the log in `dir`, or begins one there.
    pub fn open(fs: Arc<dyn Fs>, dir: &Path, options: Options, clock: Arc<dyn Clock>) -> Result<Arc<EmbeddedLog>, Error> {
        open::open(fs, dir, options, clock)
    }

    /// With [`Driver::Caller`]: does the work that waits, on this thread. With threads there is nothing to do.
    pub fn drive(&self) {
        if let Some(machine) = self.machine.lock().as_mut() {
            machine.drive();
        }
    }

    /// Takes no more appends, makes those handed in durable, and frees the folder.
    pub fn close(&self) {
        self.drive();
        self.shared.queues.state.lock().is_closed = true;
        self.shared.queues.work.notify_all();
        self.shared.sorting.close();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // A thread that panicked has said so itself.
            thread.join().ok();
        }
        self.shared.view.close();
        self.lock.lock().take();
    }

    /// Sorts everything acknowledged so far into segments and waits for it.
    pub fn roll(&self) -> Result<(), Error> {
        let ticket = self.enqueue(Transaction::default(), None, true)?;
        self.wait_for(ticket)?;
        sorter::wait_sorted(&self.shared)
    }

    /// Copies the log to the empty folder `to` while it runs: everything acknowledged before is in the copy.
    pub fn backup(&self, to: &Path) -> Result<backup::Copied, Error> {
        // A frame that follows says that those before it are synced.
        let ticket = self.enqueue(Transaction::default(), None, false)?;
        self.wait_for(ticket)?;
        backup::backup(&*self.shared.fs, &self.shared.dir, to)
    }

    /// Quiet topics would never fill a write-ahead file, and retention reaches only segments.
    fn roll_if_old(&self, now: Millis) -> Result<(), Error> {
        let oldest = {
            let index = self.shared.view.index.read();
            index.partitions.values().filter_map(|partition| partition.wal.front()).map(|entry| entry.append_time).min()
        };
        match oldest {
            Some(oldest) if now.since_ms(oldest) > self.shared.options.roll_age_ms => self.roll(),
            _ => Ok(()),
        }
    }

    /// Brings those metrics up to date that nobody counts as it happens.
    pub fn measure(&self) {
        let (mut segments, mut segment_bytes, mut unsorted_bytes) = (0u64, 0u64, 0u64);
        for partition in self.shared.view.index.read().partitions.values() {
            segments += partition.segments.len() as u64;
            segment_bytes += partition.segments.iter().map(|segment| segment.bytes).sum::<u64>();
            unsorted_bytes += partition.wal.iter().map(|entry| u64::from(entry.len)).sum::<u64>();
        }
        let metrics = &self.shared.metrics;
        metrics.segments.set(segments as f64);
        metrics.segment_bytes.set(segment_bytes as f64);
        metrics.unsorted_bytes.set(unsorted_bytes as f64);
        // A file system that does not say keeps the last figure.
        if let Ok(bytes) = self.shared.fs.free_bytes(&self.shared.dir) {
            metrics.disk_free_bytes.set(bytes as f64);
        }
    }

    /// What is on disk is incarnation `n` of this log.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.shared.manifest.lock().incarnation)
    }

    /// The last incarnation that began because the folder was a copy of another, which may still be in use.
    pub fn copied(&self) -> Option<Incarnation> {
        self.copied
    }

    /// Hands in an append; or an ownership, whose epoch is raised past every one handed out before.
    fn enqueue(&self, transaction: Transaction, mut acquires: Option<&mut Ownership>, roll: bool) -> Result<Ticket, Error> {
        let bytes = bytes_of(&transaction);
        let max = self.shared.options.transaction_bytes_max;
        if bytes > max {
            return Err(Error::TooLarge { bytes, max });
        }
        let (sender, ticket) = Ticket::new();
        let mut queue = self.shared.queues.state.lock();
        queue.is_open()?;
        for (owner, _) in &transaction.commits {
            if queue.owners.get(&(owner.group.clone(), owner.partition)) != Some(&owner.epoch) {
                return Err(Error::Fenced(owner.partition));
            }
        }
        if !roll {
            self.keeps_up()?;
        }
        if queue.queued_bytes > 0 && queue.queued_bytes + bytes > self.shared.options.queue_bytes_max {
            return Err(Error::Overloaded);
        }
        if let Some(owner) = &mut acquires {
            let newest = queue.owners.entry((owner.group.clone(), owner.partition)).or_default();
            owner.epoch = owner.epoch.max(*newest + 1);
            *newest = owner.epoch;
        }
        queue.push(Pending { transaction, acquires: acquires.cloned(), roll, bytes, sender });
        let (waiting, wakes_committer) = (queue.pending.len(), queue.wakes_committer());
        drop(queue);
        match self.shared.options.driver {
            Driver::Threads if wakes_committer => {
                self.shared.queues.work.notify_one();
            }
            Driver::Threads => {}
            Driver::Caller { group } if waiting >= group => self.drive(),
            Driver::Caller { .. } => {}
        }
        Ok(ticket)
    }

    /// Refuses while too much waits to be sorted.
    fn keeps_up(&self) -> Result<(), Error> {
        let is_behind = self.shared.sorting.unsorted_files() > self.shared.options.wal_files_max;
        if is_behind { Err(self.shared.sorting.why_behind()) } else { Ok(()) }
    }

    fn check(&self, transaction: &Transaction) -> Result<(), Error> {
        {
            let index = self.shared.view.index.read();
            for (id, _) in &transaction.batches {
                index.partition(*id)?;
            }
            for (owner, _) in &transaction.commits {
                index.partition(owner.partition)?;
            }
        }
        for (_, batch) in &transaction.batches {
            check_record_sizes(batch)?;
        }
        for (_, committed) in &transaction.commits {
            let bytes = committed.metadata.len();
            if bytes > COMMIT_METADATA_BYTES_MAX {
                return Err(Error::TooLarge { bytes, max: COMMIT_METADATA_BYTES_MAX });
            }
        }
        Ok(())
    }

    fn wait_for(&self, ticket: Ticket) -> Result<Appended, Error> {
        self.drive();
        ticket.wait()
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.close();
    }
}

/// What an append counts for against the bounds: its records, and a little for each part.
fn bytes_of(transaction: &Transaction) -> usize {
    let batches: usize = transaction.batches.iter().map(|(_, batch)| batch.data().len() + 64).sum();
    let commits: usize = transaction.commits.iter().map(|(owner, commit)| owner.group.0.len() + commit.metadata.len() + 64).sum();
    batches + commits + 64
}

fn check_record_sizes(batch: &RecordBatch) -> Result<(), Error> {
    // No record of a batch that is smaller than one can be too large.
    if batch.data().len() <= RECORD_BYTES_MAX {
        return Ok(());
    }
    let largest = batch.iter().map(|record| record.bytes()).max().unwrap_or(0);
    if largest > RECORD_BYTES_MAX { Err(Error::TooLarge { bytes: largest, max: RECORD_BYTES_MAX }) } else { Ok(()) }
}

fn io_error(doing: &str, path: &Path, error: &io::Error) -> Error {
    if is_no_space(error) { Error::NoSpace } else { Error::io(format!("{doing} {}", path.display()), error) }
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl EmbeddedLog {
    /// Keeps a topic for as long as `info` says from here on, also after a restart.
    fn retain(&self, info: &TopicInfo) -> Result<(), Error> {
        self.shared.edit_manifest(
            |next| {
                let topic = next.topics.iter_mut().find(|topic| topic.id == info.id.0)?;
                *topic = Topic::new(info.id, &info.spec);
                Some(())
            },
            |index, ()| index.replace_topic(info.clone()),
        )?;
        Ok(())
    }
}

impl LogReader for EmbeddedLog {
    fn topics(&self) -> Result<Vec<TopicInfo>, Error> {
        Ok(self.shared.view.topics())
    }

    fn watermarks(&self, partition: TopicPartition) -> Result<Watermarks, Error> {
        self.shared.view.watermarks(partition)
    }

    fn fetch(&self, partition: TopicPartition, from: Offset, bytes_max: usize) -> Result<Fetched, Error> {
        self.shared.view.fetch(partition, from, bytes_max)
    }

    fn offset_at(&self, partition: TopicPartition, time: Millis) -> Result<Offset, Error> {
        self.shared.view.offset_at(partition, time)
    }

    fn committed(&self, group: &Group, partition: TopicPartition) -> Result<Option<Committed>, Error> {
        self.shared.view.committed(group, partition)
    }

    fn has_declared_holes(&self, partition: TopicPartition) -> Result<bool, Error> {
        self.shared.view.has_declared_holes(partition)
    }

    fn wait(&self, positions: &[(TopicPartition, Offset)], at_most: Duration) -> Result<bool, Error> {
        self.shared.view.wait(positions, at_most)
    }
}

impl EmbeddedLog {
    /// Puts pins, or drops them where there is no offset: one new manifest for all of them, and none where nothing changes.
    fn edit_pins(&self, name: &str, offsets: &[(TopicPartition, Option<Offset>)]) -> Result<(), Error> {
        for (partition, _) in offsets {
            self.shared.view.index.read().partition(*partition)?;
        }
        self.shared.edit_manifest(
            |next| {
                let mut changes = false;
                for (partition, offset) in offsets {
                    let (topic, number) = (partition.topic.0, partition.partition.0);
                    let place = next.pins.iter().position(|pin| (pin.name.as_str(), pin.topic, pin.partition) == (name, topic, number));
                    let known = place.map(|place| next.pins[place].offset);
                    if known == offset.map(|offset| offset.0) {
                        continue;
                    }
                    changes = true;
                    if let Some(place) = place {
                        next.pins.remove(place);
                    }
                    next.pins.extend(offset.map(|offset| Pin { name: name.to_owned(), topic, partition: number, offset: offset.0 }));
                }
                changes.then_some(())
            },
            |index, ()| {
                for (partition, offset) in offsets {
                    match offset {
                        Some(offset) => drop(index.pins.insert((name.to_owned(), *partition), *offset)),
                        None => drop(index.pins.remove(&(name.to_owned(), *partition))),
                    }
                }
            },
        )?;
        Ok(())
    }
}

impl LogWriter for EmbeddedLog {
    fn create_topic(&self, spec: &TopicSpec) -> Result<TopicInfo, Error> {
        let _creating = self.creating.lock();
        let topics = self.shared.view.topics();
        if let Some(existing) = topics.iter().find(|info| info.spec.name == spec.name) {
            let agreed = agreed(existing, spec)?;
            if agreed != *existing {
                self.retain(&agreed)?;
            }
            return Ok(agreed);
        }
        let manifest = self.shared.manifest.lock();
        let incarnation = Incarnation(manifest.incarnation);
        let id = TopicId(manifest.topics.iter().map(|topic| topic.id + 1).max().unwrap_or(1));
        drop(manifest);
        let info = TopicInfo { id, spec: spec.clone(), incarnation };
        let partitions = (0..spec.partitions).map(|partition| TopicPartition { topic: id, partition: PartitionId(partition) });
        self.shared.edit_manifest(
            |next| {
                next.topics.push(Topic::new(id, spec));
                next.partitions.extend(partitions.map(ManifestPartition::new));
                Some(())
            },
            |index, ()| index.add_topic(info.clone()),
        )?;
        Ok(info)
    }

    fn acquire(&self, group: &Group, partition: TopicPartition) -> Result<Ownership, Error> {
        let stored = {
            let index = self.shared.view.index.read();
            index.partition(partition)?;
            index.groups.get(&(group.clone(), partition)).map_or(0, |state| state.epoch)
        };
        let mut ownership = Ownership { group: group.clone(), partition, epoch: stored + 1 };
        // Durable only after everything the owner before handed in: what it committed can be read from here on.
        let ticket = self.enqueue(Transaction::default(), Some(&mut ownership), false)?;
        self.wait_for(ticket)?;
        Ok(ownership)
    }

    fn append(&self, transaction: Transaction) -> Result<Ticket, Error> {
        self.check(&transaction)?;
        self.enqueue(transaction, None, false)
    }

    fn health(&self) -> Result<(), Error> {
        self.shared.queues.state.lock().health()?;
        self.keeps_up()
    }

    fn close(&self) {
        EmbeddedLog::close(self);
    }

    fn pin(&self, name: &str, partition: TopicPartition, offset: Option<Offset>) -> Result<(), Error> {
        self.edit_pins(name, &[(partition, offset)])
    }

    fn pin_all(&self, name: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), Error> {
        let offsets: Vec<_> = offsets.iter().map(|(partition, offset)| (*partition, Some(*offset))).collect();
        self.edit_pins(name, &offsets)
    }

    fn clean(&self, now: Millis) -> Result<u64, Error> {
        match self.roll_if_old(now) {
            // All the more reason to clean.
            Ok(()) | Err(Error::NoSpace) => retention::clean(&self.shared, now),
            Err(error) => Err(error),
        }
    }
}
