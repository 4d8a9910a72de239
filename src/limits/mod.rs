//! How many requests a tenant may make: a token bucket each, in this process or, for all gateways together, in Redis.
//!
//! Counts requests, not events: what an event costs is bounded by the body's bytes. A per-person flood limit is intake's.
//!
//! A limit keeps one tenant from taking what the others need. It is no account: where Redis is gone, slow or was emptied, requests are
//! admitted by this process's own share, or from full buckets, and none is refused for it.

mod local;
mod options;
#[cfg(feature = "redis")]
mod redis;

use std::time::Duration;

pub use local::Local;
pub use options::RedisOptions;
#[cfg(feature = "redis")]
pub use redis::{Redis, check};

use crate::domain::TenantId;

/// Who counts.
pub enum Limits {
    Local(Local),
    #[cfg(feature = "redis")]
    Redis(Redis),
}

impl Limits {
    /// Counted in this process.
    pub fn local(rate: u32, burst: u32) -> Self {
        Limits::Local(Local::new(rate, burst))
    }
}

/// A key of the settings, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {detail}")]
pub struct Error {
    pub key: &'static str,
    pub detail: String,
}

impl Limits {
    /// Takes one request of the tenant's allowance, or says how long to wait for the next. Never waits itself; within a runtime.
    pub fn admit(&self, tenant: &TenantId) -> Result<(), Duration> {
        match self {
            Limits::Local(local) => local.admit(tenant),
            #[cfg(feature = "redis")]
            Limits::Redis(redis) => redis.admit(tenant),
        }
    }

    /// Why requests are counted otherwise than they should be, if they are.
    pub fn degraded(&self) -> Option<String> {
        match self {
            Limits::Local(_) => None,
            #[cfg(feature = "redis")]
            Limits::Redis(redis) => redis.degraded(),
        }
    }
}
