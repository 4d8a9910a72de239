//! What Kafka itself does not keep for ever, in a compacted topic of our own: `<prefix>flywheel.ledger`.
//!
//! Partition 0 is written within transactions: every committed offset once more, because a broker forgets those of a group that was
//! stopped for a week (`offsets.retention.minutes`), and a fold that lost its offset would apply everything again. Partition 1 is written
//! plainly: topics as they were asked for (Kafka has no place for a retention that is ours), who last took over what, and pins.
//!
//! Keys are text and values JSON, so that any console consumer shows them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::reader::{Physical, Reader};
use crate::domain::{Incarnation, Millis, Offset, PartitionId};
use crate::log::{BatchBuilder, Cleanup, Error, RecordBatch, Retention, TopicId, TopicName, TopicPartition, TopicSpec};

/// The partition that transactions write.
pub(super) const COMMITS: i32 = 0;
/// The partition that is written plainly.
pub(super) const FACTS: i32 = 1;
const FETCH_BYTES: usize = 4 << 20;

/// The topic's name within a cluster.
pub(super) fn name(prefix: &str) -> String {
    format!("{prefix}flywheel.ledger")
}

/// A consumer group's place in one partition of a topic, by names that hold across processes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Seat {
    pub(super) group: String,
    pub(super) topic: String,
    pub(super) partition: u32,
}

impl Seat {
    fn key(&self, kind: &str) -> String {
        format!("{kind}/{}/{}/{}", self.group, self.topic, self.partition)
    }

    /// Groups hold no slash, nor do topics.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/').map(str::to_owned);
        let seat = Seat { group: parts.next()?, topic: parts.next()?, partition: parts.next()?.parse().ok()? };
        parts.next().is_none().then_some(seat)
    }
}

/// A committed offset as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Commit {
    pub(super) offset: u64,
    /// Names the transaction that committed it, so that an unknown outcome can be known.
    pub(super) nonce: String,
    metadata: String,
}

impl Commit {
    pub(super) fn new(offset: Offset, nonce: &str, metadata: &[u8]) -> Self {
        Self { offset: offset.0, nonce: nonce.to_owned(), metadata: BASE64_STANDARD.encode(metadata) }
    }

    pub(super) fn metadata(&self) -> Option<Bytes> {
        BASE64_STANDARD.decode(&self.metadata).ok().map(Bytes::from)
    }
}

/// Who last took over a seat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    pub(super) epoch: u64,
    /// The transactional id that it commits under.
    pub(super) owner: String,
    /// Those who had it before and may not know yet that they have not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) ending: Vec<String>,
    /// It was given back with nothing under way: whoever comes next need not end anything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) released: bool,
}

/// A topic as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Topic {
    partitions: u32,
    /// Milliseconds; absent is for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retention_ms: Option<u64>,
    compacted: bool,
    incarnation: u32,
}

/// What was read of it so far.
#[derive(Default)]
pub(super) struct Ledger {
    read: [Offset; 2],
    topics: BTreeMap<String, Topic>,
    pub(super) commits: HashMap<Seat, Commit>,
    pub(super) claims: HashMap<Seat, Claim>,
    /// By name and place: the topic and partition, and the offset.
    pub(super) pins: BTreeMap<(String, String, u32), u64>,
}

impl Ledger {
    /// Reads on to the partition's end.
    pub(super) fn refresh(&mut self, reader: &Reader, ledger: &str, partition: i32) -> Result<(), Error> {
        let of = Physical { topic: ledger.into(), partition };
        // The port's id is for errors only, and this is no topic of the port's.
        let id = TopicPartition { topic: TopicId(u32::MAX), partition: PartitionId(partition as u32) };
        let marks = reader.watermarks(&of)?;
        let mut next = self.read[partition as usize].max(marks.start);
        while next < marks.end {
            let fetched = reader.fetch(id, &of, next, FETCH_BYTES)?;
            for record in fetched.records() {
                self.take(record.key, record.value);
            }
            next = fetched.next;
        }
        self.read[partition as usize] = next;
        Ok(())
    }

    /// What does not read was written by a later version, whose business it is.
    fn take(&mut self, key: &[u8], value: Option<&[u8]>) {
        let Some((kind, rest)) = std::str::from_utf8(key).ok().and_then(|key| key.split_once('/')) else { return };
        match kind {
            "topic" => put(&mut self.topics, Some(rest.to_owned()), value),
            "commit" => put_hashed(&mut self.commits, Seat::parse(rest), value),
            "claim" => put_hashed(&mut self.claims, Seat::parse(rest), value),
            "pin" => {
                let place = rest.rsplitn(3, '/').collect::<Vec<_>>();
                let [partition, topic, name] = place[..] else { return };
                let Ok(partition) = partition.parse() else { return };
                put(&mut self.pins, Some((name.to_owned(), topic.to_owned(), partition)), value);
            }
            _ => {}
        }
    }

    pub(super) fn specs(&self) -> impl Iterator<Item = (TopicSpec, Incarnation)> + '_ {
        self.topics.iter().filter_map(|(name, topic)| {
            let spec = TopicSpec {
                name: TopicName::parse(name)?,
                partitions: topic.partitions,
                retention: topic.retention_ms.map_or(Retention::Forever, |ms| Retention::Age(Duration::from_millis(ms))),
                cleanup: if topic.compacted { Cleanup::Compact } else { Cleanup::Delete },
            };
            Some((spec, Incarnation(topic.incarnation)))
        })
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Option<&[u8]>) -> Option<T> {
    serde_json::from_slice(value?).ok()
}

fn put<K: Ord, T: serde::de::DeserializeOwned>(map: &mut BTreeMap<K, T>, key: Option<K>, value: Option<&[u8]>) {
    let Some(key) = key else { return };
    match read(value) {
        Some(value) => drop(map.insert(key, value)),
        None if value.is_none() => drop(map.remove(&key)),
        None => {}
    }
}

fn put_hashed<T: serde::de::DeserializeOwned>(map: &mut HashMap<Seat, T>, key: Option<Seat>, value: Option<&[u8]>) {
    let Some(key) = key else { return };
    match read(value) {
        Some(value) => drop(map.insert(key, value)),
        None if value.is_none() => drop(map.remove(&key)),
        None => {}
    }
}

fn record(key: &str, value: Option<&impl Serialize>) -> RecordBatch {
    let mut batch = BatchBuilder::new();
    let value = value.map(|value| serde_json::to_vec(value).expect("plain data is JSON"));
    batch.push(key.as_bytes(), value.as_deref(), Millis(0));
    batch.build()
}

pub(super) fn commit(seat: &Seat, commit: &Commit) -> RecordBatch {
    record(&seat.key("commit"), Some(commit))
}

pub(super) fn claim(seat: &Seat, claim: &Claim) -> RecordBatch {
    record(&seat.key("claim"), Some(claim))
}

pub(super) fn pin(name: &str, topic: &str, partition: u32, offset: Option<Offset>) -> RecordBatch {
    record(&format!("pin/{name}/{topic}/{partition}"), offset.map(|offset| offset.0).as_ref())
}

pub(super) fn topic(spec: &TopicSpec, incarnation: Incarnation) -> RecordBatch {
    let retention_ms = match spec.retention {
        Retention::Forever => None,
        Retention::Age(age) => Some(age.as_millis() as u64),
    };
    let compacted = spec.cleanup == Cleanup::Compact;
    record(
        &format!("topic/{}", spec.name),
        Some(&Topic { partitions: spec.partitions, retention_ms, compacted, incarnation: incarnation.0 }),
    )
}
