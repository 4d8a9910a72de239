//! What can be set about Redis.

use serde::{Deserialize, Serialize};

/// The section `[redis]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisOptions {
    /// `redis://HOST:PORT/DB` without the login; empty counts in each process by itself.
    pub url: String,
    /// Empty where none is asked for, or for the default user.
    pub user: String,
    pub password: String,
    /// What every key begins with, so that several Flywheels may share one Redis.
    pub prefix: String,
    /// Longest that Redis may take to answer; then this process's own share decides.
    pub timeout_ms: u64,
    /// How long Redis is left alone after it did not answer.
    pub pause_ms: u64,
    /// How many gateways share the limits: the part of one of them while Redis does not answer.
    pub gateways: u32,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            url: String::new(),
            user: String::new(),
            password: String::new(),
            prefix: "flywheel".into(),
            timeout_ms: 50,
            pause_ms: 1_000,
            gateways: 1,
        }
    }
}
