//! Durable workflows: what a journey or a campaign is, and what happens to its runs.
//!
//! A workflow is written in TOML and checked as a whole ([`Definition::parse`]). A subject (a person, or a campaign) is one fold over its own
//! journal: [`decide`] turns inputs into facts, [`evolve`](evolve()) turns facts into state, both pure and total. So recovery is folding the
//! journal from the last snapshot, timers are the state's own ([`Subject::next_wake`]), and a test is the same code in virtual time.
//!
//! Effects are facts too: this module asks for them and takes their results; performing them, and permits, are others' work.

mod address;
mod approved;
mod calendar;
mod carry;
mod cases;
mod check;
mod codec;
mod context;
mod decide;
mod definition;
mod document;
mod draw;
mod drive;
mod evolve;
mod expression;
mod fact;
mod harness;
mod hears;
mod ids;
mod input;
mod isolate;
mod library;
mod packed;
mod places;
mod policy;
mod question;
mod schedule;
mod snapshot;
mod state;
mod story;
mod verify;
mod vocabulary;

#[cfg(test)]
mod tests;

pub use address::{
    ADDRESSES, HOLDERS_MAX, HeldBy, SOFT_BOUNCES, SOFT_BOUNCES_WITHIN_MS, SOFT_SUPPRESSED_MS, address_channel, address_key, address_left,
    address_subject, address_written,
};
pub use calendar::LocalTime;
pub use carry::Carry;
pub use cases::Case;
pub use check::warnings;
pub use codec::CodecError;
pub use context::{Clock, Context};
pub use decide::{DEPTH_MAX, RESULT_BYTES_MAX, apply, decide};
pub use definition::{AwaitedWhat, Definition, Effect, Entry, EntryBy, Errors, Kind, Node, OnError, Reenter};
pub use draw::{Drawing, draw};
pub use drive::{Driven, drive, drive_due};
pub use evolve::evolve;
pub use fact::{Fact, Parent, Visit, What};
pub use harness::{Verdict, run, test};
pub use ids::{CAMPAIGN, EMITTED, EffectId, RunId, chance};
pub use input::{Input, Outcome, Rejection};
pub use isolate::{ISOLATION, isolate};
pub use library::Library;
pub use places::Places;
pub use policy::{Policy, Rule, SHIPPED_POLICY};
pub use question::Provenance;
pub use schedule::{next_time, schedule_cause, stagger};
pub use snapshot::SNAPSHOT_VERSION;
pub use state::{Doing, HELD_MAX, Kept, Mark, Pending, Run, Step, Subject, Way};
pub use story::Story;
pub use verify::{Divergence, Verified};
pub use vocabulary::{Category, Ending, Performer, Settled, Severity, Skipped, Unknown};

/// The workflows that the binary carries, by name.
pub const SHIPPED: [(&str, &str); 2] = [
    ("winback", include_str!("../../topologies/workflows/winback.toml")),
    ("campaign_graph", include_str!("../../topologies/workflows/campaign_graph.toml")),
];
