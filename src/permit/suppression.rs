//! Addresses that nothing may be sent to, whoever holds them: they bounce, their owner complained, or someone said so.
//!
//! An address is a subject of its own and passes its state to every person who holds it; here is what one person was passed. Words commute,
//! and are judged by their own time, so that the order of arrival does not matter: of one cause the newest word for a time says until when,
//! and what was said before the address was last taken off the list is as if it had never been said.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::Millis;

/// Stands for an address without being one: 16 bytes of BLAKE3 over what kind of address it is and the address, in lower case. In text it
/// is hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressKey(pub(super) [u8; 16]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Too many passing failures in a row; for a time.
    SoftBounces = 1,
    HardBounce = 2,
    Complaint = 3,
    /// By an operator or an imported list.
    Manual = 4,
}

/// (at, until, cause): the greatest wins.
pub(super) type Word = (Millis, Millis, Cause);

/// No word in it is older than `lifted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// With until = `MAX`.
    pub(super) for_good: Option<Word>,
    /// Of each cause the newest, sorted by cause. One for all causes would not do: the longest may be older than the next lift, and the newest
    /// may be the shortest.
    pub(super) for_a_time: Vec<Word>,
    /// Words of before this time no longer hold.
    pub(super) lifted: Millis,
}

impl Mark {
    fn suppress(&mut self, word: Word) {
        let (at, until, cause) = word;
        if at < self.lifted {
            return;
        }
        if until == Millis::MAX {
            self.for_good = self.for_good.max(Some(word));
            return;
        }
        match self.for_a_time.binary_search_by_key(&cause, |(_, _, cause)| *cause) {
            Ok(place) => self.for_a_time[place] = self.for_a_time[place].max(word),
            Err(place) => self.for_a_time.insert(place, word),
        }
    }

    pub(super) fn lift(&mut self, at: Millis) {
        self.lifted = self.lifted.max(at);
        self.for_good.take_if(|(said, _, _)| *said < self.lifted);
        self.for_a_time.retain(|(said, _, _)| *said >= self.lifted);
    }

    pub(super) fn words(&self) -> impl Iterator<Item = Word> {
        self.for_good.iter().chain(&self.for_a_time).copied()
    }
}

/// What one person's addresses are suppressed for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Suppressions {
    /// Sorted by address.
    pub(super) marks: Vec<(AddressKey, Mark)>,
}

/// A word about an address, as one who is told of it later hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Suppressed { cause: Cause, at: Millis, until: Option<Millis> },
    Lifted { at: Millis },
}

/// The attribute that holds the address of a channel: `email`, `phone`, `push_token`, or one named as the channel. A number is one address,
/// however it is written or called.
pub fn attribute_of(channel: &str) -> String {
    let channel = channel.trim().to_lowercase();
    match channel.as_str() {
        "sms" | "whatsapp" | "phone" | "call" => "phone".to_owned(),
        "push" => "push_token".to_owned(),
        _ => channel,
    }
}

impl AddressKey {
    /// Spaces around and case do not tell addresses apart (case does for the part before the `@` by RFC 5321, and for no mailbox), and
    /// neither does how a number is grouped.
    pub fn of(channel: &str, address: &str) -> Self {
        let kind = attribute_of(channel);
        let mut address = address.trim().to_lowercase();
        if kind == "phone" {
            address.retain(|c| !c.is_whitespace() && !matches!(c, '-' | '(' | ')' | '.' | '/'));
        }
        let text = format!("{kind}\0{address}");
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
        Self(key)
    }
}

impl fmt::Display for AddressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", super::ids::EffectKey(self.0))
    }
}

impl From<AddressKey> for String {
    fn from(key: AddressKey) -> String {
        key.to_string()
    }
}

impl TryFrom<String> for AddressKey {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let key: super::ids::EffectKey = text.parse().map_err(|_| "an address's key is 32 hexadecimal digits")?;
        Ok(Self(key.0))
    }
}

impl fmt::Debug for AddressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddressKey({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::SoftBounces => "it failed too often",
            Cause::HardBounce => "it does not exist",
            Cause::Complaint => "its owner called a message spam",
            Cause::Manual => "someone put it on the list",
        }
    }

    pub(super) const ALL: [Cause; 4] = [Cause::SoftBounces, Cause::HardBounce, Cause::Complaint, Cause::Manual];

    pub(super) fn from_u8(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| *cause as u8 == code)
    }
}

impl Suppressions {
    /// The most addresses kept; of more, the one longest without a word is forgotten. The address says it again when it is written to again.
    pub(super) const MAX: usize = 64;

    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Suppressed since `at`, until a time or for good.
    pub fn suppress(&mut self, address: AddressKey, cause: Cause, at: Millis, until: Option<Millis>) {
        self.mark(address).suppress((at, until.unwrap_or(Millis::MAX), cause));
        self.trim(address);
    }

    /// What was said up to `at` no longer holds; of one time the suppression stands.
    pub fn lift(&mut self, address: AddressKey, at: Millis) {
        self.mark(address).lift(at);
        self.trim(address);
    }

    /// As if nothing had ever been said of it.
    pub fn forget(&mut self, address: AddressKey) {
        self.marks.retain(|(known, _)| *known != address);
    }

    /// Why nothing may be sent there, and until when if not for good.
    pub fn of(&self, address: AddressKey, at: Millis) -> Option<(Cause, Option<Millis>)> {
        let place = self.marks.binary_search_by_key(&address, |(key, _)| *key).ok()?;
        let holding = self.marks[place].1.words().filter(|(_, until, _)| at < *until);
        let (_, until, cause) = holding.max_by_key(|(at, until, cause)| (*until, *at, *cause))?;
        Some((cause, (until < Millis::MAX).then_some(until)))
    }

    /// Everything that was said of an address and counts, so that telling it somewhere else makes the same of it.
    pub fn said_of(&self, address: AddressKey) -> impl Iterator<Item = Said> {
        let place = self.marks.binary_search_by_key(&address, |(key, _)| *key);
        let mark = place.ok().map(|place| &self.marks[place].1);
        let lifted = mark.map(|mark| mark.lifted).filter(|at| *at > Millis::MIN);
        let suppressed = |(at, until, cause): Word| Said::Suppressed { cause, at, until: (until < Millis::MAX).then_some(until) };
        let words = mark.into_iter().flat_map(Mark::words);
        lifted.map(|at| Said::Lifted { at }).into_iter().chain(words.map(suppressed))
    }

    /// Joins what another history of the same person knew.
    pub fn absorb(&mut self, other: &Suppressions) {
        for (address, theirs) in &other.marks {
            let mine = self.mark(*address);
            mine.lift(theirs.lifted);
            theirs.words().for_each(|word| mine.suppress(word));
            self.trim(*address);
        }
    }

    fn mark(&mut self, address: AddressKey) -> &mut Mark {
        let place = self.marks.binary_search_by_key(&address, |(key, _)| *key).unwrap_or_else(|at| {
            self.marks.insert(at, (address, Mark { for_good: None, for_a_time: Vec::new(), lifted: Millis::MIN }));
            at
        });
        &mut self.marks[place].1
    }

    fn trim(&mut self, newest: AddressKey) {
        let said = |mark: &Mark| mark.words().map(|(at, _, _)| at).max().max(Some(mark.lifted));
        while self.marks.len() > Self::MAX {
            let others = self.marks.iter().enumerate().filter(|(_, (address, _))| *address != newest);
            let Some((oldest, _)) = others.min_by_key(|(_, (_, mark))| said(mark)) else { return };
            self.marks.remove(oldest);
        }
    }
}
