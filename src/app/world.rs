//! One namespace running: its spine and its projector, and what they say about themselves.

use std::sync::Arc;

use super::Error;
use crate::domain::{Incarnation, Millis, Namespace};
use crate::engine;
use crate::workflow;
use crate::env::Clock;
use crate::gateway::Reason;
use crate::log::LogWriter;
use crate::projections::{self, Health, Projector};
use crate::state::StateStore;
use crate::stream::topology::Topology;
use crate::stream::{self, NamespaceClock, Partitions, Spine, Watch};

/// A fold this far behind is worth a word.
const LAG_RECORDS_MAX: u64 = 1_000_000;

/// What a namespace is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    pub namespace: Namespace,
    pub clock: NamespaceClock,
    pub topology: Topology,
    pub partitions: Partitions,
    /// To be brought into force beside those that are.
    pub workflows: Vec<workflow::Definition>,
    /// In place of the one in force, if any is.
    pub policy: Option<workflow::Policy>,
}

pub struct World {
    pub namespace: Namespace,
    pub clock: NamespaceClock,
    spine: stream::Handle,
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
        options: &stream::Options,
        copied: Option<Incarnation>,
    ) -> Result<Self, Error> {
        let Plan { namespace, clock: kind, topology, partitions, workflows, policy } = plan;
        let rules = Arc::new(topology.rules.clone());
        let setup = stream::Setup {
            log: Arc::clone(log) as _,
            state: Arc::clone(state),
            clock: Arc::clone(clock),
            namespace: namespace.clone(),
            time: kind,
            partitions,
            topology: Arc::new(topology),
            options: options.clone(),
            copied,
        };
        let mut spine = Spine::open(setup)?;
        let from = if kind == NamespaceClock::Event { Millis::MIN } else { clock.now() };
        for workflow in &workflows {
            stream::activate_workflow(&**log, spine.topics(), workflow, from)?;
        }
        if let Some(policy) = &policy {
            stream::activate_policy(&**log, spine.topics(), policy, from)?;
        }
        engine::join(&mut spine, kind)?;
        let spine = spine.run();
        let watch = spine.watch();
        let pins: Arc<dyn projections::Pins> = Arc::clone(log) as Arc<dyn projections::Pins>;
        let options = projections::Options { clock: Arc::clone(clock), rules, pins: Some(pins) };
        let projector = Projector::start(Arc::clone(log) as _, &folder.read(), &namespace, options)?;
        Ok(Self { namespace, clock: kind, spine, projector, watch })
    }

    pub fn projector(&self) -> &projections::Handle {
        &self.projector
    }

    pub fn status(&self) -> Vec<stream::PartitionStatus> {
        self.spine.status()
    }

    /// What a health check holds on to.
    pub fn vitals(&self) -> Vitals {
        Vitals { namespace: self.namespace.clone(), clock: self.clock, watch: self.watch.clone(), projector: self.projector.clone() }
    }

    /// Stops folding first, so that the read model ends with everything that was committed.
    pub fn stop(self) -> Result<(), Error> {
        let stopped = self.spine.stop();
        self.projector.stop();
        Ok(stopped?)
    }
}

/// Looks at a running namespace without owning it.
#[derive(Clone)]
pub struct Vitals {
    pub namespace: Namespace,
    clock: NamespaceClock,
    watch: Watch,
    projector: projections::Handle,
}

impl Vitals {
    pub fn failure(&self) -> Option<String> {
        self.watch.failure()
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
