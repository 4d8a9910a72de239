//! Opening a log that somebody left: what is taken, what is cut, what is missing.
//!
//! A bad frame that nothing attests as synced is a torn tail: it and everything after it go. A bad frame that was attested held
//! acknowledged records: the offsets that went with it become a named hole, and everything else stays.

use std::collections::BTreeSet;

use super::format::{PreviousEntry, RECORD_BYTES_MIN, WalHead};
use super::index::{Index, WalEntry};
use super::io_error;
use super::scan::{Gap, Item, Scan, ScannedFile, ScannedFrame};
use super::wal::WalFile;
use crate::domain::Millis;
use crate::env::fs::Fs;
use crate::log::{Error, TopicPartition};
use std::path::Path;
use std::sync::Arc;

/// Where the log ends: frames from `sequence` on are not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub sequence: u64,
    /// The file and place of the first byte that is not part of it; `None` if nothing is cut.
    pub cut: Option<(u64, u64)>,
}

/// The end of an abandoned log: the first damage that is not attested, or the last frame.
pub(super) fn end_of(scan: &Scan, sorted_through: u64) -> End {
    let attested = scan.attested();
    let mut next = sorted_through + 1;
    for file in &scan.files {
        for item in &file.items {
            let (last, is_good) = match item {
                Item::Frame(frame) => (frame.head.sequence, frame.damaged.is_empty()),
                Item::Gap(gap) => (gap.last, false),
            };
            if !is_good && last > attested {
                let sequence = item.first_sequence().max(attested + 1);
                return End { sequence, cut: Some((file.file.number, item.at())) };
            }
            next = next.max(last + 1);
        }
        // Bytes of a frame that never became whole, at the very end.
        if file.end < file.len && std::ptr::eq(file, scan.files.last().expect("iterating over it")) {
            return End { sequence: next.max(attested + 1), cut: Some((file.file.number, file.end)) };
        }
    }
    End { sequence: next.max(attested + 1), cut: None }
}

/// What replaying found.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// What the last frame held, for the next one to repeat.
    pub previous: Vec<PreviousEntry>,
    /// Holes found, with the partition.
    pub holes: Vec<(TopicPartition, u64, u64)>,
}

struct Loss {
    gap: Gap,
    /// Partitions of which a later frame told where they went on.
    settled: BTreeSet<TopicPartition>,
    is_settled: bool,
}

/// Adds every frame before `until` to the index.
pub(super) fn replay(index: &mut Index, scan: &Scan, sorted_through: u64, until: u64) -> Replayed {
    let mut replayed = Replayed::default();
    let mut losses: Vec<Loss> = Vec::new();
    for file in &scan.files {
        for item in &file.items {
            match item {
                Item::Gap(gap) if gap.first < until => {
                    losses.push(Loss { gap: *gap, settled: BTreeSet::new(), is_settled: false });
                }
                Item::Frame(frame) if frame.head.sequence > sorted_through && frame.head.sequence < until => {
                    settle(index, frame, &mut losses, &mut replayed);
                    replay_frame(index, &file.file, frame, &mut replayed);
                }
                _ => {}
            }
        }
    }
    for loss in losses.iter().filter(|loss| !loss.is_settled) {
        // Nobody can say whose records these were: every partition skips as many offsets as can have been lost, so that none is given out twice.
        let records_max = loss.gap.bytes_max / RECORD_BYTES_MIN + 1;
        for (id, partition) in &mut index.partitions {
            if !loss.settled.contains(id) {
                let (from, to) = (partition.end, partition.end + records_max);
                partition.add_hole(from, to);
                partition.end = to;
                replayed.holes.push((*id, from, to));
            }
        }
    }
    for partition in index.partitions.values_mut() {
        // Holes that an earlier opening found at the end: their offsets are spent.
        for hole in &partition.holes {
            if hole.from <= partition.end {
                partition.end = partition.end.max(hole.to);
            }
        }
    }
    index.sequence = index.sequence.max(until - 1);
    replayed
}

/// A frame after lost ones repeats what the frame before it held, and tells where its own partitions go on.
fn settle(index: &mut Index, frame: &ScannedFrame, losses: &mut [Loss], replayed: &mut Replayed) {
    let open: Vec<&mut Loss> = losses.iter_mut().filter(|loss| !loss.is_settled).collect();
    if open.is_empty() {
        return;
    }
    for entry in &frame.head.previous {
        skip_to(index, entry.partition, entry.base + u64::from(entry.count), replayed);
    }
    for loss in open {
        loss.settled.extend(frame.head.previous.iter().map(|entry| entry.partition));
        loss.settled.extend(frame.head.batches.iter().map(|entry| entry.partition));
        loss.is_settled |= loss.gap.first == loss.gap.last && frame.head.sequence == loss.gap.last + 1;
    }
}

fn skip_to(index: &mut Index, id: TopicPartition, offset: u64, replayed: &mut Replayed) {
    if let Some(partition) = index.partitions.get_mut(&id)
        && partition.end < offset
    {
        replayed.holes.push((id, partition.end, offset));
        partition.add_hole(partition.end, offset);
        partition.end = offset;
    }
}

/// Adds one frame that lies in `file`.
pub(super) fn replay_frame(index: &mut Index, file: &Arc<WalFile>, frame: &ScannedFrame, replayed: &mut Replayed) {
    for (nth, (entry, within)) in frame.head.placed().enumerate() {
        let id = entry.partition;
        skip_to(index, id, entry.base, replayed);
        let Some(partition) = index.partitions.get_mut(&id) else {
            tracing::error!(?id, sequence = frame.head.sequence, "a frame names a partition that the manifest does not know");
            continue;
        };
        let end = entry.base + u64::from(entry.count);
        if partition.end >= end {
            continue;
        }
        if frame.damaged.contains(&nth) {
            skip_to(index, id, end, replayed);
            continue;
        }
        partition.wal.push_back(WalEntry {
            base: entry.base,
            count: entry.count,
            len: entry.len,
            crc: entry.crc,
            append_time: frame.head.append_time,
            file: Arc::clone(file),
            at: frame.at + within as u64,
            tail: None,
        });
        partition.end = end;
    }
    index.apply_progress(&frame.head);
    replayed.previous = frame.head.as_previous();
}

/// A file's head, or what it must have been.
fn head_of(file: &ScannedFile) -> WalHead {
    let first_frame = file.items.iter().find_map(|item| match item {
        Item::Frame(frame) => Some(&frame.head),
        Item::Gap(_) => None,
    });
    let (epoch, created) = first_frame.map_or((0, Millis(0)), |frame| (frame.epoch, frame.append_time));
    let first_sequence = file.items.first().map_or(0, Item::first_sequence);
    file.head.unwrap_or(WalHead { number: file.file.number, epoch, first_sequence, created })
}

/// Makes the files say what was decided: cuts, removes what came after the cut, and makes what was taken durable.
pub(super) fn repair(fs: &dyn Fs, dir: &Path, scan: &Scan, end: End) -> Result<(), Error> {
    let attested = scan.attested();
    let mut after_cut = false;
    for file in &scan.files {
        let failed = |error: std::io::Error| io_error("repairing", &file.file.path, &error);
        if after_cut {
            fs.remove(&file.file.path).map_err(failed)?;
            continue;
        }
        let mut keep_until = file.end;
        if let Some((number, at)) = end.cut
            && number == file.file.number
        {
            keep_until = at;
            after_cut = true;
            file.file.file.set_len(at).map_err(failed)?;
        }
        // The sync of the process before may have failed, after which the kernel calls lost pages clean: written again they are dirty again.
        let first_doubtful = file.items.iter().find(|item| item.first_sequence() > attested).map(Item::at);
        if let Some(from) = first_doubtful.filter(|from| *from < keep_until) {
            // The head went with the file's first group, and is as doubtful; without one, frames after it could not be told from a gap.
            file.file.file.write_all_at(&head_of(file).encode(), 0).map_err(failed)?;
            let mut bytes = vec![0; (keep_until - from) as usize];
            file.file.file.read_exact_at(&mut bytes, from).map_err(failed)?;
            file.file.file.write_all_at(&bytes, from).map_err(failed)?;
        }
        if first_doubtful.is_some() || after_cut {
            file.file.file.sync_data().map_err(failed)?;
        }
    }
    fs.sync_dir(dir).map_err(|error| io_error("syncing", dir, &error))
}
