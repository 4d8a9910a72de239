//! Segments: immutable files of one partition's records, in compressed blocks with an index of offsets and times.
//!
//! This file is the layout; `write` makes segments, `read` reads them and `cache` keeps the hot ones open.
//! Every block has its own checksum and says which offsets it answers for, so that damage to one is a hole of known extent
//! and a lost index can be rebuilt from the blocks.

pub(super) mod cache;
pub(super) mod read;
pub(super) mod write;

use std::path::{Path, PathBuf};

use super::format::{u32_at, u64_at};
use crate::domain::Millis;
use crate::log::TopicPartition;

pub(super) const EXTENSION: &str = "seg";
const SEGMENT_MAGIC: [u8; 8] = *b"FLYSEG\r\n";
const SEGMENT_VERSION: u16 = 1;
pub(super) const SEGMENT_HEAD_BYTES: usize = 64;
const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"BLK1");
pub(super) const BLOCK_HEAD_BYTES: usize = 64;
pub(super) const BATCH_HEAD_BYTES: usize = 32;
const INDEX_ENTRY_BYTES: usize = 48;
const TRAILER_BYTES: usize = 24;
const TRAILER_MAGIC: [u8; 8] = *b"FLYSEGIX";

pub(super) const CODEC_PLAIN: u32 = 0;
pub(super) const CODEC_ZSTD: u32 = 1;

pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.{EXTENSION}"))
}

/// The number in a segment's name.
pub(super) fn number_of(path: &Path) -> Option<u64> {
    if path.extension()? != EXTENSION {
        return None;
    }
    path.file_stem()?.to_str()?.parse().ok()
}

/// The first bytes of a segment: whose records these are, in case the manifest is lost.
pub(super) fn encode_head(id: TopicPartition, base: u64, number: u64) -> [u8; SEGMENT_HEAD_BYTES] {
    let mut out = [0; SEGMENT_HEAD_BYTES];
    out[0..8].copy_from_slice(&SEGMENT_MAGIC);
    out[8..10].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
    out[16..20].copy_from_slice(&id.topic.0.to_le_bytes());
    out[20..24].copy_from_slice(&id.partition.0.to_le_bytes());
    out[24..32].copy_from_slice(&base.to_le_bytes());
    out[32..40].copy_from_slice(&number.to_le_bytes());
    let crc = crc32c::crc32c(&out[16..]);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out
}

/// True if this is the undamaged head of segment `number`.
fn is_head(bytes: &[u8], number: u64) -> bool {
    bytes.len() >= SEGMENT_HEAD_BYTES
        && bytes[0..8] == SEGMENT_MAGIC
        && bytes[8..10] == SEGMENT_VERSION.to_le_bytes()
        && crc32c::crc32c(&bytes[16..SEGMENT_HEAD_BYTES]) == u32_at(bytes, 12)
        && u64_at(bytes, 32) == number
}

/// What is known of a block without reading it: an entry of the segment's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockRef {
    /// It answers for offsets in `[base, end)`; blocks leave no offset between them.
    pub base: u64,
    pub end: u64,
    pub first_append: Millis,
    pub last_append: Millis,
    pub at: u64,
    /// With its head.
    pub len: u32,
    pub records: u32,
}

impl BlockRef {
    fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.base, self.end, self.first_append.0 as u64, self.last_append.0 as u64, self.at] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.records.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> BlockRef {
        BlockRef {
            base: u64_at(bytes, 0),
            end: u64_at(bytes, 8),
            first_append: Millis(u64_at(bytes, 16) as i64),
            last_append: Millis(u64_at(bytes, 24) as i64),
            at: u64_at(bytes, 32),
            len: u32_at(bytes, 40),
            records: u32_at(bytes, 44),
        }
    }
}

/// The fixed part of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockHead {
    pub payload_len: u32,
    pub body_len: u32,
    pub codec: u32,
    pub records: u32,
    pub batches: u32,
    pub base: u64,
    pub end: u64,
    pub first_append: Millis,
    pub last_append: Millis,
}

impl BlockHead {
    /// `out` is head and payload; fills in the head.
    pub(super) fn encode(&self, out: &mut [u8]) {
        out[0..4].copy_from_slice(&BLOCK_MAGIC.to_le_bytes());
        let words = [self.payload_len, self.body_len, self.codec, self.records, self.batches, 0];
        for (nth, word) in words.iter().enumerate() {
            out[8 + nth * 4..12 + nth * 4].copy_from_slice(&word.to_le_bytes());
        }
        let numbers = [self.base, self.end, self.first_append.0 as u64, self.last_append.0 as u64];
        for (nth, number) in numbers.iter().enumerate() {
            out[32 + nth * 8..40 + nth * 8].copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// The head of an undamaged block that begins here and its payload.
    pub(super) fn decode(bytes: &[u8]) -> Option<(BlockHead, &[u8])> {
        let fixed = bytes.get(..BLOCK_HEAD_BYTES)?;
        if u32_at(fixed, 0) != BLOCK_MAGIC {
            return None;
        }
        let head = BlockHead {
            payload_len: u32_at(fixed, 8),
            body_len: u32_at(fixed, 12),
            codec: u32_at(fixed, 16),
            records: u32_at(fixed, 20),
            batches: u32_at(fixed, 24),
            base: u64_at(fixed, 32),
            end: u64_at(fixed, 40),
            first_append: Millis(u64_at(fixed, 48) as i64),
            last_append: Millis(u64_at(fixed, 56) as i64),
        };
        let whole = bytes.get(..BLOCK_HEAD_BYTES.checked_add(head.payload_len as usize)?)?;
        (crc32c::crc32c(&whole[8..]) == u32_at(whole, 4)).then(|| (head, &whole[BLOCK_HEAD_BYTES..]))
    }

    pub(super) fn block_ref(&self, at: u64) -> BlockRef {
        BlockRef {
            base: self.base,
            end: self.end,
            first_append: self.first_append,
            last_append: self.last_append,
            at,
            len: BLOCK_HEAD_BYTES as u32 + self.payload_len,
            records: self.records,
        }
    }
}

/// The index of all blocks and the trailer that finds it.
pub(super) fn encode_index(blocks: &[BlockRef], at: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(blocks.len() * INDEX_ENTRY_BYTES + TRAILER_BYTES);
    for block in blocks {
        block.encode(&mut out);
    }
    out.extend_from_slice(&at.to_le_bytes());
    out.extend_from_slice(&(blocks.len() as u32).to_le_bytes());
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&TRAILER_MAGIC);
    out
}

/// Where the index begins, from a segment's last bytes.
fn index_at(trailer: &[u8], file_len: u64) -> Option<u64> {
    let trailer = trailer.get(..TRAILER_BYTES)?;
    let (at, blocks) = (u64_at(trailer, 0), u64::from(u32_at(trailer, 8)));
    let is_consistent = trailer[16..24] == TRAILER_MAGIC && at + blocks * INDEX_ENTRY_BYTES as u64 + TRAILER_BYTES as u64 == file_len;
    is_consistent.then_some(at)
}

/// Reads what [`encode_index`] wrote.
fn decode_index(bytes: &[u8]) -> Option<Vec<BlockRef>> {
    let entries_len = bytes.len().checked_sub(TRAILER_BYTES)?;
    let (covered, crc) = (&bytes[..entries_len + 12], u32_at(bytes, entries_len + 12));
    let is_whole = crc32c::crc32c(covered) == crc && entries_len % INDEX_ENTRY_BYTES == 0;
    is_whole.then(|| bytes[..entries_len].chunks_exact(INDEX_ENTRY_BYTES).map(BlockRef::decode).collect())
}
