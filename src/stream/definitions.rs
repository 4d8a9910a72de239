//! Definitions: stored by digest in `definitions`, brought into force by `Activated` records in every `events` partition.
//!
//! The newest definition of a kind in the topic is the one that was activated last, because storing and activating are one append.
//! Offers [`Library`], which finds a topology by digest for a fold that has to go on under an older one. What people publish, workflows
//! and policies, is in `published`.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::published::workflows;
use super::topology::Topology;
use super::{Error, Topic, Topics};
use crate::domain::{Digest, Incarnation, Millis, Namespace, PartitionId, TenantId};
use crate::log::{BatchBuilder, LogReader, LogWriter, Transaction};
use crate::schema;
use crate::schema::records::{Activated, Definition, EventsRecord, Tick};
use crate::workflow;

pub const KIND_TOPOLOGY: &str = "topology";
pub const KIND_WORKFLOW: &str = "workflow";
/// Purposes, caps, quiet hours and approval rules; one of a namespace.
pub const KIND_POLICY: &str = "policy";
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
pub(super) struct Stored {
    pub(super) kind: String,
    pub(super) name: String,
    /// None says that the name takes nothing new from here on.
    pub(super) digest: Option<Digest>,
    pub(super) body: String,
    /// Whose it is; none: of the whole namespace.
    pub(super) tenant: Option<TenantId>,
    pub(super) from_file: bool,
    pub(super) about: String,
}

/// Calls `visit` with every definition, oldest first.
pub(super) fn each(log: &dyn LogReader, topics: &Topics, mut visit: impl FnMut(Stored)) -> Result<(), Error> {
    let partition = topics.partition(Topic::Definitions, PartitionId(0));
    let bounds = log.watermarks(partition)?;
    let mut from = bounds.start;
    while from < bounds.end {
        let fetched = log.fetch(partition, from, FETCH_BYTES)?;
        for record in fetched.records() {
            let Some(value) = record.value else { continue };
            let definition: Definition<'_> = schema::decode(value)?;
            let corrupt = || Error::Corrupt { what: "a definition's digest".into(), detail: definition.digest.to_owned() };
            let digest = match definition.digest {
                "" => None,
                digest => Some(Digest::from_hex(digest).ok_or_else(corrupt)?),
            };
            let tenant = match definition.tenant {
                "" => None,
                tenant => Some(
                    TenantId::new(tenant)
                        .map_err(|error| Error::Corrupt { what: "a definition's tenant".into(), detail: error.to_string() })?,
                ),
            };
            let (kind, name, body) = (definition.kind.to_owned(), definition.name.to_owned(), definition.body.to_owned());
            visit(Stored { kind, name, digest, body, tenant, from_file: definition.from_file, about: definition.about.to_owned() });
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
    let definition = definition(KIND_RELEASE, namespace.as_str(), &digest, &body);
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

/// The text with this digest.
fn body_of(log: &dyn LogReader, topics: &Topics, digest: Digest) -> Result<Option<String>, Error> {
    let mut body = None;
    each(log, topics, |definition| {
        if definition.digest == Some(digest) {
            body = Some(definition.body);
        }
    })?;
    Ok(body)
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
            let definition = definition(KIND_NAMESPACE, topics.namespace.as_str(), &digest, &body);
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
    if newest(log, topics, KIND_TOPOLOGY)?.is_some_and(|stored| stored.digest == Some(topology.digest)) {
        return Ok(false);
    }
    let digest = topology.digest.to_hex();
    let definition = definition(KIND_TOPOLOGY, &topology.name, &digest, &topology.canonical);
    log.append(activation(topics, &[definition], from)?)?.wait()?;
    Ok(true)
}

/// A definition of the whole namespace that nobody published.
fn definition<'d>(kind: &'d str, name: &'d str, digest: &'d str, body: &'d str) -> Definition<'d> {
    Definition { kind, name, digest, body, tenant: "", from_file: false, about: "", at: 0, by: "" }
}

/// The one append that stores definitions and brings them into force in every partition.
pub(super) fn activation(topics: &Topics, definitions: &[Definition<'_>], from: Millis) -> Result<Transaction, Error> {
    let mut transaction = Transaction::default();
    let mut stored = BatchBuilder::new();
    for definition in definitions {
        stored.push_with(definition.digest.as_bytes(), Millis(0), |buffer| schema::encode(definition, buffer))?;
    }
    transaction.batches.push((topics.partition(Topic::Definitions, PartitionId(0)), stored.build()));
    for partition in topics.partitions(Topic::Events) {
        let mut batch = BatchBuilder::new();
        for Definition { kind, name, digest, tenant, .. } in definitions {
            let activated = EventsRecord::Activated(Activated { kind, name, digest, from: from.0, tenant });
            batch.push_with(b"", from, |buffer| schema::encode(&activated, buffer))?;
        }
        transaction.batches.push((partition, batch.build()));
    }
    Ok(transaction)
}

/// Topologies by digest, read from the log when first needed.
pub struct Library {
    log: Arc<dyn LogReader>,
    topics: Topics,
    /// Compiled once; a namespace has a handful over its life. Held only while looking one up.
    known: Mutex<BTreeMap<Digest, Arc<Topology>>>,
    workflows: Mutex<BTreeMap<Digest, Arc<workflow::Definition>>>,
    /// Texts of workflows that were read and not compiled yet: the topic is gone through once for all of them, and not once for each.
    texts: Mutex<BTreeMap<Digest, String>>,
    policies: Mutex<BTreeMap<Digest, Arc<workflow::Policy>>>,
    /// Likewise of policies: a namespace may have one for each of its tenants.
    policy_texts: Mutex<BTreeMap<Digest, String>>,
}

impl Library {
    pub fn new(log: Arc<dyn LogReader>, topics: Topics) -> Self {
        Self {
            log,
            topics,
            known: Mutex::default(),
            workflows: Mutex::default(),
            texts: Mutex::default(),
            policies: Mutex::default(),
            policy_texts: Mutex::default(),
        }
    }

    pub fn add(&self, topology: Arc<Topology>) {
        self.known.lock().insert(topology.digest, topology);
    }

    pub fn get(&self, digest: Digest) -> Result<Arc<Topology>, Error> {
        if let Some(topology) = self.known.lock().get(&digest) {
            return Ok(Arc::clone(topology));
        }
        let body = self.text(KIND_TOPOLOGY, digest)?;
        let parsed = Topology::parse(&digest.to_hex(), &body);
        let topology = parsed.map_err(|problems| Error::BadDefinition { digest: digest.to_hex(), detail: problems.to_string() })?;
        let topology = Arc::new(topology);
        self.add(Arc::clone(&topology));
        Ok(topology)
    }

    /// A workflow, compiled once for all partitions.
    pub fn workflow(&self, digest: Digest) -> Result<Arc<workflow::Definition>, Error> {
        if let Some(known) = self.workflows.lock().get(&digest) {
            return Ok(Arc::clone(known));
        }
        let parsed = workflow::Definition::stored(&digest.to_hex(), &self.workflow_text(digest)?);
        let workflow = parsed.map_err(|problems| Error::BadDefinition { digest: digest.to_hex(), detail: problems.to_string() })?;
        let workflow = Arc::new(workflow);
        self.workflows.lock().insert(digest, Arc::clone(&workflow));
        Ok(workflow)
    }

    fn workflow_text(&self, digest: Digest) -> Result<String, Error> {
        let known = self.texts.lock().remove(&digest);
        if let Some(text) = known {
            return Ok(text);
        }
        let mut found = workflows(&*self.log, &self.topics)?.known;
        let text = found.remove(&digest).map(|version| version.text).ok_or_else(|| self.unknown(KIND_WORKFLOW, digest))?;
        let compiled = self.workflows.lock();
        found.retain(|digest, _| !compiled.contains_key(digest));
        *self.texts.lock() = found.into_iter().map(|(digest, version)| (digest, version.text)).collect();
        Ok(text)
    }

    /// A policy, compiled once for all partitions.
    pub fn policy(&self, digest: Digest) -> Result<Arc<workflow::Policy>, Error> {
        if let Some(known) = self.policies.lock().get(&digest) {
            return Ok(Arc::clone(known));
        }
        let parsed = workflow::Policy::parse(&digest.to_hex(), &self.policy_text(digest)?);
        let policy = parsed.map_err(|problems| Error::BadDefinition { digest: digest.to_hex(), detail: problems.to_string() })?;
        let policy = Arc::new(policy);
        self.policies.lock().insert(digest, Arc::clone(&policy));
        Ok(policy)
    }

    fn policy_text(&self, digest: Digest) -> Result<String, Error> {
        let known = self.policy_texts.lock().remove(&digest);
        if let Some(text) = known {
            return Ok(text);
        }
        let mut found = BTreeMap::new();
        each(&*self.log, &self.topics, |stored| {
            if let (KIND_POLICY, Some(digest)) = (&*stored.kind, stored.digest) {
                found.insert(digest, stored.body);
            }
        })?;
        let text = found.remove(&digest).ok_or_else(|| self.unknown(KIND_POLICY, digest))?;
        let compiled = self.policies.lock();
        found.retain(|digest, _| !compiled.contains_key(digest));
        *self.policy_texts.lock() = found;
        Ok(text)
    }

    /// Every workflow that the namespace was ever given and this build reads.
    pub fn workflows(&self) -> Result<Vec<Arc<workflow::Definition>>, Error> {
        let digests = workflows(&*self.log, &self.topics)?.known.into_keys();
        let mut all = Vec::new();
        for digest in digests {
            match self.workflow(digest) {
                Ok(workflow) => all.push(workflow),
                Err(Error::BadDefinition { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    fn unknown(&self, kind: &str, digest: Digest) -> Error {
        let topic = self.topics.info(Topic::Definitions).spec.name.to_string();
        Error::UnknownDefinition { kind: kind.to_owned(), digest: digest.to_hex(), topic }
    }

    /// The canonical text with this digest.
    pub fn text(&self, kind: &str, digest: Digest) -> Result<String, Error> {
        body_of(&*self.log, &self.topics, digest)?.ok_or_else(|| self.unknown(kind, digest))
    }
}
