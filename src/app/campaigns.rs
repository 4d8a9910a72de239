//! Campaigns for the gateway: runs from the read models, workflows from `definitions`, how far decisions are from the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::Error;
use super::definitions::Definitions;
use super::folder::Folder;
use super::runs::{self, Readers};
use super::{preferences, preview};
use crate::domain::{Digest, Millis, Namespace, Offset, PartitionId, Subject};
use crate::engine;
use crate::engine::effects::Templates;
use crate::env::Clock;
use crate::gateway::{
    Access, ApprovalFound, ApprovalsAsked, Asking, Campaigns, Choice, EffectFound, Preference, Preview, ReadError, RunFound, RunsAsked,
    RunsPage, SuppressionsAsked, SuppressionsPage, WorkflowFound,
};
use crate::log::{Group, LogWriter};
use crate::projections::runs::Stretch;
use crate::projections::{self, Reader};
use crate::segments::Problems;
use crate::stream::{self, NamespaceClock, Topic, Topics};
use crate::workflow::{Definition, EffectId, RunId};

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
    definitions: Arc<Definitions>,
    /// Stories read the journal: so many at once.
    stories: tokio::sync::Semaphore,
}

impl Runs {
    pub fn of(
        log: &Arc<impl LogWriter + 'static>,
        clock: &Arc<dyn Clock>,
        folder: &Folder,
        namespaces: &[(Namespace, NamespaceClock)],
        templates: Templates,
    ) -> Result<Self, Error> {
        let mut places = BTreeMap::new();
        for (namespace, kind) in namespaces {
            let Some(topics) = Topics::find(&**log, namespace)? else { continue };
            let group = Group(format!("{namespace}.{}", engine::STAGE).into());
            places.insert(namespace.clone(), Place { topics, clock: *kind, group });
        }
        let reader = |(namespace, _): &(Namespace, NamespaceClock)| (namespace.clone(), Arc::new(Reader::new(&folder.read(), namespace)));
        let readers = namespaces.iter().map(reader).collect();
        Ok(Self {
            log: Arc::clone(log) as _,
            clock: Arc::clone(clock),
            places,
            readers,
            templates: Arc::new(templates),
            definitions: Arc::default(),
            stories: tokio::sync::Semaphore::new(STORIES_MAX),
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

    fn workflows<'a>(&'a self, namespace: &'a Namespace) -> Asking<'a, Vec<WorkflowFound>> {
        let definitions = Arc::clone(&self.definitions);
        self.blocking(namespace, move |log, place| {
            let found = definitions.workflows(log, &place.topics)?;
            let mut shown: Vec<WorkflowFound> =
                found.known.iter().map(|(digest, (name, text))| definitions.found(*digest, name, text, &found)).collect();
            shown.sort_by(|a, b| (&a.name, !a.is_active, &a.digest).cmp(&(&b.name, !b.is_active, &b.digest)));
            Ok(shown)
        })
    }

    fn active_workflow<'a>(&'a self, namespace: &'a Namespace, name: &'a str) -> Asking<'a, Option<WorkflowFound>> {
        let (definitions, name) = (Arc::clone(&self.definitions), name.to_owned());
        self.blocking(namespace, move |log, place| {
            let found = definitions.workflows(log, &place.topics)?;
            let active = found.active.get(&name).and_then(|digest| Some((*digest, found.known.get(digest)?)));
            Ok(active.map(|(digest, (name, text))| definitions.found(digest, name, text, &found)))
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

    fn publish<'a>(&'a self, namespace: &'a Namespace, workflows: Vec<Arc<Definition>>) -> Asking<'a, Vec<bool>> {
        let from = self.from(namespace);
        self.blocking(namespace, move |log, place| stream::activate_workflows(log, &place.topics, &workflows, from))
    }

    fn check(&self, file: &str, text: &str, workflow: &Definition) -> Result<(), Problems> {
        engine::effects::check(file, text, workflow, &self.templates)
    }

    fn preferences<'a>(&'a self, of: &'a Access, subject: &'a Subject, said: &'a [Choice]) -> Asking<'a, Vec<Preference>> {
        Box::pin(async move {
            let definitions = Arc::clone(&self.definitions);
            let policy = self.blocking(&of.namespace, move |log, place| definitions.policy(log, &place.topics)).await?.map_err(failed)?;
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
                Ok(known.and_then(|(digest, (name, text))| definitions.parsed(digest, name, text)))
            });
            let Some(definition) = definition.await? else { return Ok(None) };
            let profile = reader.profile(&of.tenant, &approval.subject).await.map_err(runs::failed)?;
            let address = profile.as_ref().and_then(|profile| profile["traits"]["email"].as_str());
            Ok(preview::preview(&self.templates, &definition, approval, address))
        })
    }

    fn retire<'a>(&'a self, namespace: &'a Namespace, name: &'a str) -> Asking<'a, bool> {
        let from = self.from(namespace);
        let name = name.to_owned();
        self.blocking(namespace, move |log, place| stream::retire_workflow(log, &place.topics, &name, from))
    }

    fn decided(&self, namespace: &Namespace, partition: PartitionId) -> Result<Offset, ReadError> {
        let place = self.place(namespace)?;
        let commands = place.topics.partition(Topic::Commands, partition);
        let committed = self.log.committed(&place.group, commands).map_err(failed)?;
        Ok(committed.map_or(Offset(0), |committed| committed.offset))
    }
}
