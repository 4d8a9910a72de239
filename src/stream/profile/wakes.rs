//! Wake-ups: when time alone changes something about a person, and the ticks that say how late it is.
//!
//! The person's state says when; the stored index of (due, key) only finds them. Those who changed since the last flush are looked at in
//! memory, the rest come from the index in pages, and both together run in order of (due, key) whatever was stored when.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::person::WAIT_MS_MAX;
use super::{Applied, CONTROL, ProfileFold};
use crate::domain::Millis;
use crate::features::Groups;
use crate::schema::records::Tick;
use crate::state::Wake;
use crate::stream::cache::Slot;
use crate::stream::definitions::NamespaceClock;
use crate::stream::fold::Window;
use crate::stream::outputs::Outputs;
use crate::stream::{Cursor, Error, Topic};

/// How many index entries are read at a time.
const PAGE: usize = 1_000;

/// How far a run of wake-ups got.
enum Ran {
    All,
    /// Up to and with this one; the rest belongs to another commit.
    Upto(Wake),
}

impl ProfileFold {
    pub(super) fn tick(&mut self, tick: &Tick, window: Window<'_>, out: &mut Outputs) -> Result<Applied, Error> {
        let moved = self.memo.hear(tick.feeder, tick.feeders, tick.time);
        let applied = self.time_moved(moved, window, out)?;
        // Those who were woken by then have said so, and no command of theirs comes after it.
        if applied == CONTROL && (moved || window.after.is_some()) {
            self.forward_time(out)?;
        }
        Ok(applied)
    }

    fn time_moved(&mut self, moved: bool, window: Window<'_>, out: &mut Outputs) -> Result<Applied, Error> {
        let after = match window.after {
            Some(Cursor::Sweep { .. }) => return self.sweep(window, out),
            Some(Cursor::Wake { due, key }) => Some(Wake { due: *due, key: key.clone() }),
            None if !moved => return Ok(CONTROL),
            None => None,
        };
        let until = match window.until {
            Some(Cursor::Wake { due, key }) => Some(Wake { due: *due, key: key.clone() }),
            _ => None,
        };
        if let Ran::Upto(wake) = self.run_due(after, until, out)? {
            return Ok(Applied::More(Cursor::Wake { due: wake.due, key: wake.key }));
        }
        if self.memo.due().is_some() {
            return Ok(Applied::More(Cursor::Sweep { after: Bytes::new() }));
        }
        Ok(CONTROL)
    }

    /// Wakes everyone due by partition time, at most as many as one commit should hold.
    fn run_due(&mut self, after: Option<Wake>, until: Option<Wake>, out: &mut Outputs) -> Result<Ran, Error> {
        let time = self.memo.time();
        let mut changed = self.due_in_memory(time, after.as_ref());
        let mut stored = Stored { page: Vec::new().into_iter().peekable(), after: after.clone(), is_done: false };
        let mut last = after;
        let mut woken = 0;
        loop {
            stored.fill(self, time)?;
            let from_memory = match (changed.first(), stored.page.peek()) {
                (None, None) => return Ok(Ran::All),
                (Some(mine), Some(theirs)) => mine <= theirs,
                (mine, _) => mine.is_some(),
            };
            let wake = if from_memory { changed.pop_first() } else { stored.page.next() }.expect("one of them was there");
            if until.as_ref().is_some_and(|until| wake > *until) {
                return Ok(Ran::Upto(until.expect("checked above")));
            }
            if woken == self.wakes_per_commit {
                return Ok(last.map_or(Ran::All, Ran::Upto));
            }
            let slot = self.load(&wake.key, None)?;
            let person = self.cache.get(slot);
            if !from_memory && person.wake_stored != Some(wake.due) {
                self.leftover.push(wake.clone());
            }
            if self.holds(slot, Some(Cursor::Wake { due: wake.due, key: wake.key.clone() })) {
                continue;
            }
            // The index may be behind: whoever changed since the last flush is in `changed` under the present due time.
            let is_hint_stale = !from_memory && person.is_dirty;
            if is_hint_stale || self.wake_by_or_never(slot, time) != Some(wake.due) {
                continue;
            }
            let at = if self.clock == NamespaceClock::Event { wake.due } else { time };
            woken += 1;
            let next = self.contained(slot, out, |fold, out| {
                match fold.cache.get(slot).waiting.is_some() {
                    true => fold.go_on_without(slot, out)?,
                    false => fold.wake(slot, at, out)?,
                }
                Ok(fold.wake_by(slot, time))
            });
            if let Some(due) = next? {
                changed.insert(Wake { due, key: wake.key.clone() });
            }
            last = Some(wake);
            if until == last || self.is_commit_full(out) {
                return Ok(last.map_or(Ran::All, Ran::Upto));
            }
        }
    }

    /// When a definition or a person is next due. Who is past due was passed by at a tick, for a reason, and waits for something else.
    pub(super) fn first_due(&self) -> Result<Option<Millis>, Error> {
        let after = Wake { due: self.memo.time() + 1, key: Bytes::new() };
        let stored = self.store.due(&self.table, Millis::MAX, Some(&after), 1)?.first().map(|wake| wake.due);
        // Worked out when states are stored. Before that nobody knows, and time goes on as usual.
        let due = |slot: &Slot| {
            let person = self.cache.get(*slot);
            if person.is_wake_stale { Some(self.memo.time()) } else { person.wake }
        };
        let changed = self.dirty.iter().filter_map(due).min();
        Ok(stored.into_iter().chain(changed).chain(self.memo.pending_from()).min())
    }

    /// Those whose state is not stored yet and who are due.
    fn due_in_memory(&mut self, time: Millis, after: Option<&Wake>) -> BTreeSet<Wake> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut due = BTreeSet::new();
        for slot in &dirty {
            let Some(wants) = self.wake_by_or_never(*slot, time) else { continue };
            let wake = Wake { due: wants, key: self.cache.key(*slot).clone() };
            if after.is_none_or(|after| wake > *after) {
                due.insert(wake);
            }
        }
        self.dirty = dirty;
        due
    }

    /// Runs the person's own wake-ups due by `time`, each at its own time.
    pub(super) fn wake_up_to(&mut self, slot: Slot, time: Millis, out: &mut Outputs) -> Result<(), Error> {
        if self.cache.get(slot).waiting.is_some() {
            return Ok(());
        }
        while let Some(due) = self.wake_by(slot, time) {
            self.wake(slot, due, out)?;
        }
        Ok(())
    }

    /// Does something about one person of many under one record. If it panics or cannot be written, only that person goes without, and is
    /// not woken again before their next event: a tick or a definition that became a dead letter would reach nobody else.
    pub(super) fn contained<T: Default>(
        &mut self,
        slot: Slot,
        out: &mut Outputs,
        what: impl FnOnce(&mut Self, &mut Outputs) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let place = out.place(Topic::SegmentChanges, self.partition);
        let before = self.cache.get(slot).segments.clone();
        let detail = match catch_unwind(AssertUnwindSafe(|| what(self, out))) {
            Ok(Err(Error::Record(fault))) => fault.detail,
            Ok(done) => return done,
            Err(_) => "it panicked".to_owned(),
        };
        out.back_to(Topic::SegmentChanges, self.partition, place);
        self.cache.get_mut(slot).segments = before;
        self.mark_dirty(slot);
        self.never_wake(slot, &detail);
        Ok(T::default())
    }

    /// Leaves a person alone until their next event.
    fn never_wake(&mut self, slot: Slot, detail: &str) {
        tracing::error!(partition = self.partition.0, detail, "a wake-up failed; the person is left alone until their next event");
        crate::stream::metrics::panicked(&self.topics.namespace, "wake");
        let person = self.cache.get_mut(slot);
        (person.wake, person.is_wake_stale) = (None, false);
    }

    /// [`wake_by`](Self::wake_by) for someone that the record at hand is not about.
    fn wake_by_or_never(&mut self, slot: Slot, time: Millis) -> Option<Millis> {
        match catch_unwind(AssertUnwindSafe(|| self.wake_by(slot, time))) {
            Ok(wake) => wake,
            Err(_) => {
                self.mark_dirty(slot);
                self.never_wake(slot, "when to wake them cannot be told");
                None
            }
        }
    }

    /// Wakes the person at `at`: what only time changes is decided again.
    pub(super) fn wake(&mut self, slot: Slot, at: Millis, out: &mut Outputs) -> Result<(), Error> {
        self.cache.get_mut(slot).profile.wake(at);
        self.decide(slot, at, Groups::ALL, super::segments::Cause::default(), out)?;
        self.changed(slot);
        Ok(())
    }

    /// When the person next wants to be woken, worked out anew if they changed.
    pub(super) fn refresh_wake(&mut self, slot: Slot) -> Option<Millis> {
        let person = self.cache.get(slot);
        if !person.is_wake_stale {
            return person.wake;
        }
        let Ok(wake) = catch_unwind(AssertUnwindSafe(|| self.wants_by(slot, Millis::MAX))) else {
            self.never_wake(slot, "when to wake them cannot be told");
            return None;
        };
        let person = self.cache.get_mut(slot);
        (person.wake, person.is_wake_stale) = (wake, false);
        wake
    }

    /// The same if it is at or before `time`, without working out more than that.
    pub(super) fn wake_by(&self, slot: Slot, time: Millis) -> Option<Millis> {
        let person = self.cache.get(slot);
        match person.is_wake_stale {
            true => self.wants_by(slot, time),
            false => person.wake.filter(|due| *due <= time),
        }
    }

    /// Worked out: nobody who was absorbed, who waits only to wait no longer, everyone else for what time changes about them.
    fn wants_by(&self, slot: Slot, time: Millis) -> Option<Millis> {
        let person = self.cache.get(slot);
        match &person.waiting {
            _ if !person.heirs.is_empty() => None,
            Some(_) if self.clock == NamespaceClock::Event => None,
            Some(waiting) => waiting.since.map(|since| since + WAIT_MS_MAX).filter(|due| *due <= time),
            None => self.next_wake_by(slot, time),
        }
    }
}

/// The stored index, read page by page.
struct Stored {
    page: std::iter::Peekable<std::vec::IntoIter<Wake>>,
    after: Option<Wake>,
    is_done: bool,
}

impl Stored {
    fn fill(&mut self, fold: &mut ProfileFold, time: Millis) -> Result<(), Error> {
        if self.is_done || self.page.peek().is_some() {
            return Ok(());
        }
        let page = fold.store.due(&fold.table, time, self.after.as_ref(), PAGE)?;
        self.is_done = page.len() < PAGE;
        if let Some(last) = page.last() {
            self.after = Some(last.clone());
        }
        let missing: Vec<&[u8]> = page.iter().filter(|wake| fold.cache.find(&wake.key).is_none()).map(|wake| &wake.key[..]).collect();
        let states = fold.store.get_many(&fold.table, &missing)?;
        for (key, state) in missing.into_iter().zip(states) {
            match state {
                Some(state) => fold.load(key, Some(&state))?,
                None => fold.fresh(key),
            };
        }
        self.page = page.into_iter().peekable();
        Ok(())
    }
}
