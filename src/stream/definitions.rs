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
struct Stored {
    kind: String,
    name: String,
    /// None says that the name takes nothing new from here on.
    digest: Option<Digest>,
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
            let digest = match definition.digest {
                "" => None,
                digest => Some(Digest::from_hex(digest).ok_or_else(corrupt)?),
            };
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

/// Stores a policy and has everything be decided by it from here on, unless it is so already; true if it did.
pub fn activate_policy(log: &dyn LogWriter, topics: &Topics, policy: &workflow::Policy, from: Millis) -> Result<bool, Error> {
    if newest(log, topics, KIND_POLICY)?.is_some_and(|stored| stored.digest == Some(policy.digest)) {
        return Ok(false);
    }
    let digest = policy.digest.to_hex();
    let definition = Definition { kind: KIND_POLICY, name: KIND_POLICY, digest: &digest, body: &policy.canonical };
    log.append(activation(topics, &[definition], from)?)?.wait()?;
    Ok(true)
}

/// The topology that was activated last, as text.
pub fn topology_text(log: &dyn LogReader, topics: &Topics) -> Result<Option<String>, Error> {
    Ok(newest(log, topics, KIND_TOPOLOGY)?.map(|stored| stored.body))
}

/// The policy that was activated last, as text.
pub fn policy_text(log: &dyn LogReader, topics: &Topics) -> Result<Option<String>, Error> {
    Ok(newest(log, topics, KIND_POLICY)?.filter(|stored| stored.digest.is_some()).map(|stored| stored.body))
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
    if newest(log, topics, KIND_TOPOLOGY)?.is_some_and(|stored| stored.digest == Some(topology.digest)) {
        return Ok(false);
    }
    let digest = topology.digest.to_hex();
    let definition = Definition { kind: KIND_TOPOLOGY, name: &topology.name, digest: &digest, body: &topology.canonical };
    log.append(activation(topics, &[definition], from)?)?.wait()?;
    Ok(true)
}

/// The one append that stores definitions and brings them into force in every partition.
fn activation(topics: &Topics, definitions: &[Definition<'_>], from: Millis) -> Result<Transaction, Error> {
    let mut transaction = Transaction::default();
    let mut stored = BatchBuilder::new();
    for definition in definitions {
        stored.push_with(definition.digest.as_bytes(), Millis(0), |buffer| schema::encode(definition, buffer))?;
    }
    transaction.batches.push((topics.partition(Topic::Definitions, PartitionId(0)), stored.build()));
    for partition in topics.partitions(Topic::Events) {
        let mut batch = BatchBuilder::new();
        for Definition { kind, name, digest, .. } in definitions {
            let activated = EventsRecord::Activated(Activated { kind, name, digest, from: from.0 });
            batch.push_with(b"", from, |buffer| schema::encode(&activated, buffer))?;
        }
        transaction.batches.push((partition, batch.build()));
    }
    Ok(transaction)
}

/// Every workflow that a namespace was ever given, and which of each name takes new entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workflows {
    /// Name and canonical text.
    pub known: BTreeMap<Digest, (String, String)>,
    pub active: BTreeMap<String, Digest>,
}

/// The workflows of a namespace, as its `definitions` say.
pub fn workflows(log: &dyn LogReader, topics: &Topics) -> Result<Workflows, Error> {
    let mut found = Workflows::default();
    each(log, topics, |definition| {
        if definition.kind != KIND_WORKFLOW {
            return;
        }
        match definition.digest {
            None => drop(found.active.remove(&definition.name)),
            Some(digest) => {
                found.active.insert(definition.name.clone(), digest);
                found.known.insert(digest, (definition.name, definition.body));
            }
        }
    })?;
    Ok(found)
}

/// Stores workflows and has new entries go to them from `from` on, all in one append; says of each whether they did not already. Runs in
/// progress stay on the digest that they began under.
pub fn activate_workflows<W: std::ops::Deref<Target = workflow::Definition>>(
    log: &dyn LogWriter,
    topics: &Topics,
    definitions: &[W],
    from: Millis,
) -> Result<Vec<bool>, Error> {
    let mut active = workflows(log, topics)?.active;
    let (mut are_new, mut new) = (Vec::new(), Vec::new());
    for workflow in definitions.iter().map(|workflow| &**workflow) {
        let is_new = active.insert(workflow.name.clone(), workflow.digest) != Some(workflow.digest);
        are_new.push(is_new);
        if is_new {
            new.push((workflow, workflow.digest.to_hex()));
        }
    }
    if !new.is_empty() {
        let stored = new.iter().map(|(workflow, digest)| Definition {
            kind: KIND_WORKFLOW,
            name: &workflow.name,
            digest,
            body: &workflow.canonical,
        });
        log.append(activation(topics, &stored.collect::<Vec<_>>(), from)?)?.wait()?;
    }
    Ok(are_new)
}

/// The same for one.
pub fn activate_workflow(log: &dyn LogWriter, topics: &Topics, workflow: &workflow::Definition, from: Millis) -> Result<bool, Error> {
    Ok(activate_workflows(log, topics, &[workflow], from)?.contains(&true))
}

/// Has the workflow of this name take no new entries from `from` on; true if it took some before. Runs in progress go on.
pub fn retire_workflow(log: &dyn LogWriter, topics: &Topics, name: &str, from: Millis) -> Result<bool, Error> {
    if !workflows(log, topics)?.active.contains_key(name) {
        return Ok(false);
    }
    let definition = Definition { kind: KIND_WORKFLOW, name, digest: "", body: "" };
    log.append(activation(topics, &[definition], from)?)?.wait()?;
    Ok(true)
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
}

impl Library {
    pub fn new(log: Arc<dyn LogReader>, topics: Topics) -> Self {
        Self { log, topics, known: Mutex::default(), workflows: Mutex::default(), texts: Mutex::default() }
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
        let text = found.remove(&digest).map(|(_, text)| text).ok_or_else(|| self.unknown(KIND_WORKFLOW, digest))?;
        let compiled = self.workflows.lock();
        found.retain(|digest, _| !compiled.contains_key(digest));
        *self.texts.lock() = found.into_iter().map(|(digest, (_, text))| (digest, text)).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::ManualClock;
    use crate::log::MemoryLog;
    use crate::stream::Partitions;

    fn named(name: &str, wait: &str) -> workflow::Definition {
        let text = format!(
            "[workflow]\nname = \"{name}\"\n[workflow.entry]\ncommand = true\n\n[[node]]\nname = \"rest\"\nkind = \"delay\"\nwait = \"{wait}\"\nnext = \"over\"\n\n[[node]]\nname = \"over\"\nkind = \"exit\"\n"
        );
        workflow::Definition::parse("w.toml", &text).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn a_published_workflow_is_in_force_until_another_of_its_name_or_its_retirement() {
        let log = MemoryLog::new(Arc::new(ManualClock::at(Millis(0))));
        let topics = Topics::create(&log, &Namespace::new("main").unwrap(), Partitions { intake: 1, events: 3 }).unwrap();
        let (first, second, other) = (named("a", "1d"), named("a", "2d"), named("b", "1d"));
        let publish = |workflows: &[&workflow::Definition]| activate_workflows(&log, &topics, workflows, Millis(5)).unwrap();
        assert_eq!(
            [publish(&[&first, &other]), publish(&[&first]), publish(&[&other, &second])],
            [[true, true].as_slice(), &[false], &[false, true]]
        );
        let found = workflows(&log, &topics).unwrap();
        assert_eq!(found.known.len(), 3);
        assert_eq!(found.known[&first.digest], ("a".to_owned(), first.canonical.clone()));
        assert_eq!(found.active, BTreeMap::from([("a".to_owned(), second.digest), ("b".to_owned(), other.digest)]));
        assert_eq!(publish(&[&first]), [true], "an earlier one can come back");
        let retire = |name| retire_workflow(&log, &topics, name, Millis(6)).unwrap();
        assert_eq!([retire("a"), retire("a"), retire("never")], [true, false, false]);
        assert_eq!(workflows(&log, &topics).unwrap().active, BTreeMap::from([("b".to_owned(), other.digest)]));
        for partition in topics.partitions(Topic::Events) {
            let fetched = log.fetch(partition, crate::domain::Offset(0), FETCH_BYTES).unwrap();
            let digests = fetched.records().map(|record| match schema::decode(record.value.unwrap()).unwrap() {
                EventsRecord::Activated(activated) => activated.digest.len(),
                other => panic!("{other:?}"),
            });
            assert_eq!(digests.collect::<Vec<_>>(), [64, 64, 64, 64, 0], "each partition has heard of all of it");
        }
    }
}
