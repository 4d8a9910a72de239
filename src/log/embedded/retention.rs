//! What may go: whole segments past their topic's age, superseded records of keyed topics, and the seams between small segments.
//!
//! Nothing goes that a group which ever acquired the partition has yet to read, or that a pin holds.

use std::collections::BTreeSet;

use super::manifest::{Manifest, Partition, SegmentMeta};
use super::shared::Shared;
use super::{compact, merge, segment};
use crate::domain::Millis;
use crate::log::{Cleanup, Error, Retention, TopicInfo, TopicPartition};

/// Deletes, compacts and merges what each topic allows as of `now`; answers with the bytes freed.
pub(super) fn clean(shared: &Shared, now: Millis) -> Result<u64, Error> {
    let _only_one = shared.maintenance.lock();
    let topics = shared.view.topics();
    let mut freed = expire(shared, &topics, now)?;
    for topic in &topics {
        for partition in partitions_of(topic) {
            let rewritten = match topic.spec.cleanup {
                Cleanup::Compact => compact::compact(shared, partition),
                Cleanup::Delete => merge::merge_small(shared, partition).map(|()| 0),
            };
            match rewritten {
                Ok(bytes) => freed += bytes,
                // Rewriting needs room before it makes some; what was freed so far may do for the next time.
                Err(Error::NoSpace) => tracing::warn!(?partition, "no space to rewrite segments"),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(freed)
}

fn partitions_of(topic: &TopicInfo) -> impl Iterator<Item = TopicPartition> + use<> {
    let id = topic.id;
    (0..topic.spec.partitions).map(move |partition| TopicPartition { topic: id, partition: crate::domain::PartitionId(partition) })
}

/// Everything at or past this offset is still needed.
pub(super) fn needed_from(manifest: &Manifest, id: TopicPartition) -> u64 {
    let is_here = |topic: u32, partition: u32| topic == id.topic.0 && partition == id.partition.0;
    let groups = manifest.groups.iter().filter(|group| is_here(group.topic, group.partition)).map(|group| group.offset.unwrap_or(0));
    let pins = manifest.pins.iter().filter(|pin| is_here(pin.topic, pin.partition)).map(|pin| pin.offset);
    groups.chain(pins).min().unwrap_or(u64::MAX)
}

fn expire(shared: &Shared, topics: &[TopicInfo], now: Millis) -> Result<u64, Error> {
    let mut expired: Vec<(TopicPartition, Vec<SegmentMeta>)> = Vec::new();
    shared.edit_manifest(
        |manifest| {
            for topic in topics.iter().filter(|topic| topic.spec.cleanup == Cleanup::Delete) {
                let Retention::Age(age) = topic.spec.retention else { continue };
                let keep_after = now - i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
                for id in partitions_of(topic) {
                    let needed_from = needed_from(manifest, id);
                    let Some(partition) = manifest.partition_mut(id) else { continue };
                    expired.extend(Some((id, expire_partition(partition, keep_after, needed_from))).filter(|(_, gone)| !gone.is_empty()));
                }
            }
            (!expired.is_empty()).then(|| expired.clone())
        },
        |index, expired| {
            for (id, gone) in expired {
                let Some(partition) = index.partitions.get_mut(&id) else { continue };
                partition.segments.drain(..gone.len());
                partition.start = gone.last().map_or(partition.start, |last| last.end);
                let start = partition.start;
                partition.holes.retain(|hole| hole.to > start);
            }
        },
    )?;
    Ok(remove(shared, expired.into_iter().flat_map(|(_, gone)| gone)))
}

fn expire_partition(partition: &mut Partition, keep_after: Millis, needed_from: u64) -> Vec<SegmentMeta> {
    let is_expired = |meta: &&SegmentMeta| meta.last_append_ms < keep_after.0 && meta.end <= needed_from;
    let count = partition.segments.iter().take_while(is_expired).count();
    let gone: Vec<SegmentMeta> = partition.segments.drain(..count).collect();
    partition.start = gone.last().map_or(partition.start, |last| last.end);
    partition.holes.retain(|hole| hole.to > partition.start);
    gone
}

/// Unlinks segments that no manifest names any more. What cannot be removed now goes at the next opening.
pub(super) fn remove(shared: &Shared, gone: impl Iterator<Item = SegmentMeta>) -> u64 {
    let mut freed = 0;
    let mut seen = BTreeSet::new();
    for meta in gone.filter(|meta| seen.insert(meta.file)) {
        shared.view.segments.forget(meta.file);
        if shared.fs.remove(&segment::path_of(&shared.dir, meta.file)).is_ok() {
            freed += meta.bytes;
        }
    }
    freed
}

/// Puts `new` where `old` stood, if that still stands and `is_allowed`, and removes `old`. Otherwise removes `new`.
pub(super) fn replace(
    shared: &Shared,
    id: TopicPartition,
    old: &[SegmentMeta],
    new: Vec<SegmentMeta>,
    is_allowed: impl Fn(&Manifest) -> bool,
) -> Result<u64, Error> {
    shared.fs.sync_dir(&shared.dir).map_err(|error| super::io_error("syncing", &shared.dir, &error))?;
    let first = old.first().map_or(0, |meta| meta.file);
    let replaced = shared.edit_manifest(
        |manifest| {
            let is_allowed = is_allowed(manifest);
            let partition = manifest.partition_mut(id).filter(|_| is_allowed)?;
            let at = partition.segments.iter().position(|meta| meta.file == first)?;
            partition.segments.splice(at..at + old.len(), new.iter().cloned());
            Some(())
        },
        |index, ()| {
            let Some(partition) = index.partitions.get_mut(&id) else { return };
            let Some(at) = partition.segments.iter().position(|meta| meta.file == first) else { return };
            partition.segments.splice(at..at + old.len(), new.iter().cloned().map(std::sync::Arc::new));
        },
    )?;
    if !replaced {
        remove(shared, new.into_iter());
        return Ok(0);
    }
    let added: u64 = new.iter().map(|meta| meta.bytes).sum();
    Ok(remove(shared, old.iter().cloned()).saturating_sub(added))
}
