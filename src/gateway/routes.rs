//! Which path leads where, once trailing slashes and double slashes are gone.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Response;
use axum::http::uri::{PathAndQuery, Uri};
use axum::routing::{get, post};

use super::reply::Refusal;
use super::{Shared, api, browser, campaigns, health, mailed, openapi, pixel, realtime, registry, sdk, suppressions};

/// Other names of an SDK route: the first letters are what browsers send to, `import` is the Java SDK's, `beacon` the page's last breath.
pub(super) const ALIASES: &[(&str, &[&str])] = &[
    ("/v1/batch", &["/v1/b", "/v1/import", "/beacon/v1/batch"]),
    ("/v1/track", &["/v1/t"]),
    ("/v1/identify", &["/v1/i"]),
    ("/v1/page", &["/v1/p"]),
    ("/v1/screen", &["/v1/s"]),
    ("/v1/group", &["/v1/g"]),
    ("/v1/alias", &["/v1/a"]),
];

pub(super) fn router(gateway: Shared) -> Router {
    let extra = gateway.app.extra.clone().unwrap_or_default();
    let operations =
        Router::new().route("/livez", get(health::livez)).route("/readyz", get(health::readyz)).route("/metrics", get(health::prometheus));
    if !gateway.app.takes_requests {
        let router = operations.fallback(not_found).method_not_allowed_fallback(method_not_allowed);
        return router.with_state(gateway).merge(extra);
    }
    let mut router = operations;
    for (path, aliases) in ALIASES {
        let method = || match *path {
            "/v1/batch" => post(sdk::batch),
            "/v1/track" => post(sdk::track),
            "/v1/identify" => post(sdk::identify),
            "/v1/page" => post(sdk::page),
            "/v1/screen" => post(sdk::screen),
            "/v1/group" => post(sdk::group),
            _ => post(sdk::alias),
        };
        router = router.route(path, method());
        for alias in *aliases {
            router = router.route(alias, method());
        }
    }
    router
        .route("/v1/m", post(sdk::remote_metrics))
        .route("/pixel/v1/track", get(pixel::track))
        .route("/pixel/v1/page", get(pixel::page))
        .route("/v1/projects/{write_key}/settings", get(browser::segment_settings))
        .route("/sourceConfig", get(browser::rudder_source_config))
        .route("/api/v1/events/track", post(api::track))
        .route("/api/v1/users/identify", post(api::identify))
        .route("/api/v1/users/{id}/profile", get(api::profile))
        .route("/v1/namespaces/{namespace}/time", post(api::state_time))
        .route("/api/v1/campaigns", get(campaigns::list))
        .route("/api/v1/campaigns/create", post(campaigns::create))
        .route("/api/v1/campaigns/actions", post(campaigns::bulk))
        .route("/api/v1/campaigns/{run}", get(campaigns::get))
        .route("/api/v1/campaigns/{run}/story", get(campaigns::story))
        .route("/api/v1/campaigns/{run}/{action}", post(campaigns::act))
        .route("/api/v1/effects/{effect}/resolve", post(campaigns::resolve))
        .route("/api/v1/approvals", get(campaigns::approvals))
        .route("/api/v1/workflows", get(campaigns::workflows).post(campaigns::publish))
        .route("/api/v1/policy", get(campaigns::policy).post(campaigns::declare_policy))
        .route("/api/v1/policy/retire", post(campaigns::retire_policy))
        .route("/api/v1/workflows/{name}/retire", post(campaigns::retire))
        .route("/api/v1/suppressions", get(suppressions::list).post(suppressions::add))
        .route("/api/v1/suppressions/remove", post(suppressions::remove))
        .route("/m/unsubscribe/{token}", get(mailed::unsubscribe).post(mailed::unsubscribed))
        .route("/m/preferences/{token}", get(mailed::preferences).post(mailed::choose))
        .route("/m/open/{token}", get(mailed::open))
        .route("/m/click/{token}", get(mailed::click))
        .route("/m/approve/{token}", get(mailed::ask).post(mailed::decide))
        .route("/m/inbound", post(mailed::inbound))
        .nest("/registry", registry::routes())
        .route("/ws/realtime", get(realtime::realtime))
        .route("/openapi.json", get(openapi::document))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(gateway)
        .merge(extra)
}

async fn not_found(request: Request) -> Response<Body> {
    Refusal::NotFound(request.uri().path().chars().take(200).collect()).into_response()
}

async fn method_not_allowed(request: Request) -> Response<Body> {
    Refusal::MethodNotAllowed(request.method().to_string()).into_response()
}

/// Whether pages of other sites may call this path. What reads data or is for operators they may not.
pub(super) fn is_cross_origin(path: &str) -> bool {
    let is_sdk = path.starts_with("/v1/") && !path.starts_with("/v1/namespaces/");
    is_sdk
        || path.starts_with("/beacon/")
        || path.starts_with("/pixel/")
        || path == "/sourceConfig"
        || path == "/api/v1/events/track"
        || path == "/api/v1/users/identify"
}

/// The path with single slashes only and none at its end; `None` if it is so already. Rewritten here and never by a redirect: some
/// SDKs take a 3xx for success.
pub(super) fn normalized(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let is_normal = !path.contains("//") && (path.len() == 1 || !path.ends_with('/'));
    if is_normal {
        return None;
    }
    let mut text = String::with_capacity(uri.path().len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        text.push('/');
        text.push_str(segment);
    }
    if text.is_empty() {
        text.push('/');
    }
    if let Some(query) = uri.query() {
        text.push('?');
        text.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(text).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collapses_slashes_and_keeps_the_query() {
        let cases = [
            ("/v1/batch", None),
            ("/", None),
            ("//v1//batch/?a=/x//", Some("/v1/batch?a=/x//")),
            ("/v1/import/", Some("/v1/import")),
            ("//", Some("/")),
        ];
        for (given, normal) in cases {
            let uri: Uri = given.parse().expect(given);
            assert_eq!(normalized(&uri).map(|uri| uri.to_string()).as_deref(), normal, "{given}");
        }
    }
}
