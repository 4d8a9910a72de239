//! Which refusals get a line of their own: the first of each code in a second, with how many came since the line before it.
//!
//! An overload is thousands of refusals a second, and a line for each would make it worse. Metrics count them all, and at debug level
//! every one has its line.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

const LINE_EVERY: Duration = Duration::from_secs(1);

/// By status and code. The set is bounded: both are the server's own words.
#[derive(Debug)]
pub(super) struct Refusals {
    start: Instant,
    kinds: Mutex<BTreeMap<(u16, &'static str), Told>>,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    at: Duration,
    since: u64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { start: Instant::now(), kinds: Mutex::default() }
    }
}

impl Refusals {
    /// Counts one. If it is to be told: how many like it were not, since the last that was.
    pub(super) fn next(&self, status: u16, code: &'static str) -> Option<u64> {
        self.next_at(status, code, self.start.elapsed())
    }

    fn next_at(&self, status: u16, code: &'static str, now: Duration) -> Option<u64> {
        let mut kinds = self.kinds.lock();
        let Some(told) = kinds.get_mut(&(status, code)) else {
            kinds.insert((status, code), Told { at: now, since: 0 });
            return Some(0);
        };
        if now < told.at + LINE_EVERY {
            told.since += 1;
            return None;
        }
        let others = told.since;
        *told = Told { at: now, since: 0 };
        Some(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_code_in_a_second_is_told_with_the_number_of_the_others() {
        let refusals = Refusals::default();
        let at = |ms, code| refusals.next_at(429, code, Duration::from_millis(ms));
        assert_eq!([at(0, "overloaded"), at(1, "overloaded"), at(2, "no_space"), at(999, "overloaded")], [Some(0), None, Some(0), None]);
        assert_eq!([at(1_000, "overloaded"), at(1_001, "overloaded"), at(9_000, "overloaded")], [Some(2), None, Some(1)]);
    }
}
