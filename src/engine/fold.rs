//! The workflow processor of one partition: each command is handed to its subject, and what that decides goes to the journal.
//!
//! On a wall clock silence is concluded at partition time, which the profile fold of the same partition states; a command is decided at the
//! time at which it was appended. In event time each command is decided at the time that it tells of, after the subject's own timers up to
//! then.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::library::{Definitions, InForce};
use super::subjects::Subjects;
use crate::domain::{DeadReason, FilterReason, Incarnation, MINUTE_MS, Millis, Offset, Outcome, PartitionId, SubjectKey};
use crate::log::{LogReader, RecordRef};
use crate::schema;
use crate::schema::records::{Activated, Command, CommandsRecord, CommandsTick, JournalFact, JournalRecord, JournalTime};
use crate::state::{StateStore, Table, Upto};
use crate::stream::{
    Applied, Cursor, Error, Fault, Fold, Library, NamespaceClock, Options, Outputs, Progress, Seal, Slot, Topic, Topics, Watermark, Window,
};
use crate::workflow::{self, Clock, Context, DEPTH_MAX, Driven, Input, Rejection, Subject};

/// Another one has every state built again from the journal: the first part is raised when a stored state means something else, the second
/// with how it is written.
pub const FOLD_VERSION: u32 = 1 << 8 | workflow::SNAPSHOT_VERSION as u32;

pub const STAGE: &str = "workflows";

/// What one decision may write: with a commit as full as commits may be, less than an append may hold.
const DECISION_BYTES_MAX: usize = 4 << 20;

/// How far a command's own time may be ahead of partition time and be believed: more than an idle partition's next tick, less than a clock
/// that is wrong could do harm with.
const AHEAD_MS_MAX: i64 = 5 * MINUTE_MS;

/// How a record of the platform itself is counted.
const CONTROL: Applied = Applied::Done(Outcome::Filtered(FilterReason::Control));

/// What the partition remembers beside its subjects; stored with them, and in the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memo {
    pub(super) time: Option<i64>,
    pub(super) in_force: InForce,
    /// The journal's offset up to which the stored states hold it.
    pub(super) journal: u64,
}

pub struct WorkflowFold {
    pub(super) log: Arc<dyn LogReader>,
    pub(super) topics: Topics,
    pub(super) partition: PartitionId,
    pub(super) clock: NamespaceClock,
    /// No operator has let time pass yet.
    is_held: bool,
    pub(super) subjects: Subjects,
    pub(super) memo: Memo,
    pub(super) definitions: Definitions,
    pub(super) flush_bytes_max: usize,
    pub(super) output_bytes_max: usize,
    pub(super) wakes_per_commit: usize,
    wakes_per_commit_max: usize,
    incarnation: Incarnation,
    /// The prepared batch's subjects; `None` for records without a key.
    batch: Vec<Option<Slot>>,
    undo: Option<Undo>,
}

/// As it was before the record at hand.
#[derive(Default)]
struct Undo {
    subject: Option<(Slot, Subject)>,
    memo: Memo,
}

/// What a workflow fold needs to know beside its surroundings.
pub struct Setup {
    pub partition: PartitionId,
    pub clock: NamespaceClock,
    pub library: Arc<Library>,
    /// The folder is a copy of another, and no operator has let time pass in it.
    pub is_held: bool,
}

impl WorkflowFold {
    pub fn new(store: Arc<dyn StateStore>, log: Arc<dyn LogReader>, topics: Topics, options: &Options, setup: Setup) -> Self {
        Self {
            definitions: Definitions::new(setup.library),
            log,
            topics,
            partition: setup.partition,
            clock: setup.clock,
            is_held: setup.is_held,
            subjects: Subjects::new(store, clock_of(setup.clock), options.cache_bytes_max / 4),
            memo: Memo::default(),
            flush_bytes_max: options.flush_bytes_max,
            output_bytes_max: options.output_bytes_max,
            wakes_per_commit: options.wakes_per_commit_max.max(1),
            wakes_per_commit_max: options.wakes_per_commit_max.max(1),
            incarnation: Incarnation(0),
            batch: Vec::new(),
            undo: None,
        }
    }

    pub(super) fn partition_time(&self) -> Millis {
        self.memo.time.map_or(Millis::MIN, Millis)
    }

    /// The time at which a command is decided. Partition time is behind by up to a tick, and of an idle partition by more: what begins with
    /// a command is counted from when it was appended.
    fn time_of(&self, at: Option<i64>, appended: Millis, slot: Slot) -> Millis {
        match self.clock {
            NamespaceClock::Wall => {
                let heard = self.partition_time();
                appended.clamp(heard, heard + AHEAD_MS_MAX)
            }
            // What carries no time happens now; answers have the time of what they answer, which the subject knows.
            NamespaceClock::Event => at.map_or_else(|| self.subjects.get(slot).subject.now.max(self.partition_time()), Millis),
        }
    }

    /// Nobody has stated a time yet, and nothing waits for one: the first command begins it.
    fn begin_time(&mut self, record: &RecordRef<'_>, out: &mut Outputs) -> Result<(), Error> {
        if self.memo.time.is_some() || self.clock == NamespaceClock::Event {
            return Ok(());
        }
        self.set_time(record.append_time, out)
    }

    fn set_time(&mut self, time: Millis, out: &mut Outputs) -> Result<(), Error> {
        self.memo.time = Some(time.0);
        self.journal(b"", time, &JournalRecord::Time(JournalTime { time: time.0 }), out)
    }

    fn journal(&self, key: &[u8], at: Millis, record: &JournalRecord<'_>, out: &mut Outputs) -> Result<(), Error> {
        out.push_to(Topic::Journal, self.partition, key, at, record)
    }

    fn command(&mut self, slot: Slot, command: &Command<'_>, record: &RecordRef<'_>, out: &mut Outputs) -> Result<Applied, Error> {
        let depth = u8::try_from(command.depth).unwrap_or(u8::MAX);
        if depth >= DEPTH_MAX {
            let detail = format!("it went through {depth} subjects, at most {DEPTH_MAX} are allowed: does a workflow start itself?");
            return Ok(Applied::Rejected(Fault::new(DeadReason::TooDeep, detail)));
        }
        let mut input: Input = match serde_json::from_str(command.body) {
            Ok(input) => input,
            Err(error) => {
                let detail = format!("a command of kind {:?}: {error}", command.kind);
                return Ok(Applied::Rejected(Fault::new(DeadReason::Undecodable, detail)));
            }
        };
        if let Input::EffectStarted { appended, .. } = &mut input {
            // What the executor's own clock said does not matter: a permit waits until partition time has reached this.
            *appended = record.append_time;
        }
        self.begin_time(record, out)?;
        let at = self.time_of(command.at, record.append_time, slot);
        match self.decide(slot, |subject, context| workflow::drive(subject, context, &input, at), out)? {
            None => Ok(Applied::Done(Outcome::Applied)),
            // It is not decided that it comes to nothing, only not now: so that the journal does not depend on how fast performers are.
            Some(held @ Rejection::TooMuchHeld(_)) => Ok(Applied::Rejected(Fault::new(
                DeadReason::TooMuchHeld,
                format!("{held}: an executor does not answer; send it again once it has"),
            ))),
            Some(rejection) => {
                tracing::debug!(partition = self.partition.0, offset = record.offset.0, kind = command.kind, %rejection, "command refused");
                Ok(Applied::Done(Outcome::Filtered(FilterReason::Refused)))
            }
        }
    }

    /// Lets one subject decide, writes its facts, and sends on what follows from them.
    pub(super) fn decide(
        &mut self,
        slot: Slot,
        decide: impl FnOnce(&mut Subject, Context<'_>) -> Driven,
        out: &mut Outputs,
    ) -> Result<Option<Rejection>, Error> {
        let key = SubjectKey::from_bytes(self.subjects.key(slot).clone())
            .map_err(|error| Error::Record(Fault::new(DeadReason::Undecodable, error.to_string())))?;
        let name = key.as_str().to_owned();
        let clock = clock_of(self.clock);
        let time = self.partition_time();
        let (library, policy) = (&self.definitions.library, self.definitions.policy_of(name.split('\0').next().unwrap_or_default()));
        // In event time everything before the time of a decision has come.
        let heard = if clock == Clock::Wall { time } else { Millis::MAX };
        let context = Context { subject: &name, library, policy, clock, is_held: self.is_held, heard };
        let subject = self.subjects.get_mut(slot);
        let Driven { mut facts, rejected } = decide(subject, context);
        if clock == Clock::Event && subject.next_wake(clock).is_some_and(|due| due <= time) {
            // What it waited for has come, so that its timers go on to where everybody else is.
            facts.extend(workflow::drive_due(subject, context, time).facts);
        }
        if facts.is_empty() {
            return Ok(rejected);
        }
        self.subjects.changed(slot);
        let before = out.bytes();
        for fact in &facts {
            if out.bytes() - before > DECISION_BYTES_MAX {
                let detail = format!("what it comes to is more than {DECISION_BYTES_MAX} bytes");
                return Err(Error::Record(Fault::new(DeadReason::TooLarge, detail)));
            }
            let (run, body) = fact.parts();
            let record = JournalRecord::Fact(JournalFact { at: fact.at.0, run: &run, body: &body });
            self.journal(key.as_bytes(), fact.at, &record, out)?;
            self.send_on(slot, &key, fact, out)?;
        }
        Ok(rejected)
    }

    fn activated(&mut self, activated: &Activated<'_>, out: &mut Outputs) -> Result<Applied, Error> {
        let before = self.memo.in_force.clone();
        if !self.memo.in_force.hear(activated) {
            return Ok(CONTROL);
        }
        match self.definitions.follow(&self.memo.in_force) {
            Ok(()) => {}
            Err(error @ (Error::UnknownDefinition { .. } | Error::BadDefinition { .. })) => {
                self.memo.in_force = before;
                self.definitions.follow(&self.memo.in_force)?;
                return Ok(Applied::Rejected(Fault::new(DeadReason::Undecodable, error.to_string())));
            }
            Err(error) => return Err(error),
        }
        self.journal(b"", Millis(activated.from), &JournalRecord::Activated(activated.clone()), out)?;
        Ok(CONTROL)
    }

    fn tick(&mut self, tick: CommandsTick, window: Window<'_>, out: &mut Outputs) -> Result<Applied, Error> {
        let time = Millis(tick.time);
        if window.after.is_none() {
            if time <= self.partition_time() {
                return Ok(CONTROL);
            }
            let before = self.partition_time();
            self.set_time(time, out)?;
            self.is_held = false;
            self.start_scheduled(before, out)?;
        }
        self.wake_all(window, out).map(|cursor: Option<Cursor>| cursor.map_or(CONTROL, Applied::More))
    }

    fn memo_bytes(&mut self) -> Result<Bytes, Error> {
        let partition = self.topics.partition(Topic::Journal, self.partition);
        // Everything that was handed in is durable when states are stored.
        self.memo.journal = self.log.watermarks(partition)?.end.0;
        Ok(self.memo.encode().into())
    }

    /// How far the states are: a subject's is made of the journal, and of nothing else.
    fn upto(&self) -> Upto {
        Upto::new(self.incarnation, Offset(self.memo.journal))
    }

    /// Stores what was read from the journal so far, so that memory stays bounded however long it is.
    pub(super) fn store_recovered(&mut self) -> Result<(), Error> {
        let watermark = Watermark {
            incarnation: self.incarnation,
            fold_version: FOLD_VERSION,
            // Before whatever is committed, so that it is trusted.
            progress: Progress::default(),
            memo: self.memo.encode().into(),
        };
        let upto = self.upto();
        self.subjects.flush(upto, watermark.encode())
    }
}

fn clock_of(clock: NamespaceClock) -> Clock {
    match clock {
        NamespaceClock::Wall => Clock::Wall,
        NamespaceClock::Event => Clock::Event,
    }
}

/// The table of one partition of the fold.
pub fn table(topics: &Topics, partition: PartitionId, incarnation: Incarnation) -> Table {
    Table(format!("{}.{STAGE}.{partition}.i{incarnation}", topics.namespace).into())
}

impl Fold for WorkflowFold {
    fn stage(&self) -> &'static str {
        STAGE
    }

    fn input(&self) -> (Topic, PartitionId) {
        (Topic::Commands, self.partition)
    }

    fn version(&self) -> u32 {
        FOLD_VERSION
    }

    fn recovers_from_outputs(&self) -> bool {
        true
    }

    fn table(&self, incarnation: Incarnation) -> Table {
        table(&self.topics, self.partition, incarnation)
    }

    fn restore(&mut self, stored: Option<&Watermark>, _: &Bytes, incarnation: Incarnation) -> Result<(), Error> {
        self.incarnation = incarnation;
        self.subjects.begin(table(&self.topics, self.partition, incarnation));
        self.batch.clear();
        self.undo = None;
        match stored {
            Some(watermark) => self.memo = Memo::decode(&watermark.memo)?,
            None => {
                self.subjects.drop_tables(&format!("{}.{STAGE}.{}.i", self.topics.namespace, self.partition))?;
                self.memo = Memo::default();
            }
        }
        self.read_journal()?;
        self.definitions.follow(&self.memo.in_force)
    }

    fn take_less(&mut self) -> bool {
        let can = self.wakes_per_commit > 1;
        self.wakes_per_commit = (self.wakes_per_commit / 2).max(1);
        can
    }

    fn prepare(&mut self, records: &[RecordRef<'_>]) -> Result<(), Error> {
        self.subjects.evict();
        self.batch = self.subjects.load(records.iter().map(|record| record.key))?;
        Ok(())
    }

    fn apply(&mut self, at: usize, record: &RecordRef<'_>, window: Window<'_>, out: &mut Outputs) -> Result<Applied, Error> {
        let slot = self.batch[at];
        if self.undo.is_some() {
            let subject = slot.map(|slot| (slot, self.subjects.get(slot).subject.clone()));
            self.undo = Some(Undo { subject, memo: self.memo.clone() });
        }
        let decoded = match schema::decode::<CommandsRecord<'_>>(record.value.unwrap_or_default()) {
            Ok(decoded) => decoded,
            Err(error) => return Ok(Applied::Rejected(Fault::new(DeadReason::Undecodable, error.to_string()))),
        };
        match (decoded, slot) {
            (CommandsRecord::Tick(tick), _) => self.tick(tick, window, out),
            (CommandsRecord::Activated(activated), _) => self.activated(&activated, out),
            (CommandsRecord::Command(command), Some(slot)) => self.command(slot, &command, record, out),
            (CommandsRecord::Command(_), None) => {
                let detail = "a command to a subject has no key".to_owned();
                Ok(Applied::Rejected(Fault::new(DeadReason::Undecodable, detail)))
            }
        }
    }

    fn set_careful(&mut self, careful: bool) {
        self.undo = careful.then(Undo::default);
    }

    fn refused(&mut self, record: &RecordRef<'_>, reason: DeadReason, out: &mut Outputs) -> Result<(), Error> {
        // Only of what failed while it was decided a run may be the cause.
        if !matches!(reason, DeadReason::Panicked | DeadReason::TooLarge) {
            return Ok(());
        }
        let Ok(CommandsRecord::Command(command)) = schema::decode::<CommandsRecord<'_>>(record.value.unwrap_or_default()) else {
            return Ok(());
        };
        let Ok(input) = serde_json::from_str::<Input>(command.body) else { return Ok(()) };
        let Some(slot) = self.subjects.load(std::iter::once(record.key))?.pop().flatten() else { return Ok(()) };
        let at = self.time_of(command.at, record.append_time, slot);
        self.set_aside(slot, &input, at, out)
    }

    fn undo(&mut self) {
        let Some(undo) = self.undo.take() else { return };
        self.undo = Some(Undo::default());
        self.memo = undo.memo;
        if let Some((slot, subject)) = undo.subject {
            self.subjects.put_back(slot, subject);
        }
    }

    fn unsealed_bytes(&self) -> usize {
        0
    }

    fn has_news(&self, _: &Seal) -> bool {
        false
    }

    fn seal(&mut self, _: &Seal, _: &mut Outputs) -> Result<(), Error> {
        Ok(())
    }

    fn time(&self) -> Millis {
        self.partition_time()
    }

    fn next_due(&self) -> Result<Option<Millis>, Error> {
        let due = self.subjects.first_due(self.partition_time())?;
        Ok(due.into_iter().chain(self.next_scheduled()).min())
    }

    fn dirty_bytes(&self) -> usize {
        self.subjects.dirty_bytes()
    }

    fn flush(&mut self, watermark: Watermark) -> Result<(), Error> {
        let memo = self.memo_bytes()?;
        let upto = self.upto();
        self.subjects.flush(upto, Watermark { memo, ..watermark }.encode())?;
        self.wakes_per_commit = self.wakes_per_commit_max;
        Ok(())
    }

    fn message_id(&self, _: &RecordRef<'_>) -> String {
        String::new()
    }
}
