//! Campaigns for the gateway: runs from the read models, workflows from `definitions`, how far decisions are from the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::Error;
use super::definitions::Definitions;
use super::runs::{self, Readers};
use super::{preferences, preview};
use crate::domain::{Digest, Millis, Namespace, Offset, PartitionId, Subject, TenantId};
use crate::engine;
use crate::engine::effects::{Known, Templates};
use crate::env::Clock;
use crate::gateway::{
    Access, ApprovalFound, ApprovalsAsked, Asking, Campaigns, Choice, EffectFound, InUse, NameTaken, PolicyFound, Preference, Preview,
    Publishing, ReadError, RunFound, RunsAsked, RunsPage, SuppressionsAsked, SuppressionsPage, WorkflowFound, WorkflowText,
};
use crate::log::{Group, LogWriter};
use crate::projections::runs::Stretch;
use crate::projections::{self, Reader};
use crate::segments::Problems;
use crate::stream::topology::Topology;
use crate::stream::{self, NamespaceClock, Topic, Topics, Word};
use crate::workflow::{Definition, EffectId, Policy, RunId};

/// Stories that are read at once; others wait. Each reads the disk on a thread that everything else needs too.
const STORIES_MAX: usize = 4;

/// One namespace as campaigns need it.
#[derive(Clone)]
struct Place {
    topics: Topics,
    clock: NamespaceClock,
    group: Group,
}

pub struct Runs {
    log: Arc<dyn LogWriter>,
    clock: Arc<dyn Clock>,
    places: BTreeMap<Namespace, Place>,
    readers: Readers,
    templates: Arc<Templates>,
    /// Who performs what on this server.
    performers: Known,
    definitions: Arc<Definitions>,
    /// Stories read the journal: so many at once.
    stories: tokio::sync::Semaphore,
    /// One publishes at a time: who may have a name is read before it is written.
    publishing: Arc<Mutex<()>>,
}

impl Runs {
    pub fn of(
        log: &Arc<dyn LogWriter>,
        clock: &Arc<dyn Clock>,
        read_models: &projections::Place,
        namespaces: &[(Namespace, NamespaceClock)],
        (templates, performers): (Templates, Known),
    ) -> Result<Self, Error> {
        let mut places = BTreeMap::new();
        for (namespace, kind) in namespaces {
            let Some(topics) = Topics::find(&**log, namespace)? else { continue };
            let group = Group(format!("{namespace}.{}", engine::STAGE).into());
            places.insert(namespace.clone(), Place { topics, clock: *kind, group });
        }
        let reader = |(namespace, _): &(Namespace, NamespaceClock)| (namespace.clone(), Arc::new(Reader::new(read_models, namespace)));
        let readers = namespaces.iter().map(reader).collect();
        Ok(Self {
            log: Arc::clone(log),
            clock: Arc::clone(clock),
            places,
            readers,
            templates: Arc::new(templates),
            performers,
            definitions: Arc::default(),
            stories: tokio::sync::Semaphore::new(STORIES_MAX),
            publishing: Arc::default(),
        })
    }

    fn place(&self, namespace: &Namespace) -> Result<Place, ReadError> {
        self.places.get(namespace).cloned().ok_or_else(|| failed(format!("namespace {namespace} is not served")))
    }

    fn reader(&self, namespace: &Namespace) -> Result<Arc<Reader>, ReadError> {
        self.readers.get(namespace).cloned().ok_or_else(|| failed(format!("namespace {namespace} is not served")))
    }

    /// Runs what waits for the log on a thread that may.
    fn blocking<'a, T: Send + 'static>(
        &'a self,
        namespace: &'a Namespace,
        work: impl FnOnce(&dyn LogWriter, Place) -> Result<T, stream::Error> + Send + 'static,
    ) -> Asking<'a, T> {
        Box::pin(async move {
            let (place, log) = (self.place(namespace)?, Arc::clone(&self.log));
            let done = tokio::task::spawn_blocking(move || work(&*log, place)).await;
            done.map_err(failed)?.map_err(failed)
        })
    }

    /// What a workflow of this tenant, or of the namespace, may name.
    fn known(&self, namespace: &Namespace, of: Option<&TenantId>) -> Result<Known, ReadError> {
        let topics = self.place(namespace)?.topics;
        let mut known = self.performers.clone();
        // One that this build does not read says nothing of what there is.
        if let Ok(policy) = self.definitions.policy(&*self.log, &topics, of).map_err(failed)? {
            known = known.with_purposes(&policy, "in the policy in force", true);
        }
        if let Some(text) = stream::topology_text(&*self.log, &topics).map_err(failed)?
            && let Ok(topology) = Topology::parse("the topology in force", &text)
        {
            let segments = topology.segments.iter().map(|segment| &*segment.name);
            known = known.with_segments(segments, &format!("in the topology in force, {}", topology.name), true);
        }
        Ok(known)
    }

    /// From when on what is activated now is in force: in event time from the beginning of what comes next.
    fn from(&self, namespace: &Namespace) -> Millis {
        match self.places.get(namespace).map(|place| place.clock) {
            Some(NamespaceClock::Wall) => self.clock.now(),
            Some(NamespaceClock::Event) | None => Millis::MIN,
        }
    }
}

fn failed(error: impl std::fmt::Display) -> ReadError {
    ReadError::Failed(error.to_string())
}

fn unless_in_use(done: Result<bool, stream::Error>) -> Result<Result<bool, InUse>, stream::Error> {
    match done {
        Err(in_use @ stream::Error::PurposeInUse { .. }) => Ok(Err(InUse(in_use.to_string()))),
        done => done.map(Ok),
    }
}

impl Campaigns for Runs {
    fn run<'a>(&'a self, of: &'a Access, run: RunId) -> Asking<'a, Option<RunFound>> {
        Box::pin(async move { Ok(runs::run(&*self.reader(&of.namespace)?, &of.tenant, run).await?.map(|(found, _)| found)) })
    }

    fn runs<'a>(&'a self, of: &'a Access, asked: &'a RunsAsked) -> Asking<'a, RunsPage> {
        Box::pin(async move { runs::runs(&*self.reader(&of.namespace)?, &of.tenant, asked).await })
    }

    fn story<'a>(&'a self, of: &'a Access, found: &'a RunFound, from: u64, limit: u32) -> Asking<'a, Vec<Value>> {
        Box::pin(async move {
            let Some((_, detail)) = runs::run(&*self.reader(&of.namespace)?, &of.tenant, found.run).await? else { return Ok(Vec::new()) };
            let (place, log) = (self.place(&of.namespace)?, Arc::clone(&self.log));
            let (key, run, begins, facts) = (found.subject.key(&of.tenant), found.run, detail.run.begins(), detail.told());
            let _turn = self.stories.acquire().await.map_err(failed)?;
            let lines = tokio::task::spawn_blocking(move || {
                let journal = place.topics.partition(Topic::Journal, begins.0);
                let stretch = Stretch { from: begins.1, facts: Some(facts) };
                projections::runs::story(&*log, journal, key.as_bytes(), Some(run), stretch, (from, limit as usize))
            });
            let lines = lines.await.map_err(failed)?.map_err(failed)?;
            Ok(lines.iter().map(|line| serde_json::to_value(line).unwrap_or_default()).collect())
        })
    }

    fn approvals<'a>(&'a self, of: &'a Access, asked: &'a ApprovalsAsked) -> Asking<'a, Vec<ApprovalFound>> {
        Box::pin(async move { runs::approvals(&*self.reader(&of.namespace)?, &of.tenant, asked).await })
    }

    fn effect<'a>(&'a self, of: &'a Access, effect: EffectId) -> Asking<'a, Option<EffectFound>> {
        Box::pin(async move { runs::effect(&*self.reader(&of.namespace)?, &of.tenant, effect).await })
    }

    fn suppressions<'a>(&'a self, of: &'a Access, asked: &'a SuppressionsAsked) -> Asking<'a, SuppressionsPage> {
        Box::pin(async move { runs::suppressions(&*self.reader(&of.namespace)?, &of.tenant, asked).await })
    }

    fn workflows<'a>(&'a self, namespace: &'a Namespace, of: Option<&'a TenantId>) -> Asking<'a, Vec<WorkflowFound>> {
        let (definitions, of) = (Arc::clone(&self.definitions), of.cloned());
        self.blocking(namespace, move |log, place| {
            let found = definitions.workflows(log, &place.topics)?;
            let is_seen = |whose: &&Option<TenantId>| whose.is_none() || of.is_none() || **whose == of;
            let mut shown: Vec<WorkflowFound> = Vec::new();
            for (digest, version) in &found.known {
                let whose = version.of.iter().filter(is_seen);
                shown.extend(whose.map(|whose| definitions.found(*digest, version, whose.as_ref(), &found)));
            }
            shown.sort_by(|a, b| (&a.name, &a.tenant, !a.is_active, &a.digest).cmp(&(&b.name, &b.tenant, !b.is_active, &b.digest)));
            Ok(shown)
        })
    }

    fn active_workflow<'a>(&'a self, of: &'a Access, name: &'a str) -> Asking<'a, Option<WorkflowFound>> {
        let (definitions, tenant, name) = (Arc::clone(&self.definitions), of.tenant.clone(), name.to_owned());
        self.blocking(&of.namespace, move |log, place| {
            let found = definitions.workflows(log, &place.topics)?;
            let own = found.active(Some(&tenant), &name).map(|digest| (digest, Some(&tenant)));
            let active = own.or_else(|| Some((found.active(None, &name)?, None)));
            let known = active.and_then(|(digest, whose)| Some((digest, found.known.get(&digest)?, whose)));
            Ok(known.map(|(digest, version, whose)| definitions.found(digest, version, whose, &found)))
        })
    }

    fn is_projected<'a>(&'a self, of: &'a Access, partition: PartitionId, place: Offset) -> Asking<'a, bool> {
        Box::pin(async move {
            let applied = self.reader(&of.namespace)?.status().await.map_err(runs::failed)?;
            let journal = self.place(&of.namespace)?.topics.info(Topic::Journal).spec.name.to_string();
            let of_it = applied.iter().find(|status| status.topic == journal && status.partition == partition.0);
            Ok(of_it.is_some_and(|status| status.next_offset > place))
        })
    }

    fn publish<'a>(
        &'a self,
        namespace: &'a Namespace,
        of: Option<&'a TenantId>,
        workflows: Vec<Arc<Definition>>,
        by: &'a str,
    ) -> Publishing<'a> {
        let (from, at, by) = (self.from(namespace), self.clock.now(), by.to_owned());
        let (of, publishing) = (of.cloned(), Arc::clone(&self.publishing));
        self.blocking(namespace, move |log, place| {
            let _alone = publishing.lock();
            match stream::activate_workflows(log, &place.topics, of.as_ref(), &workflows, Word { from, at, by: &by }) {
                Err(taken @ stream::Error::NameTaken { .. }) => Ok(Err(NameTaken(taken.to_string()))),
                done => done.map(Ok),
            }
        })
    }

    fn check(
        &self,
        namespace: &Namespace,
        of: Option<&TenantId>,
        asked: &WorkflowText<'_>,
    ) -> Result<Result<Problems, Problems>, ReadError> {
        let known = self.known(namespace, of).map_err(failed)?;
        Ok(engine::effects::check(asked.file, asked.text, asked.definition, &self.templates, &known))
    }

    fn preferences<'a>(&'a self, of: &'a Access, subject: &'a Subject, said: &'a [Choice]) -> Asking<'a, Vec<Preference>> {
        Box::pin(async move {
            let (definitions, tenant) = (Arc::clone(&self.definitions), of.tenant.clone());
            let policy = self.blocking(&of.namespace, move |log, place| definitions.policy(log, &place.topics, Some(&tenant)));
            let policy = policy.await?.map_err(failed)?;
            let profile = self.reader(&of.namespace)?.profile(&of.tenant, subject).await.map_err(runs::failed)?;
            let consent = profile.map(|mut profile| profile["consent"].take()).unwrap_or_default();
            Ok(preferences::preferences(&policy.permits, &consent, said))
        })
    }

    fn preview<'a>(&'a self, of: &'a Access, approval: &'a ApprovalFound) -> Asking<'a, Option<Preview>> {
        Box::pin(async move {
            let reader = self.reader(&of.namespace)?;
            let Some((_, detail)) = runs::run(&reader, &of.tenant, approval.run).await? else { return Ok(None) };
            let (definitions, digest) = (Arc::clone(&self.definitions), Digest::from_hex(&detail.run.digest));
            let definition = self.blocking(&of.namespace, move |log, place| {
                let found = definitions.workflows(log, &place.topics)?;
                let known = digest.and_then(|digest| Some((digest, found.known.get(&digest)?)));
                Ok(known.and_then(|(digest, version)| definitions.parsed(digest, &version.name, &version.text)))
            });
            let Some(definition) = definition.await? else { return Ok(None) };
            let profile = reader.profile(&of.tenant, &approval.subject).await.map_err(runs::failed)?;
            let address = profile.as_ref().and_then(|profile| profile["traits"]["email"].as_str());
            Ok(preview::preview(&self.templates, &definition, approval, address))
        })
    }

    fn retire<'a>(&'a self, namespace: &'a Namespace, of: Option<&'a TenantId>, name: &'a str, by: &'a str) -> Asking<'a, bool> {
        let (from, of, publishing) = (self.from(namespace), of.cloned(), Arc::clone(&self.publishing));
        let (at, name, by) = (self.clock.now(), name.to_owned(), by.to_owned());
        self.blocking(namespace, move |log, place| {
            let _alone = publishing.lock();
            stream::retire_workflow(log, &place.topics, of.as_ref(), &name, Word { from, at, by: &by })
        })
    }

    fn policy<'a>(&'a self, namespace: &'a Namespace, of: Option<&'a TenantId>) -> Asking<'a, PolicyFound> {
        let of = of.cloned();
        self.blocking(namespace, move |log, place| {
            let found = stream::policy(log, &place.topics, of.as_ref())?;
            Ok(found.map_or_else(PolicyFound::shipped, |found| PolicyFound {
                digest: found.digest.to_hex(),
                text: found.text,
                tenant: found.of.map(|tenant| tenant.to_string()),
                is_shipped: false,
                from_file: found.from_file,
            }))
        })
    }

    fn publish_policy<'a>(
        &'a self,
        namespace: &'a Namespace,
        of: Option<&'a TenantId>,
        policy: Arc<Policy>,
        by: &'a str,
    ) -> Asking<'a, Result<bool, InUse>> {
        let (from, at, by) = (self.from(namespace), self.clock.now(), by.to_owned());
        let (of, publishing) = (of.cloned(), Arc::clone(&self.publishing));
        self.blocking(namespace, move |log, place| {
            let _alone = publishing.lock();
            unless_in_use(stream::activate_policy(log, &place.topics, of.as_ref(), &policy, Word { from, at, by: &by }))
        })
    }

    fn retire_policy<'a>(&'a self, namespace: &'a Namespace, of: Option<&'a TenantId>, by: &'a str) -> Asking<'a, Result<bool, InUse>> {
        let (from, at, by) = (self.from(namespace), self.clock.now(), by.to_owned());
        let (of, publishing) = (of.cloned(), Arc::clone(&self.publishing));
        self.blocking(namespace, move |log, place| {
            let _alone = publishing.lock();
            unless_in_use(stream::retire_policy(log, &place.topics, of.as_ref(), Word { from, at, by: &by }))
        })
    }

    fn decided(&self, namespace: &Namespace, partition: PartitionId) -> Result<Offset, ReadError> {
        let place = self.place(namespace)?;
        let commands = place.topics.partition(Topic::Commands, partition);
        let committed = self.log.committed(&place.group, commands).map_err(failed)?;
        Ok(committed.map_or(Offset(0), |committed| committed.offset))
    }
}
