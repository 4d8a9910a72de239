//! Hands commands in and sees them through: an append that is refused for now is handed in again until it is taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use parking_lot::Mutex;

use super::Error;
use super::board::Command;
use crate::domain::PartitionId;
use crate::env::{Clock, Patience};
use crate::log::{Advice, BatchBuilder, LogWriter, RecordBatch, Ticket, TopicId, TopicPartition, Transaction};
use crate::schema::records::{Command as CommandBody, CommandsRecord};
use crate::stream::Stopping;

/// Larger ones are handed in as several.
const BYTES_MAX: usize = 1 << 20;
const PAUSE_MS: i64 = 50;

type Batches = Vec<(TopicPartition, RecordBatch)>;

enum Under {
    Way(Ticket, Batches),
    Refused(crate::log::Error, Batches),
}

/// The writing side; cheap to call from any thread.
pub struct Appender {
    log: Arc<dyn LogWriter>,
    clock: Arc<dyn Clock>,
    topic: TopicId,
    under_way: Mutex<Option<mpsc::Sender<Under>>>,
    unsettled: Arc<AtomicUsize>,
}

/// The other side: a thread's work.
pub struct Settler {
    log: Arc<dyn LogWriter>,
    clock: Arc<dyn Clock>,
    under_way: mpsc::Receiver<Under>,
    unsettled: Arc<AtomicUsize>,
}

pub fn open(log: Arc<dyn LogWriter>, clock: Arc<dyn Clock>, topic: TopicId) -> (Appender, Settler) {
    let (sender, receiver) = mpsc::channel();
    let unsettled = Arc::new(AtomicUsize::new(0));
    let settler = Settler { log: Arc::clone(&log), clock: Arc::clone(&clock), under_way: receiver, unsettled: Arc::clone(&unsettled) };
    (Appender { log, clock, topic, under_way: Mutex::new(Some(sender)), unsettled }, settler)
}

impl Appender {
    /// Appends that are not durable yet.
    pub fn unsettled(&self) -> usize {
        self.unsettled.load(Ordering::Acquire)
    }

    pub fn append(&self, commands: &[Command]) -> Result<(), Error> {
        let now = self.clock.now();
        let mut batches: BTreeMap<u32, BatchBuilder> = BTreeMap::new();
        let mut bytes = 0;
        for command in commands {
            let body = serde_json::to_string(&command.input).expect("an input is plain data");
            let record = CommandsRecord::Command(CommandBody { kind: command.input.kind(), at: None, depth: 0, body: &body });
            let batch = batches.entry(command.partition).or_default();
            batch.push_with(command.subject.as_bytes(), now, |out| crate::schema::encode(&record, out))?;
            bytes += body.len();
            if bytes >= BYTES_MAX {
                bytes = 0;
                self.hand_in(std::mem::take(&mut batches));
            }
        }
        self.hand_in(batches);
        Ok(())
    }

    fn hand_in(&self, batches: BTreeMap<u32, BatchBuilder>) {
        if batches.is_empty() {
            return;
        }
        let of = |partition: u32| TopicPartition { topic: self.topic, partition: PartitionId(partition) };
        let batches: Batches = batches.into_iter().map(|(partition, batch)| (of(partition), batch.build())).collect();
        let under = match self.log.append(Transaction { batches: batches.clone(), commits: Vec::new() }) {
            Ok(ticket) => Under::Way(ticket, batches),
            Err(error) => Under::Refused(error, batches),
        };
        self.unsettled.fetch_add(1, Ordering::AcqRel);
        if let Some(sender) = &*self.under_way.lock() {
            // Its receiver outlives this side, or the executor has failed and says so.
            let _ = sender.send(under);
        }
    }

    /// Nothing is handed in any more: the settler ends with what is under way.
    pub fn close(&self) {
        self.under_way.lock().take();
    }
}

impl Settler {
    /// Until the appender is closed, or an append will never succeed. Once a stop is asked for, what is refused is let go: it was not
    /// recorded, and whoever starts next performs or asks again.
    pub fn run(self, stopping: &Stopping) -> Result<(), crate::log::Error> {
        let patience = Patience::default();
        while let Ok(mut under) = self.under_way.recv() {
            loop {
                let (error, batches) = match under {
                    Under::Way(ticket, batches) => match ticket.wait() {
                        Ok(_) => break,
                        Err(error) => (error, batches),
                    },
                    Under::Refused(error, batches) => (error, batches),
                };
                if error.advice() != Advice::Retry {
                    return Err(error);
                }
                if stopping.is_asked() {
                    tracing::warn!(%error, "results of effects were not recorded before the stop");
                    break;
                }
                let (pause_ms, tell) = patience.refused(PAUSE_MS, self.clock.now());
                if tell {
                    tracing::warn!(%error, "results of effects are refused by the log; handed in again until they are taken");
                }
                stopping.wait(pause_ms);
                under = match self.log.append(Transaction { batches: batches.clone(), commits: Vec::new() }) {
                    Ok(ticket) => Under::Way(ticket, batches),
                    Err(error) => Under::Refused(error, batches),
                };
            }
            patience.taken();
            self.unsettled.fetch_sub(1, Ordering::AcqRel);
        }
        Ok(())
    }
}
