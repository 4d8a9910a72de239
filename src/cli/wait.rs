//! `flywheel wait`: returns once everything acknowledged before the call is folded and in the read models.
//!
//! Looks at the folder's files only: what each stage has committed, what the read model holds. Each stage's goal is the end of its input
//! at the time the stage before it was done.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::exit::Exit;
use super::people::reader;
use super::{run, trace};
use crate::config::Config;
use crate::domain::{Namespace, Offset};
use crate::log::{Group, LogReader, TopicPartition};
use crate::projections::{self, PartitionStatus};
use crate::stream::{Topic, Topics};

/// Between two looks; a stage commits every few tens of milliseconds.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How often a query looks before it says that SQL is behind.
const LOOKS_MAX: u32 = 15;

/// The topics that the read model is made of.
const PROJECTED: [Topic; 9] = [
    Topic::Identities,
    Topic::Events,
    Topic::Profiles,
    Topic::SegmentChanges,
    Topic::Corrections,
    Topic::DeadLetters,
    Topic::Outcomes,
    Topic::Journal,
    Topic::Definitions,
];

pub async fn run(config: &Config, log: &dyn LogReader, namespace: &str, at_most: Duration) -> anyhow::Result<()> {
    let name = Namespace::new(namespace)?;
    let topics = Topics::find(log, &name)?.ok_or_else(|| Exit::not_found(format!("there is no namespace {namespace}")))?;
    let deadline = Instant::now() + at_most;
    let stages = [("decoder", Topic::Inbox), ("intake", Topic::Intake), ("profiles", Topic::Events), ("workflows", Topic::Commands)];
    for (stage, input) in stages {
        let goals = ends(log, &topics, input)?;
        let group = Group(format!("{name}.{stage}").into());
        until(deadline, &format!("the {stage} fold"), async || {
            for (partition, end) in &goals {
                let committed = log.committed(&group, *partition)?.map_or(Offset(0), |committed| committed.offset);
                if committed < *end {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await?;
    }
    let reader = reader(config, namespace)?;
    for topic in PROJECTED {
        let goals = ends(log, &topics, topic)?;
        until(deadline, &format!("the read model of {}", topic.as_str()), async || {
            let status = match reader.status().await {
                // A folder just restored or upgraded has none for a moment: the server is making it.
                Err(projections::Error::Missing(_)) => return Ok(goals.iter().all(|(_, end)| *end == Offset(0))),
                status => status?,
            };
            let applied = |partition: u32| {
                // Rows of another life of the log are about to be replaced.
                let is_it = |row: &&PartitionStatus| {
                    row.topic == topic.as_str() && row.partition == partition && row.incarnation == topics.incarnation(topic)
                };
                let found = status.iter().find(is_it);
                found.map_or(Offset(0), |row| row.next_offset)
            };
            Ok(goals.iter().all(|(partition, end)| applied(partition.partition.0) >= *end))
        })
        .await?;
    }
    Ok(())
}

/// How many records are acknowledged and not in SQL. What comes in while this looks does not count: a server at work is always a tick behind.
pub async fn behind(config: &Config, namespace: &Namespace) -> anyhow::Result<u64> {
    let log = run::reader(config)?;
    let Some(topics) = Topics::find(&*log, namespace)? else { return Ok(0) };
    let mut goals = vec![(Topic::Inbox, ends(&*log, &topics, Topic::Inbox)?), (Topic::Intake, ends(&*log, &topics, Topic::Intake)?)];
    for topic in PROJECTED {
        goals.push((topic, ends(&*log, &topics, topic)?));
    }
    let reader = reader(config, namespace.as_str())?;
    let mut left = 0;
    for look in 0..LOOKS_MAX {
        if look > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let status = reader.status().await?;
        let inbox = trace::committed(&*log, &topics, "decoder", Topic::Inbox)?;
        let intake = trace::committed(&*log, &topics, "intake", Topic::Intake)?;
        left = 0;
        for (topic, ends) in &goals {
            for (partition, end) in ends {
                let at = partition.partition.0;
                let is_it = |row: &&PartitionStatus| {
                    row.topic == topic.as_str() && row.partition == at && row.incarnation == topics.incarnation(*topic)
                };
                let next = match topic {
                    Topic::Inbox => inbox.get(at as usize).copied(),
                    Topic::Intake => intake.get(at as usize).copied(),
                    _ => status.iter().find(is_it).map(|row| row.next_offset),
                };
                let start = log.watermarks(*partition)?.start;
                left += end.0.saturating_sub(next.unwrap_or(Offset(0)).max(start).0);
            }
        }
        if left == 0 {
            break;
        }
    }
    Ok(left)
}

fn ends(log: &dyn LogReader, topics: &Topics, topic: Topic) -> anyhow::Result<Vec<(TopicPartition, Offset)>> {
    topics.partitions(topic).map(|partition| Ok((partition, log.watermarks(partition)?.end))).collect()
}

async fn until(deadline: Instant, what: &str, mut reached: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    while !reached().await? {
        if Instant::now() >= deadline {
            bail!("{what} is not there yet; is a server running on this folder?");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
