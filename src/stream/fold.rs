//! What a partition loop asks of the fold it drives: deterministic, synchronous, one partition of one topic.
//!
//! The loop ([`super::worker`]) owns fetching, committing, recovery and when to flush; a fold owns its keys' states and what records do to
//! them. Nothing a fold makes may depend on where batches begin and end, except what [`Fold::seal`] writes once per commit.

use bytes::Bytes;

use crate::domain::{DeadReason, Incarnation, Millis, Offset, Outcome, PartitionId};
use crate::log::RecordRef;
use crate::state::Table;

use super::outputs::Outputs;
use super::progress::{Cursor, Watermark};
use super::{Error, Topic};

/// How one record ended, or that it has not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    Done(Outcome),
    /// It cannot be applied and changed nothing: the loop keeps it as a dead letter.
    Rejected(Fault),
    /// There is more to do under this record than one commit should hold; commit, then call again from this cursor.
    More(Cursor),
}

/// Which part of a record to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Window<'a> {
    /// Done before.
    pub after: Option<&'a Cursor>,
    /// Stop once this is done: a silent re-read must end where the last commit did.
    pub until: Option<&'a Cursor>,
}

/// What is known when a commit is put together.
#[derive(Debug, Clone, Copy)]
pub struct Seal {
    /// Append time of the last record folded, in this commit or before.
    pub folded: Option<Millis>,
    /// The moment just before the partition's end was asked for, where that end has been reached.
    pub end_asked: Option<Millis>,
    /// The time between ticks is over.
    pub tick_due: bool,
}

/// A record that could not be folded, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub reason: DeadReason,
    pub detail: String,
}

pub trait Fold: Send {
    /// The stage's name in dead letters, outcomes, metrics and the consumer group.
    fn stage(&self) -> &'static str;

    /// The topic it reads, and its partition.
    fn input(&self) -> (Topic, PartitionId);

    /// Raised only when the bytes this fold makes can change.
    fn version(&self) -> u32;

    /// True if the commit should carry an account of every record's outcome.
    fn keeps_account(&self) -> bool {
        false
    }

    /// True if what it needs to know of records that were trimmed is kept elsewhere, so that it can begin at the log's present start.
    fn outlives_its_input(&self) -> bool {
        false
    }

    /// True if its outputs hold all it must remember: [`restore`](Fold::restore) then reads what its stored states lack from there, and no
    /// record is ever folded twice.
    fn recovers_from_outputs(&self) -> bool {
        false
    }

    /// The table whose watermark stands for all that this fold stores.
    fn table(&self, incarnation: Incarnation) -> Table;

    /// Forgets everything in memory; goes on from what is stored (`None`: from nothing, after removing whatever is stored). `marked` is
    /// what [`marked`](Fold::marked) said in the last commit; nothing if there was none.
    fn restore(&mut self, stored: Option<&Watermark>, marked: &Bytes, incarnation: Incarnation) -> Result<(), Error>;

    /// Before records that were never folded, of which `next` is the first. True if its state is to be stored before any of them.
    fn go_live(&mut self, _next: Offset) -> Result<bool, Error> {
        Ok(false)
    }

    /// Goes into the log with each commit: whatever else than the records themselves decided what came of them. Stored states are not
    /// synced and may be lost at a crash, this is not.
    fn marked(&self) -> Bytes {
        Bytes::new()
    }

    /// A commit of one record, or part of one, was larger than the log takes: from now on stop with [`Applied::More`] earlier. False if
    /// that is not possible.
    fn take_less(&mut self) -> bool {
        false
    }

    /// How many of these records, from the first, can be folded now. What has to be asked of others is asked for here, without waiting: the
    /// loop comes back for the rest shortly.
    fn ready(&mut self, records: &[RecordRef<'_>]) -> Result<usize, Error> {
        Ok(records.len())
    }

    /// Why [`ready`](Fold::ready) does not let everything through.
    fn stalled(&self) -> Option<String> {
        None
    }

    /// Loads the states that these records need. Called once per batch, before any of it is applied.
    fn prepare(&mut self, records: &[RecordRef<'_>]) -> Result<(), Error>;

    /// Folds one record, `at` its place in the prepared batch. An error of the record itself comes back as [`Error::Record`].
    fn apply(&mut self, at: usize, record: &RecordRef<'_>, window: Window<'_>, out: &mut Outputs) -> Result<Applied, Error>;

    /// From now on (or no longer) able to [`undo`](Fold::undo) each record. Slow, so only around a record that failed.
    fn set_careful(&mut self, careful: bool);

    /// The record became a dead letter; whatever it did has been undone. What others wait for because of it is said here.
    fn refused(&mut self, _record: &RecordRef<'_>, _reason: DeadReason, _out: &mut Outputs) -> Result<(), Error> {
        Ok(())
    }

    /// Puts everything back as it was before the last record; only while careful.
    fn undo(&mut self);

    /// Writes what goes out once per commit. Must not change anything a later record depends on.
    fn seal(&mut self, seal: &Seal, out: &mut Outputs) -> Result<(), Error>;

    /// About how many bytes [`seal`](Fold::seal) would write now, so that a commit is cut before it is too large for an append.
    fn unsealed_bytes(&self) -> usize;

    /// Whether there is something for `seal` to say although nothing was folded.
    fn has_news(&self, seal: &Seal) -> bool;

    /// The time this fold has reached.
    fn time(&self) -> Millis;

    /// When time alone next changes something, as far as is known; asked only while nothing comes.
    fn next_due(&self) -> Result<Option<Millis>, Error> {
        Ok(None)
    }

    /// About how many bytes a flush would write.
    fn dirty_bytes(&self) -> usize;

    /// Stores everything, with the watermark (whose `memo` this fold fills in).
    fn flush(&mut self, watermark: Watermark) -> Result<(), Error>;

    /// The message id of a record, for the account of those that were not applied.
    fn message_id(&self, record: &RecordRef<'_>) -> String;
}

impl Fault {
    pub fn new(reason: DeadReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    pub(super) fn too_large(topic: Topic, len: usize) -> Self {
        Self::new(DeadReason::TooLarge, format!("what it makes for {} is {len} bytes long", topic.as_str()))
    }
}
