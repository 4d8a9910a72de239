//! Addresses that nothing is sent to, over HTTP: put on the list and taken off by hand or from another provider's list, and looked up.
//!
//! Each is a command to the address as a subject of its own, durable before the answer leaves; the address passes it to everyone who holds
//! it. Addresses are kept by their hashes: whoever asks must know the address.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::campaigns::{TAKEN, by_of, read_failed, shown, wait_of};
use super::options::Access;
use super::port::{SuppressionFound, SuppressionsAsked};
use super::query::query;
use super::reply::{Refusal, json};
use super::{Gateway, Shared, openapi};
use crate::domain::{Millis, SubjectKey};
use crate::permit::{AddressKey, Cause};
use crate::workflow::{Input, address_channel, address_subject, address_written};

/// Addresses of one request.
const ADDRESSES_MAX: usize = 1_000;
const CHANNEL_BYTES_MAX: usize = 64;
const PAGE: u32 = 100;
const PAGE_MAX: u32 = 1_000;

/// `{"addresses": ["ada@example.com"]}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SuppressBody {
    /// At most 1,000.
    addresses: Vec<String>,
    /// `email` if absent; `phone` (whichever way it is called), `push`, or another channel's name.
    #[serde(default)]
    channel: Option<String>,
    /// manual (if absent), hard_bounce or complaint: as the list that it comes from has it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    reason: Option<Cause>,
    /// RFC 3339; for good if absent.
    #[serde(default)]
    until: Option<String>,
    /// Who says so.
    #[serde(default)]
    by: Option<String>,
}

/// `{"addresses": ["ada@example.com"]}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UnsuppressBody {
    /// At most 1,000.
    addresses: Vec<String>,
    /// As when it was suppressed.
    #[serde(default)]
    channel: Option<String>,
    /// Who says so.
    #[serde(default)]
    by: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SuppressAnswer {
    /// `accepted`: durable; `decided` (with `wait`): the addresses know. Whoever holds one is told next.
    status: &'static str,
    /// The addresses' hashes, in their order.
    addresses: Vec<String>,
    /// Of the last command.
    position: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Suppressions {
    suppressions: Vec<SuppressionFound>,
    /// `after` of the next page.
    next: Option<String>,
}

#[utoipa::path(get, path = "/api/v1/suppressions", tag = "messages",
    params(("address" = Option<String>, Query, description = "is this one on the list, and why"),
        ("channel" = Option<String>, Query, description = "of the address; email if absent"),
        ("after" = Option<String>, Query), ("limit" = Option<u32>, Query)),
    responses((status = 200, body = Suppressions, description = "as the read model has them, by their hashes"), openapi::Refusals))]
pub(super) async fn list(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer_of(gateway.suppressions(request).await)
}

#[utoipa::path(post, path = "/api/v1/suppressions", tag = "messages", request_body = SuppressBody,
    params(("wait" = Option<u16>, Query, description = "wait so many seconds, at most 30, until it is decided")),
    responses((status = 200, body = SuppressAnswer, description = "decided (with `wait`)"), (status = 202, body = SuppressAnswer, description = "durable"),
        openapi::Refusals))]
pub(super) async fn add(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer_of(gateway.suppress(request).await)
}

#[utoipa::path(post, path = "/api/v1/suppressions/remove", tag = "messages", request_body = UnsuppressBody,
    params(("wait" = Option<u16>, Query, description = "wait so many seconds, at most 30, until it is decided")),
    responses((status = 200, body = SuppressAnswer, description = "decided (with `wait`)"), (status = 202, body = SuppressAnswer, description = "durable"),
        openapi::Refusals))]
pub(super) async fn remove(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer_of(gateway.unsuppress(request).await)
}

impl Gateway {
    async fn suppressions(&self, request: Request) -> Result<Response<Body>, Refusal> {
        let (head, _) = request.into_parts();
        let access = self.access(&head, &["address", "channel", "after", "limit"])?;
        let asked = |name| query(head.uri.query(), name).map(|value| value.into_owned());
        let channel = channel_of(asked("channel"))?;
        let address = asked("address").map(|address| key_of(&channel, &address)).transpose()?;
        let limit = match asked("limit") {
            None => PAGE,
            Some(text) => match text.parse() {
                Ok(limit @ 1..=PAGE_MAX) => limit,
                _ => return Err(Refusal::InvalidRequest(format!("limit={} is no number from 1 to {PAGE_MAX}", shown(&text)))),
            },
        };
        let asked = SuppressionsAsked { address, after: asked("after"), limit };
        let page = self.app.campaigns.suppressions(&access, &asked).await.map_err(read_failed)?;
        Ok(json(StatusCode::OK, &Suppressions { suppressions: page.suppressions, next: page.next }))
    }

    async fn suppress(&self, request: Request) -> Result<Response<Body>, Refusal> {
        let (head, sent) = request.into_parts();
        let (access, wait) = (self.access(&head, &["wait"])?, wait_of(&head)?);
        let body: SuppressBody = self.json_body(&head, sent).await?;
        let (channel, by, at) = (channel_of(body.channel)?, by_of(body.by)?, self.app.clock.now());
        let reason = match body.reason {
            None => Cause::Manual,
            Some(Cause::SoftBounces) => {
                return Err(Refusal::InvalidRequest("soft_bounces are counted; say manual, with `until`".to_owned()));
            }
            Some(reason) => reason,
        };
        let until = body.until.map(|text| {
            let time = Millis::parse(&text).filter(|until| *until > at);
            time.ok_or_else(|| Refusal::InvalidRequest(format!("until={} is no time to come, such as 2030-01-31T00:00:00Z", shown(&text))))
        });
        let until = until.transpose()?;
        let input = |address| Input::Suppress { address, channel: channel.clone(), reason, at, until, by: by.clone() };
        let commands = commands(&access, &channel, &body.addresses, input)?;
        self.say(&access, &commands, wait).await
    }

    async fn unsuppress(&self, request: Request) -> Result<Response<Body>, Refusal> {
        let (head, sent) = request.into_parts();
        let (access, wait) = (self.access(&head, &["wait"])?, wait_of(&head)?);
        let body: UnsuppressBody = self.json_body(&head, sent).await?;
        let (channel, by) = (channel_of(body.channel)?, by_of(body.by)?);
        // Of one time a suppression stands: what was said a moment ago is meant too.
        let at = self.app.clock.now() + 1;
        let input = |address| Input::Unsuppress { address, channel: channel.clone(), at, by: by.clone() };
        let commands = commands(&access, &channel, &body.addresses, input)?;
        self.say(&access, &commands, wait).await
    }

    async fn say(
        &self,
        access: &Access,
        commands: &[(SubjectKey, Input)],
        wait: Option<std::time::Duration>,
    ) -> Result<Response<Body>, Refusal> {
        let sent = self.send_commands(&access.namespace, commands).await?;
        let is_decided = match wait {
            Some(wait) => self.decided(&access.namespace, &sent, wait).await?,
            None => false,
        };
        let addresses = commands.iter().map(|(key, _)| key.subject().id().to_owned()).collect();
        let position = sent.last().map(|sent| sent.position.clone()).unwrap_or_default();
        let (code, status) = if is_decided { (StatusCode::OK, "decided") } else { (TAKEN, "accepted") };
        Ok(json(code, &SuppressAnswer { status, addresses, position }))
    }
}

fn commands(
    access: &Access,
    channel: &str,
    addresses: &[String],
    input: impl Fn(AddressKey) -> Input,
) -> Result<Vec<(SubjectKey, Input)>, Refusal> {
    if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
        return Err(Refusal::InvalidRequest(format!("addresses: 1 to {ADDRESSES_MAX} of them in one request")));
    }
    // All of them or none.
    let keys = addresses.iter().enumerate().map(|(place, text)| match address_written(channel, text) {
        Some(address) => Ok((address_subject(address).key(&access.tenant), input(address))),
        None => {
            let (text, place) = (shown(text), place + 1);
            Err(Refusal::InvalidRequest(format!("{text}, the {place}. of the addresses, is no {channel} address: none was taken")))
        }
    });
    keys.collect()
}

fn channel_of(given: Option<String>) -> Result<String, Refusal> {
    let channel = given.unwrap_or_else(|| "email".to_owned());
    if channel.trim().is_empty() || channel.len() > CHANNEL_BYTES_MAX {
        return Err(Refusal::InvalidRequest(format!(
            "{} is no channel: email, phone, push, or one that a workflow names",
            shown(&channel)
        )));
    }
    Ok(address_channel(&channel))
}

fn key_of(channel: &str, address: &str) -> Result<AddressKey, Refusal> {
    address_written(channel, address).ok_or_else(|| Refusal::InvalidRequest(format!("{} is no {channel} address", shown(address))))
}
