//! Looking at every byte of a log, and declaring what is lost.
//!
//! [`check`] changes nothing and needs no lock. [`declare`] makes named holes part of the log, as a new incarnation: readers pass over
//! them from then on, and state that was folded from what is gone is refused or rebuilt instead of trusted.

use std::path::Path;
use std::sync::Arc;

use super::index::{Index, add_hole};
use super::manifest::{Hole, Manifest, Partition, SegmentMeta};
use super::open::LOCK_NAME;
use super::options::{Driver, Options};
use super::segment::{self, read::OpenSegment};
use super::{EmbeddedLog, io_error, recover, scan};
use crate::domain::{Incarnation, Offset};
use crate::env::Clock;
use crate::env::fs::Fs;
use crate::log::record::RECORD_HEAD_BYTES;
use crate::log::{Error, RecordBatch, TopicPartition};

/// Records that were acknowledged and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub topic: String,
    pub partition: TopicPartition,
    pub from: Offset,
    pub to: Offset,
    /// Where and why.
    pub what: String,
    /// An operator has declared it: readers pass over it.
    pub declared: bool,
}

/// What was looked at and found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub files: usize,
    pub bytes: u64,
    pub records: u64,
    pub damage: Vec<Damage>,
    /// What is not as it should be and costs no record.
    pub notes: Vec<String>,
}

impl Report {
    /// True if every acknowledged record can be read, but for holes that were declared.
    pub fn is_sound(&self) -> bool {
        self.damage.iter().all(|damage| damage.declared)
    }
}

/// Reads every byte of the log in `dir`. Beside a running writer it leaves out what is not yet known to be synced.
pub fn check(fs: &dyn Fs, dir: &Path) -> Result<Report, Error> {
    let manifest = read_manifest(fs, dir)?;
    let mut report = Report { files: 1, ..Report::default() };
    for partition in &manifest.partitions {
        for meta in &partition.segments {
            check_segment(fs, dir, &manifest, partition, meta, &mut report)?;
        }
    }
    check_wal(fs, dir, &manifest, &mut report)?;
    Ok(report)
}

fn read_manifest(fs: &dyn Fs, dir: &Path) -> Result<Manifest, Error> {
    Manifest::read(fs, dir)?.ok_or_else(|| Error::Corrupt(format!("there is no log in {}", dir.display())))
}

fn topic_name(manifest: &Manifest, id: TopicPartition) -> String {
    let topic = manifest.topics.iter().find(|topic| topic.id == id.topic.0);
    topic.map_or_else(|| format!("topic {}", id.topic.0), |topic| topic.name.clone())
}

fn check_segment(
    fs: &dyn Fs,
    dir: &Path,
    manifest: &Manifest,
    partition: &Partition,
    meta: &SegmentMeta,
    report: &mut Report,
) -> Result<(), Error> {
    let (id, path) = (partition.id(), segment::path_of(dir, meta.file));
    let mut lose = |from: u64, to: u64, what: &str| {
        let declared = partition.holes.iter().any(|hole| hole.declared && hole.from <= from && to <= hole.to);
        let what = format!("{}: {what}", path.display());
        report.damage.push(Damage { topic: topic_name(manifest, id), partition: id, from: Offset(from), to: Offset(to), what, declared });
    };
    let segment = match fs.open(&path, false).and_then(OpenSegment::open) {
        Ok(segment) => segment,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            lose(meta.base, meta.end, "the file is missing");
            return Ok(());
        }
        Err(error) => {
            lose(meta.base, meta.end, &error.to_string());
            return Ok(());
        }
    };
    let mut at = meta.base;
    let mut records = 0;
    for block_ref in &segment.blocks {
        if block_ref.base > at {
            lose(at, block_ref.base, "a block is missing");
        }
        let block = segment.block(block_ref).map_err(|error| io_error("reading", &path, &error))?;
        match block.filter(|block| block.batches.iter().all(is_well_formed)) {
            Some(block) => records += block.batches.iter().map(|batch| batch.len() as u64).sum::<u64>(),
            None => lose(block_ref.base, block_ref.end, "a block does not match its checksum"),
        }
        at = block_ref.end;
    }
    if at < meta.end && meta.records > 0 {
        lose(at, meta.end, "its end is missing");
    }
    if segment.is_rebuilt {
        report.notes.push(format!("{}: the index is damaged; the blocks were searched for instead", path.display()));
    }
    if !segment.has_head(meta).map_err(|error| io_error("reading", &path, &error))? {
        report.notes.push(format!("{}: the head is damaged; the manifest says whose records these are", path.display()));
    }
    report.files += 1;
    report.bytes += meta.bytes;
    report.records += records;
    Ok(())
}

/// Walks a batch without trusting its lengths.
fn is_well_formed(batch: &RecordBatch) -> bool {
    let data = batch.data();
    let word = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().expect("four bytes"));
    let mut at = 0_usize;
    for _ in 0..batch.len() {
        if at + RECORD_HEAD_BYTES > data.len() {
            return false;
        }
        let value_len = if word(at + 4) == u32::MAX { 0 } else { word(at + 4) as usize };
        let headers_len = u16::from_le_bytes([data[at + 16], data[at + 17]]) as usize;
        at += RECORD_HEAD_BYTES + word(at) as usize + value_len + headers_len;
    }
    at == data.len()
}

fn check_wal(fs: &dyn Fs, dir: &Path, manifest: &Manifest, report: &mut Report) -> Result<(), Error> {
    let mut index = Index::from_manifest(manifest)?;
    let files = scan::list(fs, dir, manifest.wal_first, false)?;
    let scanned = scan::scan(files, manifest.sorted_through)?;
    let end = recover::end_of(&scanned, manifest.sorted_through);
    let is_live = fs.holder(&dir.join(LOCK_NAME)).map_err(|error| io_error("looking at the lock of", dir, &error))?.is_some();
    let attested = scanned.attested().max(manifest.sorted_through) + 1;
    let until = if is_live { end.sequence.min(attested) } else { end.sequence };
    recover::replay(&mut index, &scanned, manifest.sorted_through, until);
    report.files += scanned.files.len();
    report.bytes += scanned.bytes_read;
    report.records += index.partitions.values().flat_map(|partition| &partition.wal).map(|entry| u64::from(entry.count)).sum::<u64>();
    for (id, partition) in &index.partitions {
        for hole in &partition.holes {
            let known = report.damage.iter().any(|damage| damage.partition == *id && damage.from.0 <= hole.from && hole.to <= damage.to.0);
            if !known {
                report.damage.push(Damage {
                    topic: topic_name(manifest, *id),
                    partition: *id,
                    from: Offset(hole.from),
                    to: Offset(hole.to),
                    what: "write-ahead frames are damaged".to_owned(),
                    declared: hole.declared,
                });
            }
        }
    }
    Ok(())
}

/// Takes note of everything that is damaged: readers pass over it, and a new incarnation begins. Returns that, or `None` if nothing
/// was to be declared. Needs the folder for itself.
pub fn declare(fs: Arc<dyn Fs>, dir: &Path, clock: Arc<dyn Clock>) -> Result<Option<Incarnation>, Error> {
    let options = Options { driver: Driver::Caller { group: 1 }, ..Options::default() };
    let log = EmbeddedLog::open(Arc::clone(&fs), dir, options, clock)?;
    // After this everything is in segments, and every hole in the manifest.
    log.roll()?;
    let found = check(&*fs, dir)?;
    if found.is_sound() {
        return Ok(None);
    }
    let undeclared = || found.damage.iter().filter(|damage| !damage.declared);
    log.shared.edit_manifest(
        |manifest| {
            for damage in undeclared() {
                let Some(partition) = manifest.partition_mut(damage.partition) else { continue };
                declare_in(&mut partition.holes, damage);
                partition.segments.retain(|meta| fs.exists(&segment::path_of(dir, meta.file)));
            }
            manifest.incarnation += 1;
            Some(manifest.incarnation)
        },
        |index, incarnation| {
            for damage in undeclared() {
                let Some(partition) = index.partitions.get_mut(&damage.partition) else { continue };
                declare_in(&mut partition.holes, damage);
                partition.segments.retain(|meta| fs.exists(&segment::path_of(dir, meta.file)));
            }
            index.set_incarnation(Incarnation(incarnation));
        },
    )?;
    Ok(Some(log.incarnation()))
}

fn declare_in(holes: &mut Vec<Hole>, damage: &Damage) {
    let (from, to) = (damage.from.0, damage.to.0);
    holes.retain(|hole| hole.from < from || to < hole.to);
    add_hole(holes, Hole { from, to, declared: true });
}
