//! State in memory, for tests, simulation and folds that only compute: every flush is atomic, nothing outlives the process. A state is not
//! overwritten by one of an earlier place in the log, as in a store that several owners write.
//!
//! [`MemoryStore::fork`] copies it as it stands, so that a test can put a fold back to any earlier flush.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Error, Flush, StateStore, Stored, Table, Upto, Wake};
use crate::domain::Millis;

#[derive(Debug, Default, Clone)]
struct Content {
    states: BTreeMap<Bytes, Stored>,
    wakes: BTreeSet<Wake>,
    watermark: Option<(Upto, Bytes)>,
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
    fn get_many(&self, table: &Table, keys: &[&[u8]]) -> Result<Vec<Option<Stored>>, Error> {
        let tables = self.tables.lock();
        let content = tables.get(table);
        Ok(keys.iter().map(|key| content.and_then(|content| content.states.get(*key).cloned())).collect())
    }

    fn flush(&self, table: &Table, flush: Flush) -> Result<(), Error> {
        let mut tables = self.tables.lock();
        let content = tables.entry(table.clone()).or_default();
        for (key, state) in flush.states {
            if content.states.get(&key).is_some_and(|stored| stored.upto > flush.upto) {
                continue;
            }
            match state {
                Some(state) => content.states.insert(key, Stored { state, upto: flush.upto.clone() }),
                None => content.states.remove(&key),
            };
        }
        for wake in &flush.wakes_cleared {
            content.wakes.remove(wake);
        }
        content.wakes.extend(flush.wakes_set);
        let is_late = content.watermark.as_ref().is_some_and(|(upto, _)| *upto > flush.upto);
        if let Some(watermark) = flush.watermark.filter(|_| !is_late) {
            content.watermark = Some((flush.upto, watermark));
        }
        Ok(())
    }

    fn watermark(&self, table: &Table) -> Result<Option<Bytes>, Error> {
        Ok(self.tables.lock().get(table).and_then(|content| content.watermark.as_ref()).map(|(_, watermark)| watermark.clone()))
    }

    fn due(&self, table: &Table, until: Millis, after: Option<&Wake>, limit: usize) -> Result<Vec<Wake>, Error> {
        let tables = self.tables.lock();
        let Some(content) = tables.get(table) else { return Ok(Vec::new()) };
        let from = after.map_or(Bound::Unbounded, |wake| Bound::Excluded(wake.clone()));
        let wakes = content.wakes.range((from, Bound::Unbounded)).take_while(|wake| wake.due <= until);
        Ok(wakes.take(limit).cloned().collect())
    }

    fn scan(&self, table: &Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Stored)>, Error> {
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
