//! Identifiers as types of their own, so that a user id can never stand where a tenant is meant.
//!
//! Ids that people choose (users, messages) are free text up to [`ID_BYTES_MAX`]; ids that configuration chooses (tenant, namespace,
//! source) are short slugs, because they become parts of keys, file names and metric labels.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest user, anonymous or message id taken from a client, in bytes. Segment documents 100 characters for a message id;
/// real ids from browsers and importers are longer, so the bound only keeps keys small.
pub const ID_BYTES_MAX: usize = 512;

/// The longest tenant, namespace or source name, in bytes.
pub const SLUG_BYTES_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} is {len} bytes long, at most {max} are taken")]
    TooLong { what: &'static str, len: usize, max: usize },
    #[error("{what} {value:?} may hold only a-z, 0-9, '_' and '-', starting with a letter or digit")]
    NotASlug { what: &'static str, value: String },
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes `text` as it is, or says what is wrong with it.
            pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
                let text = text.as_ref();
                $check($what, text)?;
                Ok(Self(Arc::from(text)))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), &*self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.to_string()
            }
        }
    };
}

fn check_text(what: &'static str, text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { what });
    }
    if text.len() > ID_BYTES_MAX {
        return Err(IdError::TooLong { what, len: text.len(), max: ID_BYTES_MAX });
    }
    Ok(())
}

fn check_slug(what: &'static str, text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { what });
    }
    if text.len() > SLUG_BYTES_MAX {
        return Err(IdError::TooLong { what, len: text.len(), max: SLUG_BYTES_MAX });
    }
    let starts_well = text.as_bytes()[0].is_ascii_alphanumeric();
    let all_slug = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
    if !starts_well || !all_slug {
        return Err(IdError::NotASlug { what, value: text.to_owned() });
    }
    Ok(())
}

id_type!(
    /// The company whose data this is. No read or write compiles without one.
    TenantId, "tenant", check_slug
);
id_type!(
    /// A world of topics, state and read models of its own, with a clock of its own (wall or event time).
    Namespace, "namespace", check_slug
);
id_type!(
    /// The configured source a record came in through: a write key's name, never the key itself.
    SourceId, "source", check_slug
);
id_type!(
    /// A known user's id, as the customer's systems call them.
    UserId, "user id", check_text
);
id_type!(
    /// A device's or browser's id before anyone logged in.
    AnonymousId, "anonymous id", check_text
);
id_type!(
    /// The client's id for one event, the key of deduplication within (tenant, intake key).
    MessageId, "message id", check_text
);

/// The BLAKE3 digest of a definition's canonical bytes: its identity in `definitions`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    pub fn to_hex(self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0u8; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({}..)", &self.to_hex()[..12])
    }
}
