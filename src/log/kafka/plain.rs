//! Appends without offsets: an idempotent producer, acknowledged by all replicas that are in sync.
//!
//! A batch of several partitions is not atomic here. It is acknowledged whole; one that was never acknowledged may be partly there, and
//! whoever hands it in again deduplicates (architecture.md).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, Producer};

use super::Options;
use super::client::{self, Complaints};
use super::delivery::{self, Append, Reports};
use super::raw::Topic;
use super::reader::{Physical, Reader};
use crate::domain::Offset;
use crate::log::{Error, RecordBatch, Ticket};

/// How long an append waits for room in librdkafka's queue.
const ROOM_WAIT: Duration = Duration::from_secs(1);

type Topics = HashMap<Arc<str>, Arc<Topic<Reports>>>;

/// A producer and the topics it has written to.
struct Made {
    producer: Arc<BaseProducer<Reports>>,
    topics: Topics,
}

struct Shared {
    options: Arc<Options>,
    complaints: Complaints,
    reader: Arc<Reader>,
    made: Mutex<Option<Made>>,
    queued: AtomicUsize,
    closed: AtomicBool,
}

pub(super) struct Plain {
    shared: Arc<Shared>,
    poller: Mutex<Option<JoinHandle<()>>>,
}

impl Plain {
    pub(super) fn new(options: &Arc<Options>, complaints: &Complaints, reader: &Arc<Reader>) -> Self {
        let shared = Arc::new(Shared {
            options: Arc::clone(options),
            complaints: complaints.clone(),
            reader: Arc::clone(reader),
            made: Mutex::new(None),
            queued: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        });
        let polling = Arc::clone(&shared);
        let poller = std::thread::Builder::new().name("kafka-appends".into()).spawn(move || polling.poll());
        Self { shared, poller: Mutex::new(Some(poller.expect("the system has room for a thread"))) }
    }

    /// Hands in batches; the ticket resolves when all of them are acknowledged.
    pub(super) fn append(&self, batches: Vec<(Physical, RecordBatch)>) -> Result<Ticket, Error> {
        self.shared.append(batches)
    }

    pub(super) fn health(&self) -> Result<(), Error> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        if self.shared.queued.load(Ordering::Acquire) >= self.shared.options.queue_bytes_max { Err(Error::Overloaded) } else { Ok(()) }
    }

    /// What was handed in is still sent; nothing more is taken.
    pub(super) fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        if let Some(poller) = self.poller.lock().take() {
            // Its panic was logged; there is nothing to add to it here.
            let _ = poller.join();
        }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn producer(&self, topics: impl Iterator<Item = Arc<str>>) -> Result<Topics, Error> {
        let mut made = self.made.lock();
        if made.as_ref().is_some_and(|made| delivery::is_fatal(made.producer.client().native_ptr())) {
            tracing::warn!("the producer met an error that it cannot go on from; making another");
            *made = None;
        }
        let made = match &mut *made {
            Some(made) => made,
            empty => {
                let mut config = client::writing(&self.options);
                let call_ms = self.options.call_timeout.as_millis().to_string();
                config.set("message.timeout.ms", &call_ms).set("request.timeout.ms", &call_ms).set("linger.ms", "2");
                let producer = config.create_with_context(Reports::new(&self.complaints));
                let producer = Arc::new(producer.map_err(|error| client::refused_setting(&error))?);
                empty.insert(Made { producer, topics: HashMap::new() })
            }
        };
        let mut wanted = Topics::new();
        for name in topics {
            if !made.topics.contains_key(&name) {
                let topic = Topic::new(&made.producer, &name).ok_or_else(|| Error::UnknownTopic(name.to_string()))?;
                made.topics.insert(Arc::clone(&name), Arc::new(topic));
            }
            let topic = Arc::clone(&made.topics[&name]);
            wanted.insert(name, topic);
        }
        Ok(wanted)
    }

    fn append(self: &Arc<Self>, batches: Vec<(Physical, RecordBatch)>) -> Result<Ticket, Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let (sender, ticket) = Ticket::new();
        // A batch without records stands where the next record will.
        let ends = batches
            .iter()
            .map(|(of, batch)| if batch.is_empty() { self.reader.watermarks(of).map(|marks| Some(marks.end)) } else { Ok(None) });
        let ends: Vec<Option<Offset>> = ends.collect::<Result<_, Error>>()?;
        let topics = self.producer(batches.iter().map(|(of, _)| Arc::clone(&of.topic)))?;
        let bytes: usize = batches.iter().map(|(_, batch)| batch.data().len()).sum();
        if self.queued.fetch_add(bytes, Ordering::AcqRel) + bytes > self.options.queue_bytes_max {
            self.queued.fetch_sub(bytes, Ordering::AcqRel);
            return Err(Error::Overloaded);
        }
        let records = batches.iter().map(|(_, batch)| batch.len()).sum::<usize>();
        let places: Vec<Physical> = batches.iter().map(|(of, _)| of.clone()).collect();
        let shared = Arc::clone(self);
        // One more than there are records: the append itself, so that the last report cannot come before all were handed in.
        let append = Append::new(records + 1, batches.len(), move |append| {
            shared.queued.fetch_sub(bytes, Ordering::AcqRel);
            let outcome = match append.failure() {
                Some(code) => Err(shared.failed(code)),
                None => {
                    for (of, end) in places.iter().zip(append.ends()) {
                        shared.reader.appended(of, end);
                    }
                    let mut appended = append.appended();
                    appended.first_offsets.iter_mut().zip(ends).for_each(|(first, end)| *first = end.unwrap_or(*first));
                    Ok(appended)
                }
            };
            // Whoever asked may have gone.
            let _ = sender.send(outcome);
        });
        let mut left = records;
        'all: for (at, (of, batch)) in batches.iter().enumerate() {
            let part = append.part(at);
            for record in batch {
                if let Err(code) = self.hand_in(&topics[&of.topic], of.partition, &record, &part) {
                    append.refuse(left, code);
                    break 'all;
                }
                left -= 1;
            }
        }
        append.handed_in();
        Ok(ticket)
    }

    fn hand_in(
        &self,
        topic: &Topic<Reports>,
        partition: i32,
        record: &crate::log::RecordRef<'_>,
        part: &Arc<delivery::Part>,
    ) -> Result<(), Code> {
        let opaque = delivery::opaque(part);
        let deadline = Instant::now() + ROOM_WAIT;
        loop {
            match topic.produce(partition, record, opaque) {
                Ok(()) => return Ok(()),
                // The poller makes room as reports come.
                Err(Code::QueueFull) if Instant::now() < deadline => client::pause(Duration::from_millis(1)),
                Err(code) => {
                    delivery::taken_back(opaque);
                    return Err(code);
                }
            }
        }
    }

    fn failed(&self, code: Code) -> Error {
        match code {
            Code::QueueFull => Error::Overloaded,
            Code::MessageSizeTooLarge => Error::TooLarge { bytes: super::MESSAGE_BYTES_MAX + 1, max: super::MESSAGE_BYTES_MAX },
            Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => Error::Unavailable {
                context: "appending".into(),
                message: "fewer replicas are in sync than min.insync.replicas asks for; a broker is away".into(),
            },
            code => client::meaning("appending", &KafkaError::MessageProduction(code), &self.complaints, &self.options),
        }
    }

    /// Serves delivery reports until closed, and then those that are still to come.
    fn poll(&self) {
        let mut until = None;
        loop {
            let producer = self.made.lock().as_ref().map(|made| Arc::clone(&made.producer));
            match &producer {
                Some(producer) => producer.poll(Duration::from_millis(20)),
                None => client::pause(Duration::from_millis(5)),
            }
            if self.closed.load(Ordering::Acquire) {
                let until = until.get_or_insert_with(|| Instant::now() + self.options.call_timeout);
                let under_way = producer.map_or(0, |producer| producer.in_flight_count());
                if under_way == 0 || Instant::now() >= *until {
                    return;
                }
            }
        }
    }
}
