//! What of the log on Kafka can be set.

use std::collections::BTreeMap;
use std::time::Duration;

/// How to reach a cluster, and as whom.
#[derive(Debug, Clone)]
pub struct Options {
    /// `host:port` of some brokers, with commas; the others are found through them.
    pub brokers: String,
    /// Before the name of every topic, consumer group and transactional id, so that several installations can share a cluster.
    pub prefix: String,
    /// Who this process is, the same after a restart and no other's: its static membership and its transactional id.
    pub instance: String,
    /// Copies of each partition of topics that are created here.
    pub replication_factor: i32,
    /// Copies that must have a record before it is acknowledged; topics with fewer are refused.
    pub min_insync_replicas: i32,
    /// Create topics that are missing. Switched off, a missing topic is refused by name.
    pub create_topics: bool,
    /// How long a member may be silent before its partitions go to others.
    pub session_timeout: Duration,
    /// When a dead process's open transaction ends by itself, unless a successor ends it sooner.
    pub transaction_timeout: Duration,
    /// What one call may take before it is given up or its outcome is asked for.
    pub call_timeout: Duration,
    /// Bytes handed in and not yet acknowledged; beyond it appends are refused.
    pub queue_bytes_max: usize,
    /// Newest records of each partition kept in memory for readers that keep up.
    pub window_bytes_max: usize,
    /// How records are compressed: none, lz4, zstd, snappy or gzip.
    pub compression: String,
    /// Settings of librdkafka under their own names: security.protocol, sasl.username, ssl.ca.location and the like.
    pub client: BTreeMap<String, String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".into(),
            prefix: String::new(),
            instance: "flywheel".into(),
            replication_factor: 3,
            min_insync_replicas: 2,
            create_topics: true,
            session_timeout: Duration::from_secs(10),
            transaction_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(8),
            queue_bytes_max: 256 << 20,
            window_bytes_max: 8 << 20,
            compression: "lz4".into(),
            client: BTreeMap::new(),
        }
    }
}
