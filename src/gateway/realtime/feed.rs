//! One watcher's reading: from its position through the partitions that it may see, record by record, to messages with a position each.

use std::sync::Arc;

use serde_json::{Value, json};

use super::position::Position;
use crate::domain::{Millis, Offset, PartitionId, SubjectKey, TenantId, partition_of};
use crate::gateway::worlds::{World, place};
use crate::log::{self, LogReader, LogWriter, RecordRef};
use crate::schema;
use crate::schema::profile::ProfileRecord;
use crate::schema::records::{JournalRecord, SegmentChange};
use crate::workflow::RunId;

/// Read of a partition before the next one has its turn.
const FETCH_BYTES: usize = 64 * 1024;

const JOURNAL: usize = 0;
const PROFILES: usize = 1;
const SEGMENT_CHANGES: usize = 2;
const NAMES: [&str; 3] = ["journal", "profiles", "segment_changes"];

/// What a watcher may and wants to see.
#[derive(Debug)]
pub(super) struct Wanted {
    tenant: TenantId,
    topics: [bool; 3],
    subject: Option<SubjectKey>,
    /// The only partition that the subject is in.
    partition: Option<usize>,
}

impl Wanted {
    pub(super) fn new(world: &World, tenant: TenantId, topics: &[&str], subject: Option<SubjectKey>) -> Result<Self, String> {
        let mut chosen = [false; 3];
        for topic in topics {
            let at = NAMES.iter().position(|name| name == topic);
            chosen[at.ok_or_else(|| format!("there is no topic {topic:?} to watch; there are {}", NAMES.join(", ")))?] = true;
        }
        let partition = subject.as_ref().map(|key| partition_of(key.as_bytes(), world.journal.spec.partitions).0 as usize);
        Ok(Self { tenant, topics: chosen, subject, partition })
    }

    fn reads(&self, topic: usize, partition: usize) -> bool {
        self.topics[topic] && self.partition.is_none_or(|only| only == partition)
    }

    fn is_for(&self, key: &[u8]) -> bool {
        match &self.subject {
            Some(subject) => subject.as_bytes() == key,
            None => SubjectKey::parts(key).is_some_and(|parts| parts.tenant == self.tenant.as_str()),
        }
    }
}

/// A message, and what decides whether it is of a workflow.
#[derive(Debug)]
pub(super) struct Found {
    pub message: Value,
    pub run: Option<RunId>,
    /// The workflow that the fact itself names.
    pub starts: Option<String>,
    /// Where in its topic it is.
    pub place: (PartitionId, Offset),
}

pub(super) struct Feed {
    log: Arc<dyn LogWriter>,
    world: World,
    wanted: Wanted,
    position: Position,
    /// Records between the position and the ends, as of the last look.
    behind: u64,
}

impl Feed {
    pub(super) fn new(log: Arc<dyn LogWriter>, world: World, wanted: Wanted, position: Position) -> Result<Self, log::Error> {
        let mut feed = Self { log, world, wanted, position, behind: 0 };
        feed.behind = feed.look()?;
        Ok(feed)
    }

    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    pub(super) fn behind(&self) -> u64 {
        self.behind
    }

    fn look(&self) -> Result<u64, log::Error> {
        let mut behind = 0;
        for (topic, info) in self.world.watched().into_iter().enumerate() {
            for partition in (0..info.spec.partitions as usize).filter(|partition| self.wanted.reads(topic, *partition)) {
                let end = self.log.watermarks(place(info, PartitionId(partition as u32)))?.end;
                behind += end.0.saturating_sub(self.position.get(topic, partition).0);
            }
        }
        Ok(behind)
    }

    /// Some of what comes next, and whether there is more. What is of nobody here moves the position too.
    pub(super) fn read(&mut self) -> Result<(Vec<Found>, bool), String> {
        let mut found = Vec::new();
        let watched = self.world.watched().map(Clone::clone);
        for (topic, info) in watched.iter().enumerate() {
            for partition in 0..info.spec.partitions as usize {
                if self.wanted.reads(topic, partition) {
                    let at = place(info, PartitionId(partition as u32));
                    let log = Arc::clone(&self.log);
                    self.read_partition(&*log, topic, partition, at, &mut found)?;
                }
            }
        }
        self.behind = self.look().map_err(|error| error.to_string())?;
        Ok((found, self.behind > 0))
    }

    fn read_partition(
        &mut self,
        log: &dyn LogReader,
        topic: usize,
        partition: usize,
        at: log::TopicPartition,
        found: &mut Vec<Found>,
    ) -> Result<(), String> {
        let failed = |error: log::Error| error.to_string();
        let bounds = log.watermarks(at).map_err(failed)?;
        // What retention has taken, or compaction of everything before it.
        let from = self.position.get(topic, partition).max(bounds.start);
        if from >= bounds.end {
            return Ok(());
        }
        let fetched = log.fetch(at, from, FETCH_BYTES).map_err(failed)?;
        for record in fetched.records() {
            self.position.set(topic, partition, Offset(record.offset.0 + 1));
            if self.wanted.is_for(record.key)
                && let Some(mut one) = found_in(topic, PartitionId(partition as u32), &record)
                    .map_err(|error| format!("{}/{partition}/{}: {error}", NAMES[topic], record.offset.0))?
            {
                one.message["position"] = json!(self.position.to_string());
                found.push(one);
            }
        }
        self.position.set(topic, partition, fetched.next);
        Ok(())
    }
}

fn found_in(topic: usize, partition: PartitionId, record: &RecordRef<'_>) -> Result<Option<Found>, schema::Error> {
    let place = (partition, record.offset);
    let (Some(value), Some(key)) = (record.value, SubjectKey::parts(record.key)) else { return Ok(None) };
    match topic {
        JOURNAL => match schema::decode::<JournalRecord<'_>>(value)? {
            JournalRecord::Fact(fact) => {
                let body: Value = serde_json::from_str(fact.body).unwrap_or(Value::Null);
                let (kind, inner) = body.as_object().and_then(|object| object.iter().next()).map_or(("", &Value::Null), |(k, v)| (k, v));
                let starts = inner["workflow"].as_str().map(str::to_owned).filter(|_| matches!(kind, "run_started" | "run_skipped"));
                let message = json!({
                    "type": "fact", "at": Millis(fact.at).to_string(), "subject": key.subject, "run": Some(fact.run).filter(|run| !run.is_empty()),
                    "kind": kind, "fact": inner,
                });
                Ok(Some(Found { message, run: RunId::parse(fact.run), starts, place }))
            }
            JournalRecord::Time(_) | JournalRecord::Activated(_) => Ok(None),
        },
        PROFILES => {
            let profile = schema::decode::<ProfileRecord<'_>>(value)?;
            let mut shown = serde_json::to_value(&profile).unwrap_or(Value::Null);
            for field in ["traits", "consent"] {
                let inner = shown[field].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
                shown[field] = inner;
            }
            let message = json!({"type": "profile", "at": Millis(profile.as_of).to_string(), "subject": key.subject, "profile": shown});
            Ok(Some(Found { message, run: None, starts: None, place }))
        }
        SEGMENT_CHANGES => {
            let change = schema::decode::<SegmentChange<'_>>(value)?;
            let message = json!({
                "type": "segment_change", "at": Millis(change.at).to_string(), "subject": key.subject, "segment": change.segment,
                "entered": change.entered, "cause": change.cause, "late": change.late,
            });
            Ok(Some(Found { message, run: None, starts: None, place }))
        }
        _ => Ok(None),
    }
}
