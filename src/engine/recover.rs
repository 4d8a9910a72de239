//! Where a fold goes on from: the states as they were last stored, and what the journal says since then.
//!
//! Nobody else writes a journal partition, so its end is what this fold decided last. Facts are only evolved here, never decided again.

use super::fold::{Memo, WorkflowFold};
use crate::domain::{Millis, Offset};
use crate::schema;
use crate::schema::records::JournalRecord;
use crate::stream::{Error, Topic};
use crate::workflow::{Fact, evolve};

const FETCH_BYTES: usize = 4 << 20;

impl WorkflowFold {
    /// Reads the journal from where the stored states end.
    pub(super) fn read_journal(&mut self) -> Result<(), Error> {
        let partition = self.topics.partition(Topic::Journal, self.partition);
        let end = self.log.settled_end(partition)?;
        let mut from = Offset(self.memo.journal).max(self.log.watermarks(partition)?.start);
        let mut facts = 0_u64;
        while from < end {
            let fetched = self.log.fetch(partition, from, FETCH_BYTES)?;
            let records: Vec<_> = fetched.records().collect();
            self.subjects.evict();
            let slots = self.subjects.load(records.iter().map(|record| record.key))?;
            for (record, slot) in records.iter().zip(slots) {
                match (schema::decode::<JournalRecord<'_>>(record.value.unwrap_or_default())?, slot) {
                    (JournalRecord::Time(time), _) => self.memo.time = Some(time.time),
                    (JournalRecord::Activated(activated), _) => drop(self.memo.in_force.hear(&activated)),
                    (JournalRecord::Fact(_), Some(slot)) if self.subjects.holds(slot, record.offset) => {}
                    (JournalRecord::Fact(fact), Some(slot)) => {
                        let corrupt = |error: crate::workflow::CodecError| Error::Corrupt {
                            what: format!(
                                "{} partition {} at {}",
                                self.topics.info(Topic::Journal).spec.name,
                                self.partition,
                                record.offset.0
                            ),
                            detail: error.to_string(),
                        };
                        let fact = Fact::from_parts(Millis(fact.at), fact.run, fact.body).map_err(corrupt)?;
                        evolve(self.subjects.get_mut(slot), &fact);
                        self.subjects.changed(slot);
                        facts += 1;
                    }
                    (JournalRecord::Fact(_), None) => {}
                }
            }
            if fetched.next <= from {
                let what = format!("{partition:?} at {}", from.0);
                return Err(Error::Corrupt { what, detail: format!("the records up to {} cannot be read", end.0) });
            }
            from = fetched.next;
            self.memo.journal = from.0;
            if self.subjects.dirty_bytes() >= self.flush_bytes_max {
                self.store_recovered()?;
            }
        }
        if facts > 0 {
            let (namespace, partition) = (&self.topics.namespace, self.partition.0);
            tracing::info!(%namespace, partition, facts, "states of workflows recovered from the journal");
        }
        Ok(())
    }
}

impl Memo {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let corrupt = |error: serde_json::Error| Error::Corrupt { what: "a workflow table's memo".into(), detail: error.to_string() };
        if bytes.is_empty() { Ok(Self::default()) } else { serde_json::from_slice(bytes).map_err(corrupt) }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data")
    }
}
