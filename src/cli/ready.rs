//! `flywheel ready`: what `/readyz` of a server says, as an exit code, for health checks where there is no other program to ask with.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::StatusCode;
use serde_json::Value;

use super::exit::Exit;
use super::output::{outln, print_json};

/// A health check that hangs says nothing.
const ANSWER_MAX: Duration = Duration::from_secs(5);

pub async fn run(url: &str, json: bool) -> anyhow::Result<()> {
    let url = format!("{}/readyz", url.trim_end_matches('/'));
    // Without a proxy: it would be the proxy's health.
    let http = reqwest::Client::builder().timeout(ANSWER_MAX).no_proxy().build()?;
    let answer = http.get(&url).send().await.with_context(|| format!("nobody answers at {url}"))?;
    let status = answer.status();
    if !matches!(status, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE) {
        bail!("{url} answered {status}: that is no Flywheel server");
    }
    let said: Value = answer.json().await.with_context(|| format!("{url} answered {status} without saying why"))?;
    if json {
        print_json(&said);
    }
    if status != StatusCode::OK {
        return Err(Exit::check_failed(format!("not ready: {}", listed(&said["reasons"]))));
    }
    if !json {
        match listed(&said["degraded"]) {
            none if none.is_empty() => outln!("ready"),
            degraded => outln!("ready, degraded: {degraded}"),
        }
    }
    Ok(())
}

/// `component: reason` of each.
fn listed(reasons: &Value) -> String {
    let each = reasons.as_array().into_iter().flatten();
    let text = |reason: &Value, key: &str| reason[key].as_str().unwrap_or_default().to_owned();
    each.map(|reason| format!("{}: {}", text(reason, "component"), text(reason, "reason"))).collect::<Vec<_>>().join("; ")
}
