//! Reading a folder without its lock: the command line beside a running server, or with none running.
//!
//! While a writer lives, only frames that something on disk attests as synced are served; without one, all that opening the log would keep.
//! Changes nothing in the folder. Looks again whenever it is asked about the log's end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::format::FRAMES_AT;
use super::index::Index;
use super::io_error;
use super::manifest::{self, Manifest};
use super::open::LOCK_NAME;
use super::options::Options;
use super::recover::{self, Replayed};
use super::scan::{self, Item, Scan, read_frame, read_note};
use super::view::View;
use super::wal::{WalFile, number_of};
use crate::domain::{Millis, Offset};
use crate::env::fs::Fs;
use crate::log::{Committed, Error, Fetched, Group, LogReader, TopicInfo, TopicPartition, Watermarks};

/// The writer may replace the manifest between any two calls; so often in a row it does not.
const TRIES_MAX: usize = 20;
/// Between two looks while waiting for records: nobody tells a reader.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

pub struct EmbeddedReader {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    view: View,
    at: Mutex<Place>,
    /// Never notified; waiting on it is how a reader lets time pass.
    pause: Condvar,
}

/// How far the folder has been read.
#[derive(Default)]
struct Place {
    /// The manifest's first line, which tells one from another.
    manifest: Vec<u8>,
    files: Vec<u64>,
    last: Option<Arc<WalFile>>,
    /// In the last file: the next frame and its sequence.
    at: u64,
    expected: u64,
}

impl EmbeddedReader {
    pub fn open(fs: Arc<dyn Fs>, dir: &Path) -> Result<EmbeddedReader, Error> {
        let view = View::new(Arc::clone(&fs), dir, &Options::default(), Index::default());
        let reader = EmbeddedReader { fs, dir: dir.to_owned(), view, at: Mutex::default(), pause: Condvar::new() };
        reader.refresh()?;
        Ok(reader)
    }

    /// Who has the log open for writing, if anyone.
    pub fn writer(&self) -> Result<Option<String>, Error> {
        self.fs.holder(&self.dir.join(LOCK_NAME)).map_err(|error| io_error("looking at the lock of", &self.dir, &error))
    }

    /// Looks for what was appended since.
    pub fn refresh(&self) -> Result<(), Error> {
        let mut place = self.at.lock();
        let mut result = Ok(());
        for _ in 0..TRIES_MAX {
            result = self.follow(&mut place);
            if result.is_ok() {
                return Ok(());
            }
            place.manifest.clear();
        }
        result
    }

    fn follow(&self, place: &mut Place) -> Result<(), Error> {
        let is_live = self.writer()?.is_some();
        let manifest = self.manifest_line()?;
        let files = self.wal_numbers()?;
        if manifest != place.manifest || files != place.files || place.last.is_none() {
            return self.read_all(place, is_live, manifest, files);
        }
        self.read_on(place, is_live)
    }

    fn manifest_line(&self) -> Result<Vec<u8>, Error> {
        let path = self.dir.join(manifest::NAME);
        let failed = |error: std::io::Error| io_error("reading", &path, &error);
        let mut line = vec![0; 64];
        let file = self.fs.open(&path, false).map_err(failed)?;
        // A read may come short, and half a line looks like another manifest.
        let mut len = 0;
        while len < line.len() {
            match file.read_at(&mut line[len..], len as u64).map_err(failed)? {
                0 => break,
                read => len += read,
            }
        }
        line.truncate(len);
        Ok(line)
    }

    fn wal_numbers(&self) -> Result<Vec<u64>, Error> {
        let paths = self.fs.list(&self.dir).map_err(|error| io_error("listing", &self.dir, &error))?;
        Ok(paths.iter().filter_map(|path| number_of(path)).collect())
    }

    /// Reads manifest and write-ahead files from the beginning.
    fn read_all(&self, place: &mut Place, is_live: bool, line: Vec<u8>, files: Vec<u64>) -> Result<(), Error> {
        let manifest =
            Manifest::read(&*self.fs, &self.dir)?.ok_or_else(|| Error::Corrupt(format!("there is no log in {}", self.dir.display())))?;
        let mut index = Index::from_manifest(&manifest)?;
        let found = scan::list(&*self.fs, &self.dir, manifest.wal_first, false)?;
        let scanned = scan::scan(found, manifest.sorted_through)?;
        let mut until = recover::end_of(&scanned, manifest.sorted_through).sequence;
        if is_live {
            until = until.min(scanned.attested().max(manifest.sorted_through) + 1);
        }
        recover::replay(&mut index, &scanned, manifest.sorted_through, until);
        if self.manifest_line()? != line {
            return Err(Error::Corrupt("the manifest was replaced while it was read".into()));
        }
        index.sequence = until - 1;
        *self.view.index.write() = index;
        *place = Place { manifest: line, files, ..place_after(&scanned, until) };
        Ok(())
    }

    /// Reads the frames that were added to the last file.
    fn read_on(&self, place: &mut Place, is_live: bool) -> Result<(), Error> {
        let Some(file) = place.last.clone() else { return Ok(()) };
        let failed = |error: std::io::Error| io_error("reading", &file.path, &error);
        let mut attested = if is_live { read_note(&file).map_err(failed)?.unwrap_or(0) } else { u64::MAX };
        let mut frames = Vec::new();
        let (mut at, mut expected) = (place.at, place.expected);
        while let Some(frame) = read_frame(&file, at, expected).map_err(failed)? {
            attested = attested.max(frame.head.synced);
            at += u64::from(frame.head.frame_len);
            expected += 1;
            frames.push(frame);
        }
        if attested != u64::MAX && attested >= expected {
            return Err(Error::Corrupt("a frame that was synced cannot be read".into()));
        }
        let mut index = self.view.index.write();
        for frame in frames.iter().take_while(|frame| frame.head.sequence <= attested) {
            recover::replay_frame(&mut index, &file, frame, &mut Replayed::default());
            (place.at, place.expected) = (frame.at + u64::from(frame.head.frame_len), frame.head.sequence + 1);
        }
        Ok(())
    }

    /// An answer from files that the writer may have changed: asked once more if they are not what they were.
    fn ask<T>(&self, ask: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        match ask() {
            Err(Error::Hole { .. } | Error::Io { .. } | Error::OffsetOutOfRange { .. }) => {
                self.refresh()?;
                ask()
            }
            answer => answer,
        }
    }
}

fn place_after(scanned: &Scan, until: u64) -> Place {
    let Some(file) = scanned.files.last() else {
        return Place::default();
    };
    let unserved = file.items.iter().find(|item| item.first_sequence() >= until).map(Item::at);
    let at = unserved.unwrap_or(file.end).max(FRAMES_AT);
    Place { last: Some(Arc::clone(&file.file)), at, expected: until, ..Place::default() }
}

impl LogReader for EmbeddedReader {
    fn topics(&self) -> Result<Vec<TopicInfo>, Error> {
        self.refresh()?;
        Ok(self.view.topics())
    }

    fn watermarks(&self, partition: TopicPartition) -> Result<Watermarks, Error> {
        self.refresh()?;
        self.view.watermarks(partition)
    }

    fn fetch(&self, partition: TopicPartition, from: Offset, bytes_max: usize) -> Result<Fetched, Error> {
        let is_known = self.view.has_any(&[(partition, from)]).unwrap_or(false);
        if !is_known {
            self.refresh()?;
        }
        self.ask(|| self.view.fetch(partition, from, bytes_max))
    }

    fn offset_at(&self, partition: TopicPartition, time: Millis) -> Result<Offset, Error> {
        self.refresh()?;
        self.ask(|| self.view.offset_at(partition, time))
    }

    fn committed(&self, group: &Group, partition: TopicPartition) -> Result<Option<Committed>, Error> {
        self.refresh()?;
        self.view.committed(group, partition)
    }

    fn has_declared_holes(&self, partition: TopicPartition) -> Result<bool, Error> {
        self.refresh()?;
        self.view.has_declared_holes(partition)
    }

    fn wait(&self, positions: &[(TopicPartition, Offset)], at_most: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + at_most;
        loop {
            self.refresh()?;
            if self.view.has_any(positions)? {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.pause.wait_for(&mut self.at.lock(), LOOK_AGAIN.min(left));
        }
    }
}
