//! The records of each topic as Rust sees them. Borrowed where a fold reads them by the million.
//!
//! Field names are the Avro field names, variant names those of the records in a topic's union; neither ever changes meaning. A new field
//! comes with a new version, a default in the schema and the same `serde(default)` here, so that older bytes go on reading.

use serde::{Deserialize, Serialize};

/// `intake`: what arrived, as it arrived. Keyed by the intake key; the record's timestamp is the receive time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum IntakeRecord<'a> {
    #[serde(borrow, rename = "IntakeItem")]
    Item(IntakeItem<'a>),
    /// An importer states that everything before `time` has been sent (event-time namespaces only); one to every partition.
    #[serde(rename = "TimeStatement")]
    Time(TimeStatement),
    /// A decoder says how far it is with its partition of `inbox`; one to every partition.
    #[serde(rename = "InboxTime")]
    InboxTime(InboxTime),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IntakeItem<'a> {
    pub source: &'a str,
    pub message_id: &'a str,
    /// True when the client sent none and the gateway derived it from the body.
    pub message_id_derived: bool,
    pub received_at: i64,
    /// The batch's `sentAt`, else the event's own.
    pub sent_at: Option<i64>,
    /// The route's type (`track`, ...) for single-event routes; empty for batches, whose events carry their own.
    pub route: &'a str,
    pub remote_ip: &'a str,
    pub user_agent: &'a str,
    /// A historical import says that it is one.
    pub historical: bool,
    /// One event's JSON, untouched.
    pub body: &'a str,
    /// The batch's `context` and `integrations` as `{"context":..,"integrations":..}`, to be merged under the event's own; empty if none.
    pub batch: &'a str,
    /// Set when this is a dead letter sent again: the position it first had.
    pub redriven_from: Option<Origin>,
    /// Of an event that a workflow emitted: how many runs stand behind it, each begun by what the one before emitted. None before version 2.
    #[serde(default)]
    pub depth: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeStatement {
    pub time: i64,
}

/// Time for one `intake` partition: everything that arrived before it in this partition of `inbox` has been decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxTime {
    /// The inbox partition that says so.
    pub feeder: i32,
    pub feeders: i32,
    pub time: i64,
}

/// A position in `intake` (or another source topic) that a record came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    pub incarnation: i32,
    pub partition: i32,
    pub offset: i64,
}

/// `events`: everything a profile fold reads. Keyed by subject, except control records, which have an empty key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum EventsRecord<'a> {
    #[serde(borrow)]
    Event(EventBody<'a>),
    /// To an anonymous subject: send what you have to this user, keep a forwarding mark.
    #[serde(borrow)]
    Handover(Handover<'a>),
    /// To a user: an absorb from this anonymous id is on its way.
    #[serde(borrow)]
    Expect(Expect<'a>),
    /// To a user: what the anonymous profile had. Marked as derived: a replay with other features uses its own fold instead.
    #[serde(borrow)]
    Absorb(Absorb<'a>),
    Tick(Tick),
    #[serde(borrow)]
    Activated(Activated<'a>),
    #[serde(borrow)]
    Ask(Ask<'a>),
    #[serde(borrow)]
    Broadcast(Broadcast<'a>),
}

impl EventsRecord<'_> {
    /// The position in `events` that this is a copy of the record at; nothing if it is none.
    pub fn redriven_from(&self) -> Option<Origin> {
        match self {
            EventsRecord::Event(event) => event.redriven_from,
            EventsRecord::Handover(handover) => handover.redriven_from,
            EventsRecord::Expect(expect) => expect.redriven_from,
            EventsRecord::Absorb(absorb) => absorb.redriven_from,
            EventsRecord::Ask(ask) => ask.redriven_from,
            EventsRecord::Tick(_) | EventsRecord::Activated(_) | EventsRecord::Broadcast(_) => None,
        }
    }

    /// Marks it as a copy of the record at this position; false for what is about nobody, which is never sent again.
    pub fn redrive_from(&mut self, origin: Origin) -> bool {
        let mark = match self {
            EventsRecord::Event(event) => &mut event.redriven_from,
            EventsRecord::Handover(handover) => &mut handover.redriven_from,
            EventsRecord::Expect(expect) => &mut expect.redriven_from,
            EventsRecord::Absorb(absorb) => &mut absorb.redriven_from,
            EventsRecord::Ask(ask) => &mut ask.redriven_from,
            EventsRecord::Tick(_) | EventsRecord::Activated(_) | EventsRecord::Broadcast(_) => return false,
        };
        *mark = Some(origin);
        true
    }

    /// When it happened, for those about somebody.
    pub fn at(&self) -> i64 {
        match self {
            EventsRecord::Event(event) => event.event_time,
            EventsRecord::Handover(handover) => handover.at,
            EventsRecord::Expect(expect) => expect.at,
            EventsRecord::Absorb(absorb) => absorb.at,
            EventsRecord::Tick(tick) => tick.time,
            EventsRecord::Activated(activated) => activated.from,
            EventsRecord::Ask(ask) => ask.at,
            EventsRecord::Broadcast(broadcast) => broadcast.at,
        }
    }
}

/// A validated, deduplicated, identity-resolved event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventBody<'a> {
    pub message_id: &'a str,
    /// track, identify, page, screen, group, alias.
    pub kind: &'a str,
    /// The event's name; for page and screen their name; for the rest the kind.
    pub name: &'a str,
    /// Clamped to the receive time and skew-corrected as semantics.md says.
    pub event_time: i64,
    pub received_at: i64,
    pub user_id: &'a str,
    pub anonymous_id: &'a str,
    pub source: &'a str,
    pub historical: bool,
    /// JSON object: `properties` of track, page, screen; `traits` of identify and group; empty if none.
    pub properties: &'a str,
    /// JSON object: `context`, the batch's merged under the event's; empty if none.
    pub context: &'a str,
    /// Where in `intake` it came from: an event and every copy of it have the same.
    pub origin: Origin,
    /// Set on a copy, sent again after the fold refused the record at this position of `events`. Nothing before version 2.
    #[serde(default)]
    pub redriven_from: Option<Origin>,
    /// As an intake item's. None before version 6.
    #[serde(default)]
    pub depth: i32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Handover<'a> {
    pub anonymous_id: &'a str,
    pub user_id: &'a str,
    pub at: i64,
    pub origin: Origin,
    /// As an event's. Nothing before version 3.
    #[serde(default)]
    pub redriven_from: Option<Origin>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expect<'a> {
    pub anonymous_id: &'a str,
    pub user_id: &'a str,
    pub at: i64,
    pub origin: Origin,
    /// As an event's. Nothing before version 3.
    #[serde(default)]
    pub redriven_from: Option<Origin>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Absorb<'a> {
    pub anonymous_id: &'a str,
    pub user_id: &'a str,
    pub at: i64,
    pub fold_version: i32,
    /// The anonymous profile's encoded state.
    #[serde(with = "serde_bytes_slice")]
    pub state: &'a [u8],
    /// As an event's. Nothing before version 3.
    #[serde(default)]
    pub redriven_from: Option<Origin>,
    /// The last events that workflows wait for or have as goals, encoded. Nothing before version 6.
    #[serde(default, with = "serde_bytes_slice")]
    pub past: &'a [u8],
}

/// Time for one `events` partition: what its feeder knows to be complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// The intake partition that says so.
    pub feeder: i32,
    pub feeders: i32,
    pub time: i64,
    /// An operator says so in its place, since it has stopped. Never before version 2.
    #[serde(default)]
    pub by_operator: bool,
}

/// From `from` on, definitions of this kind and name mean this digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Activated<'a> {
    pub kind: &'a str,
    pub name: &'a str,
    pub digest: &'a str,
    pub from: i64,
    /// For whose subjects only; empty: for everyone's.
    #[serde(default)]
    pub tenant: &'a str,
}

/// To a user: say what your profile is now, as an `answer` command to the same subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ask<'a> {
    pub run: &'a str,
    /// Names of features, scores and `traits.NAME`.
    #[serde(borrow)]
    pub fields: Vec<&'a str>,
    pub at: i64,
    /// As an event's.
    #[serde(default)]
    pub redriven_from: Option<Origin>,
}

/// To every member of a segment: begin a run, each at a time of its own within the throttle. One in each partition; an empty key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Broadcast<'a> {
    /// Whoever says it twice says it once: with the subject it is what a run is caused by.
    pub id: &'a str,
    pub tenant: &'a str,
    pub workflow: &'a str,
    pub segment: &'a str,
    pub throttle_ms: i64,
    /// JSON object: what each run begins with.
    pub entry: &'a str,
    pub at: i64,
}

/// `commands`: everything a workflow fold reads. Keyed by subject, except control records, which have an empty key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum CommandsRecord<'a> {
    #[serde(borrow)]
    Command(Command<'a>),
    #[serde(rename = "Tick")]
    Tick(CommandsTick),
    #[serde(borrow)]
    Activated(Activated<'a>),
}

/// Something that happens to one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command<'a> {
    pub kind: &'a str,
    /// The time it tells of; none for effect results and what people ask for.
    pub at: Option<i64>,
    /// How many subjects it went through.
    pub depth: i32,
    /// JSON object, by kind.
    pub body: &'a str,
}

/// Time for one `commands` partition, from the profile fold that feeds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandsTick {
    pub time: i64,
}

/// `journal`: everything a workflow fold has decided. Keyed by subject, except control records, which have an empty key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum JournalRecord<'a> {
    #[serde(borrow)]
    Fact(JournalFact<'a>),
    Time(JournalTime),
    #[serde(borrow)]
    Activated(Activated<'a>),
}

/// One decision. What it says is `workflow::Fact`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalFact<'a> {
    pub at: i64,
    /// Empty for what belongs to the subject.
    pub run: &'a str,
    /// JSON object with one member, named by the fact's kind.
    pub body: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalTime {
    pub time: i64,
}

/// `identities`, keyed by the anonymous subject's key, compacted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityRecord {
    /// Oldest first.
    pub ties: Vec<Tie>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tie {
    pub user_id: String,
    pub from: i64,
}

/// `segment_changes`, keyed by subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentChange<'a> {
    pub segment: &'a str,
    pub digest: &'a str,
    pub entered: bool,
    pub at: i64,
    /// The message whose event caused it; empty when time did.
    pub cause: &'a str,
    /// Caused by an event that was more than 24 hours old on receipt: true of the person, and no reason to start anything today.
    #[serde(default)]
    pub late: bool,
}

/// `corrections`, keyed by subject: what a late event changed about the past that others may have acted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CorrectionsRecord<'a> {
    #[serde(borrow)]
    SessionsJoined(SessionsJoined<'a>),
}

/// Two sessions that had been told apart are one: there is none any more that starts at `second_start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsJoined<'a> {
    pub first_start: i64,
    pub second_start: i64,
    /// The late event's own time, and its message.
    pub at: i64,
    pub cause: &'a str,
}

/// `definitions`, keyed by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition<'a> {
    pub kind: &'a str,
    pub name: &'a str,
    pub digest: &'a str,
    /// The canonical text that the digest is of.
    pub body: &'a str,
    /// Whose it is; empty: of the whole namespace.
    #[serde(default)]
    pub tenant: &'a str,
    /// A file named at start says so, and not somebody who published it.
    #[serde(default)]
    pub from_file: bool,
    /// What it is for, which is no part of its text.
    #[serde(default)]
    pub about: &'a str,
    /// When it was said, in milliseconds; 0 where nobody knows.
    #[serde(default)]
    pub at: i64,
    /// Who said so, as they stated it.
    #[serde(default)]
    pub by: &'a str,
}

/// `dead_letters`, keyed as the source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter<'a> {
    pub topic: &'a str,
    pub origin: Origin,
    pub stage: &'a str,
    pub reason: &'a str,
    /// What exactly is wrong and what to do about it.
    pub detail: &'a str,
    pub message_id: &'a str,
    pub at: i64,
    #[serde(with = "serde_bytes_slice")]
    pub value: &'a [u8],
    /// Of a foreign producer's record, as `log::Headers` encodes them. Nothing before version 2.
    #[serde(default, with = "serde_bytes_slice")]
    pub headers: &'a [u8],
}

/// `schemas`: what foreign producers register. Numbers are given by the fold of the topic, see `schema::subjects`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum SchemasRecord<'a> {
    #[serde(borrow)]
    Registered(Registered<'a>),
    Configured(Configured<'a>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered<'a> {
    pub tenant: &'a str,
    pub subject: &'a str,
    /// Avro schema as JSON, as it was sent.
    pub schema: &'a str,
    /// How many changes the tenant had made when this one was checked; at another number it has no effect.
    pub revision: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured<'a> {
    pub tenant: &'a str,
    /// Empty: of all subjects without a level of their own.
    pub subject: &'a str,
    /// Empty: no level of its own any more.
    pub compatibility: &'a str,
    pub revision: i64,
}

/// `outcomes`, one per intake commit: the tally, and every record that was not applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchOutcomes {
    pub stage: String,
    pub partition: i32,
    pub from_offset: i64,
    pub to_offset: i64,
    pub at: i64,
    pub records: i64,
    pub applied: i64,
    pub duplicate: i64,
    pub filtered: i64,
    pub dead_lettered: i64,
    pub control: i64,
    pub exceptions: Vec<RecordOutcome>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordOutcome {
    pub offset: i64,
    pub message_id: String,
    pub kind: String,
    pub reason: String,
    /// Whose record it was; empty if its key does not say, and before version 2.
    #[serde(default)]
    pub tenant: String,
}

/// Byte slices as Avro `bytes`, borrowed both ways.
mod serde_bytes_slice {
    use serde::{Deserializer, Serializer, de::Visitor};

    pub fn serialize<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'de [u8], D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = &'de [u8];
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<&'de [u8], E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_bytes(Borrowed)
    }
}
