//! Whether a namespace is quiet: nothing came for a while and nobody is due, so that saying how late it is would tell nobody anything.
//!
//! Every loop of the namespace tells and asks. It decides only when a tick is written, never what one means: ticks are records.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::Options;
use crate::domain::{Millis, PartitionId};

/// Events come in visits: this long after the last one, time still passes at its usual pace. Longer than states stay unstored, so that
/// who is due is read from the index and not worked out.
const QUIET_AFTER_MS: i64 = 10_000;

#[derive(Debug)]
pub struct Pulse {
    /// How many loops must have said when they are next due.
    loops: AtomicUsize,
    /// When the last record from outside was folded.
    news: AtomicI64,
    /// When somebody is next due, by loop; [`Millis::MAX`] for never.
    due: Mutex<BTreeMap<(&'static str, PartitionId), Millis>>,
}

impl Pulse {
    /// Of a namespace with this many loops; with more than there are it is never quiet.
    pub fn new(loops: usize) -> Self {
        Self { loops: AtomicUsize::new(loops), news: AtomicI64::new(i64::MIN), due: Mutex::default() }
    }

    pub(super) fn add_loop(&self) {
        self.loops.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn news(&self, now: Millis) {
        self.news.store(now.0, Ordering::Relaxed);
    }

    /// Nothing has come for a while.
    pub(super) fn is_calm(&self, now: Millis) -> bool {
        now.0.saturating_sub(self.news.load(Ordering::Relaxed)) >= QUIET_AFTER_MS
    }

    /// A loop that has done everything it could says when somebody of its partition is next due.
    pub(super) fn next_due(&self, stage: &'static str, partition: PartitionId, due: Option<Millis>) {
        self.due.lock().insert((stage, partition), due.unwrap_or(Millis::MAX));
    }

    /// Time between ticks as things are.
    pub(super) fn tick_interval_ms(&self, now: Millis, options: &Options) -> i64 {
        let is_quiet = || {
            let due = self.due.lock();
            due.len() >= self.loops.load(Ordering::Relaxed) && due.values().all(|due| *due > now)
        };
        let is_long = self.is_calm(now) && is_quiet();
        if is_long { options.tick_interval_ms.max(options.tick_idle_interval_ms) } else { options.tick_interval_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_told_seldom_only_while_nothing_comes_and_nobody_is_due() {
        let options = Options::default();
        let (short, long) = (options.tick_interval_ms, options.tick_idle_interval_ms);
        let pulse = Pulse::new(2);
        let at = |now: i64| pulse.tick_interval_ms(Millis(now), &options);
        assert_eq!(at(0), short, "nobody has said yet when they are due");
        pulse.next_due("intake", PartitionId(0), None);
        assert_eq!(at(0), short);
        pulse.next_due("profiles", PartitionId(0), Some(Millis(50_000)));
        assert_eq!(at(0), long);
        pulse.news(Millis(20_000));
        assert_eq!([at(20_000), at(29_999), at(30_000)], [short, short, long]);
        assert_eq!([at(49_999), at(50_000), at(70_000)], [long, short, short], "somebody is due");
        pulse.next_due("profiles", PartitionId(0), Some(Millis(90_000)));
        assert_eq!(at(70_000), long);
    }
}
