//! Random histories of one log, compared step by step with the plainest model there is: a list of records per partition.
//!
//! The model knows what may be missing, not what must be: an adapter is free to clean later than it could, never earlier.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use flywheel::domain::{Millis, Offset};
use flywheel::env::Clock;
use flywheel::log::{BatchBuilder, Cleanup, Committed, Error, Group, Ownership, Retention, TopicPartition, TopicSpec, Transaction};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::log_contract::adapters::{Embedded, Memory};
use crate::log_contract::world::{Adapter, World, spec};

const AGE_MS: i64 = 10_000;
const GROUPS: [&str; 2] = ["fold", "projector"];
/// Two topics kept by age and compaction, and one that is kept whole; two partitions each.
const PARTITIONS: usize = 6;

#[derive(Debug, Clone)]
enum Step {
    /// Records as (partition, key, value length; none is a removal), and a commit by a group as (group, partition, stale).
    Append {
        records: Vec<(usize, u8, Option<u16>)>,
        commit: Option<(usize, usize, bool)>,
    },
    Acquire {
        group: usize,
        partition: usize,
    },
    Pin {
        name: u8,
        partition: usize,
        back: Option<u8>,
    },
    Advance {
        ms: u16,
    },
    Seal,
    Clean,
    Reopen,
    ReadFrom {
        partition: usize,
        back: u8,
        bytes_max: u16,
    },
    FindTime {
        partition: usize,
        back_ms: u16,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let partition = 0..PARTITIONS;
    let record = (partition.clone(), 0..5_u8, prop::option::weighted(0.8, 0..300_u16));
    let commit = prop::option::of((0..GROUPS.len(), partition.clone(), prop::bool::weighted(0.2)));
    prop_oneof![
        8 => (prop::collection::vec(record, 0..12), commit).prop_map(|(records, commit)| Step::Append { records, commit }),
        1 => (0..GROUPS.len(), partition.clone()).prop_map(|(group, partition)| Step::Acquire { group, partition }),
        1 => (0..2_u8, partition.clone(), prop::option::of(0..10_u8)).prop_map(|(name, partition, back)| Step::Pin { name, partition, back }),
        2 => (0..AGE_MS as u16).prop_map(|ms| Step::Advance { ms }),
        2 => Just(Step::Seal),
        2 => Just(Step::Clean),
        1 => Just(Step::Reopen),
        3 => (partition.clone(), any::<u8>(), 0..2000_u16).prop_map(|(partition, back, bytes_max)| Step::ReadFrom { partition, back, bytes_max }),
        1 => (partition, 0..20_000_u16).prop_map(|(partition, back_ms)| Step::FindTime { partition, back_ms }),
    ]
}

#[derive(Debug, Clone, PartialEq)]
struct Expected {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    append_time: Millis,
}

#[derive(Default)]
struct Model {
    records: Vec<Vec<Expected>>,
    start: Vec<u64>,
    /// What compaction was seen to have removed while it was free to go; a pin that comes later does not bring it back.
    gone: Vec<BTreeSet<u64>>,
    owners: BTreeMap<(usize, usize), Vec<Ownership>>,
    /// Acquired since the log was opened.
    live: BTreeSet<(usize, usize)>,
    commits: BTreeMap<(usize, usize), (u64, Bytes)>,
    pins: BTreeMap<(u8, usize), u64>,
    appends: u64,
}

impl Model {
    fn end(&self, partition: usize) -> u64 {
        self.records[partition].len() as u64
    }

    fn needed_from(&self, partition: usize) -> u64 {
        let owned = self.owners.keys().filter(|key| key.1 == partition);
        let read = owned.map(|key| self.commits.get(key).map_or(0, |commit| commit.0));
        let pinned = self.pins.iter().filter(|(key, _)| key.1 == partition).map(|(_, offset)| *offset);
        read.chain(pinned).min().unwrap_or(u64::MAX)
    }
}

struct Run {
    world: World,
    partitions: Vec<TopicPartition>,
    model: Model,
}

impl Run {
    fn new(adapter: Box<dyn Adapter>) -> Run {
        let world = World::new(adapter);
        let aged = TopicSpec { retention: Retention::Age(Duration::from_millis(AGE_MS as u64)), ..spec("aged", 2) };
        let keyed = TopicSpec { cleanup: Cleanup::Compact, ..spec("keyed", 2) };
        let partitions = [spec("kept", 2), aged, keyed].iter().flat_map(|spec| world.create(spec)).collect();
        let model = Model {
            records: vec![Vec::new(); PARTITIONS],
            start: vec![0; PARTITIONS],
            gone: vec![BTreeSet::new(); PARTITIONS],
            ..Model::default()
        };
        Run { world, partitions, model }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Append { records, commit } => self.append(records, *commit),
            Step::Acquire { group, partition } => {
                let owner = self.world.acquire(GROUPS[*group], self.partitions[*partition]);
                let owners = self.model.owners.entry((*group, *partition)).or_default();
                assert!(owners.iter().all(|before| before.epoch < owner.epoch));
                owners.push(owner);
                self.model.live.insert((*group, *partition));
            }
            Step::Pin { name, partition, back } => {
                let offset = back.map(|back| self.model.end(*partition).saturating_sub(u64::from(back)).max(self.model.start[*partition]));
                self.world.log.pin(&format!("pin {name}"), self.partitions[*partition], offset.map(Offset)).unwrap();
                match offset {
                    Some(offset) => self.model.pins.insert((*name, *partition), offset),
                    None => self.model.pins.remove(&(*name, *partition)),
                };
            }
            Step::Advance { ms } => self.world.clock.advance(i64::from(*ms)),
            Step::Seal => self.world.seal(),
            Step::Clean => {
                self.world.clean();
                self.check_everything();
            }
            Step::Reopen => {
                self.world.reopen();
                self.model.live.clear();
                self.check_everything();
            }
            Step::ReadFrom { partition, back, bytes_max } => {
                let from = self.model.end(*partition).saturating_sub(u64::from(*back)).max(self.model.start[*partition]);
                self.check_read(*partition, from, usize::from(*bytes_max));
            }
            Step::FindTime { partition, back_ms } => self.check_time(*partition, Millis(self.world.clock.now().0 - i64::from(*back_ms))),
        }
    }

    fn append(&mut self, records: &[(usize, u8, Option<u16>)], commit: Option<(usize, usize, bool)>) {
        self.model.appends += 1;
        let mut builders: BTreeMap<usize, BatchBuilder> = BTreeMap::new();
        let mut expected = Vec::new();
        for (partition, key, len) in records {
            let key = format!("key {key}").into_bytes();
            let value = len.map(|len| vec![self.model.appends as u8; usize::from(len)]);
            builders.entry(*partition).or_default().push(&key, value.as_deref(), Millis(0));
            expected.push((*partition, Expected { key, value, append_time: self.world.clock.now() }));
        }
        let batches = builders.into_iter().map(|(partition, batch)| (self.partitions[partition], batch.build())).collect();
        let mut transaction = Transaction { batches, commits: Vec::new() };
        let metadata = Bytes::from(format!("append {}", self.model.appends));
        let mut is_stale = false;
        let mut kept = None;
        if let Some((group, partition, stale)) = commit
            && let Some(owners) = self.model.owners.get(&(group, partition))
        {
            let is_replaced = stale && owners.len() > 1;
            is_stale = is_replaced || !self.model.live.contains(&(group, partition));
            let owner = if is_replaced { &owners[owners.len() - 2] } else { &owners[owners.len() - 1] };
            let offset = self.model.end(partition);
            let committed = Committed { offset: Offset(offset), metadata: metadata.clone() };
            transaction.commits.push((owner.clone(), committed));
            kept = Some(((group, partition), (offset, metadata)));
        }
        let result = self.world.submit(transaction);
        if is_stale {
            assert!(matches!(result, Err(Error::Fenced(_))), "{result:?}");
            return;
        }
        result.unwrap();
        self.model.commits.extend(kept);
        for (partition, record) in expected {
            self.model.records[partition].push(record);
        }
    }

    fn check_everything(&mut self) {
        for partition in 0..PARTITIONS {
            let marks = self.world.log.watermarks(self.partitions[partition]).unwrap();
            assert_eq!(marks.end.0, self.model.end(partition));
            let before = self.model.start[partition];
            assert!(marks.start.0 >= before, "a start never goes back");
            assert!(marks.start.0 <= self.model.needed_from(partition).max(before), "what is needed was trimmed");
            let trimmed = &self.model.records[partition][before as usize..marks.start.0 as usize];
            let old = |record: &Expected| record.append_time.0 < self.world.clock.now().0 - AGE_MS;
            assert!(trimmed.is_empty() || (self.is_aged(partition) && trimmed.iter().all(old)), "what is young or kept was trimmed");
            self.model.start[partition] = marks.start.0;
            self.check_read(partition, marks.start.0, 700);
        }
        for (group, name) in GROUPS.iter().enumerate() {
            for partition in 0..PARTITIONS {
                let committed = self.world.log.committed(&Group((*name).into()), self.partitions[partition]).unwrap();
                let committed = committed.map(|committed| (committed.offset.0, committed.metadata));
                assert_eq!(committed.as_ref(), self.model.commits.get(&(group, partition)));
            }
        }
    }

    fn is_aged(&self, partition: usize) -> bool {
        self.partitions[partition].topic == self.partitions[2].topic
    }

    fn is_keyed(&self, partition: usize) -> bool {
        self.partitions[partition].topic == self.partitions[4].topic
    }

    /// Reads to the end: what is there is right, and what is missing is allowed to be.
    fn check_read(&mut self, partition: usize, from: u64, bytes_max: usize) {
        let expected = &self.model.records[partition];
        let mut seen = BTreeSet::new();
        let mut at = Offset(from);
        while at.0 < self.model.end(partition) {
            let fetched = self.world.log.fetch(self.partitions[partition], at, bytes_max).unwrap();
            for record in fetched.records() {
                assert!(record.offset >= at && seen.last().is_none_or(|last| *last < record.offset.0));
                seen.insert(record.offset.0);
                let is = Expected { key: record.key.to_vec(), value: record.value.map(<[u8]>::to_vec), append_time: record.append_time };
                assert_eq!(is, expected[record.offset.0 as usize]);
            }
            assert!(fetched.next > at);
            at = fetched.next;
        }
        let mut newest = BTreeMap::new();
        for (offset, record) in expected.iter().enumerate() {
            newest.insert(&record.key, offset as u64);
        }
        let gone = &self.model.gone[partition];
        let missing: Vec<u64> =
            (from..self.model.end(partition)).filter(|offset| !seen.contains(offset) && !gone.contains(offset)).collect();
        for offset in &missing {
            let record = &expected[*offset as usize];
            let is_replaced = newest[&record.key] > *offset || record.value.is_none();
            let may_go = self.is_keyed(partition) && is_replaced && *offset < self.model.needed_from(partition);
            assert!(may_go, "offset {offset} of partition {partition} is missing");
        }
        self.model.gone[partition].extend(missing);
    }

    fn check_time(&self, partition: usize, time: Millis) {
        let start = self.model.start[partition];
        let found = self.world.log.offset_at(self.partitions[partition], time).unwrap().0;
        let appended = |offset: u64| self.model.records[partition][offset as usize].append_time;
        assert!(found == self.model.end(partition) || appended(found) >= time);
        let earlier = start..found;
        // Compaction may have removed the record that the time names; then the next one stands for it.
        assert!(self.is_keyed(partition) || earlier.into_iter().all(|offset| appended(offset) < time));
    }
}

fn check(cases: u32, adapter: impl Fn() -> Box<dyn Adapter>) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&prop::collection::vec(step(), 1..60), |steps| {
        let mut run = Run::new(adapter());
        for step in &steps {
            run.step(step);
        }
        run.check_everything();
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

#[test]
fn the_log_in_memory_behaves_like_the_model() {
    check(300, || Box::new(Memory::default()));
}

#[test]
fn the_embedded_log_behaves_like_the_model() {
    check(150, || Box::new(Embedded::simulated()));
}

#[test]
fn the_embedded_log_behaves_like_the_model_on_a_real_disk() {
    check(30, || Box::new(Embedded::on_disk()));
}
