//! One TOML file, overridden by the environment, overridden by flags; every key with a default and a line that explains it.
//!
//! Owns the settings' names, their defaults and where each effective value came from. Leaves making components of them to `app`: settings
//! are data, components are objects. Nothing else in the product reads an environment variable.

mod keys;
mod load;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::domain::{Namespace, SourceId, TenantId};

pub use keys::{KEYS, Key};
pub use load::{Effective, Error, Origin, load};

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub data: Data,
    pub server: Server,
    pub log: Log,
    pub stream: Stream,
    pub read: Read,
    pub observe: Observe,
    pub sources: Vec<Source>,
    pub namespaces: Vec<NamespaceConfig>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    pub dir: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    pub listen: String,
    pub connections_max: usize,
    pub event_bytes_max: usize,
    pub batch_bytes_max: usize,
    pub inflight_bytes_max: usize,
    pub header_timeout_ms: u64,
    pub body_timeout_ms: u64,
    pub requests_per_second_max: u32,
    pub drain_timeout_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub wal_bytes: u64,
    pub tail_bytes: usize,
    pub pending_bytes_max: usize,
    pub clean_interval_s: u64,
    pub intake_retention_days: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stream {
    pub partitions: u32,
    pub intake_threads: usize,
    pub profile_threads: usize,
    pub fetch_bytes: usize,
    pub tick_interval_ms: u64,
    pub flush_age_ms: u64,
    pub flush_bytes: usize,
    pub cache_bytes: usize,
    pub topology: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Read {
    pub batch_rows_max: usize,
    pub query_timeout_ms: u64,
    pub query_rows_max: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Observe {
    pub log_level: String,
    pub log_json: bool,
}

/// Who may send, and into which world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub name: SourceId,
    pub write_key: String,
    pub tenant: TenantId,
    pub namespace: Namespace,
    #[serde(default)]
    pub disabled: bool,
}

/// How a namespace tells time. A wall clock for live traffic; event time for imports, demonstrations and backtests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ClockKind {
    Wall,
    Event,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamespaceConfig {
    pub name: Namespace,
    pub clock: ClockKind,
    /// A topology file, or the name of a shipped one; `stream.topology` if absent.
    #[serde(default)]
    pub topology: Option<String>,
    #[serde(default)]
    pub partitions: Option<u32>,
}

/// The write key of a server that was not configured. It works on loopback only.
pub const DEVELOPMENT_WRITE_KEY: &str = "development";

impl Config {
    /// The configured sources, or the development one if there are none.
    pub fn sources_or_development(&self) -> Vec<Source> {
        if !self.sources.is_empty() {
            return self.sources.clone();
        }
        vec![Source {
            name: SourceId::new("development").expect("a slug"),
            write_key: DEVELOPMENT_WRITE_KEY.into(),
            tenant: TenantId::new("default").expect("a slug"),
            namespace: Namespace::new("main").expect("a slug"),
            disabled: false,
        }]
    }
}

impl Default for Data {
    fn default() -> Self {
        Self { dir: "flywheel-data".into() }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            connections_max: 4096,
            event_bytes_max: 512 * 1024,
            batch_bytes_max: 4 * 1024 * 1024,
            inflight_bytes_max: 256 * 1024 * 1024,
            header_timeout_ms: 10_000,
            body_timeout_ms: 30_000,
            requests_per_second_max: 0,
            drain_timeout_ms: 5_000,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            wal_bytes: 64 * 1024 * 1024,
            tail_bytes: 64 * 1024 * 1024,
            pending_bytes_max: 64 * 1024 * 1024,
            clean_interval_s: 60,
            intake_retention_days: 7,
        }
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            partitions: 4,
            intake_threads: 1,
            profile_threads: 1,
            fetch_bytes: 4 * 1024 * 1024,
            tick_interval_ms: 1_000,
            flush_age_ms: 5_000,
            flush_bytes: 64 * 1024 * 1024,
            cache_bytes: 256 * 1024 * 1024,
            topology: "spine".into(),
        }
    }
}

impl Default for Read {
    fn default() -> Self {
        Self { batch_rows_max: 20_000, query_timeout_ms: 30_000, query_rows_max: 100_000 }
    }
}

impl Default for Observe {
    fn default() -> Self {
        Self { log_level: "info".into(), log_json: false }
    }
}
