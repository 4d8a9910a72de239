//! Names every request, so that a client's report, an answer and a log line can be matched. A client's own `X-Request-Id` is kept.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const LEN_MAX: usize = 128;

/// Gives out ids: what this process drew at its start, and a count.
#[derive(Debug)]
pub(super) struct RequestIds {
    prefix: String,
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        let drawn = uuid::Uuid::now_v7().simple().to_string();
        Self { prefix: drawn[..20].to_owned(), next: AtomicU64::new(0) }
    }

    /// The client's id if it is short and plain, else a new one.
    pub(super) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        if let Some(given) = headers.get(X_REQUEST_ID) {
            let is_plain = given.as_bytes().iter().all(u8::is_ascii_graphic);
            if is_plain && !given.is_empty() && given.len() <= LEN_MAX {
                return given.clone();
            }
        }
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = String::with_capacity(37);
        id.push_str(&self.prefix);
        write!(id, "-{count:x}").expect("a string takes everything");
        HeaderValue::try_from(id).expect("hex digits and a dash")
    }
}
