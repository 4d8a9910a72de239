//! What happens on whichever thread has news: the board's lock is taken for a moment, then commands are handed in and jobs started outside
//! of it. So an attempt is with its performer as soon as its fact is read, and many results at once are one append.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::append::Appender;
use super::board::{Board, Command, Job};
use super::call::Port;
use super::executor::Status;
use super::notices::Notice;
use super::pending::Slot;
use super::registry::{Registry, nobody};
use super::table::Tables;
use super::{Error, metrics};
use crate::domain::{Millis, Namespace};
use crate::env::Clock;
use crate::stream::Stopping;
use crate::workflow::{Category, Outcome};

/// Attempts that begin before the journal is looked at again.
const TURNS_MAX: usize = 512;
/// Appends that may wait for the disk before no more attempts begin.
const UNSETTLED_MAX: usize = 4_096;

pub(super) struct Shared {
    pub(super) namespace: Namespace,
    pub(super) board: Mutex<Board>,
    pub(super) appender: Appender,
    pub(super) registry: Registry,
    pub(super) notify: String,
    pub(super) drain: Duration,
    pub(super) tables: Arc<Tables>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) stopping: Arc<Stopping>,
    pub(super) failure: Mutex<Option<String>>,
    pub(super) in_flight: Mutex<usize>,
    pub(super) landed: Condvar,
    pub(super) since: Instant,
}

impl Shared {
    pub(super) fn now(&self) -> u64 {
        self.since.elapsed().as_millis() as u64
    }

    pub(super) fn fail(&self, why: &str) {
        tracing::error!(namespace = %self.namespace, why, "effects are performed no more");
        self.failure.lock().get_or_insert_with(|| format!("effects: {why}"));
        self.stopping.ask();
    }

    pub(super) fn status(&self) -> Status {
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
    pub(super) fn drive(self: &Arc<Self>) -> Result<(), Error> {
        loop {
            let Taken { jobs, commands, switched, notice } = self.take(TURNS_MAX)?;
            if let Some(notice) = notice {
                self.tell(notice);
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

    /// Before a stop: nothing more is begun.
    pub(super) fn give_back(&self) -> Result<(), Error> {
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
            advance(&mut board, &self.tables, most, now, self.clock.now())?;
        }
        let notice = if self.stopping.is_asked() { None } else { board.pending.notices.next(now) };
        Ok(Taken { jobs: board.take_ready(), commands: board.take_commands(), switched: board.take_switched(), notice })
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
    commands: Vec<Command>,
    switched: Vec<(String, bool)>,
    notice: Option<Notice>,
}

/// Says what is known of attempts whose executor is gone, and lets begin whoever's turn it is, up to `most`.
pub fn advance(board: &mut Board, tables: &Tables, most: usize, now: u64, appended: Millis) -> Result<(), Error> {
    let orphans = board.take_orphans();
    load(board, tables, &orphans)?;
    orphans.into_iter().for_each(|slot| board.orphan(slot));
    let turns = board.turns(most, now);
    let slots: Vec<Slot> = turns.iter().map(|turn| turn.ticket.slot).collect();
    load(board, tables, &slots)?;
    for turn in turns {
        if !board.go(turn, now, appended) {
            board.unreadable(turn, "it is not stored", now);
        }
    }
    Ok(())
}

/// Brings the requests of these into memory.
fn load(board: &mut Board, tables: &Tables, slots: &[Slot]) -> Result<(), Error> {
    let mut missing: BTreeMap<u32, Vec<Slot>> = BTreeMap::new();
    for slot in slots {
        if let Some(entry) = board.pending.get(*slot).filter(|entry| entry.request.is_none()) {
            missing.entry(entry.partition).or_default().push(*slot);
        }
    }
    for (partition, slots) in missing {
        let wanted = slots.iter().filter_map(|slot| board.pending.get(*slot));
        let wanted: Vec<_> = wanted.map(|entry| (&**board.pending.tenants.name(entry.tenant), entry.effect)).collect();
        let found = tables.requests(partition, &wanted)?;
        for (slot, request) in slots.into_iter().zip(found) {
            if let Some(request) = request {
                board.pending.loaded(slot, Arc::new(request));
            }
        }
    }
    Ok(())
}

fn panicked() -> Outcome {
    Outcome::Failed { category: Category::System, error: "the performer panicked".to_owned(), permanent: false, retry_after_ms: None }
}

/// Nobody knows; what that means for this kind, its subject's fold decides.
fn late(is_look_up: bool, deadline: Duration) -> Outcome {
    let what = if is_look_up { "look-up" } else { "attempt" };
    Outcome::Unknown { error: format!("no answer to the {what} within {} ms", deadline.as_millis()) }
}
