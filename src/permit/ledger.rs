//! What one person was sent, or may be being sent: as much as caps need, and no more.
//!
//! A permit counts from its grant on, at the latest time at which it can be used; known used, at the time of use; known unused, not at
//! all. So a cap holds at the times at which messages go out, whatever comes between a grant and its use. Entries are kept per channel and
//! purpose, the newest [`LIMIT_MAX`] of each: a cap of at most that many over any of them sees all that it needs, also when the policy
//! changes later.

use smallvec::SmallVec;

use super::decide::Request;
use super::grant::Grant;
use super::ids::{EffectKey, Executor};
use super::policy::{Cap, LIMIT_MAX, WINDOW_MAX_MS};
use crate::domain::Millis;

/// The most pairs of channel and purpose; of more, the one longest without a message is forgotten.
pub(super) const CLASSES_MAX: usize = 64;
/// The most open permits of a pair; of more, the oldest count as used.
pub(super) const OPEN_MAX: usize = 100;
const NAME_BYTES_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    /// Sorted by (channel, purpose), none empty.
    pub(super) classes: Vec<Class>,
    /// The newest time it was told of.
    pub(super) newest: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Class {
    pub(super) channel: Box<str>,
    pub(super) purpose: Box<str>,
    /// Sorted by (at, key).
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// When it counts: used then, or usable until then.
    pub(super) at: Millis,
    pub(super) key: EffectKey,
    /// Who may be using it; `None` once it is known to be used.
    pub(super) open: Option<Executor>,
}

pub(super) enum Held {
    Sent,
    Open { executor: Executor, until: Millis },
}

impl Ledger {
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// A permit was granted. Taking the same grant in twice is taking it in once.
    pub fn granted(&mut self, grant: &Grant) {
        let earlier = self.take(grant.key);
        let entry = Entry { at: grant.until, key: grant.key, open: Some(grant.executor) };
        // A key that is known to be used stays so.
        let entry = earlier.filter(|earlier| earlier.open.is_none()).unwrap_or(entry);
        self.insert(&grant.channel, &grant.purpose, entry);
        self.trim(grant.at);
    }

    /// The message was sent at `at`, with or without a permit that is still remembered: a result may come late.
    pub fn used(&mut self, key: EffectKey, channel: &str, purpose: &str, at: Millis) {
        let entry = match self.take(key) {
            Some(known) if known.open.is_none() => known,
            _ => Entry { at, key, open: None },
        };
        self.insert(channel, purpose, entry);
        // Not past its own end: a time of sending says nothing of how far the subject is.
        self.trim(self.newest);
    }

    /// The permit is known not to have been used and can no longer be; says whether it was open.
    pub fn unused(&mut self, key: EffectKey) -> bool {
        let is_open = matches!(self.held(key), Some(Held::Open { .. }));
        if is_open {
            self.take(key);
        }
        is_open
    }

    /// Joins what another history of the same person was sent.
    pub fn absorb(&mut self, other: &Ledger) {
        for class in &other.classes {
            for entry in &class.entries {
                let mine = self.take(entry.key);
                let joined = mine.filter(|mine| mine.open.is_none() || entry.open.is_some()).unwrap_or(*entry);
                self.insert(&class.channel, &class.purpose, joined);
            }
        }
        self.trim(other.newest);
    }

    /// Permits that may still be in use, to be asked after: (key, executor, until).
    pub fn open(&self) -> impl Iterator<Item = (EffectKey, Executor, Millis)> + '_ {
        let entries = self.classes.iter().flat_map(|class| &class.entries);
        entries.filter_map(|entry| Some((entry.key, entry.open?, entry.at)))
    }

    pub(super) fn newest(&self) -> Millis {
        self.newest
    }

    pub(super) fn held(&self, key: EffectKey) -> Option<Held> {
        let entry = self.classes.iter().flat_map(|class| &class.entries).find(|entry| entry.key == key)?;
        Some(entry.open.map_or(Held::Sent, |executor| Held::Open { executor, until: entry.at }))
    }

    /// If the cap has no place at `at` for this request: from when on it has one.
    pub(super) fn free_from(&self, cap: &Cap, request: &Request<'_>, at: Millis) -> Option<Millis> {
        let since = at - cap.window_ms;
        let classes = self.classes.iter().filter(|class| cap.covers(&class.channel, &class.purpose));
        let entries = classes.flat_map(|class| class.entries.iter().rev().take_while(|entry| entry.at > since));
        let mut times: SmallVec<[Millis; 16]> = entries.filter(|entry| entry.key != request.key).map(|entry| entry.at).collect();
        let places = cap.places(request.priority);
        if times.len() < places {
            return None;
        }
        let Some(last) = places.checked_sub(1) else { return Some(Millis::MAX) };
        times.sort_unstable_by(|a, b| b.cmp(a));
        // The window is open at its old end: what was sent exactly a window ago is out of it.
        Some(times[last] + cap.window_ms)
    }

    fn take(&mut self, key: EffectKey) -> Option<Entry> {
        let (class, at) = self.classes.iter().enumerate().find_map(|(index, class)| {
            let at = class.entries.iter().position(|entry| entry.key == key)?;
            Some((index, at))
        })?;
        let entry = self.classes[class].entries.remove(at);
        if self.classes[class].entries.is_empty() {
            self.classes.remove(class);
        }
        Some(entry)
    }

    fn insert(&mut self, channel: &str, purpose: &str, entry: Entry) {
        let short = |name: &str| name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_ascii_lowercase();
        let (channel, purpose) = (short(channel), short(purpose));
        let place = self.classes.binary_search_by(|class| (&*class.channel, &*class.purpose).cmp(&(&*channel, &*purpose)));
        let index = place.unwrap_or_else(|at| {
            self.classes.insert(at, Class { channel: channel.into(), purpose: purpose.into(), entries: Vec::new() });
            at
        });
        let entries = &mut self.classes[index].entries;
        let at = entries.partition_point(|other| (other.at, other.key) < (entry.at, entry.key));
        entries.insert(at, entry);
    }

    /// Forgets what no cap can ask for any more.
    fn trim(&mut self, now: Millis) {
        self.newest = self.newest.max(now);
        let since = self.newest - WINDOW_MAX_MS;
        for class in &mut self.classes {
            class.trim(since);
        }
        self.classes.retain(|class| !class.entries.is_empty());
        while self.classes.len() > CLASSES_MAX {
            let quietest = (0..self.classes.len()).min_by_key(|at| self.classes[*at].entries.last().map(|entry| entry.at));
            self.classes.remove(quietest.unwrap_or(0));
        }
    }
}

impl Class {
    fn trim(&mut self, since: Millis) {
        self.entries.retain(|entry| entry.at > since);
        let mut open = self.entries.iter().filter(|entry| entry.open.is_some()).count();
        for entry in self.entries.iter_mut().filter(|entry| entry.open.is_some()) {
            if open <= OPEN_MAX {
                break;
            }
            entry.open = None;
            open -= 1;
        }
        let mut surplus = (self.entries.len() - open).saturating_sub(LIMIT_MAX);
        self.entries.retain(|entry| {
            let goes = surplus > 0 && entry.open.is_none();
            surplus -= usize::from(goes);
            !goes
        });
    }
}
