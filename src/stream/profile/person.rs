//! One person as the profile fold keeps them, and the bytes they are stored as.
//!
//! The bytes are canonical and begin with a format byte. The rare parts (waiting for an absorb, having been absorbed) cost one byte when
//! absent.

use smallvec::SmallVec;

use super::super::Error;
use super::past::Past;
use crate::consent::Consent;
use crate::domain::{HOUR_MS, Millis, Offset, varint};
use crate::features::Profile;
use crate::state::Upto;

/// The most events that are kept back for an absorb that does not come, and their bytes. Beyond it the person goes on without; the absorb
/// is merged when it does come.
pub(super) const HELD_EVENTS_MAX: usize = 256;
pub(super) const HELD_BYTES_MAX: usize = 128 << 10;

const FORMAT: u8 = 1;
const HAS_WAKE: u8 = 1;
const HAS_WAITING: u8 = 1 << 1;
const HAS_HEIRS: u8 = 1 << 2;
/// With the time since when, which states of before there was a bound have not.
const HAS_WAITING_SINCE: u8 = 1 << 3;
const HAS_PAST: u8 = 1 << 4;
const HAS_REFUSED: u8 = 1 << 5;

/// On wall time, how long an absorb is waited for, by partition time. In event time the importer may state a year at once, past an absorb
/// that is on its way, so that there only the person's own events bound the wait.
pub(super) const WAIT_MS_MAX: i64 = HOUR_MS;

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Person {
    pub(super) profile: Profile,
    pub(super) consent: Consent,
    /// Membership by the bits of `Memo`.
    pub(super) segments: SmallVec<[u64; 1]>,
    /// When time alone can next change something; current unless `is_wake_stale`.
    pub(super) wake: Option<Millis>,
    /// Everything below this offset has been applied.
    pub(super) applied: Offset,
    pub(super) waiting: Option<Box<Waiting>>,
    /// Whom this anonymous profile went to, from when; oldest first. Empty for everyone else.
    pub(super) heirs: Vec<Heir>,
    /// Of an anonymous person: what the user whom they may become is to hear.
    pub(super) past: Option<Box<Past>>,
    /// Their records since the last flush or the one before that became dead letters.
    pub(super) refused: Vec<Offset>,
    // Not stored:
    pub(super) is_wake_stale: bool,
    /// No segment flips by itself before this, where known: a bound at hand, while the very time is worked out only for who is stored.
    pub(super) quiet_until: Option<Millis>,
    /// The wake-up that the stored index has.
    pub(super) wake_stored: Option<Millis>,
    /// Read with more in it than its table's watermark says.
    pub(super) ahead: Option<Box<Upto>>,
    /// To be stored with the next flush.
    pub(super) is_dirty: bool,
    /// To be written to `profiles` with the next commit.
    pub(super) is_touched: bool,
}

/// Between `Expect` and `Absorb`: what comes meanwhile is kept back, so that it is applied after what happened before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Anonymous ids whose absorb is on its way.
    pub(super) expected: Vec<Box<str>>,
    /// Values of `events` records, in order.
    pub(super) held: Vec<Box<[u8]>>,
    /// When the newest of them was announced, by partition time where that is known.
    pub(super) since: Option<Millis>,
}

impl Waiting {
    pub(super) fn is_full(&self) -> bool {
        self.held.len() >= HELD_EVENTS_MAX || self.held.iter().map(|value| value.len()).sum::<usize>() >= HELD_BYTES_MAX
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heir {
    pub(super) user_id: Box<str>,
    pub(super) from: Millis,
}

impl Person {
    pub(super) fn is_member(&self, bit: usize) -> bool {
        self.segments.get(bit / 64).is_some_and(|word| word & (1 << (bit % 64)) != 0)
    }

    pub(super) fn set_member(&mut self, bit: usize, is_member: bool) {
        if self.segments.len() <= bit / 64 {
            if !is_member {
                return;
            }
            self.segments.resize(bit / 64 + 1, 0);
        }
        let word = &mut self.segments[bit / 64];
        if is_member {
            *word |= 1 << (bit % 64)
        } else {
            *word &= !(1 << (bit % 64))
        }
        while self.segments.last() == Some(&0) {
            self.segments.pop();
        }
    }

    /// The tie in force at `time`; what is older than all goes where the first history went.
    pub(super) fn heir_at(&self, time: Millis) -> Option<&Heir> {
        self.heirs.iter().rev().find(|heir| heir.from <= time).or(self.heirs.first())
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let since = self.waiting.as_ref().and_then(|waiting| waiting.since);
        let marks = [
            (self.wake.is_some(), HAS_WAKE),
            (self.waiting.is_some(), HAS_WAITING),
            (!self.heirs.is_empty(), HAS_HEIRS),
            (since.is_some(), HAS_WAITING_SINCE),
            (self.past.is_some(), HAS_PAST),
            (!self.refused.is_empty(), HAS_REFUSED),
        ];
        out.push(FORMAT);
        out.push(marks.iter().filter(|(there, _)| *there).fold(0, |mask, (_, mark)| mask | mark));
        varint::put(out, self.applied.0);
        if let Some(wake) = self.wake {
            out.extend_from_slice(&wake.0.to_le_bytes());
        }
        varint::put(out, self.segments.len() as u64);
        self.segments.iter().for_each(|word| varint::put(out, *word));
        if let Some(waiting) = &self.waiting {
            varint::put(out, waiting.expected.len() as u64);
            waiting.expected.iter().for_each(|id| put_bytes(out, id.as_bytes()));
            varint::put(out, waiting.held.len() as u64);
            waiting.held.iter().for_each(|value| put_bytes(out, value));
            out.extend(since.into_iter().flat_map(|since| since.0.to_le_bytes()));
        }
        if !self.heirs.is_empty() {
            varint::put(out, self.heirs.len() as u64);
            for heir in &self.heirs {
                put_bytes(out, heir.user_id.as_bytes());
                out.extend_from_slice(&heir.from.0.to_le_bytes());
            }
        }
        if let Some(past) = &self.past {
            let mut bytes = Vec::new();
            past.encode(&mut bytes);
            put_bytes(out, &bytes);
        }
        if !self.refused.is_empty() {
            varint::put(out, self.refused.len() as u64);
            self.refused.iter().for_each(|offset| varint::put(out, offset.0));
        }
        encode_history(&self.profile, &self.consent, out);
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let corrupt = |detail: String| Error::Corrupt { what: "a stored person".into(), detail };
        let mut reader = Reader(bytes);
        let mut person = reader.person().ok_or_else(|| corrupt(format!("{} bytes end or begin in the wrong place", bytes.len())))?;
        (person.profile, person.consent) = decode_history(reader.0).map_err(corrupt)?;
        person.wake_stored = person.wake;
        // Of before there was a bound: its wake-up is not that of someone who waits.
        person.is_wake_stale = person.waiting.as_ref().is_some_and(|waiting| waiting.since.is_none());
        Ok(person)
    }
}

/// Profile and consent, as a person's state ends and as an absorb carries them.
pub(super) fn encode_history(profile: &Profile, consent: &Consent, out: &mut Vec<u8>) {
    let mut consents = Vec::new();
    consent.encode(&mut consents);
    put_bytes(out, &consents);
    profile.encode(out);
}

pub(super) fn decode_history(bytes: &[u8]) -> Result<(Profile, Consent), String> {
    let mut reader = Reader(bytes);
    let consent = reader.bytes().ok_or("the consent part is cut")?;
    let consent = Consent::decode(consent).map_err(|error| error.to_string())?;
    let profile = Profile::decode(reader.0).map_err(|error| error.to_string())?;
    Ok((profile, consent))
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn person(&mut self) -> Option<Person> {
        let mut person = Person::default();
        if self.byte()? != FORMAT {
            return None;
        }
        let marks = self.byte()?;
        person.applied = Offset(self.number()?);
        if marks & HAS_WAKE != 0 {
            person.wake = Some(self.time()?);
        }
        for _ in 0..self.number()? {
            person.segments.push(self.number()?);
        }
        if marks & HAS_WAITING != 0 {
            let mut waiting = Waiting::default();
            for _ in 0..self.number()? {
                waiting.expected.push(self.text()?);
            }
            for _ in 0..self.number()? {
                waiting.held.push(self.bytes()?.into());
            }
            if marks & HAS_WAITING_SINCE != 0 {
                waiting.since = Some(self.time()?);
            }
            person.waiting = Some(Box::new(waiting));
        }
        if marks & HAS_HEIRS != 0 {
            for _ in 0..self.number()? {
                person.heirs.push(Heir { user_id: self.text()?, from: self.time()? });
            }
        }
        if marks & HAS_PAST != 0 {
            person.past = Some(Box::new(Past::decode(self.bytes()?)?));
        }
        if marks & HAS_REFUSED != 0 {
            for _ in 0..self.number()? {
                person.refused.push(Offset(self.number()?));
            }
        }
        Some(person)
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        varint::take(&mut self.0).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let bytes = self.0.get(..len)?;
        self.0 = &self.0[len..];
        Some(bytes)
    }

    pub(super) fn text(&mut self) -> Option<Box<str>> {
        std::str::from_utf8(self.bytes()?).ok().map(Box::from)
    }

    pub(super) fn time(&mut self) -> Option<Millis> {
        let (time, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(Millis(i64::from_le_bytes(*time)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_comes_back_as_stored() {
        let waiting = |since| Waiting { expected: vec!["a1".into()], held: vec![vec![0, 1, 2].into(), vec![].into()], since };
        let heirs = vec![Heir { user_id: "u1".into(), from: Millis(5) }, Heir { user_id: "u2".into(), from: Millis(-9) }];
        let refused = vec![Offset(7), Offset(299)];
        let mut person =
            Person { applied: Offset(300), refused, wake: Some(Millis(-1)), wake_stored: Some(Millis(-1)), ..Person::default() };
        person.set_member(3, true);
        person.set_member(70, true);
        let some = |since| Some(Box::new(waiting(since)));
        for (waiting, heirs) in [(None, vec![]), (some(None), heirs.clone()), (some(Some(Millis(7))), heirs)] {
            let is_wake_stale = waiting.as_ref().is_some_and(|waiting| waiting.since.is_none());
            let person = Person { waiting, heirs, is_wake_stale, ..person.clone() };
            let mut bytes = Vec::new();
            person.encode(&mut bytes);
            assert_eq!(Person::decode(&bytes).unwrap(), person);
            assert!(Person::decode(&bytes[..5]).is_err());
        }
    }

    #[test]
    fn membership_takes_no_room_when_there_is_none() {
        let mut person = Person::default();
        person.set_member(200, false);
        assert!(person.segments.is_empty());
        person.set_member(64, true);
        assert!(person.is_member(64) && !person.is_member(63) && !person.is_member(1000));
        person.set_member(64, false);
        assert!(person.segments.is_empty());
    }

    #[test]
    fn a_late_event_goes_to_the_tie_in_force_at_its_time() {
        let heir = |user: &str, from| Heir { user_id: user.into(), from: Millis(from) };
        let person = Person { heirs: vec![heir("u1", 10), heir("u2", 20)], ..Person::default() };
        let of = |time| person.heir_at(Millis(time)).map(|heir| &*heir.user_id);
        assert_eq!([of(5), of(10), of(19), of(20), of(99)], [Some("u1"), Some("u1"), Some("u1"), Some("u2"), Some("u2")]);
    }
}
