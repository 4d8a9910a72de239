//! `events` by months: partitions are made as events come, and dropped whole when their retention is over.
//!
//! A month's partition is made beside the table and then attached, which waits for no reader. What lies before the first month of a
//! generation's first events goes into one partition, `events_older`, so that no client can make a partition for every month since the
//! year 1. A month counts as there only once the transaction that made it has committed.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::ToSpan;
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::bounded;
use crate::domain::DAY_MS;
use crate::projections::Error;

/// How far before a generation's first events months are kept apart.
const MONTHS_BEFORE_MAX: i64 = 120;

/// From here on everything is in one partition: no clock is that far.
const LATER: Date = date(2200, 1, 1);
const EARLIEST: Date = date(1970, 1, 1);

/// How often it is looked whether a month is over.
const TEND_EVERY_MS: i64 = 3_600_000;

/// A table's lock must not be waited for while readers wait behind.
const LOCK_WAIT_MS: u32 = 1_000;

pub struct Months {
    keep_days: u32,
    timeout: Duration,
    /// The first month that has a partition of its own; none before anything was written.
    floor: Option<Date>,
    made: BTreeSet<Date>,
    /// In this transaction.
    making: Vec<Date>,
    was_floor: Option<Date>,
    events_from: i64,
    tended_at: Option<i64>,
}

impl Months {
    pub async fn open(connection: &mut PgConnection, keep_days: u32, timeout: Duration) -> Result<Self, Error> {
        let sql =
            "SELECT c.relname::text FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid WHERE i.inhparent = 'events'::regclass";
        let names = bounded(timeout, sqlx::query(sql).fetch_all(&mut *connection)).await.map_err(Error::sql("months"))?;
        let made = names.iter().filter_map(|row| month_named(row.get(0))).collect();
        let meta = "SELECT (SELECT value FROM meta WHERE key = 'events_floor'), (SELECT value FROM meta WHERE key = 'events_from')";
        let meta = bounded(timeout, sqlx::query(meta).fetch_one(&mut *connection)).await.map_err(Error::sql("months"))?;
        let (floor, from): (Option<String>, Option<String>) = (meta.get(0), meta.get(1));
        let floor = floor.and_then(|text| text.parse().ok());
        let events_from = from.and_then(|text| text.parse().ok()).unwrap_or(i64::MIN);
        Ok(Self { keep_days, timeout, floor, made, making: Vec::new(), was_floor: floor, events_from, tended_at: None })
    }

    /// Events before this time have no row.
    pub fn events_from(&self) -> i64 {
        self.events_from
    }

    /// Makes the partitions that rows of these times need, in the transaction under way.
    pub async fn make(&mut self, connection: &mut PgConnection, times: impl Iterator<Item = i64>) -> Result<(), Error> {
        let (mut months, mut last) = (BTreeSet::new(), 0..0);
        for time in times {
            if !last.contains(&time) {
                let month = month_of(time);
                last = start(month)..start(after(month));
                months.insert(month);
            }
        }
        let (Some(first), Some(newest)) = (months.first().copied(), months.last().copied()) else { return Ok(()) };
        let floor = match self.floor {
            Some(floor) => floor,
            None => self.begin(connection, first, newest).await?,
        };
        for month in months {
            if month < floor || month >= LATER || self.made.contains(&month) || self.making.contains(&month) {
                continue;
            }
            let (from, to) = (start(month).to_string(), start(after(month)).to_string());
            self.attach(connection, &name(month), &from, &to).await?;
            self.making.push(month);
        }
        Ok(())
    }

    /// Decides what the first month is, once for a generation.
    async fn begin(&mut self, connection: &mut PgConnection, first: Date, newest: Date) -> Result<Date, Error> {
        let reach = newest.checked_sub(MONTHS_BEFORE_MAX.months()).unwrap_or(EARLIEST);
        let kept = if self.events_from > i64::MIN { month_of(self.events_from) } else { EARLIEST };
        let floor = first.max(reach).max(kept).clamp(EARLIEST, LATER);
        self.attach(connection, "events_older", "MINVALUE", &start(floor).to_string()).await?;
        self.attach(connection, "events_later", &start(LATER).to_string(), "MAXVALUE").await?;
        let sql = format!("INSERT INTO meta (key, value) VALUES ('events_floor', '{floor}')");
        self.run(connection, sql).await?;
        self.floor = Some(floor);
        Ok(floor)
    }

    async fn attach(&self, connection: &mut PgConnection, name: &str, from: &str, to: &str) -> Result<(), Error> {
        // Whoever reads `events` reads its rows by its policy; nobody is given a right on a part.
        let sql = format!(
            "CREATE TABLE {name} (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE); \
             ALTER TABLE {name} ENABLE ROW LEVEL SECURITY; \
             ALTER TABLE events ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})"
        );
        self.run(connection, sql).await
    }

    pub fn committed(&mut self) {
        self.made.extend(self.making.drain(..));
        self.was_floor = self.floor;
    }

    pub fn rolled_back(&mut self) {
        self.making.clear();
        self.floor = self.was_floor;
    }

    /// Says from when on events are kept, without dropping anything yet.
    pub async fn keep(&mut self, connection: &mut PgConnection, now: i64) -> Result<(), Error> {
        if self.keep_days == 0 {
            return Ok(());
        }
        let from = start(month_of(now.saturating_sub(i64::from(self.keep_days) * DAY_MS)));
        if from > self.events_from {
            let sql = format!(
                "INSERT INTO meta (key, value) VALUES ('events_from', '{from}') ON CONFLICT (key) DO UPDATE SET value = excluded.value"
            );
            self.run(connection, sql).await?;
            self.events_from = from;
        }
        Ok(())
    }

    /// Now and then, between transactions: drops what is over.
    pub async fn tend(&mut self, connection: &mut PgConnection, now: i64) -> Result<(), Error> {
        if self.events_from == i64::MIN || self.tended_at.is_some_and(|at| now < at + TEND_EVERY_MS) {
            return Ok(());
        }
        self.tended_at = Some(now);
        self.keep(connection, now).await?;
        let first = month_of(self.events_from);
        let over: Vec<Date> = self.made.range(..first).copied().collect();
        for month in over {
            let sql = format!("BEGIN; SET LOCAL lock_timeout = {LOCK_WAIT_MS}; DROP TABLE {}; COMMIT", name(month));
            if let Err(error) = self.run(connection, sql).await {
                return self.later(connection, &error).await;
            }
            tracing::info!(%month, "the retention of a month's events is over; its rows are dropped");
            self.made.remove(&month);
        }
        let Some(floor) = self.floor else { return Ok(()) };
        let sql = match first >= floor {
            true => format!("BEGIN; SET LOCAL lock_timeout = {LOCK_WAIT_MS}; TRUNCATE events_older; COMMIT"),
            false => format!("DELETE FROM events_older WHERE timestamp < {}", self.events_from),
        };
        match self.run(connection, sql).await {
            Ok(()) => Ok(()),
            Err(error) => self.later(connection, &error).await,
        }
    }

    /// Somebody reads what is to go: it goes the next time.
    async fn later(&self, connection: &mut PgConnection, error: &Error) -> Result<(), Error> {
        tracing::debug!(%error, "rows whose retention is over are dropped later");
        self.run(connection, "ROLLBACK".to_owned()).await
    }

    async fn run(&self, connection: &mut PgConnection, sql: String) -> Result<(), Error> {
        bounded(self.timeout, sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection)).await.map_err(Error::sql("months")).map(drop)
    }
}

/// The first day of the month of a time; of one outside of the calendar its first or last.
fn month_of(time: i64) -> Date {
    let day = match jiff::Timestamp::from_millisecond(time) {
        Ok(at) => at.to_zoned(TimeZone::UTC).date(),
        Err(_) if time < 0 => Date::MIN,
        Err(_) => Date::MAX,
    };
    day.first_of_month()
}

fn after(month: Date) -> Date {
    month.checked_add(1.month()).unwrap_or(Date::MAX)
}

/// When a month begins, in ms since 1970.
fn start(month: Date) -> i64 {
    month.to_zoned(TimeZone::UTC).map_or(if month.year() < 0 { i64::MIN } else { i64::MAX }, |at| at.timestamp().as_millisecond())
}

fn name(month: Date) -> String {
    format!("events_{:04}_{:02}", month.year(), month.month())
}

fn month_named(name: &str) -> Option<Date> {
    let (year, month) = name.strip_prefix("events_")?.split_once('_')?;
    Date::new(year.parse().ok()?, month.parse().ok()?, 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_months_whatever_they_are() {
        for (time, expected) in [(0, "1970-01-01"), (-1, "1969-12-01"), (1_709_290_800_000, "2024-03-01"), (i64::MAX, "9999-12-01")] {
            let month = month_of(time);
            assert_eq!(month.to_string(), expected);
            assert!(start(month) <= time && time < start(after(month)) || time == i64::MAX, "{time}");
        }
        assert_eq!(month_named(&name(month_of(1_709_290_800_000))), Some(date(2024, 3, 1)));
        assert_eq!(month_named("events_older"), None);
    }
}
