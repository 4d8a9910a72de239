//! The executor's threads around the [board](super::board): one reads the journal and performs what is answered at once, a small runtime
//! performs the rest, one sees commands through to the disk. What they do is in [`drive`](super::drive) and [`tail`](super::tail).

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Error;
use super::append;
use super::board::{Board, LimitsOf};
use super::drive::Shared;
use super::follower::Follower;
use super::gate::Gate;
use super::registry::Registry;
use super::schedule;
use super::tail::Tail;
use crate::domain::{Incarnation, PartitionId};
use crate::env::{Clock, Patience};
use crate::log::{Group, LogReader, LogWriter};
use crate::permit::Executor as Instance;
use crate::state::StateStore;
use crate::stream::{Stopping, Topic, Topics};

pub struct Setup {
    pub log: Arc<dyn LogWriter>,
    pub state: Arc<dyn StateStore>,
    pub clock: Arc<dyn Clock>,
    pub topics: Topics,
    /// Of the journal; `None` for all of them.
    pub partitions: Option<Vec<PartitionId>>,
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

/// Starts performing what the namespace's journal asks for.
pub fn start(setup: Setup) -> Result<Handle, Error> {
    let Setup { log, state, clock, topics, partitions, registry, settings, fold, copied } = setup;
    let me = Instance(*uuid::Uuid::new_v4().as_bytes());
    let (appender, settler) = append::open(Arc::clone(&log), Arc::clone(&clock), topics.id(Topic::Commands));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.threads.max(1))
        .max_blocking_threads(16)
        .thread_name(format!("{}-effects", topics.namespace))
        .enable_all()
        .build()
        .map_err(|error| Error::Runtime(error.to_string()))?;
    let Settings { schedule, limits, request_bytes_max, flush_age, flush_bytes_max, notify, drain, .. } = settings;
    let stopping = Arc::new(Stopping::default());
    let mut board = Board::new(me, schedule, limits);
    let reader = Arc::clone(&log) as Arc<dyn LogReader>;
    let follower = Follower::open_some(Arc::clone(&reader), state, &topics, partitions.as_deref(), &mut board)?;
    if !follower.was_empty() {
        board.tells_what_was_missed();
    }
    let shared = Arc::new(Shared {
        namespace: topics.namespace.clone(),
        board: Mutex::new(board),
        appender,
        registry,
        notify,
        drain,
        tables: Arc::clone(follower.tables()),
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
        log: reader,
        is_new_copy: follower.was_empty() && copied.is_some(),
        follower,
        last_flush: Instant::now(),
        request_bytes_max,
        flush_age,
        flush_bytes_max,
        patience: Patience::default(),
    };
    let gate = Gate::of(&*log, &topics, partitions.as_deref(), fold, copied)?;
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
