//! What links in messages lead to, `/m/...`: unsubscribe, preferences, the open pixel, the click redirect, approvals; and what mail servers
//! send back.
//!
//! A link carries its own proof, so nobody signs in. What comes of one is an event into `intake`, appended as an SDK's would be, or a
//! command to the run that asks. Pages are small HTML without scripts; a link that is forged or has run out gets one that says so.

mod approve;
mod follow;
mod inbound;
mod page;

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use serde_json::Value;

pub(super) use approve::{__path_ask, __path_decide, ask, decide};
pub(super) use follow::{
    __path_choose, __path_click, __path_open, __path_preferences, __path_unsubscribe, __path_unsubscribed, choose, click, open,
    preferences, unsubscribe, unsubscribed,
};
pub(super) use inbound::{__path_inbound, inbound};

use super::Gateway;
use super::auth::Resolved;
use super::options::{Access, Source};
use super::reply::Refusal;
use super::sdk::Shape;
use super::server::Peer;
use crate::channels::link::{self, Kind, Link};
use crate::domain::{Namespace, SourceId, Subject, TenantId};

/// The source that events of links and mail servers are said to come from.
const SOURCE: &str = "mail";

/// A link that opened, with whose it is.
struct Opened {
    link: Link,
    access: Access,
    subject: Subject,
}

impl Gateway {
    /// What a token says, or the page that says why it opens nothing.
    fn open_link(&self, kind: Kind, token: &str) -> Result<Opened, Box<Response<Body>>> {
        let opened = self.app.links.keys.open(kind, token, self.app.clock.now());
        let link = opened.map_err(|error| Box::new(no_link(error)))?;
        let broken = || Box::new(no_link(link::Error::Malformed));
        let namespace = Namespace::new(&link.namespace).map_err(|_| broken())?;
        let tenant = TenantId::new(&link.tenant).map_err(|_| broken())?;
        let subject = super::campaigns::subject_of(&link.subject).map_err(|_| broken())?;
        Ok(Opened { access: Access { tenant, namespace }, subject, link })
    }

    /// Appends an event that a link or a report makes, and returns once it is durable.
    async fn take_event(&self, head: &Parts, access: &Access, event: Value) -> Result<(), Refusal> {
        let intake = self.keys.intake(&access.namespace).ok_or_else(|| Refusal::Missing(format!("namespace {}", access.namespace)))?;
        let (tenant, namespace) = (access.tenant.clone(), access.namespace.clone());
        let source = SourceId::new(SOURCE).expect("a slug");
        let source = Source { tenant, namespace, source, disabled: false };
        let text = Bytes::from(event.to_string());
        let pending = self.submit(head, Peer::of(head), Some(Arc::new(Resolved { source, intake })), &text, Shape::Single("track"))?;
        self.durable(pending).await
    }

    /// An event whose loss must not keep somebody from where they were going: what went wrong is counted and told once a second.
    async fn try_event(&self, head: &Parts, access: &Access, event: Value) {
        if let Err(refusal) = self.take_event(head, access, event).await {
            self.metrics.refused(refusal.code());
            if let Some(others) = self.refusals.next(StatusCode::OK.as_u16(), refusal.code()) {
                tracing::info!(code = refusal.code(), others, "an event of a followed link was refused");
            }
        }
    }
}

fn no_link(error: link::Error) -> Response<Body> {
    let (status, text) = match error {
        link::Error::Expired => (StatusCode::GONE, "This link has run out. If you still need it, look for a newer message."),
        _ => (StatusCode::BAD_REQUEST, "This link does not work. It may have been cut by a mail program: open it from the message itself."),
    };
    page::message(status, "This link does not work any more", text)
}

/// A page for someone who can only try again.
fn come_again(refusal: &Refusal) -> Response<Body> {
    let text = "Nothing was changed. Please try again in a minute.";
    let status = if refusal.status().is_server_error() || refusal.status() == StatusCode::TOO_MANY_REQUESTS {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        refusal.status()
    };
    page::message(status, "That did not work", text)
}

/// What depends on the moment is kept by nobody, and where one came from is nobody's business.
fn private(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
