//! A flush: index entries, states, watermark, then the deletions that the flush before it left.
//!
//! What goes to one partition of the server goes in unlogged batches, each of them one mutation there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use tokio::task::JoinSet;

use super::tables::Known;
use super::{Inner, all, cell, errors, wakes};
use crate::state::{Error, Flush, Table, Wake};

/// What one batch holds at most. Larger ones are no quicker and hold a connection and the server's heap for longer.
const BATCH_BYTES: usize = 64 << 10;
const BATCH_ROWS: usize = 256;

/// What every part of a flush writes under.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) id: i64,
    pub(super) timestamp: i64,
}

impl Inner {
    pub(super) async fn flush(self: Arc<Self>, table: &Table, flush: Flush) -> Result<(), Error> {
        let timestamp = cell::timestamp(&flush.upto, self.incarnation_max)?;
        let known = self.find_or_make(table).await?;
        let _alone = known.flushing.lock().await;
        let count = {
            let mut written = known.written.lock();
            let count = match &written.last {
                Some((upto, count)) if *upto == flush.upto => count + 1,
                _ => 0,
            };
            // Also of one that fails: what is tried again may hold more, and must be the greater cell.
            written.last = Some((flush.upto.clone(), count));
            count
        };
        let at = At { id: known.id, timestamp };
        self.set_wakes(&known, at, &flush.wakes_set).await?;
        self.write_states(at, count, &flush).await?;
        if let Some(watermark) = &flush.watermark {
            let cell = cell::encode(&flush.upto.within, count, watermark);
            self.run(&self.statements.watermark_set, (timestamp, cell, known.id)).await?;
        }
        let due = {
            let mut written = known.written.lock();
            written.whole = Some(timestamp);
            for wake in &flush.wakes_set {
                written.cleared.remove(wake);
            }
            let set: BTreeSet<&Wake> = flush.wakes_set.iter().collect();
            let fresh: Vec<Wake> = flush.wakes_cleared.into_iter().filter(|wake| !set.contains(wake)).collect();
            let due: BTreeMap<Wake, i64> = written.cleared.clone();
            written.cleared.extend(fresh.into_iter().map(|wake| (wake, timestamp)));
            due
        };
        // All that the flush promises is stored. What cannot be deleted now is deleted with the next.
        match self.clear_wakes(known.id, &due).await {
            Ok(()) => {
                let mut written = known.written.lock();
                written.cleared.retain(|wake, given_up| due.get(wake) != Some(given_up));
            }
            Err(error) => tracing::debug!(table = %table.0, %error, "wake-ups that nobody wants are deleted later"),
        }
        Ok(())
    }

    async fn set_wakes(self: &Arc<Self>, known: &Known, at: At, wakes: &[Wake]) -> Result<(), Error> {
        let mut slots: BTreeMap<i64, Vec<Wake>> = BTreeMap::new();
        for wake in wakes {
            slots.entry(wakes::slot(wake.due)).or_default().push(wake.clone());
        }
        let fresh: Vec<i64> = {
            let written = known.written.lock();
            slots.keys().copied().filter(|slot| !written.slots.contains(slot)).collect()
        };
        let mut tasks = JoinSet::new();
        for part in fresh.chunks(BATCH_ROWS) {
            let rows = part.iter().map(|slot| (at.id, *slot, at.timestamp)).collect();
            tasks.spawn(Arc::clone(self).batch(self.statements.slot_set.clone(), rows));
        }
        all(tasks).await?;
        known.written.lock().slots.extend(fresh);
        let mut tasks = JoinSet::new();
        for (slot, wakes) in slots {
            for part in wakes.chunks(BATCH_ROWS) {
                let rows = part.iter().map(|wake| (at.id, slot, wake.due.0, wake.key.clone(), at.timestamp)).collect();
                tasks.spawn(Arc::clone(self).batch(self.statements.wake_set.clone(), rows));
            }
        }
        all(tasks).await.map(drop)
    }

    async fn write_states(self: &Arc<Self>, at: At, count: u32, flush: &Flush) -> Result<(), Error> {
        let mut set: HashMap<i16, (usize, Vec<SetRow>)> = HashMap::new();
        let mut removed: HashMap<i16, Vec<(i64, i64, i16, Bytes)>> = HashMap::new();
        let mut tasks = JoinSet::new();
        for (key, state) in &flush.states {
            let bucket = cell::bucket(key);
            let Some(state) = state else {
                removed.entry(bucket).or_default().push((at.timestamp, at.id, bucket, key.clone()));
                continue;
            };
            let cell = cell::encode(&flush.upto.within, count, state);
            let (bytes, rows) = set.entry(bucket).or_default();
            *bytes += key.len() + cell.len();
            rows.push((at.timestamp, cell, at.id, bucket, key.clone()));
            if *bytes >= BATCH_BYTES || rows.len() >= BATCH_ROWS {
                *bytes = 0;
                tasks.spawn(Arc::clone(self).batch(self.statements.state_set.clone(), std::mem::take(rows)));
            }
        }
        for (_, rows) in set.into_values().filter(|(_, rows)| !rows.is_empty()) {
            tasks.spawn(Arc::clone(self).batch(self.statements.state_set.clone(), rows));
        }
        for rows in removed.into_values() {
            for part in rows.chunks(BATCH_ROWS) {
                tasks.spawn(Arc::clone(self).batch(self.statements.state_remove.clone(), part.to_vec()));
            }
        }
        all(tasks).await.map(drop)
    }

    /// One statement once for each row, all of one partition, as one request.
    pub(super) async fn batch<R: scylla::serialize::row::SerializeRow + Send + Sync>(
        self: Arc<Self>,
        statement: PreparedStatement,
        mut rows: Vec<R>,
    ) -> Result<(), Error> {
        if rows.len() == 1 {
            let row = rows.pop().expect("one of one");
            return self.run(&statement, row).await;
        }
        let statements = vec![BatchStatement::PreparedStatement(statement); rows.len()];
        let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
        batch.set_is_idempotent(true);
        let _room = self.room.acquire().await.expect("never closed");
        self.session.batch(&batch, rows).await.map(drop).map_err(errors::failed)
    }
}

/// Timestamp, cell, table, bucket, key.
type SetRow = (i64, Vec<u8>, i64, i16, Bytes);
