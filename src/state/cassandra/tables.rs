//! Tables of ours by name: a number each, a new one after a drop, so that no late write finds its way into what was begun anew.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Inner, all, cell, errors};
use crate::state::{Error, Table, Upto, Wake};

/// How many times finding or making a table is tried while others drop and make it.
const TRIES: usize = 5;
const SLOTS_PAGE: i32 = 1_000;

/// A table as this process knows it. One that is taken over is looked up anew: another process may have dropped it meanwhile.
pub(super) struct Known {
    pub(super) id: i64,
    /// One flush at a time, and reads of the index beside it.
    pub(super) flushing: tokio::sync::Mutex<()>,
    pub(super) written: Mutex<Written>,
}

#[derive(Default)]
pub(super) struct Written {
    /// The last watermark's place, and how many flushes there were there before.
    pub(super) last: Option<(Upto, u32)>,
    /// The timestamp of the last flush that is whole.
    pub(super) whole: Option<i64>,
    /// Index entries to be deleted with the next flush, with the timestamp of the one that gave them up.
    pub(super) cleared: BTreeMap<Wake, i64>,
    /// Parts of the index that this process has put into `wake_slots`.
    pub(super) slots: HashSet<i64>,
}

impl Inner {
    /// The table if it exists.
    pub(super) async fn find(&self, table: &Table) -> Result<Option<Arc<Known>>, Error> {
        if let Some(known) = self.known.lock().get(table) {
            return Ok(Some(Arc::clone(known)));
        }
        match self.id_of(table).await? {
            Some(id) => self.know(table, id).await.map(Some),
            None => Ok(None),
        }
    }

    async fn id_of(&self, table: &Table) -> Result<Option<i64>, Error> {
        let rows = self.rows(&self.statements.table_find, (&*table.0,)).await?;
        Ok(rows.maybe_first_row::<(i64,)>().map_err(errors::unreadable)?.map(|(id,)| id))
    }

    async fn know(&self, table: &Table, id: i64) -> Result<Arc<Known>, Error> {
        let last = self.stored_watermark(id).await?.map(|(upto, count, _)| (upto, count));
        let written = Mutex::new(Written { last, ..Written::default() });
        let known = Arc::new(Known { id, flushing: tokio::sync::Mutex::default(), written });
        Ok(Arc::clone(self.known.lock().entry(table.clone()).or_insert(known)))
    }

    /// The table, made if it does not exist.
    pub(super) async fn find_or_make(&self, table: &Table) -> Result<Arc<Known>, Error> {
        for _ in 0..TRIES {
            if let Some(known) = self.find(table).await? {
                return Ok(known);
            }
            let id = (uuid::Uuid::new_v4().as_u128() >> 65) as i64;
            // Whoever is first makes it; the others find it.
            self.run(&self.statements.table_add, (&*table.0, id)).await?;
        }
        Err(Error::Unavailable(format!("the table {} is dropped as often as it is made: do two processes own it?", table.0)))
    }

    pub(super) async fn tables(&self) -> Result<Vec<Table>, Error> {
        let rows = self.rows(&self.statements.table_list, ()).await?;
        let mut tables = Vec::new();
        let mut known = self.known.lock();
        let mut there = HashSet::new();
        for row in rows.rows::<(&str, i64)>().map_err(errors::unreadable)? {
            let (name, id) = row.map_err(errors::unreadable)?;
            let table = Table(Arc::from(name));
            if known.get(&table).is_some_and(|known| known.id != id) {
                known.remove(&table);
            }
            there.insert(table.clone());
            tables.push(table);
        }
        known.retain(|table, _| there.contains(table));
        Ok(tables)
    }

    /// What the table's own process stored last; whatever was known of it is forgotten.
    pub(super) async fn watermark(&self, table: &Table) -> Result<Option<Bytes>, Error> {
        self.known.lock().remove(table);
        let Some(known) = self.find(table).await? else { return Ok(None) };
        Ok(self.stored_watermark(known.id).await?.map(|(.., watermark)| watermark))
    }

    async fn stored_watermark(&self, id: i64) -> Result<Option<(Upto, u32, Bytes)>, Error> {
        let rows = self.rows(&self.statements.watermark, (id,)).await?;
        let row = rows.maybe_first_row::<(Option<Bytes>, Option<i64>)>().map_err(errors::unreadable)?;
        let Some((Some(cell), Some(at))) = row else { return Ok(None) };
        // Out of the answer's frame, which is as large as all of it.
        cell::decode(&Bytes::copy_from_slice(&cell), at).map(Some)
    }

    /// From then on the name is free, whatever happens while the rows are deleted.
    pub(super) async fn drop_table(&self, table: &Table) -> Result<(), Error> {
        self.known.lock().remove(table);
        let Some(id) = self.id_of(table).await? else { return Ok(()) };
        self.run(&self.statements.dropped_add, (id,)).await?;
        self.run(&self.statements.table_remove, (&*table.0, id)).await?;
        self.clean(id).await
    }

    /// Finishes what a process began that ended meanwhile.
    pub(super) async fn clean_dropped(self: Arc<Self>) -> Result<(), Error> {
        let rows = self.rows(&self.statements.dropped_list, ()).await?;
        let ids: Vec<_> = rows.rows::<(i64,)>().map_err(errors::unreadable)?.collect::<Result<_, _>>().map_err(errors::unreadable)?;
        let live = self.rows(&self.statements.table_list, ()).await?;
        let live: HashSet<i64> = live
            .rows::<(&str, i64)>()
            .map_err(errors::unreadable)?
            .map(|row| row.map(|(_, id)| id))
            .collect::<Result<_, _>>()
            .map_err(errors::unreadable)?;
        for (id,) in ids {
            // Its process ended before the name was free: it is not dropped after all.
            if live.contains(&id) {
                self.run(&self.statements.dropped_remove, (id,)).await?;
            } else {
                self.clean(id).await?;
            }
        }
        Ok(())
    }

    /// Deletes all rows, now: later than any position.
    async fn clean(&self, id: i64) -> Result<(), Error> {
        let statements = &self.statements;
        self.run(&statements.watermark_drop, (id,)).await?;
        let mut tasks = tokio::task::JoinSet::new();
        let mut send = |statement: &scylla::statement::prepared::PreparedStatement, part: Part| {
            let (session, room, statement) = (Arc::clone(&self.session), Arc::clone(&self.room), statement.clone());
            tasks.spawn(async move {
                let _room = room.acquire_owned().await.expect("never closed");
                let sent = match part {
                    Part::Bucket(bucket) => session.execute_unpaged(&statement, (id, bucket)).await,
                    Part::Slot(slot) => session.execute_unpaged(&statement, (id, slot)).await,
                };
                sent.map(drop).map_err(errors::failed)
            });
        };
        for bucket in 0..cell::BUCKETS {
            send(&statements.states_drop, Part::Bucket(bucket as i16));
        }
        let mut from = Some(i64::MIN);
        while let Some(first) = from.take() {
            let slots = self.slots(id, first, i64::MAX, SLOTS_PAGE).await?;
            slots.iter().for_each(|slot| send(&statements.wakes_drop, Part::Slot(*slot)));
            if slots.len() == SLOTS_PAGE as usize {
                from = slots.last().and_then(|slot| slot.checked_add(1));
            }
        }
        all(tasks).await?;
        self.run(&statements.slots_drop, (id,)).await?;
        self.run(&statements.dropped_remove, (id,)).await
    }
}

enum Part {
    Bucket(i16),
    Slot(i64),
}
