//! What the executor counts.

use metrics::{counter, gauge};

use super::call::Request;
use crate::domain::Namespace;
use crate::workflow::Outcome;

const PERFORMED: &str = "flywheel_effects_performed_total";
const PENDING: &str = "flywheel_effects_pending";
const BREAKER: &str = "flywheel_effects_breaker_open";
const UNREADABLE: &str = "flywheel_effects_unreadable_facts_total";

pub(super) fn performed(namespace: &Namespace, request: &Request, outcome: &Outcome) {
    let outcome = match outcome {
        Outcome::Done { .. } => "done",
        Outcome::NotDone => "not_done",
        Outcome::NotBegun { .. } => "not_begun",
        Outcome::Failed { .. } => "failed",
        Outcome::Unknown { .. } => "unknown",
        Outcome::AddressRefused { .. } => "address_refused",
    };
    let labels = [
        ("namespace", namespace.as_str().to_owned()),
        ("by", request.by.as_str().to_owned()),
        ("target", request.target.clone()),
        ("outcome", outcome.to_owned()),
    ];
    counter!(PERFORMED, &labels).increment(1);
}

pub(super) fn pending(namespace: &Namespace, count: usize) {
    gauge!(PENDING, "namespace" => namespace.as_str().to_owned()).set(count as f64);
}

pub(super) fn breaker(namespace: &Namespace, destination: &str, is_open: bool) {
    gauge!(BREAKER, "namespace" => namespace.as_str().to_owned(), "destination" => destination.to_owned())
        .set(f64::from(u8::from(is_open)));
}

pub(super) fn unreadable(namespace: &Namespace) {
    counter!(UNREADABLE, "namespace" => namespace.as_str().to_owned()).increment(1);
}
