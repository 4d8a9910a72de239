//! State on disk: one fjall database for all tables, never fsynced on purpose, because the log can rebuild it.
//!
//! A table is a keyspace for its states and, once it has wake-ups, one for their index (`NAME~w`); watermarks of all tables share the
//! keyspace `~watermarks`. A flush is one fjall batch, so it is whole or absent after a crash; after a power cut the database may have
//! lost its newest flushes, which only makes the next start re-read more. A database that will not open is moved aside by
//! [`FjallStore::open_or_rebuild`] and begun anew.
//!
//! After a write that failed, as on a full disk, a fjall database takes no more writes until it is opened again. Its flushes are whole or
//! absent all the same, so the store does that by itself at the next call, and the folds find what they had stored.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::fjall::config::{BlockSizePolicy, BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry};
use ::fjall::{Database, Keyspace, KeyspaceCreateOptions};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::{Error, Flush, StateStore, Stored, Table, Upto, Wake};
use crate::domain::Millis;

/// A keyspace halts whoever writes to it while four of its memtables wait to be written, for ever if nothing writes them any more, as after a
/// full disk. So nobody writes to one in which this many wait.
const WAITING_MAX: usize = 3;
/// How long they may take before the database is opened again, which reads them back from its journal.
const WAITING_PATIENCE: Duration = Duration::from_secs(10);
const WAITING_LOOK_EVERY: Duration = Duration::from_millis(10);

const WATERMARKS: &str = "~watermarks";
const WAKES_SUFFIX: &str = "~w";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FjallOptions {
    /// Blocks kept in memory for reads of states that fell out of the folds' caches.
    pub block_cache_bytes: u64,
    /// Writes of one table held in memory before they become a file. Every table has its own, so it is small.
    pub memtable_bytes: u64,
    /// Threads that write files and merge them.
    pub worker_threads: usize,
}

impl Default for FjallOptions {
    fn default() -> Self {
        Self { block_cache_bytes: 32 << 20, memtable_bytes: 8 << 20, worker_threads: 2 }
    }
}

#[derive(Clone)]
struct Handles {
    states: Keyspace,
    wakes: Option<Keyspace>,
}

pub struct FjallStore {
    folder: PathBuf,
    options: FjallOptions,
    /// Absent while it could not be opened again. Every call holds it for reading, so who opens it again is alone with it.
    open: RwLock<Option<Open>>,
}

/// The database as it is open.
struct Open {
    options: FjallOptions,
    database: Database,
    watermarks: Keyspace,
    /// Opened keyspaces. Held only while looking one up, never across a read or write of the database.
    handles: Mutex<HashMap<Table, Handles>>,
}

/// What opening found.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    Intact,
    /// The old folder could not be read and now lies beside under this name, to be looked at and deleted.
    Rebuilt {
        moved_to: PathBuf,
        reason: String,
    },
}

/// A flush is whole or absent, so no state is ahead of its watermark.
fn stored(state: &[u8]) -> Stored {
    Stored { state: Bytes::copy_from_slice(state), upto: Upto::default() }
}

fn backend(error: ::fjall::Error) -> Error {
    match error {
        ::fjall::Error::Locked => return Error::InUse,
        ::fjall::Error::Poisoned => return Error::Poisoned,
        _ => {}
    }
    // It may lie below an error of the tree within.
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::StorageFull) {
            return Error::NoSpace;
        }
        cause = error.source();
    }
    Error::Backend(error.to_string())
}

impl FjallStore {
    pub fn open(folder: &Path, options: FjallOptions) -> Result<Self, Error> {
        let open = RwLock::new(Some(Open::at(folder, options.clone())?));
        Ok(Self { folder: folder.to_owned(), options, open })
    }

    /// Opens the folder or, if it will not open, moves it aside and begins an empty one: the folds re-read their logs.
    pub fn open_or_rebuild(folder: &Path, options: FjallOptions) -> Result<(Self, Opened), Error> {
        let reason = match Self::open(folder, options.clone()) {
            Ok(store) => return Ok((store, Opened::Intact)),
            // Held by another process, or on a full disk: nothing is wrong with it, so it must not be moved away.
            Err(error @ (Error::InUse | Error::NoSpace)) => return Err(error),
            Err(error) => error.to_string(),
        };
        let moved_to =
            (1..).map(|n| folder.with_extension(format!("broken-{n}"))).find(|path| !path.exists()).expect("some number is free");
        std::fs::rename(folder, &moved_to).map_err(|error| Error::Backend(format!("{reason}; and it cannot be moved aside: {error}")))?;
        Ok((Self::open(folder, options)?, Opened::Rebuilt { moved_to, reason }))
    }

    /// Bytes on disk, journals included.
    pub fn disk_bytes(&self) -> Result<u64, Error> {
        self.with(|open| open.database.disk_space().map_err(backend))
    }

    /// Runs a call on the database; if that takes no more since a failed write, opens it again and runs the call once more.
    fn with<T>(&self, call: impl Fn(&Open) -> Result<T, Error>) -> Result<T, Error> {
        let first = self.open.read().as_ref().map(&call);
        match first {
            Some(Err(Error::Poisoned)) | None => {}
            Some(done) => return done,
        }
        let mut open = self.open.write();
        // Another caller may have been first.
        if let Some(again) = open.as_ref() {
            match call(again) {
                // Each try on a disk that stays full comes here; who asked for it says so.
                Err(Error::Poisoned) => tracing::debug!("the state store is opened again after a write that failed"),
                done => return done,
            }
        }
        // The folder's lock is free only once the old one is gone.
        *open = None;
        let again = open.insert(Open::at(&self.folder, self.options.clone()).map_err(while_reopening)?);
        call(again)
    }
}

/// The database that is being dropped may hold its lock for a moment longer.
fn while_reopening(error: Error) -> Error {
    if matches!(error, Error::InUse) { Error::Poisoned } else { error }
}

impl Open {
    fn at(folder: &Path, options: FjallOptions) -> Result<Self, Error> {
        let database = Database::builder(folder)
            .cache_size(options.block_cache_bytes)
            .worker_threads(options.worker_threads.max(1))
            .max_journaling_size(128 << 20)
            .open()
            .map_err(backend)?;
        let small = || KeyspaceCreateOptions::default().max_memtable_size(1 << 20);
        let watermarks = database.keyspace(WATERMARKS, small).map_err(backend)?;
        Ok(Self { options, database, watermarks, handles: Mutex::default() })
    }

    fn state_options(&self) -> KeyspaceCreateOptions {
        // A miss must not cost a disk read: most lookups of a cold key and nearly all of deduplication find nothing.
        let bloom = FilterPolicy::all(FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(10.0)));
        KeyspaceCreateOptions::default()
            .max_memtable_size(self.options.memtable_bytes)
            .filter_policy(bloom)
            .data_block_size_policy(BlockSizePolicy::all(4 << 10))
    }

    fn wakes_options(&self) -> KeyspaceCreateOptions {
        KeyspaceCreateOptions::default().max_memtable_size(self.options.memtable_bytes / 4)
    }

    /// The table's keyspaces as far as they exist, or all that are asked for if `create`.
    fn handles(&self, table: &Table, create: bool, with_wakes: bool) -> Result<Option<Handles>, Error> {
        let mut open = self.handles.lock();
        if let Some(handles) = open.get(table)
            && (handles.wakes.is_some() || !(create && with_wakes))
        {
            return Ok(Some(handles.clone()));
        }
        if !create && !self.database.keyspace_exists(&table.0) {
            return Ok(None);
        }
        let states = self.database.keyspace(&table.0, || self.state_options()).map_err(backend)?;
        let wakes_name = format!("{}{WAKES_SUFFIX}", table.0);
        let wakes = if (create && with_wakes) || self.database.keyspace_exists(&wakes_name) {
            Some(self.database.keyspace(&wakes_name, || self.wakes_options()).map_err(backend)?)
        } else {
            None
        };
        let handles = Handles { states, wakes };
        open.insert(table.clone(), handles.clone());
        Ok(Some(handles))
    }
}

/// Waits until there is room, at most as long as `patience`.
fn has_room(is_room: impl Fn() -> bool, patience: Duration) -> bool {
    let begun = Instant::now();
    while !is_room() {
        if begun.elapsed() >= patience {
            return false;
        }
        // The store has nothing to wait on: it says only how many there are.
        std::thread::park_timeout(WAITING_LOOK_EVERY);
    }
    true
}

/// `due` so that bytes sort as times do, then the key.
fn wake_key(wake: &Wake) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + wake.key.len());
    bytes.extend_from_slice(&(wake.due.0 as u64 ^ (1 << 63)).to_be_bytes());
    bytes.extend_from_slice(&wake.key);
    bytes
}

fn read_wake(bytes: &[u8]) -> Result<Wake, Error> {
    let Some((due, key)) = bytes.split_first_chunk::<8>() else {
        return Err(Error::Backend(format!("a wake-up of {} bytes", bytes.len())));
    };
    Ok(Wake { due: Millis((u64::from_be_bytes(*due) ^ (1 << 63)) as i64), key: Bytes::copy_from_slice(key) })
}

impl StateStore for FjallStore {
    fn get_many(&self, table: &Table, keys: &[&[u8]]) -> Result<Vec<Option<Stored>>, Error> {
        self.with(|open| open.get_many(table, keys))
    }

    fn flush(&self, table: &Table, flush: Flush) -> Result<(), Error> {
        self.with(|open| open.flush(table, &flush))
    }

    fn watermark(&self, table: &Table) -> Result<Option<Bytes>, Error> {
        self.with(|open| open.watermark(table))
    }

    fn due(&self, table: &Table, until: Millis, after: Option<&Wake>, limit: usize) -> Result<Vec<Wake>, Error> {
        self.with(|open| open.due(table, until, after, limit))
    }

    fn scan(&self, table: &Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Stored)>, Error> {
        self.with(|open| open.scan(table, after, limit))
    }

    fn drop_table(&self, table: &Table) -> Result<(), Error> {
        self.with(|open| open.drop_table(table))
    }

    fn tables(&self) -> Result<Vec<Table>, Error> {
        self.with(Open::tables)
    }
}

impl Open {
    fn get_many(&self, table: &Table, keys: &[&[u8]]) -> Result<Vec<Option<Stored>>, Error> {
        let Some(handles) = self.handles(table, false, false)? else { return Ok(vec![None; keys.len()]) };
        let get = |key: &&[u8]| Ok(handles.states.get(key).map_err(backend)?.map(|state| stored(&state)));
        keys.iter().map(get).collect()
    }

    fn flush(&self, table: &Table, flush: &Flush) -> Result<(), Error> {
        let with_wakes = !flush.wakes_set.is_empty() || !flush.wakes_cleared.is_empty();
        let handles = self.handles(table, true, with_wakes)?.expect("created");
        let written = [Some(&handles.states), handles.wakes.as_ref(), Some(&self.watermarks)];
        if !has_room(|| written.iter().flatten().all(|keyspace| keyspace.sealed_memtable_count() < WAITING_MAX), WAITING_PATIENCE) {
            return Err(Error::Poisoned);
        }
        let mut batch = self.database.batch();
        for (key, state) in &flush.states {
            match state {
                Some(state) => batch.insert(&handles.states, &key[..], &state[..]),
                None => batch.remove(&handles.states, &key[..]),
            }
        }
        if let Some(wakes) = &handles.wakes {
            for wake in &flush.wakes_cleared {
                batch.remove(wakes, wake_key(wake));
            }
            for wake in &flush.wakes_set {
                batch.insert(wakes, wake_key(wake), b"".as_slice());
            }
        }
        if let Some(watermark) = &flush.watermark {
            batch.insert(&self.watermarks, table.0.as_bytes(), &watermark[..]);
        }
        batch.commit().map_err(backend)
    }

    fn watermark(&self, table: &Table) -> Result<Option<Bytes>, Error> {
        let watermark = self.watermarks.get(table.0.as_bytes()).map_err(backend)?;
        Ok(watermark.map(|bytes| Bytes::copy_from_slice(&bytes)))
    }

    fn due(&self, table: &Table, until: Millis, after: Option<&Wake>, limit: usize) -> Result<Vec<Wake>, Error> {
        let Some(Handles { wakes: Some(wakes), .. }) = self.handles(table, false, true)? else { return Ok(Vec::new()) };
        let from = after.map_or(std::ops::Bound::Unbounded, |wake| std::ops::Bound::Excluded(wake_key(wake)));
        let mut due = Vec::new();
        for guard in wakes.range((from, std::ops::Bound::Unbounded)).take(limit) {
            let wake = read_wake(&guard.key().map_err(backend)?)?;
            if wake.due > until {
                break;
            }
            due.push(wake);
        }
        Ok(due)
    }

    fn scan(&self, table: &Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Stored)>, Error> {
        let Some(handles) = self.handles(table, false, false)? else { return Ok(Vec::new()) };
        let from = after.map_or(std::ops::Bound::Unbounded, |key| std::ops::Bound::Excluded(key.to_vec()));
        let mut pairs = Vec::with_capacity(limit.min(4096));
        for guard in handles.states.range((from, std::ops::Bound::Unbounded)).take(limit) {
            let (key, state) = guard.into_inner().map_err(backend)?;
            pairs.push((Bytes::copy_from_slice(&key), stored(&state)));
        }
        Ok(pairs)
    }

    fn drop_table(&self, table: &Table) -> Result<(), Error> {
        let handles = self.handles(table, false, false)?;
        self.handles.lock().remove(table);
        // The watermark goes first: states without one are re-made, a watermark without states would be believed.
        self.watermarks.remove(table.0.as_bytes()).map_err(backend)?;
        let Some(Handles { states, wakes }) = handles else { return Ok(()) };
        self.database.delete_keyspace(states).map_err(backend)?;
        if let Some(wakes) = wakes {
            self.database.delete_keyspace(wakes).map_err(backend)?;
        }
        Ok(())
    }

    fn tables(&self) -> Result<Vec<Table>, Error> {
        let names = self.database.list_keyspace_names();
        let mut tables: Vec<Table> = names.iter().filter(|name| !name.contains('~')).map(|name| Table(Arc::from(&**name))).collect();
        tables.sort();
        Ok(tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_waited_for_but_not_for_ever() {
        let looks = std::cell::Cell::new(0);
        let after_three = || looks.replace(looks.get() + 1) == 3;
        assert!(has_room(after_three, Duration::MAX));
        assert!(!has_room(|| false, Duration::from_millis(1)));
    }
}
