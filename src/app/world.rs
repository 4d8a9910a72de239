//! One namespace running: its spine, its executor and its projector, or those of them that are this process's.

use std::sync::Arc;

use super::Error;
use super::backend::OpenLog;
use super::holding::{Holding, Part, Ways};
use super::vitals::Vitals;
use crate::config::{Config, Role};
use crate::domain::{Millis, Namespace, PartitionId};
use crate::engine;
use crate::env::Clock;
use crate::env::fs::{Fs, RealFs};
use crate::features::Rules;
use crate::log::{Group, LogWriter};
use crate::projections::{self, Projector};
use crate::schema::remote::Remote;
use crate::state::StateStore;
use crate::stream::topology::Topology;
use crate::stream::{self, NamespaceClock, Partitions, Spine, Watch};
use crate::workflow;

/// What a namespace is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    pub namespace: Namespace,
    pub clock: NamespaceClock,
    pub topology: Topology,
    pub partitions: Partitions,
    /// As files say; to be brought into force beside those that are, unless the same was before.
    pub workflows: Vec<workflow::Definition>,
    /// As its file says; in place of the one in force, unless the file said the same before.
    pub policy: Option<workflow::Policy>,
    /// In place of those of the configuration that have the same names.
    pub performers: engine::effects::Registry,
    /// Who may send to its inbox.
    pub senders: stream::inbox::Senders,
}

pub struct World {
    pub namespace: Namespace,
    pub clock: NamespaceClock,
    spine: stream::Handle,
    effects: Part<engine::effects::Handle>,
    projector: Part<projections::Handle>,
    watch: Watch,
}

impl World {
    pub fn start(
        plan: Plan,
        opened: &OpenLog,
        state: &Arc<dyn StateStore>,
        clock: &Arc<dyn Clock>,
        folder: &super::Folder,
        config: &Config,
    ) -> Result<Self, Error> {
        let (log, copied) = (&opened.writer, opened.copied());
        let Plan { namespace, clock: kind, topology, partitions, workflows, policy, performers, senders } = plan;
        let (rules, topology) = (Arc::new(topology.rules.clone()), Arc::new(topology));
        let setup = stream::Setup {
            log: Arc::clone(log),
            state: Arc::clone(state),
            clock: Arc::clone(clock),
            namespace: namespace.clone(),
            time: kind,
            partitions,
            topology: Arc::clone(&topology),
            options: config.stream.clone(),
            copied,
            inbox: stream::inbox::Setup { senders: Arc::new(senders), registry: registry(config)? },
        };
        let mut spine = if opened.is_shared() { Spine::share(setup)? } else { Spine::open(setup)? };
        let from = if kind == NamespaceClock::Event { Millis::MIN } else { clock.now() };
        for workflow in &workflows {
            stream::declare_workflow(&**log, spine.topics(), workflow, from)?;
        }
        if let Some(policy) = &policy {
            declare(&**log, spine.topics(), policy, from)?;
        }
        warn_of_segments(&**log, spine.topics(), &topology)?;
        engine::join(&mut spine, kind, copied)?;
        let topics = spine.topics().clone();
        let roles = &config.process;
        let spine = spine.run_stages(|stage| roles.is(role_of(stage)));
        let effects = match roles.is(Role::Effects) && config.effects.enabled {
            true => effects(config, folder, performers, (opened, state, clock), &topics)?,
            false => Part::Elsewhere,
        };
        let watch = spine.watch();
        let projector = match roles.is(Role::Projector) {
            true => projector((opened, clock), super::read_models(config)?, &topics, (rules, kind))?,
            false => Part::Elsewhere,
        };
        Ok(Self { namespace, clock: kind, spine, effects, projector, watch })
    }

    /// Records in the log that are not in the tables; 0 where another process keeps them.
    pub fn projection_lag(&self) -> u64 {
        self.projector.look(projections::Handle::lag).unwrap_or(0)
    }

    pub fn status(&self) -> Vec<stream::PartitionStatus> {
        self.spine.status()
    }

    /// What a health check holds on to.
    pub fn vitals(&self) -> Vitals {
        Vitals::new(&self.namespace, self.clock, &self.watch, &self.effects, &self.projector)
    }

    /// What is being performed here; `None` if nothing is.
    pub fn effects(&self) -> Option<engine::effects::Status> {
        self.effects.look(engine::effects::Handle::status)
    }

    /// Stops performing first, so that what was performed is decided, and folding next, so that the read model ends with everything that
    /// was committed.
    pub fn stop(self) -> Result<(), Error> {
        let performed = self.effects.stop(engine::effects::Handle::stop);
        let stopped = self.spine.stop();
        let projected: Result<(), Error> = self.projector.stop(|projector| {
            projector.stop();
            Ok(())
        });
        stopped?;
        performed?;
        projected
    }
}

/// The schema registry elsewhere, where there is one.
fn registry(config: &Config) -> Result<Option<Arc<Remote>>, Error> {
    if config.registry.url.is_empty() {
        return Ok(None);
    }
    Ok(Some(Arc::new(Remote::start(&config.registry).map_err(Error::Inbox)?)))
}

/// Whose work a stage's loops are.
fn role_of(stage: &str) -> Role {
    match stage {
        engine::STAGE => Role::Workflows,
        stream::PROFILE_STAGE => Role::Profiles,
        _ => Role::Intake,
    }
}

/// Keeps the namespace's read model: where processes share the work, one of them at a time, the one that holds the definitions' partition.
fn projector(
    (opened, clock): (&OpenLog, &Arc<dyn Clock>),
    place: projections::Place,
    topics: &stream::Topics,
    (rules, kind): (Arc<Rules>, NamespaceClock),
) -> Result<Part<projections::Handle>, Error> {
    let log = Arc::clone(&opened.writer);
    let (clock, namespace) = (Arc::clone(clock), topics.namespace.clone());
    let group = Group(format!("{namespace}.projector").into());
    let of = Arc::clone(&log);
    let begin = move || {
        let pins: Arc<dyn projections::Pins> = Arc::new(Arc::clone(&of));
        let is_history = kind == NamespaceClock::Event;
        let options = projections::Options { clock: Arc::clone(&clock), rules: Arc::clone(&rules), pins: Some(pins), is_history };
        Ok::<_, Error>(Projector::start(Arc::clone(&of) as _, place.clone(), &namespace, options)?)
    };
    if !opened.is_shared() {
        return Ok(Part::Own(begin()?));
    }
    let end = |projector: projections::Handle| projector.stop();
    let ways = Ways { begin: Box::new(move |_| begin()), end: Box::new(end), failure: |_| None };
    let name = format!("{}-projecting", topics.namespace);
    Ok(Part::Held(Holding::start(&name, log, group, topics.id(stream::Topic::Definitions), ways)))
}

/// Brings the policy of a file into force. Where the file is as it was, and another one was published since, that is said and kept.
fn declare(log: &dyn LogWriter, topics: &stream::Topics, policy: &workflow::Policy, from: Millis) -> Result<(), Error> {
    let namespace = &topics.namespace;
    let in_use = |error| match error {
        stream::Error::PurposeInUse { .. } => Error::Policy { namespace: namespace.to_string(), detail: format!("{error}") },
        error => Error::Stream(error),
    };
    if stream::declare_policy(log, topics, policy, from).map_err(in_use)? {
        tracing::info!(%namespace, "the policy is what its file says");
        return Ok(());
    }
    if stream::policy(log, topics, None)?.is_some_and(|found| found.digest != policy.digest) {
        let hint = "`flywheel policy show` prints it; change the file, or publish it, to have it in force";
        tracing::warn!(%namespace, hint, "the policy's file is as it was, and another policy was published since, which stays in force");
    }
    Ok(())
}

/// Says which segments of workflows in force the topology does not have: by another topology they would be served.
fn warn_of_segments(log: &dyn LogWriter, topics: &stream::Topics, topology: &Topology) -> Result<(), Error> {
    let segments = topology.segments.iter().map(|segment| &*segment.name);
    for (segment, by) in stream::segments_lacking(&stream::workflows(log, topics)?, segments) {
        let (namespace, topology) = (&topics.namespace, &topology.name);
        let hint = "nobody comes by it, and what waits for it waits in vain: declare it in the topology, or retire or change the workflow";
        tracing::warn!(%namespace, topology, segment, by, hint, "a workflow names a segment that the topology does not have");
    }
    Ok(())
}

/// Performs what the namespace's runs ask for: all of it, or what is in the partitions of the journal that the group gives.
fn effects(
    config: &Config,
    folder: &super::Folder,
    performers: engine::effects::Registry,
    (opened, state, clock): (&OpenLog, &Arc<dyn StateStore>, &Arc<dyn Clock>),
    topics: &stream::Topics,
) -> Result<Part<engine::effects::Handle>, Error> {
    let copied = opened.copied();
    let links = super::links(config, folder, &folder.served(&config.server.listen))?;
    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    let around = engine::effects::Surroundings {
        namespace: &topics.namespace,
        clock,
        fs: &fs,
        outbox: &folder.outbox(&topics.namespace),
        links: engine::effects::performers::Links { base: links.base, keys: links.keys },
    };
    let registry = config.effects.registry(&config.channels, around)?.with(performers);
    let fold = engine::group(&topics.namespace);
    let (log, state, clock) = (Arc::clone(&opened.writer), Arc::clone(state), Arc::clone(clock));
    let (options, of) = (config.effects.clone(), topics.clone());
    let shared = Arc::clone(&log);
    let begin = move |partitions: Option<Vec<PartitionId>>| {
        Ok::<_, Error>(engine::effects::start(engine::effects::Setup {
            log: Arc::clone(&log),
            state: Arc::clone(&state),
            clock: Arc::clone(&clock),
            settings: options.settings(),
            topics: of.clone(),
            partitions,
            registry: registry.clone(),
            fold: Some(fold.clone()),
            copied,
        })?)
    };
    if !opened.is_shared() {
        return Ok(Part::Own(begin(None)?));
    }
    let end = |performing: engine::effects::Handle| {
        if let Err(error) = performing.stop() {
            tracing::warn!(%error, "effects did not stop in order; whoever performs next finds out what was done");
        }
    };
    let ways = Ways {
        begin: Box::new(move |partitions| begin(Some(partitions.to_vec()))),
        end: Box::new(end),
        failure: |performing| performing.watch().failure(),
    };
    let group = Group(format!("{}.effects", topics.namespace).into());
    let name = format!("{}-performing", topics.namespace);
    Ok(Part::Held(Holding::start(&name, shared, group, topics.id(stream::Topic::Journal), ways)))
}
