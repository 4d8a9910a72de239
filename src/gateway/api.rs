//! The product's own API: events and people in the design document's words, profiles for reading, time for importers.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::options::Clocked;
use super::query::{only, query};
use super::reply::{Refusal, json, json_text};
use super::sdk::Shape;
use super::server::Peer;
use super::{Gateway, ReadError, Shared, auth, body};
use crate::domain::{Millis, Namespace, PartitionId, Subject, TenantId};
use crate::log::{BatchBuilder, TopicPartition, Transaction};
use crate::schema;
use crate::schema::records::{IntakeRecord, TimeStatement};

/// Names of the design document's client library, and what the wire calls them.
const RENAMED: &[(&str, &str)] = &[
    ("user_id", "userId"),
    ("anonymous_id", "anonymousId"),
    ("message_id", "messageId"),
    ("event_name", "event"),
    ("event_type", "event"),
    ("sent_at", "sentAt"),
];

/// `POST /api/v1/events/track`. Either this form or the wire's (`userId`, `anonymousId`, `messageId`).
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code, reason = "describes the body to the API's document; the body itself is taken as it is")]
pub(super) struct TrackBody {
    user_id: Option<String>,
    anonymous_id: Option<String>,
    event: String,
    properties: Option<Value>,
    /// RFC 3339; the time of receipt if it is missing.
    timestamp: Option<String>,
    /// Makes a second sending harmless; a hash of the body if it is missing.
    message_id: Option<String>,
}

/// `POST /api/v1/users/identify`.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code, reason = "describes the body to the API's document; the body itself is taken as it is")]
pub(super) struct IdentifyBody {
    user_id: String,
    /// Ties this device's history to the user.
    anonymous_id: Option<String>,
    traits: Option<Value>,
    timestamp: Option<String>,
    message_id: Option<String>,
}

#[utoipa::path(post, path = "/api/v1/events/track", tag = "api", request_body = TrackBody,
    responses((status = 200, body = super::openapi::Accepted, description = "the event is durable"), super::openapi::Refusals))]
pub(super) async fn track(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer_api(request, "track").await
}

#[utoipa::path(post, path = "/api/v1/users/identify", tag = "api", request_body = IdentifyBody,
    responses((status = 200, body = super::openapi::Accepted, description = "the event is durable"), super::openapi::Refusals))]
pub(super) async fn identify(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer_api(request, "identify").await
}

#[utoipa::path(get, path = "/api/v1/users/{id}/profile", tag = "api",
    params(("id" = String, Path, description = "a user id; `a:ID` for an anonymous one, `u:ID` to say that it is none"),
        ("namespace" = Option<String>, Query, description = "only where no API key is configured"),
        ("tenant" = Option<String>, Query, description = "only where no API key is configured")),
    responses((status = 200, description = "traits, features, scores with reasons, segments"), (status = 404), (status = 401),
        (status = 503, description = "`starting`: the read model is being made; come again")))]
pub(super) async fn profile(State(gateway): State<Shared>, Path(id): Path<String>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    match gateway.read_profile(&head, &id).await {
        Ok(text) => json_text(text),
        Err(refusal) => gateway.refuse(refusal),
    }
}

/// What an importer says: everything before this has been sent.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct TimeBody {
    /// RFC 3339, or milliseconds since 1970.
    #[schema(value_type = String, example = "1997-01-31T00:00:00Z")]
    time: Value,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TimeAnswer {
    time: String,
    partitions: u32,
}

#[utoipa::path(post, path = "/v1/namespaces/{namespace}/time", tag = "api", request_body = TimeBody, params(("namespace" = String, Path)),
    responses((status = 200, body = TimeAnswer, description = "every intake partition has it, durably"), super::openapi::Refusals))]
pub(super) async fn state_time(State(gateway): State<Shared>, Path(namespace): Path<String>, request: Request) -> Response<Body> {
    match gateway.take_time(&namespace, request).await {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(refusal) => gateway.refuse(refusal),
    }
}

impl Gateway {
    async fn answer_api(&self, request: Request, kind: &'static str) -> Response<Body> {
        match self.take_api(request, kind).await {
            Ok(()) => super::reply::accepted(),
            Err(refusal) => self.refuse(refusal),
        }
    }

    async fn take_api(&self, request: Request, kind: &'static str) -> Result<(), Refusal> {
        let (head, sent) = request.into_parts();
        let key = auth::basic_user(&head.headers).or_else(|| auth::x_api_key(&head.headers));
        let (source, text, mut reserved) = self.receive(&head, sent, key).await?;
        let event = wire_event(&text, kind)?;
        let pending = self.submit(&head, Peer::of(&head), source, &event, Shape::Single(kind))?;
        reserved.introduce();
        self.durable(pending).await
    }

    async fn read_profile(&self, head: &Parts, id: &str) -> Result<String, Refusal> {
        let mut access = self.keys.reader(&head.headers, Peer::of(head).ip)?;
        only(head, &[])?;
        if self.keys.is_open() {
            let bad = |error: crate::domain::IdError| Refusal::InvalidRequest(error.to_string());
            if let Some(namespace) = query(head.uri.query(), "namespace") {
                access.namespace = Namespace::new(namespace).map_err(bad)?;
            }
            if let Some(tenant) = query(head.uri.query(), "tenant") {
                access.tenant = TenantId::new(tenant).map_err(bad)?;
            }
        }
        let subject = Subject::person(id);
        let found = self.app.profiles.profile(&access.namespace, &access.tenant, &subject).await;
        let profile = found.map_err(|error| match error {
            ReadError::NotYet => Refusal::Starting,
            ReadError::Failed(why) => Refusal::ReadFailed(why),
        })?;
        profile.ok_or_else(|| Refusal::Missing(format!("profile of {subject}")))
    }

    async fn take_time(&self, namespace: &str, request: Request) -> Result<TimeAnswer, Refusal> {
        let (head, sent) = request.into_parts();
        let access = self.keys.reader(&head.headers, Peer::of(&head).ip)?;
        let mut reserved = self.budget.reserve(body::Sender::Known);
        let text = body::read(sent, self.app.options.body_bytes_max, &mut reserved, &Peer::of(&head).watched).await?;
        let namespace = Namespace::new(namespace).map_err(|error| Refusal::InvalidRequest(error.to_string()))?;
        if !self.keys.is_open() && access.namespace != namespace {
            return Err(Refusal::InvalidApiKey);
        }
        let intake = self.keys.intake(&namespace).ok_or_else(|| Refusal::Missing(format!("namespace {namespace}")))?;
        if self.app.sources.namespaces.get(&namespace) != Some(&Clocked::Event) {
            return Err(Refusal::InvalidRequest(format!("{namespace} runs on wall time; only event-time namespaces are told the time")));
        }
        let time = stated_time(&text)?;
        let statement = IntakeRecord::Time(TimeStatement { time: time.0 });
        let mut batches = Vec::new();
        for partition in 0..intake.partitions {
            let mut builder = BatchBuilder::new();
            let pushed = builder.push_with(b"", self.app.clock.now(), |out| schema::encode(&statement, out));
            pushed.map_err(|error| Refusal::ReadFailed(error.to_string()))?;
            batches.push((TopicPartition { topic: intake.topic, partition: PartitionId(partition) }, builder.build()));
        }
        let ticket = self.app.log.append(Transaction { batches, commits: Vec::new() })?;
        match tokio::time::timeout(self.app.options.commit_timeout(), ticket).await {
            Ok(appended) => appended?,
            Err(_) => return Err(Refusal::NotDurable),
        };
        Ok(TimeAnswer { time: time.to_string(), partitions: intake.partitions })
    }
}

fn stated_time(text: &[u8]) -> Result<Millis, Refusal> {
    let body: TimeBody = serde_json::from_slice(text).map_err(|error| Refusal::InvalidRequest(error.to_string()))?;
    let time = match &body.time {
        Value::String(text) => Millis::parse(text),
        Value::Number(ms) => ms.as_i64().map(Millis),
        _ => None,
    };
    // A clock never goes back: microseconds taken for milliseconds would end the namespace's history.
    let time = time.filter(|time| time.to_rfc3339().is_some());
    time.ok_or_else(|| Refusal::InvalidRequest(format!("{} is not a time: RFC 3339 or milliseconds since 1970", body.time)))
}

/// The body in the wire's words. Unlike the SDK routes this one answers for the event itself: its caller is a developer, not a library.
fn wire_event(text: &[u8], kind: &'static str) -> Result<Bytes, Refusal> {
    let mut event: Map<String, Value> =
        serde_json::from_slice(text).map_err(|error| Refusal::InvalidRequest(format!("the body is no JSON object: {error}")))?;
    for (ours, wires) in RENAMED {
        if let Some(value) = event.remove(*ours) {
            event.entry(*wires).or_insert(value);
        }
    }
    event.insert("type".to_owned(), Value::from(kind));
    let has = |name: &str| event.get(name).is_some_and(|value| value.as_str().is_some_and(|text| !text.is_empty()) || value.is_number());
    if !has("userId") && !has("anonymousId") {
        return Err(Refusal::InvalidRequest("user_id or anonymous_id is missing".to_owned()));
    }
    if kind == "track" && !has("event") {
        return Err(Refusal::InvalidRequest("event is missing: the name of what happened".to_owned()));
    }
    Ok(Bytes::from(Value::Object(event).to_string()))
}
