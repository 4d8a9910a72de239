//! The intake processor: `intake` into `events` and `identities`, with the time that everything behind it lives by.
//!
//! A shell around the pure cores `intake` and `identity`: it finds the key's state and whether the message was applied before, lets the
//! core decide, and writes what it decided. What arrived before is never looked at again, so this fold's state may be built again from
//! what `intake` still keeps, plus the ties in `identities`.

mod dedup;
mod emit;
mod feeders;
mod in_force;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::dedup::{Asked, Dedup, MessageHash, day_of};
use self::feeders::Feeders;
use self::in_force::InForce;
use super::cache::{Cache, Slot};
use super::definitions::{self, Library, NamespaceClock};
use super::fold::{Applied, Fault, Fold, Seal, Window};
use super::outputs::Outputs;
use super::progress::Watermark;
use super::topology::Topology;
use super::{Error, Options, Topic, Topics};
use crate::domain::{DeadReason, Digest, FilterReason, Incarnation, Millis, Offset, Outcome, PartitionId, SubjectKey};
use crate::intake::{self, Item, KeyState, Rules, Seen, decide};
use crate::log::{LogReader, RecordRef};
use crate::schema::records::{IdentityRecord, IntakeItem, IntakeRecord, Origin, Tick};
use crate::schema::{self, records::EventsRecord};
use crate::state::{Flush, StateStore, Table};

/// The name under which it commits.
pub(super) const STAGE: &str = "intake";

/// Raised when the bytes of `events` can change for the same `intake`.
pub const FOLD_VERSION: u32 = 1;

/// What a key is taken to cost in memory; most have a handful of ties or none.
const KEY_BYTES: usize = 120;
const FETCH_BYTES: usize = 4 << 20;

pub struct IntakeFold {
    store: Arc<dyn StateStore>,
    log: Arc<dyn LogReader>,
    library: Arc<Library>,
    topics: Topics,
    partition: PartitionId,
    clock: NamespaceClock,
    incarnation: Incarnation,
    table: Table,
    keys: Cache<Key>,
    dirty: Vec<Slot>,
    dedup: Dedup,
    /// The prepared batch; `None` for records that cannot be asked about.
    batch: Vec<Option<Prepared>>,
    rules: Rules,
    /// Which topology's rules were in force from which offset on.
    in_force: InForce,
    memo: Memo,
    /// What is in force from the first record on that was not folded before.
    current: Arc<Topology>,
    undo: Option<Undo>,
    hold: Cell<Hold>,
    feeders: Feeders,
}

/// Whether time is held: what it waits for, and up to where the definitions were looked through for it.
#[derive(Debug, Clone, Copy)]
enum Hold {
    No,
    Until { released: Incarnation, looked: Offset },
}

#[derive(Default, Clone)]
struct Key {
    state: KeyState,
    is_dirty: bool,
    is_stored: bool,
    /// Records below this are in the state: more than its table's watermark says after a flush that was cut.
    holds: Offset,
}

#[derive(Clone, Copy)]
struct Prepared {
    slot: Slot,
    message: Asked,
    stored: Option<Offset>,
}

/// Kept in the watermark.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Memo {
    /// The newest time stated to `events`.
    time: Option<i64>,
    /// The topology whose settings were in force. Believed only where the log does not say it, as before its marks did.
    in_force: Option<String>,
    /// Built again when part of `intake` was gone: of a key that it does not know it cannot say that nothing was sent before.
    #[serde(default)]
    has_gaps: bool,
    /// The newest time that each decoder has stated, by its partition of `inbox`.
    #[serde(default)]
    inbox: BTreeMap<i32, i64>,
}

#[derive(Default)]
struct Undo {
    key: Option<(Slot, Key)>,
    dirty: usize,
    time: Option<i64>,
}

/// What an intake fold needs to know beside its surroundings.
pub struct Setup {
    pub partition: PartitionId,
    pub clock: NamespaceClock,
    pub library: Arc<Library>,
    pub current: Arc<Topology>,
    /// In wall time: no time is stated before an operator has released this incarnation.
    pub held: Option<Incarnation>,
}

impl IntakeFold {
    pub fn new(
        store: Arc<dyn StateStore>,
        log: Arc<dyn LogReader>,
        topics: Topics,
        options: &Options,
        setup: Setup,
    ) -> Result<Self, Error> {
        let rules = rules(&setup.current, setup.clock)?;
        let hold = setup.held.filter(|_| setup.clock == NamespaceClock::Wall);
        let hold = hold.map_or(Hold::No, |released| Hold::Until { released, looked: Offset(0) });
        let dedup = Dedup::new(Arc::clone(&store), &topics.namespace, setup.partition);
        let feeders = Feeders::of(topics.count(Topic::Inbox));
        Ok(Self {
            store,
            log,
            library: setup.library,
            topics,
            partition: setup.partition,
            clock: setup.clock,
            incarnation: Incarnation(0),
            table: Table(Arc::from("")),
            keys: Cache::new(options.cache_bytes_max / 4),
            dirty: Vec::new(),
            dedup,
            batch: Vec::new(),
            rules,
            in_force: InForce::default(),
            memo: Memo::default(),
            current: setup.current,
            undo: None,
            hold: Cell::new(hold),
            feeders,
        })
    }

    /// The ties of every key of this partition, from their own topic.
    fn load_ties(&mut self) -> Result<(), Error> {
        let partition = self.topics.partition(Topic::Identities, self.partition);
        let bounds = self.log.watermarks(partition)?;
        let mut from = bounds.start;
        while from < bounds.end {
            let fetched = self.log.fetch(partition, from, FETCH_BYTES)?;
            for record in fetched.records() {
                let Some(value) = record.value else { continue };
                let known: IdentityRecord = schema::decode(value)?;
                let ties = known.ties.iter().map(|tie| (tie.user_id.as_str(), Millis(tie.from)));
                let state = KeyState::with_ties(ties);
                let slot = match self.keys.find(record.key) {
                    Some(slot) => slot,
                    None => self.keys.insert(Bytes::copy_from_slice(record.key), Key::default(), KEY_BYTES),
                };
                self.keys.get_mut(slot).state = state;
                self.mark_dirty(slot);
            }
            from = fetched.next;
        }
        Ok(())
    }

    /// Decides by this topology's rules from here on.
    fn switch(&mut self, digest: Digest) -> Result<(), Error> {
        let topology = if digest == self.current.digest { Arc::clone(&self.current) } else { self.library.get(digest)? };
        self.rules = rules(&topology, self.clock)?;
        self.memo.in_force = Some(digest.to_hex());
        Ok(())
    }

    fn mark_dirty(&mut self, slot: Slot) {
        let key = self.keys.get_mut(slot);
        if !key.is_dirty {
            key.is_dirty = true;
            self.dirty.push(slot);
        }
    }

    fn item(&mut self, prepared: Prepared, record: &RecordRef<'_>, item: &IntakeItem<'_>, out: &mut Outputs) -> Result<Applied, Error> {
        let Ok(key) = SubjectKey::from_bytes(Bytes::copy_from_slice(record.key)) else { return Ok(bad_key()) };
        let subject = key.subject();
        let asked = Item {
            key_id: subject.id(),
            key_is_user: subject.is_user(),
            source: item.source,
            message_id: item.message_id,
            received_at: Millis(item.received_at),
            sent_at: item.sent_at.map(Millis),
            route: item.route,
            remote_ip: item.remote_ip,
            user_agent: item.user_agent,
            historical: item.historical,
            body: item.body,
            batch: item.batch,
        };
        let was_applied = self.dedup.is_duplicate(prepared.message, prepared.stored, record.offset);
        let seen = if was_applied { Seen::Applied } else { Seen::No };
        // What the state holds already is decided beside it, for its mark: marks are in other tables.
        let key_state = self.keys.get_mut(prepared.slot);
        let is_held = record.offset < key_state.holds;
        let mut beside = if is_held { key_state.state.clone() } else { KeyState::default() };
        let state = if is_held { &mut beside } else { &mut key_state.state };
        let decision = decide(state, &asked, seen, &self.rules);
        if let Outcome::DeadLettered(reason) = decision.outcome {
            return Ok(Applied::Rejected(Fault::new(reason, decision.detail)));
        }
        if decision.outcome == Outcome::Applied {
            self.dedup.mark(prepared.message, record.offset);
        }
        if decision.outcome != Outcome::Duplicate && !is_held {
            self.mark_dirty(prepared.slot);
        }
        let incarnation = self.incarnation.0 as i32;
        let origin = Origin { incarnation, partition: self.partition.0 as i32, offset: record.offset.0 as i64 };
        emit::outputs(decision.outputs, &key.tenant(), item, origin, out)?;
        Ok(Applied::Done(decision.outcome))
    }

    /// Says to every `events` partition how late it is.
    fn state_time(&mut self, time: Millis, out: &mut Outputs) -> Result<(), Error> {
        self.memo.time = Some(time.0);
        self.feeders.told();
        let tick =
            Tick { feeder: self.partition.0 as i32, feeders: self.topics.count(Topic::Intake) as i32, time: time.0, by_operator: false };
        for id in self.topics.partitions(Topic::Events) {
            out.push_to(Topic::Events, id.partition, b"", time, &EventsRecord::Tick(tick.clone()))?;
        }
        Ok(())
    }

    /// Whether this log is a copy and nobody has said yet that the original is no longer in use: its timers are not to fire twice.
    fn is_held(&self) -> bool {
        let Hold::Until { released, looked } = self.hold.get() else { return false };
        let partition = self.topics.partition(Topic::Definitions, PartitionId(0));
        let look = || {
            let end = self.log.watermarks(partition)?.end;
            let is_released = end > looked && definitions::released(&*self.log, &self.topics)? >= Some(released);
            Ok::<_, Error>((end, is_released))
        };
        match look() {
            Ok((_, true)) => {
                tracing::info!(namespace = %self.topics.namespace, partition = self.partition.0, "an operator let time pass again");
                self.hold.set(Hold::No);
                false
            }
            Ok((end, false)) => {
                self.hold.set(Hold::Until { released, looked: end });
                true
            }
            // Whatever is wrong with the log shows where it is read for more than this.
            Err(_) => true,
        }
    }

    /// The time to state now, if there is a newer one than the last: its own, or that of the decoder that is furthest behind.
    fn time_to_state(&self, seal: &Seal) -> Option<Millis> {
        let is_due = seal.tick_due || self.feeders.have_all_spoken();
        if self.clock == NamespaceClock::Event || !is_due || self.is_held() {
            return None;
        }
        let own = seal.end_asked.max(seal.folded)?;
        Some(own.min(self.feeders.time(&self.memo.inbox)?)).filter(|time| *time > self.time())
    }
}

fn rules(topology: &Topology, clock: NamespaceClock) -> Result<Rules, Error> {
    let clock = match clock {
        NamespaceClock::Wall => intake::Clock::Wall,
        NamespaceClock::Event => intake::Clock::Event,
    };
    let bad = |detail: String| Error::BadDefinition { digest: topology.digest.to_hex(), detail };
    Rules::new(&topology.intake, clock).map_err(|error| bad(error.to_string()))
}

fn is_anonymous(key: &[u8]) -> bool {
    SubjectKey::from_bytes(Bytes::copy_from_slice(key)).is_ok_and(|key| !key.subject().is_user())
}

fn bad_key() -> Applied {
    Applied::Rejected(Fault::new(DeadReason::Undecodable, "the record's key is not that of a subject"))
}

impl Fold for IntakeFold {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn input(&self) -> (Topic, PartitionId) {
        (Topic::Intake, self.partition)
    }

    fn version(&self) -> u32 {
        FOLD_VERSION
    }

    fn keeps_account(&self) -> bool {
        true
    }

    fn outlives_its_input(&self) -> bool {
        true
    }

    fn table(&self, incarnation: Incarnation) -> Table {
        Table(format!("{}.intake.{}.i{incarnation}", self.topics.namespace, self.partition).into())
    }

    fn restore(&mut self, stored: Option<&Watermark>, marked: &Bytes, incarnation: Incarnation) -> Result<(), Error> {
        self.incarnation = incarnation;
        self.table = self.table(incarnation);
        self.keys.clear();
        self.dirty.clear();
        self.batch.clear();
        self.undo = None;
        self.dedup.restore(incarnation, stored.is_some())?;
        self.memo = match stored {
            Some(watermark) => serde_json::from_slice(&watermark.memo)
                .map_err(|error| Error::Corrupt { what: "an intake table's memo".into(), detail: error.to_string() })?,
            None => Memo::default(),
        };
        if stored.is_none() {
            let prefix = format!("{}.intake.{}.i", self.topics.namespace, self.partition);
            for table in self.store.tables()?.into_iter().filter(|table| table.0.starts_with(&prefix)) {
                self.store.drop_table(&table)?;
            }
            let input = self.topics.partition(Topic::Intake, self.partition);
            self.memo.has_gaps = self.log.watermarks(input)?.start > Offset(0);
            self.load_ties()?;
        }
        let of_before = self.memo.in_force.as_deref().and_then(Digest::from_hex);
        self.in_force = InForce::restore(marked, of_before)?;
        let next = stored.map_or(Offset(0), |stored| stored.progress.next);
        match self.in_force.at(next) {
            Some(digest) => self.switch(digest),
            None => self.switch(self.current.digest),
        }
    }

    /// New settings hold from here on; what is re-read was decided under those before. The commit says so, not the stored state.
    fn go_live(&mut self, next: Offset) -> Result<bool, Error> {
        let input = self.topics.partition(Topic::Intake, self.partition);
        if self.in_force.newest() != Some(self.current.digest) {
            self.in_force.add(next, self.current.digest, self.log.watermarks(input)?.start);
            self.switch(self.current.digest)?;
        }
        Ok(false)
    }

    fn marked(&self) -> Bytes {
        self.in_force.encode()
    }

    fn prepare(&mut self, records: &[RecordRef<'_>]) -> Result<(), Error> {
        self.keys.evict(|key| !key.is_dirty);
        self.batch.clear();
        let mut missing: Vec<(Slot, &[u8])> = Vec::new();
        for record in records {
            let Ok(IntakeRecord::Item(item)) = schema::decode(record.value.unwrap_or_default()) else {
                self.batch.push(None);
                continue;
            };
            let slot = match self.keys.find(record.key) {
                Some(slot) => slot,
                None => {
                    let slot = self.keys.insert(Bytes::copy_from_slice(record.key), Key::default(), KEY_BYTES);
                    missing.push((slot, record.key));
                    slot
                }
            };
            let message = Asked { hash: MessageHash::of(record.key, item.message_id), day: day_of(record.append_time) };
            self.batch.push(Some(Prepared { slot, message, stored: None }));
        }
        missing.sort_unstable_by_key(|(_, key)| *key);
        let keys: Vec<&[u8]> = missing.iter().map(|(_, key)| *key).collect();
        for ((slot, key), state) in missing.iter().zip(self.store.get_many(&self.table, &keys)?) {
            if let Some(state) = state {
                let corrupt = |detail: String| Error::Corrupt { what: "a stored intake key".into(), detail };
                let key = self.keys.get_mut(*slot);
                key.state = KeyState::decode(&state.state).map_err(|error| corrupt(error.to_string()))?;
                (key.is_stored, key.holds) = (true, state.upto.next);
            } else if self.memo.has_gaps && is_anonymous(key) {
                self.keys.get_mut(*slot).state = KeyState::forgotten();
            }
        }
        let asked: Vec<Asked> = self.batch.iter().flatten().map(|prepared| prepared.message).collect();
        let stored = self.dedup.stored(&asked)?;
        for (prepared, stored) in self.batch.iter_mut().flatten().zip(stored) {
            prepared.stored = stored;
        }
        Ok(())
    }

    fn apply(&mut self, at: usize, record: &RecordRef<'_>, _: Window<'_>, out: &mut Outputs) -> Result<Applied, Error> {
        let prepared = self.batch[at];
        if let Some(digest) = self.in_force.begins_at(record.offset) {
            self.switch(digest)?;
        }
        self.dedup.begin_record();
        if self.undo.is_some() {
            let key = prepared.map(|prepared| (prepared.slot, self.keys.get(prepared.slot).clone()));
            self.undo = Some(Undo { key, dirty: self.dirty.len(), time: self.memo.time });
        }
        match schema::decode(record.value.unwrap_or_default()) {
            Err(error) => Ok(Applied::Rejected(Fault::new(DeadReason::Undecodable, error.to_string()))),
            Ok(IntakeRecord::Time(stated)) => {
                let time = Millis(stated.time);
                if self.clock == NamespaceClock::Event && time > self.time() {
                    self.state_time(time, out)?;
                }
                Ok(Applied::Done(Outcome::Filtered(FilterReason::Control)))
            }
            Ok(IntakeRecord::InboxTime(stated)) => {
                self.feeders.hear(&mut self.memo.inbox, stated.feeder, stated.time);
                Ok(Applied::Done(Outcome::Filtered(FilterReason::Control)))
            }
            Ok(IntakeRecord::Item(item)) => match prepared {
                Some(prepared) => self.item(prepared, record, &item, out),
                None => Ok(bad_key()),
            },
        }
    }

    fn set_careful(&mut self, careful: bool) {
        self.undo = careful.then(Undo::default);
    }

    fn undo(&mut self) {
        let Some(undo) = self.undo.replace(Undo::default()) else { return };
        self.dedup.undo();
        self.memo.time = undo.time;
        for slot in self.dirty.split_off(undo.dirty.min(self.dirty.len())) {
            self.keys.get_mut(slot).is_dirty = false;
        }
        if let Some((slot, key)) = undo.key {
            *self.keys.get_mut(slot) = key;
        }
    }

    fn unsealed_bytes(&self) -> usize {
        // The outcomes of what was not applied are small and written with it.
        0
    }

    fn has_news(&self, seal: &Seal) -> bool {
        self.time_to_state(seal).is_some()
    }

    fn seal(&mut self, seal: &Seal, out: &mut Outputs) -> Result<(), Error> {
        if let Some(time) = self.time_to_state(seal) {
            self.state_time(time, out)?;
        }
        Ok(())
    }

    fn time(&self) -> Millis {
        self.memo.time.map_or(Millis::MIN, Millis)
    }

    fn dirty_bytes(&self) -> usize {
        self.dirty.len() * KEY_BYTES + self.dedup.pending_bytes()
    }

    fn flush(&mut self, watermark: Watermark) -> Result<(), Error> {
        let upto = watermark.progress.upto(self.incarnation);
        self.dedup.flush(&upto)?;
        let mut flush = Flush { upto: upto.clone(), ..Flush::default() };
        for slot in &self.dirty {
            let key = self.keys.get(*slot);
            if key.state.is_empty() && !key.is_stored {
                continue;
            }
            let mut state = Vec::new();
            key.state.encode(&mut state);
            flush.states.push((self.keys.key(*slot).clone(), (!key.state.is_empty()).then(|| state.into())));
        }
        flush.states.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let memo = serde_json::to_vec(&self.memo).expect("plain data").into();
        flush.watermark = Some(Watermark { memo, ..watermark }.encode());
        self.store.flush(&self.table, flush)?;
        for slot in std::mem::take(&mut self.dirty) {
            let key = self.keys.get_mut(slot);
            (key.is_dirty, key.is_stored) = (false, !key.state.is_empty());
        }
        Ok(())
    }

    fn message_id(&self, record: &RecordRef<'_>) -> String {
        match schema::decode(record.value.unwrap_or_default()) {
            Ok(IntakeRecord::Item(item)) => item.message_id.to_owned(),
            _ => String::new(),
        }
    }
}
