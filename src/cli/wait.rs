//! `flywheel wait`: returns once everything acknowledged before the call is folded and in the read models.
//!
//! Looks at the folder's files only: what each stage has committed, what the read model holds. Each stage's goal is the end of its input
//! at the time the stage before it was done.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::exit::Exit;
use super::people::reader;
use crate::config::Config;
use crate::domain::{Namespace, Offset};
use crate::log::{Group, LogReader, TopicPartition};
use crate::projections::{self, PartitionStatus};
use crate::stream::{Topic, Topics};

/// Between two looks; a stage commits every few tens of milliseconds.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The topics that the read model is made of.
const PROJECTED: [Topic; 7] =
    [Topic::Identities, Topic::Events, Topic::Profiles, Topic::SegmentChanges, Topic::Corrections, Topic::DeadLetters, Topic::Outcomes];

pub async fn run(config: &Config, log: &dyn LogReader, namespace: &str, at_most: Duration) -> anyhow::Result<()> {
    let name = Namespace::new(namespace)?;
    let topics = Topics::find(log, &name)?.ok_or_else(|| Exit::not_found(format!("there is no namespace {namespace}")))?;
    let deadline = Instant::now() + at_most;
    for (stage, input) in [("intake", Topic::Intake), ("profiles", Topic::Events)] {
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
