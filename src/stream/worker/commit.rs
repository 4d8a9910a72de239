//! What a worker makes durable: outputs and offset in one append, handed in again while the disk is full; and, after it, the states.

use super::{InFlight, Worker, balanced};
use crate::domain::Millis;
use crate::log::{Advice, Committed, Ticket, Transaction};
use crate::stream::fold::{Fold, Seal};
use crate::stream::progress::{Mark, Watermark};
use crate::stream::{Cursor, Error, metrics};

impl<F: Fold> Worker<F> {
    pub(super) fn commit(&mut self, seal: &Seal, now: Millis) -> Result<(), Error> {
        self.fold.seal(seal, &mut self.out)?;
        if seal.tick_due {
            self.last_tick = Some(now);
        }
        let tally = self.account.seal(&mut self.out, now)?;
        let records = self.finished;
        balanced(&format!("{} up to {}", self.fold.stage(), self.position.next), records, &tally)?;
        let cursor = self.position.cursor.clone();
        let mark = Mark { incarnation: self.incarnation, time: self.fold.time(), cursor, memo: self.fold.marked() };
        let committed = Committed { offset: self.position.next, metadata: mark.encode() };
        let transaction = Transaction { batches: self.out.take(), commits: vec![(self.ownership.clone(), committed)] };
        self.settle()?;
        let ticket = self.append(&transaction)?;
        self.in_flight = Some(InFlight { ticket, transaction, progress: self.position.clone(), records });
        (self.uncommitted, self.finished) = (0, 0);
        self.last_commit = now;
        // Only now: one that the log found too large is folded again and handed in as smaller ones.
        metrics::batch(&self.around.topics.namespace, self.fold.stage(), &tally);
        self.shared.count(&tally);
        Ok(())
    }

    fn append(&self, transaction: &Transaction) -> Result<Ticket, Error> {
        loop {
            let again = Transaction { batches: transaction.batches.clone(), commits: transaction.commits.clone() };
            match self.around.log.append(again) {
                Ok(ticket) => return Ok(ticket),
                Err(error) => self.pause_or_give_up(error)?,
            }
        }
    }

    /// Waits until the commit under way is durable.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        let Some(mut under_way) = self.in_flight.take() else { return Ok(()) };
        loop {
            match under_way.ticket.wait() {
                Ok(_) => break,
                Err(error) => self.pause_or_give_up(error)?,
            }
            under_way.ticket = self.append(&under_way.transaction)?;
        }
        self.committed = under_way.progress;
        self.shared.committed(under_way.records);
        self.patience.log.taken();
        Ok(())
    }

    fn pause_or_give_up(&self, error: crate::log::Error) -> Result<(), Error> {
        if error.advice() != Advice::Retry || self.around.stopping.is_asked() {
            return Err(error.into());
        }
        let (pause_ms, tell) = self.patience.log.refused(self.around.options.retry_pause_ms, self.around.clock.now());
        if tell {
            let partition = self.input.partition.0;
            tracing::warn!(stage = self.fold.stage(), partition, %error, "commit refused; trying again until it is taken");
        }
        self.around.stopping.wait(pause_ms);
        Ok(())
    }

    pub(super) fn flush_if_due(&mut self) -> Result<(), Error> {
        let options = &self.around.options;
        let now = self.around.clock.now();
        // Before all keys are gone through, the store must hold them all: the way through is the store's key order.
        let is_sweeping = matches!(self.position.cursor, Some(Cursor::Sweep { .. }));
        let is_old = now < self.last_flush || now >= self.last_flush + options.flush_age_ms_max;
        let is_large = self.fold.dirty_bytes() >= options.flush_bytes_max;
        let has_moved = self.flushed != self.position || self.fold.dirty_bytes() > 0;
        if !has_moved || !(is_sweeping || is_large || is_old) {
            return Ok(());
        }
        loop {
            match self.flush() {
                Err(Error::State(error)) if error.may_pass() => self.pause(&error),
                flushed => return flushed,
            }
            // Merely old, it can wait in memory while the fold goes on. The log has it all, so that a stop need not wait either.
            if !(is_sweeping || is_large) || self.around.stopping.is_asked() {
                return Ok(());
            }
        }
    }

    pub(super) fn pause_reading(&self, error: &crate::log::Error) {
        let (pause_ms, tell) = self.patience.log.refused(self.around.options.retry_pause_ms, self.around.clock.now());
        if tell {
            let partition = self.input.partition.0;
            tracing::warn!(stage = self.fold.stage(), partition, %error, "the log does not answer; asking again until it does");
        }
        self.around.stopping.wait(pause_ms);
    }

    pub(super) fn pause(&self, error: &crate::state::Error) {
        let (pause_ms, tell) = self.patience.state.refused(self.around.options.retry_pause_ms, self.around.clock.now());
        if tell {
            let partition = self.input.partition.0;
            tracing::warn!(stage = self.fold.stage(), partition, %error, "state refused; trying again until it is taken");
        }
        self.around.stopping.wait(pause_ms);
    }

    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.settle()?;
        if self.position > self.committed {
            return Ok(());
        }
        let memo = Default::default();
        let progress = self.position.clone();
        let watermark = Watermark { incarnation: self.incarnation, fold_version: self.fold.version(), progress, memo };
        self.fold.flush(watermark)?;
        self.patience.state.taken();
        self.flushed = self.position.clone();
        self.last_flush = self.around.clock.now();
        Ok(())
    }
}
