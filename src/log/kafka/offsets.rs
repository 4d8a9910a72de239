//! Committed offsets as Kafka keeps them: one client per group to ask and to speak for the group with.
//!
//! An offset's metadata is text of at most 4 KB on Kafka, and ours is bytes of at most 4 KB: it is there in base64 if it fits, and else in
//! the ledger only. Before it stands the nonce of the transaction that committed it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::Options;
use super::client::{self, Complaints, Context};
use super::ledger::Seat;
use crate::log::{COMMIT_METADATA_BYTES_MAX, Error};

const FORMAT: &str = "1";
const IN_LEDGER: &str = "@";

/// An offset of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) offset: u64,
    /// Empty if it was not committed by this log.
    pub(super) nonce: String,
    /// `None` if only the ledger has it.
    pub(super) metadata: Option<Bytes>,
}

/// What was found where an offset may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Stored(Stored),
    /// A transaction that holds it is open: its owner is at work, or died.
    Unsettled,
}

pub(super) fn text(nonce: &str, metadata: &[u8]) -> String {
    let body = BASE64_STANDARD.encode(metadata);
    let text = format!("{FORMAT}:{nonce}:{body}");
    if text.len() <= COMMIT_METADATA_BYTES_MAX { text } else { format!("{FORMAT}:{nonce}:{IN_LEDGER}") }
}

/// The nonce and the metadata; metadata that others wrote is handed on as it is.
fn parse(text: &str) -> (String, Option<Bytes>) {
    let mut parts = text.splitn(3, ':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(FORMAT), Some(nonce), Some(IN_LEDGER)) => (nonce.to_owned(), None),
        (Some(FORMAT), Some(nonce), Some(body)) => match BASE64_STANDARD.decode(body) {
            Ok(body) => (nonce.to_owned(), Some(body.into())),
            Err(_) => (String::new(), Some(Bytes::copy_from_slice(text.as_bytes()))),
        },
        _ => (String::new(), Some(Bytes::copy_from_slice(text.as_bytes()))),
    }
}

pub(super) struct Offsets {
    options: Arc<Options>,
    complaints: Complaints,
    clients: Mutex<HashMap<String, Arc<BaseConsumer<Context>>>>,
}

impl Offsets {
    pub(super) fn new(options: &Arc<Options>, complaints: &Complaints) -> Self {
        Self { options: Arc::clone(options), complaints: complaints.clone(), clients: Mutex::default() }
    }

    fn client(&self, group: &str) -> Result<Arc<BaseConsumer<Context>>, Error> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(group) {
            return Ok(Arc::clone(client));
        }
        let made = client::reading(&self.options).set("group.id", group).create_with_context(Context::new(&self.complaints));
        let client: Arc<BaseConsumer<Context>> = Arc::new(made.map_err(|error| client::refused_setting(&error))?);
        clients.insert(group.to_owned(), Arc::clone(&client));
        Ok(client)
    }

    /// The group as one that is no member of it speaks for it: taken only while it has no members.
    pub(super) fn outsider(&self, group: &str) -> Result<ConsumerGroupMetadata, Error> {
        let metadata = self.client(group)?.group_metadata();
        metadata.ok_or_else(|| Error::Unavailable { context: format!("group {group}"), message: "the client has no group yet".into() })
    }

    /// What is committed and settled, waited for at most so long while a transaction is open.
    pub(super) fn stored(&self, seat: &Seat, at_most: Duration) -> Result<Found, Error> {
        let client = self.client(&seat.group)?;
        let asked = client::patiently(&self.options, || self.ask(&client, seat, at_most));
        asked.map_err(|error| {
            let doing = format!("asking what {} committed of {}/{}", seat.group, seat.topic, seat.partition);
            client::meaning(&doing, &error, &self.complaints, &self.options)
        })
    }

    fn ask(&self, client: &BaseConsumer<Context>, seat: &Seat, at_most: Duration) -> Result<Found, KafkaError> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&seat.topic, seat.partition as i32);
        let answer = match client.committed_offsets(asked, at_most) {
            Ok(answer) => answer,
            // While an offset is pending librdkafka asks again and again until the time is up.
            Err(error) if error.rdkafka_error_code() == Some(Code::OperationTimedOut) && at_most < self.options.call_timeout => {
                return Ok(Found::Unsettled);
            }
            Err(error) if error.rdkafka_error_code() == Some(Code::UnstableOffsetCommit) => return Ok(Found::Unsettled),
            Err(error) => return Err(error),
        };
        let Some(element) = answer.find_partition(&seat.topic, seat.partition as i32) else { return Ok(Found::Nothing) };
        match element.error() {
            Err(error) if matches!(error.rdkafka_error_code(), Some(Code::UnstableOffsetCommit | Code::OperationTimedOut)) => {
                return Ok(Found::Unsettled);
            }
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        let KafkaOffset::Offset(offset) = element.offset() else { return Ok(Found::Nothing) };
        let (nonce, metadata) = parse(element.metadata());
        Ok(Found::Stored(Stored { offset: offset as u64, nonce, metadata }))
    }

    /// Serves the clients' callbacks.
    pub(super) fn tend(&self) {
        let clients: Vec<_> = self.clients.lock().values().cloned().collect();
        for client in clients {
            // Only errors arrive here, which the context notes.
            let _ = client.poll(Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_any_bytes_and_goes_to_the_ledger_where_it_is_long() {
        for metadata in [&b""[..], b"\x00\xff:1:@", &[7; 3000]] {
            assert_eq!(parse(&text("ab", metadata)), ("ab".to_owned(), Some(Bytes::copy_from_slice(metadata))));
        }
        assert_eq!(parse(&text("ab", &[7; COMMIT_METADATA_BYTES_MAX])), ("ab".to_owned(), None));
        for foreign in ["", "set by an operator", "1:x:!"] {
            assert_eq!(parse(foreign), (String::new(), Some(Bytes::copy_from_slice(foreign.as_bytes()))));
        }
    }
}
