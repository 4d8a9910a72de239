//! The write-ahead file's bytes: its head, its note of what is synced, and frames. Layout in the module's documentation.
//!
//! Owns encoding and strict decoding. Whether a frame that decodes may be served is `recover`'s business.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::{Millis, Offset, PartitionId};
use crate::log::{Committed, Group, Ownership, TopicId, TopicPartition};

const WAL_MAGIC: [u8; 8] = *b"FLYWAL\r\n";
const WAL_VERSION: u16 = 1;
pub(super) const WAL_HEAD_BYTES: usize = 64;
/// Where the note of what is synced lies: outside of the head, so that writing it cannot tear the head.
pub(super) const NOTE_AT: u64 = 512;
pub(super) const NOTE_BYTES: usize = 24;
/// Frames begin on a page of their own, so that head and note can be rewritten without touching them.
pub(super) const FRAMES_AT: u64 = 4096;

pub(super) const FRAME_MAGIC: &[u8; 4] = b"FRM1";
pub(super) const FRAME_HEAD_BYTES: usize = 64;
const BATCH_ENTRY_BYTES: usize = 32;
const PREVIOUS_ENTRY_BYTES: usize = 24;
const COMMIT_ENTRY_BYTES: usize = 32;
const ACQUIRE_ENTRY_BYTES: usize = 24;
/// Frames begin at multiples of this, so that a search past damage looks at few places.
pub(super) const FRAME_ALIGN: usize = 8;
/// The smallest record there can be: the head of one without key and value.
pub(super) const RECORD_BYTES_MIN: u64 = crate::log::record::RECORD_HEAD_BYTES as u64;

/// The head of a write-ahead file. Durable with the file's first group; a file without one was never written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WalHead {
    pub number: u64,
    pub epoch: u64,
    /// The first sequence in this file. Every lower one was durable when this was written, and frames of earlier files from it on are void.
    pub first_sequence: u64,
    pub created: Millis,
}

impl WalHead {
    pub(super) fn encode(&self) -> [u8; WAL_HEAD_BYTES] {
        let mut out = [0; WAL_HEAD_BYTES];
        out[0..8].copy_from_slice(&WAL_MAGIC);
        out[8..10].copy_from_slice(&WAL_VERSION.to_le_bytes());
        out[16..24].copy_from_slice(&self.number.to_le_bytes());
        out[24..32].copy_from_slice(&self.epoch.to_le_bytes());
        out[32..40].copy_from_slice(&self.first_sequence.to_le_bytes());
        out[40..48].copy_from_slice(&self.created.0.to_le_bytes());
        let crc = crc32c::crc32c(&out[16..]);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None` if this is no head, or a damaged one.
    pub(super) fn decode(bytes: &[u8]) -> Option<WalHead> {
        let bytes = bytes.get(..WAL_HEAD_BYTES)?;
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if bytes[0..8] != WAL_MAGIC || version != WAL_VERSION || crc32c::crc32c(&bytes[16..]) != u32_at(bytes, 12) {
            return None;
        }
        Some(WalHead {
            number: u64_at(bytes, 16),
            epoch: u64_at(bytes, 24),
            first_sequence: u64_at(bytes, 32),
            created: Millis(u64_at(bytes, 40) as i64),
        })
    }
}

/// What an idle writer leaves for readers: the highest sequence known synced in file `number`.
pub(super) fn encode_note(number: u64, synced: u64) -> [u8; NOTE_BYTES] {
    let mut out = [0; NOTE_BYTES];
    out[0..8].copy_from_slice(&number.to_le_bytes());
    out[8..16].copy_from_slice(&synced.to_le_bytes());
    let crc = crc32c::crc32c(&out[..16]);
    out[16..20].copy_from_slice(&crc.to_le_bytes());
    out
}

pub(super) fn decode_note(bytes: &[u8], number: u64) -> Option<u64> {
    let bytes = bytes.get(..NOTE_BYTES)?;
    let is_ours = u64_at(bytes, 0) == number && crc32c::crc32c(&bytes[..16]) == u32_at(bytes, 16);
    is_ours.then(|| u64_at(bytes, 8))
}

/// The records that a frame holds for one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchEntry {
    pub partition: TopicPartition,
    pub base: u64,
    pub count: u32,
    pub len: u32,
    pub crc: u32,
}

/// What the frame before held, repeated so that a lost head does not hide which offsets went with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PreviousEntry {
    pub partition: TopicPartition,
    pub base: u64,
    pub count: u32,
}

/// Everything in a frame but the records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub frame_len: u32,
    pub head_len: u32,
    pub sequence: u64,
    pub epoch: u64,
    pub synced: u64,
    pub append_time: Millis,
    pub batches: Vec<BatchEntry>,
    pub previous: Vec<PreviousEntry>,
    pub commits: Vec<(Ownership, Committed)>,
    pub acquires: Vec<Ownership>,
}

impl FrameHead {
    /// The bytes of the head with all its entries.
    pub(super) fn encoded_len(&self) -> usize {
        let group = |owner: &Ownership| owner.group.0.len();
        FRAME_HEAD_BYTES
            + self.batches.len() * BATCH_ENTRY_BYTES
            + self.previous.len() * PREVIOUS_ENTRY_BYTES
            + self.commits.iter().map(|(owner, commit)| COMMIT_ENTRY_BYTES + group(owner) + commit.metadata.len()).sum::<usize>()
            + self.acquires.iter().map(|owner| ACQUIRE_ENTRY_BYTES + group(owner)).sum::<usize>()
    }

    /// Writes the head into `out`, which is exactly as long as it.
    pub(super) fn encode(&self, out: &mut [u8]) {
        assert_eq!(out.len(), self.head_len as usize, "the head's place was measured by encoded_len");
        let mut to = Writer { out, at: 0 };
        to.u32(u32::from_le_bytes(*FRAME_MAGIC));
        to.u32(0);
        to.u32(self.frame_len);
        to.u32(self.head_len);
        to.u64(self.sequence);
        to.u64(self.epoch);
        to.u64(self.synced);
        to.u64(self.append_time.0 as u64);
        to.u32(self.batches.len() as u32);
        to.u32(self.previous.len() as u32);
        to.u32(self.commits.len() as u32);
        to.u32(self.acquires.len() as u32);
        for entry in &self.batches {
            to.partition(entry.partition);
            to.u64(entry.base);
            to.u32(entry.count);
            to.u32(entry.len);
            to.u32(entry.crc);
            to.u32(0);
        }
        for entry in &self.previous {
            to.partition(entry.partition);
            to.u64(entry.base);
            to.u32(entry.count);
            to.u32(0);
        }
        for (owner, commit) in &self.commits {
            to.partition(owner.partition);
            to.u64(owner.epoch);
            to.u64(commit.offset.0);
            to.u32(owner.group.0.len() as u32);
            to.u32(commit.metadata.len() as u32);
            to.bytes(owner.group.0.as_bytes());
            to.bytes(&commit.metadata);
        }
        for owner in &self.acquires {
            to.partition(owner.partition);
            to.u64(owner.epoch);
            to.u32(owner.group.0.len() as u32);
            to.u32(0);
            to.bytes(owner.group.0.as_bytes());
        }
        let crc = crc32c::crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// `None` if no undamaged head begins here.
    pub(super) fn decode(bytes: &[u8]) -> Option<FrameHead> {
        let fixed = bytes.get(..FRAME_HEAD_BYTES)?;
        if !fixed.starts_with(FRAME_MAGIC) {
            return None;
        }
        let (frame_len, head_len) = (u32_at(fixed, 8), u32_at(fixed, 12));
        if head_len < FRAME_HEAD_BYTES as u32 || head_len > frame_len || !(frame_len as usize).is_multiple_of(FRAME_ALIGN) {
            return None;
        }
        let head = bytes.get(..head_len as usize)?;
        if crc32c::crc32c(&head[8..]) != u32_at(head, 4) {
            return None;
        }
        let counts = [u32_at(head, 48), u32_at(head, 52), u32_at(head, 56), u32_at(head, 60)];
        let mut from = Reader { bytes: head, at: FRAME_HEAD_BYTES };
        let batches = from.many(counts[0], Reader::batch)?;
        let previous = from.many(counts[1], Reader::previous)?;
        let commits = from.many(counts[2], Reader::commit)?;
        let acquires = from.many(counts[3], Reader::acquire)?;
        Some(FrameHead {
            frame_len,
            head_len,
            sequence: u64_at(head, 16),
            epoch: u64_at(head, 24),
            synced: u64_at(head, 32),
            append_time: Millis(u64_at(head, 40) as i64),
            batches,
            previous,
            commits,
            acquires,
        })
    }

    /// The lengths of the frame and of its head that a frame's first bytes claim, unchecked.
    pub(super) fn peek_lens(fixed: &[u8]) -> Option<(u32, u32)> {
        let is_frame = fixed.len() >= FRAME_HEAD_BYTES && fixed.starts_with(FRAME_MAGIC);
        let lens = is_frame.then(|| (u32_at(fixed, 8), u32_at(fixed, 12)));
        lens.filter(|(frame, head)| *head >= FRAME_HEAD_BYTES as u32 && head <= frame)
    }

    /// Each batch with the place of its records, counted from the frame's first byte.
    pub(super) fn placed(&self) -> impl Iterator<Item = (BatchEntry, usize)> + '_ {
        self.batches.iter().scan(self.head_len as usize, |at, entry| {
            let begin = *at;
            *at += entry.len as usize;
            Some((*entry, begin))
        })
    }

    /// What the next frame repeats of this one.
    pub(super) fn as_previous(&self) -> Vec<PreviousEntry> {
        let repeat = |entry: &BatchEntry| PreviousEntry { partition: entry.partition, base: entry.base, count: entry.count };
        self.batches.iter().map(repeat).collect()
    }
}

struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    fn partition(&mut self, partition: TopicPartition) {
        self.u32(partition.topic.0);
        self.u32(partition.partition.0);
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn many<T>(&mut self, count: u32, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        (0..count).map(|_| read(self)).collect()
    }

    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let bytes = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes(4).map(|bytes| u32_at(bytes, 0))
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes(8).map(|bytes| u64_at(bytes, 0))
    }

    fn partition(&mut self) -> Option<TopicPartition> {
        Some(TopicPartition { topic: TopicId(self.u32()?), partition: PartitionId(self.u32()?) })
    }

    fn group(&mut self, len: u32) -> Option<Group> {
        let text = std::str::from_utf8(self.bytes(len as usize)?).ok()?;
        Some(Group(Arc::from(text)))
    }

    fn batch(&mut self) -> Option<BatchEntry> {
        let entry = BatchEntry { partition: self.partition()?, base: self.u64()?, count: self.u32()?, len: self.u32()?, crc: self.u32()? };
        self.u32()?;
        Some(entry)
    }

    fn previous(&mut self) -> Option<PreviousEntry> {
        let entry = PreviousEntry { partition: self.partition()?, base: self.u64()?, count: self.u32()? };
        self.u32()?;
        Some(entry)
    }

    fn commit(&mut self) -> Option<(Ownership, Committed)> {
        let (partition, epoch, offset) = (self.partition()?, self.u64()?, Offset(self.u64()?));
        let (group_len, metadata_len) = (self.u32()?, self.u32()?);
        let group = self.group(group_len)?;
        let metadata = Bytes::copy_from_slice(self.bytes(metadata_len as usize)?);
        Some((Ownership { group, partition, epoch }, Committed { offset, metadata }))
    }

    fn acquire(&mut self) -> Option<Ownership> {
        let (partition, epoch, group_len) = (self.partition()?, self.u64()?, self.u32()?);
        self.u32()?;
        Some(Ownership { group: self.group(group_len)?, partition, epoch })
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> FrameHead {
        let partition = TopicPartition { topic: TopicId(3), partition: PartitionId(1) };
        let owner = Ownership { group: Group("profiles".into()), partition, epoch: 7 };
        let mut head = FrameHead {
            sequence: 42,
            epoch: 2,
            synced: 40,
            append_time: Millis(-5),
            batches: vec![BatchEntry { partition, base: 9, count: 2, len: 36, crc: 1 }],
            previous: vec![PreviousEntry { partition, base: 8, count: 1 }],
            commits: vec![(owner.clone(), Committed { offset: Offset(12), metadata: Bytes::from_static(b"cursor") })],
            acquires: vec![owner],
            ..FrameHead::default()
        };
        head.head_len = head.encoded_len() as u32;
        head.frame_len = (head.head_len + 36).next_multiple_of(FRAME_ALIGN as u32);
        head
    }

    #[test]
    fn a_frame_head_reads_back_and_no_flipped_bit_passes() {
        let head = frame();
        let mut bytes = vec![0; head.head_len as usize];
        head.encode(&mut bytes);
        assert_eq!(FrameHead::decode(&bytes), Some(head));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHead::decode(&bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..bytes.len() {
            assert_eq!(FrameHead::decode(&bytes[..len]), None, "cut at {len}");
        }
    }

    #[test]
    fn a_file_head_and_its_note_read_back() {
        let head = WalHead { number: 5, epoch: 3, first_sequence: 77, created: Millis(1) };
        assert_eq!(WalHead::decode(&head.encode()), Some(head));
        assert_eq!(WalHead::decode(&[0; WAL_HEAD_BYTES]), None);
        assert_eq!(decode_note(&encode_note(5, 99), 5), Some(99));
        assert_eq!(decode_note(&encode_note(4, 99), 5), None, "a note of the file's life before");
        assert_eq!(decode_note(&[0; NOTE_BYTES], 5), None);
    }
}
