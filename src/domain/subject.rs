//! Whom a record is about, and the key bytes that stand for them in every topic and store.
//!
//! The key is `tenant`, a zero byte, `u:`, `a:` or `@:`, then the id. A tenant is a slug and cannot hold a zero byte, so keys of two tenants
//! never meet and sort by tenant. The same form keys `intake` (anonymous id while there is one, else user id).

use std::fmt;

use bytes::Bytes;

use super::ids::{ID_BYTES_MAX, TenantId};

/// A person as one tenant knows them: a known user, or still only a device. In `commands` and `journal` also an address that people are
/// written to, by its hash: whoever holds it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    User(Box<str>),
    Anonymous(Box<str>),
    Address(Box<str>),
}

/// Which kind of subject a key is about, as its mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    User,
    Anonymous,
    Address,
}

impl Subject {
    pub fn user(id: &str) -> Self {
        Subject::User(id.into())
    }

    pub fn anonymous(id: &str) -> Self {
        Subject::Anonymous(id.into())
    }

    /// An address, by the text of its hash.
    pub fn address(hash: &str) -> Self {
        Subject::Address(hash.into())
    }

    /// The form that [`fmt::Display`] writes, and nothing else: a mark, and an id that may stand in a key.
    pub fn parse(text: &str) -> Option<Self> {
        let (mark, id) = text.split_once(':')?;
        let is_id = !id.is_empty() && id.len() <= ID_BYTES_MAX && !id.contains('\0');
        match mark {
            "u" if is_id => Some(Subject::user(id)),
            "a" if is_id => Some(Subject::anonymous(id)),
            "@" if is_id => Some(Subject::address(id)),
            _ => None,
        }
    }

    /// As people write it: `u:ID`, `a:ID`, or a user's id as it is. No address, which nobody begins anything for.
    pub fn person(text: &str) -> Self {
        Self::parse(text).filter(Self::is_person).unwrap_or_else(|| Subject::user(text))
    }

    pub fn is_person(&self) -> bool {
        !matches!(self, Subject::Address(_))
    }

    pub fn id(&self) -> &str {
        match self {
            Subject::User(id) | Subject::Anonymous(id) | Subject::Address(id) => id,
        }
    }

    pub fn is_user(&self) -> bool {
        matches!(self, Subject::User(_))
    }

    /// The key of this subject under `tenant`.
    pub fn key(&self, tenant: &TenantId) -> SubjectKey {
        let (mark, id) = match self {
            Subject::User(id) => (b"u:", id),
            Subject::Anonymous(id) => (b"a:", id),
            Subject::Address(id) => (b"@:", id),
        };
        let mut bytes = Vec::with_capacity(tenant.as_str().len() + 3 + id.len());
        bytes.extend_from_slice(tenant.as_str().as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(mark);
        bytes.extend_from_slice(id.as_bytes());
        SubjectKey(Bytes::from(bytes))
    }
}

/// `u:ID`, `a:ID` or `@:HASH`, the form people read and type.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::User(id) => write!(f, "u:{id}"),
            Subject::Anonymous(id) => write!(f, "a:{id}"),
            Subject::Address(id) => write!(f, "@:{id}"),
        }
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a subject key (tenant, zero byte, 'u:', 'a:' or '@:', id)")]
pub struct SubjectKeyError(String);

/// A key's parts, borrowed from its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyParts<'a> {
    pub tenant: &'a str,
    /// As people read it: `u:ID`, `a:ID` or `@:HASH`.
    pub subject: &'a str,
    pub is_user: bool,
    pub id: &'a str,
}

/// The checked key bytes of a (tenant, subject).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectKey(Bytes);

impl SubjectKey {
    /// Checks bytes read from a log or store.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, SubjectKeyError> {
        match split(&bytes) {
            Some(_) => Ok(Self(bytes)),
            None => Err(SubjectKeyError(String::from_utf8_lossy(&bytes).into_owned())),
        }
    }

    /// The parts of such bytes where they lie; `None` if they are no key.
    pub fn parts(bytes: &[u8]) -> Option<KeyParts<'_>> {
        let (tenant, kind, id) = split(bytes)?;
        let subject = std::str::from_utf8(&bytes[tenant.len() + 1..]).ok()?;
        Some(KeyParts { tenant, subject, is_user: kind == Kind::User, id })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The whole key as text, tenant and all: what ids that follow from a subject are made of.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked when made: each of its parts is text")
    }

    pub fn tenant(&self) -> TenantId {
        let (tenant, _, _) = split(&self.0).expect("checked when made");
        TenantId::new(tenant).expect("checked when made")
    }

    /// The tenant's name without making an id of it.
    pub fn tenant_str(&self) -> &str {
        split(&self.0).expect("checked when made").0
    }

    pub fn subject(&self) -> Subject {
        let (_, kind, id) = split(&self.0).expect("checked when made");
        match kind {
            Kind::User => Subject::user(id),
            Kind::Anonymous => Subject::anonymous(id),
            Kind::Address => Subject::address(id),
        }
    }

    /// Whether it is an address's, and not a person's.
    pub fn is_address(&self) -> bool {
        split(&self.0).is_some_and(|(_, kind, _)| kind == Kind::Address)
    }
}

impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant_str(), self.subject())
    }
}

fn split(bytes: &[u8]) -> Option<(&str, Kind, &str)> {
    let zero = bytes.iter().position(|b| *b == 0)?;
    let tenant = std::str::from_utf8(&bytes[..zero]).ok()?;
    TenantId::new(tenant).ok()?;
    let rest = &bytes[zero + 1..];
    let kind = match rest.get(..2)? {
        b"u:" => Kind::User,
        b"a:" => Kind::Anonymous,
        b"@:" => Kind::Address,
        _ => return None,
    };
    let id = std::str::from_utf8(&rest[2..]).ok()?;
    if id.is_empty() { None } else { Some((tenant, kind, id)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_read_as_it_was_written_and_odd_text_is_none() {
        for subject in [Subject::user("ann"), Subject::anonymous("d:1"), Subject::address("0a")] {
            assert_eq!(Subject::parse(&subject.to_string()), Some(subject));
        }
        for odd in ["", "ann", "u:", "a:", "x:ann", ":ann", "u:a\0b", &format!("u:{}", "i".repeat(ID_BYTES_MAX + 1))] {
            assert_eq!(Subject::parse(odd), None, "{odd:?}");
        }
        let people = ["u:ann", "a:d1", "ann", "shop:7", "@:0a"].map(|text| Subject::person(text).to_string());
        assert_eq!(people, ["u:ann", "a:d1", "u:ann", "u:shop:7", "u:@:0a"]);
    }
}
