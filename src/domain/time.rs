//! Points in time as milliseconds since the Unix epoch, the resolution of Kafka's timestamps and of every SDK.
//!
//! Leaves reading a clock to `env`, and calendars and time zones to whoever needs them.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

pub use std::time::Duration;

pub const SECOND_MS: i64 = 1_000;
pub const MINUTE_MS: i64 = 60 * SECOND_MS;
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// Milliseconds since 1970-01-01T00:00:00Z; negative before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    pub const MIN: Millis = Millis(i64::MIN);
    pub const MAX: Millis = Millis(i64::MAX);

    /// The latest multiple of `width_ms` at or before this time.
    pub fn floor_to(self, width_ms: i64) -> Millis {
        Millis(self.0.div_euclid(width_ms) * width_ms)
    }

    /// How long ago `earlier` was, in milliseconds; negative if it is later.
    pub fn since_ms(self, earlier: Millis) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The RFC 3339 instant this stands for, or `None` outside the calendar's range.
    pub fn to_rfc3339(self) -> Option<String> {
        jiff::Timestamp::from_millisecond(self.0).ok().map(|t| format!("{t:.3}"))
    }

    /// Reads an RFC 3339 instant (offset or `Z`, any sub-second precision) or a plain date, taken as midnight UTC.
    pub fn parse(text: &str) -> Option<Millis> {
        if let Ok(instant) = text.parse::<jiff::Timestamp>() {
            return Some(Millis(instant.as_millisecond()));
        }
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        let zoned = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(Millis(zoned.timestamp().as_millisecond()))
    }
}

impl Add<i64> for Millis {
    type Output = Millis;
    fn add(self, ms: i64) -> Millis {
        Millis(self.0.saturating_add(ms))
    }
}

impl Sub<i64> for Millis {
    type Output = Millis;
    fn sub(self, ms: i64) -> Millis {
        Millis(self.0.saturating_sub(ms))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_rfc3339() {
            Some(text) => f.write_str(&text),
            None => write!(f, "{} ms", self.0),
        }
    }
}

impl fmt::Debug for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Millis({self})")
    }
}
