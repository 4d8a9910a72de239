//! A stage of a namespace: the loops of one topic's partitions, and how to begin one of them.

use std::sync::Arc;

use super::worker::Stepper;
use super::{Error, Topic, Topics};
use crate::domain::PartitionId;
use crate::log::Group;

type Begin = dyn Fn(PartitionId) -> Result<Box<dyn Stepper>, Error> + Send + Sync;

/// What all loops of a stage have in common.
pub struct Stage {
    pub name: &'static str,
    /// Under which it commits, and whose members share its partitions.
    pub group: Group,
    /// What it reads.
    pub topic: Topic,
    /// Takes over a partition and finds out where to go on.
    pub open: Box<Begin>,
}

impl Stage {
    pub fn new(
        name: &'static str,
        topics: &Topics,
        topic: Topic,
        open: impl Fn(PartitionId) -> Result<Box<dyn Stepper>, Error> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let group = Group(format!("{}.{name}", topics.namespace).into());
        Arc::new(Self { name, group, topic, open: Box::new(open) })
    }
}
