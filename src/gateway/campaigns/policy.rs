//! The policy that messages and approvals are decided by: shown, and declared after every check of it. A tenant's own takes the place of
//! the namespace's for the tenant's people.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json as value;
use utoipa::ToSchema;

use super::command::Published;
use super::workflows::{Mistake, RetireBody, mistakes_of};
use super::{Gateway, by_of, read_failed};
use crate::gateway::port::InUse;
use crate::gateway::reply::{Refusal, json};
use crate::gateway::{Shared, openapi};
use crate::workflow::Policy;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::gateway) struct PolicyBody {
    /// What mistakes call it.
    #[serde(default)]
    file: Option<String>,
    /// The policy in TOML.
    text: String,
    /// Who says so.
    #[serde(default)]
    by: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::gateway) struct PolicyAnswer {
    digest: String,
    /// Whose it is; null: of the whole namespace.
    tenant: Option<String>,
    /// False if this very policy decided already.
    published: bool,
    /// Whether every partition has heard of it.
    in_force: bool,
}

#[utoipa::path(get, path = "/api/v1/policy", tag = "campaigns",
    responses((status = 200, description = "`text`, `digest`, `tenant` (null: of the whole namespace), `is_shipped`, `from_file`"), openapi::Refusals))]
pub(in crate::gateway) async fn show(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer_of(gateway.show_policy(request).await)
}

#[utoipa::path(post, path = "/api/v1/policy", tag = "campaigns", request_body = PolicyBody,
    responses((status = 200, body = PolicyAnswer, description = "permits and approvals of the tenant's people, or of everyone's, are decided by it from now on"),
        (status = 409, description = "`purpose_in_use`: a workflow that takes new entries would lose a purpose that it writes for"),
        (status = 422, body = Vec<Mistake>, description = "`invalid_policy`: every mistake with file, line, reason and hint"), openapi::Refusals))]
pub(in crate::gateway) async fn declare(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer_of(gateway.declare_policy(request).await)
}

#[utoipa::path(post, path = "/api/v1/policy/retire", tag = "campaigns", request_body = RetireBody,
    responses((status = 200, description = "the tenant's people are decided about by the namespace's policy from now on; where the namespace's is retired, by the shipped one"),
        (status = 404, description = "there is none of its own"),
        (status = 409, description = "`purpose_in_use`: a workflow that takes new entries would lose a purpose that it writes for"), openapi::Refusals))]
pub(in crate::gateway) async fn retire(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer_of(gateway.retire_policy(request).await)
}

fn in_use(InUse(message): InUse) -> Refusal {
    Refusal::Conflict { code: "purpose_in_use", message }
}

impl Gateway {
    async fn retire_policy(&self, request: Request) -> Result<Response<Body>, Refusal> {
        let (head, sent) = request.into_parts();
        let (access, of) = self.owner_of(&head)?;
        let by = by_of(self.json_body::<RetireBody>(&head, sent).await?.by)?;
        let ends = self.journal_ends(&access.namespace)?;
        let retired = self.app.campaigns.retire_policy(&access.namespace, of.as_ref(), &by).await.map_err(read_failed)?;
        if !retired.map_err(in_use)? {
            let whose = of.as_ref().map_or_else(|| "the namespace".to_owned(), |tenant| format!("tenant {tenant}"));
            return Err(Refusal::Missing(format!("policy of {whose}'s own")));
        }
        let heard = Published { kind: "policy", of: of.clone(), name: "policy".to_owned(), digest: String::new() };
        let in_force = self.in_force(ends, &[heard]).await?;
        let now = self.app.campaigns.policy(&access.namespace, of.as_ref()).await.map_err(read_failed)?;
        let tenant = of.map(|tenant| tenant.to_string());
        Ok(json(
            StatusCode::OK,
            &value!({"tenant": tenant, "retired": true, "in_force": in_force, "digest": now.digest, "is_shipped": now.is_shipped}),
        ))
    }

    async fn show_policy(&self, request: Request) -> Result<Response<Body>, Refusal> {
        let (head, _) = request.into_parts();
        let (access, of) = self.owner_of(&head)?;
        let found = self.app.campaigns.policy(&access.namespace, of.as_ref()).await.map_err(read_failed)?;
        Ok(json(StatusCode::OK, &found))
    }

    async fn declare_policy(&self, request: Request) -> Result<Response<Body>, Refusal> {
        let (head, sent) = request.into_parts();
        let (access, of) = self.owner_of(&head)?;
        let body: PolicyBody = self.json_body(&head, sent).await?;
        let by = by_of(body.by)?;
        let policy = match Policy::parse(body.file.as_deref().unwrap_or("policy.toml"), &body.text) {
            Ok(policy) => Arc::new(policy),
            Err(problems) => {
                let mistakes: Vec<Mistake> = mistakes_of(problems).collect();
                let message = format!("{} mistakes; the policy is as it was", mistakes.len());
                return Ok(json(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    &value!({"code": "invalid_policy", "message": message, "problems": mistakes}),
                ));
            }
        };
        let ends = self.journal_ends(&access.namespace)?;
        let digest = policy.digest.to_hex();
        let published = self.app.campaigns.publish_policy(&access.namespace, of.as_ref(), policy, &by).await.map_err(read_failed)?;
        let published = published.map_err(in_use)?;
        let heard = published.then(|| Published { kind: "policy", of: of.clone(), name: "policy".to_owned(), digest: digest.clone() });
        let in_force = self.in_force(ends, heard.as_slice()).await?;
        Ok(json(StatusCode::OK, &PolicyAnswer { digest, tenant: of.map(|tenant| tenant.to_string()), published, in_force }))
    }
}
