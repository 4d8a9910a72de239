//! One destination's messages between permit and sending: how many may be asked for ahead of what can be sent, and which permits are to be
//! given back before they run out. Pure, with time passed in; whose turn it is to ask is [`super::schedule`]'s.
//!
//! A permit is good for a minute or so from asking, and takes as long as partition time does to come. So that none runs out in the queue,
//! no more is asked for than is sent, as fast as it went lately, within a share of that time.

use std::collections::VecDeque;

use super::pending::Slot;
use crate::permit::Grant;

/// The most that is asked for ahead for each that can be sent at once.
const AHEAD_MAX: u64 = 64;
/// What a permit is good for until one has come.
const VALID_MS: u64 = 60_000;
/// Of a permit's time, what the queue may take: one part in so many.
const QUEUE_SHARE: u64 = 4;

/// A permit that came, and waits for its message's turn to be sent.
#[derive(Debug)]
pub(super) struct Granted {
    pub slot: Slot,
    pub generation: u32,
    pub attempt: u32,
    pub grant: Box<Grant>,
    pub to: String,
    /// By the executor's own clock: later there is too little of the permit left to send in.
    pub begin_by: u64,
}

#[derive(Debug)]
pub(super) struct Lane {
    /// How many at once.
    pub concurrency: u32,
    /// With their performer.
    pub performing: u32,
    /// Its attempts wait for permits.
    pub is_channel: bool,
    granted: VecDeque<Granted>,
    /// The first `begin_by` of them.
    first: Option<u64>,
    /// How long sending takes, as of lately.
    took_ms: Option<u64>,
    valid_ms: u64,
}

/// When a message asked for at `asked` has to be begun, of a permit that is good for so long: with a quarter of it left to send in.
pub(super) fn begin_by(asked: u64, valid_ms: u64) -> u64 {
    asked.saturating_add(valid_ms - valid_ms / 4)
}

/// How long a permit is good for.
pub(super) fn valid_ms(grant: &Grant) -> u64 {
    grant.until().since_ms(grant.at()).max(0).unsigned_abs()
}

impl Lane {
    pub fn new(concurrency: u32, is_channel: bool) -> Self {
        let concurrency = concurrency.max(1);
        Self { concurrency, performing: 0, is_channel, granted: VecDeque::new(), first: None, took_ms: None, valid_ms: VALID_MS }
    }

    /// How many attempts may be anywhere between asking and their end.
    pub fn places(&self) -> u32 {
        self.concurrency.saturating_add(if self.is_channel { self.ahead() } else { 0 })
    }

    /// Before anything was sent as many as can be sent at once, so that a slow destination is met with few.
    fn ahead(&self) -> u32 {
        let at_once = u64::from(self.concurrency);
        let Some(took_ms) = self.took_ms else { return self.concurrency };
        let ahead = at_once * (self.valid_ms / QUEUE_SHARE) / took_ms.max(1);
        u32::try_from(ahead.min(at_once * AHEAD_MAX)).unwrap_or(u32::MAX)
    }

    /// A message took so long to send. What gets slower is believed sooner than what gets faster.
    pub fn took(&mut self, ms: u64) {
        self.took_ms = Some(match self.took_ms {
            None => ms,
            Some(took) if ms > took => took + (ms - took).div_ceil(2),
            Some(took) => took - (took - ms) / 8,
        });
    }

    pub fn push(&mut self, granted: Granted) {
        self.valid_ms = valid_ms(&granted.grant).max(1);
        self.first = Some(self.first.map_or(granted.begin_by, |first| first.min(granted.begin_by)));
        self.granted.push_back(granted);
    }

    /// The next to be sent, if there is a place for it.
    pub fn next(&mut self) -> Option<Granted> {
        if self.performing >= self.concurrency {
            return None;
        }
        self.granted.pop_front()
    }

    /// Those that will not be sent in time.
    pub fn take_late(&mut self, now: u64) -> Vec<Granted> {
        if self.first.is_none_or(|first| now < first) {
            return Vec::new();
        }
        let (late, kept) = self.granted.drain(..).partition(|granted| granted.begin_by <= now);
        self.granted = kept;
        self.first = self.granted.iter().map(|granted| granted.begin_by).min();
        Vec::from(late)
    }

    /// All of them: none is to be sent.
    pub fn take_all(&mut self) -> Vec<Granted> {
        self.first = None;
        Vec::from(std::mem::take(&mut self.granted))
    }

    /// When [`take_late`](Lane::take_late) next has something.
    pub fn next_late(&self) -> Option<u64> {
        self.first.filter(|_| !self.granted.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_asked_for_ahead_than_is_sent_within_a_quarter_of_a_permits_time() {
        let mut lane = Lane::new(16, true);
        assert_eq!(lane.places(), 32, "before anything was sent");
        for (took_ms, ahead) in [(1_000, 16 * 15), (10, 16 * 64), (5_000, 16 * 3), (16_000, 15), (300_000, 0)] {
            (0..200).for_each(|_| lane.took(took_ms));
            assert_eq!(lane.places() - 16, ahead, "each takes {took_ms} ms");
            let last_waits_ms = u64::from(ahead).div_ceil(16) * took_ms;
            assert!(ahead == 0 || last_waits_ms <= 16_000, "{last_waits_ms}");
        }
        assert_eq!(Lane::new(16, false).places(), 16, "what needs no permit is not asked for ahead");
    }

    #[test]
    fn what_gets_slower_is_believed_at_once_and_what_gets_faster_after_a_while() {
        let mut lane = Lane::new(4, true);
        (0..100).for_each(|_| lane.took(100));
        let fast = lane.places();
        (0..3).for_each(|_| lane.took(60_000));
        assert!(lane.places() <= 5, "{}", lane.places());
        (0..3).for_each(|_| lane.took(100));
        assert!(lane.places() < fast);
        (0..100).for_each(|_| lane.took(100));
        assert_eq!(lane.places(), fast);
    }
}
