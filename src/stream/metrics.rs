//! Names of what the partition loops measure, and the only place that writes them: once per batch, never per record.

use crate::domain::{Namespace, Tally};

use super::status::Shared;

/// Records by how they ended; labels `namespace`, `stage`, `outcome`, `reason`.
pub const RECORDS_TOTAL: &str = "flywheel_stream_records_total";
/// Records in the partition that are not committed yet; labels `namespace`, `stage`, `partition`.
pub const LAG_RECORDS: &str = "flywheel_stream_lag_records";
/// The committed offset; labels as the lag.
pub const WATERMARK_OFFSET: &str = "flywheel_stream_watermark_offset";
/// The time that the fold has reached, in seconds since the epoch; labels as the lag.
pub const PARTITION_TIME_SECONDS: &str = "flywheel_stream_partition_time_seconds";
/// People whose profile could not be written or who could not be woken because a feature, score or segment panicked; labels `namespace`,
/// `what` (`write`, `wake`).
pub const PANICS_TOTAL: &str = "flywheel_stream_panics_total";

pub fn describe() {
    metrics::describe_counter!(RECORDS_TOTAL, "records by how they ended");
    metrics::describe_counter!(PANICS_TOTAL, "people not written or not woken because a feature, score or segment panicked");
    metrics::describe_gauge!(LAG_RECORDS, "records in the partition that are not committed yet");
    metrics::describe_gauge!(WATERMARK_OFFSET, "the committed offset");
    metrics::describe_gauge!(PARTITION_TIME_SECONDS, "the time that the fold has reached, since the epoch");
}

pub(super) fn batch(namespace: &Namespace, stage: &'static str, tally: &Tally) {
    for (outcome, reason, count) in tally.rows() {
        let namespace = namespace.to_string();
        metrics::counter!(RECORDS_TOTAL, "namespace" => namespace, "stage" => stage, "outcome" => outcome, "reason" => reason)
            .increment(count);
    }
}

pub(super) fn panicked(namespace: &Namespace, what: &'static str) {
    metrics::counter!(PANICS_TOTAL, "namespace" => namespace.to_string(), "what" => what).increment(1);
}

pub(super) fn partition(namespace: &Namespace, shared: &Shared) {
    let status = shared.status();
    let labels = || {
        let partition = metrics::Label::new("partition", status.partition.to_string());
        vec![metrics::Label::new("namespace", namespace.to_string()), metrics::Label::new("stage", status.stage), partition]
    };
    metrics::gauge!(LAG_RECORDS, labels()).set(status.lag_records() as f64);
    metrics::gauge!(WATERMARK_OFFSET, labels()).set(status.committed as f64);
    if let Some(time) = status.time {
        metrics::gauge!(PARTITION_TIME_SECONDS, labels()).set(time as f64 / 1000.0);
    }
}
