//! The seam: one writer of a read model, whichever database it is in. Cells and statements go in, rows come out.
//!
//! Statements are written in the SQL that both databases read, with SQLite's placeholders (`?` in turn, or `?1`). What differs between
//! them is behind this: bulk statements, transactions, files or schemas, what is done between transactions.

use super::bulk::{Cell, Lookup, Statement};
use super::value::Row;
use super::{Error, sqlite};
use crate::domain::{Incarnation, Offset};

pub enum Store {
    Sqlite(sqlite::Store),
    #[cfg(feature = "postgres")]
    Postgres(Box<super::postgres::Store>),
}

/// How far a partition has been applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPosition {
    pub topic: String,
    pub partition: u32,
    pub incarnation: Incarnation,
    pub next: Offset,
}

/// The same call on whichever store it is.
macro_rules! on_each {
    ($self:expr, $store:ident => $call:expr) => {
        match $self {
            Store::Sqlite($store) => $call,
            #[cfg(feature = "postgres")]
            Store::Postgres($store) => $call,
        }
    };
}

impl Store {
    pub async fn begin(&mut self) -> Result<(), Error> {
        on_each!(self, store => store.begin().await)
    }

    /// After an error nobody knows whether it was committed: the positions, read anew on another connection, say so.
    pub async fn commit(&mut self) -> Result<(), Error> {
        on_each!(self, store => store.commit().await)
    }

    pub async fn roll_back(&mut self) -> Result<(), Error> {
        on_each!(self, store => store.roll_back().await)
    }

    /// One statement; the answer is how many rows it was about. `what` is for the error.
    pub async fn execute(&mut self, what: &'static str, sql: &str, cells: Vec<Cell>) -> Result<u64, Error> {
        on_each!(self, store => store.execute(what, sql, cells).await)
    }

    pub async fn fetch(&mut self, what: &'static str, sql: &str, cells: Vec<Cell>) -> Result<Vec<Row>, Error> {
        on_each!(self, store => store.fetch(what, sql, cells).await)
    }

    /// Writes whole rows, in order.
    pub async fn write(&mut self, statement: &Statement, cells: Vec<Cell>) -> Result<(), Error> {
        if cells.is_empty() {
            return Ok(());
        }
        on_each!(self, store => store.write(statement, cells).await)
    }

    /// The rows of all keys, in no order among keys.
    pub async fn look_up(&mut self, lookup: &Lookup, keys: Vec<Cell>) -> Result<Vec<Row>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        on_each!(self, store => store.look_up(lookup, keys).await)
    }

    /// What nobody reads yet need not survive a power cut until it is finished.
    pub async fn set_durable(&mut self, durable: bool) -> Result<(), Error> {
        on_each!(self, store => store.set_durable(durable).await)
    }

    /// Between transactions: what keeps the store quick and small, without waiting for it. `now` in ms since 1970.
    #[cfg_attr(not(feature = "postgres"), expect(unused_variables, reason = "files keep all events"))]
    pub async fn tend(&mut self, now: i64) -> Result<(), Error> {
        match self {
            Store::Sqlite(store) => store.tend().await,
            #[cfg(feature = "postgres")]
            Store::Postgres(store) => store.tend(now).await,
        }
    }

    /// The same where nobody waits for rows.
    pub async fn tend_waiting(&mut self) -> Result<(), Error> {
        match self {
            Store::Sqlite(store) => store.tend_waiting().await,
            #[cfg(feature = "postgres")]
            Store::Postgres(_) => Ok(()),
        }
    }

    /// Begins to keep events only as long as is configured, seen from `now`.
    #[cfg_attr(not(feature = "postgres"), expect(unused_variables, reason = "files keep all events"))]
    pub async fn keep_events(&mut self, now: i64) -> Result<(), Error> {
        match self {
            Store::Sqlite(_) => Ok(()),
            #[cfg(feature = "postgres")]
            Store::Postgres(store) => store.keep_events(now).await,
        }
    }

    /// Events before this time, in ms since 1970, have no rows: their retention is over.
    pub fn events_from(&self) -> i64 {
        match self {
            Store::Sqlite(_) => i64::MIN,
            #[cfg(feature = "postgres")]
            Store::Postgres(store) => store.events_from(),
        }
    }

    /// Makes everything durable and closes it.
    pub async fn finish(self) -> Result<(), Error> {
        on_each!(self, store => store.finish().await)
    }

    pub async fn close(self) -> Result<(), Error> {
        on_each!(self, store => store.close().await)
    }

    pub async fn positions(&mut self) -> Result<Vec<StoredPosition>, Error> {
        let sql = "SELECT topic, partition, incarnation, next_offset FROM processing_status";
        let position = |row: &Row| StoredPosition {
            topic: row.get(0),
            partition: row.get(1),
            incarnation: Incarnation(row.get(2)),
            next: Offset(row.get::<i64>(3) as u64),
        };
        Ok(self.fetch("positions", sql, Vec::new()).await?.iter().map(position).collect())
    }
}
