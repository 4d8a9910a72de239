//! Counts per event type over sliding windows: 5-minute bins for the last two hours, hour bins for the last two days, day bins for 90.
//!
//! Bins are relative to the newest event seen: on crossing an hour older bins roll up into wider ones and fall out past 90 days, so each
//! type holds the finest bin that a window can still ask for, once. The same set of events gives the same bins in any order, as long
//! as no type has been folded into the overflow type [`OVERFLOW`].

use super::codec::{Error, Reader, put_str, put_u64};
use super::name::EventName;
use super::observe::EVENT_NAME_BYTES_MAX;
use crate::domain::{DAY_MS, HOUR_MS, MINUTE_MS, Millis};

/// The most event types with counters of their own; declared ones may use all of them, others [`UNDECLARED_MAX`].
pub const TYPES_MAX: usize = 32;
pub const UNDECLARED_MAX: usize = 24;
/// The most bins of all types together (two bytes each, encoded): beyond, the rarest type joins the overflow type.
pub const BINS_MAX: usize = 1_200;
/// The type that events count under when their own has no room. No track can be called so: it sorts first and holds a control character.
pub const OVERFLOW: &str = "\u{1}other";

const FIVE_MS: i64 = 5 * MINUTE_MS;
const FIVES_PER_HOUR: i32 = 12;
const FIVES_PER_DAY: i32 = 288;
/// Days that the longest window reaches back, today included.
pub(crate) const DAYS_KEPT: i32 = 90;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    Hour,
    Day,
    Days7,
    Days30,
    Days90,
}

impl Window {
    pub const ALL: [Window; 5] = [Window::Hour, Window::Day, Window::Days7, Window::Days30, Window::Days90];

    /// `1h`, `1d`, `7d`, `30d`, `90d`: as written in expressions.
    pub fn as_str(self) -> &'static str {
        match self {
            Window::Hour => "1h",
            Window::Day => "1d",
            Window::Days7 => "7d",
            Window::Days30 => "30d",
            Window::Days90 => "90d",
        }
    }

    pub fn parse(text: &str) -> Option<Window> {
        Window::ALL.into_iter().find(|window| window.as_str() == text)
    }

    /// A bin's width in milliseconds, and how many bins the window holds, the running one included.
    pub fn bins(self) -> (i64, i64) {
        match self {
            Window::Hour => (FIVE_MS, 12),
            Window::Day => (HOUR_MS, 24),
            Window::Days7 => (DAY_MS, 7),
            Window::Days30 => (DAY_MS, 30),
            Window::Days90 => (DAY_MS, 90),
        }
    }

    /// The first 5-minute bin that counts at `now`.
    fn first_five(self, now: Millis) -> i32 {
        let (width, bins) = self.bins();
        let first = now.0.div_euclid(width) - (bins - 1);
        five_of(Millis(first * width))
    }
}

/// A bin begins at a 5-minute mark (counted from 1970); its width follows from how far that lies behind the newest event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bin {
    pub(crate) at: i32,
    pub(crate) count: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TypeCount {
    pub(crate) name: EventName,
    pub(crate) total: u64,
    pub(crate) bins: Vec<Bin>,
}

/// All types of one person, sorted by name, so that slots are the same whatever came first.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Counts {
    pub(crate) types: Vec<TypeCount>,
}

/// What adding an event did to the table of types; other accumulators hold slots and follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Added {
    pub(crate) slot: u8,
    /// A type was inserted at `slot`: slots from there on moved up by one.
    pub(crate) inserted: bool,
    /// The overflow type was inserted at 0 before `slot` was found.
    pub(crate) overflow_inserted: bool,
    /// There are more bins or types than before, so bounds are to be looked at.
    pub(crate) grown: bool,
}

fn five_of(time: Millis) -> i32 {
    time.0.div_euclid(FIVE_MS) as i32
}

/// Where bins of each width begin, seen from the newest event.
#[derive(Clone, Copy)]
struct Reach {
    fives_from: i32,
    hours_from: i32,
    days_from: i32,
}

impl Reach {
    fn of(newest: Millis) -> Reach {
        let hour = newest.0.div_euclid(HOUR_MS) as i32;
        let day = newest.0.div_euclid(DAY_MS) as i32;
        Reach {
            fives_from: (hour - 1) * FIVES_PER_HOUR,
            hours_from: (day - 1) * FIVES_PER_DAY,
            days_from: (day - DAYS_KEPT + 1) * FIVES_PER_DAY,
        }
    }

    /// The bin an event of this 5-minute mark belongs to; `None` once it is out of every window.
    fn bin(self, five: i32) -> Option<i32> {
        if five >= self.fives_from {
            return Some(five);
        }
        if five >= self.hours_from {
            return Some(five.div_euclid(FIVES_PER_HOUR) * FIVES_PER_HOUR);
        }
        (five >= self.days_from).then(|| five.div_euclid(FIVES_PER_DAY) * FIVES_PER_DAY)
    }
}

impl Counts {
    pub(crate) fn slot(&self, name: &str) -> Option<usize> {
        self.hashed_slot(EventName::hash_of(name), name)
    }

    /// The place of a name that is looked up often.
    pub(crate) fn slot_of(&self, name: &EventName) -> Option<usize> {
        self.hashed_slot(name.hash(), name)
    }

    fn hashed_slot(&self, hash: u64, name: &str) -> Option<usize> {
        self.types.iter().position(|known| known.name.hash() == hash && *known.name == *name)
    }

    /// Counts an event; `newest` is the newest time seen, this event's included, and bins are already rolled up to it.
    pub(crate) fn add(&mut self, name: &str, declared: bool, time: Millis, newest: Millis) -> Added {
        let (slot, inserted, overflow_inserted) = self.place(name, declared);
        let entry = &mut self.types[slot];
        let bins = entry.bins.len();
        entry.total += 1;
        if let Some(at) = Reach::of(newest).bin(five_of(time)) {
            add_bin(&mut entry.bins, at, 1);
        }
        let grown = inserted || overflow_inserted || entry.bins.len() > bins;
        Added { slot: slot as u8, inserted, overflow_inserted, grown }
    }

    fn place(&mut self, name: &str, declared: bool) -> (usize, bool, bool) {
        if let Some(slot) = self.slot(name) {
            return (slot, false, false);
        }
        let at = self.types.partition_point(|known| *known.name < *name);
        let room = if declared { TYPES_MAX } else { UNDECLARED_MAX };
        if self.types.len() < room {
            self.types.insert(at, TypeCount { name: name.into(), total: 0, bins: Vec::new() });
            return (at, true, false);
        }
        match self.slot(OVERFLOW) {
            Some(slot) => (slot, false, false),
            None => {
                self.types.insert(0, TypeCount { name: OVERFLOW.into(), total: 0, bins: Vec::new() });
                (0, false, true)
            }
        }
    }

    /// Rolls every bin up from what was newest to what is newest now. Nothing to do within one hour.
    pub(crate) fn roll(&mut self, before: Millis, newest: Millis) {
        if before.0.div_euclid(HOUR_MS) == newest.0.div_euclid(HOUR_MS) {
            return;
        }
        let (old, new) = (Reach::of(before), Reach::of(newest));
        for entry in &mut self.types {
            roll_bins(&mut entry.bins, old, new);
        }
    }

    pub(crate) fn bin_count(&self) -> usize {
        self.types.iter().map(|entry| entry.bins.len()).sum()
    }

    /// While there are too many bins, the rarest type joins the overflow type. Returns each slot's new slot if anything moved.
    pub(crate) fn shrink(&mut self) -> Option<Vec<u8>> {
        if self.bin_count() <= BINS_MAX && self.types.len() <= TYPES_MAX + 1 {
            return None;
        }
        let before: Vec<EventName> = self.types.iter().map(|entry| entry.name.clone()).collect();
        while (self.bin_count() > BINS_MAX || self.types.len() > TYPES_MAX + 1) && self.types.len() > 2 {
            let kept = |entry: &&TypeCount| *entry.name != *OVERFLOW;
            let rarest = self.types.iter().filter(kept).min_by_key(|entry| (entry.total, entry.name.clone()));
            let name = rarest.expect("there are more than two types").name.clone();
            let gone = self.types.remove(self.slot(&name).expect("just found"));
            let overflow = match self.slot(OVERFLOW) {
                Some(slot) => slot,
                None => {
                    self.types.insert(0, TypeCount { name: OVERFLOW.into(), total: 0, bins: Vec::new() });
                    0
                }
            };
            absorb_type(&mut self.types[overflow], &gone);
        }
        let overflow = self.slot(OVERFLOW).expect("just made") as u8;
        Some(before.iter().map(|name| self.slot_of(name).map_or(overflow, |slot| slot as u8)).collect())
    }

    /// Adds the other's counts; both must be rolled up to the same newest event. Returns the other's slots here, and where mine went.
    pub(crate) fn absorb(&mut self, other: &Counts) -> (Vec<u8>, Vec<u8>) {
        let mine: Vec<EventName> = self.types.iter().map(|entry| entry.name.clone()).collect();
        for theirs in &other.types {
            match self.types.binary_search_by(|probe| probe.name.cmp(&theirs.name)) {
                Ok(slot) => absorb_type(&mut self.types[slot], theirs),
                Err(at) => self.types.insert(at, theirs.clone()),
            }
        }
        self.shrink();
        let overflow = self.slot(OVERFLOW).unwrap_or(0) as u8;
        let find = |name: &str| self.slot(name).map_or(overflow, |slot| slot as u8);
        (mine.iter().map(|name| find(name)).collect(), other.types.iter().map(|entry| find(&entry.name)).collect())
    }
}

/// Adds to the bin at `at`, which is usually the last.
fn add_bin(bins: &mut Vec<Bin>, at: i32, count: u32) {
    match bins.last_mut() {
        Some(last) if last.at == at => last.count = last.count.saturating_add(count),
        Some(last) if last.at > at => match bins.binary_search_by_key(&at, |bin| bin.at) {
            Ok(place) => bins[place].count = bins[place].count.saturating_add(count),
            Err(place) => bins.insert(place, Bin { at, count }),
        },
        _ => bins.push(Bin { at, count }),
    }
}

fn roll_bins(bins: &mut Vec<Bin>, old: Reach, new: Reach) {
    let Some(last) = bins.last() else { return };
    if last.at >= old.hours_from {
        // Only bins finer than a day can roll into wider ones, and they are the last few.
        let first = bins.partition_point(|bin| bin.at < old.hours_from);
        let mut kept = first;
        for from in first..bins.len() {
            let Bin { at, count } = bins[from];
            // What is out of every window is dropped below with the day bins.
            let at = new.bin(at).unwrap_or(at.div_euclid(FIVES_PER_DAY) * FIVES_PER_DAY);
            if kept > 0 && bins[kept - 1].at == at {
                bins[kept - 1].count = bins[kept - 1].count.saturating_add(count);
            } else {
                bins[kept] = Bin { at, count };
                kept += 1;
            }
        }
        bins.truncate(kept);
    }
    let gone = bins.partition_point(|bin| bin.at < new.days_from);
    bins.drain(..gone);
}

fn absorb_type(mine: &mut TypeCount, theirs: &TypeCount) {
    mine.total = mine.total.saturating_add(theirs.total);
    for bin in &theirs.bins {
        add_bin(&mut mine.bins, bin.at, bin.count);
    }
}

impl TypeCount {
    /// Events of this type that count in `window` at `now`, or ever.
    pub(crate) fn count(&self, window: Option<Window>, now: Millis) -> u64 {
        window.map_or(self.total, |window| self.within(window, now))
    }

    /// Events of this type that count in `window` at `now`.
    pub(crate) fn within(&self, window: Window, now: Millis) -> u64 {
        self.between(window.first_five(now), five_of(now))
    }

    /// Adds what counts in each window of [`Window::ALL`] at `now`, in one pass.
    pub(crate) fn add_windows(&self, now: Millis, totals: &mut [u64; 5]) {
        let first = Window::ALL.map(|window| window.first_five(now));
        let last = five_of(now);
        for bin in self.bins.iter().rev().filter(|bin| bin.at <= last) {
            for (total, first) in totals.iter_mut().zip(first) {
                *total += if bin.at >= first { u64::from(bin.count) } else { 0 };
            }
        }
    }

    fn between(&self, first: i32, last: i32) -> u64 {
        let reached = self.bins.iter().rev().take_while(|bin| bin.at >= first);
        reached.filter(|bin| bin.at <= last).map(|bin| u64::from(bin.count)).sum()
    }

    /// When the oldest bin that counts in `window` at `after` leaves it.
    pub(crate) fn leaves(&self, window: Window, after: Millis) -> Option<Millis> {
        let (width, bins) = window.bins();
        let first = window.first_five(after);
        let oldest = self.bins.iter().rev().take_while(|bin| bin.at >= first).last()?;
        let index = (i64::from(oldest.at) * FIVE_MS).div_euclid(width);
        Some(Millis((index + bins) * width))
    }
}

impl Counts {
    pub(crate) fn encode(&self, newest: Millis, out: &mut Vec<u8>) {
        put_u64(out, self.types.len() as u64);
        let reach = Reach::of(newest);
        for entry in &self.types {
            put_str(out, &entry.name);
            put_u64(out, entry.total);
            let days = entry.bins.partition_point(|bin| bin.at < reach.hours_from);
            let hours = entry.bins.partition_point(|bin| bin.at < reach.fives_from);
            put_bins(out, &entry.bins[..days], reach.days_from, FIVES_PER_DAY);
            put_bins(out, &entry.bins[days..hours], reach.hours_from, FIVES_PER_HOUR);
            put_bins(out, &entry.bins[hours..], reach.fives_from, 1);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>, newest: Millis) -> Result<Counts, Error> {
        let reach = Reach::of(newest);
        let len = reader.len(TYPES_MAX + 1)?;
        let mut types: Vec<TypeCount> = Vec::with_capacity(len);
        for _ in 0..len {
            let name = reader.str(EVENT_NAME_BYTES_MAX)?;
            if types.last().is_some_and(|last| *last.name >= *name) {
                return reader.broken("event types out of order");
            }
            let total = reader.total()?;
            let mut bins = Vec::new();
            take_bins(reader, &mut bins, (reach.days_from, reach.hours_from), FIVES_PER_DAY)?;
            take_bins(reader, &mut bins, (reach.hours_from, reach.fives_from), FIVES_PER_HOUR)?;
            take_bins(reader, &mut bins, (reach.fives_from, five_of(newest) + 1), 1)?;
            types.push(TypeCount { name: name.into(), total, bins });
        }
        Ok(Counts { types })
    }
}

/// Bins of one width: each is its count with a flag for a gap before it, then the gap. Neighbouring bins take one byte each.
fn put_bins(out: &mut Vec<u8>, bins: &[Bin], base: i32, width: i32) {
    put_u64(out, bins.len() as u64);
    let mut expected = base;
    for bin in bins {
        let gap = (bin.at - expected) / width;
        put_u64(out, u64::from(bin.count) << 1 | u64::from(gap > 0));
        if gap > 0 {
            put_u64(out, gap as u64);
        }
        expected = bin.at + width;
    }
}

fn take_bins(reader: &mut Reader<'_>, bins: &mut Vec<Bin>, (base, end): (i32, i32), width: i32) -> Result<(), Error> {
    let len = reader.len(BINS_MAX)?;
    bins.reserve(len.min(DAYS_KEPT as usize));
    let mut expected = i64::from(base);
    for _ in 0..len {
        let head = reader.u64()?;
        let gap = if head & 1 == 1 { reader.u32()? } else { 0 };
        let at = expected + i64::from(gap) * i64::from(width);
        let count = u32::try_from(head >> 1).unwrap_or(0);
        if at >= i64::from(end) || count == 0 {
            return reader.broken("a bin outside its windows");
        }
        bins.push(Bin { at: at as i32, count });
        expected = at + i64::from(width);
    }
    Ok(())
}
