//! The profile processor: `events` into `profiles`, `segment_changes` and, where one person turns out to be another, `events` again.
//!
//! A shell around the pure cores (`features`, `models`, `segments`, `consent`): it keeps the people in memory or finds them in the store,
//! lets each record do its work in order, wakes those for whom time alone changes something, and writes each person once per commit.
//!
//! What an event does to a person depends on the person and the event alone, in event-time namespaces also when: a person's own
//! wake-ups up to an event's time run before it, so nothing depends on how far other partitions are.

mod broadcast;
mod deployed;
mod interest;
mod memo;
mod past;
mod person;
mod record;
mod records;
mod segments;
mod sweep;
mod view;
mod wakes;
mod written_again;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;

use self::deployed::Deployed;
use self::interest::{Heard, Interest, Interests};
use self::memo::Memo;
use self::person::Person;
pub use self::view::{Owned, people};
use super::cache::{Cache, Slot};
use super::definitions::{Library, NamespaceClock};
use super::fold::{Applied, Fault, Fold, Seal, Window};
use super::outputs::Outputs;
use super::progress::{Cursor, Progress, Watermark};
use super::topology::Topology;
use super::{Error, Options, Topic, Topics};
use crate::domain::{DeadReason, Digest, FilterReason, Incarnation, Millis, Offset, Outcome, PartitionId};
use crate::log::RecordRef;
use crate::schema;
use crate::schema::records::EventsRecord;
use crate::state::{Flush, StateStore, Stored, Table, Upto, Wake};

/// The name under which it commits.
pub const STAGE: &str = "profiles";

/// Raised when the bytes of `profiles`, `segment_changes` or absorbs can change for the same events: a new feature, another rounding.
pub const FOLD_VERSION: u32 = 2;

/// What a person is taken to cost in memory before they were ever encoded; and per encoded byte, decoded.
const FRESH_BYTES: usize = 1200;
const DECODED_PER_ENCODED: usize = 3;

pub struct ProfileFold {
    store: Arc<dyn StateStore>,
    library: Arc<Library>,
    topics: Topics,
    partition: PartitionId,
    clock: NamespaceClock,
    /// The most people of one tick or sweep that a commit holds; less than `wakes_per_commit_max` after one that was too large.
    wakes_per_commit: usize,
    wakes_per_commit_max: usize,
    /// What a commit should hold: see [`Options::output_bytes_max`].
    output_bytes_max: usize,
    table: Table,
    cache: Cache<Person>,
    /// Who is to be stored.
    dirty: Vec<Slot>,
    dirty_bytes: usize,
    /// Who is to be written to `profiles`.
    touched: Vec<Slot>,
    /// The largest mean size that a commit's profile records have had lately.
    record_bytes: usize,
    /// The prepared batch's people; `None` for records without a key.
    batch: Vec<Option<Slot>>,
    memo: Memo,
    deployed: Deployed,
    interests: Interests,
    /// What folds records before the first activation.
    initial: Digest,
    undo: Option<Undo>,
    writes_again: bool,
    scratch: Vec<u8>,
    /// Entries of the index that nobody wants, as a flush that was cut leaves behind.
    leftover: Vec<Wake>,
    incarnation: Incarnation,
    /// Up to here everything is stored, as far as this fold knows: of what was read no more than this is to be expected.
    stored: Upto,
    /// The record at hand.
    at: Offset,
}

/// As it was before the record at hand.
#[derive(Default)]
struct Undo {
    person: Option<(Slot, Person)>,
    memo: Memo,
    dirty: usize,
    dirty_bytes: usize,
    touched: usize,
}

/// What a profile fold needs to know beside its surroundings.
pub struct Setup {
    pub partition: PartitionId,
    pub clock: NamespaceClock,
    pub library: Arc<Library>,
    pub initial: Arc<Topology>,
    /// Records of `profiles` or of what they came from were lost: states built again are to be written again, everyone's.
    pub writes_again: bool,
}

/// What a profile record is taken to be before the first one is written.
const RECORD_BYTES_GUESS: usize = 1024;
/// How fast what a large one taught is forgotten: by this part of it with every commit.
const RECORD_BYTES_DECAY: usize = 8;

impl ProfileFold {
    pub fn new(store: Arc<dyn StateStore>, topics: Topics, options: &Options, setup: Setup) -> Self {
        let mut memo = Memo::begin();
        let deployed = Deployed::resume(Arc::clone(&setup.initial), &mut memo);
        Self {
            store,
            library: setup.library,
            topics,
            partition: setup.partition,
            clock: setup.clock,
            wakes_per_commit: options.wakes_per_commit_max.max(1),
            wakes_per_commit_max: options.wakes_per_commit_max.max(1),
            output_bytes_max: options.output_bytes_max,
            table: Table(Arc::from("")),
            cache: Cache::new(options.cache_bytes_max),
            dirty: Vec::new(),
            dirty_bytes: 0,
            touched: Vec::new(),
            record_bytes: RECORD_BYTES_GUESS,
            batch: Vec::new(),
            memo,
            deployed,
            interests: Interests::default(),
            initial: setup.initial.digest,
            undo: None,
            writes_again: setup.writes_again,
            scratch: Vec::new(),
            leftover: Vec::new(),
            incarnation: Incarnation(0),
            stored: Upto::default(),
            at: Offset(0),
        }
    }

    /// People in memory, and about how many bytes they take.
    pub fn cached(&self) -> (usize, usize) {
        (self.cache.len(), self.cache.bytes())
    }

    /// The person's slot, read from the store if need be.
    fn load(&mut self, key: &[u8], stored: Option<&Stored>) -> Result<Slot, Error> {
        if let Some(slot) = self.cache.find(key) {
            return Ok(slot);
        }
        let read;
        let stored = match stored {
            Some(stored) => Some(stored),
            None => {
                read = self.store.get_many(&self.table, &[key])?.pop().flatten();
                read.as_ref()
            }
        };
        let (person, bytes) = self.decode(stored)?;
        Ok(self.cache.insert(Bytes::copy_from_slice(key), person, bytes))
    }

    /// Somebody of whom nothing is stored.
    fn fresh(&mut self, key: &[u8]) -> Slot {
        let found = self.cache.find(key);
        found.unwrap_or_else(|| self.cache.insert(Bytes::copy_from_slice(key), Person::default(), FRESH_BYTES))
    }

    fn decode(&self, stored: Option<&Stored>) -> Result<(Person, usize), Error> {
        let Some(Stored { state, upto }) = stored else { return Ok((Person::default(), FRESH_BYTES)) };
        let mut person = Person::decode(state)?;
        person.ahead = (*upto > self.stored).then(|| Box::new(upto.clone()));
        Ok((person, state.len() * DECODED_PER_ENCODED))
    }

    /// Whether the person's state holds what the record at hand does to them, up to this place within it: as after a flush that was cut.
    pub(super) fn holds(&self, slot: Slot, cursor: Option<Cursor>) -> bool {
        let Some(ahead) = &self.cache.get(slot).ahead else { return false };
        ahead.next > self.at || (ahead.next == self.at && **ahead >= Progress { next: self.at, cursor }.upto(self.incarnation))
    }

    fn mark_dirty(&mut self, slot: Slot) {
        let person = self.cache.get_mut(slot);
        if !person.is_dirty {
            person.is_dirty = true;
            self.dirty.push(slot);
            self.dirty_bytes += FRESH_BYTES / 2;
        }
    }

    fn mark_touched(&mut self, slot: Slot) {
        self.mark_dirty(slot);
        let person = self.cache.get_mut(slot);
        if !person.is_touched {
            person.is_touched = true;
            self.touched.push(slot);
        }
    }

    /// Writes one person; a panic in a feature or model costs that person's record, not everyone's.
    fn write_or_skip(&mut self, slot: Slot, out: &mut Outputs) -> Result<(), Error> {
        let place = out.place(Topic::Profiles, self.partition);
        match catch_unwind(AssertUnwindSafe(|| self.write_profile(slot, out))) {
            Ok(written) => written,
            Err(_) => {
                out.back_to(Topic::Profiles, self.partition, place);
                tracing::error!(partition = self.partition.0, "a profile could not be written: one of its features or scores panicked");
                super::metrics::panicked(&self.topics.namespace, "write");
                Ok(())
            }
        }
    }

    /// Whether the commit at hand has as much to write as one should hold: people differ in size, so counting them is not enough.
    fn is_commit_full(&self, out: &Outputs) -> bool {
        out.bytes() + self.unsealed_bytes() >= self.output_bytes_max
    }

    /// What the workflows in force and the runs of those before want to hear.
    fn listen(&mut self) -> Result<(), Error> {
        let heard = match self.memo.heard() {
            Some(heard) => heard,
            None => self.heard_before()?,
        };
        let known = |digests: &mut dyn Iterator<Item = Digest>| -> Result<Vec<_>, Error> {
            digests.map(|digest| self.library.workflow(digest)).collect()
        };
        let everyones = known(&mut self.memo.workflows())?;
        let mut interests = Interests { everyones: Interest::of(&heard, everyones.iter().map(Arc::as_ref)), ..Interests::default() };
        for (tenant, own, heard_by_own) in self.memo.of_tenants() {
            let own = known(&mut own.into_iter())?;
            let interest = Interest::of(&heard.and(heard_by_own), everyones.iter().chain(&own).map(Arc::as_ref));
            interests.of_tenants.insert(tenant.to_owned(), interest);
        }
        self.interests = interests;
        self.memo.set_heard(heard);
        Ok(())
    }

    /// For a memo of before it was kept: of every workflow that the namespace was given. Those that come into force later than the memo, or
    /// never did, are told of to nobody's harm.
    fn heard_before(&self) -> Result<Heard, Error> {
        let mut heard = Heard::default();
        for workflow in self.library.workflows()? {
            heard.add(&workflow);
        }
        Ok(heard)
    }

    /// Brings a topology into force.
    fn switch(&mut self, digest: Digest) -> Result<(), Error> {
        let topology = self.library.get(digest)?;
        self.deployed = Deployed::switch(topology, &mut self.memo);
        Ok(())
    }
}

/// The table of one partition of the fold.
pub fn table(topics: &Topics, partition: PartitionId, incarnation: Incarnation) -> Table {
    Table(format!("{}.profiles.{partition}.i{incarnation}", topics.namespace).into())
}

impl Fold for ProfileFold {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn input(&self) -> (Topic, PartitionId) {
        (Topic::Events, self.partition)
    }

    fn version(&self) -> u32 {
        FOLD_VERSION
    }

    fn table(&self, incarnation: Incarnation) -> Table {
        table(&self.topics, self.partition, incarnation)
    }

    fn restore(&mut self, stored: Option<&Watermark>, _: &Bytes, incarnation: Incarnation) -> Result<(), Error> {
        self.cache.clear();
        self.dirty.clear();
        self.touched.clear();
        self.batch.clear();
        self.dirty_bytes = 0;
        self.undo = None;
        self.table = table(&self.topics, self.partition, incarnation);
        self.incarnation = incarnation;
        self.leftover.clear();
        self.stored = stored.map_or(Upto::new(incarnation, Offset(0)), |watermark| watermark.progress.upto(incarnation));
        match stored {
            Some(watermark) => self.memo = Memo::decode(&watermark.memo, watermark.progress.next)?,
            None => {
                // Also tables of other incarnations: their positions mean nothing in this one.
                let prefix = format!("{}.profiles.{}.i", self.topics.namespace, self.partition);
                for table in self.store.tables()? {
                    if table.0.starts_with(&prefix) {
                        self.store.drop_table(&table)?;
                    }
                }
                self.memo = Memo::begin();
                if self.writes_again {
                    self.memo.write_again();
                }
            }
        }
        let digest = self.memo.in_force().unwrap_or(self.initial);
        let topology = self.library.get(digest)?;
        self.deployed = Deployed::resume(topology, &mut self.memo);
        self.listen()
    }

    fn take_less(&mut self) -> bool {
        let can = self.wakes_per_commit > 1;
        self.wakes_per_commit = (self.wakes_per_commit / 2).max(1);
        can
    }

    fn go_live(&mut self, _: Offset) -> Result<bool, Error> {
        Ok(self.memo.begin_again())
    }

    fn prepare(&mut self, records: &[RecordRef<'_>]) -> Result<(), Error> {
        self.cache.evict(|person| !person.is_dirty && !person.is_touched);
        self.batch.clear();
        let mut missing: Vec<(Slot, &[u8])> = Vec::new();
        for record in records {
            if record.key.is_empty() {
                self.batch.push(None);
                continue;
            }
            let slot = match self.cache.find(record.key) {
                Some(slot) => slot,
                None => {
                    let slot = self.cache.insert(Bytes::copy_from_slice(record.key), Person::default(), FRESH_BYTES);
                    missing.push((slot, record.key));
                    slot
                }
            };
            self.batch.push(Some(slot));
        }
        // In key order, neighbours lie in the same block.
        missing.sort_unstable_by_key(|(_, key)| *key);
        let keys: Vec<&[u8]> = missing.iter().map(|(_, key)| *key).collect();
        for ((slot, _), state) in missing.iter().zip(self.store.get_many(&self.table, &keys)?) {
            if state.is_some() {
                let (person, bytes) = self.decode(state.as_ref())?;
                *self.cache.get_mut(*slot) = person;
                self.cache.set_bytes(*slot, bytes);
            }
        }
        Ok(())
    }

    fn apply(&mut self, at: usize, record: &RecordRef<'_>, window: Window<'_>, out: &mut Outputs) -> Result<Applied, Error> {
        let slot = self.batch[at];
        self.at = record.offset;
        if self.undo.is_some() {
            let person = slot.map(|slot| (slot, self.cache.get(slot).clone()));
            let (dirty, dirty_bytes, touched) = (self.dirty.len(), self.dirty_bytes, self.touched.len());
            self.undo = Some(Undo { person, memo: self.memo.clone(), dirty, dirty_bytes, touched });
        }
        let decoded = match schema::decode::<EventsRecord<'_>>(record.value.unwrap_or_default()) {
            Ok(decoded) => decoded,
            Err(error) => return Ok(Applied::Rejected(Fault::new(crate::domain::DeadReason::Undecodable, error.to_string()))),
        };
        match (decoded, slot) {
            (EventsRecord::Tick(tick), _) => self.tick(&tick, window, out),
            (EventsRecord::Activated(activated), _) => self.activated(&activated, window, out),
            (EventsRecord::Broadcast(broadcast), _) => self.broadcast(&broadcast, window, out),
            (decoded, Some(slot)) => {
                let origin = decoded.redriven_from();
                let is_wanted = origin.is_none_or(|origin| self.memo.wants_copy_of(origin.offset as u64));
                // Stored with a later position than its table's watermark, which stores without whole flushes may leave behind. The memo is
                // not, so what it hears of the record it hears again.
                let person = self.cache.get_mut(slot);
                let is_ahead = person.ahead.as_ref().is_some_and(|ahead| record.offset < ahead.next);
                if is_ahead || record.offset < person.applied {
                    if person.refused.contains(&record.offset) {
                        self.memo.refuse(record.offset);
                    }
                    return Ok(Applied::Done(Outcome::Applied));
                }
                person.applied = record.offset.next();
                if !is_wanted {
                    return Ok(Applied::Done(Outcome::Duplicate));
                }
                let value = record.value.unwrap_or_default();
                self.record(slot, decoded, value, out)
            }
            (_, None) => {
                let detail = "a record about a person has no key".to_owned();
                Ok(Applied::Rejected(Fault::new(crate::domain::DeadReason::Undecodable, detail)))
            }
        }
    }

    fn set_careful(&mut self, careful: bool) {
        self.undo = careful.then(Undo::default);
    }

    fn refused(&mut self, record: &RecordRef<'_>, _: DeadReason, out: &mut Outputs) -> Result<(), Error> {
        let Ok(decoded) = schema::decode::<EventsRecord<'_>>(record.value.unwrap_or_default()) else { return Ok(()) };
        if record.key.is_empty() || matches!(decoded, EventsRecord::Tick(_) | EventsRecord::Activated(_) | EventsRecord::Broadcast(_)) {
            return Ok(());
        }
        self.memo.refuse(record.offset);
        let slot = self.load(record.key, None)?;
        let stored = self.stored.next;
        let person = self.cache.get_mut(slot);
        person.refused.retain(|offset| *offset >= stored);
        person.refused.push(record.offset);
        self.mark_dirty(slot);
        match self.go_on_after(slot, &decoded, out) {
            // Such as under a key that is none: there is nobody to tell.
            Err(Error::Record(_)) => Ok(()),
            gone_on => gone_on,
        }
    }

    fn undo(&mut self) {
        let Some(undo) = self.undo.take() else { return };
        self.undo = Some(Undo::default());
        self.memo = undo.memo;
        for slot in self.dirty.split_off(undo.dirty.min(self.dirty.len())) {
            self.cache.get_mut(slot).is_dirty = false;
        }
        for slot in self.touched.split_off(undo.touched.min(self.touched.len())) {
            self.cache.get_mut(slot).is_touched = false;
        }
        self.dirty_bytes = undo.dirty_bytes;
        if let Some((slot, person)) = undo.person {
            *self.cache.get_mut(slot) = person;
        }
    }

    fn unsealed_bytes(&self) -> usize {
        self.touched.len() * self.record_bytes
    }

    fn has_news(&self, _: &Seal) -> bool {
        self.memo.written_again().is_some()
    }

    fn seal(&mut self, _: &Seal, out: &mut Outputs) -> Result<(), Error> {
        let before = out.bytes();
        let touched = std::mem::take(&mut self.touched);
        for slot in &touched {
            self.cache.get_mut(*slot).is_touched = false;
            if !out.is_silent() {
                self.write_or_skip(*slot, out)?;
            }
        }
        if let Some(mean) = (out.bytes() - before).checked_div(touched.len()).filter(|_| !out.is_silent()) {
            // One heavy person makes the next few commits small, not all there ever will be.
            self.record_bytes = mean.max(self.record_bytes - self.record_bytes / RECORD_BYTES_DECAY).max(1);
        }
        self.touched = touched;
        self.touched.clear();
        if !out.is_silent() {
            self.write_again(out)?;
        }
        Ok(())
    }

    fn time(&self) -> Millis {
        self.memo.time()
    }

    fn next_due(&self) -> Result<Option<Millis>, Error> {
        self.first_due()
    }

    fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    fn flush(&mut self, watermark: Watermark) -> Result<(), Error> {
        let upto = watermark.progress.upto(self.incarnation);
        let mut flush = Flush { upto: upto.clone(), wakes_cleared: std::mem::take(&mut self.leftover), ..Flush::default() };
        let dirty = std::mem::take(&mut self.dirty);
        for slot in &dirty {
            self.refresh_wake(*slot);
            let key = self.cache.key(*slot).clone();
            let person = self.cache.get_mut(*slot);
            self.scratch.clear();
            person.encode(&mut self.scratch);
            if person.wake != person.wake_stored {
                flush.wakes_cleared.extend(person.wake_stored.map(|due| Wake { due, key: key.clone() }));
                flush.wakes_set.extend(person.wake.map(|due| Wake { due, key: key.clone() }));
            }
            flush.states.push((key, Some(Bytes::copy_from_slice(&self.scratch))));
            let bytes = self.scratch.len() * DECODED_PER_ENCODED;
            self.cache.set_bytes(*slot, bytes);
        }
        let watermark = Watermark { memo: self.memo.encode().into(), ..watermark };
        flush.watermark = Some(watermark.encode());
        flush.states.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if let Err(error) = self.store.flush(&self.table, flush) {
            // Refused, as on a full disk: they are stored with the next flush.
            self.dirty = dirty;
            return Err(error.into());
        }
        for slot in dirty {
            let person = self.cache.get_mut(slot);
            person.is_dirty = false;
            person.wake_stored = person.wake;
        }
        self.stored = self.stored.clone().max(upto);
        self.dirty_bytes = 0;
        // What was too large is behind us. Not before: a commit that starts over must come back to the smaller parts.
        self.wakes_per_commit = self.wakes_per_commit_max;
        Ok(())
    }

    fn message_id(&self, record: &RecordRef<'_>) -> String {
        match schema::decode::<EventsRecord<'_>>(record.value.unwrap_or_default()) {
            Ok(EventsRecord::Event(event)) => event.message_id.to_owned(),
            _ => String::new(),
        }
    }
}

/// How a record of the platform itself is counted.
const CONTROL: Applied = Applied::Done(Outcome::Filtered(FilterReason::Control));
