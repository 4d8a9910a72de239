//! One seed's life: what is asked of the log, what fails meanwhile, and when the machine stops.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin as StdPin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use flywheel::domain::{Millis, Namespace, Offset, PartitionId};
use flywheel::env::fs::sim::{Call, Crash, Faults};
use flywheel::env::fs::{Fs, SimFs};
use flywheel::env::{Clock, ManualClock};
use flywheel::log::embedded::{Driver, EmbeddedLog, EmbeddedReader, Options, backup};
use flywheel::log::{Advice, Cleanup, Error, Group, LogReader, LogWriter, Retention, Ticket, TopicName, TopicPartition, TopicSpec};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::truth::{Append, Content, Counts, Fate, Kind, Pin, Truth};

const FOLDER: &str = "log";
const AGE_MS: u64 = 5_000;
const PARTITIONS_EACH: u32 = 2;
const GROUPS: [&str; 2] = ["fold", "projector"];

/// What may go wrong in one seed; drawn first, so that many seeds have only one kind of trouble and reach far with it.
#[derive(Debug, Clone, Copy)]
struct Troubles {
    faults: Faults,
    full_disk: bool,
    cuts_within_calls: bool,
    power: bool,
    flips: bool,
}

impl Troubles {
    fn draw(rng: &mut ChaCha8Rng) -> Troubles {
        let all = rng.random_ratio(1, 6);
        let mut chance = |of: u32, worst: u32| if all || rng.random_ratio(1, of) { rng.random_range(1..=worst) } else { 0 };
        let faults = Faults {
            read: chance(8, 30),
            short_read: chance(4, 500),
            write: chance(5, 200),
            sync: chance(4, 300),
            name: chance(8, 200),
            sync_folder: chance(8, 200),
        };
        Troubles {
            faults,
            full_disk: rng.random_ratio(1, 4),
            cuts_within_calls: rng.random_ratio(2, 3),
            power: rng.random_ratio(4, 5),
            flips: rng.random_ratio(1, 5),
        }
    }
}

/// Who hears what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    Nothing,
    /// Standard error, for a seed that is looked at by itself.
    Print,
    /// [`Run::story`], to compare two runs.
    Keep,
}

pub struct Run {
    pub story: Vec<String>,
    telling: Telling,
    rng: ChaCha8Rng,
    fs: SimFs,
    clock: ManualClock,
    options: Options,
    troubles: Troubles,
    log: Option<Arc<EmbeddedLog>>,
    truth: Truth,
    tickets: BTreeMap<usize, Ticket>,
    /// Whether a call may fail for another reason than a full disk.
    may_fail: bool,
    has_failed: bool,
    /// The power may go within any call: with threads, within any call of theirs.
    is_armed: bool,
}

impl Run {
    pub fn new(seed: u64, telling: Telling, driver: impl Fn(&mut ChaCha8Rng) -> Driver) -> Run {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let troubles = Troubles::draw(&mut rng);
        let options = Options {
            driver: driver(&mut rng),
            wal_bytes: rng.random_range(12..40) << 10,
            wal_first_bytes: rng.random_range(12..40) << 10,
            tail_bytes_max: if rng.random_bool(0.5) { 0 } else { 8 << 10 },
            segment_bytes_max: rng.random_range(8..64) << 10,
            block_bytes: rng.random_range(1..4) << 9,
            block_cache_bytes_max: if rng.random_bool(0.5) { 0 } else { 16 << 10 },
            roll_age_ms: 2_000,
            ..Options::small()
        };
        let fs = SimFs::new(seed);
        let clock = ManualClock::at(Millis(1_000_000));
        let mut run = Run {
            rng,
            fs,
            clock,
            options,
            troubles,
            log: None,
            truth: Truth::default(),
            tickets: BTreeMap::new(),
            may_fail: false,
            has_failed: false,
            is_armed: false,
            story: Vec::new(),
            telling,
        };
        if telling != Telling::Nothing {
            run.fs.keep_story();
        }
        let setting = format!("{:?} {:?}", run.troubles, run.options);
        run.tell(|| setting);
        run.begin();
        run
    }

    /// A clean disk with all topics: their creation has troubles of its own in the lives that follow.
    fn begin(&mut self) {
        let log = self.open().expect("a new folder opens");
        let aged = Retention::Age(Duration::from_millis(AGE_MS));
        let topics = [
            ("kept", Kind::Kept, Retention::Forever, Cleanup::Delete),
            ("aged", Kind::Aged, aged, Cleanup::Delete),
            ("keyed", Kind::Keyed, Retention::Forever, Cleanup::Compact),
        ];
        for (name, kind, retention, cleanup) in topics {
            let name = TopicName::new(&Namespace::new("sim").expect("a slug"), name);
            let topic = log.create_topic(&TopicSpec { name, partitions: PARTITIONS_EACH, retention, cleanup }).expect("created").id;
            for partition in 0..PARTITIONS_EACH {
                self.truth.partitions.push(TopicPartition { topic, partition: PartitionId(partition) });
                self.truth.kinds.push(kind);
            }
        }
        let partitions = self.truth.partitions.len();
        self.truth.groups = GROUPS.iter().map(|name| Group((*name).into())).collect();
        self.truth.cleanable = vec![0; partitions];
        self.truth.starts = vec![0; partitions];
        self.log = Some(log);
    }

    fn open(&self) -> Result<Arc<EmbeddedLog>, Error> {
        EmbeddedLog::open(Arc::new(self.fs.clone()), Path::new(FOLDER), self.options.clone(), Arc::new(self.clock.clone()))
    }

    /// Lives one after another, and a last look at what is left.
    pub fn all(mut self) -> Self {
        let lives = self.rng.random_range(2..6);
        for _ in 0..lives {
            self.live();
            let crash = if self.troubles.power && self.rng.random_bool(0.7) { Crash::Power } else { Crash::Process };
            self.stop(crash);
            self.start();
        }
        if self.troubles.flips {
            self.flip_bits();
        }
        self
    }

    pub fn counts(&self) -> &Counts {
        &self.truth.counts
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        if self.telling == Telling::Nothing {
            return;
        }
        let mut lines = self.fs.take_story();
        lines.push(line());
        match self.telling {
            Telling::Print => lines.iter().for_each(|line| eprintln!("{line}")),
            _ => self.story.extend(lines),
        }
    }

    fn live(&mut self) {
        if self.troubles.cuts_within_calls && self.rng.random_bool(0.6) {
            let changes = self.rng.random_range(0..200);
            self.is_armed = true;
            self.fs.power_off_after(changes);
        }
        for _ in 0..self.rng.random_range(5..60) {
            if self.fs.is_off() || self.has_failed {
                return;
            }
            self.step();
            self.hear_tickets();
        }
    }

    fn step(&mut self) {
        let choice = self.rng.random_range(0..100);
        self.tell(|| format!("step {choice}"));
        match choice {
            0..52 => self.append(),
            52 if self.is_armed && self.options.driver == Driver::Threads => {}
            52 => self.copy(),
            53..65 if self.is_armed && self.options.driver == Driver::Threads => {}
            53..61 => self.look(),
            61..65 => self.look_beside(),
            65..72 => self.log().drive(),
            72..77 => self.clean(),
            77..81 => self.roll(),
            81..84 => self.pin(),
            84..88 => self.acquire(),
            88..90 => self.reopen(),
            90..92 => self.clock.advance(self.rng.random_range(0..3_000) - 200),
            92..97 => self.toggle_faults(),
            _ => self.toggle_space(),
        }
    }

    fn log(&self) -> &EmbeddedLog {
        self.log.as_deref().expect("the log is open")
    }

    /// What an error means: a full disk is never the log's end, anything else may be, if there was a reason for it.
    fn note_error(&mut self, doing: &str, error: &Error) {
        match error.advice() {
            Advice::Retry => {
                let is_behind = matches!(error, Error::Overloaded) && (self.may_fail || self.options.driver == Driver::Threads);
                assert!(self.troubles.full_disk || self.fs.is_off() || is_behind, "{doing}: {error}");
            }
            Advice::Reject => panic!("{doing}: {error}"),
            Advice::Fatal => {
                assert!(self.may_fail || self.fs.is_off(), "{doing} fails without a reason: {error}");
                // Whoever reads or cleans may try again; only when appends have ended, the process does.
            }
        }
    }

    fn append(&mut self) {
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

    fn hear_tickets(&mut self) {
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
    fn finish_tickets(&mut self) {
        self.log().drive();
        for (number, ticket) in std::mem::take(&mut self.tickets) {
            match ticket.wait() {
                Ok(appended) => self.truth.answer(number, Ok(appended)),
                Err(error) => self.refused(number, error),
            }
        }
    }

    fn look(&mut self) {
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
    fn look_beside(&mut self) {
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
    fn copy(&mut self) {
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

    fn clean(&mut self) {
        self.truth.allow_cleaning();
        if let Err(error) = self.log().clean(self.clock.now()) {
            self.note_error("clean", &error);
        }
    }

    fn roll(&mut self) {
        self.tell(|| "roll".to_owned());
        if let Err(error) = self.log().roll() {
            self.note_error("roll", &error);
            self.has_failed |= error.advice() == Advice::Fatal;
        }
    }

    fn pin(&mut self) {
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

    fn acquire(&mut self) {
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

    fn toggle_faults(&mut self) {
        if self.rng.random_bool(0.5) {
            let faults = self.troubles.faults;
            self.may_fail |= faults.read + faults.write + faults.sync + faults.name + faults.sync_folder > 0;
            self.fs.set_faults(faults);
        } else {
            self.fs.set_faults(Faults::default());
        }
        if self.troubles.faults.sync > 0 && self.rng.random_bool(0.2) {
            self.may_fail = true;
            self.fs.fail_next(Call::Sync, self.rng.random_range(1..4));
        }
    }

    fn toggle_space(&mut self) {
        if !self.troubles.full_disk {
            return;
        }
        if self.rng.random_bool(0.6) {
            self.fs.set_copies_on_write(self.rng.random_bool(0.5));
            self.fs.set_capacity(Some(self.fs.space_used() + self.rng.random_range(0..20_000)));
            return;
        }
        self.fs.set_capacity(None);
        if self.may_fail || self.fs.is_off() {
            return;
        }
        // Space is back, and nothing else was wrong: appends go on.
        self.finish_tickets();
        let number = self.truth.appends.len();
        self.append();
        self.finish_tickets();
        let is_taken = self.truth.appends[number].fate == Fate::Present || self.fs.is_off();
        assert!(is_taken, "space is back, and append {number} is refused");
    }

    /// The process ends in order and another begins.
    fn reopen(&mut self) {
        self.close();
        if !self.fs.is_off() {
            self.start();
        }
    }

    fn close(&mut self) {
        // Already gone if the power went while the process was between two openings.
        if let Some(log) = self.log.take() {
            log.close();
        }
        self.hear_tickets();
        // Whoever still waits will hear nothing any more.
        self.tickets.clear();
    }

    /// The machine stops: the process's last words reach nobody.
    fn stop(&mut self, crash: Crash) {
        self.tell(|| format!("the machine stops: {crash:?}"));
        let seed = self.rng.random();
        let next = self.fs.crash(crash, seed);
        self.close();
        self.fs = next;
    }

    /// Opens what the machine left, through crashes and faults of the recovery itself, and judges it.
    fn start(&mut self) {
        for _ in 0..3 {
            let with_trouble = self.rng.random_bool(0.4);
            if with_trouble && self.troubles.cuts_within_calls {
                self.fs.power_off_after(self.rng.random_range(0..40));
            }
            self.fs.set_faults(if with_trouble { self.troubles.faults } else { Faults::default() });
            self.tell(|| format!("open, with trouble: {with_trouble}"));
            let result = self.open();
            self.tell(|| format!("opened: {:?}", result.as_ref().err()));
            self.fs.set_faults(Faults::default());
            match result {
                Ok(log) => {
                    self.log = Some(log);
                    if !self.fs.is_off() {
                        return self.judge();
                    }
                    self.log = None;
                }
                Err(Error::NoSpace) if self.troubles.full_disk => {
                    self.fs.set_capacity(None);
                    continue;
                }
                Err(_) if with_trouble => self.truth.counts.failed_openings += 1,
                Err(error) => assert!(self.fs.is_off(), "the log does not open: {error}"),
            }
            let crash = if self.troubles.power && self.rng.random_bool(0.5) { Crash::Power } else { Crash::Process };
            let seed = self.rng.random();
            self.fs = self.fs.crash(crash, seed);
        }
        self.log = Some(self.open().expect("the log opens on a disk without faults"));
        self.judge();
    }

    fn judge(&mut self) {
        self.truth.owners.clear();
        self.has_failed = false;
        self.may_fail = false;
        if self.options.driver == Driver::Threads {
            self.fs.power_off_after(u64::MAX);
        }
        self.is_armed = false;
        let log = self.log.clone().expect("just opened");
        if !self.fs.is_off() {
            self.truth.settle(&*log);
        }
    }

    /// Rot in what was synced: everything else stays, and what is gone is named.
    fn flip_bits(&mut self) {
        // Another machine, so that nothing else goes wrong from here on.
        self.stop(Crash::Process);
        self.log = Some(self.open().expect("the log opens on a disk without faults"));
        self.judge();
        self.truth.attested = self.truth.appends.len();
        // Two more groups on top attest what lies below.
        for _ in 0..2 {
            self.append();
            self.finish_tickets();
        }
        self.close();
        let files: Vec<_> = self.fs.files().into_iter().filter(|(path, len)| *len > 0 && is_data(path)).collect();
        for _ in 0..self.rng.random_range(1..4) {
            let (path, len) = &files[self.rng.random_range(0..files.len())];
            self.tell(|| format!("flip a bit of {}", path.display()));
            self.fs.flip_bit(path, self.rng.random_range(0..*len), self.rng.random_range(0..8));
        }
        self.truth.is_damaged = true;
        for _ in 0..2 {
            let log = self.open().expect("a damaged log opens");
            self.truth.settle(&*log);
            self.log = Some(log);
            self.append();
            self.finish_tickets();
            let last = self.truth.appends.last().map(|append| append.fate);
            assert_eq!(last, Some(Fate::Present), "appends go on beside the damage");
            self.close();
        }
        self.flip_manifest();
    }

    /// A manifest that is not what it was is refused, or says the same; whole again, everything is back.
    fn flip_manifest(&mut self) {
        let manifest = Path::new(FOLDER).join("MANIFEST");
        let len = self.fs.files().iter().find(|(path, _)| *path == manifest).expect("a log has a manifest").1;
        for _ in 0..4 {
            let (at, bit) = (self.rng.random_range(0..len), self.rng.random_range(0..8));
            self.tell(|| format!("flip bit {bit} of byte {at} of the manifest"));
            self.fs.flip_bit(&manifest, at, bit);
            match EmbeddedReader::open(Arc::new(self.fs.clone()), Path::new(FOLDER)) {
                // Upper and lower case of a checksum's digit are one number.
                Ok(reader) => self.truth.settle(&reader),
                Err(error) => assert!(matches!(error, Error::Corrupt(_)), "{error}"),
            }
            self.truth.counts.refused_manifests += u64::from(self.open().is_err());
            self.fs.flip_bit(&manifest, at, bit);
        }
        let log = self.open().expect("whole again, it opens");
        self.truth.settle(&*log);
        self.log = Some(log);
        self.close();
    }
}

/// Write-ahead files and segments; a damaged manifest is refused as a whole.
fn is_data(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wal" || extension == "seg")
}
