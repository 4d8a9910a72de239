//! Lets browsers send from any page: every answer mirrors the page's origin, every preflight what it asks for.
//!
//! Only for the SDK routes: what reads data answers no page of another site. Without `x-retry-count` among the allowed headers every retry
//! of Segment's browser SDK is lost at its preflight, silently.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};

const DEFAULT_HEADERS: HeaderValue = HeaderValue::from_static("authorization, content-type, x-retry-count");
const DEFAULT_METHODS: HeaderValue = HeaderValue::from_static("GET, POST, OPTIONS");
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static("Retry-After, X-Request-Id");
/// Seconds that a browser may remember a preflight; rudder-server's figure.
const MAX_AGE: HeaderValue = HeaderValue::from_static("900");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const VARY: HeaderValue = HeaderValue::from_static("Origin");

/// The answer to `OPTIONS`.
pub(super) fn preflight(request: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    let asked_headers = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned().unwrap_or(DEFAULT_HEADERS);
    let asked_method = request.get(header::ACCESS_CONTROL_REQUEST_METHOD).cloned().unwrap_or(DEFAULT_METHODS);
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked_headers);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, asked_method);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    response
}

/// Makes an answer readable to the page that asked; nothing for clients that are no browser.
pub(super) fn allow(origin: HeaderValue, response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
    headers.insert(header::VARY, VARY);
}
