//! The name of an event type with its hash, so that looking a type up compares numbers and reads text only where they agree.

use std::fmt;
use std::ops::Deref;

use xxhash_rust::xxh3::xxh3_64;

/// Orders and compares as its text does.
#[derive(Clone, PartialEq, Eq)]
pub struct EventName {
    // First: two names that differ nearly always differ here.
    hash: u64,
    text: Box<str>,
}

impl EventName {
    /// The hash that a name equal to `text` has.
    pub(crate) fn hash_of(text: &str) -> u64 {
        xxh3_64(text.as_bytes())
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<&str> for EventName {
    fn from(text: &str) -> Self {
        Self { hash: Self::hash_of(text), text: text.into() }
    }
}

impl Deref for EventName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl PartialOrd for EventName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for EventName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl std::hash::Hash for EventName {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}
