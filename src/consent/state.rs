//! The state: a small sorted set of (purpose, channel), each with the latest grant and the latest denial.
//!
//! The later of both is the answer; of one time the denial stands. Of each kind at most [`ENTRIES_MAX`] are kept, the most recent: a grant
//! that falls out reads as never given, and denials that fall out become one of everything, so that none is ever forgotten. Grants and
//! denials are kept apart because only so the order in which answers come does not matter.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::read::{Said, Stated, stated};
use crate::domain::Millis;

/// The most (purpose, channel) pairs kept with a grant, and as many with a denial. Consent platforms have a handful of categories; more is an id put where a category belongs.
const ENTRIES_MAX: usize = 64;
pub const NAME_BYTES_MAX: usize = 64;
/// Of the first version are states without a grant and a denial of the same pair, which read the same.
const VERSION: u8 = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Lower case; empty for every purpose.
    purpose: Box<str>,
    /// Lower case; empty for every channel.
    channel: Box<str>,
    at: Millis,
    granted: bool,
}

impl Entry {
    fn is_of(&self, other: &Entry) -> bool {
        self.purpose == other.purpose && self.channel == other.channel
    }

    fn is_of_everything(&self) -> bool {
        self.purpose.is_empty() && self.channel.is_empty()
    }
}

/// One person's consent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Consent {
    /// Sorted by (purpose, channel), the denial of each before its grant.
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Granted,
    Denied,
    /// Never answered.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored consent state does not decode")]
pub struct Error;

impl Consent {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes what an event says about consent; true if that changed anything.
    pub fn observe(&mut self, said: Said<'_>, at: Millis) -> bool {
        let stated = stated(said);
        let mut changed = false;
        for stated in &stated {
            changed |= self.set(&stated.purpose, &stated.channel, stated.granted, at);
        }
        changed
    }

    /// One answer. Empty means every purpose or every channel; names that are too long are not taken.
    pub fn set(&mut self, purpose: &str, channel: &str, granted: bool, at: Millis) -> bool {
        if purpose.len() > NAME_BYTES_MAX || channel.len() > NAME_BYTES_MAX {
            return false;
        }
        let entry = Entry { purpose: purpose.to_ascii_lowercase().into(), channel: channel.to_ascii_lowercase().into(), at, granted };
        self.put(entry)
    }

    /// Every answer with its time, as it could be given again.
    pub fn answers(&self) -> impl Iterator<Item = (Stated, Millis)> {
        let stated =
            |entry: &Entry| Stated { purpose: entry.purpose.to_string(), channel: entry.channel.to_string(), granted: entry.granted };
        self.standing().map(move |entry| (stated(entry), entry.at))
    }

    /// Joins what another profile of the same person knew. Commutes with everything else, and doing it twice is doing it once.
    pub fn absorb(&mut self, other: &Consent) -> bool {
        let mut changed = false;
        for entry in &other.entries {
            changed |= self.put(entry.clone());
        }
        changed
    }

    /// Whether this purpose may be pursued over this channel. A denial at any level (the purpose, the channel, both) stands until it is
    /// granted at that level: a click on a cookie banner does not undo an unsubscribe. What a person says of just this purpose on just
    /// this channel stands against all that they said more generally before: it is how they make an exception.
    pub fn status(&self, purpose: &str, channel: &str) -> Status {
        let is = |mine: &str, asked: &str| mine.is_empty() || mine.eq_ignore_ascii_case(asked);
        let of_this = || self.standing().filter(|entry| is(&entry.purpose, purpose) && is(&entry.channel, channel));
        let exactly = of_this().find(|entry| !entry.purpose.is_empty() && !entry.channel.is_empty());
        let excepted = exactly.filter(|entry| entry.granted).map(|entry| entry.at);
        let mut status = Status::Unknown;
        for entry in of_this() {
            if !entry.granted && excepted.is_none_or(|at| at <= entry.at) {
                return Status::Denied;
            }
            status = Status::Granted;
        }
        status
    }

    /// What [`Consent::to_json`] wrote. What is not of that form is left out.
    pub fn from_json(value: &Value) -> Self {
        let mut consent = Self::default();
        let name = |name: &str| if name == "*" { String::new() } else { name.to_owned() };
        for (purpose, channels) in value.as_object().into_iter().flatten() {
            for (channel, answer) in channels.as_object().into_iter().flatten() {
                let at = &answer["at"];
                let at = at.as_i64().map(Millis).or_else(|| Millis::parse(at.as_str()?));
                if let (Some(granted), Some(at)) = (answer["granted"].as_bool(), at) {
                    consent.set(&name(purpose), &name(channel), granted, at);
                }
            }
        }
        consent
    }

    /// `{"marketing": {"email": {"granted": true, "at": "..."}}}`, with `*` for every purpose or channel; empty text if nothing is known.
    pub fn to_json(&self) -> String {
        if self.entries.is_empty() {
            return String::new();
        }
        let name = |name: &str| if name.is_empty() { "*".to_owned() } else { name.to_owned() };
        let mut purposes = Map::new();
        for entry in self.standing() {
            let at = entry.at.to_rfc3339().map_or(Value::from(entry.at.0), Value::from);
            let answer = serde_json::json!({"granted": entry.granted, "at": at});
            let channels = purposes.entry(name(&entry.purpose)).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(channels) = channels {
                channels.insert(name(&entry.channel), answer);
            }
        }
        Value::Object(purposes).to_string()
    }

    /// The answer of each pair that was asked.
    fn standing(&self) -> impl Iterator<Item = &Entry> {
        self.entries.chunk_by(|a, b| a.is_of(b)).filter_map(|pair| pair.iter().max_by_key(|entry| (entry.at, !entry.granted)))
    }

    /// Whether the answer of the pair is another than before.
    fn put(&mut self, entry: Entry) -> bool {
        let answer = |of: &Self| of.standing().find(|mine| mine.is_of(&entry)).map(|mine| (mine.at, mine.granted));
        let before = answer(self);
        match self.entries.binary_search_by(|mine| order(mine, &entry)) {
            Ok(at) => self.entries[at].at = self.entries[at].at.max(entry.at),
            Err(at) => {
                self.entries.insert(at, entry.clone());
                self.forget_one(entry.granted);
            }
        }
        answer(self) != before
    }

    /// Of more than are kept the one longest ago. An answer's time only rises, so what falls out would have fallen out in any order.
    fn forget_one(&mut self, granted: bool) {
        let alike = self.entries.iter().enumerate().filter(|(_, entry)| entry.granted == granted && !entry.is_of_everything());
        if alike.clone().count() <= ENTRIES_MAX {
            return;
        }
        // Of one time the first by name goes, the same in any order.
        let Some((oldest, _)) = alike.min_by_key(|(_, entry)| entry.at) else { return };
        let Entry { at, .. } = self.entries.remove(oldest);
        if !granted {
            self.put(Entry { purpose: "".into(), channel: "".into(), at, granted });
        }
    }

    /// Appends nothing for an empty state, else `version u8 | count u8`, then for each entry
    /// `lengths u8 u8 | purpose | channel | granted u8 | at i64 le`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if self.entries.is_empty() {
            return;
        }
        out.extend([VERSION, self.entries.len() as u8]);
        for entry in &self.entries {
            out.extend([entry.purpose.len() as u8, entry.channel.len() as u8]);
            out.extend_from_slice(entry.purpose.as_bytes());
            out.extend_from_slice(entry.channel.as_bytes());
            out.push(u8::from(entry.granted));
            out.extend_from_slice(&entry.at.0.to_le_bytes());
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let [version, count, rest @ ..] = bytes else {
            return if bytes.is_empty() { Ok(Self::default()) } else { Err(Error) };
        };
        // Everything may be granted and denied beside the pairs.
        if !(1..=VERSION).contains(version) || *count == 0 || usize::from(*count) > 2 * ENTRIES_MAX + 2 {
            return Err(Error);
        }
        let mut rest = rest;
        let mut entries: Vec<Entry> = Vec::with_capacity(usize::from(*count));
        for _ in 0..*count {
            let ([purpose_len, channel_len], tail) = rest.split_first_chunk::<2>().ok_or(Error)?;
            let (purpose, tail) = text(tail, *purpose_len)?;
            let (channel, tail) = text(tail, *channel_len)?;
            let ([granted, at @ ..], tail) = tail.split_first_chunk::<9>().ok_or(Error)?;
            rest = tail;
            let entry = Entry { purpose, channel, granted: *granted == 1, at: Millis(i64::from_le_bytes(*at)) };
            let in_order = entries.last().is_none_or(|last| order(last, &entry) == Ordering::Less);
            if *granted > 1 || !in_order {
                return Err(Error);
            }
            entries.push(entry);
        }
        if rest.is_empty() { Ok(Self { entries }) } else { Err(Error) }
    }
}

fn order(a: &Entry, b: &Entry) -> Ordering {
    (&a.purpose, &a.channel, a.granted).cmp(&(&b.purpose, &b.channel, b.granted))
}

fn text(bytes: &[u8], len: u8) -> Result<(Box<str>, &[u8]), Error> {
    let (text, rest) = bytes.split_at_checked(usize::from(len)).ok_or(Error)?;
    Ok((std::str::from_utf8(text).map_err(|_| Error)?.into(), rest))
}
