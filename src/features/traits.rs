//! What is known about the person from identify and group calls: the newest value of each trait, bounded in number and bytes.
//!
//! Values are JSON text as it came. Of two statements the newer holds, of two at once the greater text. A trait that finds no room is
//! left out: names already known keep their place, so which traits are kept depends on the order only beyond the bound.

use super::codec::{Error, Reader, put_str, put_u64};
use crate::domain::Millis;

pub const TRAITS_MAX: usize = 48;
pub const TRAIT_NAME_BYTES_MAX: usize = 64;
pub const TRAIT_VALUE_BYTES_MAX: usize = 256;
/// Names and values together.
pub const TRAITS_BYTES_MAX: usize = 1_600;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trait {
    pub(crate) name: Box<str>,
    pub(crate) value: Box<str>,
    at: Millis,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Traits {
    /// Sorted by name.
    list: Vec<Trait>,
}

impl Traits {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let at = self.list.binary_search_by(|known| (*known.name).cmp(name)).ok()?;
        Some(&self.list[at].value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.list.iter().map(|known| (&*known.name, &*known.value))
    }

    fn bytes(&self) -> usize {
        self.list.iter().map(|known| known.name.len() + known.value.len()).sum()
    }

    /// True if the trait's value in force changed.
    pub(crate) fn state(&mut self, name: &str, value: &str, at: Millis) -> bool {
        if name.is_empty() || name.len() > TRAIT_NAME_BYTES_MAX || value.is_empty() || value.len() > TRAIT_VALUE_BYTES_MAX {
            return false;
        }
        let found = self.list.binary_search_by(|known| (*known.name).cmp(name));
        let spare = TRAITS_BYTES_MAX - self.bytes().min(TRAITS_BYTES_MAX);
        match found {
            Ok(place) => {
                let known = &mut self.list[place];
                if (known.at, &*known.value) >= (at, value) || value.len() > known.value.len() + spare {
                    return false;
                }
                known.at = at;
                let changed = *known.value != *value;
                if changed {
                    known.value = value.into();
                }
                changed
            }
            Err(_) if self.list.len() >= TRAITS_MAX || name.len() + value.len() > spare => false,
            Err(place) => {
                self.list.insert(place, Trait { name: name.into(), value: value.into(), at });
                true
            }
        }
    }

    pub(crate) fn absorb(&mut self, other: &Traits) {
        for theirs in &other.list {
            self.state(&theirs.name, &theirs.value, theirs.at);
        }
    }

    pub(crate) fn encode(&self, newest: Millis, out: &mut Vec<u8>) {
        put_u64(out, self.list.len() as u64);
        for known in &self.list {
            put_str(out, &known.name);
            put_str(out, &known.value);
            put_u64(out, newest.since_ms(known.at) as u64);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>, newest: Millis) -> Result<Traits, Error> {
        let len = reader.len(TRAITS_MAX)?;
        let mut list: Vec<Trait> = Vec::with_capacity(len);
        for _ in 0..len {
            let name = reader.str(TRAIT_NAME_BYTES_MAX)?;
            let value = reader.str(TRAIT_VALUE_BYTES_MAX)?;
            if list.last().is_some_and(|last| *last.name >= *name) {
                return reader.broken("traits out of order");
            }
            list.push(Trait { name: name.into(), value: value.into(), at: reader.time_before(newest)? });
        }
        Ok(Traits { list })
    }
}
