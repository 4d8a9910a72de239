//! Campaigns over HTTP: start runs, look at them, act on them; workflows and approvals with them.
//!
//! What is asked becomes a command to the run's subject, durable before the answer leaves. The fold decides a moment later: the answer is
//! 202 with the command's position, or, with `?wait=SECONDS`, what became of it.

mod act;
mod became;
mod bulk;
mod command;
mod policy;
mod profile;
mod read;
mod start;
mod workflows;

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use serde::de::DeserializeOwned;

pub(super) use act::{__path_act, __path_resolve, Outcome, act, resolve};
pub(super) use became::Became;
pub(super) use bulk::{__path_bulk, bulk};
pub(super) use command::read_failed;
pub(super) use policy::{
    __path_declare as __path_declare_policy, __path_retire as __path_retire_policy, __path_show as __path_policy,
    declare as declare_policy, retire as retire_policy, show as policy,
};
pub(super) use read::{__path_approvals, __path_get, __path_list, __path_story, approvals, get, list, story};
pub(super) use start::{__path_create, create};
pub(super) use workflows::{__path_list as __path_workflows, __path_publish, __path_retire, list as workflows, publish, retire};

use super::auth;
use super::body;
use super::options::Access;
use super::port::RunFound;
use super::query::{one_of, only, query};
use super::reply::Refusal;
use super::server::Peer;
use super::{Gateway, whole_seconds};
use crate::domain::{IdError, Namespace, Subject, TenantId};
use crate::workflow::RunId;

/// An idempotency key, a name, a reason: longer is a mistake.
const TEXT_BYTES_MAX: usize = 2_048;

impl Gateway {
    /// Whose campaigns a request is about, within the tenant's request rate. `known` is what may be asked besides whose.
    pub(super) fn access(&self, head: &Parts, known: &[&str]) -> Result<Access, Refusal> {
        let access = self.access_by(head, auth::api_key(&head.headers).as_deref())?;
        only(head, known)?;
        Ok(access)
    }

    pub(super) fn access_by(&self, head: &Parts, key: Option<&str>) -> Result<Access, Refusal> {
        let peer = Peer::of(head).ip;
        let is_owner = self.keys.is_owner(key, peer);
        let mut access = if is_owner { owners() } else { self.keys.reader_by(key, &head.headers, peer)? };
        if is_owner || self.keys.is_open() {
            let bad = |error: IdError| Refusal::InvalidRequest(error.to_string());
            if let Some(namespace) = query(head.uri.query(), "namespace") {
                access.namespace = Namespace::new(namespace).map_err(bad)?;
            }
            if let Some(tenant) = query(head.uri.query(), "tenant") {
                access.tenant = TenantId::new(tenant).map_err(bad)?;
            }
        }
        match self.app.limits.admit(&access.tenant) {
            Ok(()) => Ok(access),
            Err(wait) => Err(Refusal::RateLimited { retry_after_s: whole_seconds(wait) }),
        }
    }

    /// Whose definitions a request is about: its key's tenant's; the whole namespace's where the machine's own user names no tenant.
    fn owner_of(&self, head: &Parts) -> Result<(Access, Option<TenantId>), Refusal> {
        let access = self.access(head, &[])?;
        let is_operator = self.keys.is_owner(auth::api_key(&head.headers).as_deref(), Peer::of(head).ip) || self.keys.is_open();
        let is_everyones = is_operator && query(head.uri.query(), "tenant").is_none();
        let of = (!is_everyones).then(|| access.tenant.clone());
        Ok((access, of))
    }

    /// The body as JSON; nothing at all is an empty object.
    pub(super) async fn json_body<T: DeserializeOwned>(&self, head: &Parts, sent: Body) -> Result<T, Refusal> {
        let text = self.small_body(head, sent).await?;
        let text = if text.trim_ascii().is_empty() { &b"{}"[..] } else { &text[..] };
        serde_json::from_slice(text).map_err(|error| Refusal::InvalidRequest(format!("the body: {error}")))
    }

    /// A body of a known sender, no larger than one event.
    pub(super) async fn small_body(&self, head: &Parts, sent: Body) -> Result<bytes::Bytes, Refusal> {
        let mut reserved = self.budget.reserve(body::Sender::Known);
        let bytes_max = self.app.options.event_bytes_max;
        let sent = body::read(sent, bytes_max, &mut reserved, &Peer::of(head).watched).await?;
        body::decode(&head.headers, sent, bytes_max, &mut reserved)
    }

    /// Whether there is, or was, a workflow of that name here: of one that there is not nothing is ever found, told or stopped.
    pub(super) async fn is_workflow(&self, access: &Access, name: &str) -> Result<(), Refusal> {
        let known = self.app.campaigns.workflows(&access.namespace, Some(&access.tenant)).await.map_err(read_failed)?;
        let names: BTreeSet<&str> = known.iter().map(|workflow| workflow.name.as_str()).collect();
        one_of("workflow", name, &names.into_iter().collect::<Vec<_>>())
    }

    /// The run as the read model has it, of this tenant.
    async fn run_found(&self, access: &Access, run: RunId) -> Result<Option<RunFound>, Refusal> {
        self.app.campaigns.run(access, run).await.map_err(read_failed)
    }
}

/// Whose things the owner means who names nobody's.
fn owners() -> Access {
    Access { tenant: TenantId::new("default").expect("a slug"), namespace: Namespace::new("main").expect("a slug") }
}

fn run_id(text: &str) -> Result<RunId, Refusal> {
    RunId::parse(text).ok_or_else(|| Refusal::InvalidRequest(format!("{} is no run id: 32 hexadecimal digits", shown(text))))
}

/// `u:ID`, `a:ID`, or a user's id.
pub(super) fn subject_of(text: &str) -> Result<Subject, Refusal> {
    let subject = Subject::person(text);
    // What reads as a mark without its id is a mistake, and no user of that name.
    let is_empty = matches!(text, "" | "u:" | "a:");
    if is_empty || Subject::parse(&subject.to_string()).is_none() {
        return Err(Refusal::InvalidRequest(format!(
            "{} is no subject: `u:ID` or `a:ID`, at most {} bytes",
            shown(text),
            crate::domain::ID_BYTES_MAX
        )));
    }
    Ok(subject)
}

/// `?wait=SECONDS`, up to half a minute.
pub(super) fn wait_of(head: &Parts) -> Result<Option<Duration>, Refusal> {
    let Some(text) = query(head.uri.query(), "wait") else { return Ok(None) };
    match text.parse::<u16>() {
        Ok(0) => Ok(None),
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds.into()).min(command::WAIT_MAX))),
        Err(_) => Err(Refusal::InvalidRequest(format!("wait={} is no number of seconds", shown(&text)))),
    }
}

/// The `Idempotency-Key` header, else what the body says, else something new: who gives none wants it done each time.
fn cause_of(head: &Parts, given: Option<String>) -> Result<String, Refusal> {
    let header = head.headers.get("idempotency-key").map(|value| value.to_str().map(str::to_owned));
    let given = match header {
        Some(Ok(key)) => Some(key),
        Some(Err(_)) => return Err(Refusal::InvalidRequest("the Idempotency-Key is not plain text".to_owned())),
        None => given,
    };
    match given {
        Some(key) if key.is_empty() || key.len() > TEXT_BYTES_MAX => {
            Err(Refusal::InvalidRequest(format!("an idempotency key has 1 to {TEXT_BYTES_MAX} bytes")))
        }
        Some(key) => Ok(format!("api:{key}")),
        None => Ok(format!("api:{}", uuid::Uuid::now_v7())),
    }
}

/// Who says so: as the caller states it.
pub(super) fn by_of(given: Option<String>) -> Result<String, Refusal> {
    let by = given.filter(|by| !by.trim().is_empty()).unwrap_or_else(|| "api".to_owned());
    text_of("by", by)
}

fn text_of(what: &str, text: String) -> Result<String, Refusal> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Refusal::InvalidRequest(format!("{what} is longer than {TEXT_BYTES_MAX} bytes")));
    }
    Ok(text)
}

pub(super) fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(80).collect::<String>())
}

/// 202: it is in the log, and nobody has waited for what comes of it.
pub(super) const TAKEN: StatusCode = StatusCode::ACCEPTED;

impl Gateway {
    pub(super) fn answer_of(&self, result: Result<Response<Body>, Refusal>) -> Response<Body> {
        result.unwrap_or_else(|refusal| self.refuse(refusal))
    }
}
