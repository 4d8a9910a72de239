//! What of the partition loops can be set, with the reason for each default.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Threads that the partitions are spread over; 0 is one per core.
    pub threads: usize,
    /// How much one fetch reads. Large, because a profile is written once per key and commit.
    pub fetch_bytes_max: usize,
    /// A commit is cut when it has made about this much, wherever the batch ends: half of what one append may hold, because profiles are
    /// counted before they are written.
    pub output_bytes_max: usize,
    /// Time between ticks of a wall-clock namespace.
    pub tick_interval_ms: i64,
    /// The same while nothing comes and nobody is due. What comes shortens it at once.
    pub tick_idle_interval_ms: i64,
    /// Under light load a commit waits this long after the last one, so that its records go together.
    pub linger_ms: i64,
    /// A batch of at least this much does not wait.
    pub linger_bytes: usize,
    /// The oldest that an unstored state may be: what a crash costs to read again.
    pub flush_age_ms_max: i64,
    /// The most that one partition keeps unstored; four partitions make 64 MB.
    pub flush_bytes_max: usize,
    /// The most that one partition of `events` keeps of states in memory, one of `intake` or `commands` a quarter of it; the rest is read
    /// when needed.
    pub cache_bytes_max: usize,
    /// Wake-ups that one commit holds: a million timers at nine o'clock are many small commits.
    pub wakes_per_commit_max: usize,
    /// Between attempts to commit while the disk is full.
    pub retry_pause_ms: i64,
    /// Build all states again from the log, whatever is stored.
    pub rebuild_state: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 0,
            fetch_bytes_max: 8 << 20,
            output_bytes_max: 8 << 20,
            tick_interval_ms: 1_000,
            tick_idle_interval_ms: 60_000,
            linger_ms: 10,
            linger_bytes: 256 << 10,
            flush_age_ms_max: 5_000,
            flush_bytes_max: 16 << 20,
            cache_bytes_max: 64 << 20,
            wakes_per_commit_max: 10_000,
            retry_pause_ms: 100,
            rebuild_state: false,
        }
    }
}
