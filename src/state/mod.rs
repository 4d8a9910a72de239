//! State: keyed snapshots that a fold can rebuild from the log, an ordered index of wake-ups, and how far both have come.
//!
//! This file is the port. State is never the truth: an adapter that will not open is deleted and rebuilt. A [`Flush`] is atomic where the
//! backend can (fjall) and ordered where it cannot (index entries, states, watermark, then index deletions).

mod fjall;
mod memory;

use bytes::Bytes;

use crate::domain::Millis;

pub use self::fjall::{FjallOptions, FjallStore, Opened};
pub use memory::MemoryStore;

/// A table of one fold and partition, named with its incarnation and fold version: `demo.profiles.3.i1.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table(pub std::sync::Arc<str>);

/// When a key wants to be woken. The key's state is the truth, this is a hint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wake {
    pub due: Millis,
    pub key: Bytes,
}

/// What one flush makes of a table, all of it stored or (after a crash) none.
#[derive(Debug, Default)]
pub struct Flush {
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
}

impl Error {
    /// Whether the same call may succeed later, with nothing lost until then.
    pub fn may_pass(&self) -> bool {
        matches!(self, Error::NoSpace | Error::Poisoned)
    }
}

pub trait StateStore: Send + Sync {
    /// The state of each key, in the keys' order.
    fn get_many(&self, table: &Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, Error>;

    fn flush(&self, table: &Table, flush: Flush) -> Result<(), Error>;

    fn watermark(&self, table: &Table) -> Result<Option<Bytes>, Error>;

    /// Wake-ups due at or before `until` and after `after`, in order of (due, key), at most `limit`.
    fn due(&self, table: &Table, until: Millis, after: Option<&Wake>, limit: usize) -> Result<Vec<Wake>, Error>;

    /// Up to `limit` (key, state) pairs after `after`, in key order.
    fn scan(&self, table: &Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Error>;

    /// Drops a table and all it holds.
    fn drop_table(&self, table: &Table) -> Result<(), Error>;

    /// The names of all tables.
    fn tables(&self) -> Result<Vec<Table>, Error>;
}
