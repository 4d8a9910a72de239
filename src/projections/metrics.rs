//! Names of what projectors report, and the one place that reports it.

use super::tail::Step;
use crate::domain::Namespace;

pub const RECORDS_TOTAL: &str = "flywheel_projections_records_total";
pub const COMMITS_TOTAL: &str = "flywheel_projections_commits_total";
pub const LAG_RECORDS: &str = "flywheel_projections_lag_records";
pub const ERRORS_TOTAL: &str = "flywheel_projections_errors_total";

pub fn describe() {
    metrics::describe_counter!(RECORDS_TOTAL, "records that reached the read model");
    metrics::describe_counter!(COMMITS_TOTAL, "transactions of the read model");
    metrics::describe_gauge!(LAG_RECORDS, "records that are not in the read model yet");
    metrics::describe_counter!(ERRORS_TOTAL, "attempts to write the read model that failed; each is made again");
}

pub(super) fn committed(namespace: &Namespace, step: &Step) {
    let namespace = namespace.to_string();
    metrics::counter!(RECORDS_TOTAL, "namespace" => namespace.clone()).increment(step.records as u64);
    metrics::counter!(COMMITS_TOTAL, "namespace" => namespace.clone()).increment(1);
    metrics::gauge!(LAG_RECORDS, "namespace" => namespace).set(step.lag as f64);
}

pub(super) fn failed(namespace: &Namespace) {
    metrics::counter!(ERRORS_TOTAL, "namespace" => namespace.to_string()).increment(1);
}
