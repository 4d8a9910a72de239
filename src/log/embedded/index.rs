//! What is readable and where it lies: the log's state as readers see it.
//!
//! Holds only what is durable: the committer adds a group after its sync, the sorter moves write-ahead entries into segments.
//! Reads no file; [`Index::plan`] says which ones `fetch` reads.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::format::FrameHead;
use super::manifest::{GroupProgress, Hole, Manifest, Partition as ManifestPartition, Pin, SegmentMeta};
use super::wal::WalFile;
use crate::domain::{Incarnation, Millis, Offset, PartitionId};
use crate::log::{Committed, Error, Group, Place, TopicId, TopicInfo, TopicPartition};

/// Records of one partition within a write-ahead file.
#[derive(Clone)]
pub(super) struct WalEntry {
    pub base: u64,
    pub count: u32,
    pub len: u32,
    pub crc: u32,
    pub append_time: Millis,
    pub file: Arc<WalFile>,
    pub at: u64,
    /// The records themselves while they are in the tail.
    pub tail: Option<Bytes>,
}

impl WalEntry {
    pub(super) fn end(&self) -> u64 {
        self.base + u64::from(self.count)
    }
}

#[derive(Default)]
pub(super) struct Partition {
    pub start: u64,
    pub end: u64,
    /// By offset, without overlap.
    pub segments: Vec<Arc<SegmentMeta>>,
    /// By offset, without overlap.
    pub holes: Vec<Hole>,
    pub wal: VecDeque<WalEntry>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct GroupState {
    pub epoch: u64,
    pub sequence: u64,
    pub committed: Option<Committed>,
}

#[derive(Default)]
pub(super) struct Index {
    pub topics: Vec<TopicInfo>,
    pub partitions: BTreeMap<TopicPartition, Partition>,
    pub groups: BTreeMap<(Group, TopicPartition), GroupState>,
    pub pins: BTreeMap<(String, TopicPartition), Offset>,
    pub last_append: Millis,
    /// The last frame that is published.
    pub sequence: u64,
}

/// Where a fetch reads.
pub(super) enum Plan {
    /// Nothing there yet; ask again at this offset.
    Nothing {
        next: u64,
    },
    Wal(Vec<WalEntry>),
    /// Records of this segment in `[from, until)`.
    Segment {
        segment: Arc<SegmentMeta>,
        from: u64,
        until: u64,
    },
}

impl Index {
    pub(super) fn from_manifest(manifest: &Manifest) -> Result<Index, Error> {
        let mut index = Index { last_append: Millis(manifest.last_append_ms), sequence: manifest.sorted_through, ..Index::default() };
        for topic in &manifest.topics {
            index.add_topic(topic.info(manifest.incarnation)?);
        }
        for stored in &manifest.partitions {
            let partition = index.partitions.entry(stored.id()).or_default();
            partition.start = stored.start;
            partition.end = stored.end;
            partition.segments = stored.segments.iter().cloned().map(Arc::new).collect();
            partition.holes = stored.holes.clone();
        }
        for stored in &manifest.groups {
            let id = TopicPartition { topic: TopicId(stored.topic), partition: PartitionId(stored.partition) };
            let state = GroupState { epoch: stored.epoch, sequence: stored.sequence, committed: stored.committed() };
            index.groups.insert((Group(stored.group.as_str().into()), id), state);
        }
        for pin in &manifest.pins {
            let id = TopicPartition { topic: TopicId(pin.topic), partition: PartitionId(pin.partition) };
            index.pins.insert((pin.name.clone(), id), Offset(pin.offset));
        }
        Ok(index)
    }

    pub(super) fn add_topic(&mut self, info: TopicInfo) {
        for partition in 0..info.spec.partitions {
            self.partitions.entry(TopicPartition { topic: info.id, partition: PartitionId(partition) }).or_default();
        }
        self.topics.push(info);
    }

    /// The same topic under another retention.
    pub(super) fn replace_topic(&mut self, info: TopicInfo) {
        if let Some(topic) = self.topics.iter_mut().find(|topic| topic.id == info.id) {
            *topic = info;
        }
    }

    pub(super) fn set_incarnation(&mut self, incarnation: Incarnation) {
        for topic in &mut self.topics {
            topic.incarnation = incarnation;
        }
    }

    /// The partition as people know it.
    pub(super) fn place(&self, id: TopicPartition) -> Place {
        let topic = self.topics.iter().find(|topic| topic.id == id.topic);
        Place { id, topic: topic.map(|topic| topic.spec.name.clone()) }
    }

    pub(super) fn partition(&self, id: TopicPartition) -> Result<&Partition, Error> {
        self.partitions.get(&id).ok_or_else(|| Error::UnknownTopic(format!("{id:?}")))
    }

    /// Takes a frame's progress over. Records are added by the caller, who knows where they lie.
    pub(super) fn apply_progress(&mut self, head: &FrameHead) {
        for owner in &head.acquires {
            let state = self.groups.entry((owner.group.clone(), owner.partition)).or_default();
            state.epoch = state.epoch.max(owner.epoch);
        }
        for (owner, committed) in &head.commits {
            let state = self.groups.entry((owner.group.clone(), owner.partition)).or_default();
            if head.sequence > state.sequence || state.committed.is_none() || state.sequence == 0 {
                state.sequence = head.sequence;
                state.committed = Some(committed.clone());
                state.epoch = state.epoch.max(owner.epoch);
            } else if head.sequence == state.sequence {
                state.committed = Some(committed.clone());
            }
        }
        self.sequence = self.sequence.max(head.sequence);
        self.last_append = self.last_append.max(head.append_time);
    }

    /// Progress and pins as the manifest keeps them.
    pub(super) fn progress(&self) -> (Vec<GroupProgress>, Vec<Pin>) {
        let groups = self.groups.iter().map(|((group, id), state)| GroupProgress {
            group: group.0.to_string(),
            topic: id.topic.0,
            partition: id.partition.0,
            epoch: state.epoch,
            sequence: state.sequence,
            offset: state.committed.as_ref().map(|committed| committed.offset.0),
            metadata: GroupProgress::encode_metadata(state.committed.as_ref().map_or(&[], |committed| &committed.metadata)),
        });
        let pins = self.pins.iter().map(|((name, id), offset)| Pin {
            name: name.clone(),
            topic: id.topic.0,
            partition: id.partition.0,
            offset: offset.0,
        });
        (groups.collect(), pins.collect())
    }

    /// Everything at or past this offset is still needed: by a group that ever acquired the partition, or by a pin.
    pub(super) fn needed_from(&self, id: TopicPartition) -> u64 {
        let groups = self.groups.iter().filter(|((_, partition), _)| *partition == id);
        let read = groups.map(|(_, state)| state.committed.as_ref().map_or(0, |committed| committed.offset.0));
        let pinned = self.pins.iter().filter(|((_, partition), _)| *partition == id).map(|(_, offset)| offset.0);
        read.chain(pinned).min().unwrap_or(u64::MAX)
    }

    pub(super) fn plan(&self, id: TopicPartition, from: Offset, bytes_max: usize) -> Result<Plan, Error> {
        let partition = self.partition(id)?;
        let (start, end) = (partition.start, partition.end);
        if from.0 < start || from.0 > end {
            return Err(Error::OffsetOutOfRange { partition: id.into(), asked: from, start: Offset(start), end: Offset(end) });
        }
        let mut at = from.0;
        for hole in partition.holes.iter().filter(|hole| hole.to > from.0) {
            if at < hole.from {
                return partition.plan_within(id, at, hole.from, bytes_max);
            }
            if !hole.declared {
                return Err(Error::Hole { partition: id.into(), from: Offset(hole.from), to: Offset(hole.to) });
            }
            at = hole.to;
        }
        partition.plan_within(id, at, end, bytes_max)
    }
}

impl Partition {
    /// Where to read `[at, until)`, which no hole touches.
    fn plan_within(&self, id: TopicPartition, at: u64, until: u64, bytes_max: usize) -> Result<Plan, Error> {
        if at >= until {
            return Ok(Plan::Nothing { next: at });
        }
        let segment = self.segments.partition_point(|segment| segment.end <= at);
        if let Some(segment) = self.segments.get(segment).filter(|segment| segment.base <= at) {
            return Ok(Plan::Segment { segment: Arc::clone(segment), from: at, until: until.min(segment.end) });
        }
        let first = self.wal.partition_point(|entry| entry.end() <= at);
        let mut bytes = 0;
        let mut entries: Vec<WalEntry> = Vec::new();
        for entry in self.wal.range(first..) {
            let follows = entry.base <= entries.last().map_or(at, WalEntry::end);
            if !follows || entry.base >= until || (bytes > 0 && bytes + entry.len as usize > bytes_max) {
                break;
            }
            bytes += entry.len as usize;
            entries.push(entry.clone());
        }
        if entries.is_empty() {
            // Offsets that no file answers for: never pass over them silently.
            let next_segment = self.segments.get(segment).map_or(until, |segment| segment.base);
            let next_entry = self.wal.get(first).map_or(until, |entry| entry.base);
            return Err(Error::Hole { partition: id.into(), from: Offset(at), to: Offset(next_segment.min(next_entry).min(until)) });
        }
        Ok(Plan::Wal(entries))
    }

    /// Names `[from, to)` as missing, merging it with what it touches.
    pub(super) fn add_hole(&mut self, from: u64, to: u64) {
        add_hole(&mut self.holes, Hole { from, to, declared: false });
    }
}

pub(super) fn add_hole(holes: &mut Vec<Hole>, hole: Hole) {
    if hole.from >= hole.to {
        return;
    }
    let mut merged = hole;
    holes.retain(|other| {
        let touches = other.from <= merged.to && merged.from <= other.to && other.declared == merged.declared;
        if touches {
            merged.from = merged.from.min(other.from);
            merged.to = merged.to.max(other.to);
        }
        !touches
    });
    let at = holes.partition_point(|other| other.from < merged.from);
    holes.insert(at, merged);
}

impl ManifestPartition {
    pub(super) fn new(id: TopicPartition) -> Self {
        Self { topic: id.topic.0, partition: id.partition.0, start: 0, end: 0, segments: Vec::new(), holes: Vec::new() }
    }
}
