//! The registry of one namespace: what was folded of its topic, and how a change gets into it.
//!
//! A change is decided on what was folded, appended with the revision it was decided on, and looked for in what is folded then. If another
//! gateway was faster it had no effect, and is decided again. So two gateways agree by the order of the log alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::{Namespace, Offset, PartitionId, TenantId};
use crate::gateway::Gateway;
use crate::gateway::options::Sources;
use crate::gateway::reply::Refusal;
use crate::log::{self, BatchBuilder, LogReader, TopicName, TopicPartition, Transaction};
use crate::schema;
use crate::schema::records::SchemasRecord;
use crate::schema::subjects::Subjects;

const FETCH_BYTES: usize = 1 << 20;
/// Tries of one change. Each that has no effect means that another of the same tenant had one.
const TRIES: usize = 20;

pub(in crate::gateway) type Registries = BTreeMap<Namespace, Arc<Registry>>;

#[derive(Debug)]
pub(in crate::gateway) struct Registry {
    place: TopicPartition,
    followed: Mutex<Followed>,
    /// Held around a change: those of this process need not race each other.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Followed {
    next: Offset,
    subjects: Subjects,
}

/// What is to be done about a change, on what is known.
pub(super) enum Decision<T> {
    /// It is as asked for.
    Done(T),
    /// Only once this is in the log.
    Append(Change),
}

pub(super) enum Change {
    Register { subject: String, schema: String },
    Configure { subject: String, compatibility: String },
}

/// Of the namespaces that have the topic; one of an earlier build has it once it was served.
pub(in crate::gateway) fn resolve(sources: &Sources, log: &dyn LogReader) -> Result<Registries, log::Error> {
    let topics = log.topics()?;
    let registry = |namespace: &Namespace| {
        let name = TopicName::new(namespace, "schemas");
        let topic = topics.iter().find(|topic| topic.spec.name == name)?;
        let place = TopicPartition { topic: topic.id, partition: PartitionId(0) };
        let followed = Mutex::new(Followed { next: Offset(0), subjects: Subjects::new(namespace.as_str()) });
        Some((namespace.clone(), Arc::new(Registry { place, followed, turn: tokio::sync::Mutex::default() })))
    };
    Ok(sources.namespaces.keys().filter_map(registry).collect())
}

impl Registry {
    /// Folds what came since, then looks.
    fn look<T>(&self, log: &dyn LogReader, look: impl FnOnce(&Subjects) -> T) -> Result<T, log::Error> {
        let mut followed = self.followed.lock();
        let end = log.watermarks(self.place)?.end;
        while followed.next < end {
            let fetched = log.fetch(self.place, followed.next, FETCH_BYTES)?;
            for record in fetched.records() {
                match schema::decode::<SchemasRecord<'_>>(record.value.unwrap_or_default()) {
                    Ok(record) => drop(followed.subjects.apply(&record)),
                    Err(error) => tracing::error!(offset = record.offset.0, %error, "a record of the schema registry does not decode"),
                }
            }
            if fetched.next <= followed.next {
                break;
            }
            followed.next = fetched.next;
        }
        Ok(look(&followed.subjects))
    }
}

impl Gateway {
    pub(super) fn registry(&self, namespace: &Namespace) -> Result<Arc<Registry>, Refusal> {
        let found = self.registries.get(namespace).cloned();
        found.ok_or_else(|| Refusal::Missing(format!("schema registry of namespace {namespace}")))
    }

    /// Looks at everything that was registered by now.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        registry: &Arc<Registry>,
        look: impl FnOnce(&Subjects) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (registry, log) = (Arc::clone(registry), Arc::clone(&self.app.log));
        let looked = tokio::task::spawn_blocking(move || registry.look(&*log, look)).await;
        Ok(looked.map_err(|error| Refusal::ReadFailed(error.to_string()))??)
    }

    /// Brings a change about: `decide` says what there is to do, on what is known then, until it is done.
    pub(super) async fn change<T, E>(
        &self,
        registry: &Arc<Registry>,
        tenant: &TenantId,
        decide: impl Fn(&Subjects) -> Result<Decision<T>, E> + Clone + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Refusal> + Send + 'static,
    {
        let _turn = registry.turn.lock().await;
        for _ in 0..TRIES {
            let (decide, of) = (decide.clone(), tenant.clone());
            let (decision, revision) = self.look(registry, move |known| (decide(known), known.revision(of.as_str()))).await?;
            match decision? {
                Decision::Done(done) => return Ok(done),
                Decision::Append(change) => self.append_change(registry, tenant, revision, &change).await?,
            }
        }
        Err(Refusal::Overloaded.into())
    }

    async fn append_change(&self, registry: &Registry, tenant: &TenantId, revision: u64, change: &Change) -> Result<(), Refusal> {
        let (tenant, revision) = (tenant.as_str(), revision as i64);
        let record = match change {
            Change::Register { subject, schema } => {
                SchemasRecord::Registered(schema::records::Registered { tenant, subject, schema, revision })
            }
            Change::Configure { subject, compatibility } => {
                SchemasRecord::Configured(schema::records::Configured { tenant, subject, compatibility, revision })
            }
        };
        let mut batch = BatchBuilder::new();
        let pushed = batch.push_with(tenant.as_bytes(), self.app.clock.now(), |out| schema::encode(&record, out));
        pushed.map_err(|error| Refusal::ReadFailed(error.to_string()))?;
        let transaction = Transaction { batches: vec![(registry.place, batch.build())], commits: Vec::new() };
        let ticket = self.app.log.append(transaction)?;
        match tokio::time::timeout(self.app.options.commit_timeout(), ticket).await {
            Ok(appended) => Ok(appended.map(drop)?),
            Err(_) => Err(Refusal::NotDurable),
        }
    }
}
