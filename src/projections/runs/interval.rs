//! How sure one may be of a rate: Wilson's interval of one proportion, Newcombe's of the difference of two, at 95 %.
//!
//! Both hold up where campaigns are: few conversions, small holdouts, rates near zero.

use serde::Serialize;

/// The 97.5 % point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

impl Interval {
    /// Whether there is a difference at all, as far as this tells.
    pub fn excludes_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// Of `hits` out of `of`; without any it may be everything.
pub fn wilson(hits: u64, of: u64) -> Interval {
    if of == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let (n, p) = (of as f64, rate(hits, of));
    let z2 = Z * Z;
    let middle = p + z2 / (2.0 * n);
    let spread = Z * libm::sqrt(p * (1.0 - p) / n + z2 / (4.0 * n * n));
    let scale = 1.0 + z2 / n;
    // Rounding must not leave what a rate can be.
    let low = if hits == 0 { 0.0 } else { ((middle - spread) / scale).max(0.0) };
    let high = if hits >= of { 1.0 } else { ((middle + spread) / scale).min(1.0) };
    Interval { low, high }
}

/// Of the first rate minus the second, each as hits out of so many.
pub fn newcombe(first: (u64, u64), second: (u64, u64)) -> Interval {
    let (p1, p2) = (rate(first.0, first.1), rate(second.0, second.1));
    let (one, two) = (wilson(first.0, first.1), wilson(second.0, second.1));
    let spread = |a: f64, b: f64| libm::sqrt(a * a + b * b);
    let low = p1 - p2 - spread(p1 - one.low, two.high - p2);
    let high = p1 - p2 + spread(one.high - p1, p2 - two.low);
    Interval { low: low.max(-1.0), high: high.min(1.0) }
}

pub fn rate(hits: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { hits as f64 / of as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(interval: Interval, low: f64, high: f64) {
        let is = (interval.low - low).abs() < 5e-5 && (interval.high - high).abs() < 5e-5;
        assert!(is, "{interval:?} is not {low}..{high}");
    }

    /// The examples of Newcombe 1998 (Statistics in Medicine 17, 857 and 873): method 3 of one proportion, method 10 of two.
    #[test]
    fn published_examples_come_out_to_the_fourth_digit() {
        close(wilson(81, 263), 0.2553, 0.3662);
        close(wilson(15, 148), 0.0624, 0.1605);
        close(wilson(0, 20), 0.0, 0.1611);
        close(wilson(1, 29), 0.0061, 0.1718);
        close(newcombe((56, 70), (48, 80)), 0.0524, 0.3339);
        close(newcombe((9, 10), (3, 10)), 0.1705, 0.8090);
        close(newcombe((5, 56), (0, 29)), -0.0381, 0.1926);
        close(newcombe((10, 10), (0, 10)), 0.6075, 1.0);
    }

    #[test]
    fn of_nothing_nothing_is_known() {
        close(wilson(0, 0), 0.0, 1.0);
        assert!(!newcombe((0, 0), (0, 0)).excludes_zero());
        assert!(!newcombe((3, 4), (0, 0)).excludes_zero());
    }

    #[test]
    fn an_interval_holds_its_rate_and_a_difference_has_a_mirror() {
        for of in 1..60u64 {
            for hits in 0..=of {
                let interval = wilson(hits, of);
                let p = rate(hits, of);
                assert!(interval.low <= p && p <= interval.high, "{hits} of {of}: {interval:?}");
                let (there, back) = (newcombe((hits, of), (1, 7)), newcombe((1, 7), (hits, of)));
                assert!((there.low + back.high).abs() < 1e-12 && (there.high + back.low).abs() < 1e-12);
            }
        }
    }
}
