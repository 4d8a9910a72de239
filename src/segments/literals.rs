//! Lengths and points of time as text: `60d`, `1h30m`, `2024-03-01`.

use crate::domain::{DAY_MS, HOUR_MS, MINUTE_MS, Millis, SECOND_MS};

/// Milliseconds of a length such as `60d`, `1h30m`, `500ms`, `-2w`; `None` if it is not one. Days and weeks, which CEL's own
/// `duration` lacks, are 24 hours and seven times that.
pub fn duration_ms(text: &str) -> Option<i64> {
    let trimmed = text.trim();
    let (sign, mut rest) = match trimmed.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit_ms = match &rest[..letters] {
            "ms" => 1,
            "s" => SECOND_MS,
            "m" => MINUTE_MS,
            "h" => HOUR_MS,
            "d" => DAY_MS,
            "w" => 7 * DAY_MS,
            _ => return None,
        };
        rest = rest[letters..].trim_start();
        total = total.checked_add(count.checked_mul(unit_ms)?)?;
    }
    Some(sign * total)
}

/// A point in time: RFC 3339, or a plain date taken as midnight UTC.
pub(super) fn timestamp(text: &str) -> Option<Millis> {
    let with_time = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    Millis::parse(&with_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_add_up_their_units() {
        let cases = [
            ("60d", Some(60 * DAY_MS)),
            ("1h30m", Some(90 * MINUTE_MS)),
            ("1d 12h", Some(36 * HOUR_MS)),
            ("-2w", Some(-14 * DAY_MS)),
            ("0", Some(0)),
            ("500ms", Some(500)),
            ("", None),
            ("60", None),
            ("d", None),
            ("1y", None),
            ("99999999999999d", None),
        ];
        for (text, ms) in cases {
            assert_eq!(duration_ms(text), ms, "{text:?}");
        }
    }

    #[test]
    fn a_date_is_its_midnight() {
        assert_eq!(timestamp("1970-01-02"), Some(Millis(DAY_MS)));
        assert_eq!(timestamp("1970-01-01T01:00:00+01:00"), Some(Millis(0)));
        assert_eq!(timestamp("yesterday"), None);
    }
}
