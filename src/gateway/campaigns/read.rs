//! Runs as the read model has them: lists, one run, its story, and the questions that wait for people.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use serde_json::{Value, json as value};

use super::{Gateway, read_failed, run_id, shown, subject_of};
use crate::channels::link::{Asked, Kind, Link};
use crate::domain::{DAY_MS, Namespace, TenantId};
use crate::gateway::options::Access;
use crate::gateway::port::{ApprovalFound, ApprovalsAsked, RunFound, RunsAsked};
use crate::gateway::query::{one_of, query};
use crate::gateway::reply::{Refusal, json};
use crate::gateway::{Shared, openapi};
use crate::permit::EffectKey;
use crate::projections::runs::STATUSES;

const LIMIT: u32 = 50;
const LIMIT_MAX: u32 = 1_000;
/// How long after its deadline an approval's link still opens, to say what became of it.
const LINK_STAYS_MS: i64 = 30 * DAY_MS;

#[utoipa::path(get, path = "/api/v1/campaigns", tag = "campaigns",
    params(("workflow" = Option<String>, Query), ("status" = Option<String>, Query), ("subject" = Option<String>, Query),
        ("error" = Option<String>, Query, description = "what the reason of a pause contains"),
        ("limit" = Option<u32>, Query, description = "50, at most 1000"), ("after" = Option<String>, Query, description = "`next` of the page before")),
    responses((status = 200, description = "`runs`, newest first, and `next` if there are more"), openapi::Refusals))]
pub(in crate::gateway) async fn list(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    gateway.answer_of(gateway.list_runs(&head).await)
}

#[utoipa::path(get, path = "/api/v1/campaigns/{run}", tag = "campaigns", params(("run" = String, Path)),
    responses((status = 200, description = "the run: where it is, since when, what it waits for"), (status = 404), openapi::Refusals))]
pub(in crate::gateway) async fn get(State(gateway): State<Shared>, Path(run): Path<String>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    gateway.answer_of(gateway.one_run(&head, &run).await)
}

#[utoipa::path(get, path = "/api/v1/campaigns/{run}/story", tag = "campaigns",
    params(("run" = String, Path), ("from" = Option<u64>, Query, description = "skip so many lines"), ("limit" = Option<u32>, Query)),
    responses((status = 200, description = "everything that was decided, as lines"), (status = 404), openapi::Refusals))]
pub(in crate::gateway) async fn story(State(gateway): State<Shared>, Path(run): Path<String>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    gateway.answer_of(gateway.story_of(&head, &run).await)
}

#[utoipa::path(get, path = "/api/v1/approvals", tag = "campaigns",
    params(("status" = Option<String>, Query, description = "`open` (if absent) or `all`"), ("workflow" = Option<String>, Query), ("run" = Option<String>, Query),
        ("limit" = Option<u32>, Query)),
    responses((status = 200, description = "`approvals`, each with what it shows and the `link` of its page"), openapi::Refusals))]
pub(in crate::gateway) async fn approvals(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    gateway.answer_of(gateway.list_approvals(&head).await)
}

impl Gateway {
    async fn list_runs(&self, head: &Parts) -> Result<Response<Body>, Refusal> {
        let access = self.access(head, &["workflow", "status", "subject", "error", "limit", "after"])?;
        let ask = |name| query(head.uri.query(), name).map(|text| text.into_owned());
        let subject = ask("subject").map(|text| subject_of(&text)).transpose()?.map(|subject| subject.to_string());
        let limit = limit_of(head)?;
        let (workflow, status, error, after) = (ask("workflow"), ask("status"), ask("error"), ask("after"));
        if let Some(status) = &status {
            one_of("status", status, &STATUSES)?;
        }
        let asked = RunsAsked { workflow, status, subject, error, is_stuck: false, after, limit };
        let page = self.app.campaigns.runs(&access, &asked).await.map_err(read_failed)?;
        if let Some(name) = asked.workflow.as_deref().filter(|_| page.runs.is_empty()) {
            self.is_workflow(&access, name).await?;
        }
        let runs: Vec<&Value> = page.runs.iter().map(|run| &run.json).collect();
        Ok(json(StatusCode::OK, &value!({"runs": runs, "next": page.next})))
    }

    async fn one_run(&self, head: &Parts, run: &str) -> Result<Response<Body>, Refusal> {
        let found = self.found(&self.access(head, &[])?, run).await?;
        Ok(json(StatusCode::OK, &found.json))
    }

    async fn found(&self, access: &Access, run: &str) -> Result<RunFound, Refusal> {
        let run = run_id(run)?;
        self.run_found(access, run).await?.ok_or_else(|| Refusal::Missing(format!("run {run}")))
    }

    async fn story_of(&self, head: &Parts, run: &str) -> Result<Response<Body>, Refusal> {
        let access = self.access(head, &["from", "limit"])?;
        let found = self.found(&access, run).await?;
        let limit = limit_of(head)?;
        let from = match query(head.uri.query(), "from") {
            Some(text) => text.parse().map_err(|_| Refusal::InvalidRequest(format!("from={} is no number", shown(&text))))?,
            None => 0,
        };
        let story = self.app.campaigns.story(&access, &found, from, limit).await.map_err(read_failed)?;
        let next = (story.len() == limit as usize).then(|| from + u64::from(limit));
        Ok(json(
            StatusCode::OK,
            &value!({"run": found.run.to_string(), "subject": found.subject.to_string(), "story": story, "next": next}),
        ))
    }

    async fn list_approvals(&self, head: &Parts) -> Result<Response<Body>, Refusal> {
        let access = self.access(head, &["status", "workflow", "run", "limit"])?;
        let ask = |name| query(head.uri.query(), name).map(|text| text.into_owned());
        let open_only = match ask("status").as_deref() {
            None | Some("open") => true,
            Some("all") => false,
            Some(other) => return Err(Refusal::InvalidRequest(format!("status={} is neither open nor all", shown(other)))),
        };
        let run = ask("run").map(|text| run_id(&text)).transpose()?;
        let asked = ApprovalsAsked { run, workflow: ask("workflow"), open_only, limit: limit_of(head)? };
        let found = self.app.campaigns.approvals(&access, &asked).await.map_err(read_failed)?;
        let mut approvals: Vec<Value> = found.iter().map(|approval| self.approval_json(&access, approval)).collect();
        if run.is_some() {
            for (approval, json) in found.iter().zip(&mut approvals) {
                json["message"] = value!(self.app.campaigns.preview(&access, approval).await.map_err(read_failed)?);
            }
        }
        Ok(json(StatusCode::OK, &value!({ "approvals": approvals })))
    }

    fn approval_json(&self, access: &Access, approval: &ApprovalFound) -> Value {
        value!({
            "run": approval.run.to_string(),
            "subject": approval.subject.to_string(),
            "workflow": approval.workflow,
            "node": approval.node,
            "who": approval.who,
            "shows": approval.shows,
            "asked_at": approval.asked_at.to_string(),
            "until": approval.until.to_string(),
            "status": approval.status(),
            "decided": approval.decided,
            "question": approval.question().to_string(),
            "link": self.approval_link(&access.namespace, &access.tenant, approval),
        })
    }

    fn approval_link(&self, namespace: &Namespace, tenant: &TenantId, approval: &ApprovalFound) -> String {
        let asked = Asked { visit: approval.visit, node: approval.node.clone(), who: approval.who.clone() };
        let link = Link {
            kind: Kind::Approve,
            namespace: namespace.to_string(),
            tenant: tenant.to_string(),
            subject: approval.subject.to_string(),
            effect: EffectKey(approval.run.0.to_be_bytes()),
            expires: approval.until + LINK_STAYS_MS,
            detail: asked.to_string(),
            sent: None,
        };
        self.app.links.keys.url(&self.app.links.base, &link)
    }
}

fn limit_of(head: &Parts) -> Result<u32, Refusal> {
    match query(head.uri.query(), "limit") {
        None => Ok(LIMIT),
        Some(text) => match text.parse() {
            Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
            _ => Err(Refusal::InvalidRequest(format!("limit={} is not 1 to {LIMIT_MAX}", shown(&text)))),
        },
    }
}
