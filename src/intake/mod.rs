//! What becomes of one event: its JSON read and judged, its time corrected, whose it is decided. The first fold of the spine, pure.
//!
//! [`decide`] ends every record as exactly one outcome and says why. It sees one key's state and one record; what was applied before
//! ([`Seen`]) it is told. Leaves bytes, positions and topics to `stream`, which maps [`Output`]s to records, and the features of a person
//! to the profile fold. `docs/intake.md` lists what is accepted and every reason for what is not.

pub mod arrive;
mod bots;
mod clock;
mod decide;
mod event;
mod filter;
mod ids;
mod json;
mod key;
mod members;
pub mod scan;
mod settings;
mod state;
mod text;

#[cfg(test)]
mod shapes;
#[cfg(test)]
mod tests;

pub use decide::decide;
pub use event::{Event, Kind};
pub use key::{derived_message_id, key_of};
pub use settings::{Bots, Clock, Flood, Internal, Rules, Settings, SettingsError};
pub use state::{KeyState, StateError};

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::domain::{Millis, Outcome, Subject};

/// One event as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'a> {
    /// Whose state this is decided on: the record's key. An anonymous id while the event has one, else a user id.
    pub key_id: &'a str,
    pub key_is_user: bool,
    pub source: &'a str,
    pub message_id: &'a str,
    pub received_at: Millis,
    /// The batch's `sentAt`, else the event's own.
    pub sent_at: Option<Millis>,
    /// The type that the route said; empty for batches.
    pub route: &'a str,
    pub remote_ip: &'a str,
    pub user_agent: &'a str,
    /// Part of a historical import: a flood limit of its own.
    pub historical: bool,
    /// One event's JSON.
    pub body: &'a str,
    /// `{"context":..,"integrations":..}` of its batch; empty if none.
    pub batch: &'a str,
}

/// Whether a message of this key and id was applied before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    No,
    Applied,
}

/// How a record ended and what it sends, in order.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "every record's outcome is counted"]
pub struct Decision<'a> {
    pub outcome: Outcome,
    /// What exactly is wrong and what to do about it; empty when applied.
    pub detail: Cow<'static, str>,
    pub outputs: SmallVec<[Output<'a>; 1]>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Output<'a> {
    /// To `subject`'s key in `events`.
    Event { subject: Subject, event: Event<'a> },
    /// To the anonymous id's key in `events`, before any event that follows from the tie.
    Handover { anonymous_id: String, user_id: String, at: Millis },
    /// To the user's key in `events`, before any event that follows from the tie.
    Expect { anonymous_id: String, user_id: String, at: Millis },
    /// To `identities`: all ties of this id, oldest first.
    IdentityChanged { anonymous_id: String, ties: Vec<(String, Millis)> },
}
