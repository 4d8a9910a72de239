//! The topics of each namespace that campaigns and watchers need, looked up once.

use std::collections::BTreeMap;

use crate::domain::{Namespace, Offset, PartitionId, SubjectKey, partition_of};
use crate::log::{LogReader, TopicInfo, TopicName, TopicPartition};

use super::options::Sources;

/// One namespace's topics by subject; they have one partition count.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub events: TopicInfo,
    pub commands: TopicInfo,
    pub journal: TopicInfo,
    pub profiles: TopicInfo,
    pub segment_changes: TopicInfo,
}

impl World {
    pub(super) fn commands_of(&self, key: &SubjectKey) -> TopicPartition {
        place(&self.commands, partition_of(key.as_bytes(), self.commands.spec.partitions))
    }

    /// What the profile fold of a subject reads.
    pub(super) fn events_of(&self, key: &SubjectKey) -> TopicPartition {
        place(&self.events, partition_of(key.as_bytes(), self.events.spec.partitions))
    }

    pub(super) fn journal_of(&self, commands: TopicPartition) -> TopicPartition {
        place(&self.journal, commands.partition)
    }

    /// A position as people read it.
    pub(super) fn position(&self, commands: TopicPartition, offset: Offset) -> String {
        format!("{}/{}/{}", self.commands.spec.name, commands.partition.0, offset.0)
    }

    /// What is watched, in the order of position tokens.
    pub(super) fn watched(&self) -> [&TopicInfo; 3] {
        [&self.journal, &self.profiles, &self.segment_changes]
    }
}

pub(super) fn place(topic: &TopicInfo, partition: PartitionId) -> TopicPartition {
    TopicPartition { topic: topic.id, partition }
}

/// Those of the namespaces that have them; one of an earlier build may not.
pub(super) fn resolve(sources: &Sources, log: &dyn LogReader) -> Result<BTreeMap<Namespace, World>, crate::log::Error> {
    let topics = log.topics()?;
    let mut worlds = BTreeMap::new();
    for namespace in sources.namespaces.keys() {
        let find = |topic: &str| {
            let name = TopicName::new(namespace, topic);
            topics.iter().find(|info| info.spec.name == name).cloned()
        };
        let found = (find("events"), find("commands"), find("journal"), find("profiles"), find("segment_changes"));
        if let (Some(events), Some(commands), Some(journal), Some(profiles), Some(segment_changes)) = found {
            worlds.insert(namespace.clone(), World { events, commands, journal, profiles, segment_changes });
        }
    }
    Ok(worlds)
}
