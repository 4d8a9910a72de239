//! Asks the server that runs on the data folder, through its HTTP API, as its owner: with the token of `server.json`.

use anyhow::{Context, bail};
use serde_json::Value;

use super::super::exit::{self, Exit};
use super::super::people;
use crate::app::{Contact, Folder, read_models};
use crate::config::Config;
use crate::domain::{Namespace, TenantId};
use crate::projections::Reader;

pub struct Api {
    http: reqwest::Client,
    contact: Contact,
    namespace: Namespace,
    /// None: everyone's.
    tenant: Option<TenantId>,
}

/// A request that was refused, in the server's words.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    pub status: u16,
    pub code: String,
    pub message: String,
    pub body: Value,
}

impl Api {
    /// As a tenant: the one that is named, else the only one there is, else `default`. What is said may be the first of its tenant.
    pub async fn of(config: &Config, namespace: &str, tenant: Option<&str>) -> anyhow::Result<Self> {
        let mut api = Self::of_owner(config, namespace, tenant)?;
        let reader = Reader::new(read_models(config)?, &api.namespace);
        api.tenant = Some(people::tenant_to_be(config, &reader, namespace, tenant).await?);
        Ok(api)
    }

    /// The same for what is asked of what there is: a tenant that nobody has heard of is not there.
    pub async fn of_known(config: &Config, namespace: &str, tenant: Option<&str>) -> anyhow::Result<Self> {
        let mut api = Self::of_owner(config, namespace, tenant)?;
        let reader = Reader::new(read_models(config)?, &api.namespace);
        api.tenant = Some(people::tenant(config, &reader, namespace, tenant).await?);
        Ok(api)
    }

    /// For what is everyone's unless a tenant is named.
    pub fn of_owner(config: &Config, namespace: &str, tenant: Option<&str>) -> anyhow::Result<Self> {
        let folder = Folder::new(&config.data.dir);
        let contact = folder.contact().with_context(|| {
            format!("no server runs on {}, and only a running one can be asked: start it with `flywheel up`", folder.root().display())
        })?;
        let (namespace, tenant) = (Namespace::new(namespace)?, tenant.map(TenantId::new).transpose()?);
        Ok(Self { http: reqwest::Client::new(), contact, namespace, tenant })
    }

    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.answer(self.http.get(self.url(path)).query(query)).await
    }

    pub async fn post(&self, path: &str, query: &[(&str, String)], body: &Value) -> anyhow::Result<Value> {
        self.answer(self.http.post(self.url(path)).query(query).json(body)).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.contact.url)
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let mut whose = vec![("namespace", self.namespace.as_str())];
        whose.extend(self.tenant.as_ref().map(|tenant| ("tenant", tenant.as_str())));
        let sent = request.query(&whose).bearer_auth(&self.contact.admin_token).send().await;
        let answer = sent.with_context(|| format!("the server (process {}) does not answer at {}", self.contact.pid, self.contact.url))?;
        let status = answer.status();
        let text = answer.text().await?;
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if status.is_success() {
            return Ok(body);
        }
        let of = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let (code, message) = (of("code"), of("message"));
        if message.is_empty() {
            bail!("the server answered {status}: {body}");
        }
        Err(Refused { status: status.as_u16(), code, message, body }.into())
    }
}

/// A problem as the server tells it, with its place and hint.
pub fn problem_line(problem: &Value) -> String {
    let text = |name: &str| problem[name].as_str().unwrap_or_default();
    let hint = problem["hint"].as_str().map_or(String::new(), |hint| format!("  hint: {hint}\n"));
    format!("{}:{}:{}: {}\n{hint}", text("file"), problem["line"], problem["column"], text("reason"))
}

/// A refused publication with every mistake on a line of its own.
pub fn with_problems(error: anyhow::Error) -> anyhow::Error {
    let Some(refused) = error.downcast_ref::<Refused>().filter(|refused| refused.status == 422) else { return error };
    let mut message = String::new();
    for problem in refused.body["problems"].as_array().into_iter().flatten() {
        let text = |name: &str| problem[name].as_str().unwrap_or_default();
        let place = format!("{}:{}", text("file"), problem["line"]);
        if problem["test"].is_string() {
            message.push_str(&format!("{place}: test {:?} failed\n", text("test")));
            for failure in problem["failures"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                message.push_str(&format!("  {failure}\n"));
            }
            continue;
        }
        message.push_str(&problem_line(problem));
    }
    message.push_str(&refused.message);
    Exit::check_failed(message)
}

/// An error with what to do about it, and the exit code that scripts go by.
pub fn told(error: anyhow::Error) -> anyhow::Error {
    let Some(refused) = error.downcast_ref::<Refused>() else { return error };
    let hint = match refused.code.as_str() {
        "not_found" if refused.message.contains("run ") => {
            "; `flywheel workflow list` shows what there is, a run of a moment ago a moment later"
        }
        "not_found" if refused.message.contains("workflow ") => "; `flywheel workflow publish FILE` brings one into force",
        "run_ended" => "; nothing can be done to it any more, `flywheel workflow story` tells what was",
        "already_decided" => "; one decision counts, and this one came later",
        "too_late" => "; what the campaign does without a decision it has done",
        "not_started" => "; `flywheel workflow show` says whom the workflow lets in",
        "starting" => "; try again in a moment",
        _ => "",
    };
    let message = format!("{}{hint}", refused.message);
    match refused.status {
        404 => Exit { code: exit::NOT_FOUND, message }.into(),
        422 => Exit { code: exit::CHECK_FAILED, message }.into(),
        _ => anyhow::anyhow!(message),
    }
}
