//! One projector's position in the log and its store: fetch what is new, turn it into rows, commit rows and offsets together.
//!
//! Invariant: a transaction commits only if every stored offset is the one this tail started from. Otherwise another projector was there
//! first: nothing of ours is kept, positions are read again, and the tail goes on from where the other left off.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bulk::Cell;
use super::projector::Options;
use super::store::{Store, StoredPosition};
use super::tables::{Applied, TOPICS, Tables};
use super::{Error, metrics};
use crate::domain::{Incarnation, Namespace, Offset};
use crate::env::Clock;
use crate::log::{self, Fetched, LogReader, TopicPartition};

/// One partition on its way from the log into the tables.
#[derive(Debug, Clone)]
pub struct Cursor {
    pub topic: &'static str,
    pub partition: TopicPartition,
    pub incarnation: Incarnation,
    /// The next offset to read; what the store holds too.
    pub next: Offset,
}

/// What one step did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step {
    pub records: usize,
    pub bytes: usize,
    /// Records that were in the log and not in the tables after it.
    pub lag: u64,
}

/// What a fetch made of one cursor.
#[derive(Debug, Default)]
struct Advance {
    next: Offset,
    end: Offset,
    applied_time: Option<i64>,
    rows: i64,
    nothing: i64,
    unreadable: Vec<(Offset, String)>,
    /// Offsets that retention or damage took before they were read.
    lost: i64,
    bytes: usize,
}

pub struct Tail {
    log: Arc<dyn LogReader>,
    clock: Arc<dyn Clock>,
    namespace: Namespace,
    store: Store,
    cursors: Vec<Cursor>,
    tables: Tables,
}

impl Tail {
    /// Takes over an open store; checks what it says about the log before anything is read.
    pub async fn new(log: Arc<dyn LogReader>, options: &Options, namespace: &Namespace, store: Store) -> Result<Self, Error> {
        let mut tail = Self {
            log,
            clock: Arc::clone(&options.clock),
            namespace: namespace.clone(),
            store,
            cursors: Vec::new(),
            tables: Tables::new(Arc::clone(&options.rules)),
        };
        if !options.is_history {
            tail.store.keep_events(tail.clock.now().0).await?;
        }
        tail.reload().await?;
        Ok(tail)
    }

    pub fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    pub fn cursors(&self) -> &[Cursor] {
        &self.cursors
    }

    /// Where each partition stands, as [`LogReader::wait`] wants it.
    pub fn positions(&self) -> Vec<(TopicPartition, Offset)> {
        self.cursors.iter().map(|cursor| (cursor.partition, cursor.next)).collect()
    }

    /// True if a topic of this namespace is missing still; `reload` finds it once it was created.
    pub fn topics_missing(&self) -> bool {
        TOPICS.iter().any(|topic| self.cursors.iter().all(|cursor| cursor.topic != *topic))
    }

    /// Reads the stored offsets and holds them against the log: another incarnation or an offset past the end is refused.
    pub async fn reload(&mut self) -> Result<(), Error> {
        self.clear();
        let stored = self.store.positions().await?;
        let mut stored: BTreeMap<(String, u32), StoredPosition> =
            stored.into_iter().map(|position| ((position.topic.clone(), position.partition), position)).collect();
        let (mut cursors, mut fresh) = (Vec::new(), Vec::new());
        for info in self.log.topics()? {
            let name = &info.spec.name;
            if name.namespace() != self.namespace.as_str() {
                continue;
            }
            let Some(topic) = TOPICS.iter().copied().find(|topic| *topic == name.topic()) else { continue };
            for number in 0..info.spec.partitions {
                let partition = TopicPartition { topic: info.id, partition: crate::domain::PartitionId(number) };
                let marks = self.log.watermarks(partition)?;
                let next = match stored.remove(&(topic.to_owned(), number)) {
                    Some(position) => self.checked(&position, info.incarnation, marks.end)?,
                    None => {
                        fresh.push((topic, number, info.incarnation, marks.start));
                        marks.start
                    }
                };
                cursors.push(Cursor { topic, partition, incarnation: info.incarnation, next });
            }
        }
        if let Some(((topic, partition), _)) = stored.into_iter().next() {
            return Err(self.refused(format!("it has applied {topic}/{partition}, which the log does not have")));
        }
        for (topic, partition, incarnation, start) in fresh {
            insert_position(&mut self.store, topic, partition, incarnation, start).await?;
        }
        cursors.sort_by_key(|cursor| (TOPICS.iter().position(|topic| *topic == cursor.topic), cursor.partition));
        self.cursors = cursors;
        Ok(())
    }

    fn checked(&self, position: &StoredPosition, incarnation: Incarnation, end: Offset) -> Result<Offset, Error> {
        let StoredPosition { topic, partition, .. } = position;
        if position.incarnation != incarnation {
            let had = position.incarnation;
            return Err(self.refused(format!("{topic}/{partition} is of incarnation {incarnation}, the rows are of {had}")));
        }
        if position.next > end {
            let next = position.next;
            return Err(self.refused(format!("it has applied {topic}/{partition} up to {next}, the log ends at {end}")));
        }
        Ok(position.next)
    }

    fn refused(&self, reason: String) -> Error {
        Error::Refused { namespace: self.namespace.to_string(), reason }
    }

    /// Fetches about `bytes_max` over all partitions and commits it as one transaction.
    pub async fn step(&mut self, bytes_max: usize) -> Result<Step, Error> {
        let mut advances = Vec::new();
        let mut step = Step::default();
        let share = self.share(bytes_max)?;
        for at in 0..self.cursors.len() {
            let advance = self.fetch(at, share)?;
            step.lag += advance.end.0.saturating_sub(advance.next.0);
            if advance.next != self.cursors[at].next {
                step.records += (advance.rows + advance.nothing) as usize + advance.unreadable.len();
                step.bytes += advance.bytes;
                advances.push((at, advance));
            }
        }
        if advances.is_empty() {
            return Ok(step);
        }
        if let Err(error) = self.commit(&advances).await {
            self.clear();
            return Err(error);
        }
        for (at, advance) in &advances {
            self.cursors[*at].next = advance.next;
        }
        metrics::committed(&self.namespace, &step);
        Ok(step)
    }

    /// What each partition that has something new may contribute.
    fn share(&self, bytes_max: usize) -> Result<usize, Error> {
        let mut waiting = 0;
        for cursor in &self.cursors {
            waiting += usize::from(self.log.end_seen(cursor.partition)? > cursor.next);
        }
        Ok((bytes_max / waiting.max(1)).max(1))
    }

    fn fetch(&mut self, at: usize, bytes_max: usize) -> Result<Advance, Error> {
        let Cursor { topic, partition, next, .. } = self.cursors[at].clone();
        let mut advance = Advance { next, end: self.log.end_seen(partition)?, ..Advance::default() };
        let fetched = match self.log.fetch(partition, next, bytes_max) {
            Ok(fetched) => fetched,
            Err(log::Error::OffsetOutOfRange { start, .. }) if next < start => {
                tracing::error!(topic, partition = partition.partition.0, from = next.0, to = start.0, "records were trimmed unread");
                advance.lost = (start.0 - next.0) as i64;
                Fetched { batches: Vec::new(), next: start }
            }
            Err(log::Error::OffsetOutOfRange { asked, end, .. }) => {
                return Err(self.refused(format!("it has applied {topic} up to {asked}, the log ends at {end}")));
            }
            Err(log::Error::Hole { from, to, .. }) => {
                tracing::error!(topic, partition = partition.partition.0, from = from.0, to = to.0, "damaged records are left out");
                advance.lost = (to.0 - next.0) as i64;
                Fetched { batches: Vec::new(), next: to }
            }
            Err(error) => return Err(error.into()),
        };
        for record in fetched.records() {
            advance.applied_time = Some(record.append_time.0);
            match self.tables.add(topic, partition.partition.0, &record) {
                Applied::Rows => advance.rows += 1,
                Applied::Nothing => advance.nothing += 1,
                Applied::Unreadable(error) => {
                    tracing::error!(topic, offset = record.offset.0, error, "a record cannot be read; it is listed in unreadable_records");
                    advance.unreadable.push((record.offset, error));
                }
            }
        }
        advance.bytes = fetched.batches.iter().map(|batch| batch.data().len()).sum();
        advance.next = fetched.next;
        advance.end = advance.end.max(fetched.next);
        Ok(advance)
    }

    async fn commit(&mut self, advances: &[(usize, Advance)]) -> Result<(), Error> {
        self.store.begin().await?;
        match self.apply(advances).await {
            Ok(()) => self.store.commit().await,
            Err(error) => {
                // The error is what counts; a connection that cannot roll back is dropped with what it began.
                let _ = self.store.roll_back().await;
                Err(error)
            }
        }
    }

    async fn apply(&mut self, advances: &[(usize, Advance)]) -> Result<(), Error> {
        let now = self.clock.now().0;
        for (at, advance) in advances {
            move_position(&mut self.store, &self.cursors[*at], advance, now).await?;
        }
        self.tables.write(&mut self.store).await
    }

    fn clear(&mut self) {
        self.tables.clear();
        self.tables.keep_events_from(self.store.events_from());
    }

    /// Between transactions: keeps the store quick and small without waiting for it.
    pub async fn tend(&mut self) -> Result<(), Error> {
        self.store.tend(self.clock.now().0).await?;
        self.tables.keep_events_from(self.store.events_from());
        Ok(())
    }

    /// The same where nobody waits for rows.
    pub async fn tend_waiting(&mut self) -> Result<(), Error> {
        self.store.tend_waiting().await
    }

    /// Makes everything durable in the database itself and closes it.
    pub async fn finish(self) -> Result<(), Error> {
        self.store.finish().await
    }

    pub async fn close(self) -> Result<(), Error> {
        self.store.close().await
    }
}

async fn insert_position(store: &mut Store, topic: &str, partition: u32, incarnation: Incarnation, start: Offset) -> Result<(), Error> {
    let insert = "INSERT INTO processing_status (topic, partition, incarnation, next_offset) VALUES (?, ?, ?, ?) \
                  ON CONFLICT (topic, partition) DO NOTHING";
    let cells = vec![topic.into(), i64::from(partition).into(), i64::from(incarnation.0).into(), (start.0 as i64).into()];
    store.execute("processing_status", insert, cells).await.map(drop)
}

/// The compare-and-set: moves a partition's stored offset on if it is still where this tail read it.
async fn move_position(store: &mut Store, cursor: &Cursor, advance: &Advance, now: i64) -> Result<(), Error> {
    let update = "UPDATE processing_status SET next_offset = ?, end_offset = ?, applied_time = coalesce(?, applied_time), updated_at = ?, \
                  applied = applied + ?, skipped = skipped + ?, unreadable = unreadable + ?, lost = lost + ? \
                  WHERE topic = ? AND partition = ? AND incarnation = ? AND next_offset = ?";
    let partition = i64::from(cursor.partition.partition.0);
    let cells = vec![
        (advance.next.0 as i64).into(),
        (advance.end.0 as i64).into(),
        advance.applied_time.into(),
        now.into(),
        advance.rows.into(),
        advance.nothing.into(),
        (advance.unreadable.len() as i64).into(),
        advance.lost.into(),
        cursor.topic.into(),
        partition.into(),
        i64::from(cursor.incarnation.0).into(),
        (cursor.next.0 as i64).into(),
    ];
    if store.execute("processing_status", update, cells).await? != 1 {
        return Err(Error::Overtaken { topic: cursor.topic.to_owned(), partition: cursor.partition.partition.0 });
    }
    for (offset, error) in &advance.unreadable {
        let insert = "INSERT INTO unreadable_records (topic, partition, log_offset, error) VALUES (?, ?, ?, ?) \
                      ON CONFLICT (topic, partition, log_offset) DO UPDATE SET error = excluded.error";
        let cells: Vec<Cell> = vec![cursor.topic.into(), partition.into(), (offset.0 as i64).into(), error.as_str().into()];
        store.execute("unreadable_records", insert, cells).await?;
    }
    Ok(())
}
