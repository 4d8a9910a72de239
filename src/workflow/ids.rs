//! Ids that follow from causes, and chance that follows from ids: the same cause gives the same run, effect, arm and jitter, also after
//! a crash, a restore or a replay.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How the id of a user begins who is nobody: the subject that stands for a campaign.
pub const CAMPAIGN: &str = "campaign:";
/// The source that events have which a workflow emitted.
pub const EMITTED: &str = "workflow";

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl $name {
            pub fn parse(text: &str) -> Option<Self> {
                (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(Self))?
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:08x}..)", stringify!($name), self.0 >> 96)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.to_be_bytes().serialize(serializer) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if !deserializer.is_human_readable() {
                    return <[u8; 16]>::deserialize(deserializer).map(|bytes| Self(u128::from_be_bytes(bytes)));
                }
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| de::Error::custom("an id is 32 hexadecimal digits"))
            }
        }
    };
}

hash_id!(
    /// One run: the hash of its workflow's name, its subject and what caused it. Not of the definition's digest, so that a message
    /// delivered again after a publish starts nothing twice.
    RunId
);
hash_id!(
    /// One effect of one run, and its idempotency key at whoever performs it: the same for every attempt.
    EffectId
);

impl RunId {
    pub fn of(workflow: &str, subject: &str, cause: &str) -> Self {
        Self(hash(&["run", workflow, subject, cause]))
    }
}

impl EffectId {
    /// Of the effect that a run asked for on its `visit`-th step.
    pub fn of(run: RunId, visit: u64) -> Self {
        Self(hash(&["effect", &run.to_string(), &visit.to_string()]))
    }
}

/// 128 bits of BLAKE3 over parts, each with its length so that none runs into the next.
pub fn hash(parts: &[&str]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let bytes = hasher.finalize();
    let mut half = [0u8; 16];
    half.copy_from_slice(&bytes.as_bytes()[..16]);
    u128::from_be_bytes(half)
}

/// A number in `0..bound` that follows from parts; 0 if `bound` is 0.
pub fn chance(parts: &[&str], bound: u64) -> u64 {
    let drawn = (hash(parts) >> 64) as u64;
    // Multiply and shift: no bias that anyone could measure, no loop.
    ((u128::from(drawn) * u128::from(bound)) >> 64) as u64
}
