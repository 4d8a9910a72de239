//! What a partition of the profile fold remembers beside its people: feeder times, definitions in force, and which bit is which segment.
//!
//! Kept in the table's watermark, so that it is stored and restored together with the states it belongs to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::Error;
use super::interest::Heard;
use crate::domain::{Digest, Millis, Offset};
use crate::segments::SegmentSet;
use crate::workflow::Definition;

/// How many refused events are remembered by their offset, 100 kB at most; copies of older ones are always applied.
const REFUSED_MAX: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Memo {
    /// The newest time each feeder stated.
    feeders: BTreeMap<i32, i64>,
    /// How many there are; without a word from each of them there is no time.
    feeder_count: i32,
    time: Option<i64>,
    /// The topology in force, by digest.
    in_force: Option<String>,
    /// The one that comes into force at the first tick past this time.
    pending: Option<(String, i64)>,
    /// Every segment that ever was, and the digest it had last. A member has the bit of its place here; places are never used again.
    segments: Vec<(String, String)>,
    /// Offsets of events that became dead letters, the newest, in order: a copy sent again is applied only if its original was not.
    #[serde(default)]
    refused: Vec<u64>,
    /// Everyone is to be written again, this key done last; and whether they are all stored, so that it can begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    again: Option<Again>,
    /// From which offset on `refused` has them all.
    #[serde(default)]
    refused_from: Option<u64>,
    /// The digests of everyone's workflows in force, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    workflows: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    of_tenants: BTreeMap<String, Own>,
    /// Whether there ever was one, and so may be runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    has_runs: bool,
    /// What the runs of everyone's that ever were in force want to hear. `None` in memos of before it was kept.
    #[serde(default)]
    heard: Option<Heard>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Again {
    after: Vec<u8>,
    is_stored: bool,
}

/// What a tenant has for its own people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Own {
    /// In force: digests by name.
    workflows: BTreeMap<String, String>,
    /// What the runs of all that ever were want to hear.
    heard: Heard,
}

impl Memo {
    /// Of a partition of which nothing was folded yet.
    pub(super) fn begin() -> Self {
        Self { heard: Some(Heard::default()), ..Self::default() }
    }

    /// Everyone is to be written again, once they are stored.
    pub(super) fn write_again(&mut self) {
        self.again = Some(Again::default());
    }

    /// All of them are built again. True if they are to be stored now, so that writing can begin.
    pub(super) fn begin_again(&mut self) -> bool {
        self.again.as_mut().is_some_and(|again| !std::mem::replace(&mut again.is_stored, true))
    }

    /// After which key the next is to be written again; `None` if none is, or not yet.
    pub(super) fn written_again(&self) -> Option<Vec<u8>> {
        self.again.as_ref().filter(|again| again.is_stored).map(|again| again.after.clone())
    }

    /// Those up to this key were written; `None` after the last one.
    pub(super) fn write_again_after(&mut self, key: Option<bytes::Bytes>) {
        self.again = key.map(|key| Again { after: key.to_vec(), is_stored: true });
    }

    /// `next` is where the table's watermark stands: what a memo of before they were kept refused, it refused below that.
    pub(super) fn decode(bytes: &[u8], next: Offset) -> Result<Self, Error> {
        if bytes.is_empty() {
            return Ok(Self::begin());
        }
        let corrupt = |error: serde_json::Error| Error::Corrupt { what: "a profile table's memo".into(), detail: error.to_string() };
        let mut memo: Self = serde_json::from_slice(bytes).map_err(corrupt)?;
        memo.refused_from.get_or_insert(next.0);
        Ok(memo)
    }

    /// The event at this offset became a dead letter.
    pub(super) fn refuse(&mut self, offset: Offset) {
        let Err(at) = self.refused.binary_search(&offset.0) else { return };
        self.refused.insert(at, offset.0);
        if self.refused.len() > REFUSED_MAX {
            self.refused_from = Some(self.refused.remove(0) + 1);
        }
    }

    /// Whether a copy of the event at this offset is to be applied: not if that one was, as by a later build that no longer refuses it.
    pub(super) fn wants_copy_of(&mut self, offset: u64) -> bool {
        match self.refused.binary_search(&offset) {
            Ok(at) => {
                self.refused.remove(at);
                true
            }
            Err(_) => offset < self.refused_from.unwrap_or(0),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data")
    }

    /// The least of all feeders' times; none before each has stated one.
    pub(super) fn time(&self) -> Millis {
        self.time.map_or(Millis::MIN, Millis)
    }

    /// A feeder states its time; true if the partition's time moved.
    pub(super) fn hear(&mut self, feeder: i32, feeders: i32, time: i64) -> bool {
        self.feeder_count = feeders;
        let known = self.feeders.entry(feeder).or_insert(time);
        *known = (*known).max(time);
        if (self.feeders.len() as i64) < i64::from(feeders) {
            return false;
        }
        let least = self.feeders.values().copied().min();
        if least <= self.time {
            return false;
        }
        self.time = least;
        true
    }

    pub(super) fn in_force(&self) -> Option<Digest> {
        self.in_force.as_deref().and_then(Digest::from_hex)
    }

    /// A definition is to come into force at `from`.
    pub(super) fn announce(&mut self, digest: Digest, from: Millis) {
        self.pending = Some((digest.to_hex(), from.0));
    }

    /// When the announced definition comes into force.
    pub(super) fn pending_from(&self) -> Option<Millis> {
        self.pending.as_ref().map(|(_, from)| Millis(*from))
    }

    /// The definition that partition time has made due.
    pub(super) fn due(&self) -> Option<Digest> {
        let (digest, from) = self.pending.as_ref()?;
        if self.time() < Millis(*from) { None } else { Digest::from_hex(digest) }
    }

    /// Brings a definition into force; returns the bit of each of its segments.
    pub(super) fn switch<F>(&mut self, digest: Digest, segments: &SegmentSet<F>) -> Vec<usize> {
        self.in_force = Some(digest.to_hex());
        self.pending = None;
        self.bits(segments)
    }

    /// The bit of each segment, in the set's order; new names get new bits.
    pub(super) fn bits<F>(&mut self, segments: &SegmentSet<F>) -> Vec<usize> {
        let mut bits = Vec::with_capacity(segments.len());
        for segment in segments.iter() {
            let digest = segment.digest.to_hex();
            match self.segments.iter().position(|(name, _)| **name == *segment.name) {
                Some(bit) => {
                    self.segments[bit].1 = digest;
                    bits.push(bit);
                }
                None => {
                    bits.push(self.segments.len());
                    self.segments.push((segment.name.to_string(), digest));
                }
            }
        }
        bits
    }

    /// This workflow is in force under its name from now on, for everyone or for one tenant's subjects.
    pub(super) fn set_workflow(&mut self, tenant: &str, name: &str, digest: &str, definition: &Definition) {
        self.has_runs = true;
        let (workflows, heard) = match tenant {
            "" => (&mut self.workflows, self.heard.get_or_insert_default()),
            tenant => {
                let own = self.of_tenants.entry(tenant.to_owned()).or_default();
                (&mut own.workflows, &mut own.heard)
            }
        };
        workflows.insert(name.to_owned(), digest.to_owned());
        heard.add(definition);
    }

    /// None of this name is in force from now on.
    pub(super) fn retire_workflow(&mut self, tenant: &str, name: &str) {
        match tenant {
            "" => drop(self.workflows.remove(name)),
            tenant => drop(self.of_tenants.get_mut(tenant).and_then(|own| own.workflows.remove(name))),
        }
    }

    /// What runs of everyone's workflows want to hear; `None` where that was not kept, and there may be some.
    pub(super) fn heard(&self) -> Option<Heard> {
        self.heard.clone().or_else(|| (!self.has_runs && self.workflows.is_empty()).then(Heard::default))
    }

    pub(super) fn set_heard(&mut self, heard: Heard) {
        self.heard = Some(heard);
    }

    /// Those in force for everyone.
    pub(super) fn workflows(&self) -> impl Iterator<Item = Digest> {
        self.workflows.values().filter_map(|digest| Digest::from_hex(digest))
    }

    /// Of each tenant with workflows of its own: those in force, and what runs of all that it ever had want to hear.
    pub(super) fn of_tenants(&self) -> impl Iterator<Item = (&str, Vec<Digest>, &Heard)> {
        let digests = |own: &Own| own.workflows.values().filter_map(|digest| Digest::from_hex(digest)).collect();
        self.of_tenants.iter().map(move |(tenant, own)| (tenant.as_str(), digests(own), &own.heard))
    }

    /// Whether anyone can have runs, marks or caps.
    pub(super) fn has_runs(&self) -> bool {
        self.has_runs
    }

    /// Name and last digest of the segment with this bit.
    pub(super) fn segment(&self, bit: usize) -> Option<(&str, &str)> {
        self.segments.get(bit).map(|(name, digest)| (name.as_str(), digest.as_str()))
    }

    pub(super) fn segment_count(&self) -> usize {
        self.segments.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_the_least_of_all_feeders_and_never_goes_back() {
        let mut memo = Memo::default();
        assert!(!memo.hear(0, 2, 10));
        assert_eq!(memo.time(), Millis::MIN, "the other feeder has not said anything");
        assert!(memo.hear(1, 2, 5));
        assert_eq!(memo.time(), Millis(5));
        assert!(!memo.hear(0, 2, 20));
        assert!(!memo.hear(1, 2, 3));
        assert!(memo.hear(1, 2, 30));
        assert_eq!(memo.time(), Millis(20));
        assert_eq!(Memo::decode(&memo.encode(), Offset(0)).unwrap().time(), memo.time());
    }

    #[test]
    fn a_copy_is_wanted_once_if_its_original_was_refused_or_may_have_been() {
        let mut memo = Memo::default();
        memo.refuse(Offset(7));
        assert!(!memo.wants_copy_of(6) && memo.wants_copy_of(7) && !memo.wants_copy_of(7));
        (0..=REFUSED_MAX as u64).for_each(|offset| memo.refuse(Offset(10 + offset)));
        assert!(memo.wants_copy_of(10) && memo.wants_copy_of(3) && memo.wants_copy_of(11) && !memo.wants_copy_of(11));
        let mut of_before =
            Memo::decode(br#"{"feeders":{},"feeder_count":0,"time":null,"in_force":null,"pending":null,"segments":[]}"#, Offset(9))
                .unwrap();
        assert!(of_before.wants_copy_of(8) && !of_before.wants_copy_of(9));
    }
}
