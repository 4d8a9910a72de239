//! Which messages were applied: per UTC day of append time one table, so that forgetting is dropping a table. (Not of receive time: a dead
//! letter sent again weeks later must not be marked in a table that is gone.)
//!
//! A row is 16 bytes of hash over (key, message id) and the 8-byte offset that set it; with fjall's overhead about 40 bytes of disk per
//! message, for at most two days and a flush. A look-up goes to the record's own day and the day before, so a retry is recognised for at
//! least 24 hours. A row set at or after the asking record's own offset is that record's mark from before a crash, not a duplicate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::Xxh3;

use crate::domain::{DAY_MS, Incarnation, Millis, Namespace, Offset, PartitionId};
use crate::state::{Error, Flush, StateStore, Table, Upto};

pub(super) const ROW_BYTES: usize = 24;

/// What stands for (intake key, message id). 128 bits: among a trillion messages a false match has odds below one in 10^14.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct MessageHash(u128);

impl MessageHash {
    pub(super) fn of(key: &[u8], message_id: &str) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(&(key.len() as u32).to_le_bytes());
        hasher.update(key);
        hasher.update(message_id.as_bytes());
        Self(hasher.digest128())
    }

    fn row(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

/// A message and when its record was appended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) hash: MessageHash,
    pub(super) day: i64,
}

pub(super) fn day_of(appended_at: Millis) -> i64 {
    appended_at.0.div_euclid(DAY_MS)
}

pub(super) struct Dedup {
    store: Arc<dyn StateStore>,
    prefix: String,
    incarnation: Incarnation,
    /// Marks that are not stored yet, by day.
    pending: BTreeMap<i64, FxHashMap<MessageHash, Offset>>,
    pending_count: usize,
    /// Days whose tables may exist.
    days: BTreeSet<i64>,
    /// The mark made last, for a record that fails half-way, and what stood there before.
    last: Option<(Asked, Option<Offset>)>,
}

impl Dedup {
    pub(super) fn new(store: Arc<dyn StateStore>, namespace: &Namespace, partition: PartitionId) -> Self {
        let prefix = format!("{namespace}.dedup.{partition}.");
        let (pending, days) = (BTreeMap::new(), BTreeSet::new());
        Self { store, prefix, incarnation: Incarnation(0), pending, pending_count: 0, days, last: None }
    }

    /// Forgets what is in memory and finds the tables again; drops them all unless `keep`.
    pub(super) fn restore(&mut self, incarnation: Incarnation, keep: bool) -> Result<(), Error> {
        self.incarnation = incarnation;
        self.pending.clear();
        self.days.clear();
        (self.pending_count, self.last) = (0, None);
        let ours = format!("{}i{incarnation}.", self.prefix);
        for table in self.store.tables()? {
            if !table.0.starts_with(&self.prefix) {
                continue;
            }
            match table.0.strip_prefix(&ours).and_then(|day| day.parse().ok()) {
                Some(day) if keep => {
                    self.days.insert(day);
                }
                _ => self.store.drop_table(&table)?,
            }
        }
        Ok(())
    }

    fn table(&self, day: i64) -> Table {
        Table(format!("{}i{}.{day}", self.prefix, self.incarnation).into())
    }

    /// For each message the earliest stored offset that marked it.
    pub(super) fn stored(&self, asked: &[Asked]) -> Result<Vec<Option<Offset>>, Error> {
        let mut by_day: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for (at, message) in asked.iter().enumerate() {
            for day in [message.day, message.day - 1] {
                if self.days.contains(&day) {
                    by_day.entry(day).or_default().push(at);
                }
            }
        }
        let mut found: Vec<Option<Offset>> = vec![None; asked.len()];
        for (day, places) in by_day {
            let rows: Vec<[u8; 16]> = places.iter().map(|at| asked[*at].hash.row()).collect();
            let keys: Vec<&[u8]> = rows.iter().map(|row| row.as_slice()).collect();
            for (at, row) in places.into_iter().zip(self.store.get_many(&self.table(day), &keys)?) {
                let Some(row) = row else { continue };
                let offset =
                    Offset(u64::from_le_bytes(row.state[..].try_into().map_err(|_| Error::Backend("a mark of a wrong size".into()))?));
                found[at] = Some(found[at].map_or(offset, |other| other.min(offset)));
            }
        }
        Ok(found)
    }

    /// Whether the message was applied before the record at `offset`; `stored` is what [`stored`](Dedup::stored) found.
    pub(super) fn is_duplicate(&self, message: Asked, stored: Option<Offset>, offset: Offset) -> bool {
        let pending = |day: i64| self.pending.get(&day).and_then(|marks| marks.get(&message.hash)).copied();
        let marks = [stored, pending(message.day), pending(message.day - 1)];
        marks.into_iter().flatten().any(|mark| mark < offset)
    }

    /// The record at `offset` applied the message. The earliest mark stays.
    pub(super) fn mark(&mut self, message: Asked, offset: Offset) {
        let marks = self.pending.entry(message.day).or_default();
        let before = marks.get(&message.hash).copied();
        if before.is_none_or(|before| offset < before) {
            marks.insert(message.hash, offset);
        }
        self.pending_count += usize::from(before.is_none());
        self.last = Some((message, before));
    }

    pub(super) fn begin_record(&mut self) {
        self.last = None;
    }

    /// Takes back the mark that this record made.
    pub(super) fn undo(&mut self) {
        let Some((message, before)) = self.last.take() else { return };
        let marks = self.pending.entry(message.day).or_default();
        match before {
            Some(before) => marks.insert(message.hash, before),
            None => marks.remove(&message.hash),
        };
        self.pending_count -= usize::from(before.is_none());
    }

    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_count * ROW_BYTES
    }

    /// Stores all marks and drops the tables that nothing asks any more. Before the watermark that covers them: a mark without its
    /// watermark is recognised as the record's own.
    pub(super) fn flush(&mut self, upto: &Upto) -> Result<(), Error> {
        while let Some((&day, marks)) = self.pending.first_key_value() {
            let mut rows: Vec<([u8; 16], Offset)> = marks.iter().map(|(hash, offset)| (hash.row(), *offset)).collect();
            rows.sort_unstable();
            let row =
                |(hash, offset): ([u8; 16], Offset)| (Bytes::copy_from_slice(&hash), Some(Bytes::copy_from_slice(&offset.0.to_le_bytes())));
            let states = rows.into_iter().map(row).collect();
            self.store.flush(&self.table(day), Flush { upto: upto.clone(), states, ..Flush::default() })?;
            // Only now: a store that refuses, as on a full disk, is asked again with all of it.
            self.days.insert(day);
            self.pending_count -= self.pending.remove(&day).map_or(0, |marks| marks.len());
        }
        self.last = None;
        let Some(newest) = self.days.last().copied() else { return Ok(()) };
        while let Some(oldest) = self.days.first().copied().filter(|day| *day < newest - 1) {
            self.store.drop_table(&self.table(oldest))?;
            self.days.remove(&oldest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::MemoryStore;

    fn dedup(store: &Arc<MemoryStore>) -> Dedup {
        let store: Arc<dyn StateStore> = store.clone();
        let mut dedup = Dedup::new(store, &Namespace::new("demo").unwrap(), PartitionId(0));
        dedup.restore(Incarnation(1), true).unwrap();
        dedup
    }

    fn asked(id: &str, day: i64) -> Asked {
        Asked { hash: MessageHash::of(b"acme\0u:1", id), day }
    }

    fn is_duplicate(dedup: &Dedup, message: Asked, offset: u64) -> bool {
        let stored = dedup.stored(&[message]).unwrap()[0];
        dedup.is_duplicate(message, stored, Offset(offset))
    }

    #[test]
    fn a_mark_holds_over_midnight_a_flush_and_a_restart_and_is_its_own_records_no_duplicate() {
        let store = Arc::new(MemoryStore::new());
        let mut first = dedup(&store);
        first.mark(asked("m", 10), Offset(5));
        assert!(is_duplicate(&first, asked("m", 10), 6));
        assert!(is_duplicate(&first, asked("m", 11), 6));
        first.flush(&Upto::default()).unwrap();
        let second = dedup(&store);
        assert!(is_duplicate(&second, asked("m", 10), 6));
        assert!(is_duplicate(&second, asked("m", 11), 6));
        assert!(!is_duplicate(&second, asked("m", 10), 5), "read again after a crash");
        assert!(!is_duplicate(&second, asked("n", 10), 6));
        assert!(!is_duplicate(&second, asked("m", 12), 6), "two days later it is forgotten");
    }

    #[test]
    fn tables_of_days_that_nothing_asks_for_are_dropped() {
        let store = Arc::new(MemoryStore::new());
        let mut dedup = dedup(&store);
        for day in [10, 11, 12] {
            dedup.mark(asked("m", day), Offset(day as u64));
            dedup.flush(&Upto::default()).unwrap();
        }
        let names: Vec<String> = store.tables().unwrap().into_iter().map(|table| table.0.to_string()).collect();
        assert_eq!(names, ["demo.dedup.0.i1.11", "demo.dedup.0.i1.12"]);
        dedup.restore(Incarnation(2), true).unwrap();
        assert_eq!(store.tables().unwrap(), [], "another incarnation's offsets mean nothing here");
    }

    #[test]
    fn an_undone_mark_is_gone() {
        let mut dedup = dedup(&Arc::new(MemoryStore::new()));
        dedup.mark(asked("m", 10), Offset(5));
        dedup.undo();
        assert!(!is_duplicate(&dedup, asked("m", 10), 6));
        assert_eq!(dedup.pending_bytes(), 0);
    }
}
