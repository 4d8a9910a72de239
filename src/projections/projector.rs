//! The projector's thread: waits for records, steps the tail, keeps the log from trimming what was not read, tells others how far it is.
//!
//! Batches adapt: idle, a record is in the tables within a linger of [`LINGER`]; under load a transaction takes as much as fits into
//! [`STEP_TARGET`], because index pages and profiles touched twice are written once.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::generation::Generations;
use super::tail::{Step, Tail};
use super::{Error, Place, Progress, metrics};
use crate::domain::{Namespace, Offset, PartitionId};
use crate::env::{Clock, SystemClock};
use crate::features::Rules;
use crate::log::{self, LogReader, LogWriter, TopicPartition};

/// A small batch waits this long for company: fifty commits a second cost little, a commit per event would.
const LINGER: Duration = Duration::from_millis(15);

/// What one transaction may take under load, so that rows are visible well within a second.
const STEP_TARGET: Duration = Duration::from_millis(150);

/// Bytes fetched per step: the floor makes progress however slow the disk is, the ceiling bounds memory.
const STEP_BYTES: std::ops::Range<usize> = 256 << 10..32 << 20;

/// How often the log is told what may be trimmed.
const PIN_EVERY: Duration = Duration::from_secs(10);

/// How long an idle projector waits before it looks around (stop, swapped generation, new topics).
const IDLE_WAIT: Duration = Duration::from_millis(200);

/// First and longest pause after a failure that may pass.
const RETRY_PAUSE: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_secs(5);

/// Longest pause after one that does not look so: each try may be a whole rebuild.
const LASTING_PAUSE_MAX: Duration = Duration::from_secs(300);

/// Keeps records from being trimmed before they were projected.
pub trait Pins: Send + Sync {
    fn pin_all(&self, name: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), log::Error>;
}

impl<W: LogWriter> Pins for W {
    fn pin_all(&self, name: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), log::Error> {
        LogWriter::pin_all(self, name, offsets)
    }
}

impl<W: LogWriter + ?Sized> Pins for Arc<W> {
    fn pin_all(&self, name: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), log::Error> {
        LogWriter::pin_all(&**self, name, offsets)
    }
}

/// What a projector is given besides the log.
#[derive(Clone)]
pub struct Options {
    pub clock: Arc<dyn Clock>,
    /// Which events are orders, for the daily revenue. Changed rules hold from then on; a rebuild applies them to all of history.
    pub rules: Arc<Rules>,
    /// Absent where nothing is trimmed, as in tests.
    pub pins: Option<Arc<dyn Pins>>,
    /// A namespace of event time, whose events are as old as its history: no row of it is too old to be kept.
    pub is_history: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), rules: Arc::default(), pins: None, is_history: false }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Starting,
    Running,
    /// Something failed (disk full, locked, a panic); it is tried again, ever less often.
    Retrying(String),
    /// What is in force is not to be trusted; the next generation is being filled.
    Rebuilding(String),
    /// As asked.
    Stopped,
}

/// A running projector, for others: how far it is, how it is, stop.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    health: Health,
    applied: BTreeMap<(String, PartitionId), Offset>,
    lag: u64,
}

impl Handle {
    /// The offset up to which (exclusive) a partition's records are visible in SQL.
    pub fn applied_through(&self, topic: &str, partition: PartitionId) -> Offset {
        self.shared.state.lock().applied.get(&(topic.to_owned(), partition)).copied().unwrap_or_default()
    }

    /// Blocks until the record at `offset` is visible in SQL; false if time is up or the projector has stopped.
    pub fn wait_applied(&self, topic: &str, partition: PartitionId, offset: Offset, at_most: Duration) -> bool {
        let key = (topic.to_owned(), partition);
        let visible = |state: &State| state.applied.get(&key).is_some_and(|next| *next > offset);
        let deadline = Instant::now() + at_most;
        let mut state = self.shared.state.lock();
        while !visible(&state) {
            let stopped = matches!(state.health, Health::Stopped);
            if stopped || self.shared.changed.wait_until(&mut state, deadline).timed_out() {
                return visible(&state);
            }
        }
        true
    }

    /// Records in the log that were not in the tables when last looked.
    pub fn lag(&self) -> u64 {
        self.shared.state.lock().lag
    }

    pub fn health(&self) -> Health {
        self.shared.state.lock().health.clone()
    }

    /// Stops after the transaction in progress and waits for the thread.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.lock().take() {
            // A panic of the thread is in its health already; stopping has nothing to add.
            let _ = thread.join();
        }
    }
}

pub struct Projector {
    log: Arc<dyn LogReader>,
    place: Place,
    generations: Generations,
    options: Options,
    shared: Arc<Shared>,
    step_bytes: usize,
    pinned_at: Option<Instant>,
    /// After the next failure.
    pause: Duration,
    /// A rebuild was the last thing tried, so that another one right away would not help.
    is_rebuilt: bool,
}

impl Projector {
    /// Starts a projector of `namespace` on a thread of its own, with its read model in `place`. That need not be there yet.
    pub fn start(log: Arc<dyn LogReader>, place: impl Into<Place>, namespace: &Namespace, options: Options) -> Result<Handle, Error> {
        let place = place.into();
        let state = State { health: Health::Starting, applied: BTreeMap::new(), lag: 0 };
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), state: Mutex::new(state), changed: Condvar::new() });
        let mut projector = Projector {
            log,
            generations: Generations::new(&place, namespace),
            place,
            options,
            shared: Arc::clone(&shared),
            step_bytes: STEP_BYTES.start,
            pinned_at: None,
            pause: RETRY_PAUSE.start,
            is_rebuilt: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::io(thread_of(namespace)))?;
        let thread = std::thread::Builder::new().name(thread_of(namespace));
        let thread = thread.spawn(move || {
            while !projector.stopping() {
                let run = std::panic::AssertUnwindSafe(|| runtime.block_on(projector.run()));
                if std::panic::catch_unwind(run).is_err() {
                    metrics::failed(projector.generations.namespace());
                    runtime.block_on(projector.try_later("it panicked; the process's own log has the message", true));
                }
            }
            projector.set_health(Health::Stopped);
        });
        let thread = thread.map_err(Error::io(thread_of(namespace)))?;
        Ok(Handle { shared, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    fn set_health(&self, health: Health) {
        let mut state = self.shared.state.lock();
        if state.health != health {
            state.health = health;
            self.shared.changed.notify_all();
        }
    }

    fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    /// Serves until stopped. Nothing ends it sooner: while SQL stands still the server takes and folds what comes, says that it is not
    /// ready and why, and keeps in the log what was not read; whatever it was that failed, a later try finds it gone.
    async fn run(&mut self) {
        while !self.stopping() {
            let mut error = match self.serve().await {
                Ok(()) => {
                    (self.pause, self.is_rebuilt) = (RETRY_PAUSE.start, false);
                    continue;
                }
                Err(error) => error,
            };
            metrics::failed(self.generations.namespace());
            if error.wants_rebuild() && !std::mem::take(&mut self.is_rebuilt) {
                match self.rebuild(&error).await {
                    Ok(()) => {
                        self.is_rebuilt = true;
                        continue;
                    }
                    // A full disk or an operator's own rebuild may pass: then it is tried again.
                    Err(failure) => error = failure,
                }
            }
            // What was too much at once may be little enough.
            self.step_bytes = STEP_BYTES.start;
            self.try_later(&error.to_string(), lasting(&error)).await;
        }
    }

    /// Waits before the next try, ever longer; only until it is stopped.
    async fn try_later(&mut self, error: &str, is_lasting: bool) {
        match is_lasting {
            true => tracing::error!(error, pause_ms = self.pause.as_millis(), "projector failed; SQL stands still until it succeeds again"),
            false => tracing::warn!(error, "projector tries again"),
        }
        self.set_health(Health::Retrying(error.to_owned()));
        let until = Instant::now() + self.pause;
        while !self.stopping() && Instant::now() < until {
            tokio::time::sleep(IDLE_WAIT.min(until.saturating_duration_since(Instant::now()))).await;
        }
        let longest = if is_lasting { LASTING_PAUSE_MAX } else { RETRY_PAUSE.end };
        self.pause = (self.pause * 2).min(longest);
    }

    /// Replaces a file that is not to be trusted. Until then readers see the old one, whose rows may be wrong but are all there is.
    async fn rebuild(&mut self, why: &Error) -> Result<(), Error> {
        tracing::warn!(%why, "rebuilding the read model");
        self.set_health(Health::Rebuilding(why.to_string()));
        let shared = Arc::clone(&self.shared);
        let mut progress = move |progress: Progress| {
            shared.state.lock().lag = progress.left;
            match shared.stop.load(Ordering::SeqCst) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let (place, namespace) = (self.place.clone(), self.generations.namespace().clone());
        match super::rebuild(Arc::clone(&self.log), &place, &namespace, &self.options, &mut progress).await {
            Err(Error::Stopped(_)) if self.stopping() => Ok(()),
            rebuilt => rebuilt.map(|rebuilt| tracing::info!(?rebuilt, "read model rebuilt")),
        }
    }

    /// Opens the generation in force and serves it until stopped, swapped or failed.
    async fn serve(&mut self) -> Result<(), Error> {
        let (generation, mut tail) = self.open().await?;
        self.set_health(Health::Running);
        self.follow(generation, &mut tail).await?;
        self.pin(&tail, true)?;
        tail.close().await
    }

    async fn open(&mut self) -> Result<(u64, Tail), Error> {
        let namespace = self.generations.namespace().clone();
        let generation = match self.generations.current().await? {
            Some(generation) => generation,
            None => {
                let first = self.generations.next().await?;
                self.generations.create(first).await?.close().await?;
                self.generations.switch_to(first).await?;
                first
            }
        };
        let store = self.generations.open(generation).await?;
        let tail = Tail::new(Arc::clone(&self.log), &self.options, &namespace, store).await?;
        self.publish(&tail, 0);
        self.pin(&tail, true)?;
        Ok((generation, tail))
    }

    async fn follow(&mut self, generation: u64, tail: &mut Tail) -> Result<(), Error> {
        let mut last_commit = Instant::now();
        while !self.stopping() {
            if !self.generations.is_in_force(generation, tail.store()).await? {
                tracing::info!(generation, "the read model was rebuilt; going on with the new one");
                return Ok(());
            }
            if tail.topics_missing() {
                tail.reload().await?;
            }
            if !self.log.wait(&tail.positions(), IDLE_WAIT)? {
                self.pin(tail, false)?;
                continue;
            }
            let since = last_commit.elapsed();
            if since < LINGER {
                tokio::time::sleep(LINGER - since).await;
            }
            let begun = Instant::now();
            match tail.step(self.step_bytes).await {
                Ok(step) => {
                    self.adapt(step, begun.elapsed());
                    if !self.is_rebuilt {
                        self.pause = RETRY_PAUSE.start;
                    }
                    self.publish(tail, step.lag);
                }
                Err(Error::Overtaken { topic, partition }) => {
                    tracing::info!(topic, partition, "another projector was first");
                    tail.reload().await?;
                }
                Err(error) => return Err(error),
            }
            last_commit = Instant::now();
            tail.tend().await?;
            self.pin(tail, false)?;
        }
        Ok(())
    }

    /// Steers the next step towards its target time: with a backlog up while there is time left, down when it took too long.
    fn adapt(&mut self, step: Step, took: Duration) {
        if took > STEP_TARGET * 2 {
            self.step_bytes = (self.step_bytes / 2).max(STEP_BYTES.start);
        } else if took < STEP_TARGET && step.lag > 0 {
            self.step_bytes = (self.step_bytes * 2).min(STEP_BYTES.end);
        }
    }

    fn publish(&self, tail: &Tail, lag: u64) {
        let mut state = self.shared.state.lock();
        for cursor in tail.cursors() {
            state.applied.insert((cursor.topic.to_owned(), cursor.partition.partition), cursor.next);
        }
        state.lag = lag;
        self.shared.changed.notify_all();
    }

    /// Tells the log what is still needed; lazily, because a pin that is behind only keeps a little more.
    fn pin(&mut self, tail: &Tail, now: bool) -> Result<(), Error> {
        let Some(pins) = self.options.pins.clone() else { return Ok(()) };
        if !now && self.pinned_at.is_some_and(|at| at.elapsed() < PIN_EVERY) {
            return Ok(());
        }
        let name = format!("projections.{}", self.generations.namespace());
        let offsets: Vec<_> = tail.cursors().iter().map(|cursor| (cursor.partition, cursor.next)).collect();
        pins.pin_all(&name, &offsets)?;
        self.pinned_at = Some(Instant::now());
        Ok(())
    }
}

fn thread_of(namespace: &Namespace) -> String {
    format!("projector-{namespace}")
}

/// Whether trying again is not likely to help.
fn lasting(error: &Error) -> bool {
    match error {
        Error::Log(error) => error.advice() == log::Advice::Fatal,
        Error::Refused { .. } | Error::Setting { .. } => true,
        _ => false,
    }
}
