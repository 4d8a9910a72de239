//! Turns waiting appends into frames: gives out sequences, offsets and append times, and copies every record once.
//!
//! Runs ahead of what is published. When a group fails, [`Encoder::reset`] takes back what it gave out.
//! Appends of one group share frames: their records for one partition become one contiguous batch. No work per record but the copy and its checksum.

use std::collections::BTreeMap;
use std::mem;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::format::{BatchEntry, FRAME_ALIGN, FrameHead, PreviousEntry};
use crate::domain::{Millis, Offset};
use crate::log::{Appended, Error, Ownership, TopicPartition, Transaction};

/// Appends share a frame up to about this size: what one damaged frame can cost.
const FRAME_BYTES: usize = 1 << 20;

pub(super) type Sender = oneshot::Sender<Result<Appended, Error>>;

/// An append that waits to be encoded.
pub(super) struct Pending {
    pub transaction: Transaction,
    pub acquires: Option<Ownership>,
    /// Begin another file with the group that this is in.
    pub roll: bool,
    pub bytes: usize,
    pub sender: Sender,
}

/// A frame within a group's buffer.
pub(super) struct EncodedFrame {
    pub head: FrameHead,
    pub at: usize,
}

/// Frames that are written and synced together, and who waits for them.
#[derive(Default)]
pub(super) struct EncodedGroup {
    pub buffer: Bytes,
    pub frames: Vec<EncodedFrame>,
    pub waiting: Vec<(Sender, Appended)>,
    /// Bytes of the appends, as counted against the queue's bound.
    pub queued_bytes: usize,
    pub roll: bool,
}

pub(super) struct Encoder {
    epoch: u64,
    sequence: u64,
    pub synced: u64,
    time: Millis,
    ends: BTreeMap<TopicPartition, u64>,
    previous: Vec<PreviousEntry>,
    buffer: Vec<u8>,
    group: EncodedGroup,
}

impl Encoder {
    /// `sequence` is the last one used, `previous` what its frame held.
    pub(super) fn new(epoch: u64, sequence: u64, time: Millis, previous: Vec<PreviousEntry>) -> Encoder {
        let (ends, buffer, group) = (BTreeMap::new(), Vec::new(), EncodedGroup::default());
        Encoder { epoch, sequence, synced: sequence, time, ends, previous, buffer, group }
    }

    pub(super) fn building_bytes(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn is_building(&self) -> bool {
        !self.group.frames.is_empty()
    }

    /// The group built so far.
    pub(super) fn take_group(&mut self) -> EncodedGroup {
        // The next group is probably about as large.
        let buffer = mem::replace(&mut self.buffer, Vec::with_capacity(0));
        EncodedGroup { buffer: Bytes::from(buffer), ..mem::take(&mut self.group) }
    }

    /// Takes back everything after `sequence`.
    pub(super) fn reset(&mut self, sequence: u64, previous: Vec<PreviousEntry>) {
        self.sequence = sequence;
        self.previous = previous;
        self.ends.clear();
    }

    /// `end_of` tells the published end of a partition that this encoder has not written to yet.
    pub(super) fn encode(&mut self, pending: Vec<Pending>, now: Millis, end_of: &dyn Fn(TopicPartition) -> u64) {
        let total: usize = pending.iter().map(|append| append.bytes).sum();
        self.buffer.reserve(total + 512 * pending.len().min(64));
        self.time = self.time.max(now);
        let mut sharing = Vec::new();
        let mut bytes = 0;
        for append in pending {
            if bytes > 0 && bytes + append.bytes > FRAME_BYTES {
                self.encode_frame(mem::take(&mut sharing), end_of);
                bytes = 0;
            }
            bytes += append.bytes;
            sharing.push(append);
        }
        if !sharing.is_empty() {
            self.encode_frame(sharing, end_of);
        }
    }

    fn encode_frame(&mut self, appends: Vec<Pending>, end_of: &dyn Fn(TopicPartition) -> u64) {
        let mut first_offsets: Vec<Vec<Offset>> = appends.iter().map(|append| vec![Offset(0); append.transaction.batches.len()]).collect();
        let mut parts: Vec<(TopicPartition, usize, usize)> = Vec::new();
        for (which, append) in appends.iter().enumerate() {
            parts.extend(append.transaction.batches.iter().enumerate().map(|(nth, (id, _))| (*id, which, nth)));
        }
        parts.sort();
        let mut batches: Vec<BatchEntry> = Vec::new();
        for (id, which, nth) in &parts {
            let batch = &appends[*which].transaction.batches[*nth].1;
            let end = self.ends.entry(*id).or_insert_with(|| end_of(*id));
            first_offsets[*which][*nth] = Offset(*end);
            if !batch.is_empty() {
                match batches.last_mut().filter(|entry| entry.partition == *id) {
                    Some(entry) => {
                        entry.count += batch.count;
                        entry.len += batch.data.len() as u32;
                    }
                    None => {
                        let len = batch.data.len() as u32;
                        batches.push(BatchEntry { partition: *id, base: *end, count: batch.count, len, crc: 0 });
                    }
                }
            }
            *end += u64::from(batch.count);
        }
        let data = parts.iter().map(|(_, which, nth)| &appends[*which].transaction.batches[*nth].1.data);
        self.push_frame(batches, data, &appends);
        for (append, first_offsets) in appends.into_iter().zip(first_offsets) {
            self.group.queued_bytes += append.bytes;
            self.group.roll |= append.roll;
            self.group.waiting.push((append.sender, Appended { first_offsets, append_time: self.time }));
        }
    }

    fn push_frame<'a>(&mut self, batches: Vec<BatchEntry>, data: impl Iterator<Item = &'a Bytes>, appends: &'a [Pending]) {
        self.sequence += 1;
        let mut head = FrameHead {
            sequence: self.sequence,
            epoch: self.epoch,
            synced: self.synced,
            append_time: self.time,
            batches,
            previous: mem::take(&mut self.previous),
            commits: appends.iter().flat_map(|append| append.transaction.commits.iter().cloned()).collect(),
            acquires: appends.iter().filter_map(|append| append.acquires.clone()).collect(),
            ..FrameHead::default()
        };
        let at = self.buffer.len();
        let head_len = head.encoded_len();
        head.head_len = head_len as u32;
        self.buffer.resize(at + head_len, 0);
        for bytes in data {
            self.buffer.extend_from_slice(bytes);
        }
        let mut begin = at + head_len;
        for entry in &mut head.batches {
            let end = begin + entry.len as usize;
            entry.crc = crc32c::crc32c(&self.buffer[begin..end]);
            begin = end;
        }
        let frame_len = (self.buffer.len() - at).next_multiple_of(FRAME_ALIGN);
        self.buffer.resize(at + frame_len, 0);
        head.frame_len = frame_len as u32;
        head.encode(&mut self.buffer[at..at + head_len]);
        self.previous = head.as_previous();
        self.group.frames.push(EncodedFrame { head, at });
    }
}
