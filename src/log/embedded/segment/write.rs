//! Making a segment: batches in, compressed blocks and their index out.
//!
//! A segment is durable when [`SegmentWriter::finish`] returns and its folder was synced; only then may a manifest name it.

use std::io;
use std::sync::Arc;

use super::{
    BATCH_HEAD_BYTES, BLOCK_HEAD_BYTES, BlockHead, BlockRef, CODEC_PLAIN, CODEC_ZSTD, SEGMENT_HEAD_BYTES, encode_head, encode_index,
};
use crate::domain::Millis;
use crate::env::fs::File;
use crate::log::embedded::manifest::SegmentMeta;
use crate::log::{RecordBatch, TopicPartition};

/// The fastest level that still halves JSON and Avro: sorting shares the machine with appends.
const ZSTD_LEVEL: i32 = 1;
/// Blocks that shrink by less than an eighth are kept plain: reading them costs nothing then.
const KEEP_PLAIN_ABOVE: f64 = 0.875;

pub(in crate::log::embedded) struct SegmentWriter {
    file: Arc<dyn File>,
    at: u64,
    number: u64,
    block_bytes: usize,
    compressor: zstd::bulk::Compressor<'static>,
    blocks: Vec<BlockRef>,
    base: u64,
    /// Offsets below this are answered for by finished blocks.
    covered: u64,
    batches: Vec<RecordBatch>,
    bytes: usize,
    buffer: Vec<u8>,
}

impl SegmentWriter {
    pub(in crate::log::embedded) fn new(
        file: Arc<dyn File>,
        id: TopicPartition,
        number: u64,
        base: u64,
        block_bytes: usize,
    ) -> io::Result<SegmentWriter> {
        file.write_all_at(&encode_head(id, base, number), 0)?;
        Ok(SegmentWriter {
            file,
            at: SEGMENT_HEAD_BYTES as u64,
            number,
            block_bytes,
            compressor: zstd::bulk::Compressor::new(ZSTD_LEVEL)?,
            blocks: Vec::new(),
            base,
            covered: base,
            batches: Vec::new(),
            bytes: 0,
            buffer: Vec::new(),
        })
    }

    /// Offsets below this are answered for.
    pub(in crate::log::embedded) fn covered(&self) -> u64 {
        self.covered
    }

    pub(in crate::log::embedded) fn bytes_written(&self) -> u64 {
        self.at
    }

    /// Adds records after those before. A batch that is larger than a block is spread over several.
    pub(in crate::log::embedded) fn push(&mut self, batch: RecordBatch) -> io::Result<()> {
        let mut rest = (!batch.is_empty()).then_some(batch);
        while let Some(batch) = rest {
            let (part, others) = batch.split_at_bytes(self.block_bytes.saturating_sub(self.bytes));
            self.bytes += part.data().len();
            self.batches.push(part);
            rest = others;
            if self.bytes >= self.block_bytes {
                let end = self.batches.last().and_then(RecordBatch::last_offset).expect("just pushed").next().0;
                self.end_block(end)?;
            }
        }
        Ok(())
    }

    fn end_block(&mut self, end: u64) -> io::Result<()> {
        let body = encode_body(&self.batches);
        let compressed = self.compressor.compress(&body)?;
        let is_smaller = (compressed.len() as f64) < body.len() as f64 * KEEP_PLAIN_ABOVE;
        let (codec, payload) = if is_smaller { (CODEC_ZSTD, &compressed) } else { (CODEC_PLAIN, &body) };
        let (first, last) = (self.batches.first(), self.batches.last());
        // A block without records answers only for offsets; its times must not disturb the order of the index.
        let before = self.blocks.last().map_or(Millis::MIN, |block| block.last_append);
        let head = BlockHead {
            payload_len: payload.len() as u32,
            body_len: body.len() as u32,
            codec,
            records: self.batches.iter().map(|batch| batch.count).sum(),
            batches: self.batches.len() as u32,
            base: self.covered,
            end,
            first_append: first.map_or(before, |batch| batch.append_time),
            last_append: last.map_or(before, |batch| batch.append_time),
        };
        self.buffer.clear();
        self.buffer.resize(BLOCK_HEAD_BYTES, 0);
        self.buffer.extend_from_slice(payload);
        head.encode(&mut self.buffer);
        self.file.write_all_at(&self.buffer, self.at)?;
        self.blocks.push(head.block_ref(self.at));
        self.at += self.buffer.len() as u64;
        self.covered = end;
        self.batches.clear();
        self.bytes = 0;
        Ok(())
    }

    /// Copies a block of another segment as it is.
    pub(in crate::log::embedded) fn push_block(&mut self, bytes: &[u8], block: BlockRef) -> io::Result<()> {
        assert!(self.batches.is_empty() && block.base == self.covered, "blocks are copied in order and leave no offset between them");
        self.file.write_all_at(bytes, self.at)?;
        self.blocks.push(BlockRef { at: self.at, ..block });
        self.at += bytes.len() as u64;
        self.covered = block.end;
        Ok(())
    }

    /// Ends the segment, which answers for everything up to `end`, and syncs it.
    pub(in crate::log::embedded) fn finish(mut self, end: u64, compacted: bool) -> io::Result<SegmentMeta> {
        if !self.batches.is_empty() || (self.covered < end && !self.blocks.is_empty()) {
            self.end_block(end)?;
        }
        let index = encode_index(&self.blocks, self.at);
        self.file.write_all_at(&index, self.at)?;
        self.file.sync_data()?;
        let with_records = || self.blocks.iter().filter(|block| block.records > 0);
        Ok(SegmentMeta {
            file: self.number,
            base: self.base,
            end,
            bytes: self.at + index.len() as u64,
            records: self.blocks.iter().map(|block| u64::from(block.records)).sum(),
            first_append_ms: with_records().next().map_or(i64::MIN, |block| block.first_append.0),
            last_append_ms: with_records().next_back().map_or(i64::MIN, |block| block.last_append.0),
            compacted,
        })
    }
}

fn encode_body(batches: &[RecordBatch]) -> Vec<u8> {
    let mut body = Vec::with_capacity(batches.iter().map(|batch| BATCH_HEAD_BYTES + batch.data().len()).sum());
    for batch in batches {
        let explicit = batch.offsets.as_ref().map_or(0, |offsets| offsets.len() as u32);
        body.extend_from_slice(&batch.base.0.to_le_bytes());
        body.extend_from_slice(&batch.append_time.0.to_le_bytes());
        for word in [batch.count, batch.data().len() as u32, explicit, 0] {
            body.extend_from_slice(&word.to_le_bytes());
        }
    }
    for offset in batches.iter().filter_map(|batch| batch.offsets.as_ref()).flat_map(|offsets| offsets.iter()) {
        body.extend_from_slice(&offset.to_le_bytes());
    }
    for batch in batches {
        body.extend_from_slice(batch.data());
    }
    body
}
