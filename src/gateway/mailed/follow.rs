//! Unsubscribe, preferences, the open pixel and the click redirect.
//!
//! A redirect goes only to an address that was signed: it is never an open one. Nothing changes by looking at a page, since mail programs and
//! scanners do that for people; a change is a POST.

use std::fmt::Write;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::page::{escaped, message, page};
use super::{Opened, come_again, private};
use crate::channels::bots::Verdict;
use crate::channels::bots::{Act, Hit};
use crate::channels::events;
use crate::channels::link::Kind;
use crate::gateway::campaigns::read_failed;
use crate::gateway::pixel::GIF;
use crate::gateway::port::{Choice, Preference};
use crate::gateway::query::pairs;
use crate::gateway::reply::{Refusal, with_body};
use crate::gateway::{Gateway, Shared};

#[utoipa::path(get, path = "/m/unsubscribe/{token}", tag = "messages", params(("token" = String, Path)),
    responses((status = 200, description = "a page with one button"), (status = 400, description = "no link of ours"), (status = 410, description = "run out")))]
pub(in crate::gateway) async fn unsubscribe(State(gateway): State<Shared>, Path(token): Path<String>) -> Response<Body> {
    match gateway.open_link(Kind::Unsubscribe, &token) {
        Ok(opened) => {
            let what = escaped(&what_of(&opened.link.detail));
            let button = format!(
                "<p>You will get no more {what}.</p>\n<form method=\"post\">\n<input type=\"hidden\" name=\"List-Unsubscribe\" value=\"One-Click\">\n\
                 <button type=\"submit\">Unsubscribe</button>\n</form>"
            );
            page(StatusCode::OK, "Unsubscribe", &button)
        }
        Err(no) => *no,
    }
}

#[utoipa::path(post, path = "/m/unsubscribe/{token}", tag = "messages", params(("token" = String, Path)),
    responses((status = 200, description = "withdrawn, durably: RFC 8058's one click, or the page's button"), (status = 400), (status = 410),
        (status = 503, description = "nothing was changed; try again")))]
pub(in crate::gateway) async fn unsubscribed(State(gateway): State<Shared>, Path(token): Path<String>, request: Request) -> Response<Body> {
    let opened = match gateway.open_link(Kind::Unsubscribe, &token) {
        Ok(opened) => opened,
        Err(no) => return *no,
    };
    let (head, sent) = request.into_parts();
    // Whatever it says, posting to this address is the one click.
    if let Err(refusal) = gateway.small_body(&head, sent).await {
        return come_again(&refusal);
    }
    let Some(event) = events::followed(&opened.link, &Verdict::Person, gateway.app.clock.now()) else {
        return come_again(&Refusal::ReadFailed("an unsubscribe that is no event".to_owned()));
    };
    match gateway.take_event(&head, &opened.access, event).await {
        Ok(()) => message(StatusCode::OK, "You are unsubscribed", &format!("You will get no more {}.", what_of(&opened.link.detail))),
        Err(refusal) => come_again(&refusal),
    }
}

/// `marketing by email`, of `marketing/email`.
fn what_of(detail: &str) -> String {
    match detail.split_once('/') {
        Some((purpose, "")) => format!("{purpose} messages"),
        Some((purpose, channel)) => format!("{purpose} messages by {channel}"),
        None => format!("{detail} messages"),
    }
}

#[utoipa::path(get, path = "/m/preferences/{token}", tag = "messages", params(("token" = String, Path)),
    responses((status = 200, description = "a page of purposes and channels to choose from"), (status = 400), (status = 410)))]
pub(in crate::gateway) async fn preferences(State(gateway): State<Shared>, Path(token): Path<String>) -> Response<Body> {
    let opened = match gateway.open_link(Kind::Preferences, &token) {
        Ok(opened) => opened,
        Err(no) => return *no,
    };
    match gateway.preferences_of(&opened, &[]).await {
        Ok(known) => page(StatusCode::OK, "What you want to hear of", &choices(&known, "")),
        Err(refusal) => come_again(&refusal),
    }
}

#[utoipa::path(post, path = "/m/preferences/{token}", tag = "messages", params(("token" = String, Path)),
    responses((status = 200, description = "kept, durably"), (status = 400), (status = 410), (status = 503)))]
pub(in crate::gateway) async fn choose(State(gateway): State<Shared>, Path(token): Path<String>, request: Request) -> Response<Body> {
    let opened = match gateway.open_link(Kind::Preferences, &token) {
        Ok(opened) => opened,
        Err(no) => return *no,
    };
    let (head, sent) = request.into_parts();
    match gateway.take_choices(&head, &opened, sent).await {
        Ok((known, is_kept)) => {
            let told =
                if is_kept { "Your choice is kept." } else { "Not all of it could be kept: below is what holds. Please choose again." };
            page(StatusCode::OK, "What you want to hear of", &choices(&known, &format!("<p role=\"status\">{told}</p>\n")))
        }
        Err(refusal) => come_again(&refusal),
    }
}

fn choices(known: &[Preference], said: &str) -> String {
    if known.is_empty() {
        return format!("{said}<p>There is nothing to choose from.</p>");
    }
    let mut html = format!("{said}<form method=\"post\">\n<fieldset>\n<legend>Send me</legend>\n");
    for one in known {
        let name = escaped(&format!("{}/{}", one.purpose, one.channel));
        let (purpose, channel, checked) = (escaped(&one.purpose), escaped(&one.channel), if one.granted { " checked" } else { "" });
        let label = format!("<label><input type=\"checkbox\" name=\"yes\" value=\"{name}\"{checked}> {purpose} by {channel}</label>\n");
        html.push_str(&label);
        // What was shown is what is decided: a choice that came up since stays as it is.
        writeln!(html, "<input type=\"hidden\" name=\"of\" value=\"{name}\">").expect("a string takes everything");
    }
    html.push_str("</fieldset>\n<button type=\"submit\">Save</button>\n</form>");
    html
}

#[utoipa::path(get, path = "/m/open/{token}", tag = "messages", params(("token" = String, Path)),
    responses((status = 200, description = "always a transparent GIF of one pixel", content_type = "image/gif")))]
pub(in crate::gateway) async fn open(State(gateway): State<Shared>, Path(token): Path<String>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    // Whoever looks at an old or damaged message sees no broken image.
    if let Ok(opened) = gateway.open_link(Kind::Open, &token) {
        gateway.note(&head, &opened, Act::Open).await;
    }
    private(with_body(StatusCode::OK, HeaderValue::from_static("image/gif"), GIF))
}

#[utoipa::path(get, path = "/m/click/{token}", tag = "messages", params(("token" = String, Path)),
    responses((status = 302, description = "to the address that was signed, and to no other"), (status = 400), (status = 410)))]
pub(in crate::gateway) async fn click(State(gateway): State<Shared>, Path(token): Path<String>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    let opened = match gateway.open_link(Kind::Click, &token) {
        Ok(opened) => opened,
        Err(no) => return *no,
    };
    let target = &opened.link.detail;
    let is_web =
        ["https://", "http://"].iter().any(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let Some(location) = HeaderValue::from_bytes(target.as_bytes()).ok().filter(|_| is_web) else {
        return super::no_link(crate::channels::link::Error::Malformed);
    };
    gateway.note(&head, &opened, Act::Click).await;
    let mut response = private(Response::new(Body::empty()));
    *response.status_mut() = StatusCode::FOUND;
    response.headers_mut().insert(header::LOCATION, location);
    response
}

impl Gateway {
    async fn preferences_of(&self, opened: &Opened, said: &[Choice]) -> Result<Vec<Preference>, Refusal> {
        self.app.campaigns.preferences(&opened.access, &opened.subject, said).await.map_err(read_failed)
    }

    /// What holds after the choices, and whether all of them do.
    async fn take_choices(&self, head: &Parts, opened: &Opened, sent: Body) -> Result<(Vec<Preference>, bool), Refusal> {
        let text = self.small_body(head, sent).await?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let values = |name: &str| pairs(&text).filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect::<Vec<_>>();
        let (shown, wanted) = (values("of"), values("yes"));
        let mut said = Vec::new();
        for Preference { purpose, channel, granted: before } in self.preferences_of(opened, &[]).await? {
            let name = format!("{purpose}/{channel}");
            let (granted, at) = (wanted.contains(&name), self.app.clock.now());
            if !shown.contains(&name) || granted == before {
                continue;
            }
            let event = events::chosen(&opened.link, &purpose, &channel, granted, at);
            if let Some(event) = event {
                self.take_event(head, &opened.access, event).await?;
            }
            said.push(Choice { purpose, channel, granted, at });
        }
        let known = self.preferences_of(opened, &said).await?;
        let holds = |choice: &Choice| {
            let now = known.iter().find(|one| (&one.purpose, &one.channel) == (&choice.purpose, &choice.channel));
            now.is_some_and(|one| one.granted == choice.granted)
        };
        let is_kept = said.iter().all(holds);
        Ok((known, is_kept))
    }

    /// Makes an event of a followed link, unless a machine followed it.
    async fn note(&self, head: &Parts, opened: &Opened, act: Act) {
        let now = self.app.clock.now();
        let hit = Hit {
            act,
            method: head.method.as_str(),
            agent: text(&head.headers, "user-agent"),
            purpose: ["sec-purpose", "purpose", "x-moz"]
                .map(|name| text(&head.headers, name))
                .into_iter()
                .find(|value| !value.is_empty())
                .unwrap_or(""),
            since_sent_ms: opened.link.sent.map(|sent| now.since_ms(sent)),
        };
        let verdict = self.app.links.bots.judge(&hit);
        if let Some(event) = events::followed(&opened.link, &verdict, now) {
            self.try_event(head, &opened.access, event).await;
        }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}
