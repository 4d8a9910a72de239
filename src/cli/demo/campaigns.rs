//! The campaigns of the demonstration: which run, until they have done all that they can, and what came of them.
//!
//! Win-back goes to everyone who lapses; its review is given by a rule, its mails go to the outbox folder. The campaign graph runs once,
//! beside the history, on scripted agents.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{Dataset, Scene};
use crate::app::{Folder, World};
use crate::cli::args::InNamespace;
use crate::cli::output::{Rows, grouped, outln};
use crate::cli::workflow::{Funnel, Results, Story, Whose, Workflow};
use crate::cli::{query, workflow};
use crate::config::Config;
use crate::workflow::{Definition, Policy, SHIPPED, SHIPPED_POLICY};

const LOOK_EVERY: Duration = Duration::from_millis(100);
const WAIT_AT_MOST: Duration = Duration::from_secs(900);
/// Nothing is pending in so many looks: a commit may be between the fold and the executor.
const QUIET_LOOKS: u32 = 5;
const CAMPAIGN: &str = "campaign:spring";

/// Who gives the approval: a person would click on a link in a mail.
const RULE: &str = "\n[[approval]]\nworkflow = \"winback\"\nnode = \"review\"\nby = \"demonstration\"\n";

/// What the purchases start; the clickstream has nobody to write to.
pub fn definitions(dataset: Dataset) -> anyhow::Result<(Vec<Definition>, Option<Policy>)> {
    if dataset != Dataset::Cdnow {
        return Ok((Vec::new(), None));
    }
    let parse = |(name, text): &(&str, &str)| Ok(Definition::parse(&format!("topologies/workflows/{name}.toml"), text)?);
    let workflows: anyhow::Result<Vec<Definition>> = SHIPPED.iter().map(parse).collect();
    Ok((workflows?, Some(Policy::parse("the demonstration's policy", &format!("{SHIPPED_POLICY}{RULE}"))?)))
}

/// Starts the campaign graph, once: the same key is the same run.
pub async fn start_graph(url: &str, scene: &Scene) -> anyhow::Result<()> {
    if scene.dataset != Dataset::Cdnow {
        return Ok(());
    }
    let body = json!({
        "workflow": "campaign_graph", "subject": format!("u:{CAMPAIGN}"), "id": "demonstration",
        "input": { "audience": "music lovers", "budget": 500.0, "brief": "spring records" },
    });
    let request = reqwest::Client::new().post(format!("{url}/api/v1/campaigns/create")).bearer_auth(&scene.write_key).json(&body);
    let answer = request.send().await?;
    let status = answer.status();
    ensure!(status.is_success(), "starting the campaign graph: {status}: {}", answer.text().await.unwrap_or_default());
    Ok(())
}

/// Waits until nothing is being performed and nothing lags: what is left waits for a time that does not come.
pub async fn settle(config: &Config, scene: &Scene, world: &World) -> anyhow::Result<()> {
    if scene.dataset != Dataset::Cdnow {
        return Ok(());
    }
    let bar = ProgressBar::new(0);
    bar.set_style(
        ProgressStyle::with_template("journeys {wide_bar} {human_pos} ended of {human_len} {msg}").expect("the template is valid"),
    );
    let deadline = Instant::now() + WAIT_AT_MOST;
    let mut quiet = 0;
    while quiet < QUIET_LOOKS {
        if Instant::now() >= deadline {
            bail!("effects are still pending after {} s", WAIT_AT_MOST.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
        let lag: u64 = world.status().iter().map(|partition| partition.lag_records()).sum::<u64>() + world.projection_lag();
        let pending = world.effects().map_or(0, |effects| effects.pending);
        quiet = if lag == 0 && pending == 0 { quiet + 1 } else { 0 };
        let counts = query::rows(config, &scene.namespace, "SELECT count(*), count(ended_at) FROM wf_runs").await?;
        if let Some([runs, ended]) = counts.rows.first().map(Vec::as_slice) {
            bar.set_length(runs.as_u64().unwrap_or(0));
            bar.set_position(ended.as_u64().unwrap_or(0));
            bar.set_message(format!("({pending} effects pending)"));
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// One thing that must be so of every message.
struct Check {
    what: &'static str,
    expected: u64,
    found: u64,
}

pub async fn show(config: &Config, scene: &Scene, json: bool) -> anyhow::Result<bool> {
    if scene.dataset != Dataset::Cdnow {
        return Ok(true);
    }
    let checks = checks(config, scene).await?;
    if !json {
        print_runs(config, scene).await?;
        let workflow = "winback".to_owned();
        outln!("\nwin-back, node by node");
        let funnel = Funnel { workflow: workflow.clone(), digest: None, from: None, to: None, whose: whose(scene) };
        workflow::run(config, None, &Workflow::Funnel(funnel), false).await?;
        outln!("\nwho bought within the campaign, by arm");
        workflow::run(
            config,
            None,
            &Workflow::Results(Results { workflow, digest: None, all_versions: false, whose: whose(scene) }),
            false,
        )
        .await?;
        print_rounds(config, scene).await?;
        print_story(config, scene).await?;
        print_checks(&checks);
    }
    Ok(checks.iter().all(|check| check.expected == check.found))
}

async fn print_runs(config: &Config, scene: &Scene) -> anyhow::Result<()> {
    let sql = "SELECT workflow, status, coalesce(outcome, '') AS outcome, count(*) AS runs FROM workflow_runs GROUP BY 1, 2, 3 ORDER BY 1, 4 DESC";
    let found = query::rows(config, &scene.namespace, sql).await?;
    let mut rows = Rows::new(&["campaign", "status", "outcome", "runs"]);
    found.rows.into_iter().for_each(|row| rows.push(row));
    outln!("\ncampaigns beside the history\n{}", rows.to_table());
    Ok(())
}

/// How often the campaign graph went around.
async fn print_rounds(config: &Config, scene: &Scene) -> anyhow::Result<()> {
    let sql = "SELECT node, sum(entered) FROM workflow_funnel WHERE workflow = 'campaign_graph' \
               AND node IN ('lead_gen', 'content', 'ad_manager', 'analytics', 'optimizer', 'report') GROUP BY node ORDER BY node";
    let found = query::rows(config, &scene.namespace, sql).await?;
    let told = |row: &Vec<Value>| Some(format!("{} {}", row.first()?.as_str()?, row.get(1)?.as_i64()?));
    let told: Vec<String> = found.rows.iter().filter_map(told).collect();
    if !told.is_empty() {
        outln!("\nthe campaign graph asked its agents (scripted): {}", told.join(", "));
    }
    Ok(())
}

/// The journal of someone who was written to twice or bought after a mail: the longest run there is.
async fn print_story(config: &Config, scene: &Scene) -> anyhow::Result<()> {
    let sql =
        "SELECT run_id, subject FROM workflow_runs WHERE workflow = 'winback' AND status = 'goal' ORDER BY visits DESC, run_id LIMIT 1";
    let found = query::rows(config, &scene.namespace, sql).await?;
    let Some(row) = found.rows.first() else { return Ok(()) };
    let (run, subject) = (row[0].as_str().unwrap_or_default(), row[1].as_str().unwrap_or_default());
    outln!("\none customer's journal: {subject}");
    let story = Story { of: run.to_owned(), skip: 0, limit: 1_000, whose: whose(scene) };
    workflow::run(config, None, &Workflow::Story(story), false).await
}

fn whose(scene: &Scene) -> Whose {
    Whose { at: InNamespace { namespace: scene.namespace.to_string() }, tenant: Some(scene.tenant.to_string()) }
}

/// Every mail that the journal says was sent is one file under one key, and the other way round.
async fn checks(config: &Config, scene: &Scene) -> anyhow::Result<Vec<Check>> {
    let one = async |sql: &str| -> anyhow::Result<u64> {
        let found = query::rows(config, &scene.namespace, sql).await?;
        Ok(found.rows.first().and_then(|row| row.first()).and_then(Value::as_u64).unwrap_or(0))
    };
    let sent = one("SELECT count(*) FROM workflow_messages WHERE sent_at IS NOT NULL").await?;
    let keys = one("SELECT count(DISTINCT effect_id) FROM workflow_messages WHERE sent_at IS NOT NULL").await?;
    let outbox = Folder::new(&config.data.dir).outbox(&scene.namespace);
    let files = tokio::task::spawn_blocking(move || files(&outbox)).await??;
    let named = files.values().filter(|count| **count == 1).count() as u64;
    Ok(vec![
        Check { what: "messages sent, and idempotency keys among them", expected: sent, found: keys },
        Check { what: "files in the outbox", expected: sent, found: files.values().sum() },
        Check { what: "of them with a key of their own", expected: sent, found: named },
    ])
}

/// How many files of the outbox carry each key.
fn files(outbox: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    let entries = match std::fs::read_dir(outbox) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error).context("the outbox cannot be read"),
    };
    for entry in entries {
        let path = entry?.path();
        // What was cut short is no message.
        if path.extension().is_none_or(|extension| extension != "eml") {
            continue;
        }
        let text = std::fs::read_to_string(path)?;
        let key = text.lines().find_map(|line| line.strip_prefix("Message-ID: "));
        *found.entry(key.unwrap_or("none").trim().to_owned()).or_insert(0) += 1;
    }
    Ok(found)
}

fn print_checks(checks: &[Check]) {
    let mut rows = Rows::new(&["", "in the journal", "found", ""]);
    for check in checks {
        let verdict = if check.expected == check.found { "equal" } else { "DIFFERENT" };
        rows.push(vec![json!(check.what), json!(grouped(check.expected)), json!(grouped(check.found)), json!(verdict)]);
    }
    outln!("\nevery message once\n{}", rows.to_table());
}
