//! Loops that come and go: a process works on those partitions of its stages that the consumer groups give it, for as long as they do.
//!
//! A coordinator per stage keeps the membership and never does a loop's work, so that it always answers its group. Threads step the loops
//! that it hands them. A partition is let go only after its loop has stopped in order; one that was lost is dropped as it stands: nothing
//! of it would be taken. A loop that finds itself replaced while the group still gives its partition to this process begins anew.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::runner::Roster;
use super::stage::Stage;
use super::status::Stopping;
use super::worker::{Stepped, Stepper};
use super::{Error, Topics};
use crate::domain::{Millis, PartitionId};
use crate::env::Clock;
use crate::log::{self, Advice, Change, LogWriter, Membership, TopicPartition};

/// The longest a thread waits without looking whether it has orders.
const WAIT_MS_MAX: i64 = 50;
/// How long a coordinator waits for its group.
const POLL: Duration = Duration::from_millis(50);
/// Before a loop that could not begin, or was replaced, is begun again.
const AGAIN: Duration = Duration::from_millis(300);

/// What a coordinator wants of a thread.
enum Order {
    Begin(Arc<Stage>, PartitionId),
    /// In order or as it stands; then `done` is dropped.
    End {
        stage: &'static str,
        partition: PartitionId,
        in_order: bool,
        done: Sender<()>,
    },
}

/// What all threads of a crew share.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) log: Arc<dyn LogWriter>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stopping: Arc<Stopping>,
    pub(super) failure: Arc<Mutex<Option<Error>>>,
    pub(super) roster: Roster,
}

impl Common {
    fn fail(&self, error: Error) {
        tracing::error!(%error, "a partition loop cannot go on; stopping all of them");
        self.failure.lock().get_or_insert(error);
        self.stopping.ask();
    }
}

/// Starts `threads` threads and a coordinator for each stage.
pub(super) fn start(stages: Vec<Arc<Stage>>, topics: &Topics, threads: usize, common: &Common) -> Vec<JoinHandle<()>> {
    let namespace = topics.namespace.as_str();
    let spawn = |name: String, body: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name).spawn(body).expect("the system has room for a thread")
    };
    let mut joins = Vec::new();
    let mut orders = Vec::new();
    for at in 0..threads {
        let (sender, receiver) = mpsc::channel();
        orders.push(sender);
        let common = common.clone();
        joins.push(spawn(
            format!("{namespace}-{at}"),
            Box::new(move || Hand { common, orders: receiver, at_work: Vec::new(), waiting: Vec::new() }.run()),
        ));
    }
    for stage in stages {
        let coordinator =
            Coordinator { topic: topics.id(stage.topic), stage, orders: orders.clone(), common: common.clone(), held: BTreeMap::new() };
        let name = format!("{namespace}-{}", coordinator.stage.name);
        joins.push(spawn(name, Box::new(move || coordinator.run())));
    }
    joins
}

struct Coordinator {
    stage: Arc<Stage>,
    topic: log::TopicId,
    orders: Vec<Sender<Order>>,
    common: Common,
    held: BTreeMap<PartitionId, TopicPartition>,
}

impl Coordinator {
    fn run(mut self) {
        let ran = catch_unwind(AssertUnwindSafe(|| self.serve()));
        match ran {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.common.fail(error),
            Err(_) => {
                let what = format!("the coordinator of {}", self.stage.name);
                self.common.fail(Error::Thread { what, detail: "it panicked".to_owned() });
            }
        }
    }

    fn serve(&mut self) -> Result<(), Error> {
        let Some(mut member) = self.join()? else { return Ok(()) };
        while !self.common.stopping.is_asked() {
            match member.poll(POLL) {
                Ok(changes) => changes.into_iter().try_for_each(|change| self.follow(change, &mut *member))?,
                Err(error) if error.advice() == Advice::Retry => {
                    tracing::warn!(stage = self.stage.name, %error, "the group does not answer")
                }
                Err(error) => return Err(error.into()),
            }
        }
        let held: Vec<TopicPartition> = self.held.values().copied().collect();
        self.end(&held, true);
        match member.leave(&held) {
            Err(error) if error.advice() == Advice::Retry => {
                tracing::warn!(stage = self.stage.name, %error, "left without saying so: others wait for the session to end");
                Ok(())
            }
            left => Ok(left?),
        }
    }

    fn join(&self) -> Result<Option<Box<dyn Membership>>, Error> {
        while !self.common.stopping.is_asked() {
            match self.common.log.join(&self.stage.group, self.topic) {
                Err(error) if error.advice() == Advice::Retry => {
                    tracing::warn!(stage = self.stage.name, %error, "cannot join the group yet");
                    self.common.stopping.wait(AGAIN.as_millis() as i64);
                }
                joined => return Ok(Some(joined?)),
            }
        }
        Ok(None)
    }

    fn follow(&mut self, change: Change, member: &mut dyn Membership) -> Result<(), Error> {
        let numbers = |places: &[TopicPartition]| places.iter().map(|place| place.partition.0).collect::<Vec<_>>();
        match change {
            Change::Assigned(places) => {
                tracing::info!(stage = self.stage.name, partitions = ?numbers(&places), "partitions assigned");
                for place in places {
                    self.held.insert(place.partition, place);
                    let order = Order::Begin(Arc::clone(&self.stage), place.partition);
                    // A thread that has ended has failed, and everything stops.
                    let _ = self.hand(place.partition).send(order);
                }
            }
            Change::Revoked(places) => {
                tracing::info!(stage = self.stage.name, partitions = ?numbers(&places), "partitions go to others");
                self.end(&places, true);
                match member.release(&places) {
                    Err(error) if error.advice() == Advice::Retry => {
                        tracing::warn!(stage = self.stage.name, %error, "partitions were given back without a word in the ledger");
                    }
                    released => released?,
                }
            }
            Change::Lost(places) => {
                tracing::warn!(stage = self.stage.name, partitions = ?numbers(&places), "partitions were lost: the group took this process for dead");
                self.end(&places, false);
            }
        }
        Ok(())
    }

    fn hand(&self, partition: PartitionId) -> &Sender<Order> {
        &self.orders[partition.0 as usize % self.orders.len()]
    }

    /// Ends their loops and waits until they have ended.
    fn end(&mut self, places: &[TopicPartition], in_order: bool) {
        let (done, ended) = mpsc::channel();
        for place in places {
            self.held.remove(&place.partition);
            let order = Order::End { stage: self.stage.name, partition: place.partition, in_order, done: done.clone() };
            let _ = self.hand(place.partition).send(order);
        }
        drop(done);
        // Ends when the last loop has let go of its sender: nothing is ever sent.
        let _ = ended.recv();
    }
}

struct AtWork {
    stage: Arc<Stage>,
    partition: PartitionId,
    stepper: Box<dyn Stepper>,
}

struct Waiting {
    stage: Arc<Stage>,
    partition: PartitionId,
    from: Instant,
}

/// A thread and the loops that it steps.
struct Hand {
    common: Common,
    orders: Receiver<Order>,
    at_work: Vec<AtWork>,
    waiting: Vec<Waiting>,
}

impl Hand {
    fn run(mut self) {
        match catch_unwind(AssertUnwindSafe(|| self.serve())) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.common.fail(error),
            Err(_) => {
                let detail = "it panicked outside of any record".to_owned();
                self.common.fail(Error::Thread { what: "a partition loop".to_owned(), detail });
            }
        }
    }

    /// Until every coordinator has gone.
    fn serve(&mut self) -> Result<(), Error> {
        loop {
            loop {
                match self.orders.try_recv() {
                    Ok(order) => self.obey(order)?,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            self.begin_waiting()?;
            let until = self.step()?;
            let Some(until) = until else { continue };
            let wait_ms = until.since_ms(self.common.clock.now()).clamp(1, WAIT_MS_MAX);
            let wait = Duration::from_millis(wait_ms as u64);
            let positions: Vec<_> = self.at_work.iter().map(|at_work| at_work.stepper.position()).collect();
            if positions.is_empty() {
                match self.orders.recv_timeout(wait) {
                    Ok(order) => self.obey(order)?,
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
                }
                continue;
            }
            match self.common.log.wait(&positions, wait) {
                Err(error) if error.advice() == Advice::Retry => self.common.stopping.wait(wait_ms),
                waited => drop(waited?),
            }
        }
    }

    fn obey(&mut self, order: Order) -> Result<(), Error> {
        match order {
            Order::Begin(stage, partition) => self.waiting.push(Waiting { stage, partition, from: Instant::now() }),
            Order::End { stage, partition, in_order, done } => {
                self.waiting.retain(|waiting| waiting.stage.name != stage || waiting.partition != partition);
                let found = self.at_work.iter().position(|at_work| at_work.stage.name == stage && at_work.partition == partition);
                if let Some(mut ended) = found.map(|at| self.at_work.swap_remove(at)) {
                    self.common.roster.remove(stage, partition);
                    if in_order {
                        stopped(ended.stepper.stop())?;
                    }
                }
                drop(done);
            }
        }
        Ok(())
    }

    /// Begins those whose time has come.
    fn begin_waiting(&mut self) -> Result<(), Error> {
        let (due, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.from <= Instant::now());
        self.waiting = waiting;
        let due: Vec<Waiting> = due;
        for Waiting { stage, partition, .. } in due {
            match (stage.open)(partition) {
                Ok(stepper) => {
                    self.common.roster.add(stepper.shared());
                    self.at_work.push(AtWork { stage, partition, stepper });
                }
                Err(error) if passes(&error) => {
                    tracing::warn!(stage = stage.name, partition = partition.0, %error, "a loop cannot begin yet");
                    self.waiting.push(Waiting { stage, partition, from: Instant::now() + AGAIN });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One step of each loop; when to look again if none of them worked.
    fn step(&mut self) -> Result<Option<Millis>, Error> {
        let mut until = self.common.clock.now() + WAIT_MS_MAX;
        let mut worked = false;
        let mut at = 0;
        while let Some(at_work) = self.at_work.get_mut(at) {
            match at_work.stepper.step() {
                Ok(Stepped::Worked) => worked = true,
                Ok(Stepped::Idle { until: next } | Stepped::Lingering { until: next }) => until = until.min(next),
                Err(error) if passes(&error) => {
                    let AtWork { stage, partition, .. } = self.at_work.swap_remove(at);
                    tracing::warn!(stage = stage.name, partition = partition.0, %error, "a loop was replaced or interrupted; it begins anew if it is still ours");
                    self.common.roster.remove(stage.name, partition);
                    self.waiting.push(Waiting { stage, partition, from: Instant::now() + AGAIN });
                    continue;
                }
                Err(error) => return Err(error),
            }
            at += 1;
        }
        Ok((!worked).then_some(until))
    }
}

/// Whether the same loop may succeed when it is begun again from what is committed.
fn passes(error: &Error) -> bool {
    match error {
        Error::Log(log::Error::Fenced(_)) => true,
        Error::Log(error) => error.advice() == Advice::Retry,
        Error::State(error) => error.may_pass(),
        _ => false,
    }
}

/// A loop that could not end in order is begun by its next owner from what is committed.
fn stopped(stopped: Result<(), Error>) -> Result<(), Error> {
    match stopped {
        Err(error) if passes(&error) => {
            tracing::warn!(%error, "a loop ended without storing everything; its next owner re-reads it");
            Ok(())
        }
        stopped => stopped,
    }
}
