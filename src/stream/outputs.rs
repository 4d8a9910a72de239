//! What one commit appends, encoded as it is produced: one growing batch per output partition.
//!
//! While a fold re-reads silently, everything pushed is dropped before it is encoded: those records are in the log already.

use bytes::BytesMut;

use super::fold::Fault;
use super::{Error, Topic, Topics};
use crate::domain::{Millis, PartitionId, partition_of};
use crate::log::{BatchBuilder, RECORD_BYTES_MAX, RecordBatch, RecordRef, TopicPartition};
use crate::schema::records::{DeadLetter, Origin};
use crate::schema::{self, Wire};

/// Left of a record's bound for what a dead letter says about the value it keeps.
const DEAD_LETTER_HEAD_BYTES: usize = 8 << 10;

pub struct Outputs {
    topics: Topics,
    slots: Vec<BatchBuilder>,
    /// What each slot held when last taken: the next commit will need about as much.
    expected: Vec<usize>,
    /// Where each topic's partitions begin in `slots`.
    base: [usize; Topic::ALL.len()],
    bytes: usize,
    silent: bool,
}

/// A point to go back to, within one commit.
pub struct Checkpoint {
    lens: Vec<(usize, usize)>,
    bytes: usize,
}

impl Outputs {
    pub fn new(topics: Topics) -> Self {
        let mut base = [0; Topic::ALL.len()];
        let mut count = 0;
        for topic in Topic::ALL {
            base[topic as usize] = count;
            count += topics.count(topic) as usize;
        }
        let slots = (0..count).map(|_| BatchBuilder::new()).collect();
        Self { topics, slots, expected: vec![0; count], base, bytes: 0, silent: false }
    }

    pub fn set_silent(&mut self, silent: bool) {
        self.silent = silent;
    }

    pub fn is_silent(&self) -> bool {
        self.silent
    }

    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Bytes pushed since the last [`take`](Outputs::take).
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// To the key's own partition.
    pub fn push<'a, T: Wire<'a>>(&mut self, topic: Topic, key: &[u8], at: Millis, record: &T) -> Result<(), Error> {
        if self.silent {
            return Ok(());
        }
        let partition = partition_of(key, self.topics.count(topic));
        self.push_to(topic, partition, key, at, record)
    }

    /// To a partition that the caller knows to be the key's, or for a record without a key.
    pub fn push_to<'a, T: Wire<'a>>(
        &mut self,
        topic: Topic,
        partition: PartitionId,
        key: &[u8],
        at: Millis,
        record: &T,
    ) -> Result<(), Error> {
        self.push_with(topic, partition, key, at, |buffer| Ok(schema::encode(record, buffer)?))
    }

    /// As [`push_to`](Outputs::push_to), with the value written straight into the batch.
    pub fn push_with(
        &mut self,
        topic: Topic,
        partition: PartitionId,
        key: &[u8],
        at: Millis,
        write: impl FnOnce(&mut BytesMut) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.silent {
            return Ok(());
        }
        let index = self.base[topic as usize] + partition.0 as usize;
        let slot = &mut self.slots[index];
        let before = slot.bytes();
        if before == 0 {
            slot.reserve(self.expected[index]);
        }
        slot.push_with(key, at, |buffer| {
            let start = buffer.len();
            write(buffer)?;
            match buffer.len() - start {
                len if len > RECORD_BYTES_MAX => Err(Error::Record(Fault::too_large(topic, len))),
                _ => Ok(()),
            }
        })?;
        self.bytes += slot.bytes() - before;
        Ok(())
    }

    /// Removes the key from a compacted topic.
    pub fn push_removal(&mut self, topic: Topic, partition: PartitionId, key: &[u8], at: Millis) {
        if self.silent {
            return;
        }
        let slot = &mut self.slots[self.base[topic as usize] + partition.0 as usize];
        let before = slot.bytes();
        slot.push(key, None, at);
        self.bytes += slot.bytes() - before;
    }

    /// Where one partition's batch stands, for [`back_to`](Outputs::back_to).
    pub fn place(&self, topic: Topic, partition: PartitionId) -> (usize, usize) {
        let slot = &self.slots[self.base[topic as usize] + partition.0 as usize];
        (slot.bytes(), slot.len())
    }

    /// Takes back what was pushed to one partition since it stood there.
    pub fn back_to(&mut self, topic: Topic, partition: PartitionId, place: (usize, usize)) {
        let slot = &mut self.slots[self.base[topic as usize] + partition.0 as usize];
        self.bytes -= slot.bytes() - place.0;
        slot.truncate(place.0, place.1);
    }

    /// Keeps a record that could not be applied, with why and where it came from.
    pub fn dead_letter(&mut self, from: &Source<'_>, record: &RecordRef<'_>, fault: &Fault, message_id: &str) -> Result<(), Error> {
        let value = record.value.unwrap_or_default();
        let headers = record.headers.encoded();
        let kept = &value[..value.len().min(RECORD_BYTES_MAX - DEAD_LETTER_HEAD_BYTES - headers.len())];
        let incarnation = self.topics.incarnation(from.topic).0 as i32;
        let letter = DeadLetter {
            topic: from.topic.as_str(),
            origin: Origin { incarnation, partition: from.partition.0 as i32, offset: record.offset.0 as i64 },
            stage: from.stage,
            reason: fault.reason.as_str(),
            detail: truncated(&fault.detail, 1024),
            message_id: truncated(message_id, 1024),
            at: record.append_time.0,
            value: kept,
            headers,
        };
        let key = if record.key.len() > 1024 { &record.key[..1024] } else { record.key };
        let partition = PartitionId(from.partition.0 % self.topics.count(Topic::DeadLetters));
        self.push_to(Topic::DeadLetters, partition, key, record.append_time, &letter)
    }

    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { lens: self.slots.iter().map(|slot| (slot.bytes(), slot.len())).collect(), bytes: self.bytes }
    }

    pub fn rewind(&mut self, checkpoint: &Checkpoint) {
        for (slot, (bytes, count)) in self.slots.iter_mut().zip(&checkpoint.lens) {
            slot.truncate(*bytes, *count);
        }
        self.bytes = checkpoint.bytes;
    }

    /// Everything pushed, ready to append; begins anew.
    pub fn take(&mut self) -> Vec<(TopicPartition, RecordBatch)> {
        let mut batches = Vec::new();
        for topic in Topic::ALL {
            for id in self.topics.partitions(topic) {
                let index = self.base[topic as usize] + id.partition.0 as usize;
                let slot = &mut self.slots[index];
                self.expected[index] = slot.bytes();
                if !slot.is_empty() {
                    batches.push((id, std::mem::take(slot).build()));
                }
            }
        }
        self.bytes = 0;
        batches
    }

    /// Drops everything pushed.
    pub fn clear(&mut self) {
        for slot in &mut self.slots {
            slot.truncate(0, 0);
        }
        self.bytes = 0;
    }
}

/// The stage and input partition a record came from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub stage: &'a str,
    pub topic: Topic,
    pub partition: PartitionId,
}

fn truncated(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
