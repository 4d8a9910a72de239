//! What is known about a person, folded from their events: counts, sessions, orders, touches and the rest of [`FIELDS`].
//!
//! A [`Profile`] is pure state. Folding an event is O(1) amortised, its bytes are bounded and canonical, and merging two profiles gives
//! what folding both histories in order of time gives (`tests.rs` says where that ends). Windows decay when they are read. Time is
//! always an argument. Scores are left to `models`, consent to `consent`, who is who to `identity`.

pub mod fields;
pub mod settings;

mod codec;
mod counts;
mod days;
mod distinct;
mod encode;
mod funnel;
mod json;
mod name;
mod observe;
mod orders;
mod reach;
mod recent;
mod rhythm;
mod sessions;
mod touch;
mod traits;
mod value;

#[cfg(test)]
mod tests;

use counts::{Counts, DAYS_KEPT};
use days::{Days, day_of};
use distinct::Distinct;
use orders::Orders;
use reach::Reach;
use recent::Recent;
use rhythm::Rhythm;
use touch::Touches;
use traits::Traits;

use crate::domain::Millis;

pub use codec::{Error, VERSION};
pub use counts::{BINS_MAX, OVERFLOW, TYPES_MAX, UNDECLARED_MAX, Window};
pub use fields::{FIELDS, FUNCTIONS, Field, FieldDef, FieldId, FieldType, FunctionDef, Groups, Motion, Value};
pub use name::EventName;
pub use observe::{EVENT_NAME_BYTES_MAX, Observation, RawEvent, TouchSignal, clamp_time, extract};
pub use orders::CurrencySum;
pub use recent::RECENT_MAX;
pub use sessions::{Joined, SESSIONS_MAX, Session};
pub use settings::{Rules, Settings};
pub use touch::Touch;
pub(crate) use value::change;

/// The most bytes of one profile's state.
pub const PROFILE_BYTES_MAX: usize = 8 * 1024;

/// All accumulators of one person. Rare ones are boxed: most people never order and few arrive by campaign.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Profile {
    /// The latest time this person was woken at.
    woken: Option<Millis>,
    /// The newest event time; bins are rolled up to it.
    newest: Option<Millis>,
    /// The times of the first and the latest act.
    seen: Option<(Millis, Millis)>,
    counts: Counts,
    /// Acts by day, as far back as the longest window reaches.
    acts: Days,
    recent: Recent,
    sessions: sessions::Sessions,
    rhythm: Rhythm,
    orders: Option<Box<Orders>>,
    products: Distinct,
    categories: Distinct,
    reach: Option<Box<Reach>>,
    touches: Option<Box<Touches>>,
    traits: Traits,
}

/// What folding one event changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "what depends on the groups that changed is to be looked at again"]
pub struct Touched {
    pub groups: Groups,
    /// The event is older than the newest one before it.
    pub late: bool,
    /// A late event showed that two sessions were one: to be recorded as a correction.
    pub joined: Option<Joined>,
}

impl Profile {
    /// Folds one event.
    pub fn observe(&mut self, seen: &Observation<'_>, rules: &Rules) -> Touched {
        let time = seen.time;
        let before = self.newest.unwrap_or(time);
        let newest = before.max(time);
        self.newest = Some(newest);
        let mut touched = Touched { groups: Groups::COUNTS | Groups::ACTIVITY | Groups::SCORES, late: time < before, joined: None };
        self.counts.roll(before, newest);
        let added = self.counts.add(seen.event, seen.rule.declared, time, newest);
        let mut slot = added.slot;
        if added.inserted {
            self.recent.renumber(|other| if other >= added.slot { other + 1 } else { other });
        } else if added.overflow_inserted {
            self.recent.renumber(|other| other + 1);
        }
        if added.grown
            && let Some(slots) = self.counts.shrink()
        {
            self.recent.renumber(|other| slots[usize::from(other)]);
            slot = slots[usize::from(slot)];
        }
        let reach = day_of(newest) - DAYS_KEPT + 1;
        self.acts.forget_before(reach);
        if seen.active {
            if day_of(time) >= reach {
                self.acts.add(day_of(time), 1);
            }
            self.seen = Some(self.seen.map_or((time, time), |(first, last)| (first.min(time), last.max(time))));
            self.recent.add(time, slot);
            self.rhythm.act(time);
            touched.joined = self.sessions.add(time, rules.session_gap_ms);
            touched.groups = touched.groups | Groups::RECENT | Groups::SESSIONS | Groups::RHYTHM;
        }
        touched.groups = touched.groups | self.observe_details(seen, rules);
        touched
    }

    /// What only some events carry.
    fn observe_details(&mut self, seen: &Observation<'_>, rules: &Rules) -> Groups {
        let time = seen.time;
        let mut groups = Groups::NONE;
        let currency = seen.currency.unwrap_or(rules.currency);
        if seen.rule.order {
            self.orders.get_or_insert_default().add(time, seen.amount, currency, rules.currency);
            groups = groups | Groups::ORDERS;
        }
        if seen.rule.refund {
            self.orders.get_or_insert_default().refund(seen.amount, currency);
            groups = groups | Groups::ORDERS;
        }
        let mut new_things = false;
        for product in &seen.products {
            new_things |= self.products.add(*product);
        }
        for category in &seen.categories {
            new_things |= self.categories.add(*category);
        }
        if new_things {
            groups = groups | Groups::PRODUCTS;
        }
        if let Some((channel, reaction)) = seen.rule.reaction {
            self.reach.get_or_insert_default().add(channel, reaction, time);
            groups = groups | Groups::ENGAGEMENT;
        }
        if let Some(signal) = &seen.touch {
            touch::note(&mut self.touches, time, signal);
            groups = groups | Groups::TOUCHES;
        }
        if let Some(zone) = &seen.time_zone
            && self.rhythm.state_zone(time, zone)
        {
            groups = groups | Groups::RHYTHM;
        }
        for (name, value) in &seen.traits {
            if self.traits.state(name, value, time) {
                groups = groups | Groups::TRAITS;
            }
        }
        groups
    }

    /// The IANA name of the time zone that was stated last.
    pub fn time_zone(&self) -> Option<&str> {
        self.rhythm.zone()
    }

    /// Adds everything of another profile of the same person, as if its events had been folded here in their places.
    pub fn absorb(&mut self, other: &Profile, rules: &Rules) -> Touched {
        self.woken = self.woken.max(other.woken);
        let Some(theirs_newest) = other.newest else { return Touched::default() };
        let mine_newest = self.newest.unwrap_or(theirs_newest);
        let newest = mine_newest.max(theirs_newest);
        self.newest = Some(newest);
        self.counts.roll(mine_newest, newest);
        let mut their_counts = other.counts.clone();
        their_counts.roll(theirs_newest, newest);
        let (my_slots, their_slots) = self.counts.absorb(&their_counts);
        self.recent.renumber(|slot| my_slots[usize::from(slot)]);
        let mut their_recent = other.recent.clone();
        their_recent.renumber(|slot| their_slots[usize::from(slot)]);
        self.recent.absorb(&their_recent);
        self.acts.absorb(&other.acts);
        self.acts.forget_before(day_of(newest) - DAYS_KEPT + 1);
        if let Some((first, last)) = other.seen {
            self.seen = Some(self.seen.map_or((first, last), |(f, l)| (f.min(first), l.max(last))));
        }
        self.sessions.absorb(&other.sessions, rules.session_gap_ms);
        self.rhythm.absorb(&other.rhythm);
        if let Some(orders) = &other.orders {
            self.orders.get_or_insert_default().absorb(orders);
        }
        self.products.absorb(&other.products);
        self.categories.absorb(&other.categories);
        if let Some(reach) = &other.reach {
            self.reach.get_or_insert_default().absorb(reach);
        }
        touch::absorb(&mut self.touches, &other.touches);
        self.traits.absorb(&other.traits);
        Touched { groups: Groups::ALL, late: false, joined: None }
    }

    /// The key was woken at `at`: its own time is at least that from now on.
    pub fn wake(&mut self, at: Millis) {
        self.woken = self.woken.max(Some(clamp_time(at.0)));
    }

    /// The key's own time: its newest event or latest wake-up. `None` before the first of either.
    pub fn now(&self) -> Option<Millis> {
        self.newest.max(self.woken)
    }

    pub fn is_empty(&self) -> bool {
        self.newest.is_none()
    }

    /// First and latest act.
    pub fn seen(&self) -> Option<(Millis, Millis)> {
        self.seen
    }

    /// Every trait in force as (name, JSON text), by name.
    pub fn traits(&self) -> impl Iterator<Item = (&str, &str)> {
        self.traits.iter()
    }

    /// A trait's JSON text.
    pub fn trait_json(&self, name: &str) -> Option<&str> {
        self.traits.get(name)
    }

    /// The event types with counters of their own as (name, lifetime count), by name; the overflow type is [`OVERFLOW`].
    pub fn event_types(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts.types.iter().map(|entry| (&*entry.name, entry.total))
    }

    /// Their names alone, in the same order.
    pub(crate) fn event_names(&self) -> impl Iterator<Item = &EventName> {
        self.counts.types.iter().map(|entry| &entry.name)
    }

    /// Each type's name, lifetime count and counts in [`Window::ALL`] at `now`.
    pub fn event_windows(&self, now: Millis) -> impl Iterator<Item = (&str, u64, [u64; 5])> {
        self.counts.types.iter().map(move |entry| {
            let mut within = [0; 5];
            entry.add_windows(now, &mut within);
            (&*entry.name, entry.total, within)
        })
    }

    /// Lifetime revenue and orders by currency.
    pub fn currencies(&self) -> &[CurrencySum] {
        self.orders.as_ref().map_or(&[], |orders| &orders.sums)
    }

    /// The last acts, oldest first, with their event types.
    pub fn recent(&self) -> impl DoubleEndedIterator<Item = (Millis, &str)> {
        self.recent.iter().map(|(time, slot)| (time, &*self.counts.types[slot].name))
    }

    /// The last acts, oldest first, with the place of their type in [`Profile::event_types`].
    pub(crate) fn recent_slots(&self) -> impl DoubleEndedIterator<Item = (Millis, usize)> {
        self.recent.iter()
    }

    /// The sessions kept one by one, oldest first.
    pub fn sessions(&self) -> &[Session] {
        &self.sessions.kept
    }

    /// First and latest touch.
    pub fn touches(&self) -> Option<(&Touch, &Touch)> {
        self.touches.as_ref().map(|touches| (&touches.first, &touches.last))
    }
}
