//! One seed's life: partitions that are slow, performers that misbehave, time that passes, and machines that stop. What is asked of it
//! meanwhile is in `people`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use flywheel::domain::{HOUR_MS, MINUTE_MS, Millis, Namespace, PartitionId};
use flywheel::engine;
use flywheel::env::fs::SimFs;
use flywheel::env::fs::sim::Crash;
use flywheel::env::{Clock as _, ManualClock};
use flywheel::log::embedded::{Driver, EmbeddedLog, Options as LogOptions};
use flywheel::log::{BatchBuilder, LogWriter, Transaction};
use flywheel::schema;
use flywheel::schema::records::{IntakeRecord, TimeStatement};
use flywheel::state::{MemoryStore, StateStore};
use flywheel::stream::topology::Topology;
use flywheel::stream::{NamespaceClock, Options, Partitions, Setup, Spine, Topic, Topics, activate_policy, activate_workflow};
use flywheel::workflow::{Clock, Definition, Policy};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::executor::Executor;
use super::mirror::{Journal, Reference};
use super::people::{PEOPLE, address_of};
use super::program::{CHILD, POLICY, program};
use crate::spine_world::{START, topology};

const FOLDER: &str = "log";

const BUSY: &str = r#"
[[segment]]
name = "busy"
when = "events_1h >= 3"
"#;

/// What came of a seed.
#[derive(Debug, Clone, Default)]
pub struct Counts(pub BTreeMap<&'static str, u64>);

impl Counts {
    pub(super) fn add(&mut self, name: &'static str, count: u64) {
        *self.0.entry(name).or_default() += count;
    }
}

pub struct Life {
    pub(super) rng: ChaCha8Rng,
    pub(super) fs: SimFs,
    pub(super) clock: ManualClock,
    pub(super) time: NamespaceClock,
    pub(super) log_options: LogOptions,
    pub(super) options: Options,
    pub(super) partitions: Partitions,
    pub(super) topology: Arc<Topology>,
    pub(super) policy: Policy,
    pub(super) definitions: Vec<Definition>,
    pub(super) log: Option<Arc<EmbeddedLog>>,
    pub(super) store: Arc<MemoryStore>,
    /// The states as earlier flushes left them.
    pub(super) older: Vec<MemoryStore>,
    pub(super) spine: Option<Spine>,
    pub(super) topics: Option<Topics>,
    pub(super) journal: Journal,
    pub(super) references: BTreeMap<PartitionId, Reference>,
    pub(super) executor: Executor,
    /// Workers that nobody steps for so many steps.
    pub(super) stalled: BTreeMap<usize, u32>,
    pub(super) sent: u64,
    /// Commands that nobody can read, acknowledged and not.
    pub(super) rubbish: u64,
    pub counts: Counts,
    pub story: Vec<String>,
    pub(super) tells: bool,
    /// As it happens, for a seed that is looked at by itself.
    pub(super) prints: bool,
}

impl Life {
    pub fn new(seed: u64, tells: bool, prints: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let time = if rng.random_bool(0.6) { NamespaceClock::Wall } else { NamespaceClock::Event };
        let log_options = LogOptions {
            driver: Driver::Caller { group: 1 },
            segment_bytes_max: 256 << 10,
            tail_bytes_max: if rng.random_bool(0.3) { 0 } else { 64 << 10 },
            ..LogOptions::small()
        };
        let options = Options {
            linger_ms: 0,
            fetch_bytes_max: [1, 500, 8 << 20][rng.random_range(0..3)],
            output_bytes_max: [1, 4_000, 8 << 20][rng.random_range(0..3)],
            wakes_per_commit_max: [1, 2, 10_000][rng.random_range(0..3)],
            cache_bytes_max: [0, 4_000, 64 << 20][rng.random_range(0..3)],
            flush_bytes_max: [1, 5_000, 16 << 20][rng.random_range(0..3)],
            flush_age_ms_max: [0, 5_000, 10 * HOUR_MS][rng.random_range(0..3)],
            ..Options::default()
        };
        let definitions = ["one", "two", CHILD].map(|name| {
            let text = program(&mut rng, name);
            Definition::parse("random.toml", &text).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
        });
        let mut life = Self {
            fs: SimFs::new(seed),
            clock: ManualClock::at(START),
            time,
            log_options,
            options,
            partitions: Partitions { intake: rng.random_range(1..3), events: rng.random_range(1..3), inbox: 0 },
            topology: topology(BUSY),
            policy: Policy::parse("policy.toml", POLICY).unwrap_or_else(|problems| panic!("{problems}")),
            definitions: definitions.to_vec(),
            log: None,
            store: Arc::new(MemoryStore::new()),
            older: Vec::new(),
            spine: None,
            topics: None,
            journal: Journal::default(),
            references: BTreeMap::new(),
            executor: Executor::new(&mut rng),
            stalled: BTreeMap::new(),
            sent: 0,
            rubbish: 0,
            counts: Counts::default(),
            story: Vec::new(),
            tells,
            prints,
            rng,
        };
        life.begin();
        life
    }

    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        if !self.tells {
            return;
        }
        let line = line();
        if self.prints {
            eprintln!("{line}");
        }
        self.story.push(line);
    }

    pub(super) fn core_clock(&self) -> Clock {
        match self.time {
            NamespaceClock::Wall => Clock::Wall,
            NamespaceClock::Event => Clock::Event,
        }
    }

    pub(super) fn now(&self) -> Millis {
        self.clock.now()
    }

    pub(super) fn is_off(&self) -> bool {
        self.fs.is_off()
    }

    fn begin(&mut self) {
        assert!(self.open(), "a new folder opens");
        let from = if self.time == NamespaceClock::Event { Millis::MIN } else { START };
        let (log, topics) = self.at_log();
        for definition in &self.definitions {
            activate_workflow(&*log, &topics, definition, from).expect("activates");
        }
        activate_policy(&*log, &topics, None, &self.policy, from).expect("activates");
        let texts: Vec<String> = self.definitions.iter().map(|definition| definition.canonical.clone()).collect();
        let setting = format!("{:?} {:?} {:?}\n{}", self.time, self.partitions, self.options, texts.join("\n"));
        self.tell(|| setting);
        for who in PEOPLE {
            let address = address_of(who);
            let body = json!({ "type": "identify", "traits": { "email": address, "time_zone": "Europe/Berlin" } });
            self.send(who, body);
        }
    }

    pub(super) fn at_log(&self) -> (Arc<EmbeddedLog>, Topics) {
        (Arc::clone(self.log.as_ref().expect("the log is open")), self.topics.clone().expect("found when opened"))
    }

    /// Opens log and engine; false if the machine stopped meanwhile.
    pub(super) fn open(&mut self) -> bool {
        let fs = Arc::new(self.fs.clone());
        let log = match EmbeddedLog::open(fs, Path::new(FOLDER), self.log_options.clone(), Arc::new(self.clock.clone())) {
            Ok(log) => log,
            Err(error) => {
                assert!(self.is_off(), "the log does not open: {error}");
                return false;
            }
        };
        self.log = Some(Arc::clone(&log));
        let setup = Setup {
            log,
            state: Arc::clone(&self.store) as Arc<dyn StateStore>,
            clock: Arc::new(self.clock.clone()),
            namespace: Namespace::new("sim").expect("a slug"),
            time: self.time,
            partitions: self.partitions,
            topology: Arc::clone(&self.topology),
            options: self.options.clone(),
            copied: None,
            inbox: Default::default(),
        };
        let opened = Spine::open(setup).and_then(|mut spine| engine::join(&mut spine, self.time, None).map(|()| spine));
        match opened {
            Ok(spine) => {
                self.topics = Some(spine.topics().clone());
                self.spine = Some(spine);
                self.open_executor()
            }
            Err(error) => {
                assert!(self.is_off(), "the engine does not open: {error}");
                false
            }
        }
    }

    fn open_executor(&mut self) -> bool {
        let (log, topics) = self.at_log();
        let opened = self.executor.open(log, Arc::clone(&self.store) as Arc<dyn StateStore>, &topics);
        if let Err(error) = &opened {
            assert!(self.is_off(), "the executor does not open: {error}");
        }
        opened.is_ok()
    }

    /// By the executor's own steady clock.
    pub(super) fn ticks(&self) -> u64 {
        self.now().since_ms(START).unsigned_abs()
    }

    /// The whole life, and what must be true at its end.
    pub fn all(mut self) -> Self {
        for _ in 0..self.rng.random_range(20..180) {
            if self.is_off() {
                self.crash();
            }
            self.step();
        }
        if self.is_off() {
            self.crash();
        }
        self.finish();
        self
    }

    fn step(&mut self) {
        let choice = self.rng.random_range(0..100);
        match choice {
            0..30 => self.work(),
            30..40 => self.round(),
            40..54 => self.perform(),
            54..63 => self.person(),
            63..72 => self.command(),
            72..84 => self.pass(),
            84..87 => self.stall(),
            87..90 => self.older.push(self.store.fork()),
            90..92 => self.stop_one(),
            92..94 => self.crash(),
            94..97 => {
                let changes = self.rng.random_range(0..60);
                self.tell(|| format!("the power goes after {changes} changes"));
                self.fs.power_off_after(changes);
            }
            _ => self.publish(),
        }
        if !self.is_off() {
            self.hear();
        }
    }

    /// Steps one partition a few times.
    fn work(&mut self) {
        let count = self.spine.as_mut().expect("open").workers().len();
        let at = self.rng.random_range(0..count);
        if let Some(left) = self.stalled.get_mut(&at) {
            *left -= 1;
            if *left == 0 {
                self.stalled.remove(&at);
            }
            return;
        }
        for _ in 0..self.rng.random_range(1..4) {
            self.step_worker(at);
        }
    }

    fn step_worker(&mut self, at: usize) {
        let Some(spine) = self.spine.as_mut().filter(|_| !self.fs.is_off()) else { return };
        let stepped = spine.workers()[at].step();
        if let Err(error) = stepped {
            assert!(self.is_off(), "worker {at}: {error}");
        }
    }

    fn round(&mut self) {
        let count = self.spine.as_mut().expect("open").workers().len();
        for at in 0..count {
            if !self.stalled.contains_key(&at) {
                self.step_worker(at);
            }
        }
    }

    fn stall(&mut self) {
        let count = self.spine.as_mut().expect("open").workers().len();
        let at = self.rng.random_range(0..count);
        self.stalled.insert(at, self.rng.random_range(1..12));
    }

    fn stop_one(&mut self) {
        let workers = self.spine.as_mut().expect("open").workers();
        let at = self.rng.random_range(0..workers.len());
        if let Err(error) = workers[at].stop() {
            assert!(self.is_off(), "worker {at} stops: {error}");
        }
    }

    fn crash(&mut self) {
        loop {
            let kind = if self.rng.random_bool(0.6) { Crash::Power } else { Crash::Process };
            let seed = self.rng.random();
            // The machine first: the last words of the process reach nobody.
            let next = self.fs.crash(kind, seed);
            self.spine = None;
            if let Some(log) = self.log.take() {
                log.close();
            }
            self.fs = next;
            self.stalled.clear();
            let states = self.rng.random_range(0..4);
            match states {
                0 => self.store = Arc::new(MemoryStore::new()),
                1 if !self.older.is_empty() => {
                    let at = self.rng.random_range(0..self.older.len());
                    self.store = Arc::new(self.older[at].fork());
                }
                _ => self.store = Arc::new(self.store.fork()),
            }
            self.executor.crash(&mut self.rng);
            self.tell(|| format!("the machine stops: {kind:?}, states {states}"));
            self.counts.add("crashes", 1);
            if self.rng.random_ratio(1, 5) {
                let changes = self.rng.random_range(0..60);
                self.fs.power_off_after(changes);
            }
            if self.open() {
                return;
            }
        }
    }

    /// True if it reached the log.
    pub(super) fn append(&mut self, transaction: Transaction) -> bool {
        if self.is_off() {
            return false;
        }
        match self.log.as_ref().expect("open").append(transaction).and_then(|ticket| ticket.wait()) {
            Ok(_) => true,
            Err(error) => {
                assert!(self.is_off(), "an append is refused: {error}");
                false
            }
        }
    }

    fn perform(&mut self) {
        for _ in 0..self.rng.random_range(2..8) {
            self.step_executor();
        }
        if self.rng.random_ratio(1, 40) {
            self.stop_executor();
        }
    }

    /// One thing that the executor does, and some of what it hands in.
    pub(super) fn step_executor(&mut self) {
        let (log, _) = self.at_log();
        let (ticks, now) = (self.ticks(), self.now());
        let stepped = self.executor.step(&*log, &mut self.rng, ticks, now);
        if let Err(error) = stepped {
            assert!(self.is_off(), "the executor: {error}");
        }
        if self.rng.random_bool(0.8) {
            self.hand_in();
        }
    }

    /// The next command of the executor's, if there is one.
    fn hand_in(&mut self) -> bool {
        let Some((key, input)) = self.executor.next(&mut self.rng) else { return false };
        self.sent += 1;
        if self.order(&key, &input) {
            self.executor.appended(key, input, &mut self.rng);
        }
        true
    }

    /// It stops in good order, and another begins.
    fn stop_executor(&mut self) {
        self.tell(|| "the executor stops".to_owned());
        let ticks = self.ticks();
        if let Err(error) = self.executor.stop(ticks) {
            assert!(self.is_off(), "the executor stops: {error}");
        }
        while !self.is_off() && self.hand_in() {}
        self.executor.crash(&mut self.rng);
        if !self.is_off() {
            self.open_executor();
        }
    }

    /// Time passes, and whoever performs beyond its time is cut off.
    pub(super) fn advance(&mut self, ms: i64) {
        self.clock.advance(ms);
        let ticks = self.ticks();
        self.executor.cut_off(&mut self.rng, ticks);
    }

    fn pass(&mut self) {
        let ms = match self.rng.random_range(0..10) {
            0..3 => self.rng.random_range(0..5_000),
            3..6 => self.rng.random_range(0..20) * MINUTE_MS,
            6..9 => {
                let clock = self.core_clock();
                let next = self.journal.subjects.values().filter_map(|subject| subject.next_wake(clock)).min();
                next.map_or(1_000, |next| next.since_ms(self.now()) + self.rng.random_range(-1..2)).clamp(0, 12 * HOUR_MS)
            }
            _ => self.rng.random_range(0..10) * HOUR_MS,
        };
        self.advance(ms);
        let now = self.now();
        self.tell(|| format!("it is {now}"));
        if self.time == NamespaceClock::Event && self.rng.random_bool(0.5) {
            self.state_time();
        }
    }

    pub(super) fn state_time(&mut self) {
        let topics = self.topics.clone().expect("open");
        let now = self.now();
        let mut transaction = Transaction::default();
        for id in topics.partitions(Topic::Intake) {
            let mut batch = BatchBuilder::new();
            batch
                .push_with(b"", now, |buffer| schema::encode(&IntakeRecord::Time(TimeStatement { time: now.0 }), buffer))
                .expect("encodes");
            transaction.batches.push((id, batch.build()));
        }
        self.append(transaction);
    }

    pub(super) fn hear(&mut self) {
        let (log, topics) = self.at_log();
        for (key, fact) in self.journal.read(&*log, &topics) {
            self.tell(|| format!("    {key:?} {fact:?}"));
            self.executor.hear(&fact);
        }
    }
}
