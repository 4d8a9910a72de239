//! How a running namespace is, for those who do not own it: readiness, the server's own watch, the gateway's admission.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::holding::Part;
use crate::domain::Namespace;
use crate::engine;
use crate::gateway::Reason;
use crate::projections::{self, Health};
use crate::stream::{self, NamespaceClock, Watch};

/// A fold this far behind is worth a word.
const LAG_RECORDS_MAX: u64 = 1_000_000;
/// Looks at a running namespace without owning it.
#[derive(Clone)]
pub struct Vitals {
    pub namespace: Namespace,
    clock: NamespaceClock,
    watch: Watch,
    effects_failure: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    /// `None` while it is not of this process.
    projector: Arc<dyn Fn() -> Option<Health> + Send + Sync>,
}

impl Vitals {
    pub(super) fn new(
        namespace: &Namespace,
        clock: NamespaceClock,
        watch: &Watch,
        effects: &Part<engine::effects::Handle>,
        projector: &Part<projections::Handle>,
    ) -> Self {
        Self {
            namespace: namespace.clone(),
            clock,
            watch: watch.clone(),
            effects_failure: match effects {
                Part::Elsewhere => Arc::new(|| None),
                Part::Own(own) => {
                    let watch = own.watch();
                    Arc::new(move || watch.failure())
                }
                Part::Held(holding) => {
                    let sight = holding.sight();
                    Arc::new(move || sight.failure())
                }
            },
            projector: match projector {
                Part::Elsewhere => Arc::new(|| None),
                Part::Own(own) => {
                    let own = own.clone();
                    Arc::new(move || Some(own.health()))
                }
                Part::Held(holding) => {
                    let sight = holding.sight();
                    Arc::new(move || sight.look(projections::Handle::health))
                }
            },
        }
    }

    pub fn failure(&self) -> Option<String> {
        self.watch.failure().or_else(|| (self.effects_failure)())
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
        match (self.projector)() {
            None | Some(Health::Starting | Health::Running) => {}
            Some(Health::Retrying(reason)) => no("read model", reason),
            Some(Health::Rebuilding(reason)) => no("read model", format!("being rebuilt: {reason}")),
            Some(Health::Stopped) => no("read model", "stopped".to_owned()),
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
