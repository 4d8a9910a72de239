//! One seed's life: what fails while the log is asked for this and that (`asked`), when the machine stops, and what is judged then.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flywheel::domain::{Millis, Namespace, PartitionId};
use flywheel::env::ManualClock;
use flywheel::env::fs::SimFs;
use flywheel::env::fs::sim::{Call, Crash, Faults};
use flywheel::log::embedded::{Driver, EmbeddedLog, EmbeddedReader, Options};
use flywheel::log::{Advice, Cleanup, Error, Group, LogWriter, Retention, Ticket, TopicName, TopicPartition, TopicSpec};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::truth::{Counts, Fate, Kind, Truth};

pub(super) const FOLDER: &str = "log";
const AGE_MS: u64 = 5_000;
const PARTITIONS_EACH: u32 = 2;
pub(super) const GROUPS: [&str; 2] = ["fold", "projector"];

/// What may go wrong in one seed; drawn first, so that many seeds have only one kind of trouble and reach far with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Troubles {
    pub(super) faults: Faults,
    pub(super) full_disk: bool,
    pub(super) cuts_within_calls: bool,
    pub(super) power: bool,
    pub(super) flips: bool,
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
    pub(super) telling: Telling,
    pub(super) rng: ChaCha8Rng,
    pub(super) fs: SimFs,
    pub(super) clock: ManualClock,
    pub(super) options: Options,
    pub(super) troubles: Troubles,
    pub(super) log: Option<Arc<EmbeddedLog>>,
    pub(super) truth: Truth,
    pub(super) tickets: BTreeMap<usize, Ticket>,
    /// Whether a call may fail for another reason than a full disk.
    pub(super) may_fail: bool,
    pub(super) has_failed: bool,
    /// The power may go within any call: with threads, within any call of theirs.
    pub(super) is_armed: bool,
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

    pub(super) fn open(&self) -> Result<Arc<EmbeddedLog>, Error> {
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

    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
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

    pub(super) fn log(&self) -> &EmbeddedLog {
        self.log.as_deref().expect("the log is open")
    }

    /// What an error means: a full disk is never the log's end, anything else may be, if there was a reason for it.
    pub(super) fn note_error(&mut self, doing: &str, error: &Error) {
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
