//! Reading a segment: its index, whatever is left of it, and blocks.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::{
    BATCH_HEAD_BYTES, BLOCK_HEAD_BYTES, BlockHead, BlockRef, CODEC_PLAIN, CODEC_ZSTD, SEGMENT_HEAD_BYTES, TRAILER_BYTES, decode_index,
    index_at, is_head,
};
use crate::domain::{Millis, Offset};
use crate::env::fs::File;
use crate::log::RecordBatch;
use crate::log::embedded::format::{u32_at, u64_at};
use crate::log::embedded::manifest::SegmentMeta;
use crate::log::record::RECORD_HEAD_BYTES;

/// No block is larger: a batch is split unless it is one record.
const BODY_BYTES_MAX: usize = 64 << 20;

/// A segment's file with its index in memory.
pub(in crate::log::embedded) struct OpenSegment {
    file: Arc<dyn File>,
    pub blocks: Vec<BlockRef>,
    /// The index was damaged; what could be found was found by searching for blocks.
    pub is_rebuilt: bool,
}

/// The records of one block.
pub(in crate::log::embedded) struct Block {
    pub batches: Vec<RecordBatch>,
    pub bytes: usize,
}

impl OpenSegment {
    pub(in crate::log::embedded) fn open(file: Arc<dyn File>) -> io::Result<OpenSegment> {
        let len = file.len()?;
        if let Some(blocks) = read_index(&*file, len)? {
            return Ok(OpenSegment { file, blocks, is_rebuilt: false });
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(OpenSegment { blocks: find_blocks(&bytes), file, is_rebuilt: true })
    }

    /// False if the file's head is not what was written.
    pub(in crate::log::embedded) fn has_head(&self, meta: &SegmentMeta) -> io::Result<bool> {
        let mut bytes = [0; SEGMENT_HEAD_BYTES];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(is_head(&bytes, meta.file))
    }

    /// The bytes of a block as they are on disk; `None` if they are damaged.
    pub(in crate::log::embedded) fn raw_block(&self, block: &BlockRef) -> io::Result<Option<Vec<u8>>> {
        let read = self.read_block(block)?;
        Ok(read.map(|(_, bytes)| bytes))
    }

    fn read_block(&self, block: &BlockRef) -> io::Result<Option<(BlockHead, Vec<u8>)>> {
        let mut bytes = vec![0; block.len as usize];
        match self.file.read_exact_at(&mut bytes, block.at) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let head = BlockHead::decode(&bytes).map(|(head, _)| head).filter(|head| head.block_ref(block.at) == *block);
        Ok(head.map(|head| (head, bytes)))
    }

    /// The records of a block; `None` if they are damaged.
    pub(in crate::log::embedded) fn block(&self, block: &BlockRef) -> io::Result<Option<Block>> {
        let Some((head, bytes)) = self.read_block(block)? else { return Ok(None) };
        let body = match head.codec {
            CODEC_PLAIN => Bytes::from(bytes).slice(BLOCK_HEAD_BYTES..),
            CODEC_ZSTD => match decompress(&bytes[BLOCK_HEAD_BYTES..], head.body_len as usize) {
                Some(body) => Bytes::from(body),
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        Ok(decode_body(&body, head.batches as usize).map(|batches| Block { bytes: body.len(), batches }))
    }

    /// The block that answers for `offset`, if one does.
    pub(in crate::log::embedded) fn position_of(&self, offset: u64) -> usize {
        self.blocks.partition_point(|block| block.end <= offset)
    }
}

fn read_index(file: &dyn File, len: u64) -> io::Result<Option<Vec<BlockRef>>> {
    let Some(trailer_at) = len.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
    let mut trailer = [0; TRAILER_BYTES];
    file.read_exact_at(&mut trailer, trailer_at)?;
    let Some(at) = index_at(&trailer, len) else { return Ok(None) };
    let mut bytes = vec![0; (len - at) as usize];
    file.read_exact_at(&mut bytes, at)?;
    Ok(decode_index(&bytes))
}

fn find_blocks(bytes: &[u8]) -> Vec<BlockRef> {
    let mut blocks: Vec<BlockRef> = Vec::new();
    let mut at = SEGMENT_HEAD_BYTES.min(bytes.len());
    while at < bytes.len() {
        match BlockHead::decode(&bytes[at..]) {
            Some((head, payload)) if blocks.last().is_none_or(|last| last.end <= head.base) => {
                blocks.push(head.block_ref(at as u64));
                at += BLOCK_HEAD_BYTES + payload.len();
            }
            _ => at += 1,
        }
    }
    blocks
}

thread_local! {
    /// A context is 100 KB and worth keeping from block to block.
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

fn decompress(payload: &[u8], body_len: usize) -> Option<Vec<u8>> {
    if body_len > BODY_BYTES_MAX {
        return None;
    }
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(zstd::bulk::Decompressor::new().ok()?),
        };
        decompressor.decompress(payload, body_len).ok().filter(|body| body.len() == body_len)
    })
}

fn decode_body(body: &Bytes, batches: usize) -> Option<Vec<RecordBatch>> {
    let heads = body.get(..batches.checked_mul(BATCH_HEAD_BYTES)?)?;
    let mut offsets_at = heads.len();
    let explicit: usize = heads.chunks_exact(BATCH_HEAD_BYTES).map(|head| u32_at(head, 24) as usize).sum();
    let mut data_at = offsets_at.checked_add(explicit.checked_mul(8)?)?;
    let mut decoded = Vec::with_capacity(batches);
    for head in heads.chunks_exact(BATCH_HEAD_BYTES) {
        let (count, len, explicit) = (u32_at(head, 16), u32_at(head, 20) as usize, u32_at(head, 24) as usize);
        let offsets = body.get(offsets_at..offsets_at + explicit * 8)?;
        let offsets: Vec<u64> = offsets.chunks_exact(8).map(|offset| u64_at(offset, 0)).collect();
        offsets_at += explicit * 8;
        let data = (data_at + len <= body.len()).then(|| body.slice(data_at..data_at + len))?;
        data_at += len;
        if (explicit != 0 && explicit != count as usize) || len < count as usize * RECORD_HEAD_BYTES {
            return None;
        }
        decoded.push(RecordBatch {
            base: Offset(u64_at(head, 0)),
            append_time: Millis(u64_at(head, 8) as i64),
            count,
            offsets: (explicit != 0).then(|| offsets.into()),
            data,
        });
    }
    Some(decoded)
}
