//! The topics of one namespace: which there are, how long each is kept, and their numbers in the log.

use std::sync::Arc;

use super::{Error, NamespaceClock};
use crate::domain::{DAY_MS, Duration, Incarnation, Namespace, PartitionId};
use crate::log::{Cleanup, LogReader, LogWriter, Retention, TopicId, TopicInfo, TopicName, TopicPartition, TopicSpec};
use crate::schema::registry::FOREIGN;

/// The topics of the event spine and of workflows. The order is that of [`Topics`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Intake,
    Identities,
    Events,
    Profiles,
    SegmentChanges,
    Definitions,
    DeadLetters,
    Outcomes,
    Corrections,
    Commands,
    Journal,
    Inbox,
    Schemas,
}

impl Topic {
    pub const ALL: [Topic; 13] = [
        Topic::Intake,
        Topic::Identities,
        Topic::Events,
        Topic::Profiles,
        Topic::SegmentChanges,
        Topic::Definitions,
        Topic::DeadLetters,
        Topic::Outcomes,
        Topic::Corrections,
        Topic::Commands,
        Topic::Journal,
        Topic::Inbox,
        Topic::Schemas,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Topic::Intake => "intake",
            Topic::Identities => "identities",
            Topic::Events => "events",
            Topic::Profiles => "profiles",
            Topic::SegmentChanges => "segment_changes",
            Topic::Definitions => "definitions",
            Topic::DeadLetters => "dead_letters",
            Topic::Outcomes => "outcomes",
            Topic::Corrections => "corrections",
            Topic::Commands => "commands",
            Topic::Journal => "journal",
            Topic::Inbox => FOREIGN,
            Topic::Schemas => "schemas",
        }
    }

    fn kept(self) -> (Retention, Cleanup) {
        let days = |days: i64| Retention::Age(Duration::from_millis((days * DAY_MS) as u64));
        match self {
            // Unsealed personal data: days, at most 30. Longer than deduplication looks back, so that its state can be built again.
            Topic::Intake | Topic::Inbox => (days(7), Cleanup::Delete),
            // Which user a device belongs to: latest per device, for ever.
            Topic::Identities => (Retention::Forever, Cleanup::Compact),
            // The history everything is derived from.
            Topic::Events => (Retention::Forever, Cleanup::Delete),
            Topic::Profiles => (Retention::Forever, Cleanup::Compact),
            // Few records, and a read model is rebuilt from nothing else: who has long been in a segment is known from when they entered.
            Topic::SegmentChanges | Topic::Corrections => (Retention::Forever, Cleanup::Delete),
            Topic::Definitions | Topic::Schemas => (Retention::Forever, Cleanup::Delete),
            // What was decided is in the journal: these are kept to look at, and to decide again in a replay.
            Topic::Commands => (days(30), Cleanup::Delete),
            Topic::Journal => (Retention::Forever, Cleanup::Delete),
            // Long enough to notice, fix and send again.
            Topic::DeadLetters => (days(90), Cleanup::Delete),
            Topic::Outcomes => (days(30), Cleanup::Delete),
        }
    }
}

/// Topics that namespaces of earlier builds do not have.
const LATER: [Topic; 5] = [Topic::Corrections, Topic::Commands, Topic::Journal, Topic::Inbox, Topic::Schemas];

/// How many partitions each side has. `intake` and `inbox` may differ from `events`; everything by subject has one count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Partitions {
    pub intake: u32,
    pub events: u32,
    /// For producers of their own; 0 where there are none, which spares the namespace the topic and its decoders.
    pub inbox: u32,
}

impl Default for Partitions {
    fn default() -> Self {
        Self { intake: 4, events: 4, inbox: 0 }
    }
}

/// The specification of every topic of `namespace`; one without partitions is not to be created.
///
/// | topic | kept |
/// |---|---|
/// | `intake`, `inbox` | 7 days |
/// | `identities`, `profiles` | the newest of each key, for ever |
/// | `events`, `segment_changes`, `corrections`, `journal`, `definitions`, `schemas` | for ever |
/// | `commands` | 30 days |
/// | `dead_letters` | 90 days |
/// | `outcomes` | 30 days |
pub fn topics(namespace: &Namespace, partitions: Partitions) -> Vec<TopicSpec> {
    let spec = |topic: Topic| {
        let count = match topic {
            Topic::Events | Topic::Profiles | Topic::SegmentChanges | Topic::Corrections | Topic::Commands | Topic::Journal => {
                partitions.events
            }
            Topic::Intake | Topic::Identities | Topic::DeadLetters | Topic::Outcomes => partitions.intake,
            Topic::Definitions | Topic::Schemas => 1,
            Topic::Inbox => partitions.inbox,
        };
        let (retention, cleanup) = topic.kept();
        TopicSpec { name: TopicName::new(namespace, topic.as_str()), partitions: count, retention, cleanup }
    };
    Topic::ALL.iter().map(|topic| spec(*topic)).collect()
}

/// A topic that the log does not have: one without partitions.
fn absent(spec: TopicSpec, incarnation: Incarnation) -> TopicInfo {
    TopicInfo { id: TopicId(u32::MAX), incarnation, spec }
}

/// The topics of a namespace as the log knows them. A cheap handle.
#[derive(Debug, Clone)]
pub struct Topics {
    pub namespace: Namespace,
    infos: Arc<[TopicInfo]>,
}

impl Topics {
    /// Creates what is missing. Topics that exist keep the partition count they have: changing it is repartitioning. They are kept for as
    /// long as this build says.
    pub fn create(log: &dyn LogWriter, namespace: &Namespace, partitions: Partitions) -> Result<Self, Error> {
        let existing = log.topics()?;
        let have = |topic: Topic| existing.iter().find(|info| info.spec.name == TopicName::new(namespace, topic.as_str()));
        let partitions = Partitions {
            intake: have(Topic::Intake).map_or(partitions.intake, |info| info.spec.partitions),
            events: have(Topic::Events).map_or(partitions.events, |info| info.spec.partitions),
            inbox: have(Topic::Inbox).map_or(partitions.inbox, |info| info.spec.partitions),
        };
        let mut infos: Vec<TopicInfo> = Vec::with_capacity(Topic::ALL.len());
        for spec in topics(namespace, partitions) {
            let info = match infos.first().map(|info| info.incarnation) {
                Some(incarnation) if spec.partitions == 0 => absent(spec, incarnation),
                _ => log.create_topic(&spec)?,
            };
            infos.push(info);
        }
        Ok(Self { namespace: namespace.clone(), infos: infos.into() })
    }

    /// Makes a namespace ready to be appended to: its topics are there, and its clock is the one that is wanted.
    pub fn make(log: &dyn LogWriter, namespace: &Namespace, clock: NamespaceClock, partitions: Partitions) -> Result<Self, Error> {
        let topics = Self::create(log, namespace, partitions)?;
        super::definitions::fix_clock(log, &topics, clock)?;
        Ok(topics)
    }

    /// Finds them in a log that someone else writes; `None` if the namespace is not (all) there. A topic that came with a later build is
    /// one without partitions until a server of such a build creates it.
    pub fn find(log: &dyn LogReader, namespace: &Namespace) -> Result<Option<Self>, Error> {
        let existing = log.topics()?;
        let later = |topic: Topic| {
            let mut specs = topics(namespace, Partitions { intake: 0, events: 0, inbox: 0 });
            let spec = TopicSpec { partitions: 0, ..specs.swap_remove(topic as usize) };
            let incarnation = existing.first()?.incarnation;
            LATER.contains(&topic).then(|| absent(spec, incarnation))
        };
        let find = |topic: &Topic| {
            let found = existing.iter().find(|info| info.spec.name == TopicName::new(namespace, topic.as_str()));
            found.cloned().or_else(|| later(*topic))
        };
        let infos: Option<Vec<TopicInfo>> = Topic::ALL.iter().map(find).collect();
        Ok(infos.map(|infos| Self { namespace: namespace.clone(), infos: infos.into() }))
    }

    pub fn info(&self, topic: Topic) -> &TopicInfo {
        &self.infos[topic as usize]
    }

    pub fn id(&self, topic: Topic) -> TopicId {
        self.info(topic).id
    }

    pub fn incarnation(&self, topic: Topic) -> Incarnation {
        self.info(topic).incarnation
    }

    pub fn count(&self, topic: Topic) -> u32 {
        self.info(topic).spec.partitions
    }

    pub fn partition(&self, topic: Topic, partition: PartitionId) -> TopicPartition {
        TopicPartition { topic: self.id(topic), partition }
    }

    /// Every partition of a topic, in order.
    pub fn partitions(&self, topic: Topic) -> impl Iterator<Item = TopicPartition> + use<> {
        let id = self.id(topic);
        (0..self.count(topic)).map(move |partition| TopicPartition { topic: id, partition: PartitionId(partition) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::ManualClock;
    use crate::log::MemoryLog;

    #[test]
    fn a_namespace_of_before_a_topic_came_is_found_without_it_and_gets_it_when_served() {
        let log = MemoryLog::new(Arc::new(ManualClock::at(crate::domain::Millis(0))));
        let namespace = Namespace::new("shop").unwrap();
        let find = || Topics::find(&log, &namespace).unwrap();
        assert!(find().is_none());
        let specs = topics(&namespace, Partitions::default());
        specs
            .iter()
            .filter(|spec| !["corrections", "commands", "journal", "inbox", "schemas"].contains(&spec.name.topic()))
            .for_each(|spec| drop(log.create_topic(spec).unwrap()));
        let found = find().unwrap();
        assert_eq!((found.count(Topic::Events), found.count(Topic::Corrections)), (4, 0));
        assert_eq!(found.partitions(Topic::Corrections).count(), 0);
        Topics::create(&log, &namespace, Partitions::default()).unwrap();
        assert_eq!((find().unwrap().count(Topic::Corrections), find().unwrap().count(Topic::Schemas)), (4, 1));
    }

    #[test]
    fn an_inbox_is_there_once_it_is_asked_for_and_stays_as_it_was_made() {
        let log = MemoryLog::new(Arc::new(ManualClock::at(crate::domain::Millis(0))));
        let namespace = Namespace::new("shop").unwrap();
        let inboxes = |inbox| {
            let made = Topics::create(&log, &namespace, Partitions { inbox, ..Partitions::default() }).unwrap();
            (made.count(Topic::Inbox), Topics::find(&log, &namespace).unwrap().unwrap().count(Topic::Inbox))
        };
        assert_eq!([inboxes(0), inboxes(3), inboxes(0), inboxes(5)], [(0, 0), (3, 3), (3, 3), (3, 3)]);
    }
}
