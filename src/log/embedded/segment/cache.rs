//! Open segments and half-read blocks, both bounded.
//!
//! A block is kept only when a fetch ended within it: whoever asks for little at a time comes back for the rest, whoever streams does not.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::path_of;
use super::read::{Block, OpenSegment};
use crate::domain::{Millis, Offset};
use crate::env::fs::Fs;
use crate::log::embedded::io_error;
use crate::log::embedded::manifest::SegmentMeta;
use crate::log::{Error, Fetched, TopicPartition};

pub(in crate::log::embedded) struct Segments {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    open: Mutex<LruCache<u64, Arc<OpenSegment>>>,
    blocks: Mutex<Blocks>,
}

struct Blocks {
    kept: LruCache<(u64, usize), Arc<Block>>,
    bytes: usize,
    bytes_max: usize,
}

impl Segments {
    pub(in crate::log::embedded) fn new(fs: Arc<dyn Fs>, dir: &Path, open_max: usize, block_bytes_max: usize) -> Segments {
        let open_max = NonZeroUsize::new(open_max).unwrap_or(NonZeroUsize::MIN);
        Segments {
            fs,
            dir: dir.to_owned(),
            open: Mutex::new(LruCache::new(open_max)),
            blocks: Mutex::new(Blocks { kept: LruCache::unbounded(), bytes: 0, bytes_max: block_bytes_max }),
        }
    }

    pub(in crate::log::embedded) fn open(&self, number: u64) -> Result<Arc<OpenSegment>, Error> {
        if let Some(segment) = self.open.lock().get(&number) {
            return Ok(Arc::clone(segment));
        }
        let path = path_of(&self.dir, number);
        let opened = self.fs.open(&path, false).and_then(OpenSegment::open);
        let segment = Arc::new(opened.map_err(|error| io_error("reading", &path, &error))?);
        self.open.lock().put(number, Arc::clone(&segment));
        Ok(segment)
    }

    fn is_missing(&self, number: u64) -> bool {
        !self.fs.exists(&path_of(&self.dir, number))
    }

    /// Lets go of a segment that is about to be removed.
    pub(in crate::log::embedded) fn forget(&self, number: u64) {
        self.open.lock().pop(&number);
    }

    fn block(&self, segment: &OpenSegment, number: u64, nth: usize) -> Result<Option<Arc<Block>>, Error> {
        if let Some(block) = self.blocks.lock().kept.get(&(number, nth)) {
            return Ok(Some(Arc::clone(block)));
        }
        let read = segment.block(&segment.blocks[nth]).map_err(|error| io_error("reading", &path_of(&self.dir, number), &error))?;
        Ok(read.map(Arc::new))
    }

    /// Records in `[from, until)`, which this segment answers for.
    pub(in crate::log::embedded) fn fetch(
        &self,
        id: TopicPartition,
        meta: &SegmentMeta,
        (from, until): (u64, u64),
        bytes_max: usize,
    ) -> Result<Fetched, Error> {
        let mut fetched = Fetched { batches: Vec::new(), next: Offset(from) };
        if meta.records == 0 {
            return Ok(Fetched { next: Offset(until), ..fetched });
        }
        let segment = match self.open(meta.file) {
            Err(_) if self.is_missing(meta.file) => {
                return Err(Error::Hole { partition: id.into(), from: Offset(from), to: Offset(until) });
            }
            opened => opened?,
        };
        let mut bytes = 0;
        let mut nth = segment.position_of(from);
        while fetched.next.0 < until && bytes < bytes_max.max(1) {
            let at = fetched.next.0;
            let answers = segment.blocks.get(nth).filter(|block| block.base <= at);
            let block = match answers {
                Some(_) => self.block(&segment, meta.file, nth)?,
                None => None,
            };
            let Some(block) = block else {
                if !fetched.is_empty() {
                    break;
                }
                let to = segment.blocks.get(nth).map_or(meta.end, |block| if block.base <= at { block.end } else { block.base });
                return Err(Error::Hole { partition: id.into(), from: Offset(at), to: Offset(to.min(until)) });
            };
            let batches = block.batches.iter().filter_map(|batch| batch.starting_at(Offset(from)));
            for batch in batches.take_while(|batch| batch.base.0 < until) {
                bytes += batch.data().len();
                fetched.batches.push(batch);
            }
            fetched.next = Offset(segment.blocks[nth].end.min(until));
            if bytes > bytes_max {
                self.keep(meta.file, nth, block);
            }
            nth += 1;
        }
        Ok(fetched)
    }

    fn keep(&self, number: u64, nth: usize, block: Arc<Block>) {
        let mut blocks = self.blocks.lock();
        blocks.bytes += block.bytes;
        if let Some((_, replaced)) = blocks.kept.push((number, nth), block) {
            blocks.bytes -= replaced.bytes;
        }
        while blocks.bytes > blocks.bytes_max {
            let Some((_, oldest)) = blocks.kept.pop_lru() else { break };
            blocks.bytes -= oldest.bytes;
        }
    }

    /// The first offset of the segment appended at or after `time`; `None` if all are older.
    pub(in crate::log::embedded) fn offset_at(&self, id: TopicPartition, meta: &SegmentMeta, time: Millis) -> Result<Option<u64>, Error> {
        let segment = self.open(meta.file)?;
        let mut nth = segment.blocks.partition_point(|block| block.last_append < time);
        while nth < segment.blocks.len() {
            let block = segment.blocks[nth];
            let read = self.block(&segment, meta.file, nth)?;
            let hole = || Error::Hole { partition: id.into(), from: Offset(block.base), to: Offset(block.end) };
            let found = read.ok_or_else(hole)?.batches.iter().find(|batch| batch.append_time >= time).map(|batch| batch.base.0);
            if found.is_some() {
                return Ok(found);
            }
            nth += 1;
        }
        Ok(None)
    }
}
