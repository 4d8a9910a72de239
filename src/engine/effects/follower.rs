//! From the journal onto the board, and from the board into the tables: without threads or waiting, so that a simulation drives it as the
//! executor does. The board's lock is held for one fetch, or one table, at a time.

use std::sync::Arc;

use parking_lot::Mutex;

use super::board::Board;
use super::table::Tables;
use super::{Error, metrics};
use crate::domain::{Millis, Namespace, Offset, PartitionId, SubjectKey};
use crate::log::{LogReader, RecordRef, TopicPartition};
use crate::schema::records::JournalRecord;
use crate::state::StateStore;
use crate::stream::{Topic, Topics};

const FETCH_BYTES: usize = 1 << 20;

pub struct Follower {
    namespace: Namespace,
    log: Arc<dyn LogReader>,
    tables: Arc<Tables>,
    /// By partition, the next offset to read.
    positions: Vec<(TopicPartition, Offset)>,
    flushed: Vec<Offset>,
    was_empty: bool,
}

impl Follower {
    /// Reads what is stored onto the board.
    pub fn open(log: Arc<dyn LogReader>, state: Arc<dyn StateStore>, topics: &Topics, board: &mut Board) -> Result<Self, Error> {
        Self::open_some(log, state, topics, None, board)
    }

    /// The same of these partitions only: others are elsewhere.
    pub fn open_some(
        log: Arc<dyn LogReader>,
        state: Arc<dyn StateStore>,
        topics: &Topics,
        partitions: Option<&[PartitionId]>,
        board: &mut Board,
    ) -> Result<Self, Error> {
        let tables = Tables::new(state, &topics.namespace, topics.count(Topic::Journal), topics.incarnation(Topic::Journal));
        let (mut positions, mut was_empty) = (Vec::new(), true);
        for id in topics.partitions(Topic::Journal).filter(|id| partitions.is_none_or(|some| some.contains(&id.partition))) {
            let bounds = log.watermarks(id)?;
            let stored = tables.position(id.partition.0, bounds.end)?;
            if stored.is_some() {
                was_empty = false;
                tables.load(id.partition.0, &mut board.pending)?;
            }
            positions.push((id, stored.unwrap_or(bounds.start).max(bounds.start)));
        }
        let flushed = positions.iter().map(|(_, from)| *from).collect();
        Ok(Self { namespace: topics.namespace.clone(), log, tables: Arc::new(tables), positions, flushed, was_empty })
    }

    /// Nothing was stored.
    pub fn was_empty(&self) -> bool {
        self.was_empty
    }

    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    pub fn positions(&self) -> &[(TopicPartition, Offset)] {
        &self.positions
    }

    /// Where the journal ends now.
    pub fn ends(&self) -> Result<Vec<Offset>, Error> {
        self.positions.iter().map(|(id, _)| Ok(self.log.watermarks(*id)?.end)).collect()
    }

    pub fn is_at(&self, ends: &[Offset]) -> bool {
        self.positions.iter().zip(ends).all(|((_, at), end)| at >= end)
    }

    /// One fetch of each partition.
    pub fn read(&mut self, board: &Mutex<Board>, now: impl Fn() -> u64) -> Result<(), Error> {
        for (id, from) in &mut self.positions {
            let fetched = self.log.fetch(*id, *from, FETCH_BYTES)?;
            if fetched.next == *from {
                continue;
            }
            let mut board = board.lock();
            let now = now();
            for record in fetched.records() {
                if let Err(error) = take_in(&mut board, id.partition.0, &record, now) {
                    // It is the journal's reader that is too old or the record that is damaged: either way others must go on.
                    metrics::unreadable(&self.namespace);
                    tracing::error!(partition = id.partition.0, offset = record.offset.0, %error, "a fact that cannot be read is passed over");
                }
            }
            *from = fetched.next;
        }
        Ok(())
    }

    /// Stores what is pending; of more than so many bytes the requests leave memory.
    pub fn flush(&mut self, board: &Mutex<Board>, request_bytes_max: usize) -> Result<(), Error> {
        for ((id, offset), stored) in self.positions.iter().zip(&mut self.flushed) {
            if *stored == *offset && !board.lock().pending.notices.is_dirty(id.partition.0) {
                continue;
            }
            let mut flushed = self.tables.collect(&mut board.lock().pending, id.partition.0, *offset);
            let written = self.tables.write(&mut flushed);
            let mut board = board.lock();
            match written {
                Ok(()) => flushed.done(&mut board.pending, request_bytes_max),
                Err(error) => {
                    flushed.failed(&mut board.pending);
                    return Err(error);
                }
            }
            *stored = *offset;
        }
        Ok(())
    }
}

fn take_in(board: &mut Board, partition: u32, record: &RecordRef<'_>, now: u64) -> Result<(), Error> {
    let Some(value) = record.value else { return Ok(()) };
    let JournalRecord::Fact(fact) = crate::schema::decode(value)? else { return Ok(()) };
    if fact.run.is_empty() {
        return Ok(());
    }
    let key = || SubjectKey::from_bytes(bytes::Bytes::copy_from_slice(record.key)).map_err(|error| Error::Row(error.to_string()));
    Ok(board.fact(partition, key, Millis(fact.at), fact.run, fact.body, now)??)
}
