//! The effects that may still have to be performed: a pure fold over the journal's facts.
//!
//! An effect is kept from its request until its result, its failure, its step's or its run's end, so that every later attempt of it finds
//! what to perform. What is kept of one in memory is small; the request itself may be on disk (see [`super::table`]) until its turn comes.

use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::call::{Needs, Request};
use super::notices::Notices;
use super::told::Told;
use crate::domain::{Millis, SubjectKey};
use crate::permit::{Executor, Grant, Priority};
use crate::workflow::{EffectId, Performer, RunId, Unknown};

pub type Slot = u32;

/// One effect.
#[derive(Debug)]
pub struct Entry {
    pub run: RunId,
    pub effect: EffectId,
    pub tenant: u32,
    pub lane: u32,
    pub partition: u32,
    pub generation: u32,
    pub by: Performer,
    pub unknown: Unknown,
    pub priority: Priority,
    pub paused: bool,
    pub open: Option<Open>,
    /// `None` while it is only on disk.
    pub request: Option<Arc<Request>>,
    /// What the table holds of it.
    pub stored: Stored,
    pub dirty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stored {
    pub status: bool,
    pub request: bool,
}

/// The attempt that is to be performed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    pub attempt: u32,
    pub look_up: bool,
    pub standing: Standing,
    /// When its start was first handed in, by the executor's own steady clock: no permit that answers it is older.
    pub asked_at: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Waiting,
    /// The start is handed in.
    Asked,
    /// The start is on record.
    Started,
    /// So is its permit; it waits to be sent.
    Granted,
    /// Started by an executor that is no more; with a permit or without.
    Orphaned {
        permitted: bool,
    },
    /// With the performer, or its result is handed in.
    Performed,
}

/// What a fact means for the executor.
#[derive(Debug)]
pub enum Change {
    /// An attempt is to be performed.
    Opened(Slot),
    /// What was asked for need not be on hold any longer: the attempt is over, or its run is paused.
    Withdrawn {
        slot: Slot,
        open: Open,
    },
    /// Its permit was not used and will not be.
    Unused {
        effect: EffectId,
        attempt: u32,
        partition: u32,
        request: Option<Arc<Request>>,
    },
    Started(Slot),
    Granted {
        slot: Slot,
        grant: Box<Grant>,
        to: String,
    },
    /// Another instance had started it.
    Orphaned(Slot),
}

#[derive(Debug)]
pub struct Pending {
    me: Executor,
    entries: Vec<Option<Entry>>,
    free: Vec<Slot>,
    generation: u32,
    runs: HashMap<RunId, SmallVec<[Slot; 2]>, FxBuildHasher>,
    pub tenants: Names<Box<str>>,
    pub lanes: Names<(Performer, Box<str>)>,
    pub notices: Notices,
    /// Entries whose row is not what the table has, and rows of entries that are gone, by partition.
    dirty: HashMap<u32, Vec<Slot>, FxBuildHasher>,
    removed: HashMap<u32, Vec<(u32, EffectId)>, FxBuildHasher>,
    dirty_bytes: usize,
    /// Of requests in memory.
    request_bytes: usize,
}

/// Names that have numbers.
#[derive(Debug)]
pub struct Names<N> {
    names: Vec<N>,
    numbers: HashMap<N, u32>,
}

impl<N> Default for Names<N> {
    fn default() -> Self {
        Self { names: Vec::new(), numbers: HashMap::new() }
    }
}

impl<N: Clone + std::hash::Hash + Eq> Names<N> {
    pub fn number(&mut self, name: &N) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len() as u32;
        self.names.push(name.clone());
        self.numbers.insert(name.clone(), number);
        number
    }

    pub fn name(&self, number: u32) -> &N {
        &self.names[number as usize]
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

impl Pending {
    pub fn new(me: Executor) -> Self {
        Self {
            me,
            entries: Vec::new(),
            free: Vec::new(),
            generation: 0,
            runs: HashMap::default(),
            tenants: Names::default(),
            lanes: Names::default(),
            notices: Notices::default(),
            dirty: HashMap::default(),
            removed: HashMap::default(),
            dirty_bytes: 0,
            request_bytes: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(slot as usize)?.as_ref()
    }

    /// For what is not on disk: how an attempt stands with this instance.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize)?.as_mut()
    }

    pub fn slots(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        self.entries.iter().enumerate().filter_map(|(slot, entry)| Some((slot as Slot, entry.as_ref()?)))
    }

    fn find(&self, run: RunId, effect: EffectId) -> Option<Slot> {
        self.runs.get(&run)?.iter().copied().find(|slot| self.get(*slot).is_some_and(|entry| entry.effect == effect))
    }

    /// Puts an entry in that is not there.
    pub(super) fn insert(&mut self, mut entry: Entry) -> Slot {
        self.generation = self.generation.wrapping_add(1);
        entry.generation = self.generation;
        let run = entry.run;
        self.request_bytes += entry.request.as_ref().map_or(0, |request| request.bytes());
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot as usize] = Some(entry);
                slot
            }
            None => {
                self.entries.push(Some(entry));
                (self.entries.len() - 1) as Slot
            }
        };
        self.runs.entry(run).or_default().push(slot);
        slot
    }

    fn remove(&mut self, slot: Slot, changes: &mut Vec<Change>) {
        let Some(entry) = self.entries.get_mut(slot as usize).and_then(Option::take) else { return };
        self.free.push(slot);
        self.request_bytes -= entry.request.as_ref().map_or(0, |request| request.bytes());
        if let Some(slots) = self.runs.get_mut(&entry.run) {
            slots.retain(|other| *other != slot);
            if slots.is_empty() {
                self.runs.remove(&entry.run);
            }
        }
        // What came and went between two flushes never reaches the disk.
        if entry.stored != Stored::default() {
            self.removed.entry(entry.partition).or_default().push((entry.tenant, entry.effect));
            self.dirty_bytes += 64;
        }
        withdraw(slot, &entry, changes);
    }

    fn touch(&mut self, slot: Slot) {
        let Some(entry) = self.entries.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        if !entry.dirty {
            entry.dirty = true;
            self.dirty.entry(entry.partition).or_default().push(slot);
            self.dirty_bytes += 256 + if entry.stored.request { 0 } else { entry.request.as_ref().map_or(0, |request| request.bytes()) };
        }
    }

    /// Takes a fact in. What was known of it already changes nothing.
    pub(super) fn apply(&mut self, key: &SubjectKey, partition: u32, at: Millis, run: RunId, told: Told<'_>, changes: &mut Vec<Change>) {
        match told {
            Told::EffectRequested { .. } => self.request(key, partition, at, run, told),
            Told::AttemptMinted { effect, attempt, look_up } => {
                let Some(slot) = self.find(run, effect) else { return };
                self.touch(slot);
                let Some(entry) = self.get_mut(slot) else { return };
                withdraw(slot, entry, changes);
                entry.open = Some(Open { attempt, look_up, standing: Standing::Waiting, asked_at: None });
                changes.push(Change::Opened(slot));
            }
            Told::EffectStarted { effect, attempt, executor } => {
                let is_mine = executor.parse() == Ok(self.me);
                let started = self.standing(run, effect, attempt, |standing| match standing {
                    Standing::Performed | Standing::Granted if is_mine => standing,
                    _ if is_mine => Standing::Started,
                    _ => Standing::Orphaned { permitted: false },
                });
                changes.extend(started.map(|slot| if is_mine { Change::Started(slot) } else { Change::Orphaned(slot) }));
            }
            Told::PermitGranted { effect, attempt, grant, to } => {
                let is_mine = grant.executor() == self.me;
                let granted = self.standing(run, effect, attempt, |standing| match standing {
                    Standing::Orphaned { .. } => Standing::Orphaned { permitted: true },
                    Standing::Started if is_mine => Standing::Granted,
                    standing => standing,
                });
                if let Some(slot) = granted.filter(|_| is_mine) {
                    changes.push(Change::Granted { slot, grant, to: to.into_owned() });
                }
            }
            // Refused for good, the step goes on without it.
            Told::PermitRefused { effect, retry_at: None, .. } => self.forget(run, effect, changes),
            Told::EffectCompleted { effect } | Told::EffectFailed { effect } => self.forget(run, effect, changes),
            Told::StepCancelled { effect: Some(effect) } => self.forget(run, effect, changes),
            Told::StepCancelled { effect: None } => {}
            Told::PermitRefused { effect, attempt, .. }
            | Told::AttemptFailed { effect, attempt }
            | Told::AttemptUnknown { effect, attempt }
            | Told::AttemptVoid { effect, attempt }
            | Told::LookedUp { effect, attempt } => self.close(run, effect, attempt, changes),
            Told::Redirected {} | Told::RunEnded {} => {
                for slot in self.runs.get(&run).cloned().unwrap_or_default() {
                    self.remove(slot, changes);
                }
            }
            Told::Notified { .. } => {}
            Told::RunPaused {} => self.pause(run, changes),
            Told::RunResumed {} => self.resume(run, changes),
        }
    }

    fn request(&mut self, key: &SubjectKey, partition: u32, at: Millis, run: RunId, told: Told<'_>) {
        let Told::EffectRequested { effect, workflow, node, by, target, input, timeout_ms, unknown, purpose, approved, priority } = told
        else {
            return;
        };
        if self.find(run, effect).is_some() {
            return;
        }
        let request = Request {
            subject: key.clone(),
            run,
            effect,
            workflow: workflow.into_owned(),
            node: node.into_owned(),
            by,
            target: target.into_owned(),
            input: input.to_owned(),
            timeout_ms,
            unknown,
            purpose: purpose.into_owned(),
            approved: approved.into_owned(),
            priority,
            requested_at: at,
        };
        let tenant = self.tenants.number(&key.tenant_str().into());
        let lane = self.lanes.number(&(by, request.target.as_str().into()));
        let entry = Entry {
            run,
            effect,
            tenant,
            lane,
            partition,
            generation: 0,
            by,
            unknown,
            priority,
            paused: false,
            open: None,
            request: Some(Arc::new(request)),
            stored: Stored::default(),
            dirty: false,
        };
        let slot = self.insert(entry);
        self.touch(slot);
    }

    /// Changes how the open attempt stands, if it is that one.
    fn standing(&mut self, run: RunId, effect: EffectId, attempt: u32, change: impl FnOnce(Standing) -> Standing) -> Option<Slot> {
        let slot = self.find(run, effect)?;
        let open = self.get_mut(slot)?.open.as_mut().filter(|open| open.attempt == attempt)?;
        open.standing = change(open.standing);
        self.touch(slot);
        Some(slot)
    }

    fn close(&mut self, run: RunId, effect: EffectId, attempt: u32, changes: &mut Vec<Change>) {
        let Some(slot) = self.find(run, effect) else { return };
        let Some(entry) = self.get_mut(slot) else { return };
        if entry.open.is_some_and(|open| open.attempt == attempt) {
            withdraw(slot, entry, changes);
            entry.open = None;
            self.touch(slot);
        }
    }

    fn forget(&mut self, run: RunId, effect: EffectId, changes: &mut Vec<Change>) {
        if let Some(slot) = self.find(run, effect) {
            self.remove(slot, changes);
        }
    }

    fn pause(&mut self, run: RunId, changes: &mut Vec<Change>) {
        for slot in self.runs.get(&run).cloned().unwrap_or_default() {
            self.touch(slot);
            let Some(entry) = self.get_mut(slot) else { continue };
            entry.paused = true;
            // A start that is not on record by now is refused: it is asked for again when the run goes on. A permit is given back.
            let standing = match entry.open.map(|open| open.standing) {
                Some(Standing::Asked) => Standing::Waiting,
                Some(Standing::Granted) => Standing::Performed,
                _ => continue,
            };
            withdraw(slot, entry, changes);
            entry.open.as_mut().expect("looked at just now").standing = standing;
        }
    }

    fn resume(&mut self, run: RunId, changes: &mut Vec<Change>) {
        for slot in self.runs.get(&run).cloned().unwrap_or_default() {
            self.touch(slot);
            let Some(entry) = self.get_mut(slot) else { continue };
            entry.paused = false;
            if entry.open.is_some_and(|open| open.standing == Standing::Waiting) {
                changes.push(Change::Opened(slot));
            }
        }
    }

    /// Counts the open attempt as one that may have been performed.
    pub(super) fn orphan(&mut self, slot: Slot) {
        if let Some(open) = self.get_mut(slot).and_then(|entry| entry.open.as_mut()) {
            open.standing = Standing::Orphaned { permitted: true };
        }
        self.touch(slot);
    }

    pub fn request_bytes(&self) -> usize {
        self.request_bytes
    }

    pub fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// Its request, read from disk.
    pub fn loaded(&mut self, slot: Slot, request: Arc<Request>) {
        let bytes = request.bytes();
        if let Some(entry) = self.get_mut(slot).filter(|entry| entry.request.is_none()) {
            entry.request = Some(request);
            self.request_bytes += bytes;
        }
    }

    /// Lets go of a request that is on disk and that nobody is about to perform.
    pub fn unload(&mut self, slot: Slot) {
        let Some(entry) = self.get_mut(slot) else { return };
        let is_idle = entry.open.is_none_or(|open| matches!(open.standing, Standing::Waiting | Standing::Performed));
        if entry.stored.request && is_idle {
            let bytes = entry.request.take().map_or(0, |request| request.bytes());
            self.request_bytes -= bytes;
        }
    }

    /// What changed in a partition since it was last asked: slots, and what is gone.
    pub(super) fn take_dirty(&mut self, partition: u32) -> (Vec<Slot>, Vec<(u32, EffectId)>) {
        let mut slots = self.dirty.remove(&partition).unwrap_or_default();
        slots.retain(|slot| self.get(*slot).is_some_and(|entry| entry.dirty && entry.partition == partition));
        slots.sort_unstable();
        slots.dedup();
        slots.iter().for_each(|slot| self.get_mut(*slot).expect("looked at just now").dirty = false);
        if self.dirty.is_empty() {
            self.dirty_bytes = 0;
        }
        (slots, self.removed.remove(&partition).unwrap_or_default())
    }

    /// That did not reach the disk.
    pub(super) fn give_back(&mut self, partition: u32, slots: &[Slot], removed: Vec<(u32, EffectId)>) {
        slots.iter().for_each(|slot| self.touch(*slot));
        self.dirty_bytes += removed.len() * 64;
        self.removed.entry(partition).or_default().extend(removed);
    }
}

impl Entry {
    pub fn needs(&self) -> Option<Needs> {
        self.open.map(|open| Needs::of(self.by, self.unknown, open.look_up))
    }
}

/// The entry's open attempt is not to be performed any more.
fn withdraw(slot: Slot, entry: &Entry, changes: &mut Vec<Change>) {
    let Some(open) = entry.open else { return };
    changes.push(Change::Withdrawn { slot, open });
    if open.standing == Standing::Granted {
        let (effect, partition, request) = (entry.effect, entry.partition, entry.request.clone());
        changes.push(Change::Unused { effect, attempt: open.attempt, partition, request });
    }
}
