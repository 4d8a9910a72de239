//! Dead letters: listed, and sent again once whatever refused them is fixed.
//!
//! A record that failed in intake goes to `intake` again, one that failed in the profile fold to `events`, either marked with the position
//! it had: dedup, the profile fold and the read models tell a copy from its original by that. A command goes to `commands` as it was, a foreign
//! producer's record to `inbox` as it was, with the position in a header.
//! Nothing goes twice: what was sent again before is found in the topic and left alone.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::each_record;
use crate::domain::{KeyParts, Millis, Namespace, Offset, PartitionId, SubjectKey, partition_of};
use crate::log::{BatchBuilder, HeaderList, Headers, LogReader, Transaction};
use crate::schema;
use crate::schema::records::{CommandsRecord, DeadLetter, EventsRecord, IntakeRecord, Origin};
use crate::stream::{Error, Topic, Topics};

/// A dead letter and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    pub partition: PartitionId,
    pub offset: Offset,
    pub key: Bytes,
    /// The topic it failed in.
    pub topic: String,
    pub origin: Origin,
    pub stage: String,
    pub reason: String,
    pub detail: String,
    pub message_id: String,
    pub at: Millis,
    pub value: Bytes,
    /// Of a foreign producer's record.
    pub headers: HeaderList,
}

/// Of a record of `inbox` that is sent again: the position it first had, as `incarnation/partition/offset`.
const REDRIVEN_HEADER: &str = "flywheel-redriven-from";

/// Which letters to send again; a field that is `None` takes all.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub stage: Option<String>,
    pub reason: Option<String>,
    pub message_id: Option<String>,
    pub place: Option<Place>,
}

/// One letter by where it is, or by where its record was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In `dead_letters`.
    Letter(PartitionId, Offset),
    /// In the topic it failed in.
    Origin(String, PartitionId, Offset),
}

impl Place {
    fn is_of(&self, letter: &Letter) -> bool {
        match self {
            Place::Letter(partition, offset) => (letter.partition, letter.offset) == (*partition, *offset),
            Place::Origin(topic, partition, offset) => {
                let origin = (i64::from(letter.origin.partition), letter.origin.offset);
                letter.topic == *topic && origin == (i64::from(partition.0), offset.0 as i64)
            }
        }
    }
}

impl Selection {
    pub fn takes(&self, letter: &Letter) -> bool {
        let is = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        is(&self.stage, &letter.stage)
            && is(&self.reason, &letter.reason)
            && is(&self.message_id, &letter.message_id)
            && self.place.as_ref().is_none_or(|place| place.is_of(letter))
    }
}

/// What became of the letters that were selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Redriven {
    pub sent: u64,
    /// Sent again before.
    pub already: u64,
    /// Cannot be sent again: not the bytes of any record, or of one about nobody.
    pub hopeless: u64,
}

/// Visits every dead letter, partition by partition, oldest first.
pub fn letters(log: &dyn LogReader, topics: &Topics, mut visit: impl FnMut(Letter)) -> Result<(), Error> {
    for partition in topics.partitions(Topic::DeadLetters) {
        each_record(log, partition, None, |record| {
            let letter: DeadLetter<'_> = schema::decode(record.value.unwrap_or_default())?;
            visit(Letter {
                partition: partition.partition,
                offset: record.offset,
                key: Bytes::copy_from_slice(record.key),
                topic: letter.topic.to_owned(),
                origin: letter.origin,
                stage: letter.stage.to_owned(),
                reason: letter.reason.to_owned(),
                detail: letter.detail.to_owned(),
                message_id: letter.message_id.to_owned(),
                at: Millis(letter.at),
                value: Bytes::copy_from_slice(letter.value),
                headers: Headers::from_encoded(letter.headers).into(),
            });
            Ok(())
        })?;
    }
    Ok(())
}

/// A letter's record on its way back into the topic it failed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    pub topic: Topic,
    pub partition: PartitionId,
    pub key: Bytes,
    pub value: Bytes,
    pub timestamp: Millis,
    pub headers: HeaderList,
}

/// Sends the selected letters again through `send`, which appends one record durably: to this log, or through the server that owns it.
pub fn redrive(
    log: &dyn LogReader,
    namespace: &Namespace,
    selection: &Selection,
    send: &mut dyn FnMut(Again) -> Result<(), Error>,
) -> Result<Redriven, Error> {
    let Some(topics) = Topics::find(log, namespace)? else { return Ok(Redriven::default()) };
    let mut selected = Vec::new();
    letters(log, &topics, |letter| {
        if selection.takes(&letter) {
            selected.push(letter);
        }
    })?;
    let Some(since) = selected.iter().map(|letter| letter.at).min() else { return Ok(Redriven::default()) };
    let mut sent = sent_before(log, &topics, since)?;
    if is_trimmed(log, &topics, since)? {
        add_applied(log, &topics, &selected, since, &mut sent)?;
    }
    let mut redriven = Redriven::default();
    for letter in selected {
        if sent.contains(&(letter.topic.clone(), letter.origin)) {
            redriven.already += 1;
            continue;
        }
        match again(&topics, letter)? {
            None => redriven.hopeless += 1,
            Some(record) => {
                send(record)?;
                redriven.sent += 1;
            }
        }
    }
    Ok(redriven)
}

/// The transaction that appends one record again.
pub fn transaction(topics: &Topics, record: &Again) -> Transaction {
    let mut batch = BatchBuilder::new();
    batch.push_headed(&record.key, Some(&record.value), record.timestamp, record.headers.as_headers());
    Transaction { batches: vec![(topics.partition(record.topic, record.partition), batch.build())], commits: Vec::new() }
}

fn again(topics: &Topics, letter: Letter) -> Result<Option<Again>, Error> {
    if letter.topic == Topic::Inbox.as_str() {
        return Ok(to_inbox(topics, letter));
    }
    let topics_of = [Topic::Intake, Topic::Commands];
    let topic = topics_of.into_iter().find(|topic| letter.topic == topic.as_str()).unwrap_or(Topic::Events);
    let (timestamp, value) = match topic {
        Topic::Intake => {
            let Ok(IntakeRecord::Item(mut item)) = schema::decode(&letter.value) else { return Ok(None) };
            item.redriven_from = Some(letter.origin);
            let received_at = Millis(item.received_at);
            let mut value = Vec::new();
            schema::encode(&IntakeRecord::Item(item), &mut value)?;
            (received_at, Bytes::from(value))
        }
        Topic::Commands => match schema::decode(&letter.value) {
            Ok(CommandsRecord::Command(_)) => (letter.at, letter.value.clone()),
            _ => return Ok(None),
        },
        _ => {
            let Ok(mut record) = schema::decode::<EventsRecord<'_>>(&letter.value) else { return Ok(None) };
            if !record.redrive_from(letter.origin) {
                return Ok(None);
            }
            let mut value = Vec::new();
            schema::encode(&record, &mut value)?;
            (Millis(record.at()), Bytes::from(value))
        }
    };
    let partition = partition_of(&letter.key, topics.count(topic));
    Ok(Some(Again { topic, partition, key: letter.key, value, timestamp, headers: HeaderList::default() }))
}

/// As it was: its partition is its producer's business. `None` if its headers leave no room for the mark.
fn to_inbox(topics: &Topics, letter: Letter) -> Option<Again> {
    let partition = PartitionId(letter.origin.partition as u32 % topics.count(Topic::Inbox).max(1));
    let mut headers = letter.headers;
    headers.push(REDRIVEN_HEADER, Some(redriven_mark(letter.origin).as_bytes())).ok()?;
    Some(Again { topic: Topic::Inbox, partition, key: letter.key, value: letter.value, timestamp: letter.at, headers })
}

fn redriven_mark(origin: Origin) -> String {
    format!("{}/{}/{}", origin.incarnation, origin.partition, origin.offset)
}

fn redriven_origin(mark: &[u8]) -> Option<Origin> {
    let mut parts = std::str::from_utf8(mark).ok()?.split('/');
    let origin =
        Origin { incarnation: parts.next()?.parse().ok()?, partition: parts.next()?.parse().ok()?, offset: parts.next()?.parse().ok()? };
    parts.next().is_none().then_some(origin)
}

/// Whether `intake` no longer reaches back to `since`, so that what was sent again may be gone from it.
fn is_trimmed(log: &dyn LogReader, topics: &Topics, since: Millis) -> Result<bool, Error> {
    for partition in topics.partitions(Topic::Intake) {
        let start = log.watermarks(partition)?.start;
        if start > Offset(0) && log.offset_at(partition, since)? <= start {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Adds the letters of `intake` whose message was applied after them: `events` keeps what became of it for ever.
fn add_applied(
    log: &dyn LogReader,
    topics: &Topics,
    selected: &[Letter],
    since: Millis,
    sent: &mut BTreeSet<(String, Origin)>,
) -> Result<(), Error> {
    let mut wanted: BTreeMap<(&str, &str), Vec<(KeyParts<'_>, &Letter)>> = BTreeMap::new();
    for letter in selected.iter().filter(|letter| letter.topic == Topic::Intake.as_str() && !letter.message_id.is_empty()) {
        let Some(key) = SubjectKey::parts(&letter.key) else { continue };
        wanted.entry((key.tenant, &letter.message_id)).or_default().push((key, letter));
    }
    for partition in topics.partitions(Topic::Events) {
        let from = log.offset_at(partition, since)?;
        each_record(log, partition, Some(from), |record| {
            let Ok(EventsRecord::Event(event)) = schema::decode(record.value.unwrap_or_default()) else { return Ok(()) };
            let Some(KeyParts { tenant, .. }) = SubjectKey::parts(record.key) else { return Ok(()) };
            for (key, letter) in wanted.get(&(tenant, event.message_id)).into_iter().flatten() {
                // Message ids are told apart by key: the same one on another device is another message.
                if key.id == if key.is_user { event.user_id } else { event.anonymous_id } {
                    sent.insert((letter.topic.clone(), letter.origin));
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// What was sent again since then: (topic, position it had). Commands, and copies in `events` of schema version 1, carry no mark and are told
/// by their bytes, which are those of the letter.
fn sent_before(log: &dyn LogReader, topics: &Topics, since: Millis) -> Result<BTreeSet<(String, Origin)>, Error> {
    let mut sent = BTreeSet::new();
    for partition in topics.partitions(Topic::Intake) {
        let from = log.offset_at(partition, since)?;
        each_record(log, partition, Some(from), |record| {
            if let Ok(IntakeRecord::Item(item)) = schema::decode(record.value.unwrap_or_default())
                && let Some(origin) = item.redriven_from
            {
                sent.insert((Topic::Intake.as_str().to_owned(), origin));
            }
            Ok(())
        })?;
    }
    for partition in topics.partitions(Topic::Inbox) {
        let from = log.offset_at(partition, since)?;
        each_record(log, partition, Some(from), |record| {
            let mark = record.headers.last(REDRIVEN_HEADER).flatten();
            sent.extend(mark.and_then(redriven_origin).map(|origin| (Topic::Inbox.as_str().to_owned(), origin)));
            Ok(())
        })?;
    }
    for topic in [Topic::Events, Topic::Commands] {
        sent_before_to(log, topics, topic, since, &mut sent)?;
    }
    Ok(sent)
}

fn sent_before_to(
    log: &dyn LogReader,
    topics: &Topics,
    topic: Topic,
    since: Millis,
    sent: &mut BTreeSet<(String, Origin)>,
) -> Result<(), Error> {
    let mut failed: BTreeSet<(Origin, Bytes, Bytes)> = BTreeSet::new();
    letters(log, topics, |letter| {
        if letter.topic == topic.as_str() {
            failed.insert((letter.origin, letter.key, letter.value));
        }
    })?;
    if failed.is_empty() {
        return Ok(());
    }
    let incarnation = topics.incarnation(topic).0 as i32;
    for partition in topics.partitions(topic) {
        let from = log.offset_at(partition, since)?;
        each_record(log, partition, Some(from), |record| {
            let here = Origin { incarnation, partition: partition.partition.0 as i32, offset: record.offset.0 as i64 };
            let value = record.value.unwrap_or_default();
            if topic == Topic::Events
                && let Ok(record) = schema::decode::<EventsRecord<'_>>(value)
                && let Some(origin) = record.redriven_from()
            {
                sent.insert((topic.as_str().to_owned(), origin));
            }
            for (origin, key, kept) in &failed {
                if kept == value && key == record.key && *origin != here {
                    sent.insert((topic.as_str().to_owned(), *origin));
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}
