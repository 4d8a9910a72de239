//! The whole spine of an event-time namespace in memory, over virtual time: what `[[test]]` blocks of topologies run in.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::definitions::NamespaceClock;
use super::profile::people;
use super::spine::{Setup, Spine};
use super::topology::{Change, Given, Run, Seen, Topology};
use super::worker::{Stepped, Stepper};
use super::{Error, Options, Partitions, Topic, Topics};
use crate::domain::{Millis, Namespace, PartitionId, Subject, SubjectKey, TenantId};
use crate::env::ManualClock;
use crate::intake::{derived_message_id, key_of};
use crate::log::{BatchBuilder, LogReader, LogWriter, MemoryLog, Transaction};
use crate::schema;
use crate::schema::records::{BatchOutcomes, IntakeItem, IntakeRecord, SegmentChange, TimeStatement};
use crate::segments::Lookup;
use crate::state::MemoryStore;

/// Runs topologies on a log and a store in memory.
pub struct Simulation;

impl Run for Simulation {
    fn run(&self, topology: &Topology, given: &[Given], until: Millis) -> Result<Seen, String> {
        simulate(topology, given, until).map_err(|error| error.to_string())
    }
}

/// Folds `given`, then states `until`: what became of the records, who changed segments when, and everyone's values.
pub fn simulate(topology: &Topology, given: &[Given], until: Millis) -> Result<Seen, Error> {
    let topology = Arc::new(topology.clone());
    let log: Arc<dyn LogWriter> = Arc::new(MemoryLog::new(Arc::new(ManualClock::at(until))));
    let namespace = Namespace::new("simulation").expect("a slug");
    let setup = Setup {
        log: Arc::clone(&log),
        state: Arc::new(MemoryStore::new()),
        clock: Arc::new(ManualClock::at(until)),
        namespace,
        time: NamespaceClock::Event,
        partitions: Partitions { intake: 1, events: 1, inbox: 0 },
        topology: Arc::clone(&topology),
        options: Options { linger_ms: 0, ..Options::default() },
        copied: None,
        inbox: Default::default(),
    };
    let state = Arc::clone(&setup.state);
    let mut spine = Spine::open(setup)?;
    let topics = spine.topics().clone();
    log.append(arrivals(&topics, given, until)?)?.wait()?;
    drive(spine.workers())?;
    for worker in spine.workers() {
        worker.stop()?;
    }
    let mut profiles: BTreeMap<_, Box<dyn Lookup<super::topology::Field>>> = BTreeMap::new();
    for (key, person) in people(&*state, &topics, PartitionId(0), &topology)? {
        profiles.insert(key.subject(), Box::new(person));
    }
    Ok(Seen { outcomes: outcomes(&*log, &topics)?, changes: changes(&*log, &topics)?, profiles })
}

/// Steps workers in turn until none has anything left to do.
pub fn drive(workers: &mut [Box<dyn Stepper>]) -> Result<(), Error> {
    loop {
        let mut worked = false;
        for worker in workers.iter_mut() {
            worked |= worker.step()? == Stepped::Worked;
        }
        if !worked {
            return Ok(());
        }
    }
}

fn arrivals(topics: &Topics, given: &[Given], until: Millis) -> Result<Transaction, Error> {
    let tenant = TenantId::new("test").expect("a slug");
    let mut batch = BatchBuilder::new();
    for record in given {
        let (message_id, message_id_derived) = message_id(&record.body);
        let item = IntakeItem {
            source: "test",
            message_id: &message_id,
            message_id_derived,
            received_at: record.received_at.0,
            sent_at: None,
            route: "",
            remote_ip: "",
            user_agent: "",
            historical: false,
            body: &record.body,
            batch: "",
            redriven_from: None,
            depth: 0,
        };
        // A body without any id is refused by whoever looks at it first; here that must be intake, so it gets some key.
        let key = key_of(&record.body, "").unwrap_or_else(|_| Subject::anonymous("none")).key(&tenant);
        batch.push_with(key.as_bytes(), record.received_at, |buffer| schema::encode(&IntakeRecord::Item(item), buffer))?;
    }
    batch.push_with(b"", until, |buffer| schema::encode(&IntakeRecord::Time(TimeStatement { time: until.0 }), buffer))?;
    Ok(Transaction { batches: vec![(topics.partition(Topic::Intake, PartitionId(0)), batch.build())], commits: Vec::new() })
}

/// The body's own message id, or the one made of the body, as the gateway does it.
fn message_id(body: &str) -> (String, bool) {
    #[derive(serde::Deserialize)]
    struct Head {
        #[serde(rename = "messageId")]
        message_id: Option<String>,
    }
    let given = serde_json::from_str::<Head>(body).ok().and_then(|head| head.message_id).filter(|id| !id.is_empty());
    match given {
        Some(id) => (id, false),
        None => (derived_message_id(body, ""), true),
    }
}

/// Visits every record of a topic's first partition.
fn each(log: &dyn LogReader, topics: &Topics, topic: Topic, mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), Error>) -> Result<(), Error> {
    let fetched = log.fetch(topics.partition(topic, PartitionId(0)), crate::domain::Offset(0), usize::MAX)?;
    for record in fetched.records() {
        visit(record.key, record.value.unwrap_or_default())?;
    }
    Ok(())
}

fn outcomes(log: &dyn LogReader, topics: &Topics) -> Result<BTreeMap<String, u64>, Error> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    each(log, topics, Topic::Outcomes, |_, value| {
        let batch: BatchOutcomes = schema::decode(value)?;
        let named = [
            ("applied", batch.applied),
            ("duplicate", batch.duplicate),
            ("filtered", batch.filtered),
            ("dead_lettered", batch.dead_lettered),
            ("control", batch.control),
        ];
        for (name, count) in named {
            *counts.entry(name.to_owned()).or_default() += count as u64;
        }
        for exception in batch.exceptions.into_iter().filter(|exception| !exception.reason.is_empty()) {
            *counts.entry(exception.reason).or_default() += 1;
        }
        Ok(())
    })?;
    Ok(counts)
}

fn changes(log: &dyn LogReader, topics: &Topics) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    each(log, topics, Topic::SegmentChanges, |key, value| {
        let change: SegmentChange<'_> = schema::decode(value)?;
        let Ok(key) = SubjectKey::from_bytes(bytes::Bytes::copy_from_slice(key)) else { return Ok(()) };
        let (segment, entered) = (change.segment.to_owned(), change.entered);
        changes.push(Change { at: Millis(change.at), subject: key.subject(), segment, entered });
        Ok(())
    })?;
    changes.sort_by_key(|change| change.at);
    Ok(changes)
}
