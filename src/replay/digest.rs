//! The digest of a namespace: equal for the same history, whatever the batches, threads, restarts and crashes.
//!
//! Per key a chain over the record bodies, without positions and receive times; per topic the commutative sum of the chains, so that no
//! order between keys counts. `events` without what is derived within it (absorbs, forwarded events) and without records that have no
//! key; of `profiles` the latest of each key; `segment_changes` and `corrections` as they are; of `journal` the facts, without which executor
//! began what at which moment of its own. Which loads it promises anything for is in docs/replay.md.

use std::collections::HashMap;

use bytes::Bytes;
use rustc_hash::FxBuildHasher;

use super::each_record;
use crate::domain::Namespace;
use crate::log::{LogReader, RecordRef};
use crate::schema;
use crate::schema::records::{EventsRecord, JournalFact, JournalRecord, Origin};
use crate::stream::{Error, Topic, Topics};

/// One topic's share.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TopicDigest {
    pub topic: &'static str,
    pub digest: String,
    pub keys: u64,
    pub records: u64,
}

/// Of a whole namespace.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct NamespaceDigest {
    /// Of the topics' digests, in their order.
    pub digest: String,
    pub topics: Vec<TopicDigest>,
}

const TOPICS: [Topic; 5] = [Topic::Events, Topic::Profiles, Topic::SegmentChanges, Topic::Corrections, Topic::Journal];

/// Computes the digest of what the log holds now; `None` if there is no such namespace.
pub fn digest(log: &dyn LogReader, namespace: &Namespace) -> Result<Option<NamespaceDigest>, Error> {
    let Some(topics) = Topics::find(log, namespace)? else { return Ok(None) };
    let mut whole = blake3::Hasher::new();
    let mut digests = Vec::new();
    for topic in TOPICS {
        let digest = topic_digest(log, &topics, topic)?;
        whole.update(topic.as_str().as_bytes());
        whole.update(digest.digest.as_bytes());
        digests.push(digest);
    }
    Ok(Some(NamespaceDigest { digest: whole.finalize().to_hex().to_string(), topics: digests }))
}

fn topic_digest(log: &dyn LogReader, topics: &Topics, topic: Topic) -> Result<TopicDigest, Error> {
    let mut sum = Sum::default();
    let (mut keys, mut records) = (0, 0);
    // Partition by partition: a key has only one, and its chains need not be in memory together with another's.
    for partition in topics.partitions(topic) {
        let mut chains = Chains::default();
        let mut scratch = Vec::new();
        each_record(log, partition, None, |record| {
            let Some(body) = body(topic, record, &mut scratch)? else { return Ok(()) };
            match topic {
                Topic::Profiles => chains.replace(record.key, body),
                _ => chains.extend(record.key, body),
            }
            Ok(())
        })?;
        records += chains.records;
        keys += chains.by_key.len() as u64;
        for (key, chain) in &chains.by_key {
            sum.add(blake3::Hasher::new().update(&(key.len() as u64).to_le_bytes()).update(key).update(chain).finalize().as_bytes());
        }
    }
    Ok(TopicDigest { topic: topic.as_str(), digest: sum.to_hex(), keys, records })
}

/// What of a record counts; `None` if nothing does.
enum Body<'a> {
    Bytes(&'a [u8]),
    Removed,
}

fn body<'a>(topic: Topic, record: &RecordRef<'a>, scratch: &'a mut Vec<u8>) -> Result<Option<Body<'a>>, Error> {
    let Some(value) = record.value else { return Ok(Some(Body::Removed)) };
    match topic {
        Topic::Events => {}
        Topic::Journal => return fact(value, scratch),
        _ => return Ok(Some(Body::Bytes(value))),
    }
    let nowhere = Origin { incarnation: 0, partition: 0, offset: 0 };
    let mut decoded: EventsRecord<'_> = schema::decode(value)?;
    match &mut decoded {
        EventsRecord::Event(event) => {
            (event.received_at, event.origin) = (0, nowhere);
            event.redriven_from = event.redriven_from.map(|_| nowhere);
        }
        EventsRecord::Handover(handover) => {
            handover.origin = nowhere;
            handover.redriven_from = handover.redriven_from.map(|_| nowhere);
        }
        EventsRecord::Expect(expect) => {
            expect.origin = nowhere;
            expect.redriven_from = expect.redriven_from.map(|_| nowhere);
        }
        EventsRecord::Absorb(_)
        | EventsRecord::Tick(_)
        | EventsRecord::Activated(_)
        | EventsRecord::Ask(_)
        | EventsRecord::Broadcast(_) => {
            return Ok(None);
        }
    }
    scratch.clear();
    schema::encode(&decoded, scratch)?;
    Ok(Some(Body::Bytes(scratch)))
}

/// A fact as it was decided. Who performs an effect, and when that was acknowledged, is of the run that was watched and not of what happened.
fn fact<'a>(value: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Option<Body<'a>>, Error> {
    let JournalRecord::Fact(JournalFact { at, run, body }) = schema::decode(value)? else { return Ok(None) };
    let kind = body.split('"').nth(1).unwrap_or_default();
    if !["effect_started", "permit_granted"].contains(&kind) {
        return Ok(Some(Body::Bytes(value)));
    }
    let corrupt = |error: serde_json::Error| Error::Corrupt { what: "a fact".into(), detail: error.to_string() };
    let mut said: serde_json::Value = serde_json::from_str(body).map_err(corrupt)?;
    for told in [format!("/{kind}"), format!("/{kind}/grant")] {
        if let Some(members) = said.pointer_mut(&told).and_then(serde_json::Value::as_object_mut) {
            members.remove("executor");
            members.remove("appended");
        }
    }
    scratch.clear();
    let body = said.to_string();
    schema::encode(&JournalRecord::Fact(JournalFact { at, run, body: &body }), scratch)?;
    Ok(Some(Body::Bytes(scratch)))
}

#[derive(Default)]
struct Chains {
    by_key: HashMap<Bytes, [u8; 32], FxBuildHasher>,
    records: u64,
}

impl Chains {
    fn extend(&mut self, key: &[u8], body: Body<'_>) {
        let bytes = match body {
            Body::Bytes(bytes) => bytes,
            Body::Removed => &[],
        };
        self.records += 1;
        let before = self.by_key.get(key).copied().unwrap_or_default();
        let after = *blake3::Hasher::new().update(&before).update(bytes).finalize().as_bytes();
        self.put(key, after);
    }

    fn replace(&mut self, key: &[u8], body: Body<'_>) {
        match body {
            Body::Bytes(bytes) => self.put(key, *blake3::hash(bytes).as_bytes()),
            Body::Removed => {
                self.by_key.remove(key);
            }
        }
        self.records = self.by_key.len() as u64;
    }

    fn put(&mut self, key: &[u8], chain: [u8; 32]) {
        match self.by_key.get_mut(key) {
            Some(known) => *known = chain,
            None => {
                self.by_key.insert(Bytes::copy_from_slice(key), chain);
            }
        }
    }
}

/// A sum modulo 2^256 of numbers that nobody can choose: it does not depend on the order of its parts.
#[derive(Default)]
struct Sum([u64; 4]);

impl Sum {
    fn add(&mut self, part: &[u8; 32]) {
        let mut carry = false;
        for (at, word) in part.chunks_exact(8).enumerate() {
            let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
            let (sum, first) = self.0[at].overflowing_add(word);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            self.0[at] = sum;
            carry = first || second;
        }
    }

    fn to_hex(&self) -> String {
        self.0.iter().rev().map(|word| format!("{word:016x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_does_not_depend_on_the_order_of_its_parts_and_carries() {
        let parts: Vec<[u8; 32]> = (0..50u8).map(|n| *blake3::hash(&[n]).as_bytes()).collect();
        let (mut there, mut back) = (Sum::default(), Sum::default());
        parts.iter().for_each(|part| there.add(part));
        parts.iter().rev().for_each(|part| back.add(part));
        assert_eq!(there.to_hex(), back.to_hex());
        let mut all_ones = Sum([u64::MAX, 0, 0, 0]);
        let mut one = [0; 32];
        one[0] = 1;
        all_ones.add(&one);
        assert_eq!(all_ones.0, [0, 1, 0, 0]);
    }

    #[test]
    fn a_chain_depends_on_the_order_within_its_key() {
        let chain = |bodies: [&'static [u8]; 2]| {
            let mut chains = Chains::default();
            bodies.into_iter().for_each(|body| chains.extend(b"k", Body::Bytes(body)));
            chains.by_key[b"k".as_slice()]
        };
        assert_ne!(chain([b"a", b"b"]), chain([b"b", b"a"]));
    }
}
