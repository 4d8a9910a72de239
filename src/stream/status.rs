//! What the threads tell the outside (how far each partition is) and what the outside tells them (stop).

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use super::progress::Progress;
use crate::domain::{Duration, Millis, Offset, PartitionId, Tally};

/// How far one partition of one stage is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PartitionStatus {
    pub stage: &'static str,
    pub partition: u32,
    /// Folded up to here (exclusive).
    pub folded: u64,
    pub committed: u64,
    pub flushed: u64,
    /// The partition's end when last asked.
    pub end: u64,
    /// The time that this fold has reached, in ms since the epoch; `None` before the first.
    pub time: Option<i64>,
    /// When it last had nothing to do, in ms since the epoch.
    pub idle_at: Option<i64>,
    /// Re-reading silently what an earlier process had committed.
    pub catching_up: bool,
    /// Since this process started.
    pub records: u64,
    pub applied: u64,
    pub duplicate: u64,
    pub filtered: u64,
    pub dead_lettered: u64,
    /// What it waits for, where it cannot go on by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled: Option<String>,
}

impl PartitionStatus {
    pub fn lag_records(&self) -> u64 {
        self.end.saturating_sub(self.committed)
    }
}

/// Written by one worker, read by anyone.
pub struct Shared {
    stage: &'static str,
    partition: PartitionId,
    folded: AtomicU64,
    committed: AtomicU64,
    flushed: AtomicU64,
    end: AtomicU64,
    time: AtomicI64,
    idle_at: AtomicI64,
    catching_up: AtomicBool,
    records: AtomicU64,
    applied: AtomicU64,
    duplicate: AtomicU64,
    filtered: AtomicU64,
    dead_lettered: AtomicU64,
    stalled: Mutex<Option<String>>,
}

impl Shared {
    pub(super) fn new(stage: &'static str, partition: PartitionId, committed: Offset) -> Self {
        Self {
            stage,
            partition,
            folded: AtomicU64::new(0),
            committed: AtomicU64::new(committed.0),
            flushed: AtomicU64::new(0),
            end: AtomicU64::new(0),
            time: AtomicI64::new(i64::MIN),
            idle_at: AtomicI64::new(i64::MIN),
            catching_up: AtomicBool::new(true),
            records: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            duplicate: AtomicU64::new(0),
            filtered: AtomicU64::new(0),
            dead_lettered: AtomicU64::new(0),
            stalled: Mutex::default(),
        }
    }

    pub(super) fn publish(&self, position: &Progress, committed: &Progress, flushed: &Progress, end: Offset, time: Millis) {
        self.folded.store(position.next.0, Ordering::Relaxed);
        self.committed.store(committed.next.0, Ordering::Relaxed);
        self.flushed.store(flushed.next.0, Ordering::Relaxed);
        self.end.store(end.0, Ordering::Relaxed);
        self.time.store(time.0, Ordering::Relaxed);
        self.catching_up.store(position < committed, Ordering::Relaxed);
    }

    pub(super) fn idle(&self, now: Millis) {
        self.idle_at.store(now.0, Ordering::Relaxed);
    }

    pub(super) fn stalled(&self, why: Option<String>) {
        *self.stalled.lock() = why;
    }

    pub(super) fn committed(&self, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn count(&self, tally: &Tally) {
        self.applied.fetch_add(tally.applied, Ordering::Relaxed);
        self.duplicate.fetch_add(tally.duplicate, Ordering::Relaxed);
        self.filtered.fetch_add(tally.filtered.iter().sum(), Ordering::Relaxed);
        self.dead_lettered.fetch_add(tally.dead_lettered.iter().sum(), Ordering::Relaxed);
    }

    pub(super) fn place(&self) -> (&'static str, PartitionId) {
        (self.stage, self.partition)
    }

    pub fn status(&self) -> PartitionStatus {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let time = self.time.load(Ordering::Relaxed);
        let idle_at = self.idle_at.load(Ordering::Relaxed);
        PartitionStatus {
            stage: self.stage,
            partition: self.partition.0,
            folded: load(&self.folded),
            committed: load(&self.committed),
            flushed: load(&self.flushed),
            end: load(&self.end),
            time: (time != i64::MIN).then_some(time),
            idle_at: (idle_at != i64::MIN).then_some(idle_at),
            catching_up: self.catching_up.load(Ordering::Relaxed),
            records: load(&self.records),
            applied: load(&self.applied),
            duplicate: load(&self.duplicate),
            filtered: load(&self.filtered),
            dead_lettered: load(&self.dead_lettered),
            stalled: self.stalled.lock().clone(),
        }
    }
}

/// The wish to stop, which also cuts short whatever a thread waits for.
#[derive(Default)]
pub struct Stopping {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Stopping {
    pub fn ask(&self) {
        *self.asked.lock() = true;
        self.changed.notify_all();
    }

    pub fn is_asked(&self) -> bool {
        *self.asked.lock()
    }

    /// Waits this long, or until asked to stop.
    pub fn wait(&self, ms: i64) {
        let mut asked = self.asked.lock();
        if !*asked {
            self.changed.wait_for(&mut asked, Duration::from_millis(ms.max(0) as u64));
        }
    }
}
