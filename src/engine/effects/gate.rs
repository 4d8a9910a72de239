//! How far the fold and the journal have to be before anything is performed. Reads the log alone; whoever waits for it is elsewhere.

use super::Error;
use crate::domain::{Incarnation, Offset, PartitionId};
use crate::log::{Group, LogReader, TopicPartition};
use crate::stream::{Topic, Topics};

pub struct Gate {
    /// Who decides commands; without one there is nothing to wait for.
    fold: Option<Group>,
    /// The end of `commands` when this instance came.
    commands: Vec<(TopicPartition, Offset)>,
    /// The folder is a copy: an operator has to say first that the other one is not in use.
    held: Option<(Topics, Incarnation)>,
}

impl Gate {
    pub fn new(log: &dyn LogReader, topics: &Topics, fold: Option<Group>, copied: Option<Incarnation>) -> Result<Self, Error> {
        Self::of(log, topics, None, fold, copied)
    }

    /// The same for these partitions only.
    pub fn of(
        log: &dyn LogReader,
        topics: &Topics,
        partitions: Option<&[PartitionId]>,
        fold: Option<Group>,
        copied: Option<Incarnation>,
    ) -> Result<Self, Error> {
        let end = |partition: TopicPartition| Ok::<_, Error>((partition, log.watermarks(partition)?.end));
        let is_ours = |id: &TopicPartition| partitions.is_none_or(|some| some.contains(&id.partition));
        let commands = topics.partitions(Topic::Commands).filter(is_ours).map(end).collect::<Result<_, _>>()?;
        Ok(Self { fold, commands, held: copied.map(|copied| (topics.clone(), copied)) })
    }

    /// Whether an operator has still to say that nobody performs elsewhere.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Whether the fold has decided all that was handed in before, and nobody performs elsewhere.
    pub fn is_open(&mut self, log: &dyn LogReader) -> Result<bool, Error> {
        if let Some((topics, copied)) = &self.held {
            if crate::stream::released(log, topics)? < Some(*copied) {
                return Ok(false);
            }
            self.held = None;
        }
        let Some(fold) = &self.fold else { return Ok(true) };
        for (partition, end) in &self.commands {
            let decided = log.committed(fold, *partition)?.map_or(Offset(0), |committed| committed.offset);
            if decided < *end {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
