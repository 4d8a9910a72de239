//! Threads that step workers until asked to stop or until one of them cannot go on; then all stop.

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::crew::{self, Common};
use super::stage::Stage;
use super::status::{PartitionStatus, Shared, Stopping};
use super::worker::{Stepped, Stepper};
use super::{Error, Topics};
use crate::domain::{Duration, Millis, PartitionId};
use crate::env::Clock;
use crate::log::LogReader;

/// The longest a thread waits without looking whether it should stop.
const WAIT_MS_MAX: i64 = 100;

/// What the loops at work here say of themselves; those of a shared stage come and go.
#[derive(Clone, Default)]
pub(super) struct Roster(Arc<Mutex<Vec<Arc<Shared>>>>);

impl Roster {
    pub(super) fn add(&self, shared: Arc<Shared>) {
        let mut roster = self.0.lock();
        roster.push(shared);
        roster.sort_by_key(|shared| shared.place());
    }

    pub(super) fn remove(&self, stage: &str, partition: PartitionId) {
        self.0.lock().retain(|shared| shared.place() != (stage, partition));
    }

    fn status(&self) -> Vec<PartitionStatus> {
        self.0.lock().iter().map(|shared| shared.status()).collect()
    }
}

/// The running loops of one namespace. Dropping it stops them.
pub struct Handle {
    threads: Vec<JoinHandle<()>>,
    shared: Roster,
    stopping: Arc<Stopping>,
    failure: Arc<Mutex<Option<Error>>>,
}

impl Handle {
    pub(super) fn run(
        workers: Vec<Vec<Box<dyn Stepper>>>,
        log: &Arc<dyn crate::log::LogWriter>,
        clock: &Arc<dyn Clock>,
        stopping: Arc<Stopping>,
        name: &str,
    ) -> Self {
        let shared = Roster(Arc::new(Mutex::new(workers.iter().flatten().map(|worker| worker.shared()).collect())));
        let failure: Arc<Mutex<Option<Error>>> = Arc::default();
        let spawn = |(at, group): (usize, Vec<Box<dyn Stepper>>)| {
            let (log, clock, stopping, failure) = (Arc::clone(log), Arc::clone(clock), Arc::clone(&stopping), Arc::clone(&failure));
            let name = format!("{name}-{at}");
            let body = move || run_thread(group, &*log, &*clock, &stopping, &failure);
            std::thread::Builder::new().name(name).spawn(body).expect("the system has room for a thread")
        };
        let threads = workers.into_iter().enumerate().filter(|(_, group)| !group.is_empty()).map(spawn).collect();
        Self { threads, shared, stopping, failure }
    }

    /// Of stages whose partitions come from their groups.
    pub(super) fn share(
        stages: Vec<Arc<Stage>>,
        topics: &Topics,
        threads: usize,
        log: &Arc<dyn crate::log::LogWriter>,
        clock: &Arc<dyn Clock>,
        stopping: Arc<Stopping>,
    ) -> Self {
        let (roster, failure) = (Roster::default(), Arc::default());
        let (log, clock) = (Arc::clone(log), Arc::clone(clock));
        let common = Common { log, clock, stopping: Arc::clone(&stopping), failure: Arc::clone(&failure), roster: roster.clone() };
        let threads = if stages.is_empty() { Vec::new() } else { crew::start(stages, topics, threads.max(1), &common) };
        Self { threads, shared: roster, stopping, failure }
    }

    /// How far every partition of every stage is that is at work here.
    pub fn status(&self) -> Vec<PartitionStatus> {
        self.shared.status()
    }

    /// What a health check may hold on to after the handle itself has an owner.
    pub fn watch(&self) -> Watch {
        Watch { shared: self.shared.clone(), failure: Arc::clone(&self.failure) }
    }

    /// True once the loops have stopped by themselves, which they do only when they cannot go on.
    pub fn has_failed(&self) -> bool {
        self.failure.lock().is_some()
    }

    /// Commits what is under way, stores all states, ends the threads; returns the failure if there was one.
    pub fn stop(mut self) -> Result<(), Error> {
        self.end();
        self.failure.lock().take().map_or(Ok(()), Err)
    }

    fn end(&mut self) {
        self.stopping.ask();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                let detail = "its thread panicked".to_owned();
                self.failure.lock().get_or_insert(Error::Thread { what: "a partition loop".to_owned(), detail });
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}

/// Looks at running loops without owning them.
#[derive(Clone)]
pub struct Watch {
    shared: Roster,
    failure: Arc<Mutex<Option<Error>>>,
}

impl Watch {
    pub fn status(&self) -> Vec<PartitionStatus> {
        self.shared.status()
    }

    /// Why the loops stopped by themselves.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().as_ref().map(ToString::to_string)
    }
}

fn run_thread(
    mut workers: Vec<Box<dyn Stepper>>,
    log: &dyn LogReader,
    clock: &dyn Clock,
    stopping: &Stopping,
    failure: &Mutex<Option<Error>>,
) {
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drive(&mut workers, log, clock, stopping)));
    let error = match run {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(_) => Error::Thread { what: "a partition loop".to_owned(), detail: "it panicked outside of any record".to_owned() },
    };
    tracing::error!(%error, "a partition loop cannot go on; stopping all of them");
    failure.lock().get_or_insert(error);
    stopping.ask();
}

fn drive(workers: &mut [Box<dyn Stepper>], log: &dyn LogReader, clock: &dyn Clock, stopping: &Stopping) -> Result<(), Error> {
    while !stopping.is_asked() {
        let mut worked = false;
        let mut lingering = Millis::MAX;
        let mut idle = Millis::MAX;
        for worker in workers.iter_mut() {
            match worker.step()? {
                Stepped::Worked => worked = true,
                Stepped::Lingering { until } => lingering = lingering.min(until),
                Stepped::Idle { until } => idle = idle.min(until),
            }
        }
        let now = clock.now();
        if worked {
            continue;
        }
        if lingering != Millis::MAX {
            stopping.wait(lingering.since_ms(now).clamp(1, WAIT_MS_MAX));
            continue;
        }
        let wait_ms = idle.since_ms(now).clamp(1, WAIT_MS_MAX);
        let positions: Vec<_> = workers.iter().map(|worker| worker.position()).collect();
        log.wait(&positions, Duration::from_millis(wait_ms as u64))?;
    }
    for worker in workers.iter_mut() {
        worker.stop()?;
    }
    Ok(())
}
