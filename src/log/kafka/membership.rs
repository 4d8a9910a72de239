//! The port's membership over a member of a Kafka consumer group.

use std::sync::Arc;
use std::time::Duration;

use super::member::{Member, Told};
use super::owners::Owners;
use super::reader::Physical;
use super::{KafkaLog, at};
use crate::log::{Change, Error, Group, Membership, TopicId, TopicPartition};

/// What leaving in peace may take: a rebalance of the others.
const LEAVE_WITHIN: Duration = Duration::from_secs(4);

pub(super) struct KafkaMembership {
    member: Arc<Member>,
    owners: Arc<Owners>,
    group: Group,
    topic: TopicId,
    physical: Arc<str>,
}

impl KafkaMembership {
    pub(super) fn join(log: &KafkaLog, group: &Group, topic: TopicId, physical: &Arc<str>) -> Result<Self, Error> {
        let owners = Arc::clone(&log.owners);
        let (losing, of) = (Arc::clone(&log.owners), group.clone());
        let on_lost = move |partitions: &[i32]| partitions.iter().for_each(|partition| losing.lose(&of, at(topic, *partition)));
        let name = format!("{}{}", log.options.prefix, group.0);
        let complaints = owners.complaints();
        let member = Arc::new(Member::join(&log.options, complaints, &name, physical, on_lost)?);
        owners.joined(group, &member);
        Ok(Self { member, owners, group: group.clone(), topic, physical: Arc::clone(physical) })
    }

    fn places(&self, partitions: &[i32]) -> Vec<TopicPartition> {
        partitions.iter().map(|partition| at(self.topic, *partition)).collect()
    }
}

impl Membership for KafkaMembership {
    fn poll(&mut self, at_most: Duration) -> Result<Vec<Change>, Error> {
        let told = self.member.poll(at_most)?;
        let change = |told: Told| match told {
            Told::Assigned(partitions) => Change::Assigned(self.places(&partitions)),
            Told::Revoked(partitions) => Change::Revoked(self.places(&partitions)),
            Told::Lost(partitions) => Change::Lost(self.places(&partitions)),
        };
        Ok(told.into_iter().map(change).collect())
    }

    fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), Error> {
        for id in partitions {
            let of = Physical { topic: Arc::clone(&self.physical), partition: id.partition.0 as i32 };
            self.owners.give_back(&self.group, *id, &of)?;
        }
        let numbers: Vec<i32> = partitions.iter().map(|id| id.partition.0 as i32).collect();
        self.member.release(&numbers)
    }

    fn leave(self: Box<Self>, held: &[TopicPartition]) -> Result<(), Error> {
        for id in held {
            let of = Physical { topic: Arc::clone(&self.physical), partition: id.partition.0 as i32 };
            self.owners.give_back(&self.group, *id, &of)?;
        }
        self.member.leave(LEAVE_WITHIN);
        Ok(())
    }
}

impl Drop for KafkaMembership {
    fn drop(&mut self) {
        self.owners.left(&self.group);
    }
}
