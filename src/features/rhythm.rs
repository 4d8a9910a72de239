//! When in the week the person acts, and in which time zone they live.
//!
//! Acts are counted by UTC hour of the week and shifted when read by the zone's offset at the last act, so that a zone learnt late, or from
//! the other of two merged profiles, holds for everything. An act half a year ago may therefore fall one hour beside its local hour.

use super::codec::{Error, Reader, put_str, put_u64};
use super::observe::TOUCH_BYTES_MAX;
use crate::domain::{HOUR_MS, Millis};

const HOURS_PER_WEEK: i64 = 168;
/// 1970-01-01 was a Thursday: this many hours into a week that begins on Monday.
const EPOCH_HOUR_OF_WEEK: i64 = 72;

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Rhythm {
    /// (UTC hour of the week from Monday 0:00, acts), sorted.
    hours: Vec<(u8, u32)>,
    /// The newest statement of the time zone.
    zone: Option<Box<(Millis, Box<str>)>>,
}

impl Rhythm {
    pub(crate) fn act(&mut self, time: Millis) {
        let hour = (time.0.div_euclid(HOUR_MS) + EPOCH_HOUR_OF_WEEK).rem_euclid(HOURS_PER_WEEK) as u8;
        self.add(hour, 1);
    }

    fn add(&mut self, hour: u8, acts: u32) {
        match self.hours.binary_search_by_key(&hour, |(hour, _)| *hour) {
            Ok(at) => self.hours[at].1 = self.hours[at].1.saturating_add(acts),
            Err(at) => self.hours.insert(at, (hour, acts)),
        }
    }

    /// True if the zone in force changed. Of two statements the newer holds, of two at once the greater name.
    pub(crate) fn state_zone(&mut self, time: Millis, name: &str) -> bool {
        if name.len() > TOUCH_BYTES_MAX {
            return false;
        }
        match &mut self.zone {
            Some(known) if (known.0, &*known.1) >= (time, name) => false,
            Some(known) => {
                known.0 = time;
                let changed = *known.1 != *name;
                if changed {
                    known.1 = name.into();
                }
                changed
            }
            None => {
                self.zone = Some(Box::new((time, name.into())));
                true
            }
        }
    }

    pub(crate) fn absorb(&mut self, other: &Rhythm) {
        for (hour, acts) in &other.hours {
            self.add(*hour, *acts);
        }
        if let Some(zone) = &other.zone {
            self.state_zone(zone.0, &zone.1);
        }
    }

    pub(crate) fn zone(&self) -> Option<&str> {
        self.zone.as_ref().map(|zone| &*zone.1)
    }

    /// The local hour (0 to 23) and the local weekday (1 Monday to 7 Sunday) with the most acts; the earlier of equals.
    pub(crate) fn preferred(&self, last_act: Millis) -> Option<(i64, i64)> {
        if self.hours.is_empty() {
            return None;
        }
        let offset_minutes = self.zone().map_or(0, |name| offset_minutes(name, last_act));
        let (mut by_hour, mut by_day) = ([0u64; 24], [0u64; 7]);
        for (hour, acts) in &self.hours {
            // The middle of the hour decides for zones that are off by half an hour.
            let local = (i64::from(*hour) * 60 + 30 + offset_minutes).div_euclid(60).rem_euclid(HOURS_PER_WEEK);
            by_hour[(local % 24) as usize] += u64::from(*acts);
            by_day[(local / 24) as usize] += u64::from(*acts);
        }
        Some((most(&by_hour), most(&by_day) + 1))
    }

    pub(crate) fn encode(&self, newest: Millis, out: &mut Vec<u8>) {
        put_u64(out, self.hours.len() as u64);
        for (hour, acts) in &self.hours {
            out.push(*hour);
            put_u64(out, u64::from(*acts));
        }
        match &self.zone {
            None => put_str(out, ""),
            Some(zone) => {
                put_str(out, &zone.1);
                put_u64(out, newest.since_ms(zone.0) as u64);
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>, newest: Millis) -> Result<Rhythm, Error> {
        let len = reader.len(HOURS_PER_WEEK as usize)?;
        let mut hours: Vec<(u8, u32)> = Vec::with_capacity(len);
        for _ in 0..len {
            let (hour, acts) = (reader.u8()?, reader.u32()?);
            if i64::from(hour) >= HOURS_PER_WEEK || hours.last().is_some_and(|last| last.0 >= hour) {
                return reader.broken("hours out of order");
            }
            hours.push((hour, acts));
        }
        let name = reader.str(TOUCH_BYTES_MAX)?;
        let zone = if name.is_empty() { None } else { Some(Box::new((reader.time_before(newest)?, name.into()))) };
        Ok(Rhythm { hours, zone })
    }
}

fn most(counts: &[u64]) -> i64 {
    let mut best = 0;
    for (at, count) in counts.iter().enumerate() {
        if *count > counts[best] {
            best = at;
        }
    }
    best as i64
}

/// Minutes east of UTC at `at`; 0 for a name that the bundled database does not know.
fn offset_minutes(zone: &str, at: Millis) -> i64 {
    let Ok(zone) = jiff::tz::TimeZone::get(zone) else { return 0 };
    let Ok(instant) = jiff::Timestamp::from_millisecond(at.0) else { return 0 };
    i64::from(zone.to_offset(instant).seconds() / 60)
}
