//! From a request's JSON to durable records: one pass over the text, one encode per event into its partition's batch, one transaction.
//!
//! Answers only once the log's ticket has resolved. Judges nothing about an event beyond its size: what is wrong with it intake says, with a
//! reason, in the dead letters.

use smallvec::SmallVec;

use super::auth::Resolved;
use super::options::{BODY_BYTES_MAX, Options};
use super::reply::Refusal;
use crate::domain::{Millis, PartitionId, partition_of};
use crate::intake::arrive;
use crate::intake::scan::{self, Item};
use crate::log::{BatchBuilder, TopicPartition, Transaction};
use crate::schema;
use crate::schema::records::{IntakeItem, IntakeRecord};

/// The most of a User-Agent header kept with each event.
const USER_AGENT_BYTES_MAX: usize = 512;

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
    let shared = arrive::shared_parts(batch.context, batch.integrations);
    // Every record carries it: a large one on many small events would make megabytes into gigabytes.
    let shared_bytes = shared.len().saturating_mul(batch.items.len());
    if shared.len() > arrive::SHARED_BYTES_MAX || shared_bytes > options.body_bytes_max.saturating_mul(4) {
        return Err(Refusal::BodyTooLarge { max: options.body_bytes_max });
    }
    let envelope = Envelope { historical: envelope.historical || batch.historical, ..envelope };
    let sent_at = batch.sent_at.and_then(arrive::sent_at);
    let mut encoder = Encoder::new(source, envelope, &shared);
    for item in &batch.items {
        encoder.push(item, sent_at.or_else(|| item.sent_at.and_then(arrive::sent_at)))?;
    }
    Ok(encoder.finish())
}

/// Encodes the event of a single-event route.
pub(super) fn single(source: &Resolved, envelope: Envelope<'_>, item: &Item<'_>, options: &Options) -> Result<Records, Refusal> {
    if item.body.len() > options.event_bytes_max {
        return Err(Refusal::EventTooLarge { bytes: item.body.len(), max: options.event_bytes_max });
    }
    let mut encoder = Encoder::new(source, envelope, "");
    encoder.push(item, item.sent_at.and_then(arrive::sent_at))?;
    Ok(encoder.finish())
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
        let route = self.envelope.route;
        let (message_id, message_id_derived) = arrive::message_id(item, route);
        arrive::write_key(&mut self.key, &self.source.source.tenant, item, route, &message_id);
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
            depth: 0,
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

    fn finish(self) -> Records {
        let topic = self.source.intake.topic;
        let batches = self.builders.into_iter().map(|(partition, builder)| (TopicPartition { topic, partition }, builder.build()));
        Records { transaction: Transaction { batches: batches.collect(), commits: Vec::new() }, events: self.events }
    }
}

/// At most `bytes` of the text, whole characters only.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Namespace, SourceId, Subject, SubjectKey, TenantId};
    use crate::gateway::auth::Intake;
    use crate::gateway::options::Source;
    use crate::intake;
    use crate::log::TopicId;

    fn resolved() -> Resolved {
        let tenant = TenantId::new("acme").expect("a slug");
        let (namespace, source) = (Namespace::new("main").expect("a slug"), SourceId::new("web").expect("a slug"));
        let source = Source { tenant, namespace, source, disabled: false };
        Resolved { source, intake: Intake { topic: TopicId(1), partitions: 4 } }
    }

    /// The key that the gateway gives an event, `None` if it is the message id.
    fn key_of(body: &str, route: &'static str) -> Option<Subject> {
        let source = resolved();
        let envelope = Envelope { route, received_at: Millis(0), remote_ip: "", user_agent: "", historical: false };
        let item = scan::single(body).expect("an object");
        let records = single(&source, envelope, &item, &Options::default()).expect("fits");
        let record = records.transaction.batches[0].1.iter().next().expect("one record");
        let key = SubjectKey::from_bytes(bytes::Bytes::copy_from_slice(record.key)).expect("a key").subject();
        let decoded = schema::decode::<IntakeRecord<'_>>(record.value.expect("a value")).expect("decodes");
        let IntakeRecord::Item(stored) = decoded else { panic!("an item") };
        if key == Subject::anonymous(stored.message_id) { None } else { Some(key) }
    }

    fn id() -> impl Strategy<Value = serde_json::Value> {
        prop_oneof![
            Just(serde_json::Value::Null),
            Just(serde_json::json!("")),
            Just(serde_json::json!("undefined")),
            Just(serde_json::json!(true)),
            Just(serde_json::json!(["x"])),
            any::<u32>().prop_map(Into::into),
            "[ -~]{1,12}".prop_map(Into::into),
            Just(serde_json::json!("x".repeat(600))),
        ]
    }

    proptest! {
        /// Intake refuses an event whose key is not what it says itself: both must read ids alike.
        #[test]
        fn the_key_is_the_one_intake_decides_under(
            kind in prop::option::of(prop_oneof![Just("track"), Just("alias"), Just("identify"), Just("")]),
            ids in prop::collection::vec((prop_oneof![Just("anonymousId"), Just("userId"), Just("previousId")], id()), 0..4),
            route in prop_oneof![Just(""), Just("track"), Just("alias")],
        ) {
            let mut body = serde_json::json!({"messageId": "the message"});
            if let Some(kind) = kind {
                body["type"] = kind.into();
            }
            for (name, id) in ids {
                body[name] = id;
            }
            let text = body.to_string();
            // What intake refuses anyway may stand anywhere.
            if let Ok(subject) = intake::key_of(&text, route) {
                prop_assert_eq!(key_of(&text, route), Some(subject), "{}", text);
            }
        }
    }

    #[test]
    fn escapes_are_read_as_intake_reads_them() {
        for body in [
            r#"{"type":"track","user\u0049d":"ann"}"#,
            r#"{"type":"track","userId":"\u0061nn"}"#,
            r#"{"t\u0079pe":"alias","previousId":"ann","userId":"b"}"#,
        ] {
            assert_eq!(key_of(body, "").as_ref(), intake::key_of(body, "").ok().as_ref(), "{body}");
        }
        assert_eq!(key_of(r#"{"messageId":"m"}"#, "track"), None);
    }
}
