//! What runs only while a consumer group gives this process its partitions: executors of effects, and the one projector of a namespace.
//!
//! It begins with the partitions that the group has given, ends before any of them goes to another process, and begins anew with those that
//! are left. Losing them ends it too; that it may run a moment longer than it is owned is harmless for what is held this way: executors
//! need a permit of their own, projectors commit only on top of the offset they began from.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Error;
use crate::domain::PartitionId;
use crate::log::{Advice, Change, Group, LogWriter, Membership, TopicId, TopicPartition};

const POLL: Duration = Duration::from_millis(50);
const AGAIN: Duration = Duration::from_millis(500);

type Begin<T> = Box<dyn Fn(&[PartitionId]) -> Result<T, Error> + Send>;

/// How a thing of this kind begins with so many partitions, how it ends, and why one has ended by itself.
pub struct Ways<T> {
    pub begin: Begin<T>,
    pub end: Box<dyn Fn(T) + Send>,
    pub failure: fn(&T) -> Option<String>,
}

/// A part of the product: not of this process, all of it here, or as much as a group gives.
pub enum Part<T: Send + 'static> {
    Elsewhere,
    Own(T),
    Held(Holding<T>),
}

impl<T: Send + 'static> Part<T> {
    /// What `look` sees of it; `None` while it does not run here.
    pub fn look<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        match self {
            Part::Elsewhere => None,
            Part::Own(own) => Some(look(own)),
            Part::Held(holding) => holding.sight().look(look),
        }
    }

    pub fn stop<E>(self, stop: impl FnOnce(T) -> Result<(), E>) -> Result<(), E> {
        match self {
            Part::Elsewhere => Ok(()),
            Part::Own(own) => stop(own),
            Part::Held(mut holding) => {
                holding.stop();
                Ok(())
            }
        }
    }
}

struct Common<T> {
    running: Mutex<Option<T>>,
    failure: Mutex<Option<String>>,
    stop: AtomicBool,
}

/// A thing that runs while it is held. Dropping it lets go.
pub struct Holding<T: Send + 'static> {
    common: Arc<Common<T>>,
    thread: Option<JoinHandle<()>>,
}

/// Looks at it without owning it.
pub struct Sight<T>(Arc<Common<T>>);

impl<T> Clone for Sight<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Sight<T> {
    /// What `look` sees of it; `None` while it does not run here.
    pub fn look<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.0.running.lock().as_ref().map(look)
    }

    /// Why it will not run again.
    pub fn failure(&self) -> Option<String> {
        self.0.failure.lock().clone()
    }
}

impl<T: Send + 'static> Holding<T> {
    pub fn start(name: &str, log: Arc<dyn LogWriter>, group: Group, topic: TopicId, ways: Ways<T>) -> Self {
        let common = Arc::new(Common { running: Mutex::new(None), failure: Mutex::new(None), stop: AtomicBool::new(false) });
        let mut holder = Holder { common: Arc::clone(&common), log, group, topic, ways, held: BTreeMap::new(), is_due: false };
        let body = move || match catch_unwind(AssertUnwindSafe(|| holder.serve())) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => holder.fail(error.to_string()),
            Err(_) => holder.fail("its thread panicked".to_owned()),
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body).expect("the system has room for a thread");
        Self { common, thread: Some(thread) }
    }

    pub fn sight(&self) -> Sight<T> {
        Sight(Arc::clone(&self.common))
    }

    /// Ends it and gives its partitions to others.
    pub fn stop(&mut self) {
        self.common.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // Its panic is in the failure already.
            let _ = thread.join();
        }
    }
}

impl<T: Send + 'static> Drop for Holding<T> {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Holder<T> {
    common: Arc<Common<T>>,
    log: Arc<dyn LogWriter>,
    group: Group,
    topic: TopicId,
    ways: Ways<T>,
    held: BTreeMap<PartitionId, TopicPartition>,
    /// What runs is not of the partitions that are held.
    is_due: bool,
}

impl<T> Holder<T> {
    fn fail(&self, why: String) {
        tracing::error!(group = %self.group.0, why, "cannot go on");
        *self.common.failure.lock() = Some(why);
        self.end();
    }

    fn is_stopping(&self) -> bool {
        self.common.stop.load(Ordering::Acquire)
    }

    fn serve(&mut self) -> Result<(), Error> {
        let Some(mut member) = self.join()? else { return Ok(()) };
        while !self.is_stopping() {
            match member.poll(POLL) {
                Ok(changes) => changes.into_iter().try_for_each(|change| self.follow(change, &mut *member))?,
                Err(error) if error.advice() == Advice::Retry => tracing::warn!(group = %self.group.0, %error, "the group does not answer"),
                Err(error) => return Err(error.into()),
            }
            let failed = self.common.running.lock().as_ref().and_then(self.ways.failure);
            if let Some(why) = failed {
                tracing::warn!(group = %self.group.0, why, "stopped by itself; beginning anew");
                self.is_due = true;
                self.pause();
            }
            if self.is_due && !self.is_stopping() {
                self.begin()?;
            }
        }
        self.end();
        let held: Vec<TopicPartition> = self.held.values().copied().collect();
        match member.leave(&held) {
            Err(error) if error.advice() != Advice::Retry => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// A while, unless it is to stop.
    fn pause(&self) {
        let until = Instant::now() + AGAIN;
        while Instant::now() < until && !self.is_stopping() {
            std::thread::park_timeout(POLL);
        }
    }

    fn join(&self) -> Result<Option<Box<dyn Membership>>, Error> {
        while !self.is_stopping() {
            match self.log.join(&self.group, self.topic) {
                Err(error) if error.advice() == Advice::Retry => {
                    tracing::warn!(group = %self.group.0, %error, "cannot join the group yet");
                    self.pause();
                }
                joined => return Ok(Some(joined?)),
            }
        }
        Ok(None)
    }

    fn follow(&mut self, change: Change, member: &mut dyn Membership) -> Result<(), Error> {
        match change {
            Change::Assigned(places) => self.held.extend(places.into_iter().map(|place| (place.partition, place))),
            Change::Revoked(places) => {
                self.end();
                self.held.retain(|partition, _| places.iter().all(|place| place.partition != *partition));
                match member.release(&places) {
                    Err(error) if error.advice() != Advice::Retry => return Err(error.into()),
                    _ => {}
                }
            }
            Change::Lost(places) => {
                self.end();
                self.held.retain(|partition, _| places.iter().all(|place| place.partition != *partition));
            }
        }
        self.is_due = true;
        Ok(())
    }

    fn end(&self) {
        let running = self.common.running.lock().take();
        running.into_iter().for_each(|running| (self.ways.end)(running));
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.end();
        self.is_due = false;
        if self.held.is_empty() {
            return Ok(());
        }
        let partitions: Vec<PartitionId> = self.held.keys().copied().collect();
        match (self.ways.begin)(&partitions) {
            Ok(running) => {
                tracing::info!(group = %self.group.0, partitions = ?partitions.iter().map(|partition| partition.0).collect::<Vec<_>>(), "at work");
                *self.common.running.lock() = Some(running);
                Ok(())
            }
            Err(error) if error.passes() => {
                tracing::warn!(group = %self.group.0, %error, "cannot begin yet");
                self.is_due = true;
                self.pause();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
