//! Reads write-ahead files as they were left: frames in order, and the places where there should be one and is none.
//!
//! Finds and verifies; judges nothing. `recover` decides which damage is a torn tail and which is a hole.

use std::path::Path;
use std::sync::Arc;

use super::format::{FRAME_ALIGN, FRAME_HEAD_BYTES, FRAME_MAGIC, FRAMES_AT, FrameHead, NOTE_AT, NOTE_BYTES, WalHead, decode_note};
use super::io_error;
use super::wal::{WalFile, number_of};
use super::window::Window;
use crate::env::fs::Fs;
use crate::log::Error;

pub(super) struct ScannedFrame {
    pub head: FrameHead,
    pub at: u64,
    /// Which of its batches do not match their checksum.
    pub damaged: Vec<usize>,
}

/// Frames that should be in `[at, until)` of a file and cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub first: u64,
    pub last: u64,
    pub at: u64,
    /// No more bytes than this were lost.
    pub bytes_max: u64,
}

pub(super) enum Item {
    Frame(ScannedFrame),
    Gap(Gap),
}

impl Item {
    pub(super) fn first_sequence(&self) -> u64 {
        match self {
            Item::Frame(frame) => frame.head.sequence,
            Item::Gap(gap) => gap.first,
        }
    }

    pub(super) fn at(&self) -> u64 {
        match self {
            Item::Frame(frame) => frame.at,
            Item::Gap(gap) => gap.at,
        }
    }
}

pub(super) struct ScannedFile {
    pub file: Arc<WalFile>,
    pub head: Option<WalHead>,
    pub note: Option<u64>,
    pub items: Vec<Item>,
    /// Where the last readable frame ends.
    pub end: u64,
    /// The file's length.
    pub len: u64,
    /// Past the last byte that is not zero.
    dirty_end: u64,
}

#[derive(Default)]
pub(super) struct Scan {
    pub files: Vec<ScannedFile>,
    /// Files that were never written to.
    pub unused: Vec<Arc<WalFile>>,
    pub bytes_read: u64,
}

impl Scan {
    /// The highest sequence that something on disk says was synced.
    pub(super) fn attested(&self) -> u64 {
        let mut attested = 0;
        for file in &self.files {
            attested = attested.max(file.note.unwrap_or(0)).max(file.head.map_or(0, |head| head.first_sequence - 1));
            for item in &file.items {
                if let Item::Frame(frame) = item {
                    attested = attested.max(frame.head.synced);
                }
            }
        }
        attested
    }

    /// Frames that something attests, where nothing readable follows: the very last ones.
    fn add_lost_end(&mut self, expected: u64) {
        let attested = self.attested();
        if let Some(file) = self.files.last_mut().filter(|_| attested >= expected) {
            let bytes_max = file.dirty_end.saturating_sub(file.end);
            file.items.push(Item::Gap(Gap { first: expected, last: attested, at: file.end, bytes_max }));
        }
    }
}

/// The write-ahead files of a folder from number `first` on, in order.
pub(super) fn list(fs: &dyn Fs, dir: &Path, first: u64, write: bool) -> Result<Vec<Arc<WalFile>>, Error> {
    let failed = |error: std::io::Error| io_error("listing", dir, &error);
    let mut files = Vec::new();
    for path in fs.list(dir).map_err(failed)? {
        if let Some(number) = number_of(&path).filter(|number| *number >= first) {
            let file = fs.open(&path, write).map_err(|error| io_error("opening", &path, &error))?;
            files.push(Arc::new(WalFile::new(number, path, file)));
        }
    }
    files.sort_by_key(|file| file.number);
    Ok(files)
}

/// Scans `files`; frames up to `sorted_through` are not wanted any more.
pub(super) fn scan(files: Vec<Arc<WalFile>>, sorted_through: u64) -> Result<Scan, Error> {
    let mut scan = Scan::default();
    let mut heads = Vec::new();
    for file in &files {
        heads.push(read_head(file)?);
    }
    let mut expected = sorted_through + 1;
    for (nth, file) in files.iter().enumerate() {
        // A later file's head voids what is here from its first sequence on: a group that failed here was written there.
        let limit = heads[nth + 1..].iter().flatten().map(|head| head.first_sequence).min().unwrap_or(u64::MAX);
        let scanned = scan_file(file, heads[nth], expected, limit).map_err(|error| io_error("reading", &file.path, &error))?;
        scan.bytes_read += scanned.len;
        let found_frame = scanned.items.iter().any(|item| matches!(item, Item::Frame(_)));
        if scanned.head.is_none() && !found_frame {
            scan.unused.push(Arc::clone(file));
            continue;
        }
        expected = scanned.items.iter().fold(expected, |expected, item| match item {
            Item::Frame(frame) => frame.head.sequence + 1,
            Item::Gap(gap) => (gap.last + 1).max(expected),
        });
        scan.files.push(scanned);
    }
    scan.add_lost_end(expected);
    Ok(scan)
}

/// The frames of one file from sequence `expected` on, all before `limit`.
fn scan_file(file: &Arc<WalFile>, head: Option<WalHead>, expected: u64, limit: u64) -> std::io::Result<ScannedFile> {
    let begin = head.map_or(expected, |head| head.first_sequence);
    let mut bytes = Window::new(&*file.file)?;
    let mut scanned = ScannedFile {
        file: Arc::clone(file),
        head,
        note: bytes.get(NOTE_AT, NOTE_BYTES)?.and_then(|note| decode_note(note, file.number)),
        items: Vec::new(),
        end: FRAMES_AT,
        len: bytes.len(),
        dirty_end: bytes.dirty_end()?,
    };
    if begin > expected {
        let bytes_max = MISSING_FILE_BYTES;
        scanned.items.push(Item::Gap(Gap { first: expected, last: begin - 1, at: FRAMES_AT, bytes_max }));
    }
    scan_frames(&mut scanned, &mut bytes, begin.max(expected), limit)?;
    Ok(scanned)
}

/// What a file that is not there may have held: no write-ahead file is larger without a good reason.
const MISSING_FILE_BYTES: u64 = 64 << 20;

fn read_head(file: &WalFile) -> Result<Option<WalHead>, Error> {
    let mut bytes = [0; super::format::WAL_HEAD_BYTES];
    match file.file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(WalHead::decode(&bytes).filter(|head| head.number == file.number)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(io_error("reading", &file.path, &error)),
    }
}

fn scan_frames(scanned: &mut ScannedFile, bytes: &mut Window, begin: u64, limit: u64) -> std::io::Result<()> {
    let mut expected = begin;
    let mut at = FRAMES_AT;
    while expected < limit {
        if let Some(frame) = frame_at(bytes, at, |sequence| sequence == expected)? {
            at += u64::from(frame.head.frame_len);
            expected += 1;
            scanned.end = at;
            scanned.items.push(Item::Frame(frame));
            continue;
        }
        let is_wanted = |sequence| sequence >= expected && sequence < limit;
        let Some(next) = find_frame(bytes, at, scanned.dirty_end, is_wanted)? else { break };
        let bytes_max = next.at - at;
        if next.head.sequence > expected {
            let gap = Gap { first: expected, last: next.head.sequence - 1, at, bytes_max };
            scanned.items.push(Item::Gap(gap));
        }
        expected = next.head.sequence;
        at = next.at;
    }
    // Sequences stop here but go on in the next file: that file's head says that all of them were durable.
    if limit != u64::MAX && expected < limit {
        let bytes_max = bytes.len().saturating_sub(at).max(MISSING_FILE_BYTES);
        scanned.items.push(Item::Gap(Gap { first: expected, last: limit - 1, at, bytes_max }));
    }
    Ok(())
}

/// The frame `expected` at `at` of a file that is being written to, if it is there whole.
pub(super) fn read_frame(file: &WalFile, at: u64, expected: u64) -> std::io::Result<Option<ScannedFrame>> {
    let frame = frame_at(&mut Window::sized(&*file.file, FRAME_HEAD_BYTES)?, at, |sequence| sequence == expected)?;
    Ok(frame.filter(|frame| frame.damaged.is_empty()))
}

/// The note in a file's head, if it has one.
pub(super) fn read_note(file: &WalFile) -> std::io::Result<Option<u64>> {
    let mut bytes = [0; super::format::NOTE_BYTES];
    file.file.read_exact_at(&mut bytes, NOTE_AT)?;
    Ok(decode_note(&bytes, file.number))
}

fn frame_at(bytes: &mut Window, at: u64, is_wanted: impl Fn(u64) -> bool) -> std::io::Result<Option<ScannedFrame>> {
    let Some((frame_len, head_len)) = bytes.get(at, FRAME_HEAD_BYTES)?.and_then(FrameHead::peek_lens) else { return Ok(None) };
    let Some(head) = bytes.get(at, head_len as usize)?.and_then(FrameHead::decode).filter(|head| is_wanted(head.sequence)) else {
        return Ok(None);
    };
    let Some(frame) = bytes.get(at, frame_len as usize)? else { return Ok(None) };
    let mut damaged = Vec::new();
    for (nth, (entry, begin)) in head.placed().enumerate() {
        let is_whole = frame.get(begin..begin + entry.len as usize).is_some_and(|data| crc32c::crc32c(data) == entry.crc);
        if !is_whole {
            damaged.push(nth);
        }
    }
    Ok(Some(ScannedFrame { head, at, damaged }))
}

/// The next frame after `after`. None begins where only zeros follow.
fn find_frame(bytes: &mut Window, after: u64, dirty_end: u64, is_wanted: impl Fn(u64) -> bool) -> std::io::Result<Option<ScannedFrame>> {
    let mut at = after + 1;
    while let Some(found) = bytes.find(FRAME_MAGIC, at, dirty_end)? {
        if found.is_multiple_of(FRAME_ALIGN as u64)
            && let Some(frame) = frame_at(bytes, found, &is_wanted)?
        {
            return Ok(Some(frame));
        }
        at = found + 1;
    }
    Ok(None)
}
