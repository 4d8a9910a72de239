//! What can be set about state: where it is kept, and how each of the two is used. Settings are data: `app` makes a store of them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::FjallOptions;

/// Where states are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// In the data folder, of this process alone.
    #[default]
    Fjall,
    /// In Cassandra or Scylla, shared by the processes that take each other's partitions over.
    Cassandra,
}

/// The section `[state]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    pub backend: Backend,
    pub block_cache_bytes: u64,
    pub memtable_bytes: u64,
    pub worker_threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        let FjallOptions { block_cache_bytes, memtable_bytes, worker_threads } = FjallOptions::default();
        Self { backend: Backend::default(), block_cache_bytes, memtable_bytes, worker_threads }
    }
}

impl Options {
    pub fn fjall(&self) -> FjallOptions {
        let Options { block_cache_bytes, memtable_bytes, worker_threads, .. } = *self;
        FjallOptions { block_cache_bytes, memtable_bytes, worker_threads }
    }
}

/// The section `[cassandra]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CassandraOptions {
    /// `host:port`, a few of the cluster's; the others are found.
    pub nodes: Vec<String>,
    pub keyspace: String,
    /// Empty where the cluster asks for no login.
    pub user: String,
    pub password: String,
    /// Make the keyspace and its tables if they are not there.
    pub create_keyspace: bool,
    /// Of a keyspace that is made; an existing one keeps its own.
    pub replication_factor: u32,
    /// The one whose nodes are asked, and which holds the copies of a keyspace that is made; empty asks all.
    pub datacenter: String,
    /// A PEM file of the authorities that the nodes' certificates are checked against; empty speaks without TLS.
    pub tls_ca: PathBuf,
    pub request_timeout_ms: u64,
    /// Requests under way at once, over all partitions.
    pub in_flight_max: usize,
}

impl Default for CassandraOptions {
    fn default() -> Self {
        Self {
            nodes: vec!["127.0.0.1:9042".into()],
            keyspace: "flywheel".into(),
            user: String::new(),
            password: String::new(),
            create_keyspace: true,
            replication_factor: 3,
            datacenter: String::new(),
            tls_ca: PathBuf::new(),
            request_timeout_ms: 5_000,
            in_flight_max: 64,
        }
    }
}
