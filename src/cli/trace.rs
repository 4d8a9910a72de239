//! `flywheel trace`: where a message went, or the messages of a person: every stage, what came of it there, and the position.
//!
//! The read model tells what it has. What is acknowledged and not there yet is looked for in the log, behind what each stage has
//! committed, so that an event is never told to be missing that is only under way.

use serde_json::{Value, json};

use super::args;
use super::exit::Exit;
use super::output::{Rows, note};
use super::people;
use super::run;
use crate::config::Config;
use crate::domain::{Millis, Namespace, Offset, PartitionId, Subject, TenantId};
use crate::log::{Group, LogReader, RecordRef, TopicPartition};
use crate::projections::{self, PartitionStatus, Reader, Trace, TracedEvent, TracedOutcome};
use crate::schema;
use crate::schema::records::{EventsRecord, IntakeRecord};
use crate::stream::{Topic, Topics};

/// Bytes per fetch.
const FETCH_BYTES: usize = 1024 * 1024;

pub async fn run(config: &Config, asked: &args::Trace, json: bool) -> anyhow::Result<()> {
    let namespace = Namespace::new(&asked.at.namespace)?;
    let log = run::reader(config)?;
    let topics = Topics::find(&*log, &namespace)?.ok_or_else(|| Exit::not_found(format!("there is no namespace {namespace}")))?;
    let reader = people::reader(config, namespace.as_str())?;
    let tenant = people::tenant(config, &reader, namespace.as_str(), asked.tenant.as_deref()).await?;
    let wanted = Wanted::new(&tenant, &asked.what);
    // Where the stages are is asked first: what they finish meanwhile is then told twice at most, and never left out.
    let waiting = wanted.in_intake(&*log, &topics)?;
    let folded = committed(&*log, &topics, "profiles", Topic::Events)?;
    let projected = projected(&reader, &topics).await?;
    let mut found = match reader.trace(&tenant, &asked.what).await {
        Err(projections::Error::Missing(_)) => Trace::default(),
        found => found?,
    };
    let unread = wanted.in_events(&*log, &topics, &projected)?;
    for event in unread {
        if !found.events.iter().any(|known| known.events == event.events) {
            found.events.push(event);
        }
    }
    if let Some(user) = people::user_of_device(&reader, &tenant, &asked.what).await? {
        note!(
            "the device {} has become u:{user}: `flywheel trace u:{user}` shows everything of theirs",
            asked.what.trim_start_matches("a:")
        );
        if found.is_empty() {
            found = reader.trace(&tenant, &format!("u:{user}")).await?;
        }
    }
    if found.is_empty() && waiting.is_empty() {
        let others = people::other_tenants(config, &reader, namespace.as_str(), &tenant).await?;
        return Err(Exit::not_found(format!(
            "no message or person {:?} in namespace {namespace} of tenant {tenant}; --namespace and --tenant name others, and what was \
             refused a moment ago shows up once it is in the read models (`flywheel wait`){others}",
            asked.what
        )));
    }
    rows(&found, &waiting, &folded).print(json);
    Ok(())
}

fn rows(found: &Trace, waiting: &[Waiting], folded: &[Offset]) -> Rows {
    let mut rows = Rows::new(&["time", "message_id", "stage", "outcome", "reason", "position", "what"]);
    for event in &found.events {
        for row in steps_of(event, found, folded) {
            rows.push(row);
        }
    }
    // A dead letter is in the outcomes too; its own row says why.
    let is_told = |outcome: &TracedOutcome| {
        let same = |letter: &TracedOutcome| {
            (&letter.stage, letter.partition, letter.offset) == (&outcome.stage, outcome.partition, outcome.offset)
        };
        found.dead_letters.iter().any(same)
    };
    for outcome in found.outcomes.iter().filter(|outcome| !is_told(outcome)).chain(&found.dead_letters) {
        rows.push(outcome_row(outcome));
    }
    for one in waiting {
        let position = format!("intake/{}/{}", one.partition, one.offset);
        let what = json!("acknowledged, waiting to be folded");
        rows.push(vec![
            json!(one.received_at.to_string()),
            json!(one.message_id),
            json!("intake"),
            json!("waiting"),
            Value::Null,
            json!(position),
            what,
        ]);
    }
    rows
}

fn steps_of(event: &TracedEvent, found: &Trace, folded: &[Offset]) -> Vec<Vec<Value>> {
    let who = match (&event.user_id, &event.anonymous_id) {
        (Some(user), _) => format!("u:{user}"),
        (None, Some(device)) => format!("a:{device}"),
        (None, None) => String::new(),
    };
    let row = |time: Millis, stage: &str, outcome: &str, position: Option<String>, what: String| {
        vec![json!(time.to_string()), json!(event.message_id), json!(stage), json!(outcome), Value::Null, json!(position), json!(what)]
    };
    let place = |topic: &str, (partition, offset): (u32, u64)| Some(format!("{topic}/{partition}/{offset}"));
    let mut steps = vec![
        row(event.received_at, "intake", "applied", place("intake", event.intake), "received".to_owned()),
        row(event.time, "events", "applied", place("events", event.events), format!("{} of {who}", event.name)),
    ];
    let (partition, offset) = event.events;
    let is_its = |outcome: &&TracedOutcome| outcome.stage == "profiles" && (outcome.partition, outcome.offset) == event.events;
    if found.outcomes.iter().chain(&found.dead_letters).any(|outcome| is_its(&outcome)) {
        // Its own row says what became of it.
    } else if folded.get(partition as usize).is_some_and(|next| next.0 > offset) {
        let position = event.profile.and_then(|profile| place("profiles", (partition, profile)));
        steps.push(row(event.time, "profiles", "applied", position, format!("in the profile of {who}")));
    } else {
        steps.push(row(event.time, "profiles", "waiting", None, "waiting for the profile fold".to_owned()));
    }
    steps
}

fn outcome_row(outcome: &TracedOutcome) -> Vec<Value> {
    vec![
        json!(outcome.at.to_string()),
        json!(outcome.message_id),
        json!(outcome.stage),
        json!(outcome.kind),
        json!(outcome.reason),
        json!(format!("{}/{}/{}", outcome.topic, outcome.partition, outcome.offset)),
        json!(outcome.detail),
    ]
}

/// An event that is acknowledged and that intake has not come to.
struct Waiting {
    message_id: String,
    received_at: Millis,
    partition: u32,
    offset: u64,
}

/// Whose records are looked for in the log: those of one message, or of one person.
struct Wanted<'a> {
    what: &'a str,
    /// `tenant`, a zero byte.
    tenant: Vec<u8>,
    keys: Vec<Vec<u8>>,
}

impl<'a> Wanted<'a> {
    fn new(tenant: &TenantId, what: &'a str) -> Self {
        let subjects = match what.split_once(':') {
            Some(("u", id)) => vec![Subject::user(id)],
            Some(("a", id)) => vec![Subject::anonymous(id)],
            _ => vec![Subject::user(what), Subject::anonymous(what)],
        };
        let keys = subjects.iter().map(|subject| subject.key(tenant).as_bytes().to_vec()).collect();
        Self { what, tenant: [tenant.as_str().as_bytes(), b"\0"].concat(), keys }
    }

    fn is(&self, record: &RecordRef<'_>, message_id: &str) -> bool {
        let is_its_message = message_id == self.what && record.key.starts_with(&self.tenant);
        is_its_message || self.keys.iter().any(|key| key == record.key)
    }

    fn in_intake(&self, log: &dyn LogReader, topics: &Topics) -> anyhow::Result<Vec<Waiting>> {
        let mut waiting = Vec::new();
        let from = committed(log, topics, "intake", Topic::Intake)?;
        for (partition, from) in topics.partitions(Topic::Intake).zip(from) {
            each_from(log, partition, from, |record| {
                if let Ok(IntakeRecord::Item(item)) = schema::decode(record.value.unwrap_or_default())
                    && self.is(record, item.message_id)
                {
                    let (message_id, received_at) = (item.message_id.to_owned(), Millis(item.received_at));
                    waiting.push(Waiting { message_id, received_at, partition: partition.partition.0, offset: record.offset.0 });
                }
            })?;
        }
        Ok(waiting)
    }

    /// Events that the read model has not come to.
    fn in_events(&self, log: &dyn LogReader, topics: &Topics, from: &[Offset]) -> anyhow::Result<Vec<TracedEvent>> {
        let mut events = Vec::new();
        for (partition, from) in topics.partitions(Topic::Events).zip(from) {
            each_from(log, partition, *from, |record| {
                if let Ok(EventsRecord::Event(event)) = schema::decode(record.value.unwrap_or_default())
                    && self.is(record, event.message_id)
                {
                    let some = |id: &str| (!id.is_empty()).then(|| id.to_owned());
                    events.push(TracedEvent {
                        message_id: event.message_id.to_owned(),
                        user_id: some(event.user_id),
                        anonymous_id: some(event.anonymous_id),
                        name: event.name.to_owned(),
                        time: Millis(event.event_time),
                        received_at: Millis(event.received_at),
                        intake: (event.origin.partition as u32, event.origin.offset as u64),
                        events: (partition.partition.0, record.offset.0),
                        profile: None,
                    });
                }
            })?;
        }
        Ok(events)
    }
}

/// Up to where a stage has committed each partition of its input.
pub(super) fn committed(log: &dyn LogReader, topics: &Topics, stage: &str, input: Topic) -> anyhow::Result<Vec<Offset>> {
    let group = Group(format!("{}.{stage}", topics.namespace).into());
    let of = |partition| Ok(log.committed(&group, partition)?.map_or(Offset(0), |committed| committed.offset));
    topics.partitions(input).map(of).collect()
}

/// Up to where the read model has each partition of `events`.
async fn projected(reader: &Reader, topics: &Topics) -> anyhow::Result<Vec<Offset>> {
    let status = match reader.status().await {
        Err(projections::Error::Missing(_)) => Vec::new(),
        status => status?,
    };
    let topic = Topic::Events;
    let is_its = |row: &&PartitionStatus, partition: PartitionId| {
        row.topic == topic.as_str() && row.partition == partition.0 && row.incarnation == topics.incarnation(topic)
    };
    let next =
        |partition: TopicPartition| status.iter().find(|row| is_its(row, partition.partition)).map_or(Offset(0), |row| row.next_offset);
    Ok(topics.partitions(topic).map(next).collect())
}

fn each_from(log: &dyn LogReader, partition: TopicPartition, from: Offset, mut visit: impl FnMut(&RecordRef<'_>)) -> anyhow::Result<()> {
    let marks = log.watermarks(partition)?;
    let mut next = from.max(marks.start);
    while next < marks.end {
        let fetched = log.fetch(partition, next, FETCH_BYTES)?;
        fetched.records().for_each(|record| visit(&record));
        if fetched.next <= next {
            break;
        }
        next = fetched.next;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> TracedEvent {
        TracedEvent {
            message_id: "m".to_owned(),
            user_id: Some("ada".to_owned()),
            anonymous_id: None,
            name: "Buy".to_owned(),
            time: Millis(1),
            received_at: Millis(2),
            intake: (0, 7),
            events: (1, 8),
            profile: Some(9),
        }
    }

    fn told(found: &Trace, folded: &[Offset]) -> Vec<String> {
        let rows = rows(found, &[], folded).to_json();
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or("-").to_owned();
        let rows = rows.as_array().expect("rows").iter();
        rows.map(|row| ["stage", "outcome", "position"].map(|name| text(row, name)).join(" ")).collect()
    }

    #[test]
    fn every_stage_of_an_event_is_told_with_its_position() {
        let mut found = Trace { events: vec![event()], ..Trace::default() };
        let before = ["intake applied intake/0/7", "events applied events/1/8"];
        assert_eq!(told(&found, &[Offset(0), Offset(9)]), [&before[..], &["profiles applied profiles/1/9"]].concat());
        assert_eq!(told(&found, &[Offset(99), Offset(8)]), [&before[..], &["profiles waiting -"]].concat());
        found.dead_letters.push(TracedOutcome {
            stage: "profiles".to_owned(),
            message_id: "m".to_owned(),
            kind: "dead_lettered".to_owned(),
            reason: "broken".to_owned(),
            detail: None,
            at: Millis(3),
            topic: "events".to_owned(),
            partition: 1,
            offset: 8,
        });
        assert_eq!(told(&found, &[Offset(0), Offset(9)]), [&before[..], &["profiles dead_lettered events/1/8"]].concat());
    }
}
