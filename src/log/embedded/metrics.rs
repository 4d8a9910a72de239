//! Names of what the log measures, and the only place that writes them: per group synced, never per record.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// One `fdatasync` of a write-ahead file: what every acknowledgement waits for.
pub const SYNC_SECONDS: &str = "flywheel_log_sync_seconds";
pub const APPENDED_RECORDS_TOTAL: &str = "flywheel_log_appended_records_total";
/// Bytes of write-ahead frames, which is what was synced.
pub const APPENDED_BYTES_TOTAL: &str = "flywheel_log_appended_bytes_total";
/// Space left on the log's file system.
pub const DISK_FREE_BYTES: &str = "flywheel_log_disk_free_bytes";
pub const SEGMENTS: &str = "flywheel_log_segments";
pub const SEGMENT_BYTES: &str = "flywheel_log_segment_bytes";
/// Records in write-ahead files that are not sorted into segments yet: what a start after a crash reads.
pub const UNSORTED_BYTES: &str = "flywheel_log_unsorted_bytes";

pub fn describe() {
    metrics::describe_histogram!(SYNC_SECONDS, metrics::Unit::Seconds, "one fdatasync of a write-ahead file");
    metrics::describe_counter!(APPENDED_RECORDS_TOTAL, "records made durable");
    metrics::describe_counter!(APPENDED_BYTES_TOTAL, metrics::Unit::Bytes, "bytes of frames made durable");
    metrics::describe_gauge!(DISK_FREE_BYTES, metrics::Unit::Bytes, "space left on the log's file system");
    metrics::describe_gauge!(SEGMENTS, "sorted segments");
    metrics::describe_gauge!(SEGMENT_BYTES, metrics::Unit::Bytes, "bytes of sorted segments");
    metrics::describe_gauge!(UNSORTED_BYTES, metrics::Unit::Bytes, "records in write-ahead files that are not in segments yet");
}

/// Handles, so that no group looks one up by name.
pub(super) struct Metrics {
    sync_seconds: Histogram,
    records: Counter,
    bytes: Counter,
    pub disk_free_bytes: Gauge,
    pub segments: Gauge,
    pub segment_bytes: Gauge,
    pub unsorted_bytes: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Metrics {
        Metrics {
            sync_seconds: histogram!(SYNC_SECONDS),
            records: counter!(APPENDED_RECORDS_TOTAL),
            bytes: counter!(APPENDED_BYTES_TOTAL),
            disk_free_bytes: gauge!(DISK_FREE_BYTES),
            segments: gauge!(SEGMENTS),
            segment_bytes: gauge!(SEGMENT_BYTES),
            unsorted_bytes: gauge!(UNSORTED_BYTES),
        }
    }

    pub(super) fn appended(&self, records: u64, bytes: u64, synced_in: Duration) {
        self.records.increment(records);
        self.bytes.increment(bytes);
        self.sync_seconds.record(synced_in.as_secs_f64());
    }
}
