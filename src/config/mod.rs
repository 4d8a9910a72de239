//! One TOML file, overridden by the environment, overridden by flags; every key with a default and a line that explains it.
//!
//! Owns the settings' names, their defaults and where each effective value came from. Leaves making components of them to `app`: settings
//! are data, components are objects. Nothing else in the product reads an environment variable.

mod keys;
mod load;
mod user;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::domain::{Namespace, SourceId, TenantId};
use crate::engine::effects;
use crate::gateway;
use crate::limits::RedisOptions;
use crate::log::embedded;
use crate::projections::{Backend, PostgresOptions};
use crate::schema::remote;
use crate::state;
use crate::stream::{self, NamespaceClock, inbox};

pub use keys::{KEYS, Key};
pub use load::{Effective, Error, Origin, load};
pub use user::user;

/// Everything that can be set.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub data: Data,
    pub server: Server,
    pub gateway: gateway::Options,
    pub log: Log,
    pub kafka: Kafka,
    pub process: Process,
    pub state: state::Options,
    pub cassandra: state::CassandraOptions,
    pub redis: RedisOptions,
    pub stream: stream::Options,
    pub inbox: inbox::Options,
    pub registry: remote::Options,
    pub topology: Topology,
    pub policy: Policy,
    pub read: Read,
    pub postgres: PostgresOptions,
    pub observe: Observe,
    pub links: Links,
    pub effects: effects::Options,
    pub channels: effects::ChannelOptions,
    pub sources: Vec<Source>,
    pub api_keys: Vec<ApiKey>,
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
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub backend: LogBackend,
    pub wal_bytes: u64,
    pub tail_bytes_max: usize,
    pub queue_bytes_max: usize,
    pub clean_interval_s: u64,
}

/// Where the log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogBackend {
    /// In the data folder, of one process.
    #[default]
    Embedded,
    /// On a cluster, shared by as many processes as there are.
    Kafka,
}

/// How to reach a Kafka cluster; only of meaning with `log.backend = "kafka"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    pub brokers: String,
    pub topic_prefix: String,
    pub instance: String,
    pub replication_factor: i32,
    pub min_insync_replicas: i32,
    pub create_topics: bool,
    pub session_timeout_ms: u64,
    pub transaction_timeout_ms: u64,
    pub call_timeout_ms: u64,
    pub compression: String,
    /// Of librdkafka, under its own names.
    pub client: BTreeMap<String, String>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".into(),
            topic_prefix: String::new(),
            instance: String::new(),
            replication_factor: 3,
            min_insync_replicas: 2,
            create_topics: true,
            session_timeout_ms: 10_000,
            transaction_timeout_ms: 10_000,
            call_timeout_ms: 8_000,
            compression: "lz4".into(),
            client: BTreeMap::new(),
        }
    }
}

/// A part of the product that a process can be; without any it is all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes events and requests.
    Gateway,
    /// Decodes what foreign producers publish, and makes events of what arrived.
    Intake,
    /// Folds events into profiles.
    Profiles,
    /// Decides what campaigns do.
    Workflows,
    /// Performs what campaigns ask for.
    Effects,
    /// Keeps the read models.
    Projector,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Process {
    pub roles: Vec<Role>,
}

impl Process {
    pub fn is(&self, role: Role) -> bool {
        self.roles.is_empty() || self.roles.contains(&role)
    }
}

/// What a namespace gets that does not say otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topology {
    pub default: String,
    pub partitions: u32,
}

/// By what messages are permitted, and approvals given, in a namespace that names no policy of its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    pub default: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Read {
    pub backend: Backend,
    pub query_timeout_ms: u64,
    pub query_rows_max: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Observe {
    pub log_level: String,
    pub log_json: bool,
}

/// Links in messages and to approvals.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Links {
    pub base_url: String,
    pub keys: Vec<LinkKey>,
}

/// What links are signed with. The first signs; the others still open what they signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkKey {
    pub id: String,
    pub key: String,
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

/// Who may read, and state the time of a namespace. Secret, unlike write keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    pub api_key: String,
    pub tenant: TenantId,
    pub namespace: Namespace,
}

/// A namespace and how it tells time: a wall clock for live traffic; event time for imports, demonstrations and backtests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamespaceConfig {
    pub name: Namespace,
    pub clock: NamespaceClock,
    /// A topology file, or the name of a shipped one; `topology.default` if absent.
    #[serde(default)]
    pub topology: Option<String>,
    /// A policy file; `policy.default` if absent.
    #[serde(default)]
    pub policy: Option<String>,
    #[serde(default)]
    pub partitions: Option<u32>,
    /// Its inbox for foreign producers, in place of `[inbox]`; wall-clock namespaces only.
    #[serde(default)]
    pub inbox: Option<inbox::Options>,
}

impl NamespaceConfig {
    /// Its inbox; none in event time, where whoever states the time must know what has been decoded.
    pub fn inbox_options(&self, default: &inbox::Options) -> inbox::Options {
        match self.clock {
            NamespaceClock::Wall => self.inbox.clone().unwrap_or_else(|| default.clone()),
            NamespaceClock::Event => inbox::Options::default(),
        }
    }
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
        Self { listen: "127.0.0.1:8080".into() }
    }
}

impl Default for Log {
    fn default() -> Self {
        let log = embedded::Options::default();
        Self {
            backend: LogBackend::Embedded,
            wal_bytes: log.wal_bytes,
            tail_bytes_max: log.tail_bytes_max,
            queue_bytes_max: log.queue_bytes_max,
            clean_interval_s: 60,
        }
    }
}

impl Default for Topology {
    fn default() -> Self {
        Self { default: "spine".into(), partitions: 4 }
    }
}

impl Default for Read {
    fn default() -> Self {
        Self { backend: Backend::default(), query_timeout_ms: 30_000, query_rows_max: 100_000 }
    }
}

impl Default for Observe {
    fn default() -> Self {
        Self { log_level: "info,fjall=warn,lsm_tree=warn".into(), log_json: false }
    }
}
