//! Quiet hours as the recipient's clock shows them: whether it is quiet, until when, and when it next begins.
//!
//! Between two changes of a zone's offset local time runs evenly, so each stretch is plain arithmetic and nothing special is known of gaps
//! and folds: a time that the clock skips ends where the clock jumps to, and a time that it shows twice is quiet twice.

use jiff::{Timestamp, tz::TimeZone};

use super::policy::Quiet;
use crate::domain::{DAY_MS, Millis};

/// More changes of offset and overlapping rules than any week holds.
const STEPS_MAX: usize = 64;
/// 1970-01-01 was a Thursday; Monday is day 0.
const EPOCH_WEEKDAY: i64 = 3;

/// The zone of this name, else the fallback's, else UTC.
pub(super) fn zone(name: Option<&str>, fallback: &str) -> TimeZone {
    let named = name.and_then(|name| TimeZone::get(name.trim()).ok());
    named.or_else(|| TimeZone::get(fallback).ok()).unwrap_or(TimeZone::UTC)
}

/// If it is quiet at this time: the first later time at which it is not, or `MAX` if that never comes.
pub(super) fn end<'a, R: Iterator<Item = &'a Quiet>>(rules: impl Fn() -> R, zone: &TimeZone, at: Millis) -> Option<Millis> {
    let mut now = at;
    for _ in 0..STEPS_MAX {
        let (offset_ms, stretch_end) = stretch(zone, now);
        let Some(left_ms) = rules().filter_map(|rule| rule.left_ms(now + offset_ms)).max() else {
            return (now > at).then_some(now);
        };
        now = (now + left_ms).min(stretch_end);
    }
    Some(Millis::MAX)
}

/// The first time after `at`, when it is not quiet, and before `before`, at which it is.
pub(super) fn begin<'a, R: Iterator<Item = &'a Quiet>>(
    rules: impl Fn() -> R,
    zone: &TimeZone,
    at: Millis,
    before: Millis,
) -> Option<Millis> {
    let mut now = at;
    for _ in 0..STEPS_MAX {
        let (offset_ms, stretch_end) = stretch(zone, now);
        let local = now + offset_ms;
        if now > at && rules().any(|rule| rule.left_ms(local).is_some()) {
            return Some(now);
        }
        let next = rules().filter_map(|rule| rule.ahead_ms(local)).min().map_or(Millis::MAX, |ms| now + ms);
        now = next.min(stretch_end);
        if now >= before {
            return None;
        }
    }
    None
}

/// Whether these rules cover the whole week of an even clock.
pub(super) fn never_ends<'a, R: Iterator<Item = &'a Quiet>>(rules: impl Fn() -> R) -> bool {
    end(rules, &TimeZone::UTC, Millis(0)) == Some(Millis::MAX)
}

/// The offset in force and when it next changes. Outside the calendar's range nothing is offset.
fn stretch(zone: &TimeZone, at: Millis) -> (i64, Millis) {
    let Ok(now) = Timestamp::from_millisecond(at.0) else { return (0, Millis::MAX) };
    let offset_ms = i64::from(zone.to_offset(now).seconds()) * 1_000;
    let end = zone.following(now).next().map_or(Millis::MAX, |change| Millis(change.timestamp().as_millisecond()));
    (offset_ms, end)
}

impl Quiet {
    fn length_ms(&self) -> i64 {
        match (self.to.0 - self.from.0).rem_euclid(DAY_MS) {
            0 => DAY_MS,
            ms => ms,
        }
    }

    /// When the rule begins on the day with this number since the epoch, in local time; `None` on other days of the week.
    fn start_on(&self, day: i64) -> Option<i64> {
        self.days.has((day + EPOCH_WEEKDAY).rem_euclid(7)).then(|| day * DAY_MS + self.from.0)
    }

    /// How long the rule goes on from this local time on, if it is in force.
    fn left_ms(&self, local: Millis) -> Option<i64> {
        let today = local.0.div_euclid(DAY_MS);
        let ends = [today - 1, today].into_iter().filter_map(|day| {
            let start = self.start_on(day)?;
            let end = start + self.length_ms();
            (start <= local.0 && local.0 < end).then_some(end)
        });
        ends.max().map(|end| end - local.0)
    }

    /// How long until the rule next begins after this local time.
    fn ahead_ms(&self, local: Millis) -> Option<i64> {
        let today = local.0.div_euclid(DAY_MS);
        (today..=today + 7).filter_map(|day| self.start_on(day)).find(|start| *start > local.0).map(|start| start - local.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(from: &str, to: &str, days: &[&str]) -> Quiet {
        let days: Vec<String> = days.iter().map(|day| (*day).to_owned()).collect();
        let time = |text: &str| text.to_owned().try_into().unwrap();
        Quiet { from: time(from), to: time(to), days: days.try_into().unwrap(), channel: None, purpose: None }
    }

    #[track_caller]
    fn check(rules: &[Quiet], zone_name: &str, at: &str, expected: Option<&str>) {
        let zone = zone(Some(zone_name), "UTC");
        let found = end(|| rules.iter(), &zone, Millis::parse(at).unwrap());
        assert_eq!(found, expected.map(|text| Millis::parse(text).unwrap()), "{zone_name} at {at}");
    }

    #[test]
    fn quiet_hours_are_those_of_the_recipients_clock() {
        let night = [rule("21:00", "08:00", &[])];
        check(&night, "Asia/Tokyo", "2026-06-01T12:00:00Z", Some("2026-06-01T23:00:00Z"));
        check(&night, "America/New_York", "2026-06-01T12:00:00Z", None);
        check(&night, "Europe/Berlin", "2026-06-01T19:00:00Z", Some("2026-06-02T06:00:00Z"));
        check(&night, "Europe/Berlin", "2026-06-01T18:59:59.999Z", None);
        check(&night, "Europe/Berlin", "2026-06-02T06:00:00Z", None);
        check(&night, "Nowhere/Land", "2026-06-01T21:00:00Z", Some("2026-06-02T08:00:00Z"));
    }

    #[test]
    fn a_skipped_hour_ends_where_the_clock_jumps_to() {
        // New York, 2026-03-08: 02:00 becomes 03:00 at 07:00Z.
        let into_gap = [rule("21:00", "02:30", &[])];
        check(&into_gap, "America/New_York", "2026-03-08T06:30:00Z", Some("2026-03-08T07:00:00Z"));
        let out_of_gap = [rule("02:15", "02:45", &[])];
        check(&out_of_gap, "America/New_York", "2026-03-08T07:00:00Z", None);
        let across = [rule("01:30", "03:30", &[])];
        check(&across, "America/New_York", "2026-03-08T06:45:00Z", Some("2026-03-08T07:30:00Z"));
    }

    #[test]
    fn an_hour_shown_twice_is_quiet_twice() {
        // New York, 2026-11-01: 02:00 becomes 01:00 at 06:00Z.
        let half = [rule("21:00", "01:30", &[])];
        check(&half, "America/New_York", "2026-11-01T05:00:00Z", Some("2026-11-01T05:30:00Z"));
        check(&half, "America/New_York", "2026-11-01T05:45:00Z", None);
        check(&half, "America/New_York", "2026-11-01T06:00:00Z", Some("2026-11-01T06:30:00Z"));
        let whole = [rule("21:00", "08:00", &[])];
        check(&whole, "America/New_York", "2026-11-01T05:00:00Z", Some("2026-11-01T13:00:00Z"));
        let zone = zone(Some("America/New_York"), "UTC");
        let found = begin(|| half.iter(), &zone, Millis::parse("2026-11-01T05:59:59Z").unwrap(), Millis::MAX);
        assert_eq!(found, Millis::parse("2026-11-01T06:00:00Z"), "the fold begins the quiet half hour again");
    }

    #[test]
    fn days_name_when_it_begins_and_rules_add_up() {
        let weekend = [rule("00:00", "00:00", &["sat", "sun"]), rule("21:00", "08:00", &[])];
        // 2026-06-06 is a Saturday; Monday's 08:00 ends Sunday's night.
        check(&weekend, "UTC", "2026-06-06T12:00:00Z", Some("2026-06-08T08:00:00Z"));
        check(&weekend, "UTC", "2026-06-05T22:00:00Z", Some("2026-06-08T08:00:00Z"));
        check(&weekend, "UTC", "2026-06-05T12:00:00Z", None);
        let friday_night = [rule("21:00", "08:00", &["fri"])];
        check(&friday_night, "UTC", "2026-06-06T07:00:00Z", Some("2026-06-06T08:00:00Z"));
        check(&friday_night, "UTC", "2026-06-06T22:00:00Z", None);
    }

    #[test]
    fn a_day_that_a_country_skipped_is_no_trouble() {
        // Samoa went from the end of 2011-12-29 to 2011-12-31 by moving from UTC-10 to UTC+14.
        let night = [rule("21:00", "08:00", &[])];
        check(&night, "Pacific/Apia", "2011-12-30T08:00:00Z", Some("2011-12-30T18:00:00Z"));
    }

    #[test]
    fn rules_that_leave_no_time_never_end() {
        let all = [rule("08:00", "20:00", &[]), rule("20:00", "08:00", &[])];
        assert!(never_ends(|| all.iter()));
        assert!(!never_ends(|| all[..1].iter()));
    }
}
