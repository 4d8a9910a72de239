//! The background: prepares the next write-ahead file and sorts full ones into segments, while appends go on.
//!
//! A sort is published by one replacement of the manifest. Until then, and after any failure, the write-ahead files remain the truth.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::index::{WalEntry, add_hole};
use super::io_error;
use super::manifest::{Hole, SegmentMeta};
use super::segment::{self, write::SegmentWriter};
use super::shared::Shared;
use super::view::read_entry;
use super::wal::{Spare, WalFile, abandon_file, make_spare, number_of, offer_spare, take_number};
use crate::domain::Millis;
use crate::env::Patience;
use crate::log::{Error, TopicPartition};

/// How long a first failure waits, and the longest pause is sixteen times that: most fail because the disk is full, and an operator needs a while.
const FIRST_PAUSE_MS: i64 = 250;
const PAUSE_AFTER_PANIC: Duration = Duration::from_secs(4);

/// Files of earlier openings that wait for the first full file of this one.
const RECOVERED_FILES_MAX: usize = 4;

#[derive(Default)]
struct State {
    wants_spare: bool,
    /// The file that is written to and its first sequence; everything below it is full.
    active: u64,
    first_of_active: u64,
    sorted_below: u64,
    /// Full files that are not sorted yet.
    unsorted: usize,
    /// Not before this, after a failure.
    retry_at: Option<Instant>,
    /// Why the last sort failed, and how many have.
    error: Option<Error>,
    failures: u64,
    /// Segments that a failed sort left behind, perhaps named by a manifest.
    unnamed: Vec<u64>,
    /// Files begun in this opening, to be used again.
    files: BTreeMap<u64, Arc<WalFile>>,
    is_closed: bool,
}

/// What the sorter is asked to do and has done.
pub(super) struct Sorting {
    state: Mutex<State>,
    changed: Condvar,
    patience: Patience,
}

impl Sorting {
    /// `recovered` files up to number `begun` wait from the opening before, with frames below `sequence`.
    pub(super) fn new(recovered: usize, begun: u64, sequence: u64) -> Sorting {
        let mut state = State { unsorted: recovered, ..State::default() };
        // A process that is started again and again must not pile up files that never fill; fewer wait for company.
        if recovered >= RECOVERED_FILES_MAX {
            (state.active, state.first_of_active) = (begun + 1, sequence);
        }
        Sorting { state: Mutex::new(state), changed: Condvar::new(), patience: Patience::default() }
    }

    pub(super) fn ask_for_spare(&self) {
        self.state.lock().wants_spare = true;
        self.changed.notify_all();
    }

    /// The file was begun with sequence `first`: those before it are full.
    pub(super) fn file_begun(&self, file: &Arc<WalFile>, first: u64) {
        let mut state = self.state.lock();
        state.unsorted += usize::from(!state.files.is_empty());
        (state.active, state.first_of_active) = (file.number, first);
        state.files.insert(file.number, Arc::clone(file));
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Something failed that is tried again, a little later each time.
    fn pause(&self, now: Millis, error: &Error, what: &str) {
        let (pause_ms, tell) = self.patience.refused(FIRST_PAUSE_MS, now);
        if tell {
            tracing::warn!(%error, "{what}");
        }
        self.state.lock().retry_at = Some(Instant::now() + Duration::from_millis(pause_ms as u64));
    }

    fn take_reusable(&self, number: u64) -> Option<Arc<WalFile>> {
        self.state.lock().files.remove(&number)
    }

    pub(super) fn unsorted_files(&self) -> usize {
        self.state.lock().unsorted
    }

    pub(super) fn why_behind(&self) -> Error {
        match &self.state.lock().error {
            Some(Error::NoSpace) => Error::NoSpace,
            _ => Error::Overloaded,
        }
    }
}

/// The sorter's thread.
pub(super) fn run(shared: &Shared) {
    loop {
        {
            let mut state = shared.sorting.state.lock();
            while !state.is_closed {
                let retry_at = state.retry_at;
                match retry_at {
                    Some(at) if shared.sorting.changed.wait_until(&mut state, at).timed_out() => state.retry_at = None,
                    Some(_) => {}
                    None if state.wants_spare || state.sorted_below < state.active => break,
                    None => shared.sorting.changed.wait(&mut state),
                }
            }
            if state.is_closed {
                return;
            }
        }
        if catch_unwind(AssertUnwindSafe(|| work(shared))).is_err() {
            tracing::error!("sorting write-ahead files into segments panicked, which is a defect; it is tried again");
            let mut state = shared.sorting.state.lock();
            state.error = Some(Error::Corrupt("sorting write-ahead files into segments panicked".to_owned()));
            state.failures += 1;
            state.retry_at = Some(Instant::now() + PAUSE_AFTER_PANIC);
            drop(state);
            shared.sorting.changed.notify_all();
        }
    }
}

/// Does what there is to do, once. Failures are kept for who waits, and tried again.
pub(super) fn work(shared: &Shared) {
    let (wants_spare, active, first, sorted_below) = {
        let mut state = shared.sorting.state.lock();
        (std::mem::take(&mut state.wants_spare), state.active, state.first_of_active, state.sorted_below)
    };
    if wants_spare && shared.spares.lock().ready.is_none() {
        let made = make_spare(&*shared.fs, &shared.dir, &shared.spares, shared.options.wal_bytes);
        if let Err(error) = made.and_then(|spare| offer_spare(&*shared.fs, &shared.dir, &shared.spares, spare)) {
            shared.sorting.pause(shared.clock.now(), &error, "cannot prepare the next write-ahead file, trying again");
        }
    }
    if sorted_below >= active {
        return;
    }
    let result = sort(shared, active, first - 1);
    let mut state = shared.sorting.state.lock();
    match result {
        Ok(()) => {
            state.sorted_below = active;
            state.error = None;
            shared.sorting.patience.taken();
            state.unsorted = if state.active == active { 0 } else { state.unsorted.min(1) };
        }
        Err(error) => {
            state.error = Some(error.clone());
            state.failures += 1;
            drop(state);
            shared.sorting.pause(shared.clock.now(), &error, "cannot sort write-ahead files into segments, trying again");
        }
    }
    shared.sorting.changed.notify_all();
}

/// Blocks until all files that are full now are sorted, or a sort fails.
pub(super) fn wait_sorted(shared: &Shared) -> Result<(), Error> {
    let mut state = shared.sorting.state.lock();
    let (target, failures) = (state.active, state.failures);
    // Do not wait out the pause after an earlier failure.
    state.retry_at = None;
    shared.sorting.changed.notify_all();
    while state.sorted_below < target {
        if state.failures > failures {
            return Err(state.error.clone().unwrap_or(Error::NoSpace));
        }
        if state.is_closed {
            return Err(Error::Closed);
        }
        if shared.options.driver == super::Driver::Threads {
            shared.sorting.changed.wait(&mut state);
        } else {
            parking_lot::MutexGuard::unlocked(&mut state, || work(shared));
        }
    }
    Ok(())
}

/// What is sorted of one partition.
struct Share {
    id: TopicPartition,
    entries: Vec<WalEntry>,
    holes: Vec<Hole>,
    base: u64,
    end: u64,
}

/// Moves everything in files below `active`, which is every frame up to `through`, into segments.
fn sort(shared: &Shared, active: u64, through: u64) -> Result<(), Error> {
    let mut shares = shares_below(shared, active);
    let mut made: Vec<(TopicPartition, SegmentMeta)> = Vec::new();
    let written = shares.iter_mut().filter(|share| !share.entries.is_empty()).try_for_each(|share| {
        made.push((share.id, write_segment(shared, share)?));
        Ok(())
    });
    let synced = written.and_then(|()| shared.fs.sync_dir(&shared.dir).map_err(|error| io_error("syncing", &shared.dir, &error)));
    if let Err(error) = synced {
        for (_, meta) in made.iter().rev() {
            abandon_file(&*shared.fs, &segment::path_of(&shared.dir, meta.file), &shared.spares, meta.file);
        }
        return Err(error);
    }
    let made: BTreeMap<TopicPartition, SegmentMeta> = made.into_iter().collect();
    let published = shared.edit_manifest(
        |manifest| {
            manifest.sorted_through = through;
            manifest.wal_first = active;
            for share in &shares {
                let Some(partition) = manifest.partition_mut(share.id) else { continue };
                partition.segments.extend(made.get(&share.id).cloned());
                partition.end = share.end;
                partition.holes = share.holes.clone();
            }
            Some(())
        },
        |index, ()| {
            for share in &shares {
                let Some(partition) = index.partitions.get_mut(&share.id) else { continue };
                partition.segments.extend(made.get(&share.id).cloned().map(Arc::new));
                partition.wal.drain(..share.entries.len());
                for hole in share.holes.iter().filter(|hole| !hole.declared) {
                    partition.add_hole(hole.from, hole.to);
                }
            }
        },
    );
    if let Err(error) = published {
        // Perhaps it was replaced after all, so its segments must stay until one that does not name them certainly was.
        shared.sorting.state.lock().unnamed.extend(made.values().map(|meta| meta.file));
        return Err(error);
    }
    drop(shares);
    remove_unnamed(shared)?;
    retire_files(shared, active)
}

/// Segments of sorts that failed at their end: the manifest in force was made without them.
fn remove_unnamed(shared: &Shared) -> Result<(), Error> {
    let unnamed = std::mem::take(&mut shared.sorting.state.lock().unnamed);
    for path in unnamed.into_iter().map(|number| segment::path_of(&shared.dir, number)).filter(|path| shared.fs.exists(path)) {
        shared.fs.remove(&path).map_err(|error| io_error("removing", &path, &error))?;
    }
    Ok(())
}

fn shares_below(shared: &Shared, active: u64) -> Vec<Share> {
    let manifest = shared.manifest.lock();
    let index = shared.view.index.read();
    let mut shares = Vec::new();
    for stored in &manifest.partitions {
        let Some(partition) = index.partitions.get(&stored.id()) else { continue };
        let count = partition.wal.partition_point(|entry| entry.file.number < active);
        let end = partition.wal.get(count).map_or(partition.end, |entry| entry.base);
        let entries: Vec<WalEntry> = partition.wal.range(..count).cloned().collect();
        let holes: Vec<Hole> = partition.holes.iter().filter(|hole| hole.from < end).copied().collect();
        if end > stored.end || holes != stored.holes {
            shares.push(Share { id: stored.id(), entries, holes, base: stored.end, end });
        }
    }
    shares
}

fn write_segment(shared: &Shared, share: &mut Share) -> Result<SegmentMeta, Error> {
    let number = take_number(&shared.spares);
    let path = segment::path_of(&shared.dir, number);
    let failed = |error: std::io::Error| io_error("writing", &path, &error);
    let result = (|| {
        let file = shared.fs.create(&path).map_err(failed)?;
        let mut writer = SegmentWriter::new(file, share.id, number, share.base, shared.options.block_bytes).map_err(failed)?;
        for entry in &share.entries {
            match read_entry(share.id, entry) {
                Ok(batch) => writer.push(batch).map_err(failed)?,
                // It was whole when it was synced and is not any more: named like any other loss.
                Err(Error::Hole { from, to, .. }) => {
                    let place = shared.view.index.read().place(share.id);
                    tracing::error!(partition = %place, %from, %to, "acknowledged records are damaged on disk; run flywheel doctor");
                    add_hole(&mut share.holes, Hole { from: from.0, to: to.0, declared: false });
                }
                Err(error) => return Err(error),
            }
        }
        writer.finish(share.end, false).map_err(failed)
    })();
    if result.is_err() {
        abandon_file(&*shared.fs, &path, &shared.spares, number);
    }
    result
}

/// Sorted files go; one of full size is used again if no spare waits.
fn retire_files(shared: &Shared, active: u64) -> Result<(), Error> {
    let failed = |error: std::io::Error| io_error("listing", &shared.dir, &error);
    for path in shared.fs.list(&shared.dir).map_err(failed)? {
        let Some(number) = number_of(&path).filter(|number| *number < active) else { continue };
        if !reuse(shared, number, &path)? {
            shared.fs.remove(&path).map_err(|error| io_error("removing", &path, &error))?;
        }
    }
    Ok(())
}

fn reuse(shared: &Shared, number: u64, path: &std::path::Path) -> Result<bool, Error> {
    let Some(used) = shared.sorting.take_reusable(number) else { return Ok(false) };
    // Someone may still read from it; and a file that failed once is not trusted again.
    let is_free = Arc::strong_count(&used) == 1 && !used.is_spoiled.load(std::sync::atomic::Ordering::Relaxed);
    let capacity = used.file.len().unwrap_or(0);
    if !is_free || capacity != shared.options.wal_bytes || shared.spares.lock().ready.is_some() {
        return Ok(false);
    }
    let file = Arc::new(WalFile::new(number, path.to_owned(), Arc::clone(&used.file)));
    offer_spare(&*shared.fs, &shared.dir, &shared.spares, Spare { file, capacity }).map(|()| true)
}
