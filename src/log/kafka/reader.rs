//! Reading: a few streams per partition, each kept where its reader left off, and what they read for whoever comes to the same place.
//!
//! The port names a position with every fetch. A fetch goes on with the stream that stands there, is served from a stream's window if it
//! has been there lately, and only otherwise moves a stream. librdkafka reads each stream ahead in the background, so that a fetch by a
//! reader that keeps up costs no round trip.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::Options;
use super::client::{self, Complaints, Context};
use super::raw::{Item, Signal, Stream};
use super::window::{Gather, Window};
use crate::domain::{Millis, Offset};
use crate::log::{Error, Fetched, TopicPartition, Watermarks};

/// Readers of one partition that are in different places and keep up; more take turns.
const STREAMS_MAX: usize = 6;
/// A stream that nobody read for so long is given up.
const IDLE: Duration = Duration::from_secs(60);
const SETTLE_PAUSE: Duration = Duration::from_millis(5);
/// Messages taken from librdkafka at once.
const READ_MAX: usize = 100_000;

/// A partition as Kafka names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Physical {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
}

pub(super) struct Reader {
    options: Arc<Options>,
    complaints: Complaints,
    /// Each reads a partition at one place only: the streams of one partition are on different ones.
    clients: Mutex<Vec<Arc<BaseConsumer<Context>>>>,
    partitions: RwLock<HashMap<Physical, Arc<Partition>>>,
    signal: Arc<Signal>,
    /// Sees what is not committed; for asking only.
    asker: Mutex<Option<Arc<BaseConsumer<Context>>>>,
}

#[derive(Default)]
struct Partition {
    streams: Mutex<Vec<Standing>>,
    /// The highest end that anybody here has seen.
    end: AtomicU64,
}

struct Standing {
    stream: Stream,
    client: usize,
    window: Window,
    used: Instant,
}

impl Reader {
    pub(super) fn new(options: &Arc<Options>, complaints: &Complaints) -> Self {
        Self {
            options: Arc::clone(options),
            complaints: complaints.clone(),
            clients: Mutex::default(),
            partitions: RwLock::default(),
            signal: Arc::default(),
            asker: Mutex::default(),
        }
    }

    /// Of this log's clients, one to ask questions of.
    pub(super) fn client(&self) -> Result<Arc<BaseConsumer<Context>>, Error> {
        self.nth_client(0)
    }

    fn nth_client(&self, at: usize) -> Result<Arc<BaseConsumer<Context>>, Error> {
        let mut clients = self.clients.lock();
        while clients.len() <= at {
            let made = client::reading(&self.options).create_with_context(Context::new(&self.complaints));
            clients.push(Arc::new(made.map_err(|error| client::refused_setting(&error))?));
        }
        Ok(Arc::clone(&clients[at]))
    }

    fn partition(&self, of: &Physical) -> Arc<Partition> {
        if let Some(partition) = self.partitions.read().get(of) {
            return Arc::clone(partition);
        }
        Arc::clone(self.partitions.write().entry(of.clone()).or_default())
    }

    fn meaning(&self, doing: &str, of: &Physical, error: &KafkaError) -> Error {
        match error.rdkafka_error_code() {
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition) => Error::UnknownTopic(of.topic.to_string()),
            _ => client::meaning(&format!("{doing} {}/{}", of.topic, of.partition), error, &self.complaints, &self.options),
        }
    }

    /// Where the partition begins and ends now: the end is where the oldest open transaction began.
    pub(super) fn watermarks(&self, of: &Physical) -> Result<Watermarks, Error> {
        let client = self.client()?;
        let asked = client::patiently(&self.options, || client.fetch_watermarks(&of.topic, of.partition, self.options.call_timeout));
        let (start, end) = asked.map_err(|error| self.meaning("asking for the ends of", of, &error))?;
        let marks = Watermarks { start: Offset(start.max(0) as u64), end: Offset(end.max(0) as u64) };
        self.appended(of, marks.end);
        Ok(marks)
    }

    /// The end with whatever is being written, once that is decided. A commit is told before its marks are in every partition (KAFKA-10167),
    /// so that the end of what is committed may lie before what was committed last.
    pub(super) fn settled_end(&self, of: &Physical) -> Result<Offset, Error> {
        let unsettled: Arc<BaseConsumer<Context>> = {
            let mut asker = self.asker.lock();
            match &*asker {
                Some(asker) => Arc::clone(asker),
                None => {
                    let mut config = client::reading(&self.options);
                    let made = config.set("isolation.level", "read_uncommitted").create_with_context(Context::new(&self.complaints));
                    Arc::clone(asker.insert(Arc::new(made.map_err(|error| client::refused_setting(&error))?)))
                }
            }
        };
        let asked = client::patiently(&self.options, || unsettled.fetch_watermarks(&of.topic, of.partition, self.options.call_timeout));
        let (_, written) = asked.map_err(|error| self.meaning("asking for the ends of", of, &error))?;
        let written = Offset(written.max(0) as u64);
        // A transaction ends by itself after its timeout, which the broker looks at every ten seconds.
        let deadline = Instant::now() + self.options.transaction_timeout + Duration::from_secs(12);
        loop {
            let settled = self.watermarks(of)?.end;
            if settled >= written {
                return Ok(settled);
            }
            if Instant::now() >= deadline {
                let context = format!("waiting for what is written to {}/{} to be decided", of.topic, of.partition);
                return Err(Error::Unavailable { context, message: "a transaction does not end".into() });
            }
            client::pause(SETTLE_PAUSE);
        }
    }

    /// Records below `end` are there to be read.
    pub(super) fn appended(&self, of: &Physical, end: Offset) {
        if self.partition(of).end.fetch_max(end.0, Ordering::AcqRel) < end.0 {
            self.signal.raise();
        }
    }

    /// The highest end seen, without asking.
    pub(super) fn end_seen(&self, of: &Physical) -> Offset {
        let partition = self.partition(of);
        let standing = partition.streams.lock().iter().map(|standing| standing.window.next()).max();
        Offset(partition.end.load(Ordering::Acquire).max(standing.unwrap_or(0)))
    }

    pub(super) fn offset_at(&self, of: &Physical, time: Millis) -> Result<Offset, Error> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(&of.topic, of.partition, KafkaOffset::Offset(time.0.max(0))).expect("a time is a number");
        let client = self.client()?;
        let found = client::patiently(&self.options, || client.offsets_for_times(asked.clone(), self.options.call_timeout));
        let found = found.map_err(|error| self.meaning("looking for a time in", of, &error))?;
        let element = found.find_partition(&of.topic, of.partition).map(|element| (element.error(), element.offset()));
        match element {
            Some((Err(error), _)) => Err(self.meaning("looking for a time in", of, &error)),
            Some((Ok(()), KafkaOffset::Offset(offset))) => Ok(Offset(offset as u64)),
            _ => Ok(self.watermarks(of)?.end),
        }
    }

    pub(super) fn fetch(&self, id: TopicPartition, of: &Physical, from: Offset, bytes_max: usize) -> Result<Fetched, Error> {
        let partition = self.partition(of);
        let mut streams = partition.streams.lock();
        let at = self.stand(&mut streams, id, of, from)?;
        let deadline = Instant::now() + self.options.call_timeout;
        loop {
            let standing = &mut streams[at];
            standing.used = Instant::now();
            if !standing.window.has_at(from.0) {
                self.read_on(standing, id, of, Duration::ZERO)?;
            }
            let is_behind = standing.window.next() < partition.end.load(Ordering::Acquire);
            if standing.window.has_at(from.0) || standing.window.next() > from.0 || !is_behind {
                return Ok(standing.window.serve(from.0, bytes_max));
            }
            // Something is known to be there: it is on its way.
            if Instant::now() >= deadline {
                let why = self.complaints.last().map_or_else(String::new, |(_, reason)| format!(": {reason}"));
                return Err(Error::Unavailable {
                    context: format!("reading {}/{} at {from}", of.topic, of.partition),
                    message: format!("no answer from {} (kafka.brokers){why}", self.options.brokers),
                });
            }
            self.read_on(standing, id, of, Duration::from_millis(100))?;
        }
    }

    /// The stream for a reader at `from`, moved or begun there if none stands near.
    fn stand(&self, streams: &mut Vec<Standing>, id: TopicPartition, of: &Physical, from: Offset) -> Result<usize, Error> {
        if let Some(at) = streams.iter().position(|standing| standing.window.covers(from.0)) {
            return Ok(at);
        }
        let Watermarks { start, end } = self.watermarks(of)?;
        if from < start || from > end {
            return Err(Error::OffsetOutOfRange { partition: id.into(), asked: from, start, end });
        }
        let mut client = (0..STREAMS_MAX).find(|client| streams.iter().all(|standing| standing.client != *client));
        if client.is_none() {
            let oldest = streams.iter().enumerate().min_by_key(|(_, standing)| standing.used).expect("they are all in use").0;
            client = Some(streams.swap_remove(oldest).client);
        }
        let client = client.expect("one was free or made so");
        let stream = Stream::start(&self.nth_client(client)?, &of.topic, of.partition, from.0, &self.signal);
        let stream = stream.ok_or_else(|| Error::Unavailable {
            context: format!("reading {}/{}", of.topic, of.partition),
            message: "the client does not begin".into(),
        })?;
        streams.push(Standing { stream, client, window: Window::new(from.0, self.options.window_bytes_max), used: Instant::now() });
        Ok(streams.len() - 1)
    }

    /// Takes what has come into the window.
    fn read_on(&self, standing: &mut Standing, id: TopicPartition, of: &Physical, at_most: Duration) -> Result<(), Error> {
        let Standing { stream, window, .. } = standing;
        let mut gather = Gather::new(self.options.window_bytes_max / 8);
        let mut failure = None;
        stream.read(READ_MAX, at_most, |item| match item {
            Item::Message { offset, append_time, timestamp, key, value, headers } if offset >= window.next() => {
                let timestamp = Millis(timestamp.unwrap_or(append_time));
                gather.push(window, offset, Millis(append_time), |batch| batch.push_headed(key, value, timestamp, headers.as_headers()));
            }
            // Below where it was begun: the rest of a batch that holds the offset that was asked for.
            Item::Message { .. } => {}
            Item::End(offset) => {
                gather.close(window);
                window.reach(offset);
            }
            Item::Error(code) => failure = Some(code),
        });
        gather.close(window);
        let Some(code) = failure else { return Ok(()) };
        if matches!(code, Code::OffsetOutOfRange | Code::AutoOffsetReset) {
            let Watermarks { start, end } = self.watermarks(of)?;
            let asked = Offset(window.next());
            return Err(Error::OffsetOutOfRange { partition: id.into(), asked, start, end });
        }
        Err(self.meaning("reading", of, &KafkaError::MessageConsumption(code)))
    }

    /// Blocks until one of them has a record at or past its offset, or the time is up.
    pub(super) fn wait(&self, positions: &[(TopicPartition, Physical, Offset)], at_most: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + at_most;
        loop {
            let seen = self.signal.seen();
            for (id, of, from) in positions {
                if self.has_news(*id, of, *from)? {
                    return Ok(true);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.signal.wait(seen, left);
        }
    }

    fn has_news(&self, id: TopicPartition, of: &Physical, from: Offset) -> Result<bool, Error> {
        let partition = self.partition(of);
        let mut streams = partition.streams.lock();
        let at = self.stand(&mut streams, id, of, from)?;
        let standing = &mut streams[at];
        standing.used = Instant::now();
        if !standing.window.has_at(from.0) {
            self.read_on(standing, id, of, Duration::ZERO)?;
        }
        // Whoever waited goes on past what is no record, too: else it would never arrive at the end.
        Ok(standing.window.next() > from.0 || partition.end.load(Ordering::Acquire) > standing.window.next())
    }

    /// Gives up streams that nobody reads, serves the clients' callbacks.
    pub(super) fn tend(&self) {
        let clients: Vec<_> = self.clients.lock().clone();
        for client in clients {
            // Only errors and logs arrive here: they are noted by the context.
            let _ = client.poll(Duration::ZERO);
        }
        let partitions: Vec<_> = self.partitions.read().values().cloned().collect();
        for partition in partitions {
            partition.streams.lock().retain(|standing| standing.used.elapsed() < IDLE);
        }
    }

    pub(super) fn forget(&self, of: &Physical) {
        self.partitions.write().remove(of);
    }
}
