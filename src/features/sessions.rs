//! Sessions: runs of events with no pause longer than the gap. The newest [`SESSIONS_MAX`] are kept one by one, older ones as sums.
//!
//! Sessions of a union of events are the connected unions of the parts' sessions, so merging is exact while it concerns kept sessions.
//! Once older ones were summed, an event or another profile's session among them can no longer be told apart: events there are left
//! out, whole sessions are added as they are.

use super::codec::{Error, Reader, put_u64};
use crate::domain::Millis;

pub const SESSIONS_MAX: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    pub start: Millis,
    pub end: Millis,
    pub events: u32,
}

impl Session {
    pub fn length_ms(&self) -> i64 {
        self.end.since_ms(self.start)
    }
}

/// Sums over sessions that are no longer kept one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Older {
    pub(crate) sessions: u64,
    pub(crate) events: u64,
    pub(crate) length_ms: u64,
    pub(crate) bounces: u64,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Sessions {
    pub(crate) older: Older,
    /// Oldest first; between neighbours more than the gap.
    pub(crate) kept: Vec<Session>,
}

/// Two sessions that had been told apart turned out to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    pub first_start: Millis,
    pub second_start: Millis,
}

impl Sessions {
    /// Adds an event; reports two closed sessions that it joins.
    pub(crate) fn add(&mut self, time: Millis, gap_ms: i64) -> Option<Joined> {
        if self.kept.last().is_some_and(|last| time < last.start) {
            return self.add_late(time, gap_ms);
        }
        if let Some(last) = self.kept.last_mut()
            && time.since_ms(last.end) <= gap_ms
        {
            last.end = last.end.max(time);
            last.events = last.events.saturating_add(1);
            return None;
        }
        self.kept.push(Session { start: time, end: time, events: 1 });
        self.trim();
        None
    }

    fn add_late(&mut self, time: Millis, gap_ms: i64) -> Option<Joined> {
        // The first session that starts after the event; there is one, or the event would not be late.
        let after = self.kept.partition_point(|session| session.start <= time);
        let joins_before = after > 0 && time.since_ms(self.kept[after - 1].end) <= gap_ms;
        let joins_after = after < self.kept.len() && self.kept[after].start.since_ms(time) <= gap_ms;
        match (joins_before, joins_after) {
            (true, true) => {
                let second = self.kept.remove(after);
                let first = &mut self.kept[after - 1];
                first.events = first.events.saturating_add(second.events).saturating_add(1);
                first.end = first.end.max(second.end);
                return Some(Joined { first_start: first.start, second_start: second.start });
            }
            (true, false) => {
                let first = &mut self.kept[after - 1];
                first.end = first.end.max(time);
                first.events = first.events.saturating_add(1);
            }
            (false, true) => {
                let second = &mut self.kept[after];
                second.start = time;
                second.events = second.events.saturating_add(1);
            }
            // Before everything kept, among sessions that are only sums.
            (false, false) if after == 0 && self.older.sessions > 0 => {}
            (false, false) => {
                self.kept.insert(after, Session { start: time, end: time, events: 1 });
                self.trim();
            }
        }
        None
    }

    fn trim(&mut self) {
        let excess = self.kept.len().saturating_sub(SESSIONS_MAX);
        for session in self.kept.drain(..excess) {
            self.older.sessions += 1;
            self.older.events += u64::from(session.events);
            self.older.length_ms = self.older.length_ms.saturating_add(session.length_ms() as u64);
            self.older.bounces += u64::from(session.events == 1);
        }
    }

    pub(crate) fn absorb(&mut self, other: &Sessions, gap_ms: i64) {
        self.older.sessions = self.older.sessions.saturating_add(other.older.sessions);
        self.older.events = self.older.events.saturating_add(other.older.events);
        self.older.length_ms = self.older.length_ms.saturating_add(other.older.length_ms);
        self.older.bounces = self.older.bounces.saturating_add(other.older.bounces);
        let mut all: Vec<Session> = self.kept.iter().chain(&other.kept).copied().collect();
        all.sort_by_key(|session| (session.start, session.end));
        self.kept.clear();
        for session in all {
            match self.kept.last_mut() {
                Some(last) if session.start.since_ms(last.end) <= gap_ms => {
                    last.end = last.end.max(session.end);
                    last.events = last.events.saturating_add(session.events);
                }
                _ => self.kept.push(session),
            }
        }
        self.trim();
    }

    /// Sums over all sessions, kept and older.
    pub(crate) fn sums(&self) -> Older {
        let mut sums = self.older;
        for session in &self.kept {
            sums.sessions = sums.sessions.saturating_add(1);
            sums.events = sums.events.saturating_add(u64::from(session.events));
            sums.length_ms = sums.length_ms.saturating_add(session.length_ms() as u64);
            sums.bounces = sums.bounces.saturating_add(u64::from(session.events == 1));
        }
        sums
    }

    pub(crate) fn encode(&self, newest: Millis, out: &mut Vec<u8>) {
        let Older { sessions, events, length_ms, bounces } = self.older;
        put_u64(out, self.kept.len() as u64 + if sessions > 0 { 64 } else { 0 });
        if sessions > 0 {
            for sum in [sessions, events, length_ms, bounces] {
                put_u64(out, sum);
            }
        }
        let mut next = newest;
        for session in self.kept.iter().rev() {
            put_u64(out, next.since_ms(session.end) as u64);
            put_u64(out, session.length_ms() as u64);
            put_u64(out, u64::from(session.events));
            next = session.start;
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>, newest: Millis) -> Result<Sessions, Error> {
        let head = reader.len(64 + SESSIONS_MAX)?;
        let mut older = Older::default();
        if head >= 64 {
            older = Older { sessions: reader.total()?, events: reader.total()?, length_ms: reader.total()?, bounces: reader.total()? };
        }
        let len = head % 64;
        if len > SESSIONS_MAX || (head >= 64 && older.sessions == 0) {
            return reader.broken("more sessions than are ever kept");
        }
        let mut kept = Vec::with_capacity(len);
        let mut next = newest;
        for _ in 0..len {
            let end = reader.time_before(next)?;
            let start = reader.time_before(end)?;
            let events = reader.u32()?;
            kept.push(Session { start, end, events });
            next = start;
        }
        kept.reverse();
        Ok(Sessions { older, kept })
    }
}
