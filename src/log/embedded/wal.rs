//! Write-ahead files: making them, writing a group to one, and getting out of a file that failed.
//!
//! Owns which file is written at which place. A file is filled with zeros before use, so that a sync has no sizes or extents to journal,
//! and is used again under a new number once its frames are in segments. After a failed write or sync nothing more is written to that file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::format::{FRAMES_AT, NOTE_AT, WalHead, encode_note};
use super::io_error;
use crate::domain::Millis;
use crate::env::fs::{File, Fs};
use crate::log::Error;

const EXTENSION: &str = "wal";
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
/// A group whose sync failed is tried on this many new files before the log gives up: a second bad file means a bad disk.
const NEW_FILES_TRIED_MAX: usize = 2;

/// One write-ahead file. Readers that hold it keep it from being used again.
pub(super) struct WalFile {
    pub number: u64,
    pub path: PathBuf,
    pub file: Arc<dyn File>,
    /// A write or sync of it failed, or it was left by another process: not to be used again.
    pub is_spoiled: AtomicBool,
}

impl WalFile {
    pub(super) fn new(number: u64, path: PathBuf, file: Arc<dyn File>) -> WalFile {
        WalFile { number, path, file, is_spoiled: AtomicBool::new(false) }
    }
}

pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.{EXTENSION}"))
}

/// The number in a write-ahead file's name.
pub(super) fn number_of(path: &Path) -> Option<u64> {
    if path.extension()? != EXTENSION {
        return None;
    }
    path.file_stem()?.to_str()?.parse().ok()
}

/// Where a group landed.
pub(super) struct Placement {
    pub file: Arc<WalFile>,
    pub at: u64,
    pub synced_in: Duration,
}

pub(super) enum WriteError {
    /// Nothing of the group will be found after a restart: its callers may try again.
    Refused(Error),
    /// Nobody can say whether it will be found: the log must stop.
    Unknown(Error),
}

/// An empty file, zero-filled and durable by name, waiting for its head.
pub(super) struct Spare {
    pub file: Arc<WalFile>,
    pub capacity: u64,
}

/// The place where the sorter leaves spares and the writer takes them; also hands out file numbers.
#[derive(Default)]
pub(super) struct Spares {
    pub ready: Option<Spare>,
    pub next_number: u64,
    /// The highest number that a file was begun under. Only higher ones may be begun: files are ordered by number.
    pub begun: u64,
}

impl Spares {
    /// From here on the file `number` is written to. A spare of a lower number came while that one was made in a hurry: it is behind, and
    /// goes with the full files, so it must not be begun after it.
    fn begin(&mut self, number: u64) {
        self.begun = number;
        self.ready.take_if(|spare| spare.file.number <= number);
    }
}

struct Current {
    file: Arc<WalFile>,
    at: u64,
    capacity: u64,
}

/// The only writer of write-ahead files; owned by whoever syncs.
pub(super) struct Wal {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    epoch: u64,
    /// Capacity of a file made in a hurry, because no spare was ready.
    hurried_bytes: u64,
    spares: Arc<Mutex<Spares>>,
    current: Option<Current>,
    /// The highest sequence known synced, and what the note on disk says of it.
    synced: u64,
    noted: u64,
}

impl Wal {
    pub(super) fn new(fs: Arc<dyn Fs>, dir: &Path, epoch: u64, hurried_bytes: u64, spares: Arc<Mutex<Spares>>) -> Wal {
        Wal { fs, dir: dir.to_owned(), epoch, hurried_bytes, spares, current: None, synced: 0, noted: 0 }
    }

    /// Writes and syncs one group; `first..=last` are its frames' sequences.
    pub(super) fn write_group(&mut self, group: &[u8], first: u64, last: u64, now: Millis, roll: bool) -> Result<Placement, WriteError> {
        let has_room = self.current.as_ref().is_some_and(|current| current.at + group.len() as u64 <= current.capacity);
        if roll || !has_room {
            self.begin_file(group.len() as u64, first, now).map_err(WriteError::Refused)?;
        }
        for _ in 0..NEW_FILES_TRIED_MAX {
            let current = self.current.as_ref().expect("a file was begun");
            let (file, at) = (Arc::clone(&current.file), current.at);
            let mut begun = None;
            let mut sync = || {
                begun = Some(Instant::now());
                file.file.sync_data()
            };
            if let Err(error) = file.file.write_all_at(group, at) {
                self.leave_after_failed_write(&file, at, &error)?;
            } else if let Err(error) = sync() {
                // The kernel may have dropped the pages and call them clean: only another file can be trusted with this group.
                tracing::warn!(file = %file.path.display(), %error, "sync of the write-ahead file failed, moving to a new one");
                self.leave(&file);
            } else {
                self.current.as_mut().expect("still the same").at = at + group.len() as u64;
                self.synced = last;
                let synced_in = begun.map_or(Duration::ZERO, |begun| begun.elapsed());
                return Ok(Placement { file, at, synced_in });
            }
            self.begin_file(group.len() as u64, first, now).map_err(unknown)?;
        }
        let message = "syncing failed on several files in a row".to_owned();
        Err(WriteError::Unknown(Error::Io { context: format!("writing to {}", self.dir.display()), message }))
    }

    fn leave(&mut self, file: &WalFile) {
        file.is_spoiled.store(true, Ordering::Relaxed);
        self.current = None;
    }

    /// A full disk refuses the group, for certain once what was written of it is cut. Any other failure: on to a new file.
    fn leave_after_failed_write(&mut self, file: &WalFile, at: u64, error: &io::Error) -> Result<(), WriteError> {
        self.leave(file);
        if !super::is_no_space(error) {
            tracing::warn!(file = %file.path.display(), %error, "writing the write-ahead file failed, moving to a new one");
            return Ok(());
        }
        // Cutting needs no space, which writing over it may where writes are copies.
        let wiped = file.file.set_len(at).and_then(|()| file.file.sync_data());
        match wiped {
            Ok(()) => Err(WriteError::Refused(Error::NoSpace)),
            Err(_) => Ok(()),
        }
    }

    /// Goes on in another file. Its head becomes durable with the group that is written next.
    fn begin_file(&mut self, group_bytes: u64, first_sequence: u64, now: Millis) -> Result<(), Error> {
        let needed = FRAMES_AT + group_bytes;
        let ready = self.spares.lock().ready.take().filter(|spare| spare.capacity >= needed);
        let spare = match ready {
            Some(spare) => spare,
            None => make_spare(&*self.fs, &self.dir, &self.spares, needed.max(self.hurried_bytes))?,
        };
        self.spares.lock().begin(spare.file.number);
        let head = WalHead { number: spare.file.number, epoch: self.epoch, first_sequence, created: now };
        spare.file.file.write_all_at(&head.encode(), 0).map_err(|error| io_error("writing", &spare.file.path, &error))?;
        self.current = Some(Current { file: spare.file, at: FRAMES_AT, capacity: spare.capacity });
        self.synced = first_sequence - 1;
        self.noted = self.synced;
        Ok(())
    }

    /// True once the current file is more than half full, when the next one should be made.
    pub(super) fn wants_spare(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.at * 2 > current.capacity) && self.spares.lock().ready.is_none()
    }

    /// Tells readers how far it is synced, when no frame follows that would. Only a hint: failing to write it harms nobody.
    pub(super) fn note_synced(&mut self) {
        if let Some(current) = &self.current
            && self.noted < self.synced
        {
            current.file.file.write_all_at(&encode_note(current.file.number, self.synced), NOTE_AT).ok();
            self.noted = self.synced;
        }
    }

    pub(super) fn has_unnoted(&self) -> bool {
        self.noted < self.synced
    }
}

/// A group that may be found after a restart must not be tried again, not even when there is space.
fn unknown(error: Error) -> WriteError {
    match error {
        Error::NoSpace => {
            WriteError::Unknown(Error::Io { context: "leaving a failed write-ahead file".into(), message: error.to_string() })
        }
        error => WriteError::Unknown(error),
    }
}

pub(super) fn take_number(spares: &Mutex<Spares>) -> u64 {
    let mut spares = spares.lock();
    spares.next_number += 1;
    spares.next_number - 1
}

/// Removes a file that did not come to be. Its number is free again, unless another was handed out since or the file is still there: a full
/// disk that lasts must not use up numbers.
pub(super) fn abandon_file(fs: &dyn Fs, path: &Path, spares: &Mutex<Spares>, number: u64) {
    // Nothing names it; what cannot be removed now goes at the next opening.
    fs.remove(path).ok();
    let mut spares = spares.lock();
    if spares.next_number == number + 1 && !fs.exists(path) {
        spares.next_number = number;
    }
}

/// Leaves a spare for the writer; one that was overtaken while it was made gets a number past the others first.
pub(super) fn offer_spare(fs: &dyn Fs, dir: &Path, spares: &Mutex<Spares>, mut spare: Spare) -> Result<(), Error> {
    let mut spares = spares.lock();
    if spare.file.number <= spares.begun {
        let number = spares.next_number;
        spares.next_number += 1;
        let (old, path) = (&spare.file.path, path_of(dir, number));
        let moved = fs.rename(old, &path).and_then(|()| fs.sync_dir(dir));
        moved.map_err(|error| io_error("renaming", old, &error))?;
        spare.file = Arc::new(WalFile::new(number, path, Arc::clone(&spare.file.file)));
    }
    spares.ready = Some(spare);
    Ok(())
}

/// Makes an empty file of `capacity` bytes that survives a crash as such.
pub(super) fn make_spare(fs: &dyn Fs, dir: &Path, spares: &Mutex<Spares>, capacity: u64) -> Result<Spare, Error> {
    let number = take_number(spares);
    let path = path_of(dir, number);
    let made = fill_new_file(fs, &path, capacity).and_then(|file| fs.sync_dir(dir).map(|()| file));
    match made {
        Ok(file) => Ok(Spare { file: Arc::new(WalFile::new(number, path, file)), capacity }),
        Err(error) => {
            // A half-made file would hold on to the space that is missing.
            abandon_file(fs, &path, spares, number);
            Err(io_error("making", &path, &error))
        }
    }
}

fn fill_new_file(fs: &dyn Fs, path: &Path, capacity: u64) -> io::Result<Arc<dyn File>> {
    let file = fs.create(path)?;
    let mut at = 0;
    while at < capacity {
        let len = (capacity - at).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..len as usize], at)?;
        at += len;
    }
    file.sync_data()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::fs::SimFs;

    /// Found by seed 27 with threads: it was begun after its name had been removed with the full files, and what was acknowledged into it
    /// was gone at the next opening.
    #[test]
    fn a_spare_that_was_overtaken_while_it_was_offered_is_not_begun() {
        let (fs, dir) = (SimFs::new(0), Path::new("log"));
        fs.create_dir_all(dir).unwrap();
        let spares = Mutex::new(Spares { next_number: 1, ..Spares::default() });
        let overtaken = make_spare(&fs, dir, &spares, 8192).unwrap();
        let hurried = make_spare(&fs, dir, &spares, 8192).unwrap();
        // Offered after the writer looked for one, and before the writer began the file it made itself.
        offer_spare(&fs, dir, &spares, overtaken).unwrap();
        spares.lock().begin(hurried.file.number);
        assert!(spares.lock().ready.is_none());
        // One that is ahead stays, and one that comes late gets a number past the others.
        let ahead = make_spare(&fs, dir, &spares, 8192).unwrap();
        offer_spare(&fs, dir, &spares, ahead).unwrap();
        spares.lock().begin(2);
        assert_eq!(spares.lock().ready.as_ref().map(|spare| spare.file.number), Some(3));
    }
}
