//! The way of an append: queue, group, sync, publication, ticket.
//!
//! Two roles. The committer owns the encoder and is the only one to publish; the syncer only writes and syncs. While the syncer is busy with
//! group N, the committer encodes large appends into group N+1 at once and leaves small ones waiting, so that as many as possible share a
//! sync. When N is durable, N+1 is handed over first and N's tickets are resolved while N+1 syncs.
//! If either thread panics, every append that waits gets an error and no more are taken: nobody is left waiting for what nobody does.
//! With [`Driver::Caller`](super::Driver) both roles run on the calling thread through [`Machine::drive`].

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::encoder::{EncodedGroup, Encoder, Pending, Sender};
use super::index::WalEntry;
use super::shared::Shared;
use super::sorter;
use super::wal::{Placement, Wal, WriteError};
use crate::log::{Error, Group, TopicPartition};

/// While a sync runs, this many waiting bytes are worth encoding at once; fewer wait for company.
const EAGER_BYTES: usize = 256 << 10;
/// A group is closed at about this size: a sync of more takes longer without being cheaper per byte.
const GROUP_BYTES: usize = 4 << 20;
/// An idle syncer waits this long before it notes for readers what is synced, so that it does not do so between two groups.
const NOTE_AFTER: Duration = Duration::from_millis(5);

/// What waits between callers, committer and syncer.
#[derive(Default)]
pub(super) struct Queue {
    pub pending: VecDeque<Pending>,
    pending_bytes: usize,
    /// Bytes of all appends whose tickets are open.
    pub queued_bytes: usize,
    /// The epoch of each owner in this opening.
    pub owners: BTreeMap<(Group, TopicPartition), u64>,
    to_sync: Option<EncodedGroup>,
    synced: Option<(EncodedGroup, Result<Placement, WriteError>)>,
    is_syncing: bool,
    pub is_closed: bool,
    /// The committer hands over nothing more. An empty queue is no sign of that: it may be encoding what it took.
    is_done: bool,
    /// One of the threads panicked; the other one ends too.
    is_dead: bool,
    /// Why appends have become impossible.
    pub failed: Option<Error>,
    /// Why the last group was refused; nothing once one was taken.
    refused: Option<Error>,
}

impl Queue {
    pub(super) fn is_open(&self) -> Result<(), Error> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if self.is_closed => Err(Error::Closed),
            None => Ok(()),
        }
    }

    pub(super) fn health(&self) -> Result<(), Error> {
        self.is_open()?;
        self.refused.clone().map_or(Ok(()), Err)
    }

    pub(super) fn push(&mut self, append: Pending) {
        self.pending_bytes += append.bytes;
        self.queued_bytes += append.bytes;
        self.pending.push_back(append);
    }

    /// True if the committer has something to do with what was just pushed: waking it for nothing costs more than a small append.
    pub(super) fn wakes_committer(&self) -> bool {
        !self.is_syncing || self.pending_bytes >= EAGER_BYTES
    }

    /// No append succeeds from now on. Answers the senders of those that no thread has taken yet.
    #[must_use = "who waits must be told"]
    fn fail(&mut self, error: &Error) -> Vec<Sender> {
        self.failed = Some(error.clone());
        (self.queued_bytes, self.pending_bytes) = (0, 0);
        self.pending.drain(..).map(|append| append.sender).collect()
    }

    fn take(&mut self, room: usize) -> Vec<Pending> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(append) = self.pending.pop_front_if(|append| bytes == 0 || bytes + append.bytes <= room) {
            bytes += append.bytes;
            taken.push(append);
        }
        self.pending_bytes -= bytes;
        taken
    }
}

#[derive(Default)]
pub(super) struct Queues {
    pub state: Mutex<Queue>,
    /// The committer may have something to do.
    pub work: Condvar,
    /// The syncer may have something to do.
    sync: Condvar,
}

/// The committer: encodes and publishes.
pub(super) struct Committer {
    shared: Arc<Shared>,
    encoder: Encoder,
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, encoder: Encoder) -> Committer {
        Committer { shared, encoder }
    }

    /// Runs until the log is closed and everything handed in is durable.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let queues = &shared.queues;
        loop {
            let mut queue = queues.state.lock();
            while queue.is_dead || !self.has_work(&queue) {
                if queue.is_dead {
                    drop(queue);
                    return self.abandon();
                }
                if queue.is_closed && !queue.is_syncing {
                    queue.is_done = true;
                    queues.sync.notify_all();
                    return;
                }
                queues.work.wait(&mut queue);
            }
            let synced = queue.synced.take();
            if let Some((_, Err(_))) = &synced {
                drop(queue);
                let (group, result) = synced.expect("just matched");
                self.finish(group, result);
                continue;
            }
            let room = GROUP_BYTES.saturating_sub(self.encoder.building_bytes());
            let taken = if room == 0 { Vec::new() } else { queue.take(room) };
            let is_free = synced.is_some() || !queue.is_syncing;
            drop(queue);
            if let Some((group, _)) = &synced {
                self.encoder.synced = group.frames.last().map_or(self.encoder.synced, |frame| frame.head.sequence);
            }
            self.encode(taken);
            if is_free {
                let mut queue = queues.state.lock();
                queue.is_syncing = self.encoder.is_building();
                if queue.is_syncing {
                    queue.to_sync = Some(self.encoder.take_group());
                    queues.sync.notify_one();
                }
            }
            if let Some((group, result)) = synced {
                self.finish(group, result);
            }
        }
    }

    /// The syncer is no more: refuses what was encoded for it.
    fn abandon(&mut self) {
        let error = self.shared.queues.state.lock().failed.clone().unwrap_or(Error::Closed);
        refuse_all(self.encoder.take_group(), &error);
    }

    fn has_work(&self, queue: &Queue) -> bool {
        let can_encode = self.encoder.building_bytes() < GROUP_BYTES;
        queue.synced.is_some()
            || (!queue.is_syncing && (self.encoder.is_building() || !queue.pending.is_empty()))
            || (queue.pending_bytes >= EAGER_BYTES && can_encode)
    }

    fn encode(&mut self, taken: Vec<Pending>) {
        if taken.is_empty() {
            return;
        }
        let shared = &self.shared;
        let end_of = |id| shared.view.index.read().partitions.get(&id).map_or(0, |partition| partition.end);
        self.encoder.encode(taken, shared.clock.now(), &end_of);
    }

    /// Publishes a durable group, or refuses a failed one with everything encoded after it.
    fn finish(&mut self, group: EncodedGroup, result: Result<Placement, WriteError>) {
        match result {
            Ok(placement) => {
                self.shared.publish(&group, &placement);
                let records = group.frames.iter().flat_map(|frame| frame.head.placed()).map(|(entry, _)| u64::from(entry.count)).sum();
                self.shared.metrics.appended(records, group.buffer.len() as u64, placement.synced_in);
                let mut queue = self.shared.queues.state.lock();
                queue.queued_bytes -= group.queued_bytes;
                queue.refused = None;
                drop(queue);
                for (sender, appended) in group.waiting {
                    // A caller that dropped its ticket does not care.
                    sender.send(Ok(appended)).ok();
                }
            }
            Err(WriteError::Refused(error)) => self.refuse(group, &error, false),
            Err(WriteError::Unknown(error)) => self.refuse(group, &error, true),
        }
    }

    fn refuse(&mut self, group: EncodedGroup, error: &Error, is_final: bool) {
        let after = self.encoder.take_group();
        let (sequence, previous) = self.shared.last_published();
        self.encoder.reset(sequence, previous);
        let mut queue = self.shared.queues.state.lock();
        queue.queued_bytes -= group.queued_bytes + after.queued_bytes;
        queue.is_syncing = false;
        queue.refused = Some(error.clone());
        let mut waiting = Vec::new();
        if is_final {
            tracing::error!(%error, "the log stops: whether the last appends are durable is unknown");
            waiting = queue.fail(error);
        }
        drop(queue);
        let encoded = group.waiting.into_iter().chain(after.waiting).map(|(sender, _)| sender);
        for sender in encoded.chain(waiting) {
            sender.send(Err(error.clone())).ok();
        }
    }
}

/// The syncer's thread: write, sync, hand back.
pub(super) fn run_syncer(shared: &Shared, mut wal: Wal) {
    let queues = &shared.queues;
    loop {
        let mut queue = queues.state.lock();
        let group = loop {
            if queue.is_dead {
                return;
            }
            if let Some(group) = queue.to_sync.take() {
                break group;
            }
            if queue.is_done {
                drop(queue);
                wal.note_synced();
                return;
            }
            if wal.has_unnoted() {
                if queues.sync.wait_for(&mut queue, NOTE_AFTER).timed_out() && queue.to_sync.is_none() {
                    wal.note_synced();
                }
            } else {
                queues.sync.wait(&mut queue);
            }
        };
        drop(queue);
        let result = write(shared, &mut wal, &group);
        let mut queue = queues.state.lock();
        if queue.is_dead {
            let error = queue.failed.clone().unwrap_or(Error::Closed);
            drop(queue);
            return refuse_all(group, &error);
        }
        queue.synced = Some((group, result));
        drop(queue);
        queues.work.notify_one();
    }
}

/// Runs one of the two threads to its end. After a panic it answers everyone who waits, since nothing else would, and ends the other thread.
/// What the panicking thread held in its hands is answered as it is dropped: [`Error::Closed`].
pub(super) fn guarded(shared: &Shared, thread: &str, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_ok() {
        return;
    }
    let error = Error::Corrupt(format!(
        "the log's {thread} thread panicked, which is a defect; whether the last appends are durable is unknown: restart"
    ));
    tracing::error!(%error, "the log stops");
    let queues = &shared.queues;
    let mut queue = queues.state.lock();
    let waiting = queue.fail(&error);
    let groups = [queue.to_sync.take(), queue.synced.take().map(|(group, _)| group)];
    (queue.is_dead, queue.is_syncing) = (true, false);
    drop(queue);
    queues.work.notify_all();
    queues.sync.notify_all();
    groups.into_iter().flatten().for_each(|group| refuse_all(group, &error));
    for sender in waiting {
        sender.send(Err(error.clone())).ok();
    }
}

fn refuse_all(group: EncodedGroup, error: &Error) {
    for (sender, _) in group.waiting {
        sender.send(Err(error.clone())).ok();
    }
}

fn write(shared: &Shared, wal: &mut Wal, group: &EncodedGroup) -> Result<Placement, WriteError> {
    let (first, last) = match (group.frames.first(), group.frames.last()) {
        (Some(first), Some(last)) => (first.head.sequence, last.head.sequence),
        _ => unreachable!("a group that is handed over has a frame"),
    };
    let result = wal.write_group(&group.buffer, first, last, shared.clock.now(), group.roll);
    if wal.wants_spare() {
        shared.sorting.ask_for_spare();
    }
    result
}

/// Both roles on the calling thread.
pub(super) struct Machine {
    pub committer: Committer,
    pub wal: Wal,
}

impl Machine {
    /// Encodes, syncs and publishes until nothing waits.
    pub(super) fn drive(&mut self) {
        let shared = Arc::clone(&self.committer.shared);
        loop {
            let taken = shared.queues.state.lock().take(GROUP_BYTES);
            if taken.is_empty() {
                return;
            }
            self.committer.encode(taken);
            let group = self.committer.encoder.take_group();
            let result = write(&shared, &mut self.wal, &group);
            if result.is_ok() {
                self.committer.encoder.synced = group.frames.last().map_or(0, |frame| frame.head.sequence);
            }
            self.committer.finish(group, result);
            sorter::work(&shared);
        }
    }
}

/// The entries of a group's batches, with the tail's share of its buffer.
pub(super) fn entries<'a>(group: &'a EncodedGroup, placement: &'a Placement) -> impl Iterator<Item = (TopicPartition, WalEntry)> + 'a {
    group.frames.iter().flat_map(move |frame| {
        frame.head.placed().map(move |(entry, within)| {
            let begin = frame.at + within;
            let wal_entry = WalEntry {
                base: entry.base,
                count: entry.count,
                len: entry.len,
                crc: entry.crc,
                append_time: frame.head.append_time,
                file: Arc::clone(&placement.file),
                at: placement.at + begin as u64,
                tail: Some(group.buffer.slice(begin..begin + entry.len as usize)),
            };
            (entry.partition, wal_entry)
        })
    })
}
