//! When runs begin that nobody asks for: schedules, and broadcasts spread over their throttle.

use super::definition::{Definition, EntryBy};
use super::ids::chance;
use crate::domain::{DAY_MS, Millis};

/// 1970-01-05 was a Monday: weeks are counted from there.
const MONDAY: i64 = 4;

/// The next time after `after` at which a schedule begins a run; `None` for what has no schedule. Without a time of day: each multiple of
/// `every` since 1970. With one: on every so manieth day or week since 1970, in the zone, if its weekday is allowed.
pub fn next_time(definition: &Definition, after: Millis, zone: Option<&str>) -> Option<Millis> {
    let EntryBy::Schedule { every_ms, at } = &definition.entry.by else { return None };
    let every_ms = (*every_ms).max(1);
    let Some(local) = at else { return Some(after.floor_to(every_ms) + every_ms) };
    let days = (every_ms / DAY_MS).max(1);
    let mut next = after;
    // One of this many days is the one, or none ever is.
    for _ in 0..days.saturating_add(8) {
        next = local.at_or_after(next + 1, zone);
        if is_its_day(local.day(next, zone)?, days) {
            return Some(next);
        }
    }
    None
}

/// Whole weeks are counted as weeks, so that they go with weekdays.
fn is_its_day(day: i64, days: i64) -> bool {
    if days % 7 == 0 { (day - MONDAY).div_euclid(7).rem_euclid(days / 7) == 0 } else { day.rem_euclid(days) == 0 }
}

/// What a scheduled run is caused by: the same time gives the same run, however often it is said.
pub fn schedule_cause(workflow: &str, at: Millis) -> String {
    format!("schedule:{workflow}:{}", at.0)
}

/// How long after a broadcast began this subject's run is to begin: the same for the same broadcast, and evenly spread.
pub fn stagger(broadcast: &str, subject: &str, throttle_ms: i64) -> i64 {
    let within = chance(&["broadcast", broadcast, subject], u64::try_from(throttle_ms).unwrap_or(0));
    i64::try_from(within).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::HOUR_MS;

    #[track_caller]
    fn check(entry: &str, after: &str, zone: Option<&str>, expect: &str) {
        let text = format!("[workflow]\nname = \"w\"\nentry = {entry}\n[[node]]\nname = \"end\"\nkind = \"exit\"\n");
        let definition = Definition::parse("w.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
        let next = next_time(&definition, Millis::parse(after).unwrap(), zone);
        assert_eq!(next.and_then(Millis::to_rfc3339), Some(expect.to_owned()));
    }

    #[test]
    fn a_plain_schedule_is_every_multiple_of_its_length() {
        check("{ every = \"15m\" }", "2024-01-01T10:07:00Z", None, "2024-01-01T10:15:00.000Z");
        check("{ every = \"15m\" }", "2024-01-01T10:15:00Z", None, "2024-01-01T10:30:00.000Z");
    }

    #[test]
    fn a_time_of_day_is_that_of_the_zone_and_follows_its_clock() {
        let entry = "{ every = \"1d\", at = \"09:00\", zone = \"Europe/Berlin\" }";
        check(entry, "2024-01-01T08:00:00Z", None, "2024-01-02T08:00:00.000Z");
        check(entry, "2024-03-30T09:00:00Z", None, "2024-03-31T07:00:00.000Z");
        check(entry, "2024-01-01T08:00:00Z", Some("America/New_York"), "2024-01-01T14:00:00.000Z");
    }

    #[test]
    fn weekdays_and_weeks_go_together() {
        let weekly = "{ every = \"7d\", at = \"09:00\", weekdays = [\"wed\"], zone = \"UTC\" }";
        check(weekly, "2024-01-01T00:00:00Z", None, "2024-01-03T09:00:00.000Z");
        check(weekly, "2024-01-03T09:00:00Z", None, "2024-01-10T09:00:00.000Z");
        let fortnight = "{ every = \"14d\", at = \"09:00\", weekdays = [\"mon\", \"thu\"], zone = \"UTC\" }";
        check(fortnight, "2024-01-01T00:00:00Z", None, "2024-01-08T09:00:00.000Z");
        check(fortnight, "2024-01-08T09:00:00Z", None, "2024-01-11T09:00:00.000Z");
        check(fortnight, "2024-01-11T09:00:00Z", None, "2024-01-22T09:00:00.000Z");
    }

    #[test]
    fn a_broadcast_is_spread_evenly_and_the_same_each_time() {
        let at = |number: usize| stagger("b1", &format!("t\0u:{number}"), HOUR_MS);
        let first_half = (0..1_000).filter(|number| at(*number) < HOUR_MS / 2).count();
        assert!((430..570).contains(&first_half), "{first_half}");
        assert!((0..1_000).all(|number| (0..HOUR_MS).contains(&at(number)) && at(number) == at(number)));
        assert_eq!(stagger("b1", "t\0u:1", 0), 0);
    }
}
