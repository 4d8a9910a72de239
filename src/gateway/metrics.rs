//! The gateway's metrics: their names, and handles for those that the hot path touches, so that no request looks one up by name.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

pub(super) const REQUESTS: &str = "flywheel_gateway_requests_total";
pub(super) const REQUEST_SECONDS: &str = "flywheel_gateway_request_seconds";
pub(super) const EVENTS: &str = "flywheel_gateway_events_total";
pub(super) const BODY_BYTES: &str = "flywheel_gateway_body_bytes_total";
pub(super) const INFLIGHT_BYTES: &str = "flywheel_gateway_inflight_bytes";
pub(super) const RETRIES: &str = "flywheel_gateway_retries_total";
pub(super) const CONNECTIONS: &str = "flywheel_gateway_connections";
pub(super) const CONNECTIONS_ENDED: &str = "flywheel_gateway_connections_ended_total";

/// `X-Retry-Count` as a label: a client may send any number, a metric may not have any number of labels.
const ATTEMPTS: [&str; 6] = ["0", "1", "2", "3", "4", "5"];
const ATTEMPTS_BEYOND: &str = "6+";

pub(super) struct Metrics {
    pub accepted_requests: Counter,
    pub events: Counter,
    pub body_bytes: Counter,
    pub request_seconds: Histogram,
    pub inflight_bytes: Gauge,
    pub connections: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        metrics::describe_counter!(REQUESTS, "Requests answered, by code: accepted, or the code of the refusal");
        metrics::describe_histogram!(REQUEST_SECONDS, metrics::Unit::Seconds, "From a request's head to its answer, SDK routes only");
        metrics::describe_counter!(EVENTS, "Events made durable");
        metrics::describe_counter!(BODY_BYTES, metrics::Unit::Bytes, "Bytes of accepted bodies after decompression");
        metrics::describe_gauge!(INFLIGHT_BYTES, metrics::Unit::Bytes, "Bytes of request bodies held at the moment");
        metrics::describe_counter!(RETRIES, "Requests that say which attempt they are (X-Retry-Count)");
        metrics::describe_gauge!(CONNECTIONS, "Open connections");
        metrics::describe_counter!(CONNECTIONS_ENDED, "Connections ended by the server, by what they were waiting for");
        Self {
            accepted_requests: counter!(REQUESTS, "code" => "accepted"),
            events: counter!(EVENTS),
            body_bytes: counter!(BODY_BYTES),
            request_seconds: histogram!(REQUEST_SECONDS),
            inflight_bytes: gauge!(INFLIGHT_BYTES),
            connections: gauge!(CONNECTIONS),
        }
    }

    pub(super) fn refused(&self, code: &'static str) {
        counter!(REQUESTS, "code" => code).increment(1);
    }

    pub(super) fn retried(&self, retry_count: &[u8]) {
        if let Some(attempt) = attempt(retry_count) {
            counter!(RETRIES, "attempt" => attempt).increment(1);
        }
    }
}

/// The label of an `X-Retry-Count`; nothing for what is no number.
fn attempt(retry_count: &[u8]) -> Option<&'static str> {
    let text = std::str::from_utf8(retry_count).ok()?.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count = text.parse().unwrap_or(usize::MAX);
    Some(ATTEMPTS.get(count).copied().unwrap_or(ATTEMPTS_BEYOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_make_labels() {
        let cases: [(&[u8], Option<&str>); 7] = [
            (b"0", Some("0")),
            (b" 5 ", Some("5")),
            (b"6", Some("6+")),
            (b"99999999999999999999999", Some("6+")),
            (b"-1", None),
            (b"", None),
            (b"\xff", None),
        ];
        for (given, label) in cases {
            assert_eq!(attempt(given), label, "{given:?}");
        }
    }
}
