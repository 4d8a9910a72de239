//! Where a watcher is: the next offset of every partition that it may see, as a token that it hands back after a reconnect.
//!
//! `j1:12-40-3.p1:7-0-2.s1:0-0-1`: per topic its incarnation and offsets. A token of another incarnation is refused, never guessed at.

use std::fmt;

use crate::domain::{Incarnation, Offset, PartitionId};
use crate::gateway::worlds::{World, place};
use crate::log::{self, LogReader};

const LETTERS: [char; 3] = ['j', 'p', 's'];

/// By topic as [`World::watched`] has them, then by partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    topics: [(Incarnation, Vec<Offset>); 3],
}

impl Position {
    /// The present: what comes from here on is new.
    pub(super) fn end(log: &dyn LogReader, world: &World) -> Result<Self, log::Error> {
        let mut topics = [(); 3].map(|()| (Incarnation(0), Vec::new()));
        for (at, topic) in world.watched().into_iter().enumerate() {
            let ends = (0..topic.spec.partitions).map(|partition| Ok(log.watermarks(place(topic, PartitionId(partition)))?.end));
            topics[at] = (topic.incarnation, ends.collect::<Result<_, log::Error>>()?);
        }
        Ok(Self { topics })
    }

    pub(super) fn parse(text: &str, world: &World) -> Result<Self, String> {
        let broken = || format!("from={:?} is no position", text.chars().take(80).collect::<String>());
        let mut parts = text.split('.');
        let mut topics = [(); 3].map(|()| (Incarnation(0), Vec::new()));
        for ((letter, slot), topic) in LETTERS.into_iter().zip(&mut topics).zip(world.watched()) {
            let part = parts.next().and_then(|part| part.strip_prefix(letter)).ok_or_else(broken)?;
            let (incarnation, offsets) = part.split_once(':').ok_or_else(broken)?;
            let incarnation = Incarnation(incarnation.parse().map_err(|_| broken())?);
            let offsets: Result<Vec<Offset>, String> =
                offsets.split('-').map(|offset| offset.parse().map(Offset).map_err(|_| broken())).collect();
            let offsets = offsets?;
            if incarnation != topic.incarnation || offsets.len() != topic.spec.partitions as usize {
                return Err("that position is of another incarnation of the log; begin anew, without `from`".to_owned());
            }
            *slot = (incarnation, offsets);
        }
        if parts.next().is_some() { Err(broken()) } else { Ok(Self { topics }) }
    }

    pub(super) fn get(&self, topic: usize, partition: usize) -> Offset {
        self.topics[topic].1[partition]
    }

    pub(super) fn set(&mut self, topic: usize, partition: usize, next: Offset) {
        self.topics[topic].1[partition] = next;
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (letter, (incarnation, offsets))) in LETTERS.iter().zip(&self.topics).enumerate() {
            let dot = if at == 0 { "" } else { "." };
            write!(f, "{dot}{letter}{}:", incarnation.0)?;
            for (at, offset) in offsets.iter().enumerate() {
                let dash = if at == 0 { "" } else { "-" };
                write!(f, "{dash}{}", offset.0)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Namespace;
    use crate::log::{Cleanup, Retention, TopicId, TopicInfo, TopicName, TopicSpec};

    fn world(incarnation: u32) -> World {
        let topic = |id: u32, name: &str| {
            let name = TopicName::new(&Namespace::new("main").unwrap(), name);
            let spec = TopicSpec { name, partitions: 2, retention: Retention::Forever, cleanup: Cleanup::Delete };
            TopicInfo { id: TopicId(id), spec, incarnation: Incarnation(incarnation) }
        };
        World {
            events: topic(4, "events"),
            commands: topic(0, "commands"),
            journal: topic(1, "journal"),
            profiles: topic(2, "profiles"),
            segment_changes: topic(3, "s"),
        }
    }

    #[test]
    fn a_token_is_read_as_it_was_written_and_by_its_own_log_only() {
        let text = "j1:12-40.p1:7-0.s1:0-18446744073709551615";
        let mut position = Position::parse(text, &world(1)).unwrap();
        assert_eq!(position.to_string(), text);
        position.set(1, 1, Offset(3));
        assert_eq!((position.get(1, 1), position.to_string().as_str()), (Offset(3), "j1:12-40.p1:7-3.s1:0-18446744073709551615"));
        assert!(Position::parse(text, &world(2)).unwrap_err().contains("incarnation"));
        for wrong in [
            "",
            "j1:1-2",
            "j1:1-2.p1:1-2.s1:1",
            "j1:1-2.p1:1-2.s1:1-x",
            "p1:1-2.j1:1-2.s1:1-2",
            "j1:1-2.p1:1-2.s1:1-2.s1:1-2",
            "j:1-2.p1:1-2.s1:1-2",
        ] {
            assert!(Position::parse(wrong, &world(1)).is_err(), "{wrong}");
        }
    }
}
