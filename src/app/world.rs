//! One namespace running: its spine and its projector, and what they say about themselves.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Error;
use crate::config::Config;
use crate::domain::{Incarnation, Millis, Namespace};
use crate::engine;
use crate::env::Clock;
use crate::env::fs::{Fs, RealFs};
use crate::gateway::Reason;
use crate::log::LogWriter;
use crate::projections::{self, Health, Projector};
use crate::schema::remote::Remote;
use crate::state::StateStore;
use crate::stream::topology::Topology;
use crate::stream::{self, NamespaceClock, Partitions, Spine, Watch};
use crate::workflow;

/// A fold this far behind is worth a word.
const LAG_RECORDS_MAX: u64 = 1_000_000;

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
    effects: Option<engine::effects::Handle>,
    projector: projections::Handle,
    watch: Watch,
}

impl World {
    pub fn start<L: LogWriter + 'static>(
        plan: Plan,
        log: &Arc<L>,
        state: &Arc<dyn StateStore>,
        clock: &Arc<dyn Clock>,
        folder: &super::Folder,
        config: &Config,
        copied: Option<Incarnation>,
    ) -> Result<Self, Error> {
        let Plan { namespace, clock: kind, topology, partitions, workflows, policy, performers, senders } = plan;
        let (rules, topology) = (Arc::new(topology.rules.clone()), Arc::new(topology));
        let setup = stream::Setup {
            log: Arc::clone(log) as _,
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
        let mut spine = Spine::open(setup)?;
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
        let spine = spine.run();
        let effects =
            if config.effects.enabled { Some(effects(config, folder, performers, (log, state, clock), topics, copied)?) } else { None };
        let watch = spine.watch();
        let pins: Arc<dyn projections::Pins> = Arc::clone(log) as Arc<dyn projections::Pins>;
        let options = projections::Options { clock: Arc::clone(clock), rules, pins: Some(pins), is_history: kind == NamespaceClock::Event };
        let projector = Projector::start(Arc::clone(log) as _, super::read_models(config)?, &namespace, options)?;
        Ok(Self { namespace, clock: kind, spine, effects, projector, watch })
    }

    pub fn projector(&self) -> &projections::Handle {
        &self.projector
    }

    pub fn status(&self) -> Vec<stream::PartitionStatus> {
        self.spine.status()
    }

    /// What a health check holds on to.
    pub fn vitals(&self) -> Vitals {
        let (namespace, effects) = (self.namespace.clone(), self.effects.as_ref().map(engine::effects::Handle::watch));
        Vitals { namespace, clock: self.clock, watch: self.watch.clone(), effects, projector: self.projector.clone() }
    }

    /// What is being performed; `None` if effects are switched off.
    pub fn effects(&self) -> Option<engine::effects::Status> {
        self.effects.as_ref().map(engine::effects::Handle::status)
    }

    /// Stops performing first, so that what was performed is decided, and folding next, so that the read model ends with everything that
    /// was committed.
    pub fn stop(self) -> Result<(), Error> {
        let performed = self.effects.map_or(Ok(()), engine::effects::Handle::stop);
        let stopped = self.spine.stop();
        self.projector.stop();
        stopped?;
        Ok(performed?)
    }
}

/// The schema registry elsewhere, where there is one.
fn registry(config: &Config) -> Result<Option<Arc<Remote>>, Error> {
    if config.registry.url.is_empty() {
        return Ok(None);
    }
    Ok(Some(Arc::new(Remote::start(&config.registry).map_err(Error::Inbox)?)))
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

/// Performs what the namespace's runs ask for.
fn effects<L: LogWriter + 'static>(
    config: &Config,
    folder: &super::Folder,
    performers: engine::effects::Registry,
    (log, state, clock): (&Arc<L>, &Arc<dyn StateStore>, &Arc<dyn Clock>),
    topics: stream::Topics,
    copied: Option<Incarnation>,
) -> Result<engine::effects::Handle, Error> {
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
    let fold = Some(engine::group(&topics.namespace));
    let (log, state, clock) = (Arc::clone(log) as _, Arc::clone(state), Arc::clone(clock));
    Ok(engine::effects::start(engine::effects::Setup {
        log,
        state,
        clock,
        settings: config.effects.settings(),
        topics,
        registry,
        fold,
        copied,
    })?)
}

/// Looks at a running namespace without owning it.
#[derive(Clone)]
pub struct Vitals {
    pub namespace: Namespace,
    clock: NamespaceClock,
    watch: Watch,
    effects: Option<engine::effects::Watch>,
    projector: projections::Handle,
}

impl Vitals {
    pub fn failure(&self) -> Option<String> {
        self.watch.failure().or_else(|| self.effects.as_ref()?.failure())
    }

    /// What is late or being built here; nothing of it keeps an event from being kept.
    pub fn degraded(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let mut no = |component: &str, reason: String| {
            reasons.push(Reason { component: component.to_owned(), reason: format!("namespace {}: {reason}", self.namespace) });
        };
        if let Some(failure) = self.watch.failure() {
            no("stream", failure);
        }
        let status = self.watch.status();
        let catching_up = status.iter().filter(|partition| partition.catching_up).count();
        if catching_up > 0 {
            no("stream", format!("{catching_up} partitions are re-reading the log after a restart"));
        }
        // All of a stage usually wait for the same.
        let stalled: BTreeSet<(&str, &String)> =
            status.iter().filter_map(|partition| Some((partition.stage, partition.stalled.as_ref()?))).collect();
        for (stage, why) in stalled {
            no("stream", format!("{stage} stands still: {why}"));
        }
        let lag = status.iter().map(stream::PartitionStatus::lag_records).max().unwrap_or(0);
        if lag > LAG_RECORDS_MAX {
            no("stream", format!("a partition is {lag} records behind"));
        }
        match self.projector.health() {
            Health::Starting | Health::Running => {}
            Health::Retrying(reason) => no("read model", reason),
            Health::Rebuilding(reason) => no("read model", format!("being rebuilt: {reason}")),
            Health::Stopped => no("read model", "stopped".to_owned()),
        }
        reasons
    }

    /// How old the oldest record is that intake has not folded. Nothing in event time: its clock is as old as its history, and nobody there
    /// waits for the present.
    pub fn intake_lag_ms(&self, now: crate::domain::Millis) -> u64 {
        if self.clock == NamespaceClock::Event {
            return 0;
        }
        let behind = self.watch.status().into_iter().filter(|partition| partition.stage == "intake" && partition.lag_records() > 0);
        // Ticks are far apart while nothing comes: what was idle a moment ago is not behind.
        behind
            .filter_map(|partition| partition.time.max(partition.idle_at))
            .map(|time| now.since_ms(crate::domain::Millis(time)).max(0) as u64)
            .max()
            .unwrap_or(0)
    }
}
