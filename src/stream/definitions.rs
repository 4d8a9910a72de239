//! Definitions: stored by digest in `definitions`, brought into force by `Activated` records in every `events` partition.
//!
//! The newest definition of a kind in the topic is the one that was activated last, because storing and activating are one append.
//! Offers [`Library`], which finds a topology by digest for a fold that has to go on under an older one.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::topology::Topology;
use super::{Error, Topic, Topics};
use crate::domain::{Digest, Incarnation, Millis, Namespace, PartitionId};
use crate::log::{BatchBuilder, LogReader, LogWriter, Transaction};
use crate::schema;
use crate::schema::records::{Activated, Definition, EventsRecord, Tick};

pub const KIND_TOPOLOGY: &str = "topology";
pub const KIND_NAMESPACE: &str = "namespace";
/// An operator's word that time may pass in an incarnation that began as a copy.
const KIND_RELEASE: &str = "release";

const FETCH_BYTES: usize = 1 << 20;

/// How a namespace's time passes; fixed when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceClock {
    /// With the day: for live traffic.
    Wall,
    /// As the importer states it: for imports, the demo, backtests.
    Event,
}

impl NamespaceClock {
    pub fn as_str(self) -> &'static str {
        match self {
            NamespaceClock::Wall => "wall",
            NamespaceClock::Event => "event",
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct NamespaceBody {
    clock: NamespaceClock,
}

/// A definition as the topic holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    kind: String,
    name: String,
    digest: Digest,
    body: String,
}

/// Calls `visit` with every definition, oldest first.
fn each(log: &dyn LogReader, topics: &Topics, mut visit: impl FnMut(Stored)) -> Result<(), Error> {
    let partition = topics.partition(Topic::Definitions, PartitionId(0));
    let bounds = log.watermarks(partition)?;
    let mut from = bounds.start;
    while from < bounds.end {
        let fetched = log.fetch(partition, from, FETCH_BYTES)?;
        for record in fetched.records() {
            let Some(value) = record.value else { continue };
            let definition: Definition<'_> = schema::decode(value)?;
            let corrupt = || Error::Corrupt { what: "a definition's digest".into(), detail: definition.digest.to_owned() };
            let digest = Digest::from_hex(definition.digest).ok_or_else(corrupt)?;
            let (kind, name, body) = (definition.kind.to_owned(), definition.name.to_owned(), definition.body.to_owned());
            visit(Stored { kind, name, digest, body });
        }
        from = fetched.next;
    }
    Ok(())
}

fn newest(log: &dyn LogReader, topics: &Topics, kind: &str) -> Result<Option<Stored>, Error> {
    let mut newest = None;
    each(log, topics, |definition| {
        if definition.kind == kind {
            newest = Some(definition);
        }
    })?;
    Ok(newest)
}

/// How the namespace's time passes, if it was created.
pub fn clock_of(log: &dyn LogReader, topics: &Topics) -> Result<Option<NamespaceClock>, Error> {
    let Some(stored) = newest(log, topics, KIND_NAMESPACE)? else { return Ok(None) };
    let body: NamespaceBody = serde_json::from_str(&stored.body)
        .map_err(|error| Error::Corrupt { what: format!("the definition of {}", topics.namespace), detail: error.to_string() })?;
    Ok(Some(body.clock))
}

#[derive(Debug, Serialize, Deserialize)]
struct ReleaseBody {
    incarnation: u32,
}

/// The newest incarnation in which an operator has let time pass.
pub fn released(log: &dyn LogReader, topics: &Topics) -> Result<Option<Incarnation>, Error> {
    let Some(stored) = newest(log, topics, KIND_RELEASE)? else { return Ok(None) };
    let body: ReleaseBody = serde_json::from_str(&stored.body)
        .map_err(|error| Error::Corrupt { what: format!("a release of {}", topics.namespace), detail: error.to_string() })?;
    Ok(Some(Incarnation(body.incarnation)))
}

/// Key and value of the record by which an operator lets time pass in `incarnation`.
pub fn release(namespace: &Namespace, incarnation: Incarnation) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let body = serde_json::to_string(&ReleaseBody { incarnation: incarnation.0 }).expect("a plain value");
    let digest = Digest::of(body.as_bytes()).to_hex();
    let definition = Definition { kind: KIND_RELEASE, name: namespace.as_str(), digest: &digest, body: &body };
    let mut value = Vec::new();
    schema::encode(&definition, &mut value)?;
    Ok((digest.into_bytes(), value))
}

/// The value of the record by which an operator states a time in place of an intake partition that has stopped; one to every partition of
/// `events`.
pub fn override_of(topics: &Topics, feeder: PartitionId, time: Millis) -> Result<Vec<u8>, Error> {
    let tick = Tick { feeder: feeder.0 as i32, feeders: topics.count(Topic::Intake) as i32, time: time.0, by_operator: true };
    let mut value = Vec::new();
    schema::encode(&EventsRecord::Tick(tick), &mut value)?;
    Ok(value)
}

/// The topology that was activated last, as text.
pub fn topology_text(log: &dyn LogReader, topics: &Topics) -> Result<Option<String>, Error> {
    Ok(newest(log, topics, KIND_TOPOLOGY)?.map(|stored| stored.body))
}

/// Records the namespace's clock when it is created, and refuses another one later.
pub(super) fn fix_clock(log: &dyn LogWriter, topics: &Topics, clock: NamespaceClock) -> Result<(), Error> {
    match clock_of(log, topics)? {
        Some(have) if have == clock => Ok(()),
        Some(have) => {
            let namespace = topics.namespace.to_string();
            Err(Error::ClockDisagrees { namespace, have: have.as_str(), want: clock.as_str() })
        }
        None => {
            let body = serde_json::to_string(&NamespaceBody { clock }).expect("a plain value");
            let digest = Digest::of(body.as_bytes()).to_hex();
            let definition = Definition { kind: KIND_NAMESPACE, name: topics.namespace.as_str(), digest: &digest, body: &body };
            let mut transaction = Transaction::default();
            push_definition(&mut transaction, topics, &definition)?;
            log.append(transaction)?.wait()?;
            Ok(())
        }
    }
}

fn push_definition(transaction: &mut Transaction, topics: &Topics, definition: &Definition<'_>) -> Result<(), Error> {
    let mut batch = BatchBuilder::new();
    batch.push_with(definition.digest.as_bytes(), Millis(0), |buffer| schema::encode(definition, buffer))?;
    transaction.batches.push((topics.partition(Topic::Definitions, PartitionId(0)), batch.build()));
    Ok(())
}

/// Stores the topology and activates it from `from` on, unless it is the one in force; true if it did. One append reaches the topic and
/// every partition, so none can lack it.
pub fn activate(log: &dyn LogWriter, topics: &Topics, topology: &Topology, from: Millis) -> Result<bool, Error> {
    if newest(log, topics, KIND_TOPOLOGY)?.is_some_and(|stored| stored.digest == topology.digest) {
        return Ok(false);
    }
    let digest = topology.digest.to_hex();
    let definition = Definition { kind: KIND_TOPOLOGY, name: &topology.name, digest: &digest, body: &topology.canonical };
    let mut transaction = Transaction::default();
    push_definition(&mut transaction, topics, &definition)?;
    let activated = EventsRecord::Activated(Activated { kind: KIND_TOPOLOGY, name: &topology.name, digest: &digest, from: from.0 });
    for partition in topics.partitions(Topic::Events) {
        let mut batch = BatchBuilder::new();
        batch.push_with(b"", from, |buffer| schema::encode(&activated, buffer))?;
        transaction.batches.push((partition, batch.build()));
    }
    log.append(transaction)?.wait()?;
    Ok(true)
}

/// Topologies by digest, read from the log when first needed.
pub struct Library {
    log: Arc<dyn LogReader>,
    topics: Topics,
    /// Compiled once; a namespace has a handful over its life. Held only while looking one up.
    known: Mutex<BTreeMap<Digest, Arc<Topology>>>,
}

impl Library {
    pub fn new(log: Arc<dyn LogReader>, topics: Topics) -> Self {
        Self { log, topics, known: Mutex::default() }
    }

    pub fn add(&self, topology: Arc<Topology>) {
        self.known.lock().insert(topology.digest, topology);
    }

    pub fn get(&self, digest: Digest) -> Result<Arc<Topology>, Error> {
        if let Some(topology) = self.known.lock().get(&digest) {
            return Ok(Arc::clone(topology));
        }
        let mut body = None;
        each(&*self.log, &self.topics, |definition| {
            if definition.digest == digest {
                body = Some(definition.body);
            }
        })?;
        let Some(body) = body else {
            let topic = self.topics.info(Topic::Definitions).spec.name.to_string();
            return Err(Error::UnknownDefinition { kind: KIND_TOPOLOGY.to_owned(), digest: digest.to_hex(), topic });
        };
        let parsed = Topology::parse(&digest.to_hex(), &body);
        let topology = parsed.map_err(|problems| Error::BadDefinition { digest: digest.to_hex(), detail: problems.to_string() })?;
        let topology = Arc::new(topology);
        self.add(Arc::clone(&topology));
        Ok(topology)
    }
}
