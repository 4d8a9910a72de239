//! Commands to subjects: appended, durable before any answer, and followed in the journal for as long as the caller cares to wait.

use std::time::Duration;

use tokio::time::Instant;

use super::became::{self, Asked, Became};
use crate::domain::{Millis, Namespace, Offset, PartitionId, SubjectKey, TenantId};
use crate::gateway::reply::Refusal;
use crate::gateway::worlds::{World, place};
use crate::gateway::{Gateway, ReadError};
use crate::log::{BatchBuilder, LogReader, TopicPartition, Transaction};
use crate::schema;
use crate::schema::records::{Activated, Command, CommandsRecord, JournalRecord};
use crate::workflow::{Fact, Input, RunId, What};

/// The longest that a request waits for a decision.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether a command that gave no fact has been decided.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a publishing request waits until new entries go to what it published.
const IN_FORCE_WAIT: Duration = Duration::from_secs(10);
pub(super) const FETCH_BYTES: usize = 1 << 20;

/// A partition, up to where it was read, and what it has not heard of.
type Lacking = (TopicPartition, Offset, Vec<Published>);

/// A definition that the fold is to hear of.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub kind: &'static str,
    pub of: Option<TenantId>,
    pub name: String,
    /// Empty: it was retired.
    pub digest: String,
}

impl Published {
    fn is(&self, heard: &Activated<'_>) -> bool {
        let of = self.of.as_ref().map_or("", TenantId::as_str);
        (self.kind, of, self.name.as_str(), self.digest.as_str()) == (heard.kind, heard.tenant, heard.name, heard.digest)
    }
}

/// A command that is in the log.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct Sent {
    pub key: SubjectKey,
    pub partition: TopicPartition,
    pub offset: Offset,
    /// Where its facts come at the earliest.
    pub journal: (TopicPartition, Offset),
    pub position: String,
    pub kind: &'static str,
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
                let (key, kind) = (commands[index].0.clone(), commands[index].1.kind());
                sent[index] = Some(Sent { key, partition, offset, journal: journals[batch], position, kind });
            }
        }
        Ok(sent.into_iter().flatten().collect())
    }

    /// Appends one.
    pub(in crate::gateway) async fn send_command(&self, namespace: &Namespace, key: SubjectKey, input: Input) -> Result<Sent, Refusal> {
        let mut sent = self.send_commands(namespace, &[(key, input)]).await?;
        sent.pop().ok_or_else(|| Refusal::ReadFailed("a command was appended and has no place".to_owned()))
    }

    /// Waits until the fold has decided these; false if the time is up first.
    pub(in crate::gateway) async fn decided(&self, namespace: &Namespace, sent: &[Sent], wait: Duration) -> Result<bool, Refusal> {
        let until = Instant::now() + wait.min(WAIT_MAX);
        for one in sent {
            while self.app.campaigns.decided(namespace, one.partition.partition).map_err(read_failed)? <= one.offset {
                if Instant::now() >= until {
                    return Ok(false);
                }
                tokio::time::sleep_until(until.min(Instant::now() + LOOK_EVERY)).await;
            }
        }
        Ok(true)
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
            let is_over = is_decided && !is_held(&facts, sent.kind);
            if became != Became::Nothing || is_over || Instant::now() >= until {
                return Ok(Followed { is_decided: is_over || became != Became::Nothing, became, facts });
            }
            tokio::time::sleep_until(until.min(Instant::now() + LOOK_EVERY)).await;
        }
    }

    /// Where the journal ends now, partition by partition.
    pub(super) fn journal_ends(&self, namespace: &Namespace) -> Result<Vec<(TopicPartition, Offset)>, Refusal> {
        let journal = &self.world(namespace)?.journal;
        let partitions = (0..journal.spec.partitions).map(|partition| place(journal, PartitionId(partition)));
        partitions.map(|partition| Ok((partition, self.app.log.watermarks(partition)?.end))).collect()
    }

    /// Waits until every partition of the fold has heard of these definitions, from the given ends on; false if the time is up first.
    pub(super) async fn in_force(&self, ends: Vec<(TopicPartition, Offset)>, what: &[Published]) -> Result<bool, Refusal> {
        let until = Instant::now() + IN_FORCE_WAIT;
        let mut lacking: Vec<Lacking> = ends.into_iter().map(|(partition, end)| (partition, end, what.to_vec())).collect();
        loop {
            for (partition, from, what) in &mut lacking {
                *from = self.read_activated(*partition, *from, what).await?;
            }
            lacking.retain(|(.., what)| !what.is_empty());
            if lacking.is_empty() || Instant::now() >= until {
                return Ok(lacking.is_empty());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn read_activated(&self, partition: TopicPartition, from: Offset, what: &mut Vec<Published>) -> Result<Offset, Refusal> {
        let end = self.app.log.watermarks(partition)?.end;
        let mut next = from;
        while next < end && !what.is_empty() {
            let log = self.app.log.clone();
            let fetched = tokio::task::spawn_blocking(move || log.fetch(partition, next, FETCH_BYTES)).await;
            let fetched = fetched.map_err(|error| Refusal::ReadFailed(error.to_string()))??;
            for value in fetched.records().filter(|record| record.key.is_empty()).filter_map(|record| record.value) {
                if let Ok(JournalRecord::Activated(activated)) = schema::decode(value) {
                    what.retain(|published| !published.is(&activated));
                }
            }
            next = fetched.next;
        }
        Ok(next)
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

/// Whether something of this kind is kept until an answer comes, so that it is yet to be decided.
fn is_held(facts: &[Fact], kind: &str) -> bool {
    let held = facts.iter().filter(|fact| matches!(&fact.what, What::Held { input, .. } if input.kind() == kind)).count();
    let over = facts.iter().filter(|fact| matches!(&fact.what, What::HeldRejected { kind: of, .. } if of == kind)).count();
    held > over
}

fn push(builder: &mut BatchBuilder, key: &SubjectKey, input: &Input, now: Millis) -> Result<(), Refusal> {
    let body = serde_json::to_string(input).map_err(|error| Refusal::InvalidRequest(error.to_string()))?;
    let record = CommandsRecord::Command(Command { kind: input.kind(), at: None, depth: 0, body: &body });
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
