//! A log under test and short words to drive it with: records are text, errors are compared by kind.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flywheel::domain::{Millis, Namespace, Offset, PartitionId};
use flywheel::env::ManualClock;
use flywheel::log::{
    Appended, BatchBuilder, Cleanup, Committed, Error, Fetched, Group, LogWriter, Ownership, Retention, TopicName, TopicPartition,
    TopicSpec, Transaction,
};

/// How the suite opens one kind of log.
pub trait Adapter {
    /// Opens the log: the first time an empty one, after that the same one again. The one of before is dropped.
    fn open(&mut self, clock: &ManualClock) -> Arc<dyn LogWriter>;

    /// Makes all that was appended so far a candidate for retention and compaction.
    fn seal(&mut self);
}

pub struct World {
    pub log: Arc<dyn LogWriter>,
    pub clock: ManualClock,
    adapter: Box<dyn Adapter>,
}

/// The time at which every test begins.
pub const START: Millis = Millis(1_000_000);

impl World {
    pub fn new(mut adapter: Box<dyn Adapter>) -> Self {
        let clock = ManualClock::at(START);
        Self { log: adapter.open(&clock), clock, adapter }
    }

    pub fn reopen(&mut self) {
        // The handle goes first: a folder has one writer.
        self.log = Arc::new(flywheel::log::MemoryLog::new(Arc::new(self.clock.clone())));
        self.log = self.adapter.open(&self.clock);
    }

    pub fn seal(&mut self) {
        self.adapter.seal();
    }

    pub fn clean(&self) -> u64 {
        use flywheel::env::Clock;
        self.log.clean(self.clock.now()).unwrap()
    }

    pub fn topic(&self, name: &str, partitions: u32) -> Vec<TopicPartition> {
        self.create(&spec(name, partitions))
    }

    pub fn create(&self, spec: &TopicSpec) -> Vec<TopicPartition> {
        let topic = self.log.create_topic(spec).unwrap().id;
        (0..spec.partitions).map(|partition| TopicPartition { topic, partition: PartitionId(partition) }).collect()
    }

    pub fn submit(&self, transaction: Transaction) -> Result<Appended, Error> {
        self.log.append(transaction)?.wait()
    }

    /// Appends `key=value` words (`key` alone is a record without a value) as one batch and returns the first offset.
    pub fn append(&self, partition: TopicPartition, words: &str) -> u64 {
        self.submit(batches(&[(partition, words)])).unwrap().first_offsets[0].0
    }

    pub fn commit(&self, owner: &Ownership, offset: u64, metadata: &str) -> Result<Appended, Error> {
        self.submit(commits(owner, offset, metadata))
    }

    pub fn committed(&self, group: &str, partition: TopicPartition) -> Option<(u64, String)> {
        let committed = self.log.committed(&Group(group.into()), partition).unwrap()?;
        Some((committed.offset.0, text(&committed.metadata)))
    }

    pub fn acquire(&self, group: &str, partition: TopicPartition) -> Ownership {
        self.log.acquire(&Group(group.into()), partition).unwrap()
    }

    pub fn fetch(&self, partition: TopicPartition, from: u64, bytes_max: usize) -> Result<Fetched, Error> {
        self.log.fetch(partition, Offset(from), bytes_max)
    }

    /// Everything from the partition's start to its end: `offset:key=value`.
    pub fn read(&self, partition: TopicPartition) -> String {
        let marks = self.log.watermarks(partition).unwrap();
        self.read_from(partition, marks.start.0)
    }

    pub fn read_from(&self, partition: TopicPartition, from: u64) -> String {
        let end = self.log.watermarks(partition).unwrap().end;
        let mut words = Vec::new();
        let mut at = Offset(from);
        while at < end {
            let fetched = self.log.fetch(partition, at, 10_000).unwrap();
            assert!(fetched.next > at, "a fetch below the end gets somewhere");
            for record in fetched.records() {
                assert!(record.offset >= at && record.offset < fetched.next);
                let value = record.value.map_or(String::new(), |value| format!("={}", text(value)));
                words.push(format!("{}:{}{value}", record.offset, text(record.key)));
            }
            at = fetched.next;
        }
        words.join(" ")
    }

    pub fn marks(&self, partition: TopicPartition) -> (u64, u64) {
        let marks = self.log.watermarks(partition).unwrap();
        (marks.start.0, marks.end.0)
    }

    pub fn has_news(&self, positions: &[(TopicPartition, u64)]) -> bool {
        let positions: Vec<_> = positions.iter().map(|(partition, offset)| (*partition, Offset(*offset))).collect();
        self.log.wait(&positions, Duration::ZERO).unwrap()
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn spec(name: &str, partitions: u32) -> TopicSpec {
    let name = TopicName::new(&Namespace::new("test").unwrap(), name);
    TopicSpec { name, partitions, retention: Retention::Forever, cleanup: Cleanup::Delete }
}

/// Keeps sealed records for a minute.
pub fn short_lived(name: &str) -> TopicSpec {
    TopicSpec { retention: Retention::Age(Duration::from_secs(60)), ..spec(name, 1) }
}

pub fn compacted(name: &str) -> TopicSpec {
    TopicSpec { cleanup: Cleanup::Compact, ..spec(name, 1) }
}

pub fn batches(batches: &[(TopicPartition, &str)]) -> Transaction {
    let encode = |words: &str| {
        let mut batch = BatchBuilder::new();
        for word in words.split_whitespace() {
            let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
            batch.push(key.as_bytes(), value.map(str::as_bytes), Millis(0));
        }
        batch.build()
    };
    Transaction { batches: batches.iter().map(|(partition, words)| (*partition, encode(words))).collect(), commits: Vec::new() }
}

pub fn commits(owner: &Ownership, offset: u64, metadata: &str) -> Transaction {
    let committed = Committed { offset: Offset(offset), metadata: Bytes::copy_from_slice(metadata.as_bytes()) };
    Transaction { batches: Vec::new(), commits: vec![(owner.clone(), committed)] }
}
