//! `POST /m/inbound`: what mail servers send back, whole, as a mail server or a script hands it in. Bounces and complaints become events of
//! the person whose message they are about, and words to the address that it went to; everything else is somebody else's.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::channels::events;
use crate::channels::inbound::{self, Class, Inbound, Recipient};
use crate::domain::Millis;
use crate::gateway::campaigns::read_failed;
use crate::gateway::options::Access;
use crate::gateway::port::EffectFound;
use crate::gateway::query::query;
use crate::gateway::reply::{Refusal, json};
use crate::gateway::server::Peer;
use crate::gateway::{Gateway, Shared, auth, body, openapi};
use crate::permit::{AddressKey, Cause, EffectKey};
use crate::workflow::{EffectId, Input, address_channel, address_subject};

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::gateway) struct InboundAnswer {
    /// bounce, complaint, or other: which is nothing of ours.
    kind: &'static str,
    /// Events made of it.
    events: u32,
    /// What the address is told: hard_bounce and complaint suppress it, so many soft_bounce do.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'static str>,
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
        let in_query = || query(head.uri.query(), "writeKey").map(|key| key.into_owned());
        let key = auth::basic_user(&head.headers).or_else(|| auth::x_api_key(&head.headers)).or_else(in_query);
        let source = self.admit(&key.ok_or(Refusal::NoWriteKey)?)?;
        let access = Access { tenant: source.source.tenant.clone(), namespace: source.source.namespace.clone() };
        let mut reserved = self.budget.reserve(body::Sender::Known);
        let mail = body::read_start(sent, inbound::BYTES_MAX, &mut reserved, &Peer::of(&head).watched).await?;
        let read = inbound::read(&mail);
        let (kind, key) = match &read {
            Inbound::Bounce(bounce) => ("bounce", bounce.key),
            Inbound::Complaint(complaint) => ("complaint", complaint.key),
            Inbound::Other => {
                return Ok(InboundAnswer {
                    kind: "other",
                    events: 0,
                    address: None,
                    why: Some("no delivery or feedback report".to_owned()),
                });
            }
        };
        let none = |why: &str| Ok(InboundAnswer { kind, events: 0, address: None, why: Some(why.to_owned()) });
        let Some(key) = key else { return none("it names no message of ours") };
        let Some(found) = self.app.campaigns.effect(&access, effect_of(key)).await.map_err(read_failed)? else {
            return none("no message is known by the key that it names");
        };
        let subject = found.subject.clone();
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
        // After the events: whoever hands the report in again says all of it again, which comes to the same.
        let word = word_of(&read, &found, key, now);
        let address = word.as_ref().map(|(_, input)| word_name(input));
        if let Some((address, input)) = word {
            self.send_command(&access.namespace, address_subject(address).key(&access.tenant), input).await?;
        }
        let why = (events == 0).then(|| "it arrived, may still arrive, or takes a complaint back".to_owned());
        Ok(InboundAnswer { kind, events, address, why })
    }
}

/// What a report says of the address that the message went to. A report is of one message, and a message goes to one address: which one,
/// the permit says, and the report only where that is not known. A server that forwards names another.
fn word_of(read: &Inbound, found: &EffectFound, message: EffectKey, at: Millis) -> Option<(AddressKey, Input)> {
    let channel = address_channel(&found.target);
    let by = format!("message {message}");
    let key = |reported: Option<&str>| found.to.as_deref().or(reported).map(|to| AddressKey::of(&channel, to));
    match read {
        Inbound::Bounce(bounce) => {
            let is_ours = |one: &&Recipient| found.to.as_deref().is_some_and(|to| to.eq_ignore_ascii_case(&one.address));
            let alone = bounce.recipients.first().filter(|_| bounce.recipients.len() == 1);
            let one = bounce.recipients.iter().find(is_ours).or(alone)?;
            let address = key(Some(&one.address))?;
            let input = match one.class {
                Class::Hard => Input::Suppress { address, channel, reason: Cause::HardBounce, at, until: None, by },
                Class::Soft => Input::SoftBounce { address, channel, message: message.to_string(), at },
                Class::Blocked | Class::Delayed | Class::Delivered => return None,
            };
            Some((address, input))
        }
        Inbound::Complaint(complaint) if complaint.is_complaint() => {
            let address = key(complaint.addresses.first().filter(|_| complaint.addresses.len() == 1).map(String::as_str))?;
            Some((address, Input::Suppress { address, channel, reason: Cause::Complaint, at, until: None, by }))
        }
        Inbound::Complaint(_) | Inbound::Other => None,
    }
}

fn word_name(input: &Input) -> &'static str {
    match input {
        Input::Suppress { reason: Cause::Complaint, .. } => "complaint",
        Input::Suppress { .. } => "hard_bounce",
        _ => "soft_bounce",
    }
}

/// A message's key is its effect's id.
fn effect_of(key: EffectKey) -> EffectId {
    EffectId(u128::from_be_bytes(key.0))
}
