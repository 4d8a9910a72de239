//! The part of the Confluent Schema Registry's API that serializers and deserializers call, below `/registry`.
//!
//! Subjects are the tenant's whose API key a request carries (the user of Basic authentication, as these clients send it), and the
//! product's own. Only Avro, and each schema whole in itself. Nothing is ever deleted: a number that was given out stands in records.
//! What is not here is refused with the registry's own form of error. `docs/kafka-producers.md` lists both.

mod answer;
mod store;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) use store::{Registries, resolve};

use self::answer::{Problem, answer};
use self::store::{Change, Decision, Registry};
use super::options::Access;
use super::query::query;
use super::reply::{Refusal, with_body};
use super::{Gateway, Shared, auth};
use crate::domain::TenantId;
use crate::schema::subjects::{self, Level, Subjects, Version};

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/", get(root))
        .route("/schemas/types", get(types))
        .route("/schemas/ids/{id}", get(schema))
        .route("/schemas/ids/{id}/schema", get(schema_text))
        .route("/schemas/ids/{id}/versions", get(versions_of))
        .route("/schemas/ids/{id}/subjects", get(subjects_of))
        .route("/subjects", get(list))
        .route("/subjects/{subject}", post(lookup))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(version))
        .route("/subjects/{subject}/versions/{version}/schema", get(version_text))
        .route("/config", get(level).put(set_level))
        .route("/config/{subject}", get(level_of).put(set_level_of).delete(remove_level_of))
        .route("/compatibility/subjects/{subject}/versions", post(is_compatible))
        .route("/compatibility/subjects/{subject}/versions/{version}", post(is_compatible_with))
        .route("/mode", get(mode))
        .route("/mode/{subject}", get(mode))
        .fallback(refused)
        .method_not_allowed_fallback(refused)
}

type Answer = Result<Response<Body>, Problem>;

fn answered(result: Answer) -> Response<Body> {
    result.unwrap_or_else(Problem::into_response)
}

/// What is sent to be registered, looked up or checked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaBody {
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
struct LevelBody {
    compatibility: Option<String>,
}

/// Whose registry a request is about.
struct Asked {
    registry: Arc<Registry>,
    tenant: TenantId,
}

impl Gateway {
    fn whose(&self, head: &Parts) -> Result<Asked, Problem> {
        let Access { namespace, tenant } = self.access_by(head, auth::api_key(&head.headers).as_deref())?;
        Ok(Asked { registry: self.registry(&namespace)?, tenant })
    }

    /// The one schema of a body; what this registry cannot keep is refused.
    async fn schema_sent(&self, head: &Parts, sent: Body) -> Result<String, Problem> {
        let body: SchemaBody = self.json_body(head, sent).await.map_err(|refusal| match refusal {
            Refusal::InvalidRequest(why) => Problem::InvalidSchema(why),
            other => Problem::Other(other),
        })?;
        if let Some(kind) = body.schema_type.filter(|kind| !kind.eq_ignore_ascii_case("AVRO")) {
            return Err(Problem::InvalidSchema(format!("schemaType {kind:?} is not supported: this registry keeps AVRO schemas")));
        }
        if body.references.is_some_and(|references| !references.is_empty()) {
            return Err(Problem::InvalidSchema("references are not supported: send the schema with the named types inside".to_owned()));
        }
        Ok(body.schema)
    }

    /// What `find` finds in everything that was registered by now.
    async fn find<T: Send + 'static>(
        &self,
        head: &Parts,
        find: impl FnOnce(&Subjects, &str) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let Asked { registry, tenant } = self.whose(head)?;
        self.look(&registry, move |known| find(known, tenant.as_str())).await?
    }

    async fn set_level(&self, request: Request, subject: String) -> Answer {
        let (head, sent) = request.into_parts();
        let asked = self.whose(&head)?;
        let body: LevelBody = self.json_body(&head, sent).await?;
        let text = body.compatibility.unwrap_or_default();
        let Some(level) = Level::parse(&text) else {
            let known = Level::ALL.map(Level::as_str).join(", ");
            return Err(Problem::InvalidLevel(format!("Invalid compatibility level {text:?}. Valid values are {known}")));
        };
        self.bring_level(&asked, subject, Some(level)).await?;
        Ok(answer(&json!({"compatibility": level.as_str()})))
    }

    async fn bring_level(&self, asked: &Asked, subject: String, level: Option<Level>) -> Result<(), Problem> {
        let tenant = asked.tenant.clone();
        let decide = move |known: &Subjects| {
            let of = Some(subject.as_str()).filter(|subject| !subject.is_empty());
            if known.own_level(tenant.as_str(), of) == level {
                return Ok::<_, Problem>(Decision::Done(()));
            }
            if let Some(subject) = of {
                subjects::named(subject)?;
            }
            let compatibility = level.map_or("", Level::as_str).to_owned();
            Ok(Decision::Append(Change::Configure { subject: subject.clone(), compatibility }))
        };
        self.change(&asked.registry, &asked.tenant, decide).await
    }
}

fn shown(version: &Version) -> Value {
    json!({"subject": version.subject, "version": version.version, "id": version.id, "schemaType": "AVRO", "schema": &*version.schema})
}

fn id_of(text: &str) -> Result<u32, Problem> {
    text.parse().map_err(|_| Problem::NoSchema)
}

/// A version by its number, or the newest.
fn version_named(known: &Subjects, tenant: &str, subject: &str, named: &str) -> Result<Version, Problem> {
    let versions = known.versions(tenant, subject);
    let number = match named {
        "latest" | "-1" => None,
        text => Some(text.parse::<u32>().ok().filter(|number| *number > 0).ok_or_else(|| Problem::InvalidVersion(text.to_owned()))?),
    };
    if versions.is_empty() {
        return Err(Problem::NoSubject(subject.to_owned()));
    }
    let found = match number {
        None => versions.last().cloned(),
        Some(number) => versions.get(number as usize - 1).cloned(),
    };
    found.ok_or_else(|| Problem::NoVersion(named.to_owned()))
}

fn text(schema: &str) -> Response<Body> {
    with_body(StatusCode::OK, HeaderValue::from_static("application/json"), schema.to_owned())
}

async fn root() -> Response<Body> {
    answer(&json!({}))
}

async fn types() -> Response<Body> {
    answer(&["AVRO"])
}

/// Taken for a registry that can be written to, as clients that ask first want it.
async fn mode() -> Response<Body> {
    answer(&json!({"mode": "READWRITE"}))
}

async fn schema(State(gateway): State<Shared>, Path(id): Path<String>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    let found = async { gateway.find(&head, move |known, tenant| known.schema(tenant, id_of(&id)?).ok_or(Problem::NoSchema)).await };
    answered(found.await.map(|schema| answer(&json!({"schema": &*schema}))))
}

async fn schema_text(State(gateway): State<Shared>, Path(id): Path<String>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    let found = async { gateway.find(&head, move |known, tenant| known.schema(tenant, id_of(&id)?).ok_or(Problem::NoSchema)).await };
    answered(found.await.map(|schema| text(&schema)))
}

async fn with_id(gateway: &Gateway, head: &Parts, id: String) -> Result<Vec<Version>, Problem> {
    let find = move |known: &Subjects, tenant: &str| {
        let found = known.versions_of(tenant, id_of(&id)?);
        if found.is_empty() { Err(Problem::NoSchema) } else { Ok(found) }
    };
    gateway.find(head, find).await
}

async fn versions_of(State(gateway): State<Shared>, Path(id): Path<String>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    let shown = |version: &Version| json!({"subject": version.subject, "version": version.version});
    answered(with_id(&gateway, &head, id).await.map(|found| answer(&found.iter().map(shown).collect::<Vec<_>>())))
}

async fn subjects_of(State(gateway): State<Shared>, Path(id): Path<String>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    let found = with_id(&gateway, &head, id).await;
    answered(found.map(|found| answer(&found.iter().map(|version| version.subject.as_str()).collect::<Vec<_>>())))
}

async fn list(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    let prefix = query(head.uri.query(), "subjectPrefix").unwrap_or_default().into_owned();
    let found = gateway.find(&head, move |known, tenant| {
        Ok(known.subjects(tenant).into_iter().filter(|subject| subject.starts_with(&prefix)).collect::<Vec<_>>())
    });
    answered(found.await.map(|subjects| answer(&subjects)))
}

async fn lookup(State(gateway): State<Shared>, Path(subject): Path<String>, request: Request) -> Response<Body> {
    let (head, sent) = request.into_parts();
    let found = async {
        let schema = gateway.schema_sent(&head, sent).await?;
        let find = move |known: &Subjects, tenant: &str| match known.find(tenant, &subject, &schema) {
            Some(version) => Ok(version),
            None if known.versions(tenant, &subject).is_empty() => Err(Problem::NoSubject(subject)),
            None => Err(Problem::NoSchema),
        };
        gateway.find(&head, find).await
    };
    answered(found.await.map(|version| answer(&shown(&version))))
}

async fn register(State(gateway): State<Shared>, Path(subject): Path<String>, request: Request) -> Response<Body> {
    let (head, sent) = request.into_parts();
    let registered = async {
        let asked = gateway.whose(&head)?;
        let schema = gateway.schema_sent(&head, sent).await?;
        let tenant = asked.tenant.clone();
        let decide = move |known: &Subjects| {
            if let Some(version) = known.find(tenant.as_str(), &subject, &schema) {
                return Ok::<_, Problem>(Decision::Done(version));
            }
            known.check(tenant.as_str(), &subject, &schema)?;
            Ok(Decision::Append(Change::Register { subject: subject.clone(), schema: schema.clone() }))
        };
        gateway.change(&asked.registry, &asked.tenant, decide).await
    };
    answered(registered.await.map(|version| answer(&shown(&version))))
}

async fn versions(State(gateway): State<Shared>, Path(subject): Path<String>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    let found = gateway.find(&head, move |known, tenant| {
        let found = known.versions(tenant, &subject);
        if found.is_empty() { Err(Problem::NoSubject(subject)) } else { Ok(found) }
    });
    answered(found.await.map(|found| answer(&found.iter().map(|version| version.version).collect::<Vec<_>>())))
}

async fn named(gateway: &Gateway, request: Request, subject: String, version: String) -> Result<Version, Problem> {
    let (head, _) = request.into_parts();
    gateway.find(&head, move |known, tenant| version_named(known, tenant, &subject, &version)).await
}

async fn version(State(gateway): State<Shared>, Path((subject, version)): Path<(String, String)>, request: Request) -> Response<Body> {
    answered(named(&gateway, request, subject, version).await.map(|version| answer(&shown(&version))))
}

async fn version_text(State(gateway): State<Shared>, Path((subject, version)): Path<(String, String)>, request: Request) -> Response<Body> {
    answered(named(&gateway, request, subject, version).await.map(|version| text(&version.schema)))
}

async fn level(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    let found = gateway.find(&head, |known, tenant| Ok(known.own_level(tenant, None).unwrap_or_default()));
    answered(found.await.map(|level| answer(&json!({"compatibilityLevel": level.as_str()}))))
}

async fn level_of(State(gateway): State<Shared>, Path(subject): Path<String>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    let takes_default = query(head.uri.query(), "defaultToGlobal").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let found = gateway.find(&head, move |known, tenant| match known.own_level(tenant, Some(&subject)) {
        Some(level) => Ok(level),
        None if takes_default => Ok(known.level(tenant, &subject)),
        None => Err(Problem::NoLevel(subject)),
    });
    answered(found.await.map(|level| answer(&json!({"compatibilityLevel": level.as_str()}))))
}

async fn set_level(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    answered(gateway.set_level(request, String::new()).await)
}

async fn set_level_of(State(gateway): State<Shared>, Path(subject): Path<String>, request: Request) -> Response<Body> {
    answered(gateway.set_level(request, subject).await)
}

async fn remove_level_of(State(gateway): State<Shared>, Path(subject): Path<String>, request: Request) -> Response<Body> {
    let (head, _) = request.into_parts();
    let removed = async {
        let of = subject.clone();
        let find = move |known: &Subjects, tenant: &str| known.own_level(tenant, Some(&of)).ok_or(Problem::NoLevel(of));
        let level = gateway.find(&head, find).await?;
        gateway.bring_level(&gateway.whose(&head)?, subject, None).await?;
        Ok(answer(&json!({"compatibilityLevel": level.as_str()})))
    };
    answered(removed.await)
}

async fn is_compatible(State(gateway): State<Shared>, Path(subject): Path<String>, request: Request) -> Response<Body> {
    answered(gateway.compatible(request, subject, None).await)
}

async fn is_compatible_with(
    State(gateway): State<Shared>,
    Path((subject, version)): Path<(String, String)>,
    request: Request,
) -> Response<Body> {
    answered(gateway.compatible(request, subject, Some(version)).await)
}

impl Gateway {
    /// Whether a schema goes, at the subject's level, with one version or with all.
    async fn compatible(&self, request: Request, subject: String, version: Option<String>) -> Answer {
        let (head, sent) = request.into_parts();
        let schema = self.schema_sent(&head, sent).await?;
        let is_verbose = query(head.uri.query(), "verbose").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let find = move |known: &Subjects, tenant: &str| {
            let before = match version {
                Some(version) => vec![version_named(known, tenant, &subject, &version)?],
                None => known.versions(tenant, &subject),
            };
            subjects::valid(&schema)?;
            Ok(known.level(tenant, &subject).problems(&before, &schema))
        };
        let problems = self.find(&head, find).await?;
        let mut found = json!({"is_compatible": problems.is_empty()});
        if is_verbose {
            found["messages"] = json!(problems);
        }
        Ok(answer(&found))
    }
}

/// Everything else of the registry's API, and what is no part of it.
async fn refused(request: Request) -> Response<Body> {
    let path: String = request.uri().path().chars().take(200).collect();
    let message = format!("{} {path} is not supported by this registry; docs/kafka-producers.md lists what is", request.method());
    Problem::NoRoute(message).into_response()
}
