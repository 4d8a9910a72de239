//! The routes that unmodified Segment and RudderStack SDKs call.
//!
//! The Content-Type is never looked at: browsers say text/plain, RudderStack's Node SDK says form. The write key is taken from the Basic
//! user, else from the body, else from the query.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Response, header};
use bytes::Bytes;

use super::auth::{self, Resolved};
use super::body::{Reserved, Sender};
use super::ingest::{self, Envelope};
use super::query::query;
use super::reply::{self, Refusal, whole_seconds};
use super::server::Peer;
use super::{Gateway, Shared, body};
use crate::intake::scan::{self, Raw};
use crate::log::Ticket;

#[utoipa::path(post, path = "/v1/batch", tag = "sdk", request_body(content = super::openapi::BatchBody),
    responses((status = 200, body = super::openapi::Accepted, description = "every event is durable"), super::openapi::Refusals),
    params(("writeKey" = Option<String>, Query, description = "the write key, if neither the Basic user nor the body has it")))]
pub(super) async fn batch(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer(request, Shape::Batch).await
}

#[utoipa::path(post, path = "/v1/track", tag = "sdk", request_body(content = super::openapi::EventBody),
    responses((status = 200, body = super::openapi::Accepted, description = "the event is durable"), super::openapi::Refusals))]
pub(super) async fn track(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer(request, Shape::Single("track")).await
}

#[utoipa::path(post, path = "/v1/identify", tag = "sdk", request_body(content = super::openapi::EventBody),
    responses((status = 200, body = super::openapi::Accepted, description = "the event is durable"), super::openapi::Refusals))]
pub(super) async fn identify(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer(request, Shape::Single("identify")).await
}

#[utoipa::path(post, path = "/v1/page", tag = "sdk", request_body(content = super::openapi::EventBody),
    responses((status = 200, body = super::openapi::Accepted, description = "the event is durable"), super::openapi::Refusals))]
pub(super) async fn page(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer(request, Shape::Single("page")).await
}

#[utoipa::path(post, path = "/v1/screen", tag = "sdk", request_body(content = super::openapi::EventBody),
    responses((status = 200, body = super::openapi::Accepted, description = "the event is durable"), super::openapi::Refusals))]
pub(super) async fn screen(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer(request, Shape::Single("screen")).await
}

#[utoipa::path(post, path = "/v1/group", tag = "sdk", request_body(content = super::openapi::EventBody),
    responses((status = 200, body = super::openapi::Accepted, description = "the event is durable"), super::openapi::Refusals))]
pub(super) async fn group(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer(request, Shape::Single("group")).await
}

#[utoipa::path(post, path = "/v1/alias", tag = "sdk", request_body(content = super::openapi::EventBody),
    responses((status = 200, body = super::openapi::Accepted, description = "the event is durable"), super::openapi::Refusals))]
pub(super) async fn alias(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer(request, Shape::Single("alias")).await
}

/// What browsers report about their own SDK. Taken, so that they are content, and ignored.
#[utoipa::path(post, path = "/v1/m", tag = "sdk", responses((status = 200, body = super::openapi::Accepted, description = "ignored")))]
pub(super) async fn remote_metrics(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    let (head, sent) = request.into_parts();
    let mut reserved = gateway.budget.reserve(Sender::Stranger);
    match body::read(sent, gateway.app.options.body_bytes_max, &mut reserved, &Peer::of(&head).watched).await {
        Ok(_) => reply::accepted(),
        Err(refusal) => gateway.refuse(refusal),
    }
}

/// What a route's body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Batch,
    /// One event, of the type that the route says.
    Single(&'static str),
}

impl Gateway {
    async fn answer(&self, request: Request, shape: Shape) -> Response<Body> {
        let started = Instant::now();
        match self.take(request, shape).await {
            Ok(()) => {
                self.metrics.request_seconds.record(started.elapsed());
                reply::accepted()
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    pub(super) fn refuse(&self, refusal: Refusal) -> Response<Body> {
        self.metrics.refused(refusal.code());
        if let Refusal::ReadFailed(error) = &refusal
            && let Some(others) = self.refusals.next(0, refusal.code())
        {
            tracing::error!(error, others, "reading for a request failed");
        }
        refusal.into_response()
    }

    async fn take(&self, request: Request, shape: Shape) -> Result<(), Refusal> {
        let (head, sent) = request.into_parts();
        if let Some(count) = head.headers.get("x-retry-count") {
            self.metrics.retried(count.as_bytes());
        }
        let key = auth::basic_user(&head.headers);
        let (source, text, mut reserved) = self.receive(&head, sent, key).await?;
        let pending = self.submit(&head, Peer::of(&head), source, &text, shape)?;
        drop(text);
        reserved.introduce();
        self.durable(pending).await
    }

    /// Looks at the key in the head, if there is one, and only then takes the body in.
    pub(super) async fn receive(
        &self,
        head: &Parts,
        sent: Body,
        key: Option<String>,
    ) -> Result<(Option<Arc<Resolved>>, Bytes, Reserved), Refusal> {
        let admitted = key.map(|key| self.admit(&key)).transpose();
        let source = match admitted {
            Ok(source) => source,
            Err(refusal) => {
                body::discard(sent).await;
                return Err(refusal);
            }
        };
        let is_known = source.is_some() || query(head.uri.query(), "writeKey").is_some_and(|key| self.keys.is_known(&key));
        let mut reserved = self.budget.reserve(if is_known { Sender::Known } else { Sender::Stranger });
        let bytes_max = self.app.options.body_bytes_max;
        let sent = body::read(sent, bytes_max, &mut reserved, &Peer::of(head).watched).await?;
        let text = body::decode(&head.headers, sent, bytes_max, &mut reserved)?;
        Ok((source, text, reserved))
    }

    /// The source of a write key, within its tenant's request rate.
    pub(super) fn admit(&self, write_key: &str) -> Result<Arc<Resolved>, Refusal> {
        let source = self.keys.source(write_key)?;
        match self.app.limits.admit(&source.source.tenant) {
            Ok(()) => Ok(source.clone()),
            Err(wait) => Err(Refusal::RateLimited { retry_after_s: whole_seconds(wait) }),
        }
    }

    /// Hands a body's events to the log. Nothing here waits.
    pub(super) fn submit(
        &self,
        head: &Parts,
        peer: &Peer,
        source: Option<Arc<Resolved>>,
        text: &Bytes,
        shape: Shape,
    ) -> Result<Pending, Refusal> {
        let options = &self.app.options;
        // What is no UTF-8 is replaced, as Go's decoder does: one broken byte must not cost a batch. Checked first because replacing walks
        // character by character.
        let text = match std::str::from_utf8(text) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(text),
        };
        let (records, source) = match shape {
            Shape::Batch => {
                let batch = scan::batch(&text, options.batch_events_max)?;
                let source = self.source_of(head, source, batch.write_key)?;
                let envelope = self.envelope(head, peer, "");
                self.check_lag(&source, envelope.historical || batch.historical)?;
                (ingest::batch(&source, envelope, &batch, options)?, source)
            }
            Shape::Single(route) => {
                let item = scan::single(&text)?;
                let source = self.source_of(head, source, item.write_key)?;
                let envelope = self.envelope(head, peer, route);
                self.check_lag(&source, envelope.historical)?;
                (ingest::single(&source, envelope, &item, options)?, source)
            }
        };
        tracing::trace!(source = %source.source.source, events = records.events, bytes = text.len(), "events taken in");
        let ticket = if records.events == 0 { None } else { Some(self.app.log.append(records.transaction)?) };
        Ok(Pending { ticket, events: records.events, bytes: text.len() })
    }

    /// Waits until what was submitted is on disk.
    pub(super) async fn durable(&self, pending: Pending) -> Result<(), Refusal> {
        if let Some(ticket) = pending.ticket {
            match tokio::time::timeout(self.app.options.commit_timeout(), ticket).await {
                Ok(appended) => appended?,
                Err(_) => return Err(Refusal::NotDurable),
            };
        }
        self.metrics.accepted_requests.increment(1);
        self.metrics.events.increment(pending.events as u64);
        self.metrics.body_bytes.increment(pending.bytes as u64);
        Ok(())
    }

    fn source_of(&self, head: &Parts, by_header: Option<Arc<Resolved>>, in_body: Option<Raw<'_>>) -> Result<Arc<Resolved>, Refusal> {
        if let Some(source) = by_header {
            return Ok(source);
        }
        if let Some(key) = in_body.and_then(Raw::id) {
            return self.admit(&key);
        }
        match query(head.uri.query(), "writeKey") {
            Some(key) => self.admit(&key),
            None => Err(Refusal::NoWriteKey),
        }
    }

    fn envelope<'a>(&self, head: &'a Parts, peer: &'a Peer, route: &'static str) -> Envelope<'a> {
        let forwarded = if self.app.options.trust_forwarded_for { forwarded_for(&head.headers) } else { None };
        let asks_historical =
            head.headers.contains_key(HISTORICAL_HEADER) || query(head.uri.query(), "historical").as_deref() == Some("true");
        Envelope {
            route,
            received_at: self.app.clock.now(),
            remote_ip: forwarded.unwrap_or(&peer.ip_text),
            user_agent: head.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or(""),
            historical: asks_historical,
        }
    }

    /// A historical import waits while intake lags, so that it never delays what happens now.
    fn check_lag(&self, source: &Resolved, historical: bool) -> Result<(), Refusal> {
        if historical && self.app.readiness.intake_lag_ms(&source.source.namespace) >= self.app.options.historical_lag_ms_max {
            return Err(Refusal::HistoricalWaits);
        }
        Ok(())
    }
}

/// Marks a request as a historical import, whatever its value; the query `historical=true` and a batch's `"historical":true` do too.
const HISTORICAL_HEADER: &str = "x-flywheel-historical";

/// Events handed to the log and not yet known to be durable.
pub(super) struct Pending {
    ticket: Option<Ticket>,
    events: usize,
    bytes: usize,
}

fn forwarded_for(headers: &HeaderMap) -> Option<&str> {
    let first = headers.get("x-forwarded-for")?.to_str().ok()?.split(',').next()?.trim();
    first.parse::<std::net::IpAddr>().ok().map(|_| first)
}
