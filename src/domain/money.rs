//! Money in fixed point: millionths of a currency unit, so that sums are exact and the same on every machine.
//!
//! Parsing is decimal, never through floating point. Adding saturates rather than wraps; nine trillion units fit.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An amount in millionths of some currency's unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Money(pub i64);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an amount of money (a decimal number with at most 12 digits before the point)")]
pub struct MoneyError(pub String);

impl Money {
    pub const ZERO: Money = Money(0);
    /// Millionths in one unit.
    pub const UNIT: i64 = 1_000_000;

    /// Reads a JSON or CSV number: `12`, `-3.50`, `1.2e3`. Digits past the sixth after the point are rounded half away from zero.
    pub fn parse(text: &str) -> Result<Money, MoneyError> {
        let bad = || MoneyError(text.to_owned());
        let trimmed = text.trim();
        let (mantissa, exponent) = match trimmed.find(['e', 'E']) {
            Some(at) => (&trimmed[..at], trimmed[at + 1..].parse::<i32>().map_err(|_| bad())?),
            None => (trimmed, 0),
        };
        let (negative, digits) = match mantissa.as_bytes().first() {
            Some(b'-') => (true, &mantissa[1..]),
            Some(b'+') => (false, &mantissa[1..]),
            _ => (false, mantissa),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
        if !all_digits || (whole.is_empty() && fraction.is_empty()) || exponent.abs() > 30 || digits.len() > 60 {
            return Err(bad());
        }
        // The value is 0.DIGITS times ten to the power `point`; scale to millionths digit by digit, so nothing is rounded on the way.
        let point = whole.len() as i32 + exponent + 6;
        let mut value: i128 = 0;
        let mut round_up = false;
        for (at, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
            let digit = i128::from(digit - b'0');
            if (at as i32) < point {
                value = value * 10 + digit;
            } else {
                round_up = at as i32 == point && digit >= 5;
                break;
            }
            if value > i128::from(i64::MAX) {
                return Err(bad());
            }
        }
        let given = (whole.len() + fraction.len()) as i32;
        for _ in given..point {
            value *= 10;
            if value > i128::from(i64::MAX) {
                return Err(bad());
            }
        }
        let magnitude = i64::try_from(value + i128::from(round_up)).map_err(|_| bad())?;
        Ok(Money(if negative { -magnitude } else { magnitude }))
    }

    pub fn saturating_add(self, other: Money) -> Money {
        Money(self.0.saturating_add(other.0))
    }

    /// The amount as a floating-point number of units, for scores and displays; never for sums.
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / Self::UNIT as f64
    }
}

/// At least two decimals, at most six, no exponent: `12.50`, `-0.333333`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let (whole, mut fraction) = (magnitude / Self::UNIT as u64, magnitude % Self::UNIT as u64);
        let mut decimals = 6;
        while decimals > 2 && fraction % 10 == 0 {
            fraction /= 10;
            decimals -= 1;
        }
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{whole}.{fraction:0decimals$}")
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Money({self})")
    }
}

/// An ISO 4217 code, upper case; anything that is not three letters reads as [`Currency::UNKNOWN`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Currency([u8; 3]);

impl Currency {
    /// ISO 4217's own code for "no currency".
    pub const UNKNOWN: Currency = Currency(*b"XXX");

    pub fn parse(text: &str) -> Currency {
        match text.as_bytes() {
            [a, b, c] if text.bytes().all(|b| b.is_ascii_alphabetic()) => {
                Currency([a.to_ascii_uppercase(), b.to_ascii_uppercase(), c.to_ascii_uppercase()])
            }
            _ => Currency::UNKNOWN,
        }
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("three ASCII letters")
    }

    pub fn bytes(self) -> [u8; 3] {
        self.0
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_decimals_exactly() {
        let cases = [
            ("11.77", 11_770_000),
            ("0", 0),
            ("-3.5", -3_500_000),
            ("1.2e3", 1_200_000_000),
            (".5", 500_000),
            ("12.", 12_000_000),
            ("0.0000005", 1),
            ("0.0000004", 0),
            ("1E-6", 1),
            ("2500315.63", 2_500_315_630_000),
        ];
        for (text, micros) in cases {
            assert_eq!(Money::parse(text), Ok(Money(micros)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_an_amount() {
        for text in ["", ".", "-", "1,5", "abc", "1e99", "NaN", "99999999999999999"] {
            assert!(Money::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prints_at_least_two_decimals() {
        for (micros, text) in [(11_770_000, "11.77"), (5_000_000, "5.00"), (-333_333, "-0.333333"), (0, "0.00")] {
            assert_eq!(Money(micros).to_string(), text);
        }
    }
}
