//! RudderStack's pixel: an event in the query of an image's address, for mails and pages without scripts. Always answers with the image.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::query::pairs;
use super::reply::{Refusal, with_body};
use super::sdk::Shape;
use super::server::Peer;
use super::{Gateway, Shared};

/// A transparent GIF of one pixel.
pub(super) const GIF: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";

/// The deepest `a.b.c` of a parameter's name that is taken apart.
const PATH_DEPTH_MAX: usize = 8;

#[utoipa::path(get, path = "/pixel/v1/track", tag = "sdk", params(("writeKey" = String, Query), ("anonymousId" = String, Query), ("event" = String, Query)),
    responses((status = 200, description = "always a GIF", content_type = "image/gif")))]
pub(super) async fn track(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer_pixel(request, "track").await
}

#[utoipa::path(get, path = "/pixel/v1/page", tag = "sdk", params(("writeKey" = String, Query), ("anonymousId" = String, Query), ("name" = Option<String>, Query)),
    responses((status = 200, description = "always a GIF", content_type = "image/gif")))]
pub(super) async fn page(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer_pixel(request, "page").await
}

impl Gateway {
    async fn answer_pixel(&self, request: Request, kind: &'static str) -> Response<Body> {
        let (head, _) = request.into_parts();
        if let Err(refusal) = self.take_pixel(&head, kind).await {
            // The image hides it from the page; the metric and this line are all there is.
            if let Some(others) = self.refusals.next(StatusCode::OK.as_u16(), refusal.code()) {
                tracing::info!(code = refusal.code(), others, "an event of a pixel was refused");
            }
            self.metrics.refused(refusal.code());
        }
        let mut response = with_body(StatusCode::OK, HeaderValue::from_static("image/gif"), GIF);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    async fn take_pixel(&self, head: &Parts, kind: &'static str) -> Result<(), Refusal> {
        let query = head.uri.query().unwrap_or("");
        let (write_key, event) = self.pixel_event(query, kind)?;
        let source = self.admit(&write_key)?;
        let text = Bytes::from(Value::Object(event).to_string());
        let pending = self.submit(head, Peer::of(head), Some(source), &text, Shape::Single(kind))?;
        self.durable(pending).await
    }

    /// The event that the query describes, as rudder-server builds it.
    fn pixel_event(&self, query: &str, kind: &'static str) -> Result<(String, Map<String, Value>), Refusal> {
        let mut write_key = None;
        let now = self.app.clock.now().to_string();
        let mut event = Map::new();
        event.insert("channel".to_owned(), json!("web"));
        event.insert("integrations".to_owned(), json!({"All": true}));
        event.insert("originalTimestamp".to_owned(), json!(now));
        event.insert("sentAt".to_owned(), json!(now));
        // Each request is an event of its own: an image asks once, and never again.
        event.insert("messageId".to_owned(), json!(format!("pixel-{}", uuid::Uuid::now_v7())));
        for (name, value) in pairs(query) {
            match &*name {
                "writeKey" => write_key = Some(value.into_owned()),
                "anonymousId" => {
                    event.insert(name.into_owned(), json!(value.trim_matches('"')));
                }
                "name" if kind == "page" && value.is_empty() => {
                    event.insert(name.into_owned(), json!("Unknown Page"));
                }
                _ => set_path(&mut event, &name, &value),
            }
        }
        event.insert("type".to_owned(), json!(kind));
        Ok((write_key.ok_or(Refusal::NoWriteKey)?, event))
    }
}

/// Sets `a.b.c` to the value; a whole object may be given as JSON.
fn set_path(event: &mut Map<String, Value>, name: &str, value: &str) {
    let mut into = event;
    let mut rest = name;
    for _ in 0..PATH_DEPTH_MAX {
        let Some((first, after)) = rest.split_once('.') else { break };
        let slot = into.entry(first).or_insert_with(|| Value::Object(Map::new()));
        if !slot.is_object() {
            *slot = Value::Object(Map::new());
        }
        into = slot.as_object_mut().expect("made one just now");
        rest = after;
    }
    let object = if value.starts_with('{') { serde_json::from_str::<Map<_, _>>(value).ok() } else { None };
    into.insert(rest.to_owned(), object.map_or_else(|| json!(value), Value::Object));
}
