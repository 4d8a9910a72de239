//! From a request's JSON to durable records: one pass over the text, one encode per event into its partition's batch, one transaction.
//!
//! Answers only once the log's ticket has resolved. Judges nothing about an event beyond its size: what is wrong with it intake says, with a
//! reason, in the dead letters. An event without any id is keyed by the hash of its message id, so that it gets there too.

use smallvec::SmallVec;

use super::auth::Resolved;
use super::options::{BODY_BYTES_MAX, Options};
use super::reply::Refusal;
use super::scan::{self, Item, Raw};
use crate::domain::{Millis, PartitionId, partition_of};
use crate::log::{BatchBuilder, TopicPartition, Transaction};
use crate::schema;
use crate::schema::records::{IntakeItem, IntakeRecord};

/// The longest id taken as one; intake refuses an event with a longer one by what its body says.
const ID_BYTES_MAX: usize = 512;
/// The most of a User-Agent header kept with each event.
const USER_AGENT_BYTES_MAX: usize = 512;
/// The most that a batch may put beside each of its events.
const SHARED_BYTES_MAX: usize = 16 * 1024;

/// What is true of all events of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope<'a> {
    /// The type that the route says; empty for batches.
    pub route: &'static str,
    pub received_at: Millis,
    pub remote_ip: &'a str,
    pub user_agent: &'a str,
    pub historical: bool,
}

/// A request's events as records, and how many.
#[derive(Debug)]
pub(super) struct Records {
    pub transaction: Transaction,
    pub events: usize,
}

/// Encodes a batch's events.
pub(super) fn batch(source: &Resolved, envelope: Envelope<'_>, batch: &scan::Batch<'_>, options: &Options) -> Result<Records, Refusal> {
    let shared = shared_parts(batch.context, batch.integrations);
    // Every record carries it: a large one on many small events would make megabytes into gigabytes.
    let shared_bytes = shared.len().saturating_mul(batch.items.len());
    if shared.len() > SHARED_BYTES_MAX || shared_bytes > options.body_bytes_max.saturating_mul(4) {
        return Err(Refusal::BodyTooLarge { max: options.body_bytes_max });
    }
    let envelope = Envelope { historical: envelope.historical || batch.historical, ..envelope };
    let sent_at = batch.sent_at.and_then(time);
    let mut encoder = Encoder::new(source, envelope, &shared);
    for item in &batch.items {
        encoder.push(item, sent_at.or_else(|| item.sent_at.and_then(time)))?;
    }
    Ok(encoder.finish())
}

/// Encodes the event of a single-event route.
pub(super) fn single(source: &Resolved, envelope: Envelope<'_>, item: &Item<'_>, options: &Options) -> Result<Records, Refusal> {
    if item.body.len() > options.event_bytes_max {
        return Err(Refusal::EventTooLarge { bytes: item.body.len(), max: options.event_bytes_max });
    }
    let mut encoder = Encoder::new(source, envelope, "");
    encoder.push(item, item.sent_at.and_then(time))?;
    Ok(encoder.finish())
}

fn time(raw: Raw<'_>) -> Option<i64> {
    Millis::parse(&raw.id()?).map(|time| time.0)
}

/// `{"context":..,"integrations":..}` of what the batch has of them.
fn shared_parts(context: Option<Raw<'_>>, integrations: Option<Raw<'_>>) -> String {
    let mut text = String::new();
    for (name, part) in [("context", context), ("integrations", integrations)] {
        let Some(Raw(part)) = part.filter(|part| part.is_object()) else { continue };
        text.push_str(if text.is_empty() { "{\"" } else { ",\"" });
        text.push_str(name);
        text.push_str("\":");
        text.push_str(part);
    }
    if !text.is_empty() {
        text.push('}');
    }
    text
}

/// One batch builder per partition that the request touches.
struct Encoder<'a> {
    source: &'a Resolved,
    envelope: Envelope<'a>,
    shared: &'a str,
    builders: SmallVec<[(PartitionId, BatchBuilder); 4]>,
    key: Vec<u8>,
    events: usize,
}

impl<'a> Encoder<'a> {
    fn new(source: &'a Resolved, envelope: Envelope<'a>, shared: &'a str) -> Self {
        Self { source, envelope, shared, builders: SmallVec::new(), key: Vec::new(), events: 0 }
    }

    fn push(&mut self, item: &Item<'_>, sent_at: Option<i64>) -> Result<(), Refusal> {
        let given_id = item.message_id.and_then(Raw::id).filter(|id| id.len() <= ID_BYTES_MAX);
        let message_id_derived = given_id.is_none();
        let message_id = given_id.unwrap_or_else(|| derived_message_id(item).into());
        self.write_key(item, &message_id);
        let record = IntakeRecord::Item(IntakeItem {
            source: self.source.source.source.as_str(),
            message_id: &message_id,
            message_id_derived,
            received_at: self.envelope.received_at.0,
            sent_at,
            route: self.envelope.route,
            remote_ip: self.envelope.remote_ip,
            user_agent: cut(self.envelope.user_agent, USER_AGENT_BYTES_MAX),
            historical: self.envelope.historical,
            body: cut(item.body, BODY_BYTES_MAX),
            batch: self.shared,
            redriven_from: None,
        });
        let partition = partition_of(&self.key, self.source.intake.partitions);
        let at = match self.builders.iter().position(|(of, _)| *of == partition) {
            Some(at) => at,
            None => {
                self.builders.push((partition, BatchBuilder::new()));
                self.builders.len() - 1
            }
        };
        let builder = &mut self.builders[at].1;
        let pushed = builder.push_with(&self.key, self.envelope.received_at, |out| schema::encode(&record, out));
        pushed.map_err(|error| Refusal::InvalidRequest(error.to_string()))?;
        self.events += 1;
        Ok(())
    }

    /// The anonymous id while there is one, else the user id; an alias goes to the id it ties.
    fn write_key(&mut self, item: &Item<'_>, message_id: &str) {
        let kind = item.kind.and_then(Raw::id);
        let is_alias = kind.as_deref().unwrap_or(self.envelope.route) == "alias";
        let previous_id = if is_alias { item.previous_id } else { None };
        let anonymous_id = previous_id.and_then(Raw::id).or_else(|| item.anonymous_id.and_then(Raw::id));
        let user_id = if anonymous_id.is_none() { item.user_id.and_then(Raw::id) } else { None };
        let (mark, id): (&[u8], &str) = match (&anonymous_id, &user_id) {
            (Some(id), _) if id.len() <= ID_BYTES_MAX => (b"a:", id),
            (None, Some(id)) if id.len() <= ID_BYTES_MAX => (b"u:", id),
            _ => (b"a:", message_id),
        };
        self.key.clear();
        self.key.extend_from_slice(self.source.source.tenant.as_str().as_bytes());
        self.key.push(0);
        self.key.extend_from_slice(mark);
        self.key.extend_from_slice(id.as_bytes());
    }

    fn finish(self) -> Records {
        let topic = self.source.intake.topic;
        let batches = self.builders.into_iter().map(|(partition, builder)| (TopicPartition { topic, partition }, builder.build()));
        Records { transaction: Transaction { batches: batches.collect(), commits: Vec::new() }, events: self.events }
    }
}

/// The hash of the event without its `sentAt`, which differs when the same event is sent again.
fn derived_message_id(item: &Item<'_>) -> String {
    let (before, after) = match item.sent_at {
        Some(Raw(sent_at)) => {
            let at = sent_at.as_ptr() as usize - item.body.as_ptr() as usize;
            (&item.body[..at], &item.body[at + sent_at.len()..])
        }
        None => (item.body, ""),
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(before.as_bytes()).update(after.as_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

/// At most `bytes` of the text, whole characters only.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
