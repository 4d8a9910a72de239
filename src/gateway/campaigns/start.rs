//! `POST /api/v1/campaigns/create`: a run of a workflow, begun by a command. The same cause gives the same run.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::became::{self, Asked, Became};
use super::{Gateway, TAKEN, cause_of, read_failed, shown, subject_of, wait_of};
use crate::domain::Subject;
use crate::gateway::options::Access;
use crate::gateway::port::WorkflowFound;
use crate::gateway::reply::{Refusal, json};
use crate::gateway::{Shared, openapi};
use crate::workflow::{Input, RunId};

/// Whose run it is: `subject`, `user_id` or `anonymous_id`; with none of them the campaign itself is the subject.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::gateway) struct StartBody {
    workflow: String,
    /// `u:ID` or `a:ID`.
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    user_id: Option<String>,
    #[serde(default)]
    anonymous_id: Option<String>,
    /// What the run begins with: `entry` in its expressions.
    #[serde(default)]
    #[schema(value_type = Object)]
    input: Option<Map<String, Value>>,
    /// The idempotency key, unless the header has it: the same key gives the same run.
    #[serde(default)]
    id: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::gateway) struct StartAnswer {
    run: String,
    workflow: String,
    subject: String,
    /// Where the command is in the log.
    position: String,
    /// `accepted`: not decided yet; `started`; `broadcast`: every member of the segment begins one; `already_started`: by the same key,
    /// before.
    status: &'static str,
    #[schema(value_type = Vec<Object>)]
    story: Vec<Value>,
}

#[utoipa::path(post, path = "/api/v1/campaigns/create", tag = "campaigns", request_body = StartBody,
    params(("wait" = Option<u16>, Query, description = "wait so many seconds, at most 30, for the decision"),
        ("Idempotency-Key" = Option<String>, Header, description = "the same key gives the same run")),
    responses((status = 200, body = StartAnswer, description = "decided (with `wait`)"), (status = 202, body = StartAnswer, description = "durable; the run's id is final"),
        (status = 404, description = "no such workflow"), (status = 409, description = "`not_started`: the re-entry policy says no"), openapi::Refusals))]
pub(in crate::gateway) async fn create(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer_of(gateway.start(request).await)
}

/// Why a start that was decided began nothing and left no word.
fn why_nothing(name: &str, now: Option<&WorkflowFound>) -> String {
    let Some(now) = now else { return format!("{name} began nothing: it was retired meanwhile, and takes no new entries") };
    match &now.when {
        Some(when) => {
            let reads_input = when.contains("event.") || when.contains("entry.");
            let hint = if reads_input { "; what it reads of the input is said with --input '{...}' (`input` over HTTP)" } else { "" };
            format!("{name} began nothing: the condition of its entry does not hold for this input and person: {when}{hint}")
        }
        None => format!("{name} began nothing: another version took its place meanwhile; start it again"),
    }
}

impl Gateway {
    async fn start(&self, request: Request) -> Result<Response<Body>, Refusal> {
        let (head, sent) = request.into_parts();
        let access = self.access(&head, &["wait"])?;
        let wait = wait_of(&head)?;
        let body: StartBody = self.json_body(&head, sent).await?;
        let cause = cause_of(&head, body.id)?;
        let workflow = self.active_workflow(&access, &body.workflow).await?;
        let subject = match (body.subject, body.user_id, body.anonymous_id) {
            (Some(subject), None, None) => subject_of(&subject)?,
            (None, Some(id), None) => subject_of(&format!("u:{id}"))?,
            (None, None, Some(id)) => subject_of(&format!("a:{id}"))?,
            (None, None, None) => Subject::user(&format!("campaign:{}", body.workflow)),
            _ => return Err(Refusal::InvalidRequest("one of subject, user_id and anonymous_id says whose run it is".to_owned())),
        };
        let profile = self.profile_for(&access, &subject, &workflow.reads).await?;
        let key = subject.key(&access.tenant);
        let run = RunId::of(&body.workflow, key.as_str(), &cause);
        let entry = Value::Object(body.input.unwrap_or_default());
        let (workflow, asked) = (body.workflow.clone(), Asked::Start { cause: cause.clone() });
        let input = Input::Start { workflow, cause, entry, profile, depth: 0, parent: None };
        let sent = self.send_command(&access.namespace, key, input).await?;
        let mut answer = StartAnswer {
            run: run.to_string(),
            workflow: body.workflow,
            subject: subject.to_string(),
            position: sent.position.clone(),
            status: "accepted",
            story: Vec::new(),
        };
        let Some(wait) = wait else { return Ok(json(TAKEN, &answer)) };
        let followed = self.follow(&access.namespace, &sent, run, &asked, wait).await?;
        answer.story = became::lines(&followed.facts, run);
        match followed.became {
            Became::Done(word) => {
                answer.status = word;
                Ok(json(StatusCode::OK, &answer))
            }
            Became::Refused { code, message } => Err(Refusal::Conflict { code, message }),
            Became::Nothing if followed.is_decided => {
                // Whoever took its place meanwhile was asked, and not this one: so what is in force now says why.
                let now = self.app.campaigns.active_workflow(&access, &answer.workflow).await.map_err(read_failed)?;
                Err(Refusal::Conflict { code: "not_started", message: why_nothing(&answer.workflow, now.as_ref()) })
            }
            Became::Nothing => Ok(json(TAKEN, &answer)),
        }
    }

    async fn active_workflow(&self, access: &Access, name: &str) -> Result<WorkflowFound, Refusal> {
        if let Some(active) = self.app.campaigns.active_workflow(access, name).await.map_err(read_failed)? {
            return Ok(active);
        }
        let mut known = self.app.campaigns.workflows(&access.namespace, Some(&access.tenant)).await.map_err(read_failed)?;
        known.retain(|workflow| workflow.is_active);
        let active: Vec<&str> = known.iter().map(|workflow| workflow.name.as_str()).collect();
        let others = if active.is_empty() { "none is published".to_owned() } else { format!("there are {}", active.join(", ")) };
        Err(Refusal::Missing(format!("workflow {} that takes new entries; {others}", shown(name))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_began_nothing_is_told_its_one_cause() {
        let found = |when: Option<&str>| WorkflowFound {
            name: "w".to_owned(),
            digest: "d".to_owned(),
            about: String::new(),
            tenant: None,
            is_active: true,
            reads: Vec::new(),
            when: when.map(str::to_owned),
        };
        let cases = [
            (None, "w began nothing: it was retired meanwhile, and takes no new entries"),
            (Some(found(None)), "w began nothing: another version took its place meanwhile; start it again"),
            (
                Some(found(Some("orders > 5"))),
                "w began nothing: the condition of its entry does not hold for this input and person: orders > 5",
            ),
            (
                Some(found(Some("event.total > 10.0"))),
                "w began nothing: the condition of its entry does not hold for this input and person: event.total > 10.0; what it reads of \
                 the input is said with --input '{...}' (`input` over HTTP)",
            ),
        ];
        for (now, told) in cases {
            assert_eq!(why_nothing("w", now.as_ref()), told);
        }
    }
}
