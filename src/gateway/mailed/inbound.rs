//! `POST /m/inbound`: what mail servers send back, whole, as a mail server or a script hands it in. Bounces and complaints become events of
//! the person whose message they are about; everything else is somebody else's.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::channels::events;
use crate::channels::inbound::{self, Inbound};
use crate::gateway::campaigns::read_failed;
use crate::gateway::options::Access;
use crate::gateway::reply::{Refusal, json};
use crate::gateway::{Gateway, Shared, auth, openapi};
use crate::permit::EffectKey;
use crate::workflow::EffectId;

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::gateway) struct InboundAnswer {
    /// bounce, complaint, or other: which is nothing of ours.
    kind: &'static str,
    /// Events made of it.
    events: u32,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

#[utoipa::path(post, path = "/m/inbound", tag = "messages", request_body(content = String, content_type = "message/rfc822"),
    params(("writeKey" = Option<String>, Query, description = "the write key, unless it is the Basic user or X-API-Key")),
    responses((status = 200, body = InboundAnswer, description = "read; what became of it is durable"), openapi::Refusals))]
pub(in crate::gateway) async fn inbound(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    let answer = gateway.take_mail(request).await.map(|answer| json(StatusCode::OK, &answer));
    gateway.answer_of(answer)
}

impl Gateway {
    async fn take_mail(&self, request: Request) -> Result<InboundAnswer, Refusal> {
        let (head, sent) = request.into_parts();
        let in_query = || auth::query(head.uri.query(), "writeKey").map(|key| key.into_owned());
        let key = auth::basic_user(&head.headers).or_else(|| auth::x_api_key(&head.headers)).or_else(in_query);
        let source = self.admit(&key.ok_or(Refusal::NoWriteKey)?)?;
        let access = Access { tenant: source.source.tenant.clone(), namespace: source.source.namespace.clone() };
        let mail = self.small_body(&head, sent).await?;
        let read = inbound::read(&mail);
        let (kind, key) = match &read {
            Inbound::Bounce(bounce) => ("bounce", bounce.key),
            Inbound::Complaint(complaint) => ("complaint", complaint.key),
            Inbound::Other => {
                return Ok(InboundAnswer { kind: "other", events: 0, why: Some("no delivery or feedback report".to_owned()) });
            }
        };
        let none = |why: &str| Ok(InboundAnswer { kind, events: 0, why: Some(why.to_owned()) });
        let Some(key) = key else { return none("it names no message of ours") };
        let Some((_, subject)) = self.app.campaigns.effect(&access, effect_of(key)).await.map_err(read_failed)? else {
            return none("no message is known by the key that it names");
        };
        let now = self.app.clock.now();
        let made: Vec<_> = match &read {
            Inbound::Bounce(bounce) => bounce.recipients.iter().filter_map(|one| events::bounced(&subject, key, one, now)).collect(),
            Inbound::Complaint(complaint) => events::complained(&subject, key, complaint, now).into_iter().collect(),
            Inbound::Other => Vec::new(),
        };
        let events = made.len() as u32;
        for event in made {
            self.take_event(&head, &access, event).await?;
        }
        let why = (events == 0).then(|| "it arrived, may still arrive, or takes a complaint back".to_owned());
        Ok(InboundAnswer { kind, events, why })
    }
}

/// A message's key is its effect's id.
fn effect_of(key: EffectKey) -> EffectId {
    EffectId(u128::from_be_bytes(key.0))
}
