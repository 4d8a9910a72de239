//! Workflows running: the processor that turns `commands` into `journal`, and those who perform what it asks for.
//!
//! The fold is a shell around the pure core (`workflow`): it keeps the subjects in memory or finds them in the store, hands each command to
//! its subject, writes what was decided to the journal in the commit that consumed the command, and sends on what follows from it. It
//! recovers from the journal alone, so that no command is ever decided twice.
//!
//! It runs on the partition loop of `stream`, which it extends by one more stage; they share nothing but the log. Leaves what commands
//! mean to `workflow`, and read models to `projections`.

mod addresses;
mod aside;
pub mod effects;
mod fold;
mod library;
mod outward;
mod recover;
mod schedule;
mod subjects;
#[cfg(test)]
mod tests;
mod wakes;

use std::sync::Arc;

pub use fold::{FOLD_VERSION, STAGE, Setup, WorkflowFold};

use crate::domain::Incarnation;
use crate::log::{Group, LogReader};
use crate::stream::{Error, NamespaceClock, Spine, Stage, Topic, Worker, released};

/// The consumer group of the workflow processor.
pub fn group(namespace: &crate::domain::Namespace) -> Group {
    Group(format!("{namespace}.{}", STAGE).into())
}

/// Adds the workflow processor of every partition to a spine that is not running yet.
pub fn join(spine: &mut Spine, clock: NamespaceClock, copied: Option<Incarnation>) -> Result<(), Error> {
    let mut around = spine.surroundings().clone();
    // An effect's next step should not wait for company.
    around.options.linger_ms = 0;
    // All subjects of a batch are in memory at once, and a command is small beside its subject.
    around.options.fetch_bytes_max /= 8;
    let is_held = match copied {
        Some(copied) if clock == NamespaceClock::Wall => released(&*around.log, &around.topics)? < Some(copied),
        _ => false,
    };
    let library = Arc::clone(spine.library());
    let topics = around.topics.clone();
    spine.add(Stage::new(STAGE, &topics, Topic::Commands, move |partition| {
        let log = Arc::clone(&around.log) as Arc<dyn LogReader>;
        let setup = Setup { partition, clock, library: Arc::clone(&library), is_held };
        let fold = WorkflowFold::new(Arc::clone(&around.state), log, around.topics.clone(), &around.options, setup);
        Ok(Box::new(Worker::open(around.clone(), fold)?))
    }))
}
