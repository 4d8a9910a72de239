//! Keyed topics: keep the newest record of every key, drop the others and the removed keys.
//!
//! Only what every group has read and no pin holds is compacted, and always from the partition's beginning, so that a record without a
//! value has removed everything older of its key and can go itself. Memory is bounded: keys are looked at in as many passes as they need.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;
use xxhash_rust::xxh3::xxh3_128;

use super::io_error;
use super::manifest::{Hole, SegmentMeta};
use super::retention::{needed_from, replace};
use super::segment::{self, write::SegmentWriter};
use super::shared::Shared;
use super::wal::take_number;
use crate::domain::Millis;
use crate::log::{Error, RecordBatch, TopicPartition};

/// Keys looked at in one pass: 32 bytes each, so about 64 MB with the table's slack.
const PASS_KEYS_MAX: u64 = 1 << 20;

/// Compacts a partition if enough of it was written since the last time; answers with the bytes freed.
pub(super) fn compact(shared: &Shared, id: TopicPartition) -> Result<u64, Error> {
    let (segments, holes) = candidates(shared, id);
    let size = |compacted: bool| segments.iter().filter(|meta| meta.compacted == compacted).map(|meta| meta.bytes).sum::<u64>();
    let (dirty, clean) = (size(false), size(true));
    if dirty == 0 || dirty * 100 < clean * shared.options.compact_dirty_percent {
        return Ok(0);
    }
    let Some(kept) = Kept::find(shared, &segments, &holes)? else { return Ok(0) };
    let Some(new) = rewrite(shared, id, (&segments, &holes), &kept)? else { return Ok(0) };
    let end = segments.last().map_or(0, |meta| meta.end);
    replace(shared, id, &segments, new, |manifest| needed_from(manifest, id) >= end)
}

/// The partition's first segments, as far as nobody needs them whole.
fn candidates(shared: &Shared, id: TopicPartition) -> (Vec<SegmentMeta>, Vec<Hole>) {
    let index = shared.view.index.read();
    let needed_from = index.needed_from(id);
    let Some(partition) = index.partitions.get(&id) else { return (Vec::new(), Vec::new()) };
    let segments = partition.segments.iter().take_while(|meta| meta.end <= needed_from);
    (segments.map(|meta| SegmentMeta::clone(meta)).collect(), partition.holes.clone())
}

/// A bit for every record that stays, in the order they are read.
struct Kept {
    bits: Vec<u64>,
}

impl Kept {
    /// `None` if a block is damaged: what it held might have superseded others, so nothing is touched before the doctor was there.
    fn find(shared: &Shared, segments: &[SegmentMeta], holes: &[Hole]) -> Result<Option<Kept>, Error> {
        let records: u64 = segments.iter().map(|meta| meta.records).sum();
        let passes = records.div_ceil(PASS_KEYS_MAX).max(1);
        let mut bits = vec![0_u64; records.div_ceil(64) as usize];
        for pass in 0..passes {
            let mut newest: HashMap<u128, Option<u64>, FxBuildHasher> = HashMap::default();
            let mut nth = 0;
            let is_whole = for_each_batch(shared, segments, holes, |batch| {
                for record in batch.iter() {
                    let hash = xxh3_128(record.key);
                    if hash as u64 % passes == pass {
                        newest.insert(hash, record.value.is_some().then_some(nth));
                    }
                    nth += 1;
                }
                Ok(())
            })?;
            if !is_whole {
                return Ok(None);
            }
            for nth in newest.into_values().flatten() {
                bits[(nth / 64) as usize] |= 1 << (nth % 64);
            }
        }
        Ok(Some(Kept { bits }))
    }

    fn has(&self, nth: u64) -> bool {
        self.bits[(nth / 64) as usize] >> (nth % 64) & 1 == 1
    }
}

/// False if a block cannot be read that no declared hole accounts for.
fn for_each_batch(
    shared: &Shared,
    segments: &[SegmentMeta],
    holes: &[Hole],
    mut visit: impl FnMut(RecordBatch) -> Result<(), Error>,
) -> Result<bool, Error> {
    let is_declared = |from: u64, to: u64| holes.iter().any(|hole| hole.declared && hole.from <= from && to <= hole.to);
    for meta in segments {
        if meta.records == 0 {
            continue;
        }
        let path = segment::path_of(&shared.dir, meta.file);
        let source = shared.view.segments.open(meta.file)?;
        let mut missing = meta.records;
        for block in &source.blocks {
            let read = source.block(block).map_err(|error| io_error("reading", &path, &error))?;
            missing = missing.saturating_sub(u64::from(block.records));
            if read.is_none() && !is_declared(block.base, block.end) {
                return Ok(false);
            }
            for batch in read.into_iter().flat_map(|block| block.batches) {
                visit(batch)?;
            }
        }
        if missing > 0 && !holes.iter().any(|hole| hole.declared && hole.from < meta.end && meta.base < hole.to) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes what is kept; `None` if the source cannot be read to its end.
fn rewrite(
    shared: &Shared,
    id: TopicPartition,
    (segments, holes): (&[SegmentMeta], &[Hole]),
    kept: &Kept,
) -> Result<Option<Vec<SegmentMeta>>, Error> {
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return Ok(None) };
    let mut output = Output { shared, id, base: first.base, last_append: Millis::MIN, writer: None, made: Vec::new() };
    let mut nth = 0;
    let result = for_each_batch(shared, segments, holes, |batch| {
        let first_of_batch = nth;
        nth += batch.len() as u64;
        output.last_append = batch.append_time;
        let mut within = first_of_batch;
        let part = batch.keeping(|_| {
            within += 1;
            kept.has(within - 1)
        });
        part.map_or(Ok(()), |part| output.push(part))
    })
    .and_then(|is_whole| output.finish(last.end).map(|()| is_whole));
    match result {
        Ok(true) => Ok(Some(output.made)),
        other => {
            for meta in &output.made {
                shared.fs.remove(&segment::path_of(&shared.dir, meta.file)).ok();
            }
            other.map(|_| None)
        }
    }
}

/// Segments of about the wanted size, one after the other.
struct Output<'a> {
    shared: &'a Shared,
    id: TopicPartition,
    base: u64,
    /// Of the last record seen, kept or not.
    last_append: Millis,
    writer: Option<SegmentWriter>,
    made: Vec<SegmentMeta>,
}

impl Output<'_> {
    fn writer(&mut self) -> Result<&mut SegmentWriter, Error> {
        if self.writer.is_none() {
            let number = take_number(&self.shared.spares);
            let path = segment::path_of(&self.shared.dir, number);
            let made = self.shared.fs.create(&path);
            let begun = made.and_then(|file| SegmentWriter::new(file, self.id, number, self.base, self.shared.options.block_bytes));
            self.writer = Some(begun.map_err(|error| io_error("writing", &path, &error))?);
        }
        Ok(self.writer.as_mut().expect("just made"))
    }

    fn push(&mut self, batch: RecordBatch) -> Result<(), Error> {
        let bytes_max = self.shared.options.segment_bytes_max;
        let end = batch.last_offset().map_or(self.base, |last| last.0 + 1);
        let dir = self.shared.dir.clone();
        let writer = self.writer()?;
        writer.push(batch).map_err(|error| io_error("writing to", &dir, &error))?;
        if writer.bytes_written() >= bytes_max {
            self.finish(end)?;
        }
        Ok(())
    }

    fn finish(&mut self, end: u64) -> Result<(), Error> {
        if self.base < end {
            self.writer()?;
        }
        if let Some(writer) = self.writer.take() {
            let mut meta = writer.finish(end, true).map_err(|error| io_error("writing to", &self.shared.dir, &error))?;
            if meta.records == 0 {
                (meta.first_append_ms, meta.last_append_ms) = (self.last_append.0, self.last_append.0);
            }
            self.base = end;
            self.made.push(meta);
        }
        Ok(())
    }
}
