//! Commands to subjects: appended, durable before any answer, and followed in the journal for as long as the caller cares to wait.

use std::time::Duration;

use tokio::time::Instant;

use super::became::{self, Asked, Became};
use crate::domain::{Millis, Namespace, Offset, SubjectKey};
use crate::gateway::reply::Refusal;
use crate::gateway::worlds::World;
use crate::gateway::{Gateway, ReadError};
use crate::log::{BatchBuilder, LogReader, TopicPartition, Transaction};
use crate::schema;
use crate::schema::records::{Command, CommandsRecord, JournalRecord};
use crate::workflow::{Fact, Input, RunId};

/// The longest that a request waits for a decision.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether a command that gave no fact has been decided.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const FETCH_BYTES: usize = 1 << 20;

/// A command that is in the log.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct Sent {
    pub key: SubjectKey,
    pub partition: TopicPartition,
    pub offset: Offset,
    /// Where its facts come at the earliest.
    pub journal: (TopicPartition, Offset),
    pub position: String,
}

/// A command and what came of it, as far as the wait went.
pub(in crate::gateway) struct Followed {
    pub became: Became,
    pub facts: Vec<Fact>,
    /// Whether the fold has decided it, so that nothing further comes of it.
    pub is_decided: bool,
}

impl Gateway {
    pub(in crate::gateway) fn world(&self, namespace: &Namespace) -> Result<&World, Refusal> {
        self.worlds.get(namespace).ok_or_else(|| Refusal::Missing(format!("namespace {namespace} that runs workflows")))
    }

    /// Appends commands to subjects in one transaction, and returns once they are durable.
    pub(in crate::gateway) async fn send_commands(
        &self,
        namespace: &Namespace,
        commands: &[(SubjectKey, Input)],
    ) -> Result<Vec<Sent>, Refusal> {
        let world = self.world(namespace)?;
        let now = self.app.clock.now();
        let mut builders: Vec<(TopicPartition, BatchBuilder, Vec<usize>)> = Vec::new();
        for (index, (key, input)) in commands.iter().enumerate() {
            let place = world.commands_of(key);
            let at = builders.iter().position(|(of, ..)| *of == place).unwrap_or_else(|| {
                builders.push((place, BatchBuilder::new(), Vec::new()));
                builders.len() - 1
            });
            push(&mut builders[at].1, key, input, now)?;
            builders[at].2.push(index);
        }
        let mut journals = Vec::with_capacity(builders.len());
        for (place, ..) in &builders {
            let journal = world.journal_of(*place);
            journals.push((journal, self.app.log.watermarks(journal)?.end));
        }
        let indexes: Vec<Vec<usize>> = builders.iter_mut().map(|(.., indexes)| std::mem::take(indexes)).collect();
        let places: Vec<TopicPartition> = builders.iter().map(|(place, ..)| *place).collect();
        let batches = builders.into_iter().map(|(place, builder, _)| (place, builder.build())).collect();
        let ticket = self.app.log.append(Transaction { batches, commits: Vec::new() })?;
        let appended = match tokio::time::timeout(self.app.options.commit_timeout(), ticket).await {
            Ok(appended) => appended?,
            Err(_) => return Err(Refusal::NotDurable),
        };
        let mut sent: Vec<Option<Sent>> = vec![None; commands.len()];
        for (batch, indexes) in indexes.into_iter().enumerate() {
            for (nth, index) in indexes.into_iter().enumerate() {
                let (partition, offset) = (places[batch], Offset(appended.first_offsets[batch].0 + nth as u64));
                let position = world.position(partition, offset);
                let key = commands[index].0.clone();
                sent[index] = Some(Sent { key, partition, offset, journal: journals[batch], position });
            }
        }
        Ok(sent.into_iter().flatten().collect())
    }

    /// Appends one.
    pub(in crate::gateway) async fn send_command(&self, namespace: &Namespace, key: SubjectKey, input: Input) -> Result<Sent, Refusal> {
        let mut sent = self.send_commands(namespace, &[(key, input)]).await?;
        sent.pop().ok_or_else(|| Refusal::ReadFailed("a command was appended and has no place".to_owned()))
    }

    /// Follows a command through the journal until it is decided or the time is up.
    pub(in crate::gateway) async fn follow(
        &self,
        namespace: &Namespace,
        sent: &Sent,
        run: RunId,
        asked: &Asked,
        wait: Duration,
    ) -> Result<Followed, Refusal> {
        let until = Instant::now() + wait.min(WAIT_MAX);
        let (journal, mut from) = sent.journal;
        let mut facts = Vec::new();
        loop {
            // Asked first: a decision that is known by now has its facts in the journal by now.
            let decided = self.app.campaigns.decided(namespace, sent.partition.partition).map_err(read_failed)?;
            let is_decided = decided > sent.offset;
            from = self.read_facts(journal, from, &sent.key, &mut facts).await?;
            let became = became::judge(asked, run, &facts);
            if became != Became::Nothing || is_decided || Instant::now() >= until {
                return Ok(Followed { is_decided: is_decided || became != Became::Nothing, became, facts });
            }
            tokio::time::sleep_until(until.min(Instant::now() + LOOK_EVERY)).await;
        }
    }

    /// Adds a subject's facts from `from` to the journal's end.
    async fn read_facts(&self, journal: TopicPartition, from: Offset, key: &SubjectKey, facts: &mut Vec<Fact>) -> Result<Offset, Refusal> {
        if self.app.log.watermarks(journal)?.end <= from {
            return Ok(from);
        }
        let (log, key) = (self.app.log.clone(), key.clone());
        let read = tokio::task::spawn_blocking(move || facts_of(&*log, journal, from, &key)).await;
        let (found, next) = read.map_err(|error| Refusal::ReadFailed(error.to_string()))??;
        facts.extend(found);
        Ok(next)
    }
}

fn push(builder: &mut BatchBuilder, key: &SubjectKey, input: &Input, now: Millis) -> Result<(), Refusal> {
    let value = serde_json::to_value(input).map_err(|error| Refusal::InvalidRequest(error.to_string()))?;
    let kind = value.as_object().and_then(|object| object.keys().next()).cloned().unwrap_or_default();
    let body = value.to_string();
    let record = CommandsRecord::Command(Command { kind: &kind, at: None, depth: 0, body: &body });
    builder
        .push_with(key.as_bytes(), now, |out| schema::encode(&record, out))
        .map_err(|error| Refusal::InvalidRequest(error.to_string()))
        .map(drop)
}

fn facts_of(log: &dyn LogReader, journal: TopicPartition, from: Offset, key: &SubjectKey) -> Result<(Vec<Fact>, Offset), Refusal> {
    let mut facts = Vec::new();
    let mut next = from;
    let end = log.watermarks(journal)?.end;
    while next < end {
        let fetched = log.fetch(journal, next, FETCH_BYTES)?;
        for record in fetched.records().filter(|record| record.key == key.as_bytes()) {
            let Some(value) = record.value else { continue };
            facts.extend(fact_of(value)?);
        }
        next = fetched.next;
    }
    Ok((facts, next))
}

/// The fact of a journal record; none if it is about nobody.
pub(in crate::gateway) fn fact_of(value: &[u8]) -> Result<Option<Fact>, Refusal> {
    let broken = |error: String| Refusal::ReadFailed(format!("a journal record: {error}"));
    match schema::decode::<JournalRecord<'_>>(value).map_err(|error| broken(error.to_string()))? {
        JournalRecord::Fact(fact) => {
            Fact::from_parts(Millis(fact.at), fact.run, fact.body).map(Some).map_err(|error| broken(error.to_string()))
        }
        JournalRecord::Time(_) | JournalRecord::Activated(_) => Ok(None),
    }
}

pub(in crate::gateway) fn read_failed(error: ReadError) -> Refusal {
    match error {
        ReadError::NotYet => Refusal::Starting,
        ReadError::Failed(why) => Refusal::ReadFailed(why),
    }
}
