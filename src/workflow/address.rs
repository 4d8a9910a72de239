//! An address as a subject of its own: who holds it and what failed there, so that a word against it reaches everyone who would write to it.
//!
//! Its state is the same [`Subject`](super::Subject) as a person's, of which it uses `suppressions` and [`HeldBy`]. People register with it
//! when they get it and when they are about to be written to. What it knows it tells them as commands, which their permits go by; those
//! that carry the commands are in `engine`.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::domain::{DAY_MS, Millis, Subject as Who};
use crate::permit::{AddressKey, attribute_of};

/// The attributes that are addresses whatever workflows there are, with the channel that each is told under. An address of another channel
/// (an attribute named as it) is registered when it is first written to.
pub const ADDRESSES: [(&str, &str); 3] = [("email", "email"), ("phone", "phone"), ("push_token", "push")];

/// What the addresses of a channel are told under: channels that go to the same address have one name.
pub fn address_channel(target: &str) -> String {
    let attribute = attribute_of(target);
    let known = ADDRESSES.iter().find(|(known, _)| *known == attribute).map(|(_, channel)| (*channel).to_owned());
    known.unwrap_or(attribute)
}

/// The address in an attribute: what stands there without the spaces around it. What is no address has no answer but a refusal: imports
/// have them by the thousand.
pub fn address_in<'v>(attribute: &str, value: &'v Json) -> Option<&'v str> {
    let address = value.as_str().map(str::trim).filter(|address| !address.is_empty());
    address.filter(|address| attribute != "email" || is_mailbox(address))
}

/// What stands for the address in an attribute; none if there is none in it.
pub fn address_key(attribute: &str, value: &Json) -> Option<AddressKey> {
    address_in(attribute, value).map(|address| AddressKey::of(attribute, address))
}

/// The address that somebody has no more when the attribute goes from `was` to `value`: none if it is the same one written otherwise.
pub fn address_left(attribute: &str, was: &Json, value: &Json) -> Option<AddressKey> {
    address_key(attribute, was).filter(|left| address_key(attribute, value) != Some(*left))
}

/// The subject that stands for an address.
pub fn address_subject(address: AddressKey) -> Who {
    Who::address(&address.to_string())
}

/// Who is told what is said of an address. Of more the one that registered longest ago is forgotten, until it is written to again.
pub const HOLDERS_MAX: usize = 256;

/// So many different messages that did not get through within [`SOFT_BOUNCES_WITHIN_MS`] suppress an address for [`SOFT_SUPPRESSED_MS`].
pub const SOFT_BOUNCES: usize = 5;
pub const SOFT_BOUNCES_WITHIN_MS: i64 = 30 * DAY_MS;
pub const SOFT_SUPPRESSED_MS: i64 = 14 * DAY_MS;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HeldBy {
    /// `u:ID` or `a:ID`, by when they registered.
    pub holders: VecDeque<String>,
    /// Messages that did not get through, by their keys.
    pub soft: VecDeque<(String, Millis)>,
}

impl HeldBy {
    pub(super) fn has(&self, holder: &str) -> bool {
        self.holders.iter().any(|known| known == holder)
    }

    pub(super) fn add(&mut self, holder: &str) {
        if self.has(holder) {
            return;
        }
        self.holders.push_back(holder.to_owned());
        if self.holders.len() > HOLDERS_MAX {
            self.holders.pop_front();
        }
    }

    pub(super) fn remove(&mut self, holder: &str) {
        self.holders.retain(|known| known != holder);
    }

    pub(super) fn fail(&mut self, message: &str, at: Millis) {
        self.soft.push_back((message.to_owned(), at));
        if self.soft.len() > SOFT_BOUNCES {
            self.soft.pop_front();
        }
    }

    /// How many messages failed lately, as of `at`.
    pub(super) fn failed_lately(&self, at: Millis) -> usize {
        self.soft.iter().filter(|(_, said)| *said + SOFT_BOUNCES_WITHIN_MS > at).count()
    }
}

/// An address of a channel (as [`address_channel`] names it) as a person or a list writes it; none of what is none. Only a hash is kept of it,
/// so that nobody would see that it is of something else.
pub fn address_written(channel: &str, text: &str) -> Option<AddressKey> {
    let text = text.trim();
    let is_one = match channel {
        "email" => is_mailbox(text),
        "phone" => is_number(text),
        _ => !text.is_empty() && !text.contains(|c: char| c.is_control()),
    };
    (is_one && text.len() <= ADDRESS_BYTES_MAX).then(|| AddressKey::of(channel, text))
}

/// RFC 5321 gives an address 254 bytes; a push token is longer.
const ADDRESS_BYTES_MAX: usize = 1_024;

/// Digits, however they are grouped; the shortest that anybody is called by has three.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let is_grouping = |c: char| c == ' ' || c == '\u{a0}' || matches!(c, '-' | '(' | ')' | '.' | '/');
    digits.chars().all(|c| c.is_ascii_digit() || is_grouping(c)) && digits.chars().filter(char::is_ascii_digit).count() >= 3
}

/// Whether it could be an addr-spec of RFC 5322, section 3.4.1: something, one `@` that counts, a domain. Whether anyone has it is another matter.
pub(super) fn is_mailbox(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let is_domain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '[' | ']' | ':');
    let bare = local.strip_prefix('"').and_then(|quoted| quoted.strip_suffix('"')).unwrap_or(local);
    let is_special = |c: char| matches!(c, '@' | '<' | '>' | '(' | ')' | ':' | ',' | ';' | '"' | '\\' | '\u{feff}');
    let plain = !bare.is_empty() && !bare.contains(|c: char| c.is_whitespace() || c.is_control() || is_special(c));
    !local.is_empty() && plain && !domain.is_empty() && domain.chars().all(is_domain) && !domain.starts_with('.') && !domain.ends_with('.')
}
