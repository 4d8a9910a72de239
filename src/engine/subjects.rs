//! The subjects of one partition: in memory while they are in use, in the store otherwise, with the index of who is next due.
//!
//! A subject's state says when it next wants to be woken; the stored index only finds it. Those that changed since the last flush are in
//! `due`, under the time they want now, and what the index says of them is passed over.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::domain::{Millis, Offset};
use crate::state::{Flush, StateStore, Stored, Table, Upto, Wake};
use crate::stream::{Cache, Error, Slot};
use crate::workflow::{Clock, Subject};

/// What a subject is taken to cost in memory: itself with one entry in each of its small maps, each run beside that, and per encoded byte.
const SUBJECT_BYTES: usize = 1_000;
const RUN_BYTES: usize = 1_600;
const DECODED_PER_ENCODED: usize = 3;
/// The same of one that changed and was not encoded yet.
const FRESH_BYTES: usize = 3_000;

fn memory_bytes(subject: &Subject, encoded: usize) -> usize {
    SUBJECT_BYTES + subject.runs.len() * RUN_BYTES + encoded * DECODED_PER_ENCODED
}

#[derive(Default, Clone)]
pub(super) struct Known {
    pub(super) subject: Subject,
    is_dirty: bool,
    /// As the index has it.
    wake_stored: Option<Millis>,
    /// As the state wants it.
    wake: Option<Millis>,
    /// The journal below this is in the state: more than its table's watermark says after a flush that was cut.
    holds: Offset,
}

pub(super) struct Subjects {
    store: Arc<dyn StateStore>,
    pub(super) table: Table,
    clock: Clock,
    cache: Cache<Known>,
    dirty: Vec<Slot>,
    dirty_bytes: usize,
    /// When those that are dirty want to be woken.
    due: BTreeSet<Wake>,
    /// Entries of the index that nobody wants, as a flush that was cut leaves behind.
    leftover: Vec<Wake>,
    scratch: Vec<u8>,
}

impl Subjects {
    pub(super) fn new(store: Arc<dyn StateStore>, clock: Clock, cache_bytes_max: usize) -> Self {
        Self {
            store,
            table: Table(Arc::from("")),
            clock,
            cache: Cache::new(cache_bytes_max),
            dirty: Vec::new(),
            dirty_bytes: 0,
            due: BTreeSet::new(),
            leftover: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Forgets everything in memory; from now on of this table.
    pub(super) fn begin(&mut self, table: Table) {
        self.table = table;
        self.cache.clear();
        self.dirty.clear();
        self.dirty_bytes = 0;
        self.due.clear();
        self.leftover.clear();
    }

    /// Drops every stored table whose name begins so.
    pub(super) fn drop_tables(&self, prefix: &str) -> Result<(), Error> {
        for table in self.store.tables()?.iter().filter(|table| table.0.starts_with(prefix)) {
            self.store.drop_table(table)?;
        }
        Ok(())
    }

    /// Drops from memory what was not used lately. No slot that was given out before is good after this.
    pub(super) fn evict(&mut self) {
        self.cache.evict(|known| !known.is_dirty);
    }

    /// The slots of these keys, those that are not in memory read in one go; `None` for an empty key.
    pub(super) fn load<'k>(&mut self, keys: impl Iterator<Item = &'k [u8]>) -> Result<Vec<Option<Slot>>, Error> {
        let mut missing: Vec<(Slot, &[u8])> = Vec::new();
        let mut slots = Vec::new();
        for key in keys {
            if key.is_empty() {
                slots.push(None);
                continue;
            }
            let found = self.cache.find(key);
            let slot = found.unwrap_or_else(|| {
                let slot = self.cache.insert(Bytes::copy_from_slice(key), Known::default(), FRESH_BYTES);
                missing.push((slot, key));
                slot
            });
            slots.push(Some(slot));
        }
        // In key order, neighbours lie in the same block.
        missing.sort_unstable_by_key(|(_, key)| *key);
        let keys: Vec<&[u8]> = missing.iter().map(|(_, key)| *key).collect();
        for ((slot, _), state) in missing.iter().zip(self.store.get_many(&self.table, &keys)?) {
            if let Some(state) = state {
                self.put(*slot, &state)?;
            }
        }
        Ok(slots)
    }

    fn put(&mut self, slot: Slot, Stored { state, upto }: &Stored) -> Result<(), Error> {
        let corrupt = |error: crate::workflow::CodecError| Error::Corrupt { what: "a subject's state".into(), detail: error.to_string() };
        let subject = Subject::decode(state).map_err(corrupt)?;
        let wake = subject.next_wake(self.clock);
        self.cache.set_bytes(slot, memory_bytes(&subject, state.len()));
        *self.cache.get_mut(slot) = Known { subject, is_dirty: false, wake_stored: wake, wake, holds: upto.next };
        Ok(())
    }

    pub(super) fn key(&self, slot: Slot) -> &Bytes {
        self.cache.key(slot)
    }

    pub(super) fn get(&self, slot: Slot) -> &Known {
        self.cache.get(slot)
    }

    /// Whether the journal's record at `offset` is in the state already.
    pub(super) fn holds(&self, slot: Slot, offset: Offset) -> bool {
        offset < self.cache.get(slot).holds
    }

    /// To be followed by [`changed`](Self::changed) if it changes.
    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Subject {
        &mut self.cache.get_mut(slot).subject
    }

    /// The subject is another than before: to be stored, and due when it says now.
    pub(super) fn changed(&mut self, slot: Slot) {
        let key = self.cache.key(slot).clone();
        let known = self.cache.get_mut(slot);
        let before = known.wake.filter(|_| known.is_dirty);
        known.wake = known.subject.next_wake(self.clock);
        let now = known.wake;
        if !known.is_dirty {
            known.is_dirty = true;
            self.dirty.push(slot);
            self.dirty_bytes += FRESH_BYTES;
        }
        if before == now {
            return;
        }
        if let Some(due) = before {
            self.due.remove(&Wake { due, key: key.clone() });
        }
        if let Some(due) = now {
            self.due.insert(Wake { due, key });
        }
    }

    /// As it was before a record that failed.
    pub(super) fn put_back(&mut self, slot: Slot, subject: Subject) {
        *self.get_mut(slot) = subject;
        self.changed(slot);
    }

    pub(super) fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// Those in memory that are due by `time`, after this one.
    pub(super) fn due_in_memory(&self, time: Millis, after: Option<&Wake>) -> BTreeSet<Wake> {
        let due = self.due.iter().take_while(|wake| wake.due <= time);
        due.filter(|wake| after.is_none_or(|after| *wake > after)).cloned().collect()
    }

    /// A page of what the index says is due, without those that have changed since, and where to go on; loaded.
    pub(super) fn due_stored(&mut self, time: Millis, after: Option<&Wake>, limit: usize) -> Result<(Vec<Wake>, Option<Wake>), Error> {
        let page = self.store.due(&self.table, time, after, limit)?;
        let next = (page.len() == limit).then(|| page.last().cloned()).flatten();
        let slots = self.load(page.iter().map(|wake| &wake.key[..]))?;
        let is_fresh = |(wake, slot): &(Wake, Option<Slot>)| {
            slot.is_some_and(|slot| !self.cache.get(slot).is_dirty && self.cache.get(slot).wake == Some(wake.due))
        };
        let nobodys = |(wake, slot): (&Wake, &Option<Slot>)| {
            slot.is_none_or(|slot| self.cache.get(slot).wake_stored != Some(wake.due)).then(|| wake.clone())
        };
        self.leftover.extend(page.iter().zip(&slots).filter_map(nobodys));
        let due = page.into_iter().zip(slots).filter(is_fresh).map(|(wake, _)| wake).collect();
        Ok((due, next))
    }

    /// When somebody is next due after `time`.
    pub(super) fn first_due(&self, time: Millis) -> Result<Option<Millis>, Error> {
        let after = Wake { due: time + 1, key: Bytes::new() };
        let stored = self.store.due(&self.table, Millis::MAX, Some(&after), 1)?.first().map(|wake| wake.due);
        let changed = self.due.iter().map(|wake| wake.due).find(|due| *due > time);
        Ok(stored.into_iter().chain(changed).min())
    }

    /// Stores everyone that changed up to this place in the journal, and the watermark.
    pub(super) fn flush(&mut self, upto: Upto, watermark: Bytes) -> Result<(), Error> {
        let wakes_cleared = std::mem::take(&mut self.leftover);
        let mut flush = Flush { upto, wakes_cleared, watermark: Some(watermark), ..Flush::default() };
        for slot in &self.dirty {
            let key = self.cache.key(*slot).clone();
            let known = self.cache.get(*slot);
            if known.wake != known.wake_stored {
                flush.wakes_cleared.extend(known.wake_stored.map(|due| Wake { due, key: key.clone() }));
                flush.wakes_set.extend(known.wake.map(|due| Wake { due, key: key.clone() }));
            }
            self.scratch.clear();
            known.subject.encode(&mut self.scratch);
            let bytes = memory_bytes(&known.subject, self.scratch.len());
            flush.states.push((key, Some(Bytes::copy_from_slice(&self.scratch))));
            self.cache.set_bytes(*slot, bytes);
        }
        flush.states.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        // Refused, as on a full disk, they stay dirty and are stored with the next flush.
        self.store.flush(&self.table, flush)?;
        for slot in self.dirty.drain(..) {
            let known = self.cache.get_mut(slot);
            known.is_dirty = false;
            known.wake_stored = known.wake;
        }
        self.dirty_bytes = 0;
        self.due.clear();
        Ok(())
    }
}
