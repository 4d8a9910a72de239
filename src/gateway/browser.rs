//! The settings documents that browser SDKs fetch before they send anything.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use serde_json::json;

use super::auth::basic_user;
use super::query::query;
use super::reply::{Refusal, json};
use super::{Gateway, Shared};

/// Settings have no history here; the documents want a date.
const UPDATED_AT: &str = "2026-01-01T00:00:00.000Z";

/// What Segment's browser SDK asks its CDN for. It sends to `apiHost` with the key it finds in `apiKey`.
#[utoipa::path(get, path = "/v1/projects/{write_key}/settings", tag = "browser",
    params(("write_key" = String, Path)), responses((status = 200, description = "settings of analytics-next"), (status = 404)))]
pub(super) async fn segment_settings(State(gateway): State<Shared>, Path(write_key): Path<String>, headers: HeaderMap) -> Response<Body> {
    if gateway.keys.source(&write_key).is_err() {
        return gateway.refuse(Refusal::NotFound("settings of this write key".to_owned()));
    }
    let (protocol, host) = gateway.public_address(&headers);
    let segment = json!({
        "apiKey": write_key,
        "apiHost": format!("{host}/v1"),
        "protocol": protocol,
        "unbundledIntegrations": [],
        "addBundledMetadata": true,
        "versionSettings": {"version": "4.4.7", "componentTypes": ["browser"]},
    });
    let plan = json!({"track": {"__default": {"enabled": true}}});
    json(StatusCode::OK, &json!({"integrations": {"Segment.io": segment}, "plan": plan}))
}

/// What RudderStack's browser SDK asks its control plane for, with the write key as the Basic user.
#[utoipa::path(get, path = "/sourceConfig", tag = "browser",
    responses((status = 200, description = "source configuration of RudderStack's browser SDK"), (status = 401)))]
pub(super) async fn rudder_source_config(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    let by_query = || query(request.uri().query(), "writeKey").map(|key| key.into_owned());
    let Some(write_key) = basic_user(request.headers()).or_else(by_query) else {
        return gateway.refuse(Refusal::NoWriteKey);
    };
    let source = match gateway.keys.source(&write_key) {
        Ok(resolved) => &resolved.source,
        Err(refusal) => return gateway.refuse(refusal),
    };
    let source = json!({
        "id": source.source.as_str(),
        "name": source.source.as_str(),
        "writeKey": write_key,
        "enabled": true,
        "config": {},
        "workspaceId": source.tenant.as_str(),
        "dataplanes": {},
        "destinations": [],
        "updatedAt": UPDATED_AT,
    });
    json(StatusCode::OK, &json!({"source": source, "updatedAt": UPDATED_AT}))
}

impl Gateway {
    /// Where the browser shall send to: what is configured, else where it asked.
    fn public_address(&self, headers: &HeaderMap) -> (String, String) {
        if let Some((protocol, host)) = self.app.options.public_url.split_once("://") {
            return (protocol.to_owned(), host.trim_end_matches('/').to_owned());
        }
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let is_https = text("x-forwarded-proto").is_some_and(|value| value.eq_ignore_ascii_case("https"));
        let host = text(header::HOST.as_str()).unwrap_or("localhost");
        (if is_https { "https" } else { "http" }.to_owned(), host.to_owned())
    }
}
