//! State: keyed snapshots that a fold can rebuild from the log, an ordered index of wake-ups, and how far both have come.
//!
//! This file is the port. State is never the truth: an adapter that will not open is deleted and rebuilt. A [`Flush`] is atomic where the
//! backend can (fjall) and ordered where it cannot (index entries, states, watermark, then index deletions). So a state may be ahead of its
//! table's watermark, never behind it: each says how far the log was folded when it was stored ([`Upto`]), and a fold that re-reads leaves
//! out what a state holds already.

#[cfg(feature = "cassandra")]
mod cassandra;
mod fjall;
mod memory;
mod options;

use bytes::Bytes;

use crate::domain::{Incarnation, Millis, Offset};

pub use self::fjall::{FjallOptions, FjallStore, Opened};
#[cfg(feature = "cassandra")]
pub use cassandra::CassandraStore;
pub use memory::MemoryStore;
pub use options::{Backend, CassandraOptions, Options};

/// A table of one fold and partition, named with its incarnation and fold version: `demo.profiles.3.i1.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table(pub std::sync::Arc<str>);

/// When a key wants to be woken. The key's state is the truth, this is a hint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wake {
    pub due: Millis,
    pub key: Bytes,
}

/// How far a log was folded: everything below `next` and, of the record there, what `within` says.
///
/// The later one of the same incarnation holds all that the earlier one held, and folding is deterministic: the same place makes the same
/// bytes, whoever folds. So where two owners write one row, the later place is right, and the same place is the same write.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Upto {
    pub incarnation: Incarnation,
    pub next: Offset,
    /// Nothing, or how far into the record at `next`, as bytes whose order is that of the places.
    pub within: Bytes,
}

impl Upto {
    pub fn new(incarnation: Incarnation, next: Offset) -> Self {
        Self { incarnation, next, within: Bytes::new() }
    }
}

/// A state, and how far the log was folded when it was stored: [`Upto::default`] where a flush is whole or absent, so that no state can be
/// ahead of its table's watermark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub state: Bytes,
    pub upto: Upto,
}

/// What one flush makes of a table. Atomic stores have all of it after a crash or none; the others any beginning of it, in the port's order.
#[derive(Debug, Default)]
pub struct Flush {
    /// What it holds. Rows of a later flush are never overwritten by one of an earlier place that comes late.
    pub upto: Upto,
    /// `None` removes the key.
    pub states: Vec<(Bytes, Option<Bytes>)>,
    pub wakes_set: Vec<Wake>,
    pub wakes_cleared: Vec<Wake>,
    /// Replaces the table's watermark: position, feeder times and whatever else the fold restarts from.
    pub watermark: Option<Bytes>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("state store: {0}; it can be rebuilt from the log: stop, remove the `state` folder and start again")]
    Backend(String),
    #[error("the state folder is in use by another process")]
    InUse,
    #[error("the disk is full: state cannot be flushed")]
    NoSpace,
    #[error("the state store took no more after a write that failed; it is opened again")]
    Poisoned,
    #[error("the state store does not answer: {0}")]
    Unavailable(String),
    #[error(
        "shared state: {0}; it can be rebuilt from the log: stop every process, drop the keyspace that `cassandra.keyspace` names, start again"
    )]
    Shared(String),
    #[error("{key}: {detail}")]
    Refused { key: &'static str, detail: String },
}

impl Error {
    /// Whether the same call may succeed later, with nothing lost until then.
    pub fn may_pass(&self) -> bool {
        matches!(self, Error::NoSpace | Error::Poisoned | Error::Unavailable(_))
    }
}

pub trait StateStore: Send + Sync {
    /// The state of each key, in the keys' order.
    fn get_many(&self, table: &Table, keys: &[&[u8]]) -> Result<Vec<Option<Stored>>, Error>;

    fn flush(&self, table: &Table, flush: Flush) -> Result<(), Error>;

    /// Asked first by whoever takes a partition over: what it knew of the table from an earlier time is forgotten.
    fn watermark(&self, table: &Table) -> Result<Option<Bytes>, Error>;

    /// Wake-ups due at or before `until` and after `after`, in order of (due, key), at most `limit`.
    fn due(&self, table: &Table, until: Millis, after: Option<&Wake>, limit: usize) -> Result<Vec<Wake>, Error>;

    /// Up to `limit` (key, state) pairs after `after`, in key order.
    fn scan(&self, table: &Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Stored)>, Error>;

    /// Drops a table and all it holds.
    fn drop_table(&self, table: &Table) -> Result<(), Error>;

    /// The names of all tables, in order.
    fn tables(&self) -> Result<Vec<Table>, Error>;
}
