//! The decoder: `inbox`, where foreign producers publish what and how they like, into `intake`, under the keys and in the form of our own.
//!
//! It keeps no state: what came of a record is in `intake`, in the commit that consumed it, and is never worked out again. So it may ask of
//! settings and of a schema registry, which are not in the records. It judges whose a record is and whether it is one; the events in it are
//! judged by the intake fold, as those that came by HTTP. It states its time to every partition of `intake`.

mod body;
mod options;
mod schemas;
mod senders;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

pub use options::{Format, Options};
pub use senders::{SOURCE_HEADER, Sender, Senders, TENANT_HEADER, WRITE_KEY_HEADER};

use self::schemas::{Own, Schemas};
use super::fold::{Applied, Fault, Fold, Seal, Window};
use super::outputs::Outputs;
use super::progress::Watermark;
use super::{Error, Topic, Topics};
use crate::domain::{DeadReason, FilterReason, Incarnation, Millis, Outcome, PartitionId, TenantId};
use crate::log::{LogReader, RecordRef};
use crate::schema::foreign;
use crate::schema::records::{InboxTime, IntakeRecord};
use crate::schema::remote::{Lookup, Remote};
use crate::state::Table;

/// The name under which it commits.
pub(super) const STAGE: &str = "decoder";

/// What each decoder of a namespace needs to know beside its surroundings.
#[derive(Clone, Default)]
pub struct Setup {
    pub senders: Arc<Senders>,
    /// Where schemas of Avro values are looked up; our own registry if nowhere else.
    pub registry: Option<Arc<Remote>>,
}

/// By which newer serializers name a schema, with nothing before the value.
const SCHEMA_GUID_HEADER: &str = "__value_schema_id";

pub struct InboxFold {
    topics: Topics,
    partition: PartitionId,
    senders: Arc<Senders>,
    schemas: Schemas,
    /// What the records that are folded next were written with.
    found: HashMap<(TenantId, u32), Lookup>,
    /// Where the records that may be folded end for now: a schema is asked for.
    is_waiting: bool,
    /// The newest time stated to `intake`.
    stated: Option<Millis>,
    key: Vec<u8>,
}

impl InboxFold {
    pub fn new(log: Arc<dyn LogReader>, topics: Topics, partition: PartitionId, setup: Setup) -> Self {
        let schemas = match setup.registry {
            Some(remote) => Schemas::Elsewhere(remote),
            None => Schemas::Own(Box::new(Own::new(log, &topics))),
        };
        let (senders, found) = (setup.senders, HashMap::new());
        Self { topics, partition, senders, schemas, found, is_waiting: false, stated: None, key: Vec::new() }
    }

    fn is_avro(&self, value: &[u8]) -> bool {
        match self.senders.format {
            Format::Auto => value.first() == Some(&0),
            Format::Json => false,
            Format::Avro => true,
        }
    }

    /// Whether what the record was written with is known; asks for it otherwise.
    fn is_ready(&mut self, record: &RecordRef<'_>) -> Result<bool, Error> {
        let Some(value) = record.value.filter(|value| self.is_avro(value)) else { return Ok(true) };
        if record.headers.last(SCHEMA_GUID_HEADER).is_some() {
            return Ok(true);
        }
        let (Ok(sender), Ok((id, _))) = (self.senders.of(record.headers), foreign::framed(value)) else { return Ok(true) };
        let asked = (sender.tenant, id);
        if self.found.contains_key(&asked) {
            return Ok(true);
        }
        let found = self.schemas.find(&asked.0, id)?;
        if found == Lookup::Pending {
            return Ok(false);
        }
        self.found.insert(asked, found);
        Ok(true)
    }

    /// The JSON of an Avro value.
    fn text_of(&self, sender: &Sender, record: &RecordRef<'_>, value: &[u8]) -> Result<String, Fault> {
        if record.headers.last(SCHEMA_GUID_HEADER).is_some() {
            let detail = format!(
                "its schema is named by a GUID in the header {SCHEMA_GUID_HEADER}; have the serializer write the id before the value"
            );
            return Err(Fault::new(DeadReason::UnknownSchema, detail));
        }
        let (id, body) = foreign::framed(value).map_err(|error| fault(&error))?;
        match self.found.get(&(sender.tenant.clone(), id)) {
            Some(Lookup::Known(schema)) => schema.decode(body).and_then(foreign::event).map_err(|error| fault(&error)),
            Some(Lookup::Unknown(why)) => Err(Fault::new(DeadReason::UnknownSchema, why.clone())),
            Some(Lookup::Pending) | None => unreachable!("`ready` keeps back what is not answered"),
        }
    }

    fn time_to_state(&self, seal: &Seal) -> Option<Millis> {
        let reached = if seal.tick_due { seal.end_asked.max(seal.folded) } else { None };
        reached.filter(|time| *time > self.time())
    }
}

fn fault(error: &foreign::Error) -> Fault {
    let reason = match error {
        foreign::Error::Shape(_) => DeadReason::Malformed,
        foreign::Error::TooLarge(_) => DeadReason::TooLarge,
        _ => DeadReason::Undecodable,
    };
    Fault::new(reason, error.to_string())
}

fn rejected(reason: DeadReason, detail: &str) -> Result<Applied, Error> {
    Ok(Applied::Rejected(Fault::new(reason, detail)))
}

impl Fold for InboxFold {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn input(&self) -> (Topic, PartitionId) {
        (Topic::Inbox, self.partition)
    }

    fn version(&self) -> u32 {
        1
    }

    /// There is nothing to remember: it goes on from the committed offset.
    fn recovers_from_outputs(&self) -> bool {
        true
    }

    fn table(&self, incarnation: Incarnation) -> Table {
        Table(format!("{}.inbox.{}.i{incarnation}", self.topics.namespace, self.partition).into())
    }

    fn restore(&mut self, _stored: Option<&Watermark>, _marked: &Bytes, _incarnation: Incarnation) -> Result<(), Error> {
        Ok(())
    }

    fn ready(&mut self, records: &[RecordRef<'_>]) -> Result<usize, Error> {
        self.found.clear();
        self.is_waiting = false;
        for (at, record) in records.iter().enumerate() {
            if !self.is_ready(record)? {
                self.is_waiting = true;
                return Ok(at);
            }
        }
        Ok(records.len())
    }

    fn stalled(&self) -> Option<String> {
        self.schemas.failing().filter(|_| self.is_waiting)
    }

    fn prepare(&mut self, _records: &[RecordRef<'_>]) -> Result<(), Error> {
        Ok(())
    }

    fn apply(&mut self, _at: usize, record: &RecordRef<'_>, _: Window<'_>, out: &mut Outputs) -> Result<Applied, Error> {
        let sender = match self.senders.of(record.headers) {
            Ok(sender) if sender.disabled => return Ok(Applied::Done(Outcome::Filtered(FilterReason::SourceDisabled))),
            Ok(sender) => sender,
            Err(fault) => return Ok(Applied::Rejected(fault)),
        };
        let Some(value) = record.value else {
            return rejected(DeadReason::Malformed, "a record without a value, which removes keys of compacted topics, is no event");
        };
        if self.is_avro(value) || record.headers.last(SCHEMA_GUID_HEADER).is_some() {
            return match self.text_of(&sender, record, value) {
                Ok(text) => body::events(&text, &sender, record.append_time, &mut self.key, out),
                Err(fault) => Ok(Applied::Rejected(fault)),
            };
        }
        let Ok(text) = std::str::from_utf8(value) else { return rejected(DeadReason::Malformed, "the body is no UTF-8") };
        body::events(text, &sender, record.append_time, &mut self.key, out)
    }

    fn set_careful(&mut self, _careful: bool) {}

    fn undo(&mut self) {}

    fn unsealed_bytes(&self) -> usize {
        0
    }

    fn has_news(&self, seal: &Seal) -> bool {
        self.time_to_state(seal).is_some()
    }

    fn seal(&mut self, seal: &Seal, out: &mut Outputs) -> Result<(), Error> {
        let Some(time) = self.time_to_state(seal) else { return Ok(()) };
        self.stated = Some(time);
        let (feeder, feeders) = (self.partition.0 as i32, self.topics.count(Topic::Inbox) as i32);
        for id in self.topics.partitions(Topic::Intake) {
            let stated = IntakeRecord::InboxTime(InboxTime { feeder, feeders, time: time.0 });
            out.push_to(Topic::Intake, id.partition, b"", time, &stated)?;
        }
        Ok(())
    }

    fn time(&self) -> Millis {
        self.stated.unwrap_or(Millis::MIN)
    }

    fn dirty_bytes(&self) -> usize {
        0
    }

    fn flush(&mut self, _watermark: Watermark) -> Result<(), Error> {
        Ok(())
    }

    fn message_id(&self, record: &RecordRef<'_>) -> String {
        record.value.and_then(|value| std::str::from_utf8(value).ok()).map(body::message_id).unwrap_or_default()
    }
}
