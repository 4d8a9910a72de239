//! Opening a folder for writing: lock, manifest, mark, recovery, threads.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;

use parking_lot::{Mutex, RwLock};

use super::committer::{Committer, Machine, Queues, guarded, run_syncer};
use super::encoder::Encoder;
use super::index::Index;
use super::manifest::{Manifest, read_whole};
use super::metrics::Metrics;
use super::options::{Driver, Options};
use super::recover::{self, Replayed};
use super::shared::Shared;
use super::sorter::{self, Sorting};
use super::tail::Tail;
use super::view::View;
use super::wal::{Spare, Spares, Wal, WalFile};
use super::{EmbeddedLog, io_error, scan, segment, wal};
use crate::domain::{Incarnation, Millis};
use crate::env::Clock;
use crate::env::fs::Fs;
use crate::log::Error;

pub(super) const LOCK_NAME: &str = "LOCK";
/// Says that this folder is the very one the log was written in, not a copy: backups leave it out.
pub(super) const MARK_NAME: &str = "INSTANCE";
/// The last incarnation that began because the folder was a copy. Written before the mark, so that none is forgotten.
const COPIED_NAME: &str = "COPIED";

pub(super) fn open(fs: Arc<dyn Fs>, dir: &Path, options: Options, clock: Arc<dyn Clock>) -> Result<Arc<EmbeddedLog>, Error> {
    fs.create_dir_all(dir).map_err(|error| io_error("making", dir, &error))?;
    let lock = fs.lock(&dir.join(LOCK_NAME), &options.holder).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Error::Locked { folder: dir.display().to_string(), holder: error.to_string() },
        _ => io_error("locking", dir, &error),
    })?;
    let mut manifest = read_manifest(&*fs, dir)?;
    // A killed process may have left a manifest that is not durable yet; nothing that the one before names may go until it is.
    fs.sync_dir(dir).map_err(|error| io_error("syncing", dir, &error))?;
    let mut index = Index::from_manifest(&manifest)?;
    let files = scan::list(&*fs, dir, 0, true)?;
    let newest_file = files.iter().map(|file| file.number).chain(segment_numbers(&*fs, dir)?).max().unwrap_or(0);
    manifest.next_file = manifest.next_file.max(newest_file + 1);
    let (wanted, done): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.number >= manifest.wal_first);
    for file in done {
        fs.remove(&file.path).map_err(|error| io_error("removing", &file.path, &error))?;
    }
    let scanned = scan::scan(wanted, manifest.sorted_through)?;
    let end = recover::end_of(&scanned, manifest.sorted_through);
    let replayed = recover::replay(&mut index, &scanned, manifest.sorted_through, end.sequence);
    for (id, from, to) in &replayed.holes {
        tracing::error!(partition = %index.place(*id), from, to, "acknowledged records are damaged on disk; run flywheel doctor");
    }
    recover::repair(&*fs, dir, &scanned, end)?;
    // What was found missing is remembered: the next opening may no longer see how much it was.
    for stored in &mut manifest.partitions {
        stored.holes = index.partitions.get(&stored.id()).map_or_else(Vec::new, |partition| partition.holes.clone());
    }
    begin_epoch(&*fs, dir, &mut manifest, clock.now())?;
    let copied = copied(&*fs, dir)?;
    index.set_incarnation(Incarnation(manifest.incarnation));
    let begun = scanned.files.last().map_or(0, |file| file.file.number);
    let spares = Spares { ready: reuse(&*fs, &scanned.unused, begun)?, next_number: manifest.next_file, begun };
    remove_orphans(&*fs, dir, &manifest)?;
    let recovered_files = scanned.files.len();
    start(Parts { fs, dir, options, clock, manifest, index, replayed, recovered_files, spares, lock, copied })
}

fn segment_numbers(fs: &dyn Fs, dir: &Path) -> Result<Vec<u64>, Error> {
    let paths = fs.list(dir).map_err(|error| io_error("listing", dir, &error))?;
    Ok(paths.iter().filter_map(|path| segment::number_of(path)).collect())
}

fn read_manifest(fs: &dyn Fs, dir: &Path) -> Result<Manifest, Error> {
    if let Some(manifest) = Manifest::read(fs, dir)? {
        return Ok(manifest);
    }
    let files = fs.list(dir).map_err(|error| io_error("listing", dir, &error))?;
    if files.iter().any(|path| segment::number_of(path).is_some() || wal::number_of(path).is_some()) {
        return Err(Error::Corrupt(format!("{} has records but no manifest; restore a backup", dir.display())));
    }
    Ok(Manifest::new(Millis::MIN))
}

/// Every opening has an epoch of its own; one without the folder's mark begins a new incarnation.
fn begin_epoch(fs: &dyn Fs, dir: &Path, manifest: &mut Manifest, now: Millis) -> Result<(), Error> {
    let mark_path = dir.join(MARK_NAME);
    let is_new = manifest.epoch == 0;
    let mark = match read_whole(fs, &mark_path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(io_error("reading", &mark_path, &error)),
    };
    let is_marked = !manifest.instance.is_empty() && mark == manifest.instance;
    manifest.epoch += 1;
    manifest.generation += 1;
    if is_marked {
        return manifest.write(fs, dir);
    }
    if !is_new {
        manifest.incarnation += 1;
        tracing::warn!(incarnation = manifest.incarnation, "the folder is a copy: a new incarnation of the log begins");
        write_small(fs, dir, COPIED_NAME, &manifest.incarnation.to_string())?;
    }
    manifest.instance = format!("{} {} {}", manifest.incarnation, manifest.epoch, now.0);
    // The mark first: whoever stops between the two begins the same incarnation again, not one more.
    write_small(fs, dir, MARK_NAME, &manifest.instance)?;
    manifest.write(fs, dir)
}

fn write_small(fs: &dyn Fs, dir: &Path, name: &str, text: &str) -> Result<(), Error> {
    let path = dir.join(name);
    let failed = |error: std::io::Error| io_error("writing", &path, &error);
    if fs.exists(&path) {
        fs.remove(&path).map_err(failed)?;
    }
    let file = fs.create(&path).map_err(failed)?;
    file.write_all_at(text.as_bytes(), 0).map_err(failed)?;
    file.sync_data().map_err(failed)?;
    fs.sync_dir(dir).map_err(failed)
}

/// The last incarnation that began because the folder was a copy.
fn copied(fs: &dyn Fs, dir: &Path) -> Result<Option<Incarnation>, Error> {
    let path = dir.join(COPIED_NAME);
    match read_whole(fs, &path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).trim().parse().ok().map(Incarnation)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("reading", &path, &error)),
    }
}

/// Segments that no manifest names: a process stopped between writing and publishing them, or before removing them.
fn remove_orphans(fs: &dyn Fs, dir: &Path, manifest: &Manifest) -> Result<(), Error> {
    let named: BTreeSet<u64> = manifest.partitions.iter().flat_map(|partition| partition.segments.iter().map(|meta| meta.file)).collect();
    for path in fs.list(dir).map_err(|error| io_error("listing", dir, &error))? {
        if segment::number_of(&path).is_some_and(|number| !named.contains(&number)) {
            fs.remove(&path).map_err(|error| io_error("removing", &path, &error))?;
        }
    }
    Ok(())
}

/// Takes a file that was prepared and never used, if it follows all that were; the others go.
fn reuse(fs: &dyn Fs, unused: &[Arc<WalFile>], begun: u64) -> Result<Option<Spare>, Error> {
    let mut ready = None;
    for file in unused {
        let failed = |error: std::io::Error| io_error("reusing", &file.path, &error);
        let capacity = file.file.len().map_err(failed)?;
        if ready.is_none() && capacity > super::format::FRAMES_AT && file.number > begun {
            ready = Some(Spare { file: Arc::clone(file), capacity });
        } else {
            fs.remove(&file.path).map_err(failed)?;
        }
    }
    Ok(ready)
}

struct Parts<'a> {
    fs: Arc<dyn Fs>,
    dir: &'a Path,
    options: Options,
    clock: Arc<dyn Clock>,
    manifest: Manifest,
    index: Index,
    replayed: Replayed,
    recovered_files: usize,
    spares: Spares,
    lock: Box<dyn crate::env::fs::Lock>,
    copied: Option<Incarnation>,
}

fn start(parts: Parts<'_>) -> Result<Arc<EmbeddedLog>, Error> {
    let Parts { fs, dir, options, clock, manifest, index, replayed, recovered_files, spares, lock, copied } = parts;
    let encoder = Encoder::new(manifest.epoch, index.sequence, index.last_append, replayed.previous.clone());
    let spares = Arc::new(Mutex::new(spares));
    let wal = Wal::new(Arc::clone(&fs), dir, manifest.epoch, options.wal_first_bytes, Arc::clone(&spares));
    let sorting = Sorting::new(recovered_files, spares.lock().begun, index.sequence + 1);
    let tail_bytes_max = options.tail_bytes_max;
    let driver = options.driver;
    let shared = Arc::new(Shared {
        view: View::new(Arc::clone(&fs), dir, &options, index),
        fs,
        dir: dir.to_owned(),
        options,
        clock,
        queues: Queues::default(),
        manifest: Mutex::new(manifest),
        sorting,
        maintenance: Mutex::new(()),
        spares,
        active_file: AtomicU64::new(0),
        tail: Mutex::new(Tail::new(tail_bytes_max)),
        previous: RwLock::new(replayed.previous),
        metrics: Metrics::new(),
    });
    let committer = Committer::new(Arc::clone(&shared), encoder);
    let mut threads = Vec::new();
    let machine = match driver {
        Driver::Caller { .. } => Some(Machine { committer, wal }),
        Driver::Threads => {
            let failed = |error: std::io::Error| Error::io("starting the log's threads", &error);
            let [committing, syncing, sorting] = std::array::from_fn(|_| Arc::clone(&shared));
            threads.push(
                thread::Builder::new()
                    .name("log-commit".into())
                    .spawn(move || guarded(&committing, "committing", || committer.run()))
                    .map_err(failed)?,
            );
            threads.push(
                thread::Builder::new()
                    .name("log-sync".into())
                    .spawn(move || guarded(&syncing, "syncing", || run_syncer(&syncing, wal)))
                    .map_err(failed)?,
            );
            threads.push(thread::Builder::new().name("log-sort".into()).spawn(move || sorter::run(&sorting)).map_err(failed)?);
            None
        }
    };
    Ok(Arc::new(EmbeddedLog {
        shared,
        machine: Mutex::new(machine),
        threads: Mutex::new(threads),
        creating: Mutex::new(()),
        lock: Mutex::new(Some(lock)),
        copied,
    }))
}
