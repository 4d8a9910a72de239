//! The partition loop by itself, with a fold that does as its records say: failures of one record, refused appends, flushes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flywheel::domain::{DeadReason, Incarnation, Millis, Namespace, Offset, Outcome, PartitionId};
use flywheel::env::ManualClock;
use flywheel::log::{
    self, BatchBuilder, Committed, Fetched, Group, LogReader, LogWriter, MemoryLog, Ownership, RecordRef, Ticket, TopicInfo,
    TopicPartition, TopicSpec, Transaction, Watermarks,
};
use flywheel::schema::records::{DeadLetter, Definition};
use flywheel::schema::{self};
use flywheel::state::{Flush, MemoryStore, StateStore, Table};
use flywheel::stream::{
    Applied, Error, Fault, Fold, Options, Outputs, Partitions, Pulse, Seal, Stepped, Stopping, Surroundings, Topic, Topics, Watermark,
    Window, Worker,
};

use crate::spine_world::START;

/// Keeps each key's values as text and says each new state to `definitions`. `boom` panics half-way, `bad` is refused half-way, `no` is
/// rejected before anything.
struct Words {
    store: Arc<dyn StateStore>,
    words: BTreeMap<Bytes, String>,
    undo: Option<(Bytes, String)>,
    is_careful: bool,
    restores: Arc<AtomicUsize>,
    /// Those of them that found nothing stored to go on from.
    rebuilds: Arc<AtomicUsize>,
    flushes: Arc<AtomicUsize>,
}

impl Fold for Words {
    fn stage(&self) -> &'static str {
        "words"
    }
    fn input(&self) -> (Topic, PartitionId) {
        (Topic::Events, PartitionId(0))
    }
    fn version(&self) -> u32 {
        1
    }
    fn table(&self, incarnation: Incarnation) -> Table {
        Table(format!("t.words.i{incarnation}").into())
    }
    fn restore(&mut self, stored: Option<&Watermark>, _: &Bytes, incarnation: Incarnation) -> Result<(), Error> {
        self.restores.fetch_add(1, Ordering::Relaxed);
        self.rebuilds.fetch_add(usize::from(stored.is_none()), Ordering::Relaxed);
        self.words.clear();
        if stored.is_some() {
            let text = |state: Bytes| String::from_utf8_lossy(&state).into_owned();
            self.words = self
                .store
                .scan(&self.table(incarnation), None, 1_000)?
                .into_iter()
                .map(|(key, stored)| (key, text(stored.state)))
                .collect();
        }
        Ok(())
    }
    fn prepare(&mut self, _: &[RecordRef<'_>]) -> Result<(), Error> {
        Ok(())
    }
    fn apply(&mut self, _: usize, record: &RecordRef<'_>, _: Window<'_>, out: &mut Outputs) -> Result<Applied, Error> {
        let (key, word) = (Bytes::copy_from_slice(record.key), String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned());
        if word == "no" {
            return Ok(Applied::Rejected(Fault::new(DeadReason::Malformed, "no means no")));
        }
        let words = self.words.entry(key.clone()).or_default();
        if self.is_careful {
            self.undo = Some((key.clone(), words.clone()));
        }
        words.push_str(&word);
        words.push(' ');
        let body = words.clone();
        let said = Definition { kind: "words", name: "", digest: "", body: &body, tenant: "", from_file: false, about: "", at: 0, by: "" };
        out.push_to(Topic::Definitions, PartitionId(0), &key, record.timestamp, &said)?;
        assert!(word != "boom", "boom");
        if word == "bad" {
            return Err(Error::Record(Fault::new(DeadReason::TooLarge, "bad")));
        }
        Ok(Applied::Done(Outcome::Applied))
    }
    fn set_careful(&mut self, careful: bool) {
        self.is_careful = careful;
    }
    fn undo(&mut self) {
        if let Some((key, words)) = self.undo.take() {
            self.words.insert(key, words);
        }
    }
    fn seal(&mut self, _: &Seal, _: &mut Outputs) -> Result<(), Error> {
        Ok(())
    }
    fn unsealed_bytes(&self) -> usize {
        0
    }
    fn has_news(&self, _: &Seal) -> bool {
        false
    }
    fn time(&self) -> Millis {
        Millis::MIN
    }
    fn dirty_bytes(&self) -> usize {
        0
    }
    fn flush(&mut self, watermark: Watermark) -> Result<(), Error> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        let states = self.words.iter().map(|(key, words)| (key.clone(), Some(Bytes::from(words.clone())))).collect();
        let table = self.table(watermark.incarnation);
        Ok(self.store.flush(&table, Flush { states, watermark: Some(watermark.encode()), ..Flush::default() })?)
    }
    fn message_id(&self, record: &RecordRef<'_>) -> String {
        format!("at {}", record.offset)
    }
}

/// A log whose disk is full while `is_full`.
pub struct Filling {
    log: MemoryLog,
    is_full: AtomicBool,
    /// How many appends it refused.
    refused: AtomicUsize,
    /// The largest append it takes.
    records_max: AtomicUsize,
    /// The same in bytes, as the embedded log has it.
    pub bytes_max: AtomicUsize,
    /// So many offsets at each partition's end are a declared hole.
    hole: AtomicU64,
    /// Records of every partition were lost and declared so.
    pub has_lost: AtomicBool,
}

impl Filling {
    pub fn over(log: MemoryLog) -> Self {
        let unlimited = || AtomicUsize::new(usize::MAX);
        Self {
            log,
            is_full: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
            records_max: unlimited(),
            bytes_max: unlimited(),
            hole: AtomicU64::new(0),
            has_lost: AtomicBool::new(false),
        }
    }
}

impl LogReader for Filling {
    fn topics(&self) -> Result<Vec<TopicInfo>, log::Error> {
        self.log.topics()
    }
    fn watermarks(&self, partition: TopicPartition) -> Result<Watermarks, log::Error> {
        let Watermarks { start, end } = self.log.watermarks(partition)?;
        Ok(Watermarks { start, end: Offset(end.0 + self.hole.load(Ordering::Relaxed)) })
    }
    fn fetch(&self, partition: TopicPartition, from: Offset, bytes_max: usize) -> Result<Fetched, log::Error> {
        let end = self.log.watermarks(partition)?.end;
        if from >= end {
            return Ok(Fetched { batches: Vec::new(), next: self.watermarks(partition)?.end });
        }
        self.log.fetch(partition, from, bytes_max)
    }
    fn offset_at(&self, partition: TopicPartition, time: Millis) -> Result<Offset, log::Error> {
        self.log.offset_at(partition, time)
    }
    fn committed(&self, group: &Group, partition: TopicPartition) -> Result<Option<Committed>, log::Error> {
        self.log.committed(group, partition)
    }
    fn has_declared_holes(&self, _: TopicPartition) -> Result<bool, log::Error> {
        Ok(self.has_lost.load(Ordering::Relaxed))
    }
    fn wait(&self, positions: &[(TopicPartition, Offset)], at_most: Duration) -> Result<bool, log::Error> {
        self.log.wait(positions, at_most)
    }
}

impl LogWriter for Filling {
    fn create_topic(&self, spec: &TopicSpec) -> Result<TopicInfo, log::Error> {
        self.log.create_topic(spec)
    }
    fn health(&self) -> Result<(), log::Error> {
        self.log.health()
    }
    fn acquire(&self, group: &Group, partition: TopicPartition) -> Result<Ownership, log::Error> {
        self.log.acquire(group, partition)
    }
    fn append(&self, transaction: Transaction) -> Result<Ticket, log::Error> {
        // Full for three attempts: the loop must go on trying, and by itself.
        if self.is_full.load(Ordering::Relaxed) && self.refused.fetch_add(1, Ordering::Relaxed) < 3 {
            return Err(log::Error::NoSpace);
        }
        let records: usize = transaction.batches.iter().map(|(_, batch)| batch.len()).sum();
        let records_max = self.records_max.load(Ordering::Relaxed);
        if records > records_max {
            return Err(log::Error::TooLarge { bytes: records, max: records_max });
        }
        let bytes: usize = transaction.batches.iter().map(|(_, batch)| batch.data().len()).sum();
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        if bytes > bytes_max {
            return Err(log::Error::TooLarge { bytes, max: bytes_max });
        }
        self.log.append(transaction)
    }
    fn pin(&self, name: &str, partition: TopicPartition, offset: Option<Offset>) -> Result<(), log::Error> {
        self.log.pin(name, partition, offset)
    }
    fn clean(&self, now: Millis) -> Result<u64, log::Error> {
        self.log.clean(now)
    }
}

struct Loop {
    log: Arc<Filling>,
    topics: Topics,
    around: Surroundings,
    clock: ManualClock,
    restores: Arc<AtomicUsize>,
    /// Those of them that found nothing stored to go on from.
    rebuilds: Arc<AtomicUsize>,
    flushes: Arc<AtomicUsize>,
}

impl Loop {
    fn new(options: Options) -> Self {
        let clock = ManualClock::at(START);
        let log = Arc::new(Filling::over(MemoryLog::new(Arc::new(clock.clone()))));
        let namespace = Namespace::new("t").expect("a slug");
        let topics = Topics::create(&*log, &namespace, Partitions { intake: 1, events: 1, inbox: 0 }).expect("creates");
        let around = Surroundings {
            pulse: Arc::new(Pulse::new(usize::MAX)),
            log: Arc::clone(&log) as Arc<dyn LogWriter>,
            state: Arc::new(MemoryStore::new()),
            clock: Arc::new(clock.clone()),
            topics: topics.clone(),
            options: Options { linger_ms: 0, retry_pause_ms: 1, ..options },
            stopping: Arc::new(Stopping::default()),
        };
        Self { log, topics, around, clock, restores: Arc::default(), rebuilds: Arc::default(), flushes: Arc::default() }
    }

    fn open(&self) -> Worker<Words> {
        let words = Words {
            store: Arc::clone(&self.around.state),
            words: BTreeMap::new(),
            undo: None,
            is_careful: false,
            restores: Arc::clone(&self.restores),
            rebuilds: Arc::clone(&self.rebuilds),
            flushes: Arc::clone(&self.flushes),
        };
        Worker::open(self.around.clone(), words).expect("opens")
    }

    /// Past the log's bound on one append, which holds for what the loop makes.
    fn send(&self, words: &[&str]) {
        let mut batch = BatchBuilder::new();
        words.iter().for_each(|word| batch.push(b"k", Some(word.as_bytes()), START));
        let id = self.topics.partition(Topic::Events, PartitionId(0));
        self.log
            .log
            .append(Transaction { batches: vec![(id, batch.build())], commits: Vec::new() })
            .expect("appends")
            .wait()
            .expect("appends");
    }

    fn said(&self) -> Vec<String> {
        let id = self.topics.partition(Topic::Definitions, PartitionId(0));
        let fetched = self.log.fetch(id, Offset(0), usize::MAX).expect("reads");
        let body = |record: RecordRef<'_>| {
            schema::decode::<Definition<'_>>(record.value.expect("a value")).expect("decodes").body.trim().to_owned()
        };
        fetched.records().map(body).collect()
    }

    fn dead(&self) -> Vec<String> {
        let id = self.topics.partition(Topic::DeadLetters, PartitionId(0));
        let fetched = self.log.fetch(id, Offset(0), usize::MAX).expect("reads");
        let line = |record: RecordRef<'_>| {
            let letter: DeadLetter<'_> = schema::decode(record.value.expect("a value")).expect("decodes");
            format!(
                "{} {} {} {} {}",
                letter.origin.offset,
                letter.stage,
                letter.reason,
                letter.detail,
                String::from_utf8_lossy(letter.value)
            )
        };
        fetched.records().map(line).collect()
    }
}

fn run(worker: &mut Worker<Words>) {
    for _ in 0..200 {
        if worker.step().expect("steps") != Stepped::Worked {
            return;
        }
    }
    panic!("no end");
}

#[test]
fn a_record_that_panics_half_way_is_a_dead_letter_and_leaves_no_trace_in_state_or_outputs() {
    let world = Loop::new(Options::default());
    let mut worker = world.open();
    world.send(&["a", "b"]);
    run(&mut worker);
    world.send(&["c", "boom", "d", "bad", "boom", "e", "no", "f"]);
    run(&mut worker);
    assert_eq!(world.said(), ["a", "a b", "a b c", "a b c d", "a b c d e", "a b c d e f"]);
    assert_eq!(
        world.dead(),
        ["3 words panicked boom boom", "5 words too_large bad bad", "6 words panicked boom boom", "8 words malformed no means no no"]
    );
    assert_eq!(world.restores.load(Ordering::Relaxed), 2, "one start over for all of them");
    let status = worker.shared().status();
    assert_eq!((status.records, status.applied, status.dead_lettered), (10, 6, 4));
}

#[test]
fn a_record_that_panicked_panics_again_when_read_again_and_changes_nothing() {
    let world = Loop::new(Options::default());
    let mut worker = world.open();
    world.send(&["a", "boom", "b"]);
    run(&mut worker);
    drop(worker);
    let mut worker = world.open();
    world.send(&["c"]);
    run(&mut worker);
    assert_eq!(world.said(), ["a", "a b", "a b c"]);
    assert_eq!(world.dead().len(), 1);
}

#[test]
fn a_full_disk_holds_the_loop_up_and_nothing_is_lost_or_doubled() {
    let world = Loop::new(Options::default());
    let mut worker = world.open();
    world.log.is_full.store(true, Ordering::Relaxed);
    world.send(&["a"]);
    world.send(&["b"]);
    run(&mut worker);
    assert!(world.log.refused.load(Ordering::Relaxed) > 3);
    assert_eq!(world.said(), ["a", "a b"]);
}

#[test]
fn a_stop_that_is_asked_for_ends_the_wait_for_a_full_disk() {
    let world = Loop::new(Options::default());
    let mut worker = world.open();
    world.log.is_full.store(true, Ordering::Relaxed);
    world.around.stopping.ask();
    world.send(&["a"]);
    let stopped = worker.step();
    assert!(matches!(stopped, Err(Error::Log(log::Error::NoSpace))), "{stopped:?}");
}

#[test]
fn states_are_stored_when_old_enough_and_never_before_their_commit() {
    let world = Loop::new(Options { flush_age_ms_max: 5_000, ..Options::default() });
    let mut worker = world.open();
    world.send(&["a"]);
    run(&mut worker);
    assert_eq!(world.flushes.load(Ordering::Relaxed), 0);
    world.clock.advance(5_000);
    run(&mut worker);
    assert_eq!(world.flushes.load(Ordering::Relaxed), 1);
    let table = Table("t.words.i1".into());
    let watermark = Watermark::decode(&world.around.state.watermark(&table).expect("reads").expect("stored")).expect("decodes");
    let id = world.topics.partition(Topic::Events, PartitionId(0));
    let committed = world.log.committed(&Group("t.words".into()), id).expect("reads").expect("committed");
    assert_eq!(watermark.progress.next, committed.offset);
}

#[test]
fn a_commit_larger_than_the_log_takes_is_made_again_in_smaller_ones() {
    let world = Loop::new(Options::default());
    let mut worker = world.open();
    world.log.records_max.store(3, Ordering::Relaxed);
    world.send(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]);
    run(&mut worker);
    assert_eq!(world.said().len(), 10);
    assert_eq!(world.said()[9], "a b c d e f g h i j");
}

#[test]
fn a_declared_hole_is_committed_before_states_beyond_it_are_stored() {
    let world = Loop::new(Options { flush_age_ms_max: 5_000, ..Options::default() });
    let mut worker = world.open();
    world.send(&["a"]);
    run(&mut worker);
    world.log.hole.store(3, Ordering::Relaxed);
    run(&mut worker);
    world.clock.advance(5_000);
    run(&mut worker);
    assert_eq!(world.flushes.load(Ordering::Relaxed), 1);
    drop(worker);
    let rebuilds = world.rebuilds.load(Ordering::Relaxed);
    let mut worker = world.open();
    run(&mut worker);
    assert_eq!(world.rebuilds.load(Ordering::Relaxed), rebuilds, "what was stored is trusted");
    assert_eq!(worker.position().1, Offset(4));
}

#[test]
fn a_rebuild_that_was_asked_for_is_done_once_and_not_again_for_each_bad_record() {
    let world = Loop::new(Options { rebuild_state: true, flush_age_ms_max: 0, ..Options::default() });
    let mut worker = world.open();
    world.send(&["a"]);
    run(&mut worker);
    world.send(&["boom", "b"]);
    run(&mut worker);
    assert_eq!(world.restores.load(Ordering::Relaxed), 2, "at the start and after the bad record");
    assert_eq!(world.rebuilds.load(Ordering::Relaxed), 1, "at the start");
    assert_eq!(world.said(), ["a", "a b"]);
}
