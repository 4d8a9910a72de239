//! The index of wake-ups: entries in order of (due, key), cut into slots of time so that nothing ever walks over a day of deletions.
//!
//! A slot is one partition of the server; `wake_slots` names those that may hold something, so that only they are read. One that is past
//! and found empty is taken off that list, below the timestamp of the last whole flush: what a flush puts into it again puts it back.
//!
//! A tick gives up its entries in their order, so a run of neighbours goes as one range deletion instead of one each: the server refuses to
//! read past some hundred thousand deletions, and a million people can be due at nine o'clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::tables::Known;
use super::{Inner, all, errors};
use crate::domain::Millis;
use crate::state::{Error, Table, Wake};

/// A few thousand entries of a table whose million people wake once in a while.
const SLOT_MS: i64 = 5 * 60_000;
/// From this many deletions in one slot on, neighbours are looked for.
const RUNS_FROM: usize = 64;
const PAGE: usize = 5_000;
const SLOTS_PAGE: i32 = 128;
const BATCH_ROWS: usize = 256;

pub(super) fn slot(due: Millis) -> i64 {
    due.0.div_euclid(SLOT_MS)
}

fn last_of(slot: i64) -> i64 {
    slot.saturating_add(1).saturating_mul(SLOT_MS).saturating_sub(1)
}

impl Inner {
    pub(super) async fn due(self: Arc<Self>, table: &Table, until: Millis, after: Option<Wake>, limit: usize) -> Result<Vec<Wake>, Error> {
        let Some(known) = self.find(table).await? else { return Ok(Vec::new()) };
        let mut due = Vec::new();
        let mut from = after.as_ref().map_or(i64::MIN, |wake| slot(wake.due));
        loop {
            let slots = self.slots(known.id, from, slot(until), SLOTS_PAGE).await?;
            for slot in &slots {
                self.due_of_slot(&known, *slot, until, after.as_ref(), limit, &mut due).await?;
                if due.len() >= limit {
                    return Ok(due);
                }
            }
            match slots.last().and_then(|slot| slot.checked_add(1)) {
                Some(next) if slots.len() == SLOTS_PAGE as usize => from = next,
                _ => return Ok(due),
            }
        }
    }

    async fn due_of_slot(
        &self,
        known: &Known,
        slot: i64,
        until: Millis,
        after: Option<&Wake>,
        limit: usize,
        due: &mut Vec<Wake>,
    ) -> Result<(), Error> {
        let mut after = after.filter(|wake| self::slot(wake.due) == slot).cloned();
        let (is_whole, before) = (after.is_none() && last_of(slot) <= until.0, due.len());
        let last = until.0.min(last_of(slot));
        let mut is_empty = true;
        loop {
            // Some of them may have been given up already.
            let page = (limit - due.len()).saturating_add(64).min(PAGE);
            let rows = match &after {
                Some(Wake { due, key }) => {
                    let values = (known.id, slot, due.0, key.clone(), last, page as i32);
                    self.rows(&self.statements.wakes_after, values).await?
                }
                None => self.rows(&self.statements.wakes_first, (known.id, slot, last, page as i32)).await?,
            };
            let found = wakes(&rows)?;
            is_empty &= found.is_empty();
            let is_last = found.len() < page;
            after = found.last().cloned().or(after);
            {
                let written = known.written.lock();
                due.extend(found.into_iter().filter(|wake| !written.cleared.contains_key(wake)));
            }
            if due.len() >= limit {
                due.truncate(limit);
                return Ok(());
            }
            if is_last {
                break;
            }
        }
        if is_whole && is_empty && due.len() == before {
            self.forget_slot(known, slot).await?;
        }
        Ok(())
    }

    async fn forget_slot(&self, known: &Known, slot: i64) -> Result<(), Error> {
        // Not while a flush puts something into it.
        let Ok(_alone) = known.flushing.try_lock() else { return Ok(()) };
        let Some(timestamp) = known.written.lock().whole else { return Ok(()) };
        known.written.lock().slots.remove(&slot);
        self.run(&self.statements.slot_remove, (timestamp - 1, known.id, slot)).await
    }

    /// The slots from one to another that may hold entries, in order.
    pub(super) async fn slots(&self, id: i64, from: i64, to: i64, limit: i32) -> Result<Vec<i64>, Error> {
        let rows = self.rows(&self.statements.slots, (id, from, to, limit)).await?;
        rows.rows::<(i64,)>().map_err(errors::unreadable)?.map(|row| row.map(|(slot,)| slot).map_err(errors::unreadable)).collect()
    }

    /// Deletes entries, each with the timestamp of the flush that gave it up.
    pub(super) async fn clear_wakes(self: &Arc<Self>, id: i64, cleared: &BTreeMap<Wake, i64>) -> Result<(), Error> {
        let mut slots: BTreeMap<i64, Vec<(&Wake, i64)>> = BTreeMap::new();
        for (wake, timestamp) in cleared {
            slots.entry(slot(wake.due)).or_default().push((wake, *timestamp));
        }
        let mut tasks = JoinSet::new();
        for (slot, mut wakes) in slots {
            if wakes.len() >= RUNS_FROM {
                wakes = self.clear_runs(id, slot, wakes, cleared).await?;
            }
            for part in wakes.chunks(BATCH_ROWS) {
                let rows = part.iter().map(|(wake, timestamp)| (*timestamp, id, slot, wake.due.0, wake.key.clone())).collect();
                tasks.spawn(Arc::clone(self).batch(self.statements.wake_remove.clone(), rows));
            }
        }
        all(tasks).await.map(drop)
    }

    /// Deletes whole runs of neighbours in one slot: those between whose ends there is nothing that is wanted. The rest is given back.
    async fn clear_runs<'a>(
        self: &Arc<Self>,
        id: i64,
        slot: i64,
        wakes: Vec<(&'a Wake, i64)>,
        cleared: &BTreeMap<Wake, i64>,
    ) -> Result<Vec<(&'a Wake, i64)>, Error> {
        let (Some((first, _)), Some((last, _))) = (wakes.first(), wakes.last()) else { return Ok(wakes) };
        // The least of a run's timestamps is none too many: each entry was set before it was given up, and a run has one timestamp.
        let mut runs: Vec<Run> = Vec::new();
        let mut open: Option<Run> = None;
        let mut from = (*first).clone();
        let mut is_first = true;
        loop {
            let values = (id, slot, from.due.0, from.key.clone(), last.due.0, last.key.clone(), PAGE as i32);
            let found = self::wakes(&self.rows(&self.statements.wakes_from, values).await?)?;
            let is_last = found.len() < PAGE;
            let next = found.last().cloned();
            // A page begins with the one that the page before it ended with.
            for wake in found.into_iter().skip(usize::from(!is_first)) {
                let given_up = cleared.get(&wake).copied();
                match (&mut open, given_up) {
                    (Some(run), Some(timestamp)) if run.timestamp == timestamp => {
                        run.last = wake;
                        run.count += 1;
                    }
                    (_, Some(timestamp)) => runs.extend(open.replace(Run { first: wake.clone(), last: wake, timestamp, count: 1 })),
                    (_, None) => runs.extend(open.take()),
                }
            }
            is_first = false;
            match next {
                Some(next) if !is_last => from = next,
                _ => break,
            }
        }
        runs.extend(open);
        runs.retain(|run| run.count > 1);
        let mut tasks = JoinSet::new();
        for run in &runs {
            let (inner, run) = (Arc::clone(self), run.clone());
            tasks.spawn(async move {
                let ends = (run.timestamp, id, slot, run.first.due.0, run.first.key, run.last.due.0, run.last.key);
                inner.run(&inner.statements.wakes_remove, ends).await
            });
        }
        all(tasks).await?;
        let mut runs = runs.into_iter().peekable();
        let mut left = Vec::new();
        for (wake, timestamp) in wakes {
            while runs.next_if(|run| run.last < *wake).is_some() {}
            if runs.peek().is_none_or(|run| *wake < run.first) {
                left.push((wake, timestamp));
            }
        }
        Ok(left)
    }
}

/// Neighbours that were given up by one flush.
#[derive(Clone)]
struct Run {
    first: Wake,
    last: Wake,
    timestamp: i64,
    count: usize,
}

fn wakes(rows: &scylla::response::query_result::QueryRowsResult) -> Result<Vec<Wake>, Error> {
    let mut found = Vec::with_capacity(rows.rows_num());
    for row in rows.rows::<(i64, &[u8])>().map_err(errors::unreadable)? {
        let (due, key) = row.map_err(errors::unreadable)?;
        found.push(Wake { due: Millis(due), key: Bytes::copy_from_slice(key) });
    }
    Ok(found)
}
