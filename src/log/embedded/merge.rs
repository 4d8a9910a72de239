//! Small neighbouring segments become one: a file per partition and write-ahead file would be too many after a year.
//!
//! Blocks are copied as they are; only the index is made anew.

use super::manifest::SegmentMeta;
use super::segment::{self, write::SegmentWriter};
use super::shared::Shared;
use super::wal::take_number;
use super::{io_error, retention};
use crate::log::{Error, TopicPartition};

/// So many small neighbours are worth copying.
const RUN_MIN: usize = 8;

/// Merges the first run of small segments of a partition, as often as there is one.
pub(super) fn merge_small(shared: &Shared, id: TopicPartition) -> Result<(), Error> {
    loop {
        let segments: Vec<SegmentMeta> = {
            let index = shared.view.index.read();
            let Some(partition) = index.partitions.get(&id) else { return Ok(()) };
            partition.segments.iter().map(|meta| SegmentMeta::clone(meta)).collect()
        };
        let Some(run) = find_run(&segments, shared.options.segment_bytes_max) else { return Ok(()) };
        let Some(merged) = merge(shared, id, run)? else { return Ok(()) };
        retention::replace(shared, id, run, vec![merged], |_| true)?;
    }
}

fn find_run(segments: &[SegmentMeta], bytes_max: u64) -> Option<&[SegmentMeta]> {
    let is_small = |meta: &SegmentMeta| meta.bytes < bytes_max / RUN_MIN as u64 && meta.records > 0;
    let mut begin = 0;
    while begin < segments.len() {
        let mut bytes = 0;
        let mut covered = segments[begin].base;
        let run = segments[begin..].iter().take_while(|meta| {
            bytes += meta.bytes;
            let follows = meta.base == covered;
            covered = meta.end;
            is_small(meta) && follows && bytes <= bytes_max
        });
        let len = run.count();
        if len >= RUN_MIN {
            return Some(&segments[begin..begin + len]);
        }
        begin += len.max(1);
    }
    None
}

/// `None` if a block is damaged: such segments are left to the doctor.
fn merge(shared: &Shared, id: TopicPartition, run: &[SegmentMeta]) -> Result<Option<SegmentMeta>, Error> {
    let number = take_number(&shared.spares);
    let path = segment::path_of(&shared.dir, number);
    let failed = |error: std::io::Error| io_error("merging into", &path, &error);
    let file = shared.fs.create(&path).map_err(failed)?;
    let merged = (|| {
        let mut writer = SegmentWriter::new(file, id, number, run[0].base, shared.options.block_bytes).map_err(failed)?;
        for meta in run {
            let source = shared.view.segments.open(meta.file)?;
            for block in &source.blocks {
                let Some(bytes) = source.raw_block(block).map_err(failed)? else { return Ok(None) };
                writer.push_block(&bytes, *block).map_err(failed)?;
            }
            if writer.covered() != meta.end {
                return Ok(None);
            }
        }
        writer.finish(run[run.len() - 1].end, false).map(Some).map_err(failed)
    })();
    if !matches!(merged, Ok(Some(_))) {
        shared.fs.remove(&path).ok();
    }
    merged
}
