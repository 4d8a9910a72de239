//! The compact bytes of a profile's state: LEB128 varints, zigzag for signed numbers, length-prefixed text, one version byte in front.
//!
//! Writing is canonical: the same state gives the same bytes. Reading never panics and never reserves memory that the input cannot fill.

use super::observe::clamp_time;
use crate::domain::Millis;
use crate::domain::varint::{self, Unreadable};

/// Raised whenever the bytes of a profile's state, or what a fold makes of an event, can change.
pub const VERSION: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("profile state ends in the middle of a value (byte {at})")]
    Truncated { at: usize },
    #[error("profile state is of version {found}, this build reads {VERSION}")]
    Version { found: u8 },
    #[error("profile state is broken at byte {at}: {what}")]
    Broken { at: usize, what: &'static str },
}

pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    varint::put(out, value);
}

pub(crate) fn put_i64(out: &mut Vec<u8>, value: i64) {
    varint::put(out, varint::zigzag(value));
}

pub(crate) fn put_str(out: &mut Vec<u8>, text: &str) {
    put_u64(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn broken<T>(&self, what: &'static str) -> Result<T, Error> {
        Err(Error::Broken { at: self.at, what })
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        let byte = *self.bytes.get(self.at).ok_or(Error::Truncated { at: self.at })?;
        self.at += 1;
        Ok(byte)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        let mut rest = &self.bytes[self.at..];
        let taken = varint::take(&mut rest);
        self.at = self.bytes.len() - rest.len();
        match taken {
            Ok(value) => Ok(value),
            Err(Unreadable::Cut) => Err(Error::Truncated { at: self.at }),
            Err(Unreadable::TooLarge) => self.broken("number too large"),
        }
    }

    /// A running total: bounded, so that adding to it cannot overflow.
    pub(crate) fn total(&mut self) -> Result<u64, Error> {
        match self.u64()? {
            total if total < 1 << 52 => Ok(total),
            _ => self.broken("total too large"),
        }
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        match u32::try_from(self.u64()?) {
            Ok(value) => Ok(value),
            Err(_) => self.broken("number too large"),
        }
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Error> {
        Ok(varint::unzigzag(self.u64()?))
    }

    /// A point in time as its distance before a later one; times stay in the range that observations are clamped to.
    pub(crate) fn time_before(&mut self, later: Millis) -> Result<Millis, Error> {
        let distance = self.u64()?;
        match i64::try_from(distance).ok().and_then(|ms| later.0.checked_sub(ms)) {
            Some(ms) if clamp_time(ms).0 == ms => Ok(Millis(ms)),
            _ => self.broken("time out of range"),
        }
    }

    /// A point in time as it is.
    pub(crate) fn time(&mut self) -> Result<Millis, Error> {
        let ms = self.i64()?;
        if clamp_time(ms).0 == ms { Ok(Millis(ms)) } else { self.broken("time out of range") }
    }

    /// A count of things of which there are at most `max`.
    pub(crate) fn len(&mut self, max: usize) -> Result<usize, Error> {
        match usize::try_from(self.u64()?) {
            Ok(len) if len <= max => Ok(len),
            _ => self.broken("more entries than are ever kept"),
        }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else { return Err(Error::Truncated { at: self.at }) };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub(crate) fn str(&mut self, max: usize) -> Result<&'a str, Error> {
        let len = self.len(max)?;
        let bytes = self.bytes(len)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(_) => self.broken("text is not UTF-8"),
        }
    }

    pub(crate) fn finish(&self) -> Result<(), Error> {
        if self.at == self.bytes.len() { Ok(()) } else { self.broken("bytes left over") }
    }
}
