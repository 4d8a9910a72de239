//! Workflows of a namespace: listed, published after every check and test of theirs, retired.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json as value;
use utoipa::ToSchema;

use super::command::Published;
use super::{Gateway, by_of, read_failed, shown};
use crate::domain::{Namespace, TenantId};
use crate::gateway::ReadError;
use crate::gateway::port::{Campaigns, NameTaken, WorkflowText};
use crate::gateway::reply::{Refusal, json};
use crate::gateway::{Shared, openapi};
use crate::segments::Problems;
use crate::workflow::{self, Definition};

const FILES_MAX: usize = 100;

/// `{"file"?, "text"}` or `{"files": [..]}`; all of them are published or none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::gateway) struct PublishBody {
    #[serde(default)]
    file: Option<String>,
    /// The workflow in TOML.
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    files: Vec<FileBody>,
    /// Who says so.
    #[serde(default)]
    by: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::gateway) struct RetireBody {
    /// Who says so.
    #[serde(default)]
    pub(super) by: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::gateway) struct FileBody {
    file: String,
    text: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::gateway) struct PublishedAnswer {
    name: String,
    digest: String,
    /// Whose it is; null: of the whole namespace.
    tenant: Option<String>,
    /// False if this very digest took entries already.
    published: bool,
    tests: usize,
}

/// One mistake in a file.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::gateway) struct Mistake {
    file: String,
    line: usize,
    column: usize,
    reason: String,
    hint: Option<String>,
}

#[utoipa::path(get, path = "/api/v1/workflows", tag = "campaigns",
    responses((status = 200, description = "`workflows`: every version by digest, whose it is, and which of each name takes new entries: the namespace's and the tenant's own"), openapi::Refusals))]
pub(in crate::gateway) async fn list(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer_of(gateway.list_workflows(request).await)
}

#[utoipa::path(post, path = "/api/v1/workflows", tag = "campaigns", request_body = PublishBody,
    responses((status = 200, body = Vec<PublishedAnswer>, description = "in force for new entries of the tenant's subjects, or of everyone's; runs in progress stay on their version"),
        (status = 409, description = "`name_taken`: the namespace, or a tenant, has a workflow of this name"),
        (status = 422, body = Vec<Mistake>, description = "`invalid_workflow`: every mistake with file, line, reason and hint, or `tests_failed`"),
        openapi::Refusals))]
pub(in crate::gateway) async fn publish(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    gateway.answer_of(gateway.publish(request).await)
}

#[utoipa::path(post, path = "/api/v1/workflows/{name}/retire", tag = "campaigns", params(("name" = String, Path)), request_body = RetireBody,
    responses((status = 200, description = "it takes no new entries; runs in progress go on"), (status = 404),
        (status = 409, description = "`not_yours`: it is a workflow of the whole namespace"), openapi::Refusals))]
pub(in crate::gateway) async fn retire(State(gateway): State<Shared>, Path(name): Path<String>, request: Request) -> Response<Body> {
    gateway.answer_of(gateway.retire(&name, request).await)
}

impl Gateway {
    async fn list_workflows(&self, request: Request) -> Result<Response<Body>, Refusal> {
        let (head, _) = request.into_parts();
        let (access, of) = self.owner_of(&head)?;
        let workflows = self.app.campaigns.workflows(&access.namespace, of.as_ref()).await.map_err(read_failed)?;
        Ok(json(StatusCode::OK, &value!({ "workflows": workflows })))
    }

    async fn publish(&self, request: Request) -> Result<Response<Body>, Refusal> {
        let (head, sent) = request.into_parts();
        let (access, of) = self.owner_of(&head)?;
        let body: PublishBody = self.json_body(&head, sent).await?;
        let by = by_of(body.by)?;
        let mut files = body.files;
        if let Some(text) = body.text {
            files.push(FileBody { file: body.file.unwrap_or_else(|| "workflow.toml".to_owned()), text });
        }
        if files.is_empty() || files.len() > FILES_MAX {
            return Err(Refusal::InvalidRequest(format!("`text` or 1 to {FILES_MAX} `files` are to be published")));
        }
        let (campaigns, namespace, whose) = (self.app.campaigns.clone(), access.namespace.clone(), of.clone());
        // Tests may run for a while: not on a thread that serves.
        let checked = tokio::task::spawn_blocking(move || check(&files, &*campaigns, &namespace, whose.as_ref()))
            .await
            .map_err(|error| Refusal::ReadFailed(error.to_string()))?
            .map_err(read_failed)?;
        let (definitions, warnings) = match checked {
            Ok(checked) => checked,
            Err(body) => return Ok(json(StatusCode::UNPROCESSABLE_ENTITY, &body)),
        };
        let ends = self.journal_ends(&access.namespace)?;
        let published = self.app.campaigns.publish(&access.namespace, of.as_ref(), definitions.clone(), &by).await.map_err(read_failed)?;
        let are_new = published.map_err(|NameTaken(message)| Refusal::Conflict { code: "name_taken", message })?;
        let new = definitions.iter().zip(&are_new).filter(|(_, is_new)| **is_new);
        let new = new.map(|(definition, _)| heard(&of, &definition.name, definition.digest.to_hex()));
        let in_force = self.in_force(ends, &new.collect::<Vec<_>>()).await?;
        let published = definitions.iter().zip(are_new).map(|(definition, published)| PublishedAnswer {
            name: definition.name.clone(),
            digest: definition.digest.to_hex(),
            tenant: of.as_ref().map(ToString::to_string),
            published,
            tests: definition.tests.len(),
        });
        Ok(json(StatusCode::OK, &value!({ "workflows": published.collect::<Vec<_>>(), "in_force": in_force, "warnings": warnings })))
    }

    /// Why a workflow was not retired: there is none, or it is somebody else's to retire.
    async fn not_retired(&self, namespace: &Namespace, of: Option<&TenantId>, name: &str) -> Result<Refusal, Refusal> {
        let known = self.app.campaigns.workflows(namespace, of).await.map_err(read_failed)?;
        let others = known.into_iter().find(|known| known.is_active && known.name == name);
        let name = shown(name);
        Ok(match (others.map(|known| known.tenant), of) {
            (Some(None), Some(_)) => Refusal::Conflict {
                code: "not_yours",
                message: format!("workflow {name} is the whole namespace's: whoever runs the server retires it, for every tenant"),
            },
            (Some(Some(tenant)), None) => {
                let message = format!("workflow {name} is tenant {tenant}'s: name the tenant (?tenant=, --tenant)");
                Refusal::Conflict { code: "not_yours", message }
            }
            _ => Refusal::Missing(format!("workflow {name} that takes new entries")),
        })
    }

    async fn retire(&self, name: &str, request: Request) -> Result<Response<Body>, Refusal> {
        let (head, sent) = request.into_parts();
        let (access, of) = self.owner_of(&head)?;
        let by = by_of(self.json_body::<RetireBody>(&head, sent).await?.by)?;
        let ends = self.journal_ends(&access.namespace)?;
        let was_active = self.app.campaigns.retire(&access.namespace, of.as_ref(), name, &by).await.map_err(read_failed)?;
        if !was_active {
            return Err(self.not_retired(&access.namespace, of.as_ref(), name).await?);
        }
        let in_force = self.in_force(ends, &[heard(&of, name, String::new())]).await?;
        Ok(json(StatusCode::OK, &value!({"name": name, "retired": true, "in_force": in_force})))
    }
}

/// What the fold is to hear.
fn heard(of: &Option<TenantId>, name: &str, digest: String) -> Published {
    Published { kind: "workflow", of: of.clone(), name: name.to_owned(), digest }
}

/// What is to be published, and what its author may want to look at again.
type Checked = (Vec<Arc<Definition>>, Vec<Mistake>);

/// Checks every file and runs its tests; all mistakes of all files at once.
fn check(
    files: &[FileBody],
    campaigns: &dyn Campaigns,
    namespace: &Namespace,
    of: Option<&TenantId>,
) -> Result<Result<Checked, serde_json::Value>, ReadError> {
    let (mut definitions, mut mistakes, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    for file in files {
        let definition = match Definition::parse(&file.file, &file.text) {
            Ok(definition) => definition,
            Err(problems) => {
                mistakes.extend(mistakes_of(problems));
                continue;
            }
        };
        match campaigns.check(namespace, of, &WorkflowText { file: &file.file, text: &file.text, definition: &definition })? {
            Ok(told) => {
                warnings.extend(mistakes_of(told));
                definitions.push((file, Arc::new(definition)));
            }
            Err(problems) => mistakes.extend(mistakes_of(problems)),
        }
    }
    if !mistakes.is_empty() {
        let message = format!("{} mistake{}; nothing was published", mistakes.len(), if mistakes.len() == 1 { "" } else { "s" });
        return Ok(Err(value!({"code": "invalid_workflow", "message": message, "problems": mistakes})));
    }
    let mut failures = Vec::new();
    for (file, definition) in &definitions {
        for verdict in workflow::test(definition).into_iter().filter(|verdict| !verdict.failures.is_empty()) {
            failures.push(value!({"file": file.file, "line": verdict.line, "test": verdict.name, "failures": verdict.failures}));
        }
    }
    if !failures.is_empty() {
        let message = format!("{} tests failed; nothing was published", failures.len());
        return Ok(Err(value!({"code": "tests_failed", "message": message, "problems": failures})));
    }
    Ok(Ok((definitions.into_iter().map(|(_, definition)| definition).collect(), warnings)))
}

pub(super) fn mistakes_of(problems: Problems) -> impl Iterator<Item = Mistake> {
    problems.0.into_iter().map(|problem| Mistake {
        file: problem.file,
        line: problem.line,
        column: problem.column,
        reason: problem.message,
        hint: problem.hint,
    })
}
