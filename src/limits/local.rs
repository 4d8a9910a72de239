//! A token bucket for each tenant in this process: all there is to one gateway, and what decides for many while Redis does not answer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::domain::TenantId;

/// A bucket that fills by `rate` tokens a second up to `burst`. Time is handed in, so that it can be tested without waiting.
#[derive(Debug, Clone)]
struct Bucket {
    tokens: f64,
    filled: Duration,
}

impl Bucket {
    fn take(&mut self, rate: f64, burst: f64, now: Duration) -> Result<(), Duration> {
        let passed = now.saturating_sub(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * rate).min(burst);
        self.filled = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / rate))
    }
}

/// The buckets of all tenants. The set is bounded: only configured tenants ever ask.
#[derive(Debug)]
pub struct Local {
    rate: f64,
    burst: f64,
    start: Instant,
    buckets: Mutex<HashMap<TenantId, Bucket>>,
}

impl Local {
    /// `rate` 0 is without a limit.
    pub fn new(rate: u32, burst: u32) -> Self {
        Self::share(rate, burst, 1)
    }

    /// One part of so many, at least one request each.
    pub fn share(rate: u32, burst: u32, parts: u32) -> Self {
        let parts = f64::from(parts.max(1));
        Self { rate: f64::from(rate) / parts, burst: (f64::from(burst) / parts).max(1.0), start: Instant::now(), buckets: Mutex::default() }
    }

    /// Takes one request of the tenant's allowance, or says how long to wait for the next.
    pub fn admit(&self, tenant: &TenantId) -> Result<(), Duration> {
        if self.rate == 0.0 {
            return Ok(());
        }
        let now = self.start.elapsed();
        let mut buckets = self.buckets.lock();
        if let Some(bucket) = buckets.get_mut(tenant) {
            return bucket.take(self.rate, self.burst, now);
        }
        let mut bucket = Bucket { tokens: self.burst, filled: now };
        let taken = bucket.take(self.rate, self.burst, now);
        buckets.insert(tenant.clone(), bucket);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_a_burst_through_then_the_rate() {
        let mut bucket = Bucket { tokens: 2.0, filled: Duration::ZERO };
        let mut take = |ms| bucket.take(10.0, 2.0, Duration::from_millis(ms));
        assert_eq!((take(0), take(0)), (Ok(()), Ok(())));
        assert_eq!(take(0), Err(Duration::from_millis(100)));
        assert_eq!(take(100), Ok(()));
        assert!(take(150).is_err());
        assert_eq!((take(10_000), take(10_000), take(10_000).is_err()), (Ok(()), Ok(()), true));
    }
}
