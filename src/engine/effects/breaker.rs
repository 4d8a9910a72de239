//! The circuit breaker of one destination: after failures in a row, or too many of the last few, nothing is sent there for a while; then
//! one attempt tries. What it holds back is no attempt: it waits.

use serde::{Deserialize, Serialize};

/// Of how many results the share of failures is taken.
const WINDOW: u32 = 32;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// So many failures in a row open it.
    pub in_a_row: u32,
    /// So does this share of the last 32 results.
    pub percent: u32,
    /// For how long, doubled with each attempt that fails again.
    pub open_ms: u64,
    pub open_ms_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { in_a_row: 10, percent: 60, open_ms: 5_000, open_ms_max: 300_000 }
    }
}

/// What an attempt says about its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Works,
    Fails,
    /// Nothing: it never got there.
    Nothing,
}

#[derive(Debug, Clone, Default)]
pub struct Breaker {
    in_a_row: u32,
    /// The last results, newest in the lowest bit, 1 for a failure; and how many there were.
    results: u32,
    seen: u32,
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    until: u64,
    for_ms: u64,
    trying: bool,
}

impl Breaker {
    /// Whether an attempt may go now; while half open, one.
    pub fn admits(&self, now: u64) -> bool {
        self.open.is_none_or(|open| !open.trying && now >= open.until)
    }

    /// An attempt goes: until it has told, no other does if this one tries a destination that failed.
    pub fn goes(&mut self) {
        if let Some(open) = &mut self.open {
            open.trying = true;
        }
    }

    /// When it lets one through, if only time is in the way.
    pub fn opens_at(&self) -> Option<u64> {
        self.open.filter(|open| !open.trying).map(|open| open.until)
    }

    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// True if that opened or closed it.
    pub fn told(&mut self, told: Told, now: u64, settings: &Settings) -> bool {
        match told {
            Told::Nothing => {
                if let Some(open) = &mut self.open {
                    open.trying = false;
                }
                false
            }
            Told::Works => {
                let closes = self.open.is_some();
                if closes {
                    *self = Self::default();
                }
                self.in_a_row = 0;
                self.note(0);
                closes
            }
            Told::Fails => self.failed(now, settings),
        }
    }

    fn failed(&mut self, now: u64, settings: &Settings) -> bool {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.note(1);
        if let Some(open) = &mut self.open {
            // Those that went before it opened say nothing new.
            if open.trying {
                let for_ms = open.for_ms.saturating_mul(2).min(settings.open_ms_max.max(1));
                *open = Open { until: now.saturating_add(for_ms), for_ms, trying: false };
            }
            return false;
        }
        let share = u64::from(self.results.count_ones()) * 100;
        let too_many = self.seen >= WINDOW && share >= u64::from(settings.percent.max(1)) * u64::from(WINDOW);
        let opens = self.in_a_row >= settings.in_a_row.max(1) || too_many;
        if opens {
            let for_ms = settings.open_ms.max(1);
            self.open = Some(Open { until: now.saturating_add(for_ms), for_ms, trying: false });
        }
        opens
    }

    fn note(&mut self, result: u32) {
        self.results = self.results << 1 | result;
        self.seen = self.seen.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings { in_a_row: 3, percent: 50, open_ms: 100, open_ms_max: 300 };

    fn open() -> Breaker {
        let mut breaker = Breaker::default();
        assert_eq!([1, 2, 3].map(|now| breaker.told(Told::Fails, now, &SETTINGS)), [false, false, true]);
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_success_of_one_attempt_closes_it() {
        let mut breaker = open();
        assert!(!breaker.admits(102) && breaker.admits(103));
        assert_eq!(breaker.opens_at(), Some(103));
        breaker.goes();
        assert!(!breaker.admits(1_000), "one at a time");
        assert!(breaker.told(Told::Works, 110, &SETTINGS));
        assert!(breaker.admits(110) && !breaker.is_open());
    }

    #[test]
    fn each_attempt_that_fails_again_doubles_the_time_up_to_the_most() {
        let mut breaker = open();
        let mut now = 3;
        for wait in [100, 200, 300, 300] {
            assert!(!breaker.admits(now + wait - 1) && breaker.admits(now + wait));
            now += wait;
            breaker.goes();
            breaker.told(Told::Fails, now, &SETTINGS);
        }
    }

    #[test]
    fn every_second_failure_opens_it_too_and_single_ones_do_not() {
        let mut breaker = Breaker::default();
        let opened = (0..64).position(|n| breaker.told(if n % 2 == 0 { Told::Fails } else { Told::Works }, n, &SETTINGS));
        assert_eq!(opened, Some(32));
        let mut breaker = Breaker::default();
        assert!((0..640).all(|n| !breaker.told(if n % 3 == 0 { Told::Fails } else { Told::Works }, n, &SETTINGS)));
    }

    #[test]
    fn what_never_got_there_decides_nothing_and_what_went_before_prolongs_nothing() {
        let mut breaker = open();
        breaker.told(Told::Fails, 90, &SETTINGS);
        assert!(breaker.admits(103));
        breaker.goes();
        breaker.told(Told::Nothing, 104, &SETTINGS);
        assert!(breaker.admits(104));
    }
}
