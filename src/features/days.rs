//! A count per UTC day, sparse and oldest first: what the windows over acts and orders are read from.

use super::codec::{Error, Reader, put_u64};
use crate::domain::{DAY_MS, Millis};

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Days {
    /// (day since 1970, count).
    pub(crate) list: Vec<(i32, u32)>,
}

pub(crate) fn day_of(time: Millis) -> i32 {
    time.0.div_euclid(DAY_MS) as i32
}

impl Days {
    pub(crate) fn add(&mut self, day: i32, count: u32) {
        match self.list.last_mut() {
            Some(last) if last.0 == day => last.1 = last.1.saturating_add(count),
            Some(last) if last.0 > day => match self.list.binary_search_by_key(&day, |entry| entry.0) {
                Ok(at) => self.list[at].1 = self.list[at].1.saturating_add(count),
                Err(at) => self.list.insert(at, (day, count)),
            },
            _ => self.list.push((day, count)),
        }
    }

    /// Drops the days before `day`.
    pub(crate) fn forget_before(&mut self, day: i32) {
        if self.list.first().is_some_and(|first| first.0 < day) {
            let gone = self.list.partition_point(|entry| entry.0 < day);
            self.list.drain(..gone);
        }
    }

    pub(crate) fn absorb(&mut self, other: &Days) {
        for (day, count) in &other.list {
            self.add(*day, *count);
        }
    }

    /// The days from `first` to `last` days before `now`'s (0 is that day itself).
    fn back(&self, first: i32, last: i32, now: Millis) -> impl Iterator<Item = &(i32, u32)> {
        let today = day_of(now);
        let reached = self.list.iter().rev().take_while(move |entry| entry.0 >= today - first);
        reached.filter(move |entry| entry.0 <= today - last)
    }

    pub(crate) fn sum_back(&self, first: i32, last: i32, now: Millis) -> u64 {
        self.back(first, last, now).map(|entry| u64::from(entry.1)).sum()
    }

    /// How many of the last `days` days have a count.
    pub(crate) fn active(&self, days: i32, now: Millis) -> u64 {
        self.back(days - 1, 0, now).count() as u64
    }

    /// When the oldest of the last `days` days that has a count leaves them.
    pub(crate) fn leaves(&self, days: i32, after: Millis) -> Option<Millis> {
        let oldest = self.back(days - 1, i32::MIN / 2, after).last()?;
        Some(Millis(i64::from(oldest.0 + days) * DAY_MS))
    }

    /// From the newest day back: its distance before the next newer one, less one, and its count.
    pub(crate) fn encode(&self, newest: i32, out: &mut Vec<u8>) {
        put_u64(out, self.list.len() as u64);
        let mut next = newest + 1;
        for (day, count) in self.list.iter().rev() {
            let gap = (next - day - 1) as u64;
            put_u64(out, u64::from(*count) << 1 | u64::from(gap > 0));
            if gap > 0 {
                put_u64(out, gap);
            }
            next = *day;
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>, newest: i32, max: usize) -> Result<Days, Error> {
        let len = reader.len(max)?;
        let mut list = Vec::with_capacity(len);
        let mut next = i64::from(newest) + 1;
        for _ in 0..len {
            let head = reader.u64()?;
            let gap = if head & 1 == 1 { i64::from(reader.u32()?) } else { 0 };
            next -= gap + 1;
            let count = u32::try_from(head >> 1).unwrap_or(0);
            match i32::try_from(next) {
                Ok(day) if count > 0 && day > i32::MIN / 4 && (gap > 0) == (head & 1 == 1) => list.push((day, count)),
                _ => return reader.broken("a day out of range"),
            }
        }
        list.reverse();
        Ok(Days { list })
    }
}
