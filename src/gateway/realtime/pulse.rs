//! Tells watchers that a namespace's topics have grown: one thread per namespace that is watched, however many watch, and none otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::domain::{Namespace, Offset, PartitionId};
use crate::gateway::Gateway;
use crate::gateway::worlds::{World, place};
use crate::log::{self, LogReader, TopicPartition};

/// How long one look at the log lasts while nothing comes; so long after the last watcher has left its thread ends.
const LOOK: Duration = Duration::from_millis(500);

/// The pulses that beat.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Pulses {
    beating: Arc<Mutex<BTreeMap<Namespace, watch::Sender<u64>>>>,
}

impl Pulses {
    /// Changes whenever something may have come.
    pub(super) fn subscribe(&self, namespace: &Namespace, gateway: &Gateway) -> watch::Receiver<u64> {
        let mut beating = self.beating.lock();
        if let Some(sender) = beating.get(namespace) {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(0);
        let Some(world) = gateway.worlds.get(namespace).cloned() else { return receiver };
        beating.insert(namespace.clone(), sender);
        let (log, all, of) = (gateway.app.log.clone(), Arc::clone(&self.beating), namespace.clone());
        let thread = std::thread::Builder::new().name(format!("pulse-{namespace}"));
        if let Err(error) = thread.spawn(move || beat(&*log, &world, &all, &of)) {
            tracing::error!(%error, "no thread to watch the log with");
            beating.remove(namespace);
        }
        receiver
    }
}

/// Until nobody listens or the log gives up; watchers then hear that it ended, or find out by reading.
fn beat(log: &dyn LogReader, world: &World, all: &Mutex<BTreeMap<Namespace, watch::Sender<u64>>>, of: &Namespace) {
    loop {
        let grown = ends(log, world).and_then(|ends| log.wait(&ends, LOOK));
        let mut beating = all.lock();
        let Some(sender) = beating.get(of) else { return };
        if grown.is_err() || sender.receiver_count() == 0 {
            beating.remove(of);
            return;
        }
        // Also when nothing was seen to come: what came between two looks is in no wait.
        sender.send_modify(|count| *count += 1);
    }
}

fn ends(log: &dyn LogReader, world: &World) -> Result<Vec<(TopicPartition, Offset)>, log::Error> {
    let mut ends = Vec::new();
    for topic in world.watched() {
        for partition in 0..topic.spec.partitions {
            let partition = place(topic, PartitionId(partition));
            ends.push((partition, log.watermarks(partition)?.end));
        }
    }
    Ok(ends)
}
