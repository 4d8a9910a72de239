//! What people do to one run: signal it, decide its approvals, pause, resume, cancel, terminate, retry; and say what became of an effect.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::became::{self, Asked, Became};
use super::command::{Followed, Sent};
use super::{Gateway, TAKEN, by_of, cause_of, read_failed, run_id, shown, subject_of, text_of, wait_of};
use crate::domain::Subject;
use crate::gateway::options::Access;
use crate::gateway::port::{ApprovalsAsked, Question, RunFound};
use crate::gateway::reply::{Refusal, json};
use crate::gateway::{Shared, openapi};
use crate::workflow::{EffectId, Input, Provenance, RunId};

/// How often and how long apart the read model is asked for what the journal has already.
const SOON_TRIES: usize = 10;
const SOON_PAUSE: Duration = Duration::from_millis(20);

/// What an action may say; each takes what it needs.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::gateway) struct ActBody {
    /// Whose run it is, if the caller knows: then nothing is looked up.
    subject: Option<String>,
    /// Who says so.
    by: Option<String>,
    /// Of a pause, a cancel, a terminate.
    reason: Option<String>,
    /// Of an approval; the only open one if absent.
    node: Option<String>,
    /// The approval's `question`, as the list has it: the decision is about that one and no other. If absent, the one that is open now.
    question: Option<String>,
    /// The digest of the approval's `message`, as the list of one run's approvals has it: no other may go. If absent, the message as it is now.
    message: Option<String>,
    comment: Option<String>,
    /// The signal's name.
    name: Option<String>,
    /// What the signal brings along.
    #[schema(value_type = Object)]
    with: Option<Value>,
    /// The idempotency key of a signal or a decision, unless the header has it.
    id: Option<String>,
}

/// `POST /api/v1/effects/{effect}/resolve`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::gateway) struct ResolveBody {
    subject: Option<String>,
    by: Option<String>,
    /// What it gave, if it was done.
    #[schema(value_type = Object)]
    done: Option<Value>,
    /// It was not done: the next attempt may do it.
    not_done: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::gateway) struct ActAnswer {
    run: String,
    position: String,
    /// `accepted`: not decided yet; else what became of it.
    status: &'static str,
    #[schema(value_type = Vec<Object>)]
    story: Vec<Value>,
}

#[utoipa::path(post, path = "/api/v1/campaigns/{run}/{action}", tag = "campaigns", request_body = ActBody,
    params(("run" = String, Path), ("action" = String, Path, description = "signal, approve, reject, pause, resume, cancel, terminate or retry"),
        ("wait" = Option<u16>, Query, description = "wait so many seconds, at most 30, for what becomes of it")),
    responses((status = 200, body = ActAnswer, description = "decided (with `wait`)"), (status = 202, body = ActAnswer, description = "durable"),
        (status = 404, description = "no such run or action"),
        (status = 409, description = "`run_ended`, `already_decided`, `too_late`, `asked_anew`, `not_now`: with who or what was first"), openapi::Refusals))]
pub(in crate::gateway) async fn act(
    State(gateway): State<Shared>,
    Path((run, action)): Path<(String, String)>,
    request: Request,
) -> Response<Body> {
    gateway.answer_of(gateway.act(&run, &action, request).await)
}

#[utoipa::path(post, path = "/api/v1/effects/{effect}/resolve", tag = "campaigns", request_body = ResolveBody,
    params(("effect" = String, Path), ("wait" = Option<u16>, Query)),
    responses((status = 200, body = ActAnswer), (status = 202, body = ActAnswer), (status = 404, description = "no such effect"),
        (status = 409, description = "nobody waits to hear of it"), openapi::Refusals))]
pub(in crate::gateway) async fn resolve(State(gateway): State<Shared>, Path(effect): Path<String>, request: Request) -> Response<Body> {
    gateway.answer_of(gateway.resolve(&effect, request).await)
}

/// An action by its name in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Signal,
    Approve,
    Reject,
    Pause,
    Resume,
    Cancel,
    Terminate,
    Retry,
}

pub(super) const ACTIONS: [(&str, Action); 8] = [
    ("signal", Action::Signal),
    ("approve", Action::Approve),
    ("reject", Action::Reject),
    ("pause", Action::Pause),
    ("resume", Action::Resume),
    ("cancel", Action::Cancel),
    ("terminate", Action::Terminate),
    ("retry", Action::Retry),
];

impl Action {
    pub(super) fn named(name: &str) -> Result<Self, Refusal> {
        let found = ACTIONS.iter().find(|(known, _)| *known == name).map(|(_, action)| *action);
        found.ok_or_else(|| Refusal::Missing(format!("action {}; there are {}", shown(name), ACTIONS.map(|(name, _)| name).join(", "))))
    }

    /// Why nothing came of it, when nobody was first.
    fn why_nothing(self) -> &'static str {
        match self {
            Action::Signal => "nothing in this run waits for such a signal now",
            Action::Approve | Action::Reject => "no such approval is open in this run",
            Action::Pause => "the run is paused already",
            Action::Resume => "the run is not paused",
            Action::Cancel | Action::Terminate => "the run is not in progress",
            Action::Retry => "nothing in this run is out of attempts or waits for its next",
        }
    }
}

impl Gateway {
    async fn act(&self, run: &str, action: &str, request: Request) -> Result<Response<Body>, Refusal> {
        let (head, sent) = request.into_parts();
        let access = self.access(&head, &["wait"])?;
        let (run, action, wait) = (run_id(run)?, Action::named(action)?, wait_of(&head)?);
        let body: ActBody = self.json_body(&head, sent).await?;
        let subject = match &body.subject {
            Some(subject) => subject_of(subject)?,
            None => self.run_in_progress(&access, run).await?.subject,
        };
        let by = by_of(body.by)?;
        let reason = text_of("reason", body.reason.unwrap_or_default())?;
        let comment = text_of("comment", body.comment.unwrap_or_default())?;
        let (input, asked) = match action {
            Action::Signal => {
                let name = body.name.ok_or_else(|| Refusal::InvalidRequest("name is missing: the signal's".to_owned()))?;
                let (name, cause) = (text_of("name", name)?, cause_of(&head, body.id)?);
                let payload = body.with.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
                (Input::Signal { run, cause: cause.clone(), name, payload }, Asked::Signal { cause })
            }
            Action::Approve | Action::Reject => {
                let question = body.question.as_deref().map(question_of).transpose()?;
                let (node, question, message) = match body.node {
                    // Whoever names the subject has nothing looked up.
                    Some(node) if body.subject.is_some() => (text_of("node", node)?, question, body.message.unwrap_or_default()),
                    node => self.open_approval(&access, run, node.as_deref(), question, body.message).await?,
                };
                let (visit, shown) = question.map_or((None, String::new()), |question| (Some(question.visit), question.shown));
                let provenance = Provenance { cause: cause_of(&head, body.id)?, link: String::new(), shown, message };
                let asked = Asked::Approval { node: node.clone(), visit, cause: provenance.cause.clone() };
                (Input::Approval { run, node, approved: action == Action::Approve, by, comment, visit, provenance }, asked)
            }
            other => simple(other, run, by, reason),
        };
        let node = match &asked {
            Asked::Approval { node, .. } => Some(node.clone()),
            _ => None,
        };
        let sent = self.send_command(&access.namespace, subject.key(&access.tenant), input).await?;
        let Some(wait) = wait else { return Ok(taken(run, &sent)) };
        let followed = self.follow(&access.namespace, &sent, run, &asked, wait).await?;
        self.told(&access, run, &sent, followed, action.why_nothing(), node.as_deref()).await
    }

    /// The run, if it is this tenant's and goes on.
    pub(in crate::gateway) async fn run_in_progress(&self, access: &Access, run: RunId) -> Result<RunFound, Refusal> {
        let found = self.run_found(access, run).await?.ok_or_else(|| Refusal::Missing(format!("run {run}")))?;
        match &found.ended {
            Some(how) => Err(Refusal::Conflict { code: "run_ended", message: format!("the run has ended: {how}") }),
            None => Ok(found),
        }
    }

    /// The approval that is meant: its node and the question that is open there now, as far as the read model has come.
    async fn open_approval(
        &self,
        access: &Access,
        run: RunId,
        node: Option<&str>,
        question: Option<Question>,
        message: Option<String>,
    ) -> Result<(String, Option<Question>, String), Refusal> {
        let asked = ApprovalsAsked { run: Some(run), open_only: true, limit: 100, ..ApprovalsAsked::default() };
        let mut open = self.app.campaigns.approvals(access, &asked).await.map_err(read_failed)?;
        open.retain(|one| node.is_none_or(|node| one.node == node) && question.as_ref().is_none_or(|of| of.visit == one.visit));
        match (&open[..], node) {
            ([one], _) => {
                let preview = self.app.campaigns.preview(access, one).await.map_err(read_failed)?;
                let now = preview.map(|preview| preview.digest).unwrap_or_default();
                if message.is_some_and(|seen| seen != now) {
                    let message = "nothing was decided: the message is another than the one that was named".to_owned();
                    return Err(Refusal::Conflict { code: "asked_anew", message });
                }
                Ok((one.node.clone(), question.or_else(|| Some(one.question())), now))
            }
            // It may have been asked a moment ago.
            ([], Some(node)) => Ok((text_of("node", node.to_owned())?, question, message.unwrap_or_default())),
            ([], None) => {
                let decided = self.decided_approval(access, run, None).await?;
                Err(decided.unwrap_or(Refusal::Conflict { code: "not_now", message: "no approval is open in this run".to_owned() }))
            }
            (several, _) => {
                let open: Vec<String> = several.iter().map(|one| format!("{} ({})", one.node, one.question())).collect();
                let message = format!("several approvals are open, node or question says which: {}", open.join(", "));
                Err(Refusal::InvalidRequest(message))
            }
        }
    }

    /// Who decided the newest approval of a run (or of one node of it), as a refusal.
    async fn decided_approval(&self, access: &Access, run: RunId, node: Option<&str>) -> Result<Option<Refusal>, Refusal> {
        let asked = ApprovalsAsked { run: Some(run), limit: 100, ..ApprovalsAsked::default() };
        let all = self.app.campaigns.approvals(access, &asked).await.map_err(read_failed)?;
        let of_node = all.iter().filter(|approval| node.is_none_or(|node| approval.node == node));
        let newest = of_node.filter_map(|approval| approval.decided.as_ref()).max_by_key(|decided| decided.at);
        Ok(newest.map(|decided| {
            let word = if decided.approved { "approved" } else { "rejected" };
            Refusal::Conflict { code: "already_decided", message: format!("{} {word} it at {}", decided.who(), decided.at) }
        }))
    }

    /// Who decided an approval before: the read model may be a moment behind that.
    async fn soon_decided(&self, access: &Access, run: RunId, node: &str) -> Result<Option<Refusal>, Refusal> {
        for _ in 0..SOON_TRIES {
            if let Some(decided) = self.decided_approval(access, run, Some(node)).await? {
                return Ok(Some(decided));
            }
            tokio::time::sleep(SOON_PAUSE).await;
        }
        Ok(None)
    }

    /// The answer to what was waited for.
    async fn told(
        &self,
        access: &Access,
        run: RunId,
        sent: &Sent,
        followed: Followed,
        why_nothing: &str,
        node: Option<&str>,
    ) -> Result<Response<Body>, Refusal> {
        match followed.became {
            Became::Done(status) => {
                let story = became::lines(&followed.facts, run);
                let position = sent.position.clone();
                Ok(json(StatusCode::OK, &ActAnswer { run: run.to_string(), position, status, story }))
            }
            Became::Refused { code, message } => Err(Refusal::Conflict { code, message }),
            Became::Nothing if followed.is_decided => {
                if let Some(node) = node
                    && let Some(decided) = self.soon_decided(access, run, node).await?
                {
                    return Err(decided);
                }
                Err(match self.run_found(access, run).await?.map(|found| found.ended) {
                    None => Refusal::Missing(format!("run {run} in progress")),
                    Some(Some(how)) => Refusal::Conflict { code: "run_ended", message: format!("the run has ended: {how}") },
                    Some(None) => Refusal::Conflict { code: "not_now", message: why_nothing.to_owned() },
                })
            }
            Became::Nothing => Ok(taken(run, sent)),
        }
    }

    async fn resolve(&self, effect: &str, request: Request) -> Result<Response<Body>, Refusal> {
        let (head, sent) = request.into_parts();
        let access = self.access(&head, &["wait"])?;
        let wait = wait_of(&head)?;
        let effect = EffectId::parse(effect)
            .ok_or_else(|| Refusal::InvalidRequest(format!("{} is no effect id: 32 hexadecimal digits", shown(effect))))?;
        let body: ResolveBody = self.json_body(&head, sent).await?;
        if body.done.is_some() == body.not_done {
            return Err(Refusal::InvalidRequest("say either `done` with what it gave, or `not_done: true`".to_owned()));
        }
        let found = self.app.campaigns.effect(&access, effect).await.map_err(read_failed)?;
        let subject = match &body.subject {
            Some(subject) => subject_of(subject)?,
            None => found.clone().map(|found| found.subject).ok_or_else(|| Refusal::Missing(format!("effect {effect}")))?,
        };
        let run = found.map_or(RunId(0), |found| found.run);
        let by = by_of(body.by)?;
        let sent =
            self.send_command(&access.namespace, subject.key(&access.tenant), Input::Resolve { effect, done: body.done, by }).await?;
        let Some(wait) = wait else { return Ok(taken(run, &sent)) };
        let followed = self.follow(&access.namespace, &sent, run, &Asked::Resolve { effect }, wait).await?;
        self.told(&access, run, &sent, followed, "nobody waits to hear of this effect", None).await
    }
}

/// What became of a decision, as far as it was waited for.
pub(in crate::gateway) struct Outcome {
    pub became: Became,
    pub is_decided: bool,
}

impl Gateway {
    /// Decides an approval and follows what becomes of it; for the page.
    pub(in crate::gateway) async fn decide(
        &self,
        access: &Access,
        subject: &Subject,
        input: Input,
        wait: Duration,
    ) -> Result<Outcome, Refusal> {
        let Input::Approval { run, node, visit, provenance, .. } = &input else {
            return Err(Refusal::ReadFailed("no approval is decided by that".to_owned()));
        };
        let (run, asked) = (*run, Asked::Approval { node: node.clone(), visit: *visit, cause: provenance.cause.clone() });
        let sent = self.send_command(&access.namespace, subject.key(&access.tenant), input).await?;
        let Followed { became, is_decided, .. } = self.follow(&access.namespace, &sent, run, &asked, wait).await?;
        Ok(Outcome { became, is_decided })
    }
}

fn question_of(text: &str) -> Result<Question, Refusal> {
    let why = || format!("question {} is not as `GET /api/v1/approvals` has it: VISIT.DIGEST", shown(text));
    Question::parse(text).ok_or_else(|| Refusal::InvalidRequest(why()))
}

fn taken(run: RunId, sent: &Sent) -> Response<Body> {
    json(TAKEN, &ActAnswer { run: run.to_string(), position: sent.position.clone(), status: "accepted", story: Vec::new() })
}

/// The actions that need nothing but who and why.
pub(super) fn simple(action: Action, run: RunId, by: String, reason: String) -> (Input, Asked) {
    match action {
        Action::Pause => (Input::Pause { run, by: by.clone(), reason }, Asked::Pause { by }),
        Action::Resume => (Input::Resume { run, by: by.clone() }, Asked::Resume { by }),
        Action::Terminate => (Input::Terminate { run, by, reason }, Asked::Terminate),
        Action::Retry => (Input::Retry { run, by }, Asked::Retry),
        _ => (Input::Cancel { run, by, reason }, Asked::Cancel),
    }
}
