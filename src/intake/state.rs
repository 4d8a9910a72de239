//! What intake remembers of one key, and its bytes. Which messages were applied is not here: it ages by day, in tables of its own.

use crate::identity::Ties;

const VERSION: u8 = 1;
const SENT_EVENTS: u8 = 1;
const INTERNAL: u8 = 2;
/// The historical bucket follows the other; written only where there is one.
const HISTORICAL: u8 = 4;

/// One key's memory. Empty for a user's key unless there is a flood limit or an internal e-mail domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyState {
    /// Whom this anonymous id belongs to.
    pub(super) ties: Ties,
    /// Events were sent to the anonymous subject, so that there is something to hand over.
    pub(super) sent_events: bool,
    /// The last e-mail address seen was one of the company's own.
    pub(super) internal: bool,
    /// When the flood bucket will be full again, in microseconds since 1970.
    pub(super) full_at_us: i64,
    /// The same of the bucket of historical imports.
    pub(super) historical_full_at_us: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("a stored intake state does not decode")]
    Broken,
    #[error("a stored intake state has version {0}, this build knows {VERSION}")]
    Version(u8),
}

impl KeyState {
    /// Whether it says no more than a key that was never seen.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Of an anonymous key whose records may be gone: events may have been sent, and handing over nothing does no harm.
    pub fn forgotten() -> Self {
        Self { sent_events: true, ..Self::default() }
    }

    /// What can be known of a key from `identities` alone, where the rest was lost: that it was tied, so events were sent before.
    pub fn with_ties<'t>(ties: impl Iterator<Item = (&'t str, crate::domain::Millis)>) -> Self {
        let mut state = Self::forgotten();
        for (user, from) in ties {
            state.ties.tie(user, from);
        }
        state
    }

    pub fn ties(&self) -> &Ties {
        &self.ties
    }

    /// Appends `version u8 | flags u8 | full_at_us i64 le | historical_full_at_us i64 le, if flagged | ties`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        let has_historical = self.historical_full_at_us != 0;
        let flags = [(self.sent_events, SENT_EVENTS), (self.internal, INTERNAL), (has_historical, HISTORICAL)];
        out.push(flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum());
        out.extend_from_slice(&self.full_at_us.to_le_bytes());
        if has_historical {
            out.extend_from_slice(&self.historical_full_at_us.to_le_bytes());
        }
        self.ties.encode(out);
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let (version, rest) = bytes.split_first().ok_or(StateError::Broken)?;
        if *version != VERSION {
            return Err(StateError::Version(*version));
        }
        let (flags, rest) = rest.split_first().ok_or(StateError::Broken)?;
        let (full_at, mut rest) = rest.split_first_chunk::<8>().ok_or(StateError::Broken)?;
        let mut historical_full_at_us = 0;
        if flags & HISTORICAL != 0 {
            let (full_at, after) = rest.split_first_chunk::<8>().ok_or(StateError::Broken)?;
            (historical_full_at_us, rest) = (i64::from_le_bytes(*full_at), after);
        }
        let ties = Ties::decode(&mut rest).map_err(|_| StateError::Broken)?;
        if !rest.is_empty() || flags & !(SENT_EVENTS | INTERNAL | HISTORICAL) != 0 {
            return Err(StateError::Broken);
        }
        let (sent_events, internal) = (flags & SENT_EVENTS != 0, flags & INTERNAL != 0);
        Ok(Self { ties, sent_events, internal, full_at_us: i64::from_le_bytes(*full_at), historical_full_at_us })
    }
}
