//! Local times of day: nine o'clock on a weekday, where the recipient is. The time-zone database is compiled in, so that a journal means
//! the same on every machine.

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

use crate::domain::Millis;

/// A time of day on some days of the week, in the subject's zone or the fallback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalTime {
    pub hour: i8,
    pub minute: i8,
    /// Bit 0 is Monday.
    pub weekdays: u8,
    /// Where no zone is known of the subject.
    pub fallback: String,
}

/// Every day of the week.
pub const ALL_DAYS: u8 = 0b0111_1111;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// `mon` or `monday` as its bit.
pub fn weekday_bit(name: &str) -> Option<u8> {
    let lower = name.to_lowercase();
    let full = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    (0..7).find(|at| lower == DAYS[*at] || lower == full[*at]).map(|at| 1 << at)
}

/// `09:30` as hour and minute.
pub fn time_of_day(text: &str) -> Option<(i8, i8)> {
    let (hour, minute) = text.split_once(':')?;
    let (hour, minute): (i8, i8) = (hour.parse().ok()?, minute.parse().ok()?);
    ((0..24).contains(&hour) && (0..60).contains(&minute) && text.len() == 5).then_some((hour, minute))
}

/// Whether there is such a zone.
pub fn is_zone(name: &str) -> bool {
    TimeZone::get(name).is_ok()
}

impl LocalTime {
    /// The next such time at or after `from`. In a gap of the clock it is as much later as the gap is long; outside the calendar's range, `from`.
    pub fn at_or_after(&self, from: Millis, zone: Option<&str>) -> Millis {
        self.find(from, zone).unwrap_or(from)
    }

    /// The number of the day since 1970 that a time is on.
    pub fn day(&self, at: Millis, zone: Option<&str>) -> Option<i64> {
        let date = jiff::Timestamp::from_millisecond(at.0).ok()?.to_zoned(self.zone(zone)).date();
        let days = date.since((jiff::Unit::Day, jiff::civil::date(1970, 1, 1))).ok()?;
        Some(i64::from(days.get_days()))
    }

    fn zone(&self, zone: Option<&str>) -> TimeZone {
        zone.and_then(|name| TimeZone::get(name).ok()).or_else(|| TimeZone::get(&self.fallback).ok()).unwrap_or(TimeZone::UTC)
    }

    fn find(&self, from: Millis, zone: Option<&str>) -> Option<Millis> {
        let zone = self.zone(zone);
        let start = jiff::Timestamp::from_millisecond(from.0).ok()?.to_zoned(zone.clone());
        let time = Time::new(self.hour, self.minute, 0, 0).ok()?;
        let mut date = start.date();
        for _ in 0..9 {
            let bit = 1u8 << date.weekday().since(Weekday::Monday);
            if self.weekdays & bit != 0 {
                let moment = Millis(date.to_datetime(time).to_zoned(zone.clone()).ok()?.timestamp().as_millisecond());
                if moment >= from {
                    return Some(moment);
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(weekdays: u8, zone: Option<&str>, from: &str, expect: &str) {
        let local = LocalTime { hour: 9, minute: 0, weekdays, fallback: "Europe/Berlin".to_owned() };
        assert_eq!(local.at_or_after(Millis::parse(from).unwrap(), zone), Millis::parse(expect).unwrap());
    }

    #[test]
    fn nine_o_clock_is_nine_where_she_is() {
        check(ALL_DAYS, None, "2024-01-10T07:00:00Z", "2024-01-10T08:00:00Z");
        check(ALL_DAYS, Some("America/New_York"), "2024-01-10T07:00:00Z", "2024-01-10T14:00:00Z");
        check(ALL_DAYS, Some("Nowhere/Land"), "2024-01-10T07:00:00Z", "2024-01-10T08:00:00Z");
    }

    #[test]
    fn days_that_are_not_allowed_are_skipped() {
        // The 13th is a Saturday.
        check(0b0001_1111, None, "2024-01-13T06:00:00Z", "2024-01-15T08:00:00Z");
    }

    #[test]
    fn summer_time_moves_the_instant_and_not_the_hour() {
        check(ALL_DAYS, None, "2024-03-30T09:00:00Z", "2024-03-31T07:00:00Z");
    }
}
