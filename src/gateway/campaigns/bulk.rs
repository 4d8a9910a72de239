//! `POST /api/v1/campaigns/actions`: one action on every run that a filter names, such as resuming what is paused after a fix.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::act::{Action, simple};
use super::{Gateway, TAKEN, by_of, read_failed, text_of};
use crate::gateway::port::{RunFound, RunsAsked};
use crate::gateway::query::one_of;
use crate::gateway::reply::{Refusal, json};
use crate::gateway::{Shared, openapi};

/// Runs of one request. More is said to be left, and the same request goes on with them.
const RUNS_MAX: u64 = 10_000;
const PAGE: u32 = 500;
/// What has ended is told nothing any more.
const IN_PROGRESS: [&str; 4] = ["open", "running", "waiting", "paused"];

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::gateway) struct BulkBody {
    /// pause, resume, retry or cancel.
    action: String,
    workflow: String,
    /// As the list has it, such as `paused`.
    #[serde(default)]
    status: Option<String>,
    /// What the reason of a pause contains.
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    /// `next` of the answer before: goes on after the runs that were told.
    #[serde(default)]
    after: Option<String>,
    /// So many runs at most, and 10000 if absent: an outage's paused runs may be let go a few at a time.
    #[serde(default)]
    limit: Option<u64>,
    /// Only say how many there are.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::gateway) struct BulkAnswer {
    action: String,
    /// Runs that were told, or would be.
    runs: u64,
    /// There are more than one request does: send it again with `after`.
    more: bool,
    /// Where the next request goes on; none if there are no more.
    next: Option<String>,
}

#[utoipa::path(post, path = "/api/v1/campaigns/actions", tag = "campaigns", request_body = BulkBody,
    responses((status = 202, body = BulkAnswer, description = "the commands are durable"), (status = 200, body = BulkAnswer, description = "`dry_run`"),
        openapi::Refusals))]
pub(in crate::gateway) async fn bulk(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer_of(gateway.bulk(request).await)
}

impl Gateway {
    async fn bulk(&self, request: Request) -> Result<Response<Body>, Refusal> {
        let (head, sent) = request.into_parts();
        let access = self.access(&head, &[])?;
        let body: BulkBody = self.json_body(&head, sent).await?;
        let action = Action::named(&body.action)?;
        if !matches!(action, Action::Pause | Action::Resume | Action::Retry | Action::Cancel) {
            return Err(Refusal::InvalidRequest("pause, resume, retry and cancel go to many runs at once".to_owned()));
        }
        // What an action cannot change is not told: a paused run is not paused again, one that has ended is not ended.
        if let Some(status) = &body.status {
            one_of("status of a run in progress", status, &IN_PROGRESS)?;
        }
        let statuses = match (&body.status, action) {
            (Some(status), _) => vec![status.as_str()],
            (None, Action::Resume) => vec!["paused"],
            (None, Action::Pause) => vec!["running", "waiting"],
            // Those first that can do least by themselves.
            (None, _) => vec!["paused", "running", "waiting"],
        };
        let (mut at, mut after) = match body.after.as_deref().map(|text| place_of(text, &statuses)) {
            None => (0, None),
            Some(Some((at, after))) => (at, after),
            Some(None) => return Err(Refusal::InvalidRequest("after is not the `next` of an answer to the same request".to_owned())),
        };
        let limit = body.limit.unwrap_or(RUNS_MAX);
        if !(1..=RUNS_MAX).contains(&limit) {
            return Err(Refusal::InvalidRequest(format!("limit={limit} is not 1 to {RUNS_MAX}")));
        }
        let (by, reason) = (by_of(body.by.clone())?, text_of("reason", body.reason.clone().unwrap_or_default())?);
        let mut runs = 0u64;
        while at < statuses.len() && runs < limit {
            let (workflow, status, error) = (Some(body.workflow.clone()), Some(statuses[at].to_owned()), body.error.clone());
            let is_stuck = action == Action::Retry;
            let asked = RunsAsked { workflow, status, error, is_stuck, after, limit: page_of(limit - runs), ..RunsAsked::default() };
            let page = self.app.campaigns.runs(&access, &asked).await.map_err(read_failed)?;
            let going = page.runs.iter().filter(|run| run.ended.is_none() && (action != Action::Pause || !run.is_paused));
            let command = |found: &RunFound| (found.subject.key(&access.tenant), simple(action, found.run, by.clone(), reason.clone()).0);
            let commands: Vec<_> = going.map(command).collect();
            runs += commands.len() as u64;
            if !body.dry_run && !commands.is_empty() {
                self.send_commands(&access.namespace, &commands).await?;
            }
            after = page.next;
            if after.is_none() {
                at += 1;
            }
        }
        if runs == 0 {
            self.is_workflow(&access, &body.workflow).await?;
        }
        let next = statuses.get(at).map(|status| format!("{status}/{}", after.unwrap_or_default()));
        let more = next.is_some();
        let answer = BulkAnswer { action: body.action, runs, more, next };
        Ok(json(if body.dry_run { StatusCode::OK } else { TAKEN }, &answer))
    }
}

fn page_of(left: u64) -> u32 {
    u32::try_from(left).unwrap_or(PAGE).min(PAGE)
}

/// Where an answer's `next` goes on: which of the statuses, and after which run of it.
fn place_of(text: &str, statuses: &[&str]) -> Option<(usize, Option<String>)> {
    let (status, after) = text.split_once('/')?;
    let at = statuses.iter().position(|known| *known == status)?;
    Some((at, Some(after).filter(|after| !after.is_empty()).map(str::to_owned)))
}
