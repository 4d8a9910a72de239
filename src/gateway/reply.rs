//! Answers. Success is exactly 200 with a small JSON body; every error is `{"code","message"}`; overload is 429 with an integer
//! `Retry-After`; nothing is ever a 3xx but the click redirect of messages. `docs/http.md` says what each SDK does with each of them.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};

use crate::intake::scan;
use crate::log;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A refusal's code, left in its answer for the line about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Code(pub &'static str);

/// Why a request was not accepted. The name of each is its stable `code`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    // For ever: no client sends it again.
    #[error("{0}")]
    InvalidJson(#[from] scan::Error),
    #[error("the body is not gzip, though its Content-Encoding says so")]
    InvalidGzip,
    #[error("Content-Encoding {0:?} is not supported; send gzip or nothing")]
    UnsupportedEncoding(String),
    #[error("{0}")]
    InvalidRequest(String),
    #[error("the event is {bytes} bytes long, at most {max} are taken")]
    EventTooLarge { bytes: usize, max: usize },
    #[error("the body is larger than {max} bytes after decompression")]
    BodyTooLarge { max: usize },
    #[error("no write key: send it as the Basic user, as `writeKey` in the body or as ?writeKey=")]
    NoWriteKey,
    #[error("the write key is not known here")]
    InvalidWriteKey,
    #[error("the source of this write key is disabled")]
    SourceDisabled,
    #[error(
        "this needs an API key, as the Basic user or a Bearer token; with neither [[api_keys]] nor [[sources]] configured the machine itself may ask without"
    )]
    InvalidApiKey,
    #[error("there is nothing at {0}")]
    NotFound(String),
    #[error("there is no {0}")]
    Missing(String),
    #[error("{0} is not allowed here")]
    MethodNotAllowed(String),
    /// Who or what was first; the code says which kind.
    #[error("{message}")]
    Conflict { code: &'static str, message: String },
    // For now: every client comes again.
    #[error("too many requests for this tenant")]
    RateLimited { retry_after_s: u32 },
    #[error("more bytes are in progress than the server holds; come again")]
    Overloaded,
    #[error("the disk is full; nothing is taken until there is space")]
    NoSpace,
    #[error("intake lags; historical imports wait until it has caught up")]
    HistoricalWaits,
    #[error("the body did not arrive in time")]
    BodyIncomplete,
    #[error("the event could not be made durable in time; it may or may not be there, and is deduplicated when sent again")]
    NotDurable,
    #[error("the server is shutting down or cannot write its log")]
    Unavailable,
    #[error("the read model is being made; come again")]
    Starting,
    /// Why is logged: it names what is inside, which is nobody's business outside.
    #[error("reading failed; the server's log says why")]
    ReadFailed(String),
}

impl Refusal {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Refusal::InvalidJson(scan::Error::TooMany { .. }) => "too_many_events",
            Refusal::InvalidJson(_) => "invalid_json",
            Refusal::InvalidGzip => "invalid_gzip",
            Refusal::UnsupportedEncoding(_) => "unsupported_encoding",
            Refusal::InvalidRequest(_) => "invalid_request",
            Refusal::EventTooLarge { .. } => "event_too_large",
            Refusal::BodyTooLarge { .. } => "body_too_large",
            Refusal::NoWriteKey => "no_write_key",
            Refusal::InvalidWriteKey => "invalid_write_key",
            Refusal::SourceDisabled => "source_disabled",
            Refusal::InvalidApiKey => "invalid_api_key",
            Refusal::NotFound(_) | Refusal::Missing(_) => "not_found",
            Refusal::MethodNotAllowed(_) => "method_not_allowed",
            Refusal::Conflict { code, .. } => code,
            Refusal::RateLimited { .. } => "rate_limited",
            Refusal::Overloaded => "overloaded",
            Refusal::NoSpace => "no_space",
            Refusal::HistoricalWaits => "historical_waits",
            Refusal::BodyIncomplete => "body_incomplete",
            Refusal::NotDurable => "not_durable",
            Refusal::Unavailable => "unavailable",
            Refusal::Starting => "starting",
            Refusal::ReadFailed(_) => "read_failed",
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Refusal::InvalidJson(_) | Refusal::InvalidGzip | Refusal::InvalidRequest(_) => StatusCode::BAD_REQUEST,
            Refusal::UnsupportedEncoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::EventTooLarge { .. } | Refusal::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::NoWriteKey | Refusal::InvalidWriteKey | Refusal::InvalidApiKey => StatusCode::UNAUTHORIZED,
            Refusal::SourceDisabled | Refusal::NotFound(_) | Refusal::Missing(_) => StatusCode::NOT_FOUND,
            Refusal::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::Conflict { .. } => StatusCode::CONFLICT,
            Refusal::RateLimited { .. } | Refusal::Overloaded | Refusal::NoSpace | Refusal::HistoricalWaits => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Refusal::BodyIncomplete | Refusal::NotDurable | Refusal::Unavailable | Refusal::Starting => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::ReadFailed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Small whole seconds: Segment's clients wait as told, up to five minutes, with their whole queue.
    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Refusal::RateLimited { retry_after_s } => Some((*retry_after_s).clamp(1, 60)),
            Refusal::NoSpace | Refusal::HistoricalWaits | Refusal::Unavailable => Some(5),
            Refusal::Overloaded | Refusal::BodyIncomplete | Refusal::NotDurable | Refusal::Starting => Some(1),
            _ => None,
        }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let body = serde_json::json!({"code": self.code(), "message": self.to_string()}).to_string();
        let mut response = with_body(self.status(), JSON, body);
        if let Some(seconds) = self.retry_after_s() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(Code(self.code()));
        if self == Refusal::BodyIncomplete {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// What the log's refusal means to a client. Nothing the log says is the client's fault, so nothing here may make it give up.
impl From<log::Error> for Refusal {
    fn from(error: log::Error) -> Self {
        match error {
            log::Error::Overloaded => Refusal::Overloaded,
            log::Error::NoSpace => Refusal::NoSpace,
            _ => Refusal::Unavailable,
        }
    }
}

/// `{"success":true}`, as Segment answers.
pub(super) fn accepted() -> Response<Body> {
    with_body(StatusCode::OK, JSON, Body::from(&b"{\"success\":true}"[..]))
}

pub(super) fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => with_body(status, JSON, body),
        Err(error) => Refusal::ReadFailed(error.to_string()).into_response(),
    }
}

pub(super) fn json_text(text: String) -> Response<Body> {
    with_body(StatusCode::OK, JSON, text)
}

pub(super) fn with_body(status: StatusCode, content_type: HeaderValue, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// The whole of an answer as bytes, for a connection that is closed before its request was read.
pub(super) fn too_many_connections() -> &'static [u8] {
    concat!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 61\r\n\r\n",
        "{\"code\":\"overloaded\",\"message\":\"too many open connections\"}  "
    )
    .as_bytes()
}

/// Seconds to wait, rounded up.
pub(super) fn whole_seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}
