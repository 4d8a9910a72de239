//! Links that carry their own proof: who may do what, until when, signed. Unsubscribe, preferences, the open pixel, the click redirect and
//! approvals; nothing is kept here for any of them.
//!
//! A token is `KID.PAYLOAD.CODE`, the last two in base64url without padding; the code is HMAC-SHA256 over version, kid and payload. A new
//! key signs at once while the old ones still open what they signed.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::hmac::{is_signed, sign};
use crate::domain::{Millis, SECOND_MS};
use crate::permit::EffectKey;

const DOMAIN: &[u8] = b"flywheel link 2\0";
const KEY_BYTES_MIN: usize = 32;
const KID_BYTES_MAX: usize = 16;
/// Browsers and mail programs take longer ones; nothing we make is.
const TOKEN_BYTES_MAX: usize = 4 * 1024;
const TEXT_BYTES_MAX: usize = 2 * 1024;

/// What a link is for. A token of one kind opens nothing of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Unsubscribe = 1,
    Preferences = 2,
    Open = 3,
    Click = 4,
    Approve = 5,
}

/// What a link says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub kind: Kind,
    /// The world that what comes of it goes to.
    pub namespace: String,
    pub tenant: String,
    /// As `domain::Subject` is written: `u:ID` or `a:ID`.
    pub subject: String,
    /// The message that carried it; of an approval the run that waits for it.
    pub effect: EffectKey,
    /// In whole seconds.
    pub expires: Millis,
    /// Of an unsubscribe `PURPOSE/CHANNEL`, of a click the address, of an approval `VISIT/NODE/WHO` ([`Asked`]).
    pub detail: String,
    /// When the message that carries it was sent, in whole seconds; none in links of before it was kept.
    pub sent: Option<Millis>,
}

/// What an approval's link is about, besides the run: which of its steps, and who was asked. Its text is the link's detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub visit: u64,
    pub node: String,
    pub who: String,
}

impl Asked {
    pub fn parse(detail: &str) -> Option<Self> {
        let mut parts = detail.splitn(3, '/');
        let visit = parts.next()?.parse().ok()?;
        Some(Self { visit, node: parts.next()?.to_owned(), who: parts.next()?.to_owned() })
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.visit, self.node, self.who)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the link is damaged")]
    Malformed,
    /// Of no key, or of one that was taken away.
    #[error("the link is not ours")]
    Forged,
    #[error("the link is for something else")]
    OfAnotherKind,
    #[error("the link has run out")]
    Expired,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a link key's id {0:?} is not 1 to {KID_BYTES_MAX} of a-z, 0-9")]
    Id(String),
    #[error("the link key {0:?} is shorter than {KEY_BYTES_MIN} bytes")]
    Short(String),
    #[error("no link key is called {0:?}")]
    Unknown(String),
}

/// The keys by id, of which one signs.
#[derive(Clone)]
pub struct Keys {
    current: String,
    keys: BTreeMap<String, Vec<u8>>,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Unsubscribe, Kind::Preferences, Kind::Open, Kind::Click, Kind::Approve];

    /// The part of the path before the token.
    pub fn path(self) -> &'static str {
        match self {
            Kind::Unsubscribe => "/m/unsubscribe/",
            Kind::Preferences => "/m/preferences/",
            Kind::Open => "/m/open/",
            Kind::Click => "/m/click/",
            Kind::Approve => "/m/approve/",
        }
    }
}

impl Keys {
    pub fn new(current: &str, keys: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<Self, KeyError> {
        let keys: BTreeMap<String, Vec<u8>> = keys.into_iter().collect();
        for (id, key) in &keys {
            let is_id = (1..=KID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            if !is_id {
                return Err(KeyError::Id(id.clone()));
            }
            if key.len() < KEY_BYTES_MIN {
                return Err(KeyError::Short(id.clone()));
            }
        }
        if keys.contains_key(current) { Ok(Self { current: current.to_owned(), keys }) } else { Err(KeyError::Unknown(current.to_owned())) }
    }

    /// The token, safe in a path.
    pub fn sign(&self, link: &Link) -> String {
        let payload = link.payload();
        let code = sign(&self.keys[&self.current], &parts(&self.current, &payload));
        format!("{}.{}.{}", self.current, URL_SAFE_NO_PAD.encode(payload), URL_SAFE_NO_PAD.encode(code))
    }

    /// The whole link; `base` is scheme and host, without a slash at its end.
    pub fn url(&self, base: &str, link: &Link) -> String {
        format!("{base}{}{}", link.kind.path(), self.sign(link))
    }

    /// What a token says, if one of the keys signed it, for this kind and a time that is not over.
    pub fn open(&self, kind: Kind, token: &str, now: Millis) -> Result<Link, Error> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Error::Malformed);
        }
        let mut pieces = token.split('.');
        let (Some(id), Some(payload), Some(code), None) = (pieces.next(), pieces.next(), pieces.next(), pieces.next()) else {
            return Err(Error::Malformed);
        };
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::Malformed);
        let (payload, code) = (bytes(payload)?, bytes(code)?);
        let key = self.keys.get(id).ok_or(Error::Forged)?;
        if !is_signed(key, &parts(id, &payload), &code) {
            return Err(Error::Forged);
        }
        let link = Link::read(&payload).ok_or(Error::Malformed)?;
        match () {
            () if link.kind != kind => Err(Error::OfAnotherKind),
            () if now >= link.expires => Err(Error::Expired),
            () => Ok(link),
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} of {:?})", self.current, self.keys.keys().collect::<Vec<_>>())
    }
}

fn parts<'a>(id: &'a str, payload: &'a [u8]) -> [&'a [u8]; 4] {
    [DOMAIN, id.as_bytes(), b".", payload]
}

impl Link {
    /// `kind u8 | expires, seconds, u32 | effect 16 | namespace | tenant | subject | detail`, texts as `length u16 | bytes`, and where it is known
    /// `sent, seconds, u32`. A text is cut at 2 KB:
    /// ids are shorter, and whoever makes a click link gives it no longer address.
    fn payload(&self) -> Vec<u8> {
        let mut out = vec![self.kind as u8];
        let seconds = |time: Millis| u32::try_from(time.0.div_euclid(SECOND_MS).max(0)).unwrap_or(u32::MAX).to_be_bytes();
        out.extend(seconds(self.expires));
        out.extend(self.effect.0);
        for text in [&self.namespace, &self.tenant, &self.subject, &self.detail] {
            let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
            out.extend((text.len() as u16).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out.extend(self.sent.map(seconds).into_iter().flatten());
        out
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let ([kind], rest) = payload.split_first_chunk::<1>()?;
        let kind = Kind::ALL.into_iter().find(|known| *known as u8 == *kind)?;
        let (seconds, rest) = rest.split_first_chunk::<4>()?;
        let (effect, mut rest) = rest.split_first_chunk::<16>()?;
        let mut text = || {
            let (len, tail) = rest.split_first_chunk::<2>()?;
            let (text, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
            rest = tail;
            String::from_utf8(text.to_vec()).ok()
        };
        let (namespace, tenant, subject, detail) = (text()?, text()?, text()?, text()?);
        let time = |seconds: &[u8; 4]| Millis(i64::from(u32::from_be_bytes(*seconds)) * SECOND_MS);
        let sent = match rest {
            [] => None,
            rest => Some(time(rest.try_into().ok()?)),
        };
        let (effect, expires) = (EffectKey(*effect), time(seconds));
        Some(Self { kind, namespace, tenant, subject, effect, expires, detail, sent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(current: &str, ids: &[&str]) -> Keys {
        Keys::new(current, ids.iter().map(|id| ((*id).to_owned(), id.repeat(32).into_bytes()))).unwrap()
    }

    fn link() -> Link {
        Link {
            kind: Kind::Click,
            namespace: "main".into(),
            tenant: "acme".into(),
            subject: "u:ada".into(),
            effect: EffectKey([9; 16]),
            expires: Millis(1_780_000_000_000),
            detail: "https://shop.example/?q=ü&a=b".into(),
            sent: Some(Millis(1_780_000_000_000)),
        }
    }

    const NOW: Millis = Millis(1_779_999_999_999);

    #[test]
    fn a_link_of_before_the_sending_time_was_kept_opens_and_says_none() {
        let keys = keys("a", &["a"]);
        let of_before = Link { sent: None, ..link() };
        let opened = keys.open(Kind::Click, &keys.sign(&of_before), Millis(0)).unwrap();
        assert_eq!((opened.sent, &opened.detail), (None, &of_before.detail));
        let payload = link().payload();
        assert_eq!(Link::read(&payload).map(|link| link.sent), Some(link().sent));
        assert_eq!(payload[..payload.len() - 4], of_before.payload(), "all else is where it was");
        assert!(Link::read(&payload[..payload.len() - 1]).is_none());
    }

    #[test]
    fn a_link_opens_as_it_was_signed_until_it_runs_out() {
        let keys = keys("b", &["b"]);
        let token = keys.sign(&link());
        assert_eq!(keys.open(Kind::Click, &token, NOW), Ok(link()));
        assert_eq!(keys.open(Kind::Click, &token, NOW + 1), Err(Error::Expired));
        assert_eq!(keys.open(Kind::Unsubscribe, &token, NOW), Err(Error::OfAnotherKind));
        assert_eq!(keys.url("https://x", &link()), format!("https://x/m/click/{token}"));
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
    }

    #[test]
    fn a_new_key_signs_and_the_old_one_still_opens_until_it_is_taken_away() {
        let old = keys("a", &["a"]).sign(&link());
        assert_eq!(keys("b", &["a", "b"]).open(Kind::Click, &old, NOW), Ok(link()));
        assert!(keys("b", &["a", "b"]).sign(&link()).starts_with("b."));
        assert_eq!(keys("b", &["b"]).open(Kind::Click, &old, NOW), Err(Error::Forged));
    }

    #[test]
    fn what_an_approval_asks_is_read_as_it_was_written() {
        let asked = Asked { visit: 7, node: "review".into(), who: "marketing/berlin".into() };
        assert_eq!(Asked::parse(&asked.to_string()), Some(asked));
        assert_eq!((Asked::parse("7/review"), Asked::parse("x/review/bo"), Asked::parse("")), (None, None, None));
    }

    #[test]
    fn no_change_of_a_token_opens() {
        let keys = keys("a", &["a", "b"]);
        let token = keys.sign(&link());
        for at in 0..token.len() {
            for byte in [b'A', b'b', b'.', b'-'] {
                let mut changed = token.clone().into_bytes();
                changed[at] = byte;
                let changed = String::from_utf8(changed).unwrap();
                assert!(changed == token || keys.open(Kind::Click, &changed, NOW).is_err(), "{changed}");
            }
            assert!(keys.open(Kind::Click, &token[..at], NOW).is_err());
        }
        assert!(keys.open(Kind::Click, &format!("{token}."), NOW).is_err());
        assert!(keys.open(Kind::Click, &"a".repeat(10_000), NOW).is_err());
    }

    #[test]
    fn keys_are_long_and_named() {
        let key = |id: &str, len: usize| Keys::new("a", [(id.to_owned(), vec![1; len])]);
        assert!(matches!(key("a", 31), Err(KeyError::Short(_))));
        assert!(matches!(key("A.b", 32), Err(KeyError::Id(_))));
        assert!(matches!(key("b", 32), Err(KeyError::Unknown(_))));
        assert!(!format!("{:?}", key("a", 32).unwrap()).contains("1, 1"), "keys are not printed");
    }
}
