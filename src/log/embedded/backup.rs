//! Copies of a log: every file that the manifest names and the synced beginning of what is not sorted yet, without the folder's mark.
//!
//! Needs no lock and stops nobody: the copy is taken again where the writer moved on meanwhile. Whoever opens it begins a new incarnation.

use std::collections::BTreeMap;
use std::path::Path;

use super::format::{NOTE_AT, NOTE_BYTES, encode_note};
use super::manifest::Manifest;
use super::open::LOCK_NAME;
use super::scan::{self, Item, Scan, ScannedFile};
use super::{doctor, io_error, recover, segment, wal};
use crate::domain::Incarnation;
use crate::env::fs::Fs;
use crate::log::Error;

/// A writer that fills this many write-ahead files while one is copied writes faster than we copy.
const TRIES_MAX: usize = 50;
const COPY_BYTES: usize = 1 << 20;

/// What a copy holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    pub files: usize,
    pub bytes: u64,
    pub incarnation: Incarnation,
}

/// Whether there is a log, or a copy of one, in `dir`.
pub fn holds_log(fs: &dyn Fs, dir: &Path) -> Result<bool, Error> {
    if dir.is_file() {
        return Ok(false);
    }
    Ok(Manifest::read(fs, dir)?.is_some())
}

/// Copies the log in `dir` to `to`, which must be empty or not exist. Beside a running writer it holds what is known to be synced.
pub fn backup(fs: &dyn Fs, dir: &Path, to: &Path) -> Result<Copied, Error> {
    make_empty(fs, to)?;
    let mut copied: BTreeMap<u64, u64> = BTreeMap::new();
    for _ in 0..TRIES_MAX {
        let manifest = Manifest::read(fs, dir)?.ok_or_else(|| Error::Corrupt(format!("there is no log in {}", dir.display())))?;
        if !copy_segments(fs, dir, to, &manifest, &mut copied)? {
            continue;
        }
        let wal = copy_wal(fs, dir, to, &manifest)?;
        let is_same = Manifest::read(fs, dir)?.is_some_and(|now| has_same_files(&now, &manifest));
        match wal {
            Some((files, bytes)) if is_same => {
                let named = finish(fs, to, &manifest, &copied)?;
                let incarnation = Incarnation(manifest.incarnation);
                return Ok(Copied { files: files + named.0, bytes: bytes + named.1, incarnation });
            }
            _ => remove_wal(fs, to)?,
        }
    }
    Err(Error::Overloaded)
}

/// Makes a log in `to` from a backup, after reading all of it. The log begins a new incarnation when it is opened.
pub fn restore(fs: &dyn Fs, from: &Path, to: &Path) -> Result<(Copied, doctor::Report), Error> {
    let report = doctor::check(fs, from)?;
    Ok((backup(fs, from, to)?, report))
}

/// Whether both name the same files and sequences, so that what was copied under one stands under the other. Pins and progress move on all
/// the time; those of the manifest that is copied belong to its files.
fn has_same_files(now: &Manifest, copied: &Manifest) -> bool {
    let Manifest { generation, next_file, last_append_ms, groups, pins, .. } = now.clone();
    Manifest { generation, next_file, last_append_ms, groups, pins, ..copied.clone() } == *now
}

fn make_empty(fs: &dyn Fs, to: &Path) -> Result<(), Error> {
    fs.create_dir_all(to).map_err(|error| io_error("making", to, &error))?;
    let there = fs.list(to).map_err(|error| io_error("listing", to, &error))?;
    match there.first() {
        None => Ok(()),
        Some(path) => {
            let message = format!("it is not empty: there is {}", path.display());
            Err(Error::Io { context: format!("copying a log to {}", to.display()), message })
        }
    }
}

/// False if a file went away meanwhile: the manifest has been replaced.
fn copy_segments(fs: &dyn Fs, dir: &Path, to: &Path, manifest: &Manifest, copied: &mut BTreeMap<u64, u64>) -> Result<bool, Error> {
    for meta in manifest.partitions.iter().flat_map(|partition| &partition.segments) {
        if copied.contains_key(&meta.file) {
            continue;
        }
        let source = segment::path_of(dir, meta.file);
        match copy(fs, &source, &segment::path_of(to, meta.file), meta.bytes) {
            Ok(bytes) => drop(copied.insert(meta.file, bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !fs.exists(&source) => {
                let is_replaced = Manifest::read(fs, dir)?.is_some_and(|now| now.generation != manifest.generation);
                if is_replaced {
                    return Ok(false);
                }
                // Damage, not a race: the copy has the hole that the log has.
                continue;
            }
            Err(error) => return Err(io_error("copying", &source, &error)),
        }
    }
    Ok(true)
}

/// Copies each write-ahead file up to its last frame that belongs to the log; `None` if one went away meanwhile.
fn copy_wal(fs: &dyn Fs, dir: &Path, to: &Path, manifest: &Manifest) -> Result<Option<(usize, u64)>, Error> {
    let is_live = fs.holder(&dir.join(LOCK_NAME)).map_err(|error| io_error("looking at the lock of", dir, &error))?.is_some();
    let scanned = match scan::list(fs, dir, manifest.wal_first, false).and_then(|files| scan::scan(files, manifest.sorted_through)) {
        Ok(scanned) => scanned,
        Err(error) => {
            let is_replaced = Manifest::read(fs, dir)?.is_some_and(|now| now.generation != manifest.generation);
            return if is_replaced { Ok(None) } else { Err(error) };
        }
    };
    let attested = scanned.attested().max(manifest.sorted_through) + 1;
    let end = recover::end_of(&scanned, manifest.sorted_through).sequence;
    let until = if is_live { end.min(attested) } else { end };
    let mut bytes = 0;
    for (file, len) in kept_lengths(&scanned, until) {
        let number = file.file.number;
        let (source, target) = (wal::path_of(dir, number), wal::path_of(to, number));
        match copy(fs, &source, &target, len).and_then(|copied| note_as_scanned(fs, &target, file, until).map(|()| copied)) {
            Ok(copied) => bytes += copied,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("copying", &source, &error)),
        }
    }
    Ok(Some((scanned.files.len(), bytes)))
}

fn kept_lengths(scanned: &Scan, until: u64) -> impl Iterator<Item = (&ScannedFile, u64)> {
    scanned.files.iter().map(move |file| {
        let cut = file.items.iter().find(|item| item.first_sequence() >= until).map(Item::at);
        (file, cut.unwrap_or(file.end))
    })
}

/// The writer may have noted later frames as synced between the scan and the copy: those are not in the copy, so neither is their note.
fn note_as_scanned(fs: &dyn Fs, copy: &Path, scanned: &ScannedFile, until: u64) -> std::io::Result<()> {
    let note = scanned.note.map_or([0; NOTE_BYTES], |synced| encode_note(scanned.file.number, synced.min(until - 1)));
    let copy = fs.open(copy, true)?;
    copy.write_all_at(&note, NOTE_AT)?;
    copy.sync_data()
}

fn remove_wal(fs: &dyn Fs, to: &Path) -> Result<(), Error> {
    for path in fs.list(to).map_err(|error| io_error("listing", to, &error))? {
        if wal::number_of(&path).is_some() {
            fs.remove(&path).map_err(|error| io_error("removing", &path, &error))?;
        }
    }
    Ok(())
}

/// Writes the manifest of the copy and removes what it does not name.
fn finish(fs: &dyn Fs, to: &Path, manifest: &Manifest, copied: &BTreeMap<u64, u64>) -> Result<(usize, u64), Error> {
    let mut named = (1, 0);
    for (number, bytes) in copied {
        if manifest.partitions.iter().any(|partition| partition.segments.iter().any(|meta| meta.file == *number)) {
            named = (named.0 + 1, named.1 + bytes);
            continue;
        }
        let path = segment::path_of(to, *number);
        fs.remove(&path).map_err(|error| io_error("removing", &path, &error))?;
    }
    fs.sync_dir(to).map_err(|error| io_error("syncing", to, &error))?;
    Manifest { instance: String::new(), ..manifest.clone() }.write(fs, to)?;
    Ok(named)
}

/// Copies the first `len` bytes, or what there is, and syncs them.
fn copy(fs: &dyn Fs, from: &Path, to: &Path, len: u64) -> std::io::Result<u64> {
    let source = fs.open(from, false)?;
    if fs.exists(to) {
        fs.remove(to)?;
    }
    let target = fs.create(to)?;
    let len = len.min(source.len()?);
    let mut buffer = vec![0; COPY_BYTES.min(len as usize)];
    let mut at = 0;
    while at < len {
        let part = &mut buffer[..COPY_BYTES.min((len - at) as usize)];
        source.read_exact_at(part, at)?;
        target.write_all_at(part, at)?;
        at += part.len() as u64;
    }
    target.sync_data()?;
    Ok(len)
}
