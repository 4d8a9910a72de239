//! The partition loop: fetch a batch, fold it, commit outputs and offset as one, flush states lazily after the commit that covers them.
//!
//! One worker drives one fold over one partition and is stepped by a thread (`runner`), a test or a simulation; nothing in here waits for
//! anything but an append's ticket. At most one commit is under way while the next batch folds, and the next is handed in only once that
//! one is durable, so that a refused append can be repeated without a later one overtaking it.
//!
//! Whatever a fold holds in memory may be ahead of what is durable, so a flush first waits for the commit under way.

mod commit;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::account::Account;
use super::fold::{Applied, Fault, Fold, Seal, Window};
use super::opening::{Opened, open};
use super::outputs::{Outputs, Source};
use super::progress::Progress;
use super::pulse::Pulse;
use super::status::{Shared, Stopping};
use super::{Error, Options, Topic, Topics, metrics};
use crate::domain::{DeadReason, FilterReason, Incarnation, Millis, Offset, Outcome, Tally};
use crate::env::{Clock, Patience};
use crate::log::{Advice, Fetched, Group, LogWriter, Ownership, RecordRef, Ticket, TopicPartition, Transaction};
use crate::state::StateStore;

/// After a record that failed, this many more are folded with an undo at hand: failures come in groups, and each surprise costs a re-read.
const CAREFUL_RECORDS: u64 = 10_000;
/// A fold that waits for an answer of others is asked again after this long.
const ASK_AGAIN_MS: i64 = 20;

/// What the outside gives every worker of a namespace.
#[derive(Clone)]
pub struct Surroundings {
    pub log: Arc<dyn LogWriter>,
    pub state: Arc<dyn StateStore>,
    pub clock: Arc<dyn Clock>,
    pub topics: Topics,
    pub options: Options,
    pub stopping: Arc<Stopping>,
    pub pulse: Arc<Pulse>,
}

/// What one step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stepped {
    Worked,
    /// Nothing to do before this time unless a record arrives.
    Idle {
        until: Millis,
    },
    /// A few records are there, and better taken with those that follow, at this time.
    Lingering {
        until: Millis,
    },
}

struct InFlight {
    ticket: Ticket,
    /// Kept to hand it in again if the disk was full.
    transaction: Transaction,
    progress: Progress,
    records: u64,
}

/// With those that may refuse for a while.
#[derive(Default)]
struct Patiences {
    log: Patience,
    state: Patience,
}

pub struct Worker<F: Fold> {
    around: Surroundings,
    fold: F,
    input: TopicPartition,
    incarnation: Incarnation,
    ownership: Ownership,
    out: Outputs,
    account: Account,
    /// Folded up to here.
    position: Progress,
    /// Durably committed up to here.
    committed: Progress,
    /// States stored up to here.
    flushed: Progress,
    in_flight: Option<InFlight>,
    folded_time: Option<Millis>,
    /// Steps forward since the last commit was handed in, unfinished records included.
    uncommitted: u64,
    /// Records finished since then: what the account must come to.
    finished: u64,
    /// The most records of one commit, lowered where one turned out larger than the log takes.
    records_max: u64,
    last_commit: Millis,
    last_flush: Millis,
    last_tick: Option<Millis>,
    /// The position at which the pulse was last told who is next due.
    told_due: Option<Offset>,
    careful_until: Option<Offset>,
    /// What the fold now decides by is not in its stored state yet.
    must_store: bool,
    /// The fold waits for others before it can go on with what was fetched last.
    is_waiting: bool,
    /// Something came from outside since this was last told.
    has_arrivals: bool,
    patience: Patiences,
    /// The second whose first dead letter was logged.
    told_second: Option<i64>,
    shared: Arc<Shared>,
}

impl<F: Fold> Worker<F> {
    /// Takes over the partition and finds out where to go on from.
    pub fn open(mut around: Surroundings, mut fold: F) -> Result<Self, Error> {
        let (topic, partition) = fold.input();
        let input = around.topics.partition(topic, partition);
        let incarnation = around.topics.incarnation(topic);
        let group = Group(format!("{}.{}", around.topics.namespace, fold.stage()).into());
        let ownership = around.log.acquire(&group, input)?;
        let opened = open(&around, &mut fold, &ownership, incarnation)?;
        let Opened { committed, flushed } = opened;
        // Asked for once: what this start has built is not built again after each record that fails.
        around.options.rebuild_state = false;
        let now = around.clock.now();
        let shared = Arc::new(Shared::new(fold.stage(), partition, committed.next));
        let account = Account::new(fold.stage(), partition, fold.keeps_account());
        let mut worker = Self {
            out: Outputs::new(around.topics.clone()),
            around,
            fold,
            input,
            incarnation,
            ownership,
            account,
            position: flushed.clone(),
            committed,
            flushed,
            in_flight: None,
            folded_time: None,
            uncommitted: 0,
            finished: 0,
            records_max: u64::MAX,
            last_commit: Millis::MIN,
            last_flush: now,
            last_tick: None,
            told_due: None,
            careful_until: None,
            must_store: false,
            is_waiting: false,
            has_arrivals: false,
            patience: Default::default(),
            told_second: None,
            shared,
        };
        worker.publish()?;
        Ok(worker)
    }

    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub fn fold(&self) -> &F {
        &self.fold
    }

    /// What `LogReader::wait` should watch for this worker.
    pub fn position(&self) -> (TopicPartition, Offset) {
        (self.input, self.position.next)
    }

    fn is_catching_up(&self) -> bool {
        self.position < self.committed
    }

    /// Does the next piece of work, if there is one.
    pub fn step(&mut self) -> Result<Stepped, Error> {
        match if self.is_catching_up() { self.catch_up() } else { self.go_on() } {
            Err(Error::State(error)) if error.may_pass() => self.await_state(error),
            Err(Error::Log(error)) if error.advice() == Advice::Retry => self.await_log(error),
            stepped => stepped,
        }
    }

    /// Finishes what is under way and stores everything, so that the next start has nothing to re-read.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.settle()?;
        // What was recovered from outputs is as unstored as what was folded.
        if !self.is_catching_up() && (self.flushed != self.position || self.fold.dirty_bytes() > 0) {
            match self.flush() {
                Err(Error::State(error)) if error.may_pass() => {
                    tracing::warn!(stage = self.fold.stage(), %error, "stopped without storing everything; the next start re-reads it");
                }
                flushed => flushed?,
            }
        }
        self.publish()
    }

    /// Re-reads silently what was committed before but is not in the stored states.
    fn catch_up(&mut self) -> Result<Stepped, Error> {
        self.out.set_silent(true);
        let Some(fetched) = self.fetch(self.around.options.fetch_bytes_max)? else { return Ok(Stepped::Worked) };
        let before = self.position.clone();
        let stop = self.committed.clone();
        let mut done = self.fold_batch(&fetched, Some(&stop));
        // What was written in those commits must not be left over for the next one, which would be as large as all of them.
        let nothing_new = Seal { folded: None, end_asked: None, tick_due: false };
        done = done.and_then(|()| self.fold.seal(&nothing_new, &mut self.out));
        self.account.clear();
        self.out.clear();
        self.out.set_silent(false);
        match done {
            Err(Error::Record(fault)) => return self.be_careful(&fault),
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        (self.uncommitted, self.finished) = (0, 0);
        if self.position == before {
            let what = format!("{:?} at {}", self.input, before.next);
            return Err(Error::Corrupt { what, detail: format!("the records up to {:?} cannot be re-read", self.committed) });
        }
        self.flush_if_due()?;
        self.publish()?;
        Ok(Stepped::Worked)
    }

    fn go_on(&mut self) -> Result<Stepped, Error> {
        let now = self.around.clock.now();
        // Of a record that takes several commits, only that record.
        let bytes_max = if self.position.cursor.is_some() { 1 } else { self.around.options.fetch_bytes_max };
        let Some(fetched) = self.fetch(bytes_max)? else { return Ok(Stepped::Worked) };
        if !fetched.is_empty() && self.should_linger(&fetched, now) {
            return Ok(Stepped::Lingering { until: self.last_commit + self.around.options.linger_ms });
        }
        // Not in a namespace to which nothing ever came: states without a committed offset are not trusted at the next start.
        if !fetched.is_empty() || self.committed != Progress::default() {
            self.must_store |= self.fold.go_live(self.position.next)?;
        }
        if self.must_store {
            match self.flush() {
                // Nothing is decided until it is stored. Each step tries again, so that the loop hears when it is to stop.
                Err(Error::State(error)) if error.may_pass() => {
                    self.pause(&error);
                    return Ok(Stepped::Worked);
                }
                stored => stored?,
            }
            self.must_store = false;
        }
        if let Err(error) = self.fold_batch(&fetched, None) {
            return match error {
                Error::Record(fault) => self.be_careful(&fault),
                error => Err(error),
            };
        }
        if std::mem::take(&mut self.has_arrivals) {
            self.around.pulse.news(now);
        }
        let seal = self.seal_facts(now)?;
        if self.uncommitted > 0 || self.fold.has_news(&seal) {
            match self.commit(&seal, now) {
                Err(Error::Log(crate::log::Error::TooLarge { bytes, max })) if self.finished > 1 => {
                    tracing::warn!(stage = self.fold.stage(), bytes, max, "a commit is larger than the log takes; making smaller ones");
                    self.records_max = self.finished / 2;
                    self.start_over()?;
                    return Ok(Stepped::Worked);
                }
                Err(Error::Log(crate::log::Error::TooLarge { bytes, max })) if self.fold.take_less() => {
                    tracing::warn!(
                        stage = self.fold.stage(),
                        bytes,
                        max,
                        "part of a record is more than the log takes; taking smaller parts"
                    );
                    self.start_over()?;
                    return Ok(Stepped::Worked);
                }
                committed => committed?,
            }
            self.records_max = self.records_max.saturating_mul(2);
            self.flush_if_due()?;
            self.publish()?;
            return Ok(Stepped::Worked);
        }
        // A tick that had nothing to say is over too, or the next would be due at once, for ever.
        if seal.tick_due {
            self.last_tick = Some(now);
        }
        self.settle()?;
        self.flush_if_due()?;
        self.tell_due(now)?;
        self.publish()?;
        if self.is_waiting {
            return Ok(Stepped::Lingering { until: now + ASK_AGAIN_MS });
        }
        self.shared.idle(now);
        Ok(Stepped::Idle { until: self.next_duty(now) })
    }

    /// The next records; none if the log does not answer for now, which is waited out before anything is touched.
    fn fetch(&mut self, bytes_max: usize) -> Result<Option<Fetched>, Error> {
        match self.around.log.fetch(self.input, self.position.next, bytes_max) {
            Ok(fetched) => Ok(Some(fetched)),
            Err(error) if error.advice() == Advice::Retry => {
                self.pause_reading(&error);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// While nothing comes, time need not be told before somebody is due.
    fn tell_due(&mut self, now: Millis) -> Result<(), Error> {
        if self.told_due != Some(self.position.next) && self.around.pulse.is_calm(now) {
            self.around.pulse.next_due(self.fold.stage(), self.input.partition, self.fold.next_due()?);
            self.told_due = Some(self.position.next);
        }
        Ok(())
    }

    /// A commit per record would write every profile per event: under light load a few milliseconds' records go together.
    fn should_linger(&self, fetched: &Fetched, now: Millis) -> bool {
        let options = &self.around.options;
        let bytes: usize = fetched.batches.iter().map(|batch| batch.data().len()).sum();
        options.linger_ms > 0 && bytes < options.linger_bytes && self.last_commit <= now && now < self.last_commit + options.linger_ms
    }

    fn fold_batch(&mut self, fetched: &Fetched, stop: Option<&Progress>) -> Result<(), Error> {
        let is_before_stop = |record: &RecordRef<'_>| {
            stop.is_none_or(|stop| record.offset < stop.next || (record.offset == stop.next && stop.cursor.is_some()))
        };
        let mut records: Vec<RecordRef<'_>> = fetched.records().take_while(is_before_stop).collect();
        let ready = self.fold.ready(&records)?;
        self.is_waiting = ready < records.len();
        records.truncate(ready);
        self.fold.prepare(&records)?;
        let is_edge = matches!(self.fold.input().0, Topic::Intake | Topic::Inbox);
        for (at, record) in records.iter().enumerate() {
            let until = stop.filter(|stop| stop.next == record.offset).and_then(|stop| stop.cursor.as_ref());
            match self.apply(at, record, until)? {
                Applied::Done(outcome) => {
                    self.account.count(record, outcome, || self.fold.message_id(record));
                    self.has_arrivals |= is_edge && outcome != Outcome::Filtered(FilterReason::Control);
                    self.position = Progress::at(record.offset.next());
                    self.uncommitted += 1;
                    self.finished += 1;
                }
                Applied::Rejected(_) => unreachable!("kept as a dead letter in `apply`"),
                Applied::More(cursor) => {
                    self.position = Progress { next: record.offset, cursor: Some(cursor) };
                    self.uncommitted += 1;
                    self.folded_time = Some(record.append_time);
                    return Ok(());
                }
            }
            self.folded_time = Some(record.append_time);
            let bytes = self.out.bytes() + self.fold.unsealed_bytes();
            if bytes >= self.around.options.output_bytes_max || self.finished >= self.records_max {
                return Ok(());
            }
        }
        if self.is_waiting {
            return Ok(());
        }
        // Offsets that compaction removed are passed over; a stop within them is reached.
        let past = stop.map_or(fetched.next, |stop| fetched.next.min(stop.next));
        if past > self.position.next {
            self.position = Progress::at(past);
            // To be committed like any other step: states stored beyond the commit would not be trusted at the next start.
            self.uncommitted += u64::from(stop.is_none());
        }
        Ok(())
    }

    /// Folds one record with its failures contained: the first one makes the worker start over carefully, then each is a dead letter.
    fn apply(&mut self, at: usize, record: &RecordRef<'_>, until: Option<&super::Cursor>) -> Result<Applied, Error> {
        let after = if self.position.next == record.offset { self.position.cursor.clone() } else { None };
        let window = Window { after: after.as_ref(), until };
        let is_careful = self.careful_until.is_some_and(|until| record.offset < until);
        if self.careful_until.is_some() && !is_careful {
            self.careful_until = None;
            self.fold.set_careful(false);
        }
        let checkpoint = is_careful.then(|| self.out.checkpoint());
        let (fold, out) = (&mut self.fold, &mut self.out);
        let fault = match catch_unwind(AssertUnwindSafe(|| fold.apply(at, record, window, out))) {
            Ok(Ok(Applied::Rejected(fault))) => return self.reject(record, &fault),
            Ok(Err(Error::Record(fault))) => fault,
            Ok(result) => return result,
            Err(panic) => Fault::new(DeadReason::Panicked, panic_text(panic.as_ref())),
        };
        let Some(checkpoint) = checkpoint else {
            self.careful_until = Some(Offset(record.offset.0 + CAREFUL_RECORDS));
            return Err(Error::Record(fault));
        };
        self.fold.undo();
        self.out.rewind(&checkpoint);
        self.reject(record, &fault)
    }

    fn reject(&mut self, record: &RecordRef<'_>, fault: &Fault) -> Result<Applied, Error> {
        // Any client can send what is refused: one line a second says so, all of them are in the topic.
        let second = Some(record.append_time.0.div_euclid(1_000));
        if self.told_second != second {
            self.told_second = second;
            tracing::warn!(stage = self.fold.stage(), offset = record.offset.0, reason = %fault.reason, detail = %fault.detail, "record kept as a dead letter, as may be others of this second: `flywheel dead-letter list`");
        }
        let (topic, partition) = self.fold.input();
        let source = Source { stage: self.fold.stage(), topic, partition };
        let message_id = catch_unwind(AssertUnwindSafe(|| self.fold.message_id(record))).unwrap_or_default();
        self.out.dead_letter(&source, record, fault, &message_id)?;
        self.fold.refused(record, fault.reason, &mut self.out)?;
        Ok(Applied::Done(Outcome::DeadLettered(fault.reason)))
    }

    /// A record failed half-way: what is in memory cannot be trusted, so go back to what is stored and come here again, undo at hand.
    fn be_careful(&mut self, fault: &Fault) -> Result<Stepped, Error> {
        tracing::warn!(stage = self.fold.stage(), position = self.position.next.0, detail = %fault.detail, "a record failed; re-reading to leave it out");
        self.start_over()?;
        Ok(Stepped::Worked)
    }

    /// Forgets everything since the last commit and everything in memory; goes on from what is stored.
    fn start_over(&mut self) -> Result<(), Error> {
        self.settle()?;
        self.out.clear();
        self.account.clear();
        (self.uncommitted, self.finished) = (0, 0);
        self.must_store = false;
        let opened = open(&self.around, &mut self.fold, &self.ownership, self.incarnation)?;
        self.committed = opened.committed;
        self.position = opened.flushed.clone();
        self.flushed = opened.flushed;
        self.fold.set_careful(self.careful_until.is_some());
        Ok(())
    }

    fn seal_facts(&mut self, now: Millis) -> Result<Seal, Error> {
        let options = &self.around.options;
        let is_first = self.last_tick.is_none();
        let interval_ms = self.around.pulse.tick_interval_ms(now, options);
        let tick_due = is_first || self.last_tick.is_some_and(|last| now >= last + interval_ms || now < last);
        let mut end_asked = None;
        if tick_due {
            let asked = self.around.clock.now();
            let end = self.around.log.watermarks(self.input)?.end;
            end_asked = (self.position == Progress::at(end)).then_some(asked);
        }
        Ok(Seal { folded: self.folded_time, end_asked, tick_due })
    }

    /// States could not be read in the midst of a step: what is in memory may be half a record's work, so once they can be, go back to
    /// what is stored. Asked to stop meanwhile, it ends with the error, since nothing in memory may be stored.
    fn await_state(&mut self, mut error: crate::state::Error) -> Result<Stepped, Error> {
        while !self.around.stopping.is_asked() {
            self.pause(&error);
            match self.start_over() {
                Ok(()) => return Ok(Stepped::Worked),
                Err(Error::State(again)) if again.may_pass() => error = again,
                Err(other) => return Err(other),
            }
        }
        Err(error.into())
    }

    /// The log did not answer in the midst of a step: as where states could not be read. Asked to stop meanwhile, it ends with the error.
    fn await_log(&mut self, mut error: crate::log::Error) -> Result<Stepped, Error> {
        while !self.around.stopping.is_asked() {
            self.pause_reading(&error);
            match self.start_over() {
                Ok(()) => return Ok(Stepped::Worked),
                Err(Error::Log(again)) if again.advice() == Advice::Retry => error = again,
                Err(other) => return Err(other),
            }
        }
        Err(error.into())
    }

    fn next_duty(&self, now: Millis) -> Millis {
        let options = &self.around.options;
        let tick = self.last_tick.map_or(now, |last| last + self.around.pulse.tick_interval_ms(now, options));
        let flush = if self.flushed == self.position { Millis::MAX } else { self.last_flush + options.flush_age_ms_max };
        tick.min(flush)
    }

    fn publish(&mut self) -> Result<(), Error> {
        let end = self.around.log.end_seen(self.input)?;
        self.shared.publish(&self.position, &self.committed, &self.flushed, end, self.fold.time());
        self.shared.stalled(self.fold.stalled());
        metrics::partition(&self.around.topics.namespace, &self.shared);
        Ok(())
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked".to_owned())
}

/// A worker whatever its fold, for threads and tests that drive several.
pub trait Stepper: Send {
    fn step(&mut self) -> Result<Stepped, Error>;
    fn stop(&mut self) -> Result<(), Error>;
    fn position(&self) -> (TopicPartition, Offset);
    fn shared(&self) -> Arc<Shared>;
}

impl<F: Fold> Stepper for Worker<F> {
    fn step(&mut self) -> Result<Stepped, Error> {
        Worker::step(self)
    }
    fn stop(&mut self) -> Result<(), Error> {
        Worker::stop(self)
    }
    fn position(&self) -> (TopicPartition, Offset) {
        Worker::position(self)
    }
    fn shared(&self) -> Arc<Shared> {
        Worker::shared(self)
    }
}

/// Records counted against outcomes, for a batch's account.
pub(super) fn balanced(what: &str, records: u64, tally: &Tally) -> Result<(), Error> {
    let counted = tally.total();
    if records == counted { Ok(()) } else { Err(Error::Unbalanced { what: what.to_owned(), records, counted }) }
}
