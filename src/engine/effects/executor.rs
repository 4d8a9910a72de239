//! The executor's threads around the [board](super::board): one reads the journal and performs what is answered at once, a small runtime
//! performs the rest, one sees commands through to the disk.
//!
//! Whoever has news (facts, a result) takes the board's lock for a moment, then hands in commands and starts jobs outside of it. So an
//! attempt is with its performer as soon as its fact is read, and many results at once are one append.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::append::{self, Appender};
use super::board::{Board, Job, LimitsOf, Notice};
use super::call::{Call, Port, Request};
use super::pending::Slot;
use super::registry::{Registry, nobody};
use super::schedule::{self, Turn};
use super::table::Tables;
use super::{Error, metrics};
use crate::domain::{Incarnation, Millis, Namespace, Offset, PartitionId, SubjectKey};
use crate::env::{Clock, Patience};
use crate::log::{Group, LogReader, LogWriter, RecordRef, TopicId, TopicPartition};
use crate::permit::{Executor as Instance, Priority};
use crate::schema::records::JournalRecord;
use crate::state::StateStore;
use crate::stream::{Stopping, Topic, Topics};
use crate::workflow::{Category, EffectId, Outcome, Performer, Severity, Unknown};

const FETCH_BYTES: usize = 1 << 20;
/// The longest wait without looking whether to stop.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// How often it is asked whether performing may begin.
const GATE_MS: i64 = 5;
const HELD_MS: i64 = 1_000;
/// Attempts that begin before the journal is looked at again.
const TURNS_MAX: usize = 512;
/// Appends that may wait for the disk before no more attempts begin.
const UNSETTLED_MAX: usize = 4_096;
/// How often and how long it is tried to tell of an effect that was given up.
const NOTICE_ATTEMPTS: u32 = 3;
const NOTICE_DEADLINE: Duration = Duration::from_secs(10);
const NOTICE_PAUSE: Duration = Duration::from_secs(5);

pub struct Setup {
    pub log: Arc<dyn LogWriter>,
    pub state: Arc<dyn StateStore>,
    pub clock: Arc<dyn Clock>,
    pub topics: Topics,
    pub registry: Registry,
    pub settings: Settings,
    /// The group of the fold that decides commands: nothing is performed before it has decided what was handed in before this start.
    pub fold: Option<Group>,
    /// The folder is a copy of another.
    pub copied: Option<Incarnation>,
}

pub struct Settings {
    pub schedule: schedule::Settings,
    pub limits: LimitsOf,
    /// Of requests in memory; the rest is on disk.
    pub request_bytes_max: usize,
    pub flush_age: Duration,
    pub flush_bytes_max: usize,
    /// Threads for what takes its time.
    pub threads: usize,
    /// The webhook that hears of effects that were given up; empty for none.
    pub notify: String,
    /// What a stop waits for; what takes longer is cut off, and its outcome unknown, or it is done again under its key.
    pub drain: Duration,
}

/// A running executor.
pub struct Handle {
    shared: Arc<Shared>,
    tail: Option<JoinHandle<()>>,
    settler: Option<JoinHandle<()>>,
    runtime: Option<tokio::runtime::Runtime>,
}

/// What a look at an executor shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    pub pending: usize,
    pub waiting: usize,
    pub performing: BTreeMap<String, u32>,
    pub request_bytes: usize,
    /// Everything that was asked for before the start is known.
    pub caught_up: bool,
    pub failure: Option<String>,
}

struct Shared {
    namespace: Namespace,
    board: Mutex<Board>,
    appender: Appender,
    registry: Registry,
    notify: String,
    drain: Duration,
    tables: Tables,
    clock: Arc<dyn Clock>,
    runtime: tokio::runtime::Handle,
    stopping: Arc<Stopping>,
    failure: Mutex<Option<String>>,
    in_flight: Mutex<usize>,
    landed: Condvar,
    since: Instant,
}

/// Starts performing what the namespace's journal asks for.
pub fn start(setup: Setup) -> Result<Handle, Error> {
    let Setup { log, state, clock, topics, registry, settings, fold, copied } = setup;
    let me = Instance(*uuid::Uuid::new_v4().as_bytes());
    let (appender, settler) = append::open(Arc::clone(&log), Arc::clone(&clock), topics.id(Topic::Commands));
    let count = topics.count(Topic::Journal);
    let tables = Tables::new(state, &topics.namespace, count, topics.incarnation(Topic::Journal));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.threads.max(1))
        .max_blocking_threads(16)
        .thread_name(format!("{}-effects", topics.namespace))
        .enable_all()
        .build()
        .map_err(|error| Error::Runtime(error.to_string()))?;
    let Settings { schedule, limits, request_bytes_max, flush_age, flush_bytes_max, notify, drain, .. } = settings;
    let stopping = Arc::new(Stopping::default());
    let shared = Arc::new(Shared {
        namespace: topics.namespace.clone(),
        board: Mutex::new(Board::new(me, schedule, limits)),
        appender,
        registry,
        notify,
        drain,
        tables,
        clock,
        runtime: runtime.handle().clone(),
        stopping: Arc::clone(&stopping),
        failure: Mutex::new(None),
        in_flight: Mutex::new(0),
        landed: Condvar::new(),
        since: Instant::now(),
    });
    let mut tail = Tail {
        shared: Arc::clone(&shared),
        log: Arc::clone(&log) as Arc<dyn LogReader>,
        journal: topics.id(Topic::Journal),
        positions: Vec::new(),
        flushed: Vec::new(),
        last_flush: Instant::now(),
        request_bytes_max,
        flush_age,
        flush_bytes_max,
        patience: Patience::default(),
        is_new_copy: false,
    };
    tail.is_new_copy = tail.open()? && copied.is_some();
    let gate = Gate::new(&*log, &topics, fold, copied)?;
    if copied.is_some() {
        tracing::info!(namespace = %topics.namespace, "effects are performed once time was released here: this folder is a copy");
    }
    let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(format!("{}-{name}", shared.namespace)).spawn(body).expect("the system has room for a thread")
    };
    let settling = Arc::clone(&shared);
    let settler = spawn(
        "effects-log",
        Box::new(move || {
            if let Err(error) = settler.run(&settling.stopping) {
                settling.fail(&error.to_string());
            }
        }),
    );
    let failing = Arc::clone(&shared);
    let tail = spawn(
        "effects",
        Box::new(move || {
            let ran = std::panic::catch_unwind(AssertUnwindSafe(|| tail.run(gate)));
            match ran {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failing.fail(&error.to_string()),
                Err(_) => failing.fail("its thread panicked"),
            }
        }),
    );
    Ok(Handle { shared, tail: Some(tail), settler: Some(settler), runtime: Some(runtime) })
}

impl Handle {
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// For a health check that outlives the handle's owner.
    pub fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.shared))
    }

    /// Takes nothing more, waits a while for what is with performers, hands its results in and stores what is pending.
    pub fn stop(mut self) -> Result<(), Error> {
        self.end();
        match self.shared.failure.lock().clone() {
            Some(failure) => Err(Error::Stopped(failure)),
            None => Ok(()),
        }
    }

    fn end(&mut self) {
        let Some(tail) = self.tail.take() else { return };
        self.shared.stopping.ask();
        let joined = tail.join();
        debug_assert!(joined.is_ok(), "its panics are caught");
        {
            let mut in_flight = self.shared.in_flight.lock();
            let until = Instant::now() + self.shared.drain;
            while *in_flight > 0 && !self.shared.landed.wait_until(&mut in_flight, until).timed_out() {}
        }
        if let Some(runtime) = self.runtime.take() {
            // What is still under way has had its time. Not waited for: whoever drops this may be on a runtime's thread, which must not wait.
            runtime.shutdown_background();
        }
        self.shared.appender.close();
        if let Some(settler) = self.settler.take() {
            // Its result is in `failure`.
            let _ = settler.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}

/// Looks at an executor without owning it.
#[derive(Clone)]
pub struct Watch(Arc<Shared>);

impl Watch {
    pub fn status(&self) -> Status {
        self.0.status()
    }

    pub fn failure(&self) -> Option<String> {
        self.0.failure.lock().clone()
    }
}

impl Shared {
    fn now(&self) -> u64 {
        self.since.elapsed().as_millis() as u64
    }

    fn fail(&self, why: &str) {
        tracing::error!(namespace = %self.namespace, why, "effects are performed no more");
        self.failure.lock().get_or_insert_with(|| format!("effects: {why}"));
        self.stopping.ask();
    }

    fn status(&self) -> Status {
        let board = self.board.lock();
        Status {
            pending: board.pending.len(),
            waiting: board.waiting(),
            performing: board.performing(),
            request_bytes: board.pending.request_bytes(),
            caught_up: board.has_begun(),
            failure: self.failure.lock().clone(),
        }
    }

    /// Starts what may start, until nothing more may: hands commands in, performs what is answered at once, spawns the rest.
    fn drive(self: &Arc<Self>) -> Result<(), Error> {
        loop {
            let Taken { jobs, commands, switched, notices } = self.take(TURNS_MAX)?;
            for notice in notices {
                self.notify(notice);
            }
            for (destination, is_open) in switched {
                metrics::breaker(&self.namespace, &destination, is_open);
                match is_open {
                    true => tracing::warn!(namespace = %self.namespace, destination, "it fails: nothing is sent there for a while"),
                    false => tracing::info!(namespace = %self.namespace, destination, "it works again"),
                }
            }
            if jobs.is_empty() && commands.is_empty() {
                return Ok(());
            }
            self.appender.append(&commands)?;
            let mut answered = Vec::new();
            for job in jobs {
                match self.registry.find(job.call.request.by, &job.call.request.target) {
                    None => answered.push((job.held, Arc::clone(&job.call.request), nobody(&job.call))),
                    Some(Port::Inline(performer)) => {
                        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| performer.perform(&job.call)));
                        answered.push((job.held, Arc::clone(&job.call.request), outcome.unwrap_or_else(|_| panicked())));
                    }
                    Some(Port::Remote(_)) => self.spawn(job),
                }
            }
            if !answered.is_empty() {
                let mut board = self.board.lock();
                let now = self.now();
                for (held, request, outcome) in answered {
                    metrics::performed(&self.namespace, &request, &outcome);
                    board.finished(held, &request, outcome, now);
                }
            }
        }
    }

    /// Tells whoever runs the place: in the log, and through the webhook that is named for it.
    fn notify(self: &Arc<Self>, notice: Notice) {
        let (namespace, tenant) = (&self.namespace, notice.subject.tenant_str());
        match notice.severity {
            Severity::Critical => {
                tracing::error!(%namespace, tenant, run = %notice.run, node = notice.node, text = notice.text, "an effect was given up");
            }
            Severity::Warning => {
                tracing::warn!(%namespace, tenant, run = %notice.run, node = notice.node, text = notice.text, "an effect was given up");
            }
        }
        let Some(Port::Remote(_)) = self.registry.find(Performer::Webhook, &self.notify).filter(|_| !self.notify.is_empty()) else {
            return;
        };
        let shared = Arc::clone(self);
        self.runtime.spawn(async move {
            let Some(Port::Remote(port)) = shared.registry.find(Performer::Webhook, &shared.notify) else { return };
            let request = Arc::new(said(&notice, &shared.notify));
            for attempt in 1..=NOTICE_ATTEMPTS {
                let call = Call { request: Arc::clone(&request), attempt, look_up: false, deadline: NOTICE_DEADLINE };
                match port.perform(call, None).await {
                    Outcome::Done { .. } => return,
                    Outcome::Failed { permanent: false, .. } | Outcome::Unknown { .. } => tokio::time::sleep(NOTICE_PAUSE).await,
                    _ => break,
                }
            }
            tracing::error!(webhook = shared.notify, text = notice.text, "that an effect was given up could not be told");
        });
    }

    /// Before a stop: nothing more is begun.
    fn give_back(&self) -> Result<(), Error> {
        let commands = {
            let mut board = self.board.lock();
            board.give_all_back(self.now());
            board.take_commands()
        };
        self.appender.append(&commands)
    }

    fn take(&self, most: usize) -> Result<Taken, Error> {
        let mut board = self.board.lock();
        let now = self.now();
        if !self.stopping.is_asked() && self.appender.unsettled() < UNSETTLED_MAX {
            let orphans = board.take_orphans();
            self.load(&mut board, &orphans)?;
            orphans.into_iter().for_each(|slot| board.orphan(slot));
            let turns = board.turns(most, now);
            let slots: Vec<Slot> = turns.iter().map(|turn: &Turn| turn.ticket.slot).collect();
            self.load(&mut board, &slots)?;
            let appended = self.clock.now();
            for turn in turns {
                if !board.go(turn, now, appended) {
                    board.unreadable(turn, "it is not stored", now);
                }
            }
        }
        let (jobs, commands) = (board.take_ready(), board.take_commands());
        Ok(Taken { jobs, commands, switched: board.take_switched(), notices: board.take_notices() })
    }

    /// Brings the requests of these into memory.
    fn load(&self, board: &mut Board, slots: &[Slot]) -> Result<(), Error> {
        let mut missing: BTreeMap<u32, Vec<Slot>> = BTreeMap::new();
        for slot in slots {
            if let Some(entry) = board.pending.get(*slot).filter(|entry| entry.request.is_none()) {
                missing.entry(entry.partition).or_default().push(*slot);
            }
        }
        for (partition, slots) in missing {
            let wanted = slots.iter().filter_map(|slot| board.pending.get(*slot));
            let wanted: Vec<_> = wanted.map(|entry| (&**board.pending.tenants.name(entry.tenant), entry.effect)).collect();
            let found = self.tables.requests(partition, &wanted)?;
            for (slot, request) in slots.into_iter().zip(found) {
                if let Some(request) = request {
                    board.pending.loaded(slot, Arc::new(request));
                }
            }
        }
        Ok(())
    }

    fn spawn(self: &Arc<Self>, job: Job) {
        *self.in_flight.lock() += 1;
        let shared = Arc::clone(self);
        let task = async move {
            let Job { call, leave, held } = job;
            let request = Arc::clone(&call.request);
            let (deadline, is_look_up) = (call.deadline, call.look_up);
            let performing = {
                let (shared, request) = (Arc::clone(&shared), Arc::clone(&request));
                tokio::spawn(async move {
                    match shared.registry.find(request.by, &request.target) {
                        Some(Port::Remote(performer)) => performer.perform(call, leave).await,
                        _ => nobody(&call),
                    }
                })
            };
            let abort = performing.abort_handle();
            let outcome = match tokio::time::timeout(deadline, performing).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => panicked(),
                Err(_) => {
                    abort.abort();
                    late(is_look_up, deadline)
                }
            };
            metrics::performed(&shared.namespace, &request, &outcome);
            shared.board.lock().finished(held, &request, outcome, shared.now());
            if let Err(error) = shared.drive() {
                shared.fail(&error.to_string());
            }
            *shared.in_flight.lock() -= 1;
            shared.landed.notify_all();
        };
        self.runtime.spawn(task);
    }
}

/// What is taken under one lock.
struct Taken {
    jobs: VecDeque<Job>,
    commands: Vec<super::board::Command>,
    switched: Vec<(String, bool)>,
    notices: Vec<Notice>,
}

/// A notice as a webhook's call; its key is its own, and the same for every attempt to tell.
fn said(notice: &Notice, to: &str) -> Request {
    let input = serde_json::json!({
        "type": "workflow.effect_given_up",
        "tenant": notice.subject.tenant_str(),
        "subject": notice.subject.subject().to_string(),
        "run": notice.run,
        "node": notice.node,
        "category": notice.category,
        "severity": notice.severity,
        "text": notice.text,
    });
    Request {
        subject: notice.subject.clone(),
        run: notice.run,
        effect: EffectId(notice.effect.0 ^ u128::MAX),
        workflow: String::new(),
        node: notice.node.clone(),
        by: Performer::Webhook,
        target: to.to_owned(),
        input: serde_json::value::to_raw_value(&input).expect("plain data"),
        timeout_ms: NOTICE_DEADLINE.as_millis() as i64,
        unknown: Unknown::Retry,
        purpose: String::new(),
        priority: Priority::High,
        requested_at: notice.at,
    }
}

fn panicked() -> Outcome {
    Outcome::Failed { category: Category::System, error: "the performer panicked".to_owned(), permanent: false, retry_after_ms: None }
}

/// Nobody knows; what that means for this kind, its subject's fold decides.
fn late(is_look_up: bool, deadline: Duration) -> Outcome {
    let what = if is_look_up { "look-up" } else { "attempt" };
    Outcome::Unknown { error: format!("no answer to the {what} within {} ms", deadline.as_millis()) }
}

/// How far the fold and the journal have to be before anything is performed.
struct Gate {
    fold: Option<Group>,
    /// The end of `commands` when this instance came.
    commands: Vec<(TopicPartition, Offset)>,
    /// The folder is a copy: an operator has to say first that the other one is not in use.
    held: Option<(Topics, Incarnation)>,
}

impl Gate {
    fn new(log: &dyn LogReader, topics: &Topics, fold: Option<Group>, copied: Option<Incarnation>) -> Result<Self, Error> {
        let end = |partition: TopicPartition| Ok::<_, Error>((partition, log.watermarks(partition)?.end));
        let commands = topics.partitions(Topic::Commands).map(end).collect::<Result<_, _>>()?;
        Ok(Self { fold, commands, held: copied.map(|copied| (topics.clone(), copied)) })
    }

    /// Whether the fold has decided all that was handed in before, and nobody performs elsewhere.
    fn is_open(&mut self, log: &dyn LogReader) -> Result<bool, Error> {
        if let Some((topics, copied)) = &self.held {
            if crate::stream::released(log, topics)? < Some(*copied) {
                return Ok(false);
            }
            self.held = None;
        }
        let Some(fold) = &self.fold else { return Ok(true) };
        for (partition, end) in &self.commands {
            let decided = log.committed(fold, *partition)?.map_or(Offset(0), |committed| committed.offset);
            if decided < *end {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Reads the journal.
struct Tail {
    shared: Arc<Shared>,
    log: Arc<dyn LogReader>,
    journal: TopicId,
    /// By partition, the next offset to read.
    positions: Vec<(TopicPartition, Offset)>,
    flushed: Vec<Offset>,
    last_flush: Instant,
    request_bytes_max: usize,
    flush_age: Duration,
    flush_bytes_max: usize,
    patience: Patience,
    /// What is open may have been done where this folder was copied from; nothing is stored before that is said.
    is_new_copy: bool,
}

impl Tail {
    /// Reads what is stored; true if nothing was.
    fn open(&mut self) -> Result<bool, Error> {
        let mut is_empty = true;
        let mut board = self.shared.board.lock();
        let mut partition = 0;
        loop {
            let id = TopicPartition { topic: self.journal, partition: PartitionId(partition) };
            let Ok(bounds) = self.log.watermarks(id) else { break };
            let stored = self.shared.tables.position(partition, bounds.end)?;
            if stored.is_some() {
                is_empty = false;
                self.shared.tables.load(partition, &mut board.pending)?;
            }
            let from = stored.unwrap_or(bounds.start).max(bounds.start);
            self.positions.push((id, from));
            self.flushed.push(from);
            partition += 1;
            if partition as usize >= self.shared.tables.count() {
                break;
            }
        }
        Ok(is_empty)
    }

    fn run(&mut self, mut gate: Gate) -> Result<(), Error> {
        if self.catch_up(&mut gate)? {
            self.shared.board.lock().begin(self.is_new_copy, self.shared.now());
            self.is_new_copy = false;
            while !self.shared.stopping.is_asked() {
                self.shared.drive()?;
                self.flush_if_due()?;
                self.log.wait(&self.positions, self.patience_ms())?;
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
            self.shared.stopping.wait(if gate.held.is_some() { HELD_MS } else { GATE_MS });
        }
        let ends = self.positions.iter().map(|(id, _)| Ok::<_, Error>(self.log.watermarks(*id)?.end)).collect::<Result<Vec<_>, _>>()?;
        while self.positions.iter().zip(&ends).any(|((_, at), end)| at < end) {
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

    /// One fetch of each partition.
    fn read(&mut self) -> Result<(), Error> {
        for at in 0..self.positions.len() {
            let (id, from) = self.positions[at];
            let fetched = self.log.fetch(id, from, FETCH_BYTES)?;
            if fetched.next == from {
                continue;
            }
            let mut board = self.shared.board.lock();
            let now = self.shared.now();
            for record in fetched.records() {
                if let Err(error) = take_in(&mut board, id.partition.0, &record, now) {
                    // It is the journal's reader that is too old or the record that is damaged: either way others must go on.
                    metrics::unreadable(&self.shared.namespace);
                    tracing::error!(partition = id.partition.0, offset = record.offset.0, %error, "a fact that cannot be read is passed over");
                }
            }
            self.positions[at].1 = fetched.next;
        }
        Ok(())
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
        for at in 0..self.positions.len() {
            let (id, offset) = self.positions[at];
            if self.flushed[at] == offset {
                continue;
            }
            let mut flushed = self.shared.tables.collect(&mut self.shared.board.lock().pending, id.partition.0, offset);
            let written = self.shared.tables.write(&mut flushed);
            let mut board = self.shared.board.lock();
            match written {
                Ok(()) => flushed.done(&mut board.pending, self.request_bytes_max),
                Err(error) => {
                    flushed.failed(&mut board.pending);
                    return Err(error);
                }
            }
            self.flushed[at] = offset;
        }
        self.last_flush = Instant::now();
        Ok(())
    }
}

fn take_in(board: &mut Board, partition: u32, record: &RecordRef<'_>, now: u64) -> Result<(), Error> {
    let Some(value) = record.value else { return Ok(()) };
    let JournalRecord::Fact(fact) = crate::schema::decode(value)? else { return Ok(()) };
    if fact.run.is_empty() {
        return Ok(());
    }
    let key = || SubjectKey::from_bytes(bytes::Bytes::copy_from_slice(record.key)).map_err(|error| Error::Row(error.to_string()));
    Ok(board.fact(partition, key, Millis(fact.at), fact.run, fact.body, now)??)
}
