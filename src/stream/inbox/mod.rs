//! The decoder: `inbox`, where foreign producers publish what and how they like, into `intake`, under the keys and in the form of our own.
//!
//! It keeps no state: what came of a record is in `intake`, in the commit that consumed it, and is never worked out again. So it may ask of
//! settings and of a schema registry, which are not in the records. It judges whose a record is and whether it is one; the events in it are
//! judged by the intake fold, as those that came by HTTP. It states its time to every partition of `intake`.

mod body;
mod options;
mod senders;

use std::sync::Arc;

use bytes::Bytes;

pub use options::{Format, Options};
pub use senders::{SOURCE_HEADER, Sender, Senders, TENANT_HEADER, WRITE_KEY_HEADER};

use super::fold::{Applied, Fault, Fold, Seal, Window};
use super::outputs::Outputs;
use super::progress::Watermark;
use super::{Error, Topic, Topics};
use crate::domain::{DeadReason, FilterReason, Incarnation, Millis, Outcome, PartitionId};
use crate::log::RecordRef;
use crate::schema::records::{InboxTime, IntakeRecord};
use crate::state::Table;

/// What each decoder of a namespace needs to know beside its surroundings.
#[derive(Clone, Default)]
pub struct Setup {
    pub senders: Arc<Senders>,
}

pub struct InboxFold {
    topics: Topics,
    partition: PartitionId,
    senders: Arc<Senders>,
    /// The newest time stated to `intake`.
    stated: Option<Millis>,
    key: Vec<u8>,
}

impl InboxFold {
    pub fn new(topics: Topics, partition: PartitionId, setup: Setup) -> Self {
        Self { topics, partition, senders: setup.senders, stated: None, key: Vec::new() }
    }

    fn time_to_state(&self, seal: &Seal) -> Option<Millis> {
        let reached = if seal.tick_due { seal.end_asked.max(seal.folded) } else { None };
        reached.filter(|time| *time > self.time())
    }
}

fn rejected(reason: DeadReason, detail: &str) -> Result<Applied, Error> {
    Ok(Applied::Rejected(Fault::new(reason, detail)))
}

impl Fold for InboxFold {
    fn stage(&self) -> &'static str {
        "decoder"
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
