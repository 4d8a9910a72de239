//! What is asked of the log: appends and who owns what, looks at it from within and from beside, backups, cleaning, pins.

use std::future::Future;
use std::path::Path;
use std::pin::Pin as StdPin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use flywheel::domain::Offset;
use flywheel::env::Clock;
use flywheel::env::fs::Fs;
use flywheel::env::fs::sim::Faults;
use flywheel::log::embedded::{EmbeddedLog, EmbeddedReader, backup};
use flywheel::log::{Advice, Error, LogReader, LogWriter};
use rand::Rng;

use super::run::{FOLDER, GROUPS, Run};
use super::truth::{Append, Content, Fate, Pin};

impl Run {
    pub(super) fn append(&mut self) {
        let number = self.truth.appends.len();
        let append = self.draw_append();
        self.tell(|| {
            format!(
                "append {number}: {:?}, {:?}",
                append.batches.iter().map(|batch| (batch.0, batch.1.len())).collect::<Vec<_>>(),
                append.commit
            )
        });
        self.truth.appends.push(append);
        let transaction = self.truth.appends[number].transaction(number, &self.truth);
        match self.log().append(transaction) {
            Ok(ticket) => {
                self.tickets.insert(number, ticket);
            }
            Err(error) => self.refused(number, error),
        }
    }

    fn refused(&mut self, number: usize, error: Error) {
        self.note_error("append", &error);
        self.has_failed |= error.advice() == Advice::Fatal;
        self.truth.answer(number, Err(error));
    }

    fn draw_append(&mut self) -> Append {
        let partitions = self.truth.partitions.len();
        let mut batches = vec![(self.rng.random_range(0..2), self.draw_records())];
        for _ in 0..self.rng.random_range(0..4) {
            batches.push((self.rng.random_range(0..partitions), self.draw_records()));
        }
        let owned: Vec<(usize, usize)> = self.truth.owners.keys().copied().collect();
        let commit = (!owned.is_empty() && self.rng.random_bool(0.5)).then(|| {
            let (group, partition) = owned[self.rng.random_range(0..owned.len())];
            (group, partition, self.next_commit(group, partition))
        });
        Append { batches, commit, fate: Fate::Unknown, appended: None }
    }

    /// At or past what the group committed before, at or before the partition's end.
    fn next_commit(&mut self, group: usize, partition: usize) -> u64 {
        let before =
            |append: &Append| append.commit.filter(|commit| (commit.0, commit.1) == (group, partition)).map_or(0, |commit| commit.2);
        let least = self.truth.appends.iter().map(before).max().unwrap_or(0);
        let end = self.log().watermarks(self.truth.partitions[partition]).map_or(0, |marks| marks.end.0);
        self.rng.random_range(least..=end.max(least))
    }

    fn draw_records(&mut self) -> Vec<Content> {
        let count = self.rng.random_range(1..5);
        let record = |_| {
            let key = format!("key {}", self.rng.random_range(0..6)).into_bytes();
            let len = match self.rng.random_range(0..40) {
                0 => self.rng.random_range(1_000..9_000),
                1..6 => 0,
                _ => self.rng.random_range(1..150),
            };
            let filler: u8 = self.rng.random();
            // Runs of zeros are what a lost write looks like; make records that look like it too.
            let value = (0..len).map(|at: usize| if filler < 40 { 0 } else { filler.wrapping_mul(at as u8 | 1) }).collect();
            Content { key, value: self.rng.random_bool(0.85).then_some(value) }
        };
        (0..count).map(record).collect()
    }

    pub(super) fn hear_tickets(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut heard = Vec::new();
        // The newest first: whichever is answered, those before it were answered earlier, and are heard in the same round.
        for (number, ticket) in self.tickets.iter_mut().rev() {
            if let Poll::Ready(result) = StdPin::new(ticket).poll(&mut cx) {
                heard.push((*number, result));
            }
        }
        for (number, result) in heard.into_iter().rev() {
            self.tickets.remove(&number);
            self.tell(|| format!("append {number} is answered: {result:?}"));
            match result {
                Ok(appended) => self.truth.answer(number, Ok(appended)),
                Err(error) => self.refused(number, error),
            }
        }
    }

    /// Waits until nothing is in flight.
    pub(super) fn finish_tickets(&mut self) {
        self.log().drive();
        for (number, ticket) in std::mem::take(&mut self.tickets) {
            match ticket.wait() {
                Ok(appended) => self.truth.answer(number, Ok(appended)),
                Err(error) => self.refused(number, error),
            }
        }
    }

    pub(super) fn look(&mut self) {
        let partition = self.rng.random_range(0..self.truth.partitions.len());
        let log = self.log.clone().expect("the log is open");
        let marks = log.watermarks(self.truth.partitions[partition]).expect("watermarks");
        let from = self.rng.random_range(marks.start.0..=marks.end.0);
        let bytes_max = self.rng.random_range(0..3_000);
        self.hear_tickets();
        // A read that fails is tried again by whoever needs it; here the disk is made to behave for the time of the look.
        self.fs.set_faults(Faults { short_read: self.troubles.faults.short_read, ..Faults::default() });
        if !self.fs.is_off() {
            self.truth.look(&*log, partition, from, bytes_max);
        }
    }

    /// Another process reads the files, without a lock and without a word to the writer.
    pub(super) fn look_beside(&mut self) {
        self.fs.set_faults(Faults { short_read: self.troubles.faults.short_read, ..Faults::default() });
        if self.fs.is_off() {
            return;
        }
        let reader = EmbeddedReader::open(Arc::new(self.fs.clone()), Path::new(FOLDER)).expect("a reader needs no lock");
        let partition = self.rng.random_range(0..self.truth.partitions.len());
        let marks = reader.watermarks(self.truth.partitions[partition]).expect("watermarks");
        let from = self.rng.random_range(marks.start.0..=marks.end.0);
        self.truth.counts.read_beside += marks.end.0 - from;
        self.truth.look(&reader, partition, from, 2_000);
    }

    /// A backup while the log runs, and a log made from it: both hold everything that was acknowledged before, or are refused.
    pub(super) fn copy(&mut self) {
        self.truth.copies += 1;
        let (copy, restored) = (format!("copy {}", self.truth.copies), format!("restored {}", self.truth.copies));
        let (copy, restored) = (Path::new(&copy), Path::new(&restored));
        self.hear_tickets();
        let acknowledged = self.truth.acknowledged();
        let fs: Arc<dyn Fs> = Arc::new(self.fs.clone());
        let made = self.log().backup(copy).and_then(|_| backup::restore(&*fs, copy, restored));
        self.tell(|| format!("copied: {:?}", made.as_ref().err()));
        match made {
            Ok((_, report)) => {
                self.fs.set_faults(Faults::default());
                assert!(self.fs.is_off() || report.is_sound(), "the copy is damaged: {report:?}");
                self.check_copy(restored, &acknowledged);
            }
            Err(error) => {
                self.has_failed |= matches!(self.log().health(), Err(error) if error.advice() == Advice::Fatal);
                self.note_error("backup", &error);
            }
        }
        // What is left of them takes no room from the log; faults may leave some of it after all.
        for (path, _) in self.fs.files() {
            if path.starts_with(copy) || path.starts_with(restored) {
                fs.remove(&path).ok();
            }
        }
    }

    fn check_copy(&mut self, restored: &Path, acknowledged: &[usize]) {
        let options = self.options.clone();
        match EmbeddedLog::open(Arc::new(self.fs.clone()), restored, options, Arc::new(self.clock.clone())) {
            Ok(log) => {
                assert!(log.incarnation() > self.log().incarnation(), "a copy is another life of the log");
                if !self.fs.is_off() {
                    self.truth.check_copy(&*log, acknowledged);
                }
                log.close();
            }
            Err(error) => self.note_error("opening a copy", &error),
        }
    }

    pub(super) fn clean(&mut self) {
        self.truth.allow_cleaning();
        if let Err(error) = self.log().clean(self.clock.now()) {
            self.note_error("clean", &error);
        }
    }

    pub(super) fn roll(&mut self) {
        self.tell(|| "roll".to_owned());
        if let Err(error) = self.log().roll() {
            self.note_error("roll", &error);
            self.has_failed |= error.advice() == Advice::Fatal;
        }
    }

    pub(super) fn pin(&mut self) {
        let partition = self.rng.random_range(0..self.truth.partitions.len());
        let id = self.truth.partitions[partition];
        let marks = self.log().watermarks(id).expect("watermarks");
        let offset = self.rng.random_bool(0.7).then(|| self.rng.random_range(marks.start.0..=marks.end.0));
        match self.log().pin("sim", id, offset.map(Offset)) {
            Ok(()) => match offset {
                Some(offset) => self.truth.pins.insert(partition, Pin::At(offset)),
                None => self.truth.pins.remove(&partition),
            },
            Err(error) => {
                self.note_error("pin", &error);
                self.truth.pins.insert(partition, Pin::Uncertain)
            }
        };
    }

    pub(super) fn acquire(&mut self) {
        let group = self.rng.random_range(0..GROUPS.len());
        let partition = self.rng.random_range(0..self.truth.partitions.len());
        let stale = self.truth.owners.get(&(group, partition)).cloned();
        match self.log().acquire(&self.truth.groups[group].clone(), self.truth.partitions[partition]) {
            Ok(owner) => {
                let before = self.truth.epochs.insert((group, partition), owner.epoch);
                assert!(before.is_none_or(|before| before < owner.epoch), "epoch {} was given out before: {before:?}", owner.epoch);
                self.truth.owners.insert((group, partition), owner);
            }
            Err(error) => {
                self.note_error("acquire", &error);
                self.has_failed |= error.advice() == Advice::Fatal;
                self.truth.owners.remove(&(group, partition));
                return;
            }
        }
        if let Some(stale) = stale {
            let number = self.truth.appends.len();
            let newer = self.truth.owners.insert((group, partition), stale).expect("just acquired");
            let offset = self.next_commit(group, partition);
            let mut append = self.draw_append();
            append.commit = Some((group, partition, offset));
            self.truth.appends.push(append);
            let transaction = self.truth.appends[number].transaction(number, &self.truth);
            self.truth.owners.insert((group, partition), newer);
            let refused = self.log().append(transaction);
            assert!(matches!(refused, Err(Error::Fenced(_))) || self.has_failed || self.fs.is_off(), "a stale owner's append was taken");
            self.truth.appends[number].fate = Fate::Absent;
        }
    }
}
