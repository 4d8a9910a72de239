//! A subject's state as bytes, so that recovery begins at the last snapshot and not at the first fact.
//!
//! Written every [`EVERY`] facts of a subject. Its size follows what is going on (runs, marks, effects that may still answer: each bounded in
//! `state`), so a run of a million facts recovers like one of ten.

use super::fact::{CodecError, decode};
use super::state::Subject;

/// Facts of one subject between snapshots: reading them back costs less than a millisecond.
pub const EVERY: u64 = 256;

const SNAPSHOT_VERSION: u8 = 1;

/// Whether a state is due to be written, when its last snapshot was at `last` facts.
pub fn is_due(state: &Subject, last: u64) -> bool {
    state.facts.saturating_sub(last) >= EVERY
}

impl Subject {
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.push(SNAPSHOT_VERSION);
        serde_json::to_writer(into, self).expect("a state is plain data with text keys, and a vector takes all bytes");
    }

    pub fn decode(bytes: &[u8]) -> Result<Subject, CodecError> {
        decode("snapshot", SNAPSHOT_VERSION, bytes)
    }
}
