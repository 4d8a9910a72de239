//! UTC days as roll-ups write them: `2026-01-31`, sortable as text.

use crate::domain::{DAY_MS, Millis};

/// The day a time falls on, counted from 1970-01-01.
pub fn of(time: i64) -> i64 {
    time.div_euclid(DAY_MS)
}

/// Far outside of the calendar the day's number, so that nothing is lost.
pub fn text(day: i64) -> String {
    match Millis(day.saturating_mul(DAY_MS)).to_rfc3339() {
        Some(text) => text[..10].to_owned(),
        None => day.to_string(),
    }
}

/// The inverse of [`text`] for days of the calendar.
pub fn number(text: &str) -> Option<i64> {
    Millis::parse(text).map(|midnight| of(midnight.0))
}
