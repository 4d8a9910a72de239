//! How far the decoders of `inbox` are, as they say it in `intake`: no time is stated beyond the one that is furthest behind.
//!
//! What they said is the fold's memo. Beside it is only who has spoken since the last statement, so that time goes on as soon as all have and
//! not a tick later.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::Millis;

#[derive(Debug)]
pub(super) struct Feeders {
    count: u32,
    spoken: BTreeSet<i32>,
}

impl Feeders {
    pub(super) fn of(count: u32) -> Self {
        Self { count, spoken: BTreeSet::new() }
    }

    /// Notes what the decoder of this partition says.
    pub(super) fn hear(&mut self, times: &mut BTreeMap<i32, i64>, feeder: i32, time: i64) {
        let known = times.entry(feeder).or_insert(time);
        *known = time.max(*known);
        self.spoken.insert(feeder);
    }

    /// Whether each of them has said something that was not told on yet.
    pub(super) fn have_all_spoken(&self) -> bool {
        self.count > 0 && self.spoken.len() >= self.count as usize
    }

    /// The fold has stated its time.
    pub(super) fn told(&mut self) {
        self.spoken.clear();
    }

    /// Up to when all have decoded what came, without end where there is no inbox; `None` while one of them has said nothing.
    pub(super) fn time(&self, times: &BTreeMap<i32, i64>) -> Option<Millis> {
        let time = |feeder: u32| times.get(&(feeder as i32)).copied();
        (0..self.count).try_fold(Millis::MAX, |least, feeder| time(feeder).map(|time| least.min(Millis(time))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_the_least_of_all_and_unknown_while_one_is_silent() {
        let mut times = BTreeMap::new();
        assert_eq!(Feeders::of(0).time(&times), Some(Millis::MAX));
        let mut feeders = Feeders::of(2);
        feeders.hear(&mut times, 0, 5);
        assert_eq!((feeders.time(&times), feeders.have_all_spoken()), (None, false));
        feeders.hear(&mut times, 1, 3);
        feeders.hear(&mut times, 1, 2);
        assert_eq!((feeders.time(&times), feeders.have_all_spoken()), (Some(Millis(3)), true));
        feeders.told();
        assert_eq!((feeders.time(&times), feeders.have_all_spoken()), (Some(Millis(3)), false));
    }
}
