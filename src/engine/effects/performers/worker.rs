//! HTTP workers: a call as one POST with its `Idempotency-Key`, on connections that are kept.
//!
//! 2xx is the result; 404 to a look-up says that it was never done. 408, 425, 429 and 5xx are tried again, after `Retry-After` where there
//! is one; any other 4xx would come again. Where a connection breaks after the request, or a server fails in the middle of what cannot be
//! done twice, nobody knows.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::super::call::{ANSWER_BYTES_MAX, Call, Leave, Performing, Remote};
use super::{passing, refusal};
use crate::workflow::{Category, Outcome, Unknown};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(60);
const ERROR_CHARS_MAX: usize = 300;
/// A worker that asks for more is asked again after this.
const RETRY_AFTER_S_MAX: i64 = 24 * 60 * 60;

pub struct Worker {
    client: reqwest::Client,
    url: reqwest::Url,
    /// For `Authorization: Bearer`.
    token: Option<String>,
}

impl Worker {
    pub fn new(url: &str, token: Option<String>) -> Result<Self, String> {
        let url = reqwest::Url::parse(url).map_err(|error| format!("{url}: {error}"))?;
        let builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).pool_idle_timeout(IDLE).http1_only().no_proxy();
        let client = builder.redirect(reqwest::redirect::Policy::none()).build().map_err(|error| error.to_string())?;
        Ok(Self { client, url, token })
    }

    async fn ask(&self, call: &Call) -> Outcome {
        let request = &call.request;
        let body = json!({
            "tenant": request.subject.tenant_str(),
            "subject": request.subject.subject().to_string(),
            "run": request.run,
            "effect": request.effect,
            "attempt": call.attempt,
            "workflow": request.workflow,
            "node": request.node,
            "by": request.by,
            "target": request.target,
            "input": request.input,
            "look_up": call.look_up,
            "deadline_ms": call.deadline.as_millis() as u64,
        });
        let mut post = self.client.post(self.url.clone()).header("idempotency-key", request.effect.to_string()).timeout(call.deadline);
        if let Some(token) = &self.token {
            post = post.bearer_auth(token);
        }
        match post.json(&body).send().await {
            Ok(response) => answer(call, response).await,
            Err(error) if error.is_connect() || error.is_builder() => passing(Category::Integration, chain(&error)),
            Err(error) => Outcome::Unknown { error: chain(&error) },
        }
    }
}

impl Remote for Worker {
    fn perform(&self, call: Call, _: Option<Leave>) -> Performing<'_> {
        Box::pin(async move { self.ask(&call).await })
    }
}

async fn answer(call: &Call, mut response: reqwest::Response) -> Outcome {
    let status = response.status().as_u16();
    let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse::<i64>().ok());
    let retry_after_ms = retry_after.map(|seconds| seconds.clamp(0, RETRY_AFTER_S_MAX) * 1_000);
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_BYTES_MAX => body.extend_from_slice(&chunk),
            Ok(Some(_)) if (200..300).contains(&status) => {
                let error = format!("the result is longer than {ANSWER_BYTES_MAX} bytes");
                return Outcome::Done { result: json!({ "error": error }) };
            }
            Ok(None) | Ok(Some(_)) => break,
            Err(error) => return Outcome::Unknown { error: chain(&error) },
        }
    }
    let error = || {
        let said: String = String::from_utf8_lossy(&body).chars().take(ERROR_CHARS_MAX).collect();
        format!("{status}: {said}")
    };
    match status {
        200..300 if body.iter().all(u8::is_ascii_whitespace) => Outcome::Done { result: json!({}) },
        200..300 => match serde_json::from_slice::<Json>(&body) {
            Ok(result) => Outcome::Done { result },
            // It was done, whatever it says about it.
            Err(_) => Outcome::Done { result: json!({ "text": String::from_utf8_lossy(&body) }) },
        },
        404 if call.look_up => Outcome::NotDone,
        408 | 425 | 429 | 503 => Outcome::Failed { category: Category::Integration, error: error(), permanent: false, retry_after_ms },
        400 | 422 => refusal(Category::Data, error()),
        // Credentials, a path that is not there: it fails for everyone until somebody acts.
        300..500 => refusal(Category::Api, error()),
        _ if call.request.unknown == Unknown::Retry || call.look_up => {
            Outcome::Failed { category: Category::Integration, error: error(), permanent: false, retry_after_ms }
        }
        _ => Outcome::Unknown { error: error() },
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
