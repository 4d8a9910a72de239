//! A token bucket: so many a second, and as many at once as a second brings (one at least).

#[derive(Debug, Clone)]
pub struct Bucket {
    /// Thousandths of a token.
    tokens: u64,
    per_second: u64,
    filled_at: u64,
}

impl Bucket {
    /// Without a limit if `per_second` is 0.
    pub fn new(per_second: u32, now: u64) -> Self {
        let per_second = u64::from(per_second);
        Self { tokens: per_second * 1_000, per_second, filled_at: now }
    }

    fn fill(&mut self, now: u64) {
        // A rate of one a second is one thousandth a millisecond: no remainder is lost.
        let more = now.saturating_sub(self.filled_at).saturating_mul(self.per_second);
        self.tokens = self.tokens.saturating_add(more).min(self.per_second * 1_000);
        self.filled_at = self.filled_at.max(now);
    }

    pub fn has(&mut self, now: u64) -> bool {
        self.fill(now);
        self.per_second == 0 || self.tokens >= 1_000
    }

    pub fn take(&mut self) {
        self.tokens = self.tokens.saturating_sub(1_000);
    }

    /// When it has one again.
    pub fn ready_at(&self) -> u64 {
        let missing = 1_000u64.saturating_sub(self.tokens);
        self.filled_at + missing.div_ceil(self.per_second.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_and_no_more_at_once() {
        let mut bucket = Bucket::new(3, 0);
        let mut taken = Vec::new();
        let mut now = 0;
        while now < 2_000 {
            if bucket.has(now) {
                bucket.take();
                taken.push(now);
            } else {
                now = bucket.ready_at();
            }
        }
        assert_eq!(taken, [0, 0, 0, 334, 667, 1_000, 1_334, 1_667], "a burst of one second's worth, then evenly");
        let mut idle = Bucket::new(3, 0);
        assert!(idle.has(1_000_000));
        (0..3).for_each(|_| idle.take());
        assert!(!idle.has(1_000_000));
    }

    #[test]
    fn a_rate_of_none_is_no_limit() {
        let mut bucket = Bucket::new(0, 0);
        assert!((0..10_000).all(|_| {
            bucket.take();
            bucket.has(0)
        }));
    }
}
