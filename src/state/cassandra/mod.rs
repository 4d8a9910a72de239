//! State in Cassandra or Scylla, shared by the processes that take each other's partitions over. Never the truth: the log rebuilds it.
//!
//! **Who wins.** Every write carries a position of the log as its timestamp ([`cell`]), one blob cell per row, QUORUM both ways. A stale
//! owner's late flush loses to all that the new one wrote of later positions; where it is itself the later one, it is right, since folding
//! is deterministic: its states are those that the new owner comes to, who is told how far each of them is ([`super::Stored::upto`]). The
//! same position twice is the same bytes.
//!
//! **A flush is not atomic.** Its order is index entries, states, watermark, then index deletions. Whatever is cut off after any of its
//! steps leaves states ahead of the watermark, and entries in the index that nobody wants, which whoever meets them deletes. Deletions are
//! those of the flush *before*: its watermark was stored before the next began, so that an owner who reads an older one needs none of
//! them. With this flush's own, a stale owner could take a wake-up from under a new one that is not as far yet.
//!
//! **Where rows lie.** A table's states are spread over [`cell::BUCKETS`] partitions by a hash of the key, within each in key order: a flush
//! is one unlogged batch, which is one mutation, per partition and 64 kB, and a scan merges the partitions' pages. One partition per key
//! would spread as well and cost one request per state, and could not be read in key order at all.
//!
//! The port is synchronous, the driver is not: calls run on a small runtime of this store's own and wait for it, each request with a
//! deadline. Nothing on the way of an event uses a lightweight transaction; making and dropping tables does.

mod cell;
mod connect;
mod errors;
mod read;
mod statements;
mod tables;
mod wakes;
mod write;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use scylla::client::session::Session;
use scylla::response::query_result::QueryRowsResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::statements::Statements;
use self::tables::Known;
use super::{CassandraOptions, Error, Flush, StateStore, Stored, Table, Wake};
use crate::domain::Millis;

const THREADS: usize = 2;

/// The store; drop it to close its connections.
pub struct CassandraStore {
    inner: Arc<Inner>,
    /// Taken when it is dropped: a runtime must not be waited for where others are driven.
    runtime: Option<tokio::runtime::Runtime>,
}

struct Inner {
    session: Arc<Session>,
    statements: Arc<Statements>,
    incarnation_max: u32,
    /// One for each request under way.
    room: Arc<Semaphore>,
    /// The tables met so far, until they are asked for their watermark again. Held for look-ups only.
    known: Mutex<HashMap<Table, Arc<Known>>>,
}

impl CassandraStore {
    /// Connects, makes the keyspace if it may, and cleans up after tables whose dropping was cut short.
    ///
    /// # Errors
    /// [`Error::Refused`] with the key to change, after ten seconds at most: no node answers, the login is wrong, the keyspace is absent,
    /// somebody else's or of another schema version, or the cluster refuses positions as write timestamps.
    pub fn open(options: &CassandraOptions) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("cassandra")
            .enable_all()
            .build()
            .map_err(|error| Error::Shared(format!("no threads for its connections: {error}")))?;
        let settings = options.clone();
        let connected = wait_for(&runtime, async move { connect::connect(&settings).await });
        let connected = match connected {
            Ok(connected) => connected,
            Err(error) => {
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let inner = Arc::new(Inner {
            session: connected.session,
            statements: connected.statements,
            incarnation_max: connected.incarnation_max,
            room: Arc::new(Semaphore::new(options.in_flight_max.max(1))),
            known: Mutex::default(),
        });
        let store = Self { inner, runtime: Some(runtime) };
        store.wait(|inner| async move { inner.clean_dropped().await })?;
        Ok(store)
    }

    /// Runs it on the store's own runtime, wherever the caller is.
    fn wait<T, F>(&self, call: impl FnOnce(Arc<Inner>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let runtime = self.runtime.as_ref().expect("taken only when dropped");
        wait_for(runtime, call(Arc::clone(&self.inner)))
    }
}

fn wait_for<T: Send + 'static>(
    runtime: &tokio::runtime::Runtime,
    call: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let (done, wait) = std::sync::mpsc::sync_channel(1);
    runtime.spawn(async move {
        // The caller waits until this is sent or dropped.
        done.send(call.await).ok();
    });
    wait.recv().unwrap_or_else(|_| Err(Error::Shared("a call panicked".into())))
}

impl Drop for CassandraStore {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Inner {
    /// Sends one statement when there is room.
    async fn run(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<(), Error> {
        let _room = self.room.acquire().await.expect("never closed");
        self.session.execute_unpaged(statement, values).await.map(drop).map_err(errors::failed)
    }

    /// The same for one that has rows to give; whoever sends it has bounded them.
    async fn rows(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<QueryRowsResult, Error> {
        let _room = self.room.acquire().await.expect("never closed");
        let result = self.session.execute_unpaged(statement, values).await.map_err(errors::failed)?;
        result.into_rows_result().map_err(errors::unreadable)
    }
}

/// Waits for all of them, or for the first that fails; those left over are given up.
async fn all<T: Send + 'static>(mut tasks: JoinSet<Result<T, Error>>) -> Result<Vec<T>, Error> {
    let mut done = Vec::with_capacity(tasks.len());
    while let Some(task) = tasks.join_next().await {
        done.push(task.unwrap_or_else(|error| Err(Error::Shared(format!("a request panicked: {error}"))))?);
    }
    Ok(done)
}

impl StateStore for CassandraStore {
    fn get_many(&self, table: &Table, keys: &[&[u8]]) -> Result<Vec<Option<Stored>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let table = table.clone();
        let keys: Vec<Bytes> = keys.iter().map(|key| Bytes::copy_from_slice(key)).collect();
        self.wait(|inner| async move { inner.get_many(&table, keys).await })
    }

    fn flush(&self, table: &Table, flush: Flush) -> Result<(), Error> {
        let table = table.clone();
        self.wait(|inner| async move { inner.flush(&table, flush).await })
    }

    fn watermark(&self, table: &Table) -> Result<Option<Bytes>, Error> {
        let table = table.clone();
        self.wait(|inner| async move { inner.watermark(&table).await })
    }

    fn due(&self, table: &Table, until: Millis, after: Option<&Wake>, limit: usize) -> Result<Vec<Wake>, Error> {
        let (table, after) = (table.clone(), after.cloned());
        self.wait(|inner| async move { inner.due(&table, until, after, limit).await })
    }

    fn scan(&self, table: &Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Stored)>, Error> {
        let (table, after) = (table.clone(), after.map(Bytes::copy_from_slice));
        self.wait(|inner| async move { inner.scan(&table, after, limit).await })
    }

    fn drop_table(&self, table: &Table) -> Result<(), Error> {
        let table = table.clone();
        self.wait(|inner| async move { inner.drop_table(&table).await })
    }

    fn tables(&self) -> Result<Vec<Table>, Error> {
        self.wait(|inner| async move { inner.tables().await })
    }
}
