//! State in memory, for tests, simulation and folds that only compute: every flush is atomic, nothing outlives the process.
//!
//! [`MemoryStore::fork`] copies it as it stands, so that a test can put a fold back to any earlier flush.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Error, Flush, StateStore, Table, Wake};
use crate::domain::Millis;

#[derive(Debug, Default, Clone)]
struct Content {
    states: BTreeMap<Bytes, Bytes>,
    wakes: BTreeSet<Wake>,
    watermark: Option<Bytes>,
}

#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: Mutex<BTreeMap<Table, Content>>,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy that goes its own way from here.
    pub fn fork(&self) -> MemoryStore {
        MemoryStore { tables: Mutex::new(self.tables.lock().clone()) }
    }
}

impl StateStore for MemoryStore {
    fn get_many(&self, table: &Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, Error> {
        let tables = self.tables.lock();
        let content = tables.get(table);
        Ok(keys.iter().map(|key| content.and_then(|content| content.states.get(*key).cloned())).collect())
    }

    fn flush(&self, table: &Table, flush: Flush) -> Result<(), Error> {
        let mut tables = self.tables.lock();
        let content = tables.entry(table.clone()).or_default();
        for (key, state) in flush.states {
            match state {
                Some(state) => content.states.insert(key, state),
                None => content.states.remove(&key),
            };
        }
        for wake in &flush.wakes_cleared {
            content.wakes.remove(wake);
        }
        content.wakes.extend(flush.wakes_set);
        if flush.watermark.is_some() {
            content.watermark = flush.watermark;
        }
        Ok(())
    }

    fn watermark(&self, table: &Table) -> Result<Option<Bytes>, Error> {
        Ok(self.tables.lock().get(table).and_then(|content| content.watermark.clone()))
    }

    fn due(&self, table: &Table, until: Millis, after: Option<&Wake>, limit: usize) -> Result<Vec<Wake>, Error> {
        let tables = self.tables.lock();
        let Some(content) = tables.get(table) else { return Ok(Vec::new()) };
        let from = after.map_or(Bound::Unbounded, |wake| Bound::Excluded(wake.clone()));
        let wakes = content.wakes.range((from, Bound::Unbounded)).take_while(|wake| wake.due <= until);
        Ok(wakes.take(limit).cloned().collect())
    }

    fn scan(&self, table: &Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let tables = self.tables.lock();
        let Some(content) = tables.get(table) else { return Ok(Vec::new()) };
        let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(Bytes::copy_from_slice(key)));
        let pairs = content.states.range((from, Bound::Unbounded)).take(limit);
        Ok(pairs.map(|(key, state)| (key.clone(), state.clone())).collect())
    }

    fn drop_table(&self, table: &Table) -> Result<(), Error> {
        self.tables.lock().remove(table);
        Ok(())
    }

    fn tables(&self) -> Result<Vec<Table>, Error> {
        Ok(self.tables.lock().keys().cloned().collect())
    }
}
