//! How every inbound record ends: applied, duplicate, filtered(reason) or dead-lettered(reason), exactly once each.
//!
//! A [`Tally`] counts outcomes per batch; a batch whose tally does not sum to its records is our bug and stops the process.

use std::fmt;

/// Why a valid record was left out on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FilterReason {
    /// The user agent names a known crawler or monitor.
    Bot,
    /// The address or a trait marks the company's own traffic.
    Internal,
    /// The key sent more than its allowance in the window.
    Flood,
    /// The source is configured off.
    SourceDisabled,
    /// The person was erased; late and replayed events do not bring them back.
    Erased,
    /// A record of the platform itself (ticks, activations) that changes no person.
    Control,
    /// A command that no longer applies: the run is over, the approval decided, nothing waits for the signal.
    Refused,
}

/// Why a record could not be applied; it is kept in `dead_letters` and may be redriven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeadReason {
    /// Not the bytes that the topic's schema promises.
    Undecodable,
    /// Not JSON, or not the shape of an event.
    Malformed,
    /// Neither a user nor an anonymous id.
    NoIdentity,
    /// A type that is none of track, identify, page, screen, group, alias.
    UnknownType,
    /// A track without an event name, an alias without a previous id, a group without a group id.
    MissingField,
    /// An id, name or body beyond its bound.
    TooLarge,
    /// An alias that would tie an id to itself or a user to a user.
    IdentityLoop,
    /// Folding it failed: a defect of ours, kept for after the fix.
    Panicked,
    /// A command that went through too many subjects, as from a campaign that starts itself through others.
    TooDeep,
    /// A command to a subject for which too much waits to be decided already: to be sent again once it has caught up.
    TooMuchHeld,
    /// Of a foreign producer's record: it names no tenant, or one that this installation does not have.
    UnknownTenant,
    /// Of a foreign producer's record: the schema registry does not know the schema that it names.
    UnknownSchema,
}

macro_rules! names {
    ($type:ident { $($variant:ident => $name:literal),+ $(,)? }) => {
        impl $type {
            pub const ALL: &'static [$type] = &[$($type::$variant),+];

            /// The stable name on the wire, in metrics and in SQL.
            pub fn as_str(self) -> &'static str {
                match self { $($type::$variant => $name),+ }
            }

            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

names!(FilterReason {
    Bot => "bot", Internal => "internal", Flood => "flood", SourceDisabled => "source_disabled", Erased => "erased", Control => "control",
    Refused => "refused",
});
names!(DeadReason {
    Undecodable => "undecodable", Malformed => "malformed", NoIdentity => "no_identity", UnknownType => "unknown_type",
    MissingField => "missing_field", TooLarge => "too_large", IdentityLoop => "identity_loop", Panicked => "panicked",
    TooDeep => "too_deep", TooMuchHeld => "too_much_held",
    UnknownTenant => "unknown_tenant", UnknownSchema => "unknown_schema",
});

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[must_use = "every record's outcome is counted"]
pub enum Outcome {
    Applied,
    Duplicate,
    Filtered(FilterReason),
    DeadLettered(DeadReason),
}

impl Outcome {
    /// `applied`, `duplicate`, `filtered` or `dead_lettered`.
    pub fn kind(self) -> &'static str {
        match self {
            Outcome::Applied => "applied",
            Outcome::Duplicate => "duplicate",
            Outcome::Filtered(_) => "filtered",
            Outcome::DeadLettered(_) => "dead_lettered",
        }
    }

    /// The reason's name, empty where there is none.
    pub fn reason(self) -> &'static str {
        match self {
            Outcome::Applied | Outcome::Duplicate => "",
            Outcome::Filtered(reason) => reason.as_str(),
            Outcome::DeadLettered(reason) => reason.as_str(),
        }
    }
}

/// Counts of outcomes. `Tally::total` must equal the number of records read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    pub applied: u64,
    pub duplicate: u64,
    pub filtered: [u64; FilterReason::ALL.len()],
    pub dead_lettered: [u64; DeadReason::ALL.len()],
}

impl Tally {
    pub fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Applied => self.applied += 1,
            Outcome::Duplicate => self.duplicate += 1,
            Outcome::Filtered(reason) => self.filtered[reason as usize] += 1,
            Outcome::DeadLettered(reason) => self.dead_lettered[reason as usize] += 1,
        }
    }

    pub fn total(&self) -> u64 {
        self.applied + self.duplicate + self.filtered.iter().sum::<u64>() + self.dead_lettered.iter().sum::<u64>()
    }

    pub fn add(&mut self, other: &Tally) {
        self.applied += other.applied;
        self.duplicate += other.duplicate;
        for (mine, theirs) in self.filtered.iter_mut().zip(&other.filtered) {
            *mine += theirs;
        }
        for (mine, theirs) in self.dead_lettered.iter_mut().zip(&other.dead_lettered) {
            *mine += theirs;
        }
    }

    /// Every non-zero count as (kind, reason, count).
    pub fn rows(&self) -> Vec<(&'static str, &'static str, u64)> {
        let filtered = FilterReason::ALL.iter().map(|reason| ("filtered", reason.as_str(), self.filtered[*reason as usize]));
        let dead = DeadReason::ALL.iter().map(|reason| ("dead_lettered", reason.as_str(), self.dead_lettered[*reason as usize]));
        let plain = [("applied", "", self.applied), ("duplicate", "", self.duplicate)];
        plain.into_iter().chain(filtered).chain(dead).filter(|(_, _, count)| *count > 0).collect()
    }
}
