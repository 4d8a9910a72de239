//! The log: ordered, partitioned, durable topics, and the only truth there is.
//!
//! This file is the port: what every backend can do, two traits and the values they speak in. `embedded/` is the product's own segment
//! log, `memory` the one for tests and simulation; both pass `tests/it/log_contract`. Records are bytes here: `schema` gives them meaning.
//!
//! Invariants every adapter keeps: offsets of a partition rise by one per record; a [`Transaction`] is visible whole or not at all; only
//! durable records are served; a commit by a stale owner is refused; nothing above a reader's committed offset is trimmed.

pub mod embedded;
mod headers;
#[cfg(feature = "kafka")]
pub mod kafka;
mod membership;
pub mod memory;
mod record;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::domain::{Incarnation, Millis, Namespace, Offset, PartitionId};
pub use embedded::EmbeddedLog;
pub use headers::{HEADERS_BYTES_MAX, Header, HeaderList, Headers, HeadersTooLarge};
#[cfg(feature = "kafka")]
pub use kafka::KafkaLog;
pub use membership::{Change, Everything, Membership};
pub use memory::MemoryLog;
pub use record::{BatchBuilder, Record, RecordBatch, RecordRef};

/// A topic of one namespace; `demo.events` on disk, in metrics and on the command line.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    pub fn new(namespace: &Namespace, topic: &str) -> Self {
        Self(format!("{namespace}.{topic}").into())
    }

    /// Reads `namespace.topic`.
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, topic) = text.split_once('.')?;
        Namespace::new(namespace).ok()?;
        Namespace::new(topic).ok()?;
        Some(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn namespace(&self) -> &str {
        self.0.split_once('.').expect("checked when made").0
    }

    pub fn topic(&self) -> &str {
        self.0.split_once('.').expect("checked when made").1
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number a log gave a topic when it was created; stable for the log's life, cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u32);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: TopicId,
    pub partition: PartitionId,
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic.0, self.partition.0)
    }
}

/// A partition as errors name it: by its topic's name, once whoever knows the names has seen the error.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    pub id: TopicPartition,
    pub topic: Option<TopicName>,
}

impl From<TopicPartition> for Place {
    fn from(id: TopicPartition) -> Self {
        Self { id, topic: None }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.topic {
            Some(topic) => write!(f, "{topic}/{}", self.id.partition.0),
            None => write!(f, "{:?}", self.id),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What may be deleted. Nothing is, below what a consumer group has yet to read or above a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    Forever,
    /// Whole segments whose newest record was appended longer ago than this.
    Age(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    Delete,
    /// Keep at least the newest record of every key; a record without a value removes the key.
    Compact,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: TopicName,
    pub partitions: u32,
    pub retention: Retention,
    pub cleanup: Cleanup,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    pub id: TopicId,
    pub spec: TopicSpec,
    pub incarnation: Incarnation,
}

/// A consumer group: the name under which a processor's progress is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(pub Arc<str>);

/// Proof of owning (group, partition), newer than every one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    pub group: Group,
    pub partition: TopicPartition,
    pub epoch: u64,
}

/// Progress of a group on one partition: the next offset to read, and what the processor wants to find again with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub offset: Offset,
    /// At most [`COMMIT_METADATA_BYTES_MAX`].
    pub metadata: Bytes,
}

/// Kafka's default `offset.metadata.max.bytes`; the embedded log holds to the same bound.
pub const COMMIT_METADATA_BYTES_MAX: usize = 4096;

/// The largest record (key, value and headers), so that any backend with default limits can hold it.
pub const RECORD_BYTES_MAX: usize = 1_000_000;

/// Batches and consumed offsets that become visible together or not at all.
#[derive(Debug, Default)]
pub struct Transaction {
    pub batches: Vec<(TopicPartition, RecordBatch)>,
    pub commits: Vec<(Ownership, Committed)>,
}

/// What a durable append was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The first offset of each batch, in the order they were handed in.
    pub first_offsets: Vec<Offset>,
    pub append_time: Millis,
}

/// A promise that an append will be durable; await it or block on it.
#[must_use = "an append is durable only once its ticket says so"]
pub struct Ticket(oneshot::Receiver<Result<Appended, Error>>);

impl Ticket {
    pub fn new() -> (oneshot::Sender<Result<Appended, Error>>, Ticket) {
        let (sender, receiver) = oneshot::channel();
        (sender, Ticket(receiver))
    }

    /// Blocks the thread until the append is durable. Async code awaits the ticket instead.
    pub fn wait(mut self) -> Result<Appended, Error> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match Pin::new(&mut self).poll(&mut context) {
                Poll::Ready(appended) => return appended,
                // Whatever else unparks this thread only makes it look once more.
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

/// Wakes a thread that waits for a ticket.
struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Future for Ticket {
    type Output = Result<Appended, Error>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|result| result.unwrap_or(Err(Error::Closed)))
    }
}

/// Where a partition begins and ends: records in `[start, end)` can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    pub start: Offset,
    pub end: Offset,
}

/// Records from one fetch, in offset order. Empty at the partition's end.
#[derive(Debug, Clone, Default)]
pub struct Fetched {
    pub batches: Vec<RecordBatch>,
    /// Where to fetch next: past the last record, and past what compaction left out.
    pub next: Offset,
}

impl Fetched {
    pub fn records(&self) -> impl Iterator<Item = RecordRef<'_>> {
        self.batches.iter().flat_map(RecordBatch::iter)
    }

    pub fn len(&self) -> usize {
        self.batches.iter().map(|batch| batch.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("there is no topic {0}; create it, or check the topology's spelling")]
    UnknownTopic(String),
    #[error("topic {name} exists with {have}, asked for {want}; repartition it instead")]
    TopicDisagrees { name: TopicName, have: String, want: String },
    #[error("offset {asked} of {partition} is outside of {start}..{end}")]
    OffsetOutOfRange { partition: Place, asked: Offset, start: Offset, end: Offset },
    #[error("offsets {from}..{to} of {partition} are damaged on disk; everything else is readable; run `flywheel doctor`")]
    Hole { partition: Place, from: Offset, to: Offset },
    #[error("this owner of {0:?} was replaced by a newer one; its commit is refused")]
    Fenced(TopicPartition),
    #[error("the disk is full; appends are refused until there is space, reads go on")]
    NoSpace,
    #[error("too many bytes wait to be written; try again shortly")]
    Overloaded,
    #[error("an append of {bytes} bytes is larger than the {max} that are taken at once")]
    TooLarge { bytes: usize, max: usize },
    #[error("the log is closed")]
    Closed,
    #[error("the folder {folder} is in use by {holder}; stop that, or use another folder: --data")]
    Locked { folder: String, holder: String },
    #[error("topic {topic} is there with {have}; this log needs {want}: change the topic's settings, or use another kafka.topic_prefix")]
    TopicSettings { topic: String, have: String, want: String },
    #[error("{key}: {message}")]
    Refused { key: &'static str, message: String },
    #[error("{context}: {message}")]
    Unavailable { context: String, message: String },
    #[error("whether a commit took place is not known: {0}; the next start finds out")]
    OutcomeUnknown(String),
    #[error("{context}: {message}")]
    Io { context: String, message: String },
    #[error("{0}")]
    Corrupt(String),
}

/// What a caller does about an error; decided here, not by callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// The same call may succeed later.
    Retry,
    /// This call will never succeed; others may.
    Reject,
    /// Stop the process: going on could break a promise.
    Fatal,
}

impl Error {
    pub fn advice(&self) -> Advice {
        match self {
            Error::NoSpace | Error::Overloaded | Error::Unavailable { .. } => Advice::Retry,
            Error::UnknownTopic(_) | Error::TopicDisagrees { .. } | Error::OffsetOutOfRange { .. } => Advice::Reject,
            Error::TooLarge { .. } | Error::Hole { .. } | Error::Locked { .. } => Advice::Reject,
            Error::TopicSettings { .. } | Error::Refused { .. } => Advice::Reject,
            Error::OutcomeUnknown(_) | Error::Fenced(_) | Error::Closed | Error::Io { .. } | Error::Corrupt(_) => Advice::Fatal,
        }
    }

    /// The same error with the topic by its name.
    fn named(mut self, topics: &[TopicInfo]) -> Error {
        if let Error::Hole { partition, .. } | Error::OffsetOutOfRange { partition, .. } = &mut self {
            let topic = topics.iter().find(|topic| topic.id == partition.id.topic);
            partition.topic = topic.map(|topic| topic.spec.name.clone());
        }
        self
    }

    pub fn io(context: impl Into<String>, error: &std::io::Error) -> Error {
        Error::Io { context: context.into(), message: error.to_string() }
    }
}

/// The topic that has `spec`'s name, as creating it once more leaves it; an error if what is there cannot become what is asked for.
fn agreed(existing: &TopicInfo, spec: &TopicSpec) -> Result<TopicInfo, Error> {
    let agreed = TopicInfo { spec: TopicSpec { retention: spec.retention, ..existing.spec.clone() }, ..existing.clone() };
    if agreed.spec != *spec {
        let (have, want) = (format!("{:?}", existing.spec), format!("{spec:?}"));
        return Err(Error::TopicDisagrees { name: spec.name.clone(), have, want });
    }
    Ok(agreed)
}

/// Reading. Needs no lock: the command line reads beside a running server.
pub trait LogReader: Send + Sync {
    fn topics(&self) -> Result<Vec<TopicInfo>, Error>;

    fn watermarks(&self, partition: TopicPartition) -> Result<Watermarks, Error>;

    /// The end as this process last saw it, without asking anybody: for figures, which may be a moment old.
    fn end_seen(&self, partition: TopicPartition) -> Result<Offset, Error> {
        Ok(self.watermarks(partition)?.end)
    }

    /// The end, once whatever was being committed when this was asked has been decided: what a fold that recovers from its outputs reads to,
    /// after it has acquired what it writes them for.
    fn settled_end(&self, partition: TopicPartition) -> Result<Offset, Error> {
        Ok(self.watermarks(partition)?.end)
    }

    /// Up to about `bytes_max` of records from `from` on, at least one if there is one. Empty at the end; never blocks for more.
    fn fetch(&self, partition: TopicPartition, from: Offset, bytes_max: usize) -> Result<Fetched, Error>;

    /// The first offset appended at or after `time`, the end if there is none.
    fn offset_at(&self, partition: TopicPartition, time: Millis) -> Result<Offset, Error>;

    fn committed(&self, group: &Group, partition: TopicPartition) -> Result<Option<Committed>, Error>;

    /// Whether records of it were lost and an operator has declared so: what was derived from them elsewhere is not in the log either.
    fn has_declared_holes(&self, _partition: TopicPartition) -> Result<bool, Error> {
        Ok(false)
    }

    /// Blocks until one of the partitions has a record at or past its offset, or the time is up; true if one has.
    fn wait(&self, positions: &[(TopicPartition, Offset)], at_most: Duration) -> Result<bool, Error>;
}

/// Writing. One process per folder.
pub trait LogWriter: LogReader {
    /// Creates a topic, or returns the one that exists and agrees on partitions and cleanup. Its retention becomes what `spec` says: unlike
    /// those it can change under records that are there.
    fn create_topic(&self, spec: &TopicSpec) -> Result<TopicInfo, Error>;

    /// Takes over (group, partition): every commit under an older ownership is refused from now on.
    fn acquire(&self, group: &Group, partition: TopicPartition) -> Result<Ownership, Error>;

    /// Hands in one atomic append and returns at once; the ticket resolves when it is durable and visible.
    fn append(&self, transaction: Transaction) -> Result<Ticket, Error>;

    /// Why an append would be refused now, or the last one was: closed, failed, full, not keeping up. Appends are what finds a full disk and
    /// what finds it freed.
    fn health(&self) -> Result<(), Error>;

    /// Keeps everything from `offset` on until replaced or, with `None`, dropped. Pins survive restarts.
    fn pin(&self, name: &str, partition: TopicPartition, offset: Option<Offset>) -> Result<(), Error>;

    /// [`pin`](LogWriter::pin) for several partitions at once, which costs a log on disk as much as one.
    fn pin_all(&self, name: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), Error> {
        offsets.iter().try_for_each(|(partition, offset)| self.pin(name, *partition, Some(*offset)))
    }

    /// Deletes and compacts what each topic's spec allows as of `now`; returns the bytes freed.
    fn clean(&self, now: Millis) -> Result<u64, Error>;

    /// Makes what was handed in durable and takes nothing more.
    fn close(&self) {}

    /// Becomes a member of `group`, whose members share the partitions of `topic`. A log of one process has one member, which has them all.
    fn join(&self, _group: &Group, topic: TopicId) -> Result<Box<dyn Membership>, Error> {
        let info = self.topics()?.into_iter().find(|info| info.id == topic);
        let info = info.ok_or_else(|| Error::UnknownTopic(format!("number {}", topic.0)))?;
        Ok(Box::new(Everything::of(&info)))
    }
}
