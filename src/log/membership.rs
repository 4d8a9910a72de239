//! Who works on which partitions: a group's members share them, and hear when theirs change.

use std::time::Duration;

use super::{Error, TopicInfo, TopicPartition};
use crate::domain::PartitionId;

/// What changed for a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// To be worked on from now on.
    Assigned(Vec<TopicPartition>),
    /// To be let go: finish and store their work, then [`release`](Membership::release) them.
    Revoked(Vec<TopicPartition>),
    /// Others may own them already: drop their work, nothing of it will be taken.
    Lost(Vec<TopicPartition>),
}

/// A process's part in a consumer group. To be polled all the time: a member that is silent for a session loses everything.
pub trait Membership: Send {
    /// Waits up to `at_most` for changes; none is the usual answer.
    fn poll(&mut self, at_most: Duration) -> Result<Vec<Change>, Error>;

    /// Their work is committed and stored: others may have them.
    fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), Error>;

    /// Gives everything that is held to the others and leaves. Nothing of it may be at work any more.
    fn leave(self: Box<Self>, held: &[TopicPartition]) -> Result<(), Error>;
}

/// The only member there is.
pub struct Everything(Option<Vec<TopicPartition>>);

impl Everything {
    pub fn of(topic: &TopicInfo) -> Self {
        let at = |partition| TopicPartition { topic: topic.id, partition: PartitionId(partition) };
        Self(Some((0..topic.spec.partitions).map(at).collect()))
    }
}

impl Membership for Everything {
    fn poll(&mut self, at_most: Duration) -> Result<Vec<Change>, Error> {
        match self.0.take() {
            Some(all) => Ok(vec![Change::Assigned(all)]),
            None => {
                std::thread::park_timeout(at_most);
                Ok(Vec::new())
            }
        }
    }

    fn release(&mut self, _partitions: &[TopicPartition]) -> Result<(), Error> {
        Ok(())
    }

    fn leave(self: Box<Self>, _held: &[TopicPartition]) -> Result<(), Error> {
        Ok(())
    }
}
