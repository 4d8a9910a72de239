//! The thread that follows the journal: waits until performing may begin, then reads, drives and stores until it is asked to stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Error;
use super::drive::Shared;
use super::follower::Follower;
use super::gate::Gate;
use super::metrics;
use crate::env::Patience;
use crate::log::LogReader;

/// The longest wait without looking whether to stop.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// How often it is asked whether performing may begin.
const GATE_MS: i64 = 5;
const HELD_MS: i64 = 1_000;

pub(super) struct Tail {
    pub shared: Arc<Shared>,
    pub log: Arc<dyn LogReader>,
    pub follower: Follower,
    pub last_flush: Instant,
    pub request_bytes_max: usize,
    pub flush_age: Duration,
    pub flush_bytes_max: usize,
    pub patience: Patience,
    /// What is open may have been done where this folder was copied from; nothing is stored before that is said.
    pub is_new_copy: bool,
}

impl Tail {
    pub fn run(&mut self, mut gate: Gate) -> Result<(), Error> {
        if self.catch_up(&mut gate)? {
            self.shared.board.lock().begin(self.is_new_copy, self.shared.now());
            self.is_new_copy = false;
            while !self.shared.stopping.is_asked() {
                self.shared.drive()?;
                self.flush_if_due()?;
                self.log.wait(self.follower.positions(), self.patience_ms())?;
                self.read()?;
            }
            self.shared.give_back()?;
        }
        if self.is_new_copy { Ok(()) } else { self.flush() }
    }

    /// Everything up to the journal's end, after the fold has decided what was handed in before; false if asked to stop meanwhile.
    fn catch_up(&mut self, gate: &mut Gate) -> Result<bool, Error> {
        while !gate.is_open(&*self.log)? {
            if self.shared.stopping.is_asked() {
                return Ok(false);
            }
            self.read()?;
            self.flush_if_due()?;
            self.shared.stopping.wait(if gate.is_held() { HELD_MS } else { GATE_MS });
        }
        let ends = self.follower.ends()?;
        while !self.follower.is_at(&ends) {
            if self.shared.stopping.is_asked() {
                return Ok(false);
            }
            self.read()?;
            self.flush_if_due()?;
        }
        Ok(true)
    }

    fn patience_ms(&self) -> Duration {
        let board = self.shared.board.lock();
        let due = board.next_due().map(|due| Duration::from_millis(due.saturating_sub(self.shared.now()).max(1)));
        due.map_or(WAIT_MAX, |due| due.min(WAIT_MAX))
    }

    fn read(&mut self) -> Result<(), Error> {
        let shared = &self.shared;
        self.follower.read(&shared.board, || shared.now())
    }

    fn flush_if_due(&mut self) -> Result<(), Error> {
        let is_large = self.shared.board.lock().pending.dirty_bytes() >= self.flush_bytes_max;
        let is_old = self.last_flush.elapsed() >= self.flush_age;
        if self.is_new_copy || (!is_large && !is_old) {
            return Ok(());
        }
        metrics::pending(&self.shared.namespace, self.shared.board.lock().pending.len());
        match self.flush() {
            // The journal has it all: it is tried again with the next.
            Err(Error::State(error)) if error.may_pass() => {
                if self.patience.refused(1, self.shared.clock.now()).1 {
                    tracing::warn!(%error, "pending effects cannot be stored for now");
                }
                self.last_flush = Instant::now();
                Ok(())
            }
            flushed => flushed,
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.follower.flush(&self.shared.board, self.request_bytes_max)?;
        self.last_flush = Instant::now();
        Ok(())
    }
}
