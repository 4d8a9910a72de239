//! `/livez`, `/readyz`, `/metrics`: what load balancers, orchestrators and Prometheus ask.
//!
//! Live means that this process answers. Ready means that an event sent now would be kept: only a log that takes nothing stands against
//! it, and a server that is shutting down, which says so before it stops listening. What is late or being built meanwhile is `degraded`: a
//! load balancer that looked away for it would lose events that could be kept.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::reply::{Refusal, json, with_body};

/// What is not as it should be, for `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reason {
    /// Which part: `log`, `stream`, `read model`.
    pub component: String,
    pub reason: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReadyAnswer {
    ready: bool,
    /// Why an event sent now would not be kept; empty when ready.
    reasons: Vec<Reason>,
    /// What is late or being built. Events are kept all the same.
    degraded: Vec<Reason>,
}

#[utoipa::path(get, path = "/livez", tag = "operations", responses((status = 200, description = "the process answers")))]
pub(super) async fn livez() -> Response<Body> {
    json(StatusCode::OK, &serde_json::json!({"live": true}))
}

#[utoipa::path(get, path = "/readyz", tag = "operations", responses(
    (status = 200, description = "an event sent now would be kept; `degraded` says what is late all the same", body = ReadyAnswer),
    (status = 503, description = "it would not, or not for long; `reasons` says why", body = ReadyAnswer),
))]
pub(super) async fn readyz(State(gateway): State<Shared>) -> Response<Body> {
    let mut reasons = gateway.app.readiness.not_ready();
    if gateway.is_draining() {
        reasons.push(Reason { component: "server".to_owned(), reason: "shutting down".to_owned() });
    }
    let mut degraded = gateway.app.readiness.degraded();
    degraded.extend(gateway.app.limits.degraded().map(|reason| Reason { component: "limits".to_owned(), reason }));
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &ReadyAnswer { ready: reasons.is_empty(), reasons, degraded })
}

#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, description = "Prometheus text format")))]
pub(super) async fn prometheus(State(gateway): State<Shared>) -> Response<Body> {
    match &gateway.app.metrics {
        Some(handle) => {
            gateway.metrics.inflight_bytes.set(gateway.budget.used() as f64);
            let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            with_body(StatusCode::OK, text, handle.render())
        }
        None => Refusal::NotFound("/metrics".to_owned()).into_response(),
    }
}
