//! The last [`RECENT_MAX`] things the person did, newest last: what gaps, intent and funnels are read from.
//!
//! An entry is its time and its event type's slot in one integer, so the list is canonical: ordered by time, then by type name.

use super::codec::{Error, Reader, put_u64};
use crate::domain::Millis;

pub const RECENT_MAX: usize = 50;
const SLOT_BITS: u32 = 8;

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Recent {
    entries: Vec<i64>,
}

fn pack(time: Millis, slot: u8) -> i64 {
    // Clamped times need 49 bits, so nothing is shifted out.
    time.0 << SLOT_BITS | i64::from(slot)
}

fn unpack(entry: i64) -> (Millis, usize) {
    (Millis(entry >> SLOT_BITS), (entry & 0xff) as usize)
}

impl Recent {
    /// Oldest first: (time, slot of the event type).
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (Millis, usize)> + ExactSizeIterator {
        self.entries.iter().map(|entry| unpack(*entry))
    }

    pub(crate) fn add(&mut self, time: Millis, slot: u8) {
        let entry = pack(time, slot);
        let at = match self.entries.last() {
            Some(last) if *last > entry => self.entries.partition_point(|other| *other <= entry),
            _ => self.entries.len(),
        };
        if self.entries.len() < RECENT_MAX {
            self.entries.insert(at, entry);
        } else if at > 0 {
            // The oldest makes room.
            self.entries.copy_within(1..at, 0);
            self.entries[at - 1] = entry;
        }
    }

    /// Follows the type table: `slots` gives each old slot's new one.
    pub(crate) fn renumber(&mut self, slots: impl Fn(u8) -> u8) {
        for entry in &mut self.entries {
            let (time, slot) = unpack(*entry);
            *entry = pack(time, slots(slot as u8));
        }
        if !self.entries.is_sorted() {
            self.entries.sort_unstable();
        }
    }

    pub(crate) fn absorb(&mut self, other: &Recent) {
        self.entries.extend(&other.entries);
        self.entries.sort_unstable();
        let excess = self.entries.len().saturating_sub(RECENT_MAX);
        self.entries.drain(..excess);
    }

    /// Milliseconds between neighbours, oldest first.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = i64> {
        self.entries.windows(2).map(|pair| unpack(pair[1]).0.since_ms(unpack(pair[0]).0))
    }

    pub(crate) fn encode(&self, newest: Millis, out: &mut Vec<u8>) {
        put_u64(out, self.entries.len() as u64);
        let mut next = newest;
        for (time, slot) in self.iter().rev() {
            put_u64(out, next.since_ms(time) as u64);
            out.push(slot as u8);
            next = time;
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>, newest: Millis, types: usize) -> Result<Recent, Error> {
        let len = reader.len(RECENT_MAX)?;
        let mut entries = Vec::with_capacity(len);
        let mut next = newest;
        for _ in 0..len {
            next = reader.time_before(next)?;
            let slot = reader.u8()?;
            if usize::from(slot) >= types {
                return reader.broken("a recent event of no known type");
            }
            entries.push(pack(next, slot));
        }
        entries.reverse();
        if !entries.is_sorted() {
            return reader.broken("recent events out of order");
        }
        Ok(Recent { entries })
    }
}
