//! What the simulation knows for certain about a log, and the judgement of what it finds there.
//!
//! Every append carries its number in its records' timestamps, so that each record found tells which append it belongs to and which of
//! its records it is. Offsets have no gaps, so the appends that are there fix where each record must be.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use flywheel::domain::{Millis, Offset};
use flywheel::log::{Appended, BatchBuilder, Committed, Error, Group, LogReader, Ownership, RecordRef, TopicPartition, Transaction};

/// Records of one append are numbered within this.
const NUMBER: i64 = 1000;

#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The ticket is still open, or it gave an error that says nothing.
    Unknown,
    /// Acknowledged, or found by a reader: it must stay.
    Present,
    /// Refused with a promise that it left nothing, or not found by a restart: it must not appear.
    Absent,
}

#[derive(Debug)]
pub struct Append {
    pub batches: Vec<(usize, Vec<Content>)>,
    pub commit: Option<(usize, usize, u64)>,
    pub fate: Fate,
    pub appended: Option<Appended>,
}

impl Append {
    pub fn transaction(&self, number: usize, truth: &Truth) -> Transaction {
        let mut index = 0;
        let mut batches = Vec::new();
        for (partition, records) in &self.batches {
            let mut batch = BatchBuilder::new();
            for record in records {
                batch.push(&record.key, record.value.as_deref(), Millis(number as i64 * NUMBER + index));
                index += 1;
            }
            batches.push((truth.partitions[*partition], batch.build()));
        }
        let commit = self.commit.map(|(group, partition, offset)| {
            let owner = truth.owners[&(group, partition)].clone();
            (owner, Committed { offset: Offset(offset), metadata: Bytes::from(number.to_string()) })
        });
        Transaction { batches, commits: commit.into_iter().collect() }
    }
}

/// How a partition may lose records on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Kept,
    Aged,
    Keyed,
}

#[derive(Default)]
pub struct Truth {
    pub partitions: Vec<TopicPartition>,
    pub kinds: Vec<Kind>,
    pub groups: Vec<Group>,
    pub appends: Vec<Append>,
    /// The ownership that commits are made under; empty after a restart.
    pub owners: BTreeMap<(usize, usize), Ownership>,
    pub epochs: BTreeMap<(usize, usize), u64>,
    pub pins: BTreeMap<usize, Pin>,
    /// Below these offsets a cleaning was free to trim or compact.
    pub cleanable: Vec<u64>,
    pub starts: Vec<u64>,
    pub last_append_time: Millis,
    /// Synced bits were flipped: what was acknowledged may be missing where the log says so.
    pub is_damaged: bool,
    /// Backups taken so far.
    pub copies: u64,
    /// (partition, from, to).
    pub holes: Vec<(usize, u64, u64)>,
    /// Appends before this one were followed by others that attest them.
    pub attested: usize,
    pub counts: Counts,
}

/// How often the interesting things happened: a simulation that never meets them proves nothing.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub acknowledged: u64,
    pub refused: u64,
    pub unknown_and_kept: u64,
    pub unknown_and_gone: u64,
    pub failed_openings: u64,
    pub trimmed: u64,
    pub compacted: u64,
    pub holes: u64,
    pub read_beside: u64,
    pub copied: u64,
    pub refused_manifests: u64,
}

impl Counts {
    pub fn named(&self) -> [(&'static str, u64); 11] {
        [
            ("acknowledged", self.acknowledged),
            ("refused", self.refused),
            ("unknown and kept", self.unknown_and_kept),
            ("unknown and gone", self.unknown_and_gone),
            ("failed openings", self.failed_openings),
            ("trimmed", self.trimmed),
            ("compacted", self.compacted),
            ("holes", self.holes),
            ("read beside", self.read_beside),
            ("copied", self.copied),
            ("refused manifests", self.refused_manifests),
        ]
    }
}

/// A pin whose last change failed may be at either place; nothing is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    At(u64),
    Uncertain,
}

/// Where every record of a partition must be, by offset.
type Places = Vec<Vec<(usize, usize)>>;

impl Truth {
    pub fn kept(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.partitions.len()).filter(|partition| self.kinds[*partition] == Kind::Kept)
    }

    /// Takes note of an answer to append `number`.
    pub fn answer(&mut self, number: usize, result: Result<Appended, Error>) {
        let append = &mut self.appends[number];
        match result {
            Ok(appended) => {
                assert_ne!(append.fate, Fate::Absent, "append {number} was acknowledged after all");
                assert!(appended.append_time >= self.last_append_time, "append time went back");
                self.last_append_time = appended.append_time;
                append.fate = Fate::Present;
                append.appended = Some(appended);
                self.counts.acknowledged += 1;
            }
            Err(Error::NoSpace | Error::Overloaded | Error::Fenced(_) | Error::TooLarge { .. }) => {
                assert_ne!(append.fate, Fate::Present, "append {number} was refused after it had been served");
                append.fate = Fate::Absent;
                self.counts.refused += 1;
            }
            Err(Error::Io { .. } | Error::Closed) => {}
            Err(error) => panic!("append {number}: {error}"),
        }
    }

    /// From here on a cleaning may drop what nobody needs now.
    pub fn allow_cleaning(&mut self) {
        for partition in 0..self.partitions.len() {
            let owned = self.epochs.keys().filter(|(_, owned)| *owned == partition);
            let submitted = |key: &(usize, usize)| {
                let commits = self.appends.iter().filter(|append| append.fate != Fate::Absent).filter_map(|append| append.commit);
                commits.filter(|(group, partition, _)| (*group, *partition) == *key).map(|(.., offset)| offset).max().unwrap_or(0)
            };
            let pinned = match self.pins.get(&partition) {
                Some(Pin::At(offset)) => Some(*offset),
                Some(Pin::Uncertain) | None => None,
            };
            let allowed = owned.map(submitted).chain(pinned).min().unwrap_or(u64::MAX);
            self.cleanable[partition] = self.cleanable[partition].max(allowed);
        }
    }

    fn find(&self, record: &RecordRef<'_>) -> (usize, usize) {
        let (number, index) = ((record.timestamp.0 / NUMBER) as usize, (record.timestamp.0 % NUMBER) as usize);
        assert!(number < self.appends.len(), "a record of an append that was never made: {number}");
        (number, index)
    }

    fn content(&self, partition: usize, (number, index): (usize, usize)) -> &Content {
        let mut left = index;
        for (of, records) in &self.appends[number].batches {
            if left < records.len() {
                assert_eq!(*of, partition, "record {index} of append {number} is in another partition");
                return &records[left];
            }
            left -= records.len();
        }
        panic!("append {number} has no record {index}");
    }

    fn check_content(&self, partition: usize, record: &RecordRef<'_>) -> (usize, usize) {
        let found = self.find(record);
        let expected = self.content(partition, found);
        let is_same = record.key == expected.key && record.value == expected.value.as_deref();
        assert!(is_same, "record {found:?} at {partition}:{} is not what was appended", record.offset);
        found
    }

    /// Reads a partition from `from`: (offset, append, record) of everything found. Holes are taken note of where damage allows them.
    fn read(&mut self, log: &dyn LogReader, partition: usize, from: u64, bytes_max: usize) -> Vec<(u64, usize, usize)> {
        let id = self.partitions[partition];
        let end = log.watermarks(id).expect("watermarks").end;
        let mut found: Vec<(u64, usize, usize)> = Vec::new();
        let mut at = Offset(from);
        while at < end {
            match log.fetch(id, at, bytes_max) {
                Ok(fetched) => {
                    for record in fetched.records() {
                        let (number, index) = self.check_content(partition, &record);
                        assert!(record.offset >= at && found.last().is_none_or(|last| last.0 < record.offset.0), "out of order");
                        found.push((record.offset.0, number, index));
                    }
                    assert!(fetched.next > at, "a fetch at {at} below the end {end} does not move");
                    at = fetched.next;
                }
                Err(Error::Hole { from, to, .. }) if self.is_damaged => {
                    // It may begin further on, where compaction left nothing up to it; only its own offsets are excused.
                    assert!(to > at, "the hole {from}..{to} is behind what was read: {at}");
                    self.holes.push((partition, from.0, to.0));
                    self.counts.holes += 1;
                    at = to;
                }
                Err(error) => panic!("fetch {partition}:{at}: {error}"),
            }
        }
        found
    }

    /// Appends that were acknowledged and not lost to rot.
    pub fn acknowledged(&self) -> Vec<usize> {
        let is_acknowledged = |number: &usize| self.appends[*number].appended.is_some() && self.appends[*number].fate == Fate::Present;
        (0..self.appends.len()).filter(is_acknowledged).collect()
    }

    /// A copy holds everything acknowledged before it was asked for, each at its place.
    pub fn check_copy(&mut self, log: &dyn LogReader, acknowledged: &[usize]) {
        let mut there = BTreeSet::new();
        for partition in self.kept().collect::<Vec<_>>() {
            for (offset, number, index) in self.read(log, partition, 0, usize::MAX) {
                there.insert(number);
                let append = &self.appends[number];
                if let Some(appended) = &append.appended {
                    assert_eq!(places_of(append, &appended.first_offsets)[index], (partition, offset), "append {number} in a copy");
                }
            }
        }
        let missing: Vec<_> = acknowledged.iter().filter(|number| !there.contains(number)).collect();
        assert!(missing.is_empty(), "a copy lacks appends {missing:?}");
        self.counts.copied += 1;
    }

    /// A look while the log runs: whatever is served must stay.
    pub fn look(&mut self, log: &dyn LogReader, partition: usize, from: u64, bytes_max: usize) {
        for (offset, number, index) in self.read(log, partition, from, bytes_max) {
            let append = &mut self.appends[number];
            assert_ne!(append.fate, Fate::Absent, "append {number} is served, but is not there");
            append.fate = Fate::Present;
            if let Some(appended) = &append.appended {
                let place = places_of(append, &appended.first_offsets)[index];
                assert_eq!(place, (partition, offset), "append {number} was acknowledged at another place");
            }
        }
    }

    /// Judges a log that was just opened, with nothing in flight: which appends are there is settled now, and all else follows.
    pub fn settle(&mut self, log: &dyn LogReader) {
        let mut found = Vec::new();
        for partition in 0..self.partitions.len() {
            let start = log.watermarks(self.partitions[partition]).expect("watermarks").start.0;
            assert!(start >= self.starts[partition], "the start of {partition} went back");
            self.counts.trimmed += start - self.starts[partition];
            self.starts[partition] = start;
            found.push(self.read(log, partition, start, 900));
        }
        let seen: BTreeSet<usize> = self.kept().flat_map(|partition| found[partition].iter().map(|(_, number, _)| *number)).collect();
        for number in 0..self.appends.len() {
            self.settle_append(number, seen.contains(&number));
        }
        if self.is_damaged {
            self.check_damaged(&found);
        } else {
            let places = self.places();
            for (partition, places) in places.iter().enumerate() {
                let end = log.watermarks(self.partitions[partition]).expect("watermarks").end.0;
                assert_eq!(end, places.len() as u64, "the end of {partition}");
                self.counts.compacted += self.check_partition(partition, places, &found[partition]);
            }
        }
        self.check_commits(log);
    }

    fn settle_append(&mut self, number: usize, is_seen: bool) {
        let append = &mut self.appends[number];
        match append.fate {
            Fate::Unknown if is_seen => {
                append.fate = Fate::Present;
                self.counts.unknown_and_kept += 1;
            }
            Fate::Unknown => {
                append.fate = Fate::Absent;
                self.counts.unknown_and_gone += 1;
            }
            Fate::Present => assert!(is_seen || self.is_damaged, "append {number} was acknowledged or served, and is gone"),
            Fate::Absent => assert!(!is_seen, "append {number} was refused or gone, and is there"),
        }
    }

    /// The appends that are there, laid out as they must be.
    fn places(&self) -> Places {
        let mut places: Places = vec![Vec::new(); self.partitions.len()];
        for (number, append) in self.appends.iter().enumerate().filter(|(_, append)| append.fate == Fate::Present) {
            let mut index = 0;
            for (nth, (partition, records)) in append.batches.iter().enumerate() {
                let base = places[*partition].len() as u64;
                if let Some(appended) = &append.appended {
                    assert_eq!(appended.first_offsets[nth].0, base, "append {number} in {partition}: acknowledged at, and found at");
                }
                places[*partition].extend((index..index + records.len()).map(|index| (number, index)));
                index += records.len();
            }
        }
        places
    }

    /// Returns how many records compaction took.
    fn check_partition(&self, partition: usize, places: &[(usize, usize)], found: &[(u64, usize, usize)]) -> u64 {
        let mut compacted = 0;
        let found: BTreeMap<u64, (usize, usize)> = found.iter().map(|(offset, number, index)| (*offset, (*number, *index))).collect();
        let start = self.starts[partition];
        let may_trim = self.kinds[partition] == Kind::Aged && start <= self.cleanable[partition];
        assert!(start == 0 || may_trim, "{partition} was trimmed to {start}, allowed was {}", self.cleanable[partition]);
        let mut newest: BTreeMap<&[u8], u64> = BTreeMap::new();
        for (offset, place) in places.iter().enumerate() {
            newest.insert(&self.content(partition, *place).key, offset as u64);
        }
        for (offset, place) in places.iter().enumerate().skip(start as usize) {
            let offset = offset as u64;
            if let Some(is) = found.get(&offset) {
                assert_eq!(is, place, "{partition}:{offset}");
                continue;
            }
            compacted += 1;
            let content = self.content(partition, *place);
            let last = newest[&content.key[..]];
            let is_replaced = last > offset || content.value.is_none();
            let may_go = self.kinds[partition] == Kind::Keyed && is_replaced && offset < self.cleanable[partition];
            assert!(may_go, "{partition}:{offset} of append {} is missing", place.0);
            let is_back = content.value.is_none()
                && last == offset
                && found.range(..offset).any(|(_, old)| self.content(partition, *old).key == content.key);
            assert!(!is_back, "{partition}:{offset} removed its key, and went before what it removes");
        }
        compacted
    }

    /// With flipped bits, what is there is right and in order, and what was attested is there or in a named hole.
    fn check_damaged(&self, found: &[Vec<(u64, usize, usize)>]) {
        let found: Vec<BTreeMap<u64, (usize, usize)>> =
            found.iter().map(|partition| partition.iter().map(|(offset, number, index)| (*offset, (*number, *index))).collect()).collect();
        for (number, append) in self.appends[..self.attested].iter().enumerate() {
            let Some(appended) = append.appended.as_ref().filter(|_| append.fate == Fate::Present) else { continue };
            for (index, (partition, offset)) in places_of(append, &appended.first_offsets).into_iter().enumerate() {
                if self.kinds[partition] != Kind::Kept {
                    continue;
                }
                match found[partition].get(&offset) {
                    Some(is) => assert_eq!(*is, (number, index), "{partition}:{offset}"),
                    None => {
                        let is_named = self.holes.iter().any(|(of, from, to)| *of == partition && (*from..*to).contains(&offset));
                        assert!(is_named, "{partition}:{offset} of append {number} is missing, and no hole is named");
                    }
                }
            }
        }
    }

    /// The newest commit among the appends that are there is the one that is found: never without its outputs, never behind them.
    fn check_commits(&self, log: &dyn LogReader) {
        for (group, name) in self.groups.iter().enumerate() {
            for (partition, id) in self.partitions.iter().enumerate() {
                let is_ours = |append: &Append| append.commit.is_some_and(|(of, input, _)| (of, input) == (group, partition));
                let present = |append: &Append| append.fate == Fate::Present && is_ours(append);
                let last = self.appends.iter().rposition(present);
                let found = log.committed(name, *id).expect("committed");
                let found = found.map(|committed| {
                    let number: usize = std::str::from_utf8(&committed.metadata).expect("a number").parse().expect("a number");
                    assert_eq!(
                        self.appends[number].commit,
                        Some((group, partition, committed.offset.0)),
                        "offset and metadata belong together"
                    );
                    number
                });
                if !self.is_damaged {
                    assert_eq!(found, last, "the commit of group {group} on {partition}");
                }
            }
        }
    }
}

/// (partition, offset) of every record of an append.
fn places_of(append: &Append, first_offsets: &[Offset]) -> Vec<(usize, u64)> {
    let with_base = append.batches.iter().zip(first_offsets);
    with_base.flat_map(|((partition, records), base)| (0..records.len() as u64).map(|nth| (*partition, base.0 + nth))).collect()
}
