//! The log on Kafka: the port's promises on topics, transactions and consumer groups of a cluster.
//!
//! What differs from the embedded log, and where it is dealt with: offsets have gaps where transactions end, so that reading goes by
//! [`Fetched::next`](super::Fetched::next); the append time is the broker's, and a record's own timestamp travels in the header `fw-t` (eight
//! bytes, big endian, milliseconds); an append without offsets is not atomic over partitions (`plain`); one with offsets is a transaction
//! (`committer`); a stale owner is fenced by the broker (`owners`); retention is ours, by `DeleteRecords` (`clean`); compaction is the
//! broker's, which keeps at least the newest record of every key and waits for nobody.
//!
//! Order to read in: `client`, `raw`, `window`, `reader`, `delivery`, `plain`, `ledger`, `offsets`, `transactions`, `owners`, `committer`,
//! `member`, `catalog`.

mod catalog;
mod client;
mod committer;
mod delivery;
mod ledger;
mod member;
mod membership;
mod offsets;
mod options;
mod owners;
mod plain;
mod raw;
mod reader;
mod transactions;
mod window;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use self::catalog::Catalog;
use self::client::Complaints;
use self::committer::Committer;
use self::membership::KafkaMembership;
use self::owners::Owners;
use self::plain::Plain;
use self::reader::{Physical, Reader};
use super::{
    COMMIT_METADATA_BYTES_MAX, Cleanup, Committed, Error, Fetched, Group, LogReader, LogWriter, Membership, Ownership, RECORD_BYTES_MAX,
    Retention, Ticket, TopicId, TopicInfo, TopicPartition, TopicSpec, Transaction, Watermarks, agreed,
};
use crate::domain::{Incarnation, Millis, Offset, PartitionId};
pub use options::Options;

/// The largest message: brokers take this much unless they were told otherwise, head and key included.
const MESSAGE_BYTES_MAX: usize = 1_048_000;
/// How long the list of topics may be old.
const TOPICS_AGE: Duration = Duration::from_secs(2);
const TEND_EVERY: Duration = Duration::from_millis(200);

/// A topic that is known, by its number.
struct Known {
    info: TopicInfo,
    physical: Arc<str>,
}

#[derive(Default)]
struct Topics {
    by_id: HashMap<TopicId, Arc<Known>>,
    read_at: Option<Instant>,
}

pub struct KafkaLog {
    options: Arc<Options>,
    reader: Arc<Reader>,
    plain: Arc<Plain>,
    owners: Arc<Owners>,
    committer: Committer,
    catalog: Catalog,
    topics: RwLock<Topics>,
    tending: Arc<AtomicBool>,
    tender: Mutex<Option<JoinHandle<()>>>,
}

impl KafkaLog {
    /// Reaches the cluster, or says within about ten seconds which setting keeps it from that. Creates the ledger if it is missing.
    pub fn open(options: Options) -> Result<Arc<Self>, Error> {
        let options = Arc::new(options);
        let complaints = Complaints::default();
        let reader = Arc::new(Reader::new(&options, &complaints));
        let catalog = Catalog::new(&options, &complaints, &reader);
        catalog.reach()?;
        catalog.ensure(&ledger::name(&options.prefix), 2, Cleanup::Compact)?;
        let plain = Arc::new(Plain::new(&options, &complaints, &reader));
        let owners = Arc::new(Owners::new(&options, &complaints, &reader, &plain));
        let committer = Committer::new(&options, &complaints, &owners, &reader);
        let tending = Arc::new(AtomicBool::new(true));
        let (on, readers, of) = (Arc::clone(&tending), Arc::clone(&reader), Arc::clone(&owners));
        let tender = std::thread::Builder::new().name("kafka-tend".into()).spawn(move || {
            while on.load(Ordering::Acquire) {
                readers.tend();
                of.offsets.tend();
                std::thread::park_timeout(TEND_EVERY);
            }
        });
        let tender = Mutex::new(Some(tender.expect("the system has room for a thread")));
        Ok(Arc::new(Self { options, reader, plain, owners, committer, catalog, topics: RwLock::default(), tending, tender }))
    }

    /// Writes what was handed in and takes nothing more.
    pub fn close(&self) {
        self.committer.close();
        self.plain.close();
        self.tending.store(false, Ordering::Release);
        if let Some(tender) = self.tender.lock().take() {
            tender.thread().unpark();
            // Its panic was logged; there is nothing to add to it here.
            let _ = tender.join();
        }
    }

    /// Reads the ledger's topics if they may have changed.
    fn refresh(&self, at_most_old: Duration) -> Result<(), Error> {
        if self.topics.read().read_at.is_some_and(|at| at.elapsed() < at_most_old) {
            return Ok(());
        }
        let specs: Vec<_> = self.owners.look(ledger::FACTS, |ledger| ledger.specs().collect())?;
        let mut topics = self.topics.write();
        topics.read_at = Some(Instant::now());
        for (spec, incarnation) in specs {
            let id = catalog::id(&spec.name);
            if let Some(other) = topics.by_id.get(&id).filter(|known| known.info.spec.name != spec.name) {
                let message = format!("topics {} and {} have the same number; rename one of them", other.info.spec.name, spec.name);
                return Err(Error::Corrupt(message));
            }
            let physical = catalog::physical(&self.options.prefix, &spec.name, incarnation).into();
            topics.by_id.insert(id, Arc::new(Known { info: TopicInfo { id, spec, incarnation }, physical }));
        }
        Ok(())
    }

    fn known(&self, topic: TopicId) -> Result<Arc<Known>, Error> {
        let find = || self.topics.read().by_id.get(&topic).cloned();
        if let Some(known) = find() {
            return Ok(known);
        }
        self.refresh(Duration::ZERO)?;
        find().ok_or_else(|| Error::UnknownTopic(format!("number {}", topic.0)))
    }

    fn physical(&self, partition: TopicPartition) -> Result<Physical, Error> {
        let known = self.known(partition.topic)?;
        if partition.partition.0 >= known.info.spec.partitions {
            return Err(Error::UnknownTopic(format!("{}/{}", known.info.spec.name, partition.partition.0)));
        }
        Ok(Physical { topic: Arc::clone(&known.physical), partition: partition.partition.0 as i32 })
    }

    /// Errors name a topic as its users do.
    fn named(&self, error: Error) -> Error {
        let topics: Vec<TopicInfo> = self.topics.read().by_id.values().map(|known| known.info.clone()).collect();
        error.named(&topics)
    }

    fn check(&self, transaction: &Transaction) -> Result<(), Error> {
        for record in transaction.batches.iter().flat_map(|(_, batch)| batch) {
            let bytes = record.bytes();
            if bytes > RECORD_BYTES_MAX {
                return Err(Error::TooLarge { bytes, max: RECORD_BYTES_MAX });
            }
        }
        for (_, committed) in &transaction.commits {
            let bytes = committed.metadata.len();
            if bytes > COMMIT_METADATA_BYTES_MAX {
                return Err(Error::TooLarge { bytes, max: COMMIT_METADATA_BYTES_MAX });
            }
        }
        Ok(())
    }

    /// How far each partition of a topic may be trimmed as of `now`: below every group that owns it, and every pin.
    fn trim_to(&self, known: &Known, partition: u32, before: Millis) -> Result<Option<Offset>, Error> {
        let of = Physical { topic: Arc::clone(&known.physical), partition: partition as i32 };
        let start = self.reader.watermarks(&of)?.start;
        let mut to = self.reader.offset_at(&of, before)?;
        let ledger = self.owners.ledger.lock();
        let here = |topic: &str, at: u32| topic == &*known.physical && at == partition;
        for seat in ledger.claims.keys().filter(|seat| here(&seat.topic, seat.partition)) {
            to = to.min(Offset(ledger.commits.get(seat).map_or(0, |commit| commit.offset)));
        }
        for ((_, topic, at), offset) in &ledger.pins {
            if here(topic, *at) {
                to = to.min(Offset(*offset));
            }
        }
        Ok((to > start).then_some(to))
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl LogReader for KafkaLog {
    fn topics(&self) -> Result<Vec<TopicInfo>, Error> {
        self.refresh(TOPICS_AGE)?;
        let mut topics: Vec<TopicInfo> = self.topics.read().by_id.values().map(|known| known.info.clone()).collect();
        topics.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        Ok(topics)
    }

    fn watermarks(&self, partition: TopicPartition) -> Result<Watermarks, Error> {
        let of = self.physical(partition)?;
        let marks = self.reader.watermarks(&of)?;
        // What this process committed is durable, and the broker shows it a moment later: a fetch below this end waits for it.
        Ok(Watermarks { end: marks.end.max(self.reader.end_seen(&of)), ..marks })
    }

    fn end_seen(&self, partition: TopicPartition) -> Result<Offset, Error> {
        Ok(self.reader.end_seen(&self.physical(partition)?))
    }

    fn settled_end(&self, partition: TopicPartition) -> Result<Offset, Error> {
        self.reader.settled_end(&self.physical(partition)?)
    }

    fn fetch(&self, partition: TopicPartition, from: Offset, bytes_max: usize) -> Result<Fetched, Error> {
        let of = self.physical(partition)?;
        self.reader.fetch(partition, &of, from, bytes_max).map_err(|error| self.named(error))
    }

    fn offset_at(&self, partition: TopicPartition, time: Millis) -> Result<Offset, Error> {
        self.reader.offset_at(&self.physical(partition)?, time)
    }

    fn committed(&self, group: &Group, partition: TopicPartition) -> Result<Option<Committed>, Error> {
        let seat = self.owners.seat(group, &self.physical(partition)?);
        let Some(stored) = self.owners.committed(&seat)? else { return Ok(None) };
        let metadata = match stored.metadata {
            Some(metadata) => metadata,
            None => self.owners.long_metadata(&seat, &stored.nonce)?,
        };
        Ok(Some(Committed { offset: Offset(stored.offset), metadata }))
    }

    fn wait(&self, positions: &[(TopicPartition, Offset)], at_most: Duration) -> Result<bool, Error> {
        let at = |(id, from): &(TopicPartition, Offset)| Ok((*id, self.physical(*id)?, *from));
        let positions: Vec<_> = positions.iter().map(at).collect::<Result<_, Error>>()?;
        self.reader.wait(&positions, at_most).map_err(|error| self.named(error))
    }
}

impl LogWriter for KafkaLog {
    fn create_topic(&self, spec: &TopicSpec) -> Result<TopicInfo, Error> {
        self.refresh(Duration::ZERO)?;
        let id = catalog::id(&spec.name);
        let known = self.topics.read().by_id.get(&id).cloned();
        let info = match &known {
            Some(known) => agreed(&known.info, spec)?,
            None => TopicInfo { id, spec: spec.clone(), incarnation: Incarnation(1) },
        };
        let physical = catalog::physical(&self.options.prefix, &spec.name, info.incarnation);
        self.catalog.ensure(&physical, spec.partitions, spec.cleanup)?;
        if known.is_none_or(|known| known.info != info) {
            self.owners.state(ledger::topic(spec, info.incarnation))?;
            self.refresh(Duration::ZERO)?;
        }
        Ok(info)
    }

    fn acquire(&self, group: &Group, partition: TopicPartition) -> Result<Ownership, Error> {
        self.owners.acquire(group, partition, &self.physical(partition)?)
    }

    fn append(&self, transaction: Transaction) -> Result<Ticket, Error> {
        self.check(&transaction)?;
        let place = |(id, batch)| Ok((self.physical(id)?, batch));
        let batches: Vec<_> = transaction.batches.into_iter().map(place).collect::<Result<_, Error>>()?;
        if transaction.commits.is_empty() {
            return self.plain.append(batches);
        }
        let place = |(owner, committed): (Ownership, Committed)| {
            let of = self.physical(owner.partition)?;
            Ok((owner, of, committed))
        };
        let commits: Vec<_> = transaction.commits.into_iter().map(place).collect::<Result<_, Error>>()?;
        self.committer.hand_in(batches, commits)
    }

    fn health(&self) -> Result<(), Error> {
        self.plain.health()
    }

    fn pin(&self, name: &str, partition: TopicPartition, offset: Option<Offset>) -> Result<(), Error> {
        let of = self.physical(partition)?;
        self.owners.state(ledger::pin(name, &of.topic, of.partition as u32, offset))
    }

    fn pin_all(&self, name: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), Error> {
        let facts = offsets.iter().map(|(partition, offset)| {
            let of = self.physical(*partition)?;
            Ok(ledger::pin(name, &of.topic, of.partition as u32, Some(*offset)))
        });
        let facts: Vec<_> = facts.collect::<Result<_, Error>>()?;
        self.owners.state_all(facts)
    }

    /// Deletes what may go. Kafka does not say how many bytes that frees: what is returned is the number of offsets passed.
    fn clean(&self, now: Millis) -> Result<u64, Error> {
        self.refresh(Duration::ZERO)?;
        // Commits first: a group's offset only rises, so an older one is the careful one.
        self.owners.look(ledger::COMMITS, |_| ())?;
        self.owners.look(ledger::FACTS, |_| ())?;
        let topics: Vec<Arc<Known>> = self.topics.read().by_id.values().cloned().collect();
        let mut below = Vec::new();
        let mut passed = 0;
        for known in topics {
            let Retention::Age(age) = known.info.spec.retention else { continue };
            if known.info.spec.cleanup == Cleanup::Compact {
                continue;
            }
            for partition in 0..known.info.spec.partitions {
                if let Some(to) = self.trim_to(&known, partition, now + -(age.as_millis() as i64))? {
                    let of = Physical { topic: Arc::clone(&known.physical), partition: partition as i32 };
                    passed += to.0 - self.reader.watermarks(&of)?.start.0;
                    below.push((of, to));
                }
            }
        }
        if !below.is_empty() {
            self.catalog.delete_below(&below)?;
            below.iter().for_each(|(of, _)| self.reader.forget(of));
        }
        Ok(passed)
    }

    fn close(&self) {
        KafkaLog::close(self);
    }

    fn join(&self, group: &Group, topic: TopicId) -> Result<Box<dyn Membership>, Error> {
        let known = self.known(topic)?;
        Ok(Box::new(KafkaMembership::join(self, group, topic, &known.physical)?))
    }
}

/// A partition of a topic by its number.
fn at(topic: TopicId, partition: i32) -> TopicPartition {
    TopicPartition { topic, partition: PartitionId(partition as u32) }
}
