//! The API's description, OpenAPI 3.1, generated from the handlers.

use axum::body::Body;
use axum::http::Response;
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoResponses, OpenApi, ToSchema};

use super::reply::json_text;
use super::routes::ALIASES;
use super::{api, browser, campaigns, health, mailed, pixel, realtime, sdk, suppressions};

/// A batch of any SDK: `sentAt`, and `context` and `integrations` that hold for every event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct BatchBody {
    batch: Vec<EventBody>,
    sent_at: Option<String>,
    write_key: Option<String>,
    context: Option<Value>,
    integrations: Option<Value>,
    /// Says that this is a historical import: it waits while intake lags.
    historical: Option<bool>,
}

/// One event of any SDK; fields not named here are kept.
#[derive(Debug, Serialize, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct EventBody {
    /// track, identify, page, screen, group, alias; the route says it where there is one per type.
    r#type: Option<String>,
    message_id: Option<String>,
    user_id: Option<String>,
    anonymous_id: Option<String>,
    previous_id: Option<String>,
    group_id: Option<String>,
    event: Option<String>,
    name: Option<String>,
    properties: Option<Value>,
    traits: Option<Value>,
    context: Option<Value>,
    timestamp: Option<String>,
    original_timestamp: Option<String>,
    sent_at: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    success: bool,
}

/// Every error has this form.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Stable; `docs/http.md` lists them.
    code: String,
    message: String,
}

/// What any route may answer instead.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "only described")]
pub(super) enum Refusals {
    /// Never to be sent again: invalid_json, invalid_gzip, invalid_request
    #[response(status = 400)]
    Bad(Problem),
    /// no_write_key, invalid_write_key, invalid_api_key
    #[response(status = 401)]
    Unauthorized(Problem),
    /// source_disabled, not_found
    #[response(status = 404)]
    NotFound(Problem),
    /// event_too_large, body_too_large
    #[response(status = 413)]
    TooLarge(Problem),
    /// To be sent again after Retry-After: rate_limited, overloaded, no_space, historical_waits
    #[response(status = 429)]
    Later(Problem),
    /// To be sent again: not_durable, unavailable, body_incomplete
    #[response(status = 503)]
    Unavailable(Problem),
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Flywheel", description = "Events in, profiles out. Unmodified Segment and RudderStack SDKs work against it."),
    paths(
        sdk::batch,
        sdk::track,
        sdk::identify,
        sdk::page,
        sdk::screen,
        sdk::group,
        sdk::alias,
        sdk::remote_metrics,
        pixel::track,
        pixel::page,
        browser::segment_settings,
        browser::rudder_source_config,
        api::track,
        api::identify,
        api::profile,
        api::state_time,
        campaigns::create,
        campaigns::list,
        campaigns::get,
        campaigns::story,
        campaigns::act,
        campaigns::bulk,
        campaigns::resolve,
        campaigns::approvals,
        campaigns::workflows,
        campaigns::publish,
        campaigns::retire,
        campaigns::policy,
        campaigns::declare_policy,
        campaigns::retire_policy,
        suppressions::list,
        suppressions::add,
        suppressions::remove,
        mailed::unsubscribe,
        mailed::unsubscribed,
        mailed::preferences,
        mailed::choose,
        mailed::open,
        mailed::click,
        mailed::ask,
        mailed::decide,
        mailed::inbound,
        realtime::realtime,
        health::livez,
        health::readyz,
        health::prometheus,
    ),
    components(schemas(Problem))
)]
struct Document;

/// The document, with every alias of a route beside it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    for (path, aliases) in ALIASES {
        let Some(item) = document.paths.paths.get(*path).cloned() else { continue };
        for alias in *aliases {
            let mut item = item.clone();
            if let Some(operation) = &mut item.post {
                let id = format!("{}{}", operation.operation_id.take().unwrap_or_default(), alias.replace('/', "_"));
                operation.operation_id = Some(id);
                operation.summary = Some(format!("The same as {path}"));
            }
            document.paths.paths.insert((*alias).to_owned(), item);
        }
    }
    document
}

pub(super) async fn document() -> Response<Body> {
    json_text(openapi().to_json().unwrap_or_else(|error| format!("{{\"code\":\"openapi\",\"message\":{:?}}}", error.to_string())))
}
