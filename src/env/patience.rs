//! How long whoever was refused waits before trying again, and how often it is said: a full disk lasts, and is one line, not thousands.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use crate::domain::Millis;

/// A refusal that lasts is said this often.
const TELL_EVERY_MS: i64 = 10_000;
/// The first pause doubles this often: with the usual 100 ms up to 1.6 s, so that room is noticed within seconds.
const DOUBLED_MAX: u32 = 4;

#[derive(Debug)]
pub struct Patience {
    refusals: AtomicU32,
    told: AtomicI64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { refusals: AtomicU32::new(0), told: AtomicI64::new(i64::MIN) }
    }
}

impl Patience {
    /// After one more refusal: how long to wait, and whether to say so.
    pub fn refused(&self, first_pause_ms: i64, now: Millis) -> (i64, bool) {
        let before = self.refusals.fetch_add(1, Ordering::Relaxed);
        let told = self.told.load(Ordering::Relaxed);
        let tell = now.0 < told || now.0.saturating_sub(told) >= TELL_EVERY_MS;
        if tell {
            self.told.store(now.0, Ordering::Relaxed);
        }
        (first_pause_ms << before.min(DOUBLED_MAX), tell)
    }

    /// It was taken.
    pub fn taken(&self) {
        self.refusals.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_for_long_is_tried_less_often_and_said_every_ten_seconds() {
        let patience = Patience::default();
        let mut now = 0;
        let mut said = Vec::new();
        let mut pauses = Vec::new();
        for _ in 0..20 {
            let (pause, tell) = patience.refused(100, Millis(now));
            pauses.push(pause);
            said.extend(tell.then_some(now));
            now += pause;
        }
        assert_eq!(pauses[..6], [100, 200, 400, 800, 1_600, 1_600]);
        assert_eq!(said, [0, 11_100, 22_300]);
        patience.taken();
        assert_eq!(patience.refused(100, Millis(now)).0, 100);
    }
}
