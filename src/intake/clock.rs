//! When an event happened: what it says, made safe against wrong clocks.
//!
//! `timestamp`, else `originalTimestamp`, else the moment of receipt. On the wall clock a client whose clock is wrong by more than
//! [`SKEW_MS_MIN`] is corrected by as much (a smaller difference is transit and retries, and must not move an event across midnight), and
//! nothing happens after it was received. In event time nothing is changed, and a time must be given.

use super::Item;
use super::decide::Refusal;
use super::members::Members;
use super::settings::Clock;
use super::text::scalar;
use crate::domain::{DeadReason, Millis, SECOND_MS};

/// Below this a client's clock counts as right. PostHog's deadband, found where transit and skew cannot be told apart.
const SKEW_MS_MIN: i64 = 150 * SECOND_MS;

/// 1900-01-01. What is older is a zero value that some language wrote for "not set" (year 1 in Go and C#).
const OLDEST: Millis = Millis(-2_208_988_800_000);

/// Numbers from here on are milliseconds, below it seconds (1973 in the one, 5138 in the other).
const MILLISECONDS_FROM: f64 = 1e11;

pub(super) fn event_time(members: &Members<'_>, item: &Item<'_>, clock: Clock) -> Result<Millis, Refusal> {
    let sent = read("timestamp", members.timestamp)?;
    let original = read("originalTimestamp", members.original_timestamp)?;
    let said = sent.or(original);
    if clock == Clock::Event {
        let detail = "this namespace lives in event time and the event has no timestamp; send one";
        return said.ok_or_else(|| Refusal::new(DeadReason::MissingField, detail));
    }
    let Some(said) = said else { return Ok(item.received_at) };
    // With both given, a server before us has corrected `timestamp` already: Segment forwards events so.
    let corrected_before = sent.is_some() && original.is_some();
    let ahead_ms = item.sent_at.map_or(0, |sent_at| sent_at.since_ms(item.received_at));
    let skew_ms = if corrected_before || ahead_ms.saturating_abs() <= SKEW_MS_MIN { 0 } else { ahead_ms };
    Ok((said - skew_ms).min(item.received_at))
}

/// A time member: RFC 3339, a date, or a number of seconds or milliseconds since 1970.
fn read(name: &str, raw: Option<&str>) -> Result<Option<Millis>, Refusal> {
    let Some(raw) = raw else { return Ok(None) };
    let text = scalar(raw).unwrap_or_default();
    if text.is_empty() && raw == "\"\"" {
        return Ok(None);
    }
    let time = Millis::parse(&text).or_else(|| number(&text));
    let time = time.ok_or_else(|| {
        let shown = &raw[..raw.floor_char_boundary(60)];
        let detail = format!("{name} is {shown}, which is no time; send RFC 3339, such as 2026-01-31T09:30:00.000Z");
        Refusal::new(DeadReason::Malformed, detail)
    })?;
    Ok(Some(time).filter(|time| *time >= OLDEST))
}

fn number(text: &str) -> Option<Millis> {
    let value: f64 = text.trim().parse().ok().filter(|value: &f64| value.is_finite())?;
    let ms = if value.abs() < MILLISECONDS_FROM { value * 1_000.0 } else { value };
    Some(Millis(ms as i64))
}
