//! Mail: a template filled with what the node gives, signed links, and the outbox folder or a server.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::super::call::{Call, Leave, Performing, Remote, Request};
use super::super::templates::{OWN_LINKS, Templates};
use super::{passing, refusal, unsent};
use crate::channels::link::{Keys, Kind, Link};
use crate::channels::mail::{Draft, Mail, Sender, message_id};
use crate::channels::outbox::Outbox;
use crate::channels::smtp::Smtp;
use crate::channels::template::Rendered;
use crate::channels::track::tracked;
use crate::channels::{Failure, Refused};
use crate::domain::{DAY_MS, Namespace};
use crate::env::Clock;
use crate::permit::AddressKey;
use crate::workflow::{Category, Outcome};

/// How long the links of a message work.
const LINK_DAYS: i64 = 366;

/// What was approved is what is sent.
const NOT_APPROVED: &str = "the message is not the one that was approved: its template, or what fills it, has changed since. If it was the \
                            template, put it back as it was and `flywheel workflow resume` the run. If not, resuming does not help: \
                            `flywheel workflow cancel` ends the run, and one that is started anew asks anew";

/// How mail leaves.
pub enum Outgoing {
    Outbox(Arc<Outbox>),
    Smtp(Arc<Smtp>),
}

/// What links begin with and are signed with.
#[derive(Debug, Clone)]
pub struct Links {
    /// Without a slash at its end.
    pub base: String,
    pub keys: Keys,
}

/// Makes messages of what nodes give.
pub struct Messages {
    pub namespace: Namespace,
    pub sender: Sender,
    /// The part of the sender's address after the `@`.
    pub domain: String,
    pub templates: Arc<Templates>,
    pub links: Links,
    pub clock: Arc<dyn Clock>,
    /// Opens and clicks are told.
    pub tracks: bool,
    /// Purposes whose messages nobody can unsubscribe from, such as receipts.
    pub without_unsubscribe: BTreeSet<String>,
}

pub struct Email {
    pub messages: Messages,
    pub outgoing: Outgoing,
}

impl Messages {
    /// The message of a call, to this address.
    pub fn write(&self, request: &Request, to: &str) -> Result<Mail, String> {
        let input = request.input();
        let (mut words, unsubscribe) = self.words(request, input)?;
        if self.tracks
            && let Some(html) = &words.html
        {
            words.html = Some(tracked(html, &self.links.base, &self.links.keys, &self.link(request, Kind::Open, String::new())));
        }
        let unsubscribe_url = unsubscribe.filter(|_| !self.without_unsubscribe.contains(&request.purpose));
        let (key, date) = (request.key(), request.requested_at);
        let draft = Draft { key, sender: &self.sender, to, date, words: &words, unsubscribe_url: unsubscribe_url.as_deref() };
        draft.write().map_err(|error| error.to_string())
    }

    fn words(&self, request: &Request, mut input: Map<String, Json>) -> Result<(Rendered, Option<String>), String> {
        if !request.approved.is_empty() && self.templates.words(input.clone())?.digest() != request.approved {
            return Err(NOT_APPROVED.to_owned());
        }
        let unsubscribe = self.url(request, Kind::Unsubscribe, format!("{}/email", request.purpose));
        let [unsubscribe_url, preferences_url] = OWN_LINKS.map(str::to_owned);
        input.insert(unsubscribe_url, unsubscribe.clone().into());
        input.insert(preferences_url, self.url(request, Kind::Preferences, String::new()).into());
        Ok((self.templates.fill(input)?, Some(unsubscribe)))
    }

    fn url(&self, request: &Request, kind: Kind, detail: String) -> String {
        self.links.keys.url(&self.links.base, &self.link(request, kind, detail))
    }

    fn link(&self, request: &Request, kind: Kind, detail: String) -> Link {
        // Of the day, so that trying again writes the same message.
        let expires = self.clock.now().floor_to(DAY_MS) + LINK_DAYS * DAY_MS;
        let (namespace, tenant) = (self.namespace.to_string(), request.subject.tenant_str().to_owned());
        Link {
            kind,
            namespace,
            tenant,
            subject: request.subject.subject().to_string(),
            effect: request.key(),
            expires,
            detail,
            sent: Some(self.clock.now()),
        }
    }
}

impl Email {
    fn result(&self, request: &Request) -> Json {
        json!({ "message_id": message_id(request.key(), &self.messages.domain) })
    }

    /// Whether an earlier attempt sent it, as far as that can be found out.
    async fn look_up(&self, request: &Request) -> Outcome {
        match &self.outgoing {
            Outgoing::Outbox(outbox) => {
                let (outbox, key) = (Arc::clone(outbox), request.key());
                match tokio::task::spawn_blocking(move || outbox.has(key)).await {
                    Ok(Ok(true)) => Outcome::Done { result: self.result(request) },
                    Ok(Ok(false)) => Outcome::NotDone,
                    Ok(Err(error)) => Outcome::Unknown { error: error.to_string() },
                    Err(error) => Outcome::Unknown { error: error.to_string() },
                }
            }
            Outgoing::Smtp(_) => Outcome::Unknown { error: "a mail server cannot be asked whether it took a message".to_owned() },
        }
    }

    async fn send(&self, request: &Request, leave: Leave) -> Outcome {
        let mail = match self.messages.write(request, &leave.to) {
            Ok(mail) => mail,
            Err(error) => return refusal(Category::Data, error),
        };
        let sent = match &self.outgoing {
            Outgoing::Smtp(server) => server.send(leave.permit, &mail).await,
            Outgoing::Outbox(outbox) => {
                let outbox = Arc::clone(outbox);
                match tokio::task::spawn_blocking(move || outbox.send(leave.permit, &mail)).await {
                    Ok(sent) => sent,
                    Err(error) => return Outcome::Unknown { error: error.to_string() },
                }
            }
        };
        match sent {
            Ok(_) => Outcome::Done { result: self.result(request) },
            Err(Failure::Refused { of: Refused::Address, text }) => {
                Outcome::AddressRefused { address: AddressKey::of(&request.target, &leave.to), error: text }
            }
            Err(failure) => unsent(&failure),
        }
    }
}

impl Remote for Email {
    fn perform(&self, call: Call, leave: Option<Leave>) -> Performing<'_> {
        Box::pin(async move {
            match leave {
                _ if call.look_up => self.look_up(&call.request).await,
                Some(leave) => self.send(&call.request, leave).await,
                None => passing(Category::System, "a message without leave to send it".to_owned()),
            }
        })
    }
}
