//! The page of an approval: exactly what is to be done, to whom, until when; yes or no, with a comment. One decision: who comes later is
//! told who was first.

use std::fmt::Write;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};

use super::page::{escaped, list_of, message, page};
use super::{Opened, come_again};
use crate::channels::link::{self, Asked, Kind};
use crate::gateway::campaigns::{Became, Outcome, read_failed};
use crate::gateway::port::{ApprovalFound, ApprovalsAsked, Decided, Preview, Question};
use crate::gateway::query::pairs;
use crate::gateway::reply::Refusal;
use crate::gateway::{Gateway, Shared};
use crate::workflow::{Input, Provenance, RunId};

/// How long the page waits to say what became of a click.
const WAIT: Duration = Duration::from_secs(10);
const TEXT_CHARS_MAX: usize = 1_000;
/// What is shown is bounded by what a record holds; a read is not.
const APPROVALS_MAX: u32 = 1_000;

#[utoipa::path(get, path = "/m/approve/{token}", tag = "messages", params(("token" = String, Path)),
    responses((status = 200, description = "what is asked, with a button for yes and one for no; or who decided, or that the deadline has passed"),
        (status = 400, description = "no link of ours"), (status = 410, description = "run out")))]
pub(in crate::gateway) async fn ask(State(gateway): State<Shared>, Path(token): Path<String>) -> Response<Body> {
    match gateway.asked(&token).await {
        Ok((opened, found, _)) => {
            let preview = gateway.app.campaigns.preview(&opened.access, &found).await.unwrap_or_default();
            let now = gateway.app.clock.now();
            match &found.decided {
                Some(decided) => page(StatusCode::OK, "This has been decided", &(told(decided) + &shown(&found, preview.as_ref()))),
                None if found.cancelled.is_some() => {
                    page(StatusCode::OK, "This is no longer asked", &(cancelled(&found) + &shown(&found, preview.as_ref())))
                }
                None if now >= found.until => {
                    page(StatusCode::OK, "The deadline has passed", &(late(&found) + &shown(&found, preview.as_ref())))
                }
                None => {
                    let form = form(&found, preview.as_ref());
                    page(StatusCode::OK, "Your approval is asked for", &(shown(&found, preview.as_ref()) + &form))
                }
            }
        }
        Err(no) => *no,
    }
}

#[utoipa::path(post, path = "/m/approve/{token}", tag = "messages", params(("token" = String, Path)),
    request_body(content = String, content_type = "application/x-www-form-urlencoded", description = "decision=approve or reject, question (as the page has it), comment, by"),
    responses((status = 200, description = "decided"), (status = 202, description = "taken, and not decided yet"), (status = 400),
        (status = 409, description = "somebody else, or the deadline, was first: the page says who and when"), (status = 410), (status = 503)))]
pub(in crate::gateway) async fn decide(State(gateway): State<Shared>, Path(token): Path<String>, request: Request) -> Response<Body> {
    let (opened, found, asked) = match gateway.asked(&token).await {
        Ok(asked) => asked,
        Err(no) => return *no,
    };
    let (head, sent) = request.into_parts();
    match gateway.take_decision(&head, sent, &opened, &found, &asked).await {
        Ok(response) => response,
        Err(refusal) => come_again(&refusal),
    }
}

impl Gateway {
    async fn asked(&self, token: &str) -> Result<(Opened, ApprovalFound, Asked), Box<Response<Body>>> {
        let opened = self.open_link(Kind::Approve, token)?;
        let Some(asked) = Asked::parse(&opened.link.detail) else { return Err(Box::new(super::no_link(link::Error::Malformed))) };
        let run = RunId(u128::from_be_bytes(opened.link.effect.0));
        match self.approval_at(&opened, run, asked.visit).await {
            Ok(Some(found)) => Ok((opened, found, asked)),
            Ok(None) => {
                let text = "What was asked for is not known yet, or not any more. If the message is new, try again in a minute.";
                Err(Box::new(message(StatusCode::NOT_FOUND, "There is nothing to decide here", text)))
            }
            Err(refusal) => Err(Box::new(come_again(&refusal))),
        }
    }

    async fn approval_at(&self, opened: &Opened, run: RunId, visit: u64) -> Result<Option<ApprovalFound>, Refusal> {
        let asked = ApprovalsAsked { run: Some(run), limit: APPROVALS_MAX, ..ApprovalsAsked::default() };
        let of_run = self.app.campaigns.approvals(&opened.access, &asked).await.map_err(read_failed)?;
        let Some(found) = of_run.iter().find(|approval| approval.visit == visit) else { return Ok(None) };
        // In a loop the same step asks again: an old link does not decide what its reader has not seen.
        let is_passed = found.is_open() && of_run.iter().any(|other| other.node == found.node && other.visit > visit);
        Ok(Some(found.clone()).filter(|_| !is_passed))
    }

    async fn take_decision(
        &self,
        head: &Parts,
        sent: Body,
        opened: &Opened,
        found: &ApprovalFound,
        asked: &Asked,
    ) -> Result<Response<Body>, Refusal> {
        let text = self.small_body(head, sent).await?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let value = |name: &str| {
            let found = pairs(&text).find(|(key, _)| key == name).map(|(_, value)| value.trim().chars().take(TEXT_CHARS_MAX).collect());
            found.unwrap_or_default()
        };
        let (decision, comment, by): (String, String, String) = (value("decision"), value("comment"), value("by"));
        let approved = match decision.as_str() {
            "approve" => true,
            "reject" => false,
            _ => return Ok(message(StatusCode::BAD_REQUEST, "Nothing was decided", "The page was sent without a decision.")),
        };
        if let Some(decided) = &found.decided {
            return Ok(page(StatusCode::CONFLICT, "This has been decided already", &told(decided)));
        }
        if found.cancelled.is_some() {
            return Ok(page(StatusCode::CONFLICT, "This is no longer asked", &cancelled(found)));
        }
        // What the page showed is what is decided: the same link may show another question by now.
        let Some(question) = Question::parse(&value("question")).filter(|question| question.visit == asked.visit) else {
            let text = "The page did not say which question it showed. Open the link again, and decide there.";
            return Ok(message(StatusCode::BAD_REQUEST, "Nothing was decided", text));
        };
        let seen = value("message");
        let preview = self.app.campaigns.preview(&opened.access, found).await.map_err(read_failed)?;
        if preview.map(|preview| preview.digest).unwrap_or_default() != seen {
            let text = "The message is another than the one that the page showed. Open the link again to see it, and decide then.";
            return Ok(message(StatusCode::CONFLICT, "The message has changed", text));
        }
        let by = if by.is_empty() { asked.who.clone() } else { by };
        let (run, visit) = (found.run, Some(question.visit));
        let cause = format!("click:{}", uuid::Uuid::now_v7());
        let provenance = Provenance { cause, link: asked.who.clone(), shown: question.shown, message: seen };
        let input = Input::Approval { run, node: found.node.clone(), approved, by: by.clone(), comment, visit, provenance };
        let Outcome { became, is_decided } = self.decide(&opened.access, &opened.subject, input, WAIT).await?;
        Ok(match became {
            Became::Done(word) => {
                let title = if approved { "You approved it" } else { "You rejected it" };
                message(StatusCode::OK, title, &format!("It is {word}, by {by}. You can close this page."))
            }
            Became::Refused { code: "asked_anew", message: text } => {
                let again = "Open the link again to see what is asked now; if it shows nothing, look for a newer message.";
                message(StatusCode::CONFLICT, "This has been asked anew", &format!("{} {again}", sentence(&text)))
            }
            Became::Refused { code: "already_decided", message: text } => {
                message(StatusCode::CONFLICT, "This has been decided already", &format!("{text}."))
            }
            Became::Refused { message: text, .. } => message(StatusCode::CONFLICT, "Your decision came too late", &sentence(&text)),
            // Decided before this click and not shown then: the read model was behind, and has it now or in a moment.
            Became::Nothing if is_decided => match self.approval_at(opened, run, found.visit).await? {
                Some(ApprovalFound { decided: Some(decided), .. }) => {
                    page(StatusCode::CONFLICT, "This has been decided already", &told(&decided))
                }
                _ => message(
                    StatusCode::CONFLICT,
                    "This is no longer asked",
                    "The campaign has moved on and does not ask for this any more.",
                ),
            },
            Became::Nothing => {
                message(StatusCode::ACCEPTED, "Your decision is kept", "It is on its way. Open this page again to see what became of it.")
            }
        })
    }
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).chain(['.']).collect())
}

fn told(decided: &Decided) -> String {
    let word = if decided.approved { "approved" } else { "rejected" };
    let mut html = format!("<p role=\"status\">{} {word} it on {}.</p>", escaped(&decided.who()), shown_time(decided.at));
    if !decided.comment.is_empty() {
        write!(html, "\n<blockquote>{}</blockquote>", escaped(&decided.comment)).expect("a string takes everything");
    }
    html
}

fn late(found: &ApprovalFound) -> String {
    format!(
        "<p role=\"status\">It was to be decided until {}. What happens without a decision is up to the campaign.</p>",
        shown_time(found.until)
    )
}

fn cancelled(found: &ApprovalFound) -> String {
    let when = found.cancelled.map_or(String::new(), |at| format!(" on {}", shown_time(at)));
    format!(
        "<p role=\"status\">The campaign went on without a decision{when}: it ended, or took another way. Nothing is to be decided.</p>"
    )
}

fn shown_time(at: crate::domain::Millis) -> String {
    let text = at.to_string();
    format!("<time datetime=\"{}\">{}</time>", escaped(&text), escaped(&text.replace('T', " ").replace(".000Z", " UTC")))
}

/// Everything that the decision is about.
fn shown(found: &ApprovalFound, preview: Option<&Preview>) -> String {
    let mut html = format!(
        "<dl>\n<dt>Campaign</dt>\n<dd>{}, step {}</dd>\n<dt>For</dt>\n<dd>{}</dd>\n<dt>Asked</dt>\n<dd>{}, of {}</dd>\n<dt>Deadline</dt>\n<dd>{}</dd>\n",
        escaped(&found.workflow),
        escaped(&found.node),
        escaped(&found.subject.to_string()),
        shown_time(found.asked_at),
        escaped(&found.who),
        shown_time(found.until),
    );
    let cost = found.shows.get("cost").map(|cost| cost.as_str().map_or(cost.to_string(), str::to_owned));
    let cost = cost.unwrap_or_else(|| "not stated by the campaign".to_owned());
    write!(html, "<dt>Cost</dt>\n<dd>{}</dd>\n", escaped(&cost)).expect("a string takes everything");
    html.push_str("</dl>\n");
    if let Some(preview) = preview {
        write!(
            html,
            "<h2>The message, as it will be sent</h2>\n<dl>\n<dt>By</dt>\n<dd>{}</dd>\n<dt>To</dt>\n<dd>{}</dd>\n<dt>Subject</dt>\n<dd>{}</dd>\n</dl>\n<pre>{}</pre>\n",
            escaped(&preview.channel),
            escaped(&preview.to),
            escaped(&preview.subject),
            escaped(&preview.text)
        )
        .expect("a string takes everything");
        if let Some(words) = &preview.html {
            // In a frame of its own that runs nothing, and as it is written for whoever's browser shows no frame.
            let words = escaped(words);
            write!(
                html,
                "<h3>As HTML, which most people read</h3>\n<iframe sandbox=\"\" title=\"The message as HTML\" srcdoc=\"{words}\"></iframe>\n\
                 <details><summary>Its source</summary>\n<pre>{words}</pre>\n</details>\n"
            )
            .expect("a string takes everything");
        }
    }
    write!(html, "<h2>What is asked</h2>\n{}\n", list_of(&found.shows)).expect("a string takes everything");
    html
}

fn form(found: &ApprovalFound, preview: Option<&Preview>) -> String {
    format!(
        "<form method=\"post\">\n<input type=\"hidden\" name=\"question\" value=\"{}\">\n<input type=\"hidden\" name=\"message\" value=\"{}\">\n<label>Your name\n<input type=\"text\" name=\"by\" maxlength=\"200\" autocomplete=\"name\" placeholder=\"{}\"></label>\n\
         <label>Comment\n<textarea name=\"comment\" rows=\"3\" maxlength=\"1000\"></textarea></label>\n\
         <button type=\"submit\" name=\"decision\" value=\"approve\">Approve</button>\n<button type=\"submit\" name=\"decision\" value=\"reject\">Reject</button>\n</form>",
        escaped(&found.question().to_string()),
        escaped(preview.map_or("", |preview| &preview.digest)),
        escaped(&found.who)
    )
}
