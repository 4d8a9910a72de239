//! `flywheel workflow list|status|get|story`: runs and what was decided about them.

use serde_json::json;

use super::super::exit::Exit;
use super::super::output::{Rows, note, out, outln, print_json};
use super::super::{people, run};
use super::figures::published;
use super::{List, Story, Whose, readable};
use crate::config::Config;
use crate::domain::{Millis, Namespace, Offset, partition_of};
use crate::log::TopicPartition;
use crate::projections::runs::{self, Line, RunDetail, RunQuery, Stretch};
use crate::stream::{Topic, Topics};
use crate::workflow::RunId;

pub async fn list(config: &Config, asked: &List, json: bool) -> anyhow::Result<()> {
    let (reader, tenant) = readable(config, &asked.whose).await?;
    let query = RunQuery {
        workflow: asked.workflow.clone(),
        status: asked.status.clone(),
        subject: asked.subject.as_deref().map(|text| people::subject(text).to_string()),
        reason: asked.reason.clone(),
        is_stuck: false,
        after: asked.after.clone(),
        limit: asked.limit,
    };
    let page = reader.runs(&tenant, &query).await?;
    if let Some(workflow) = asked.workflow.as_deref().filter(|_| page.runs.is_empty()) {
        published(config, &reader, &tenant, workflow, &asked.whose).await?;
    }
    if json {
        print_json(&serde_json::to_value(&page)?);
        return Ok(());
    }
    let mut rows = Rows::new(&["run", "workflow", "subject", "status", "node", "since", "arms", "why"]);
    for run in &page.runs {
        let why = run.paused.as_ref().map(|paused| paused.reason.clone()).or(run.outcome.clone());
        rows.push(vec![
            json!(run.run),
            json!(run.workflow),
            json!(run.subject),
            json!(run.status),
            json!(run.nodes),
            json!(run.since.to_string()),
            json!(run.arms),
            json!(why),
        ]);
    }
    if page.runs.is_empty() {
        let others = people::other_tenants(config, &reader, &asked.whose.at.namespace, &tenant).await?;
        note!("tenant {tenant} has no such run in namespace {}{others}", asked.whose.at.namespace);
    }
    rows.print(false);
    if let Some(next) = page.next {
        note!("there are more: --after {next}");
    }
    Ok(())
}

pub async fn status(config: &Config, whose: &Whose, json: bool) -> anyhow::Result<()> {
    let (reader, tenant) = readable(config, whose).await?;
    let mut rows = Rows::new(&["workflow", "status", "runs"]);
    for count in reader.run_counts(&tenant).await? {
        rows.push(vec![json!(count.workflow), json!(count.status), json!(count.runs)]);
    }
    if rows.rows.is_empty() {
        let others = people::other_tenants(config, &reader, &whose.at.namespace, &tenant).await?;
        note!("tenant {tenant} has no run in namespace {}{others}", whose.at.namespace);
    }
    rows.print(json);
    Ok(())
}

pub async fn get(config: &Config, id: &str, whose: &Whose, json: bool) -> anyhow::Result<()> {
    let (reader, tenant) = readable(config, whose).await?;
    let found = match RunId::parse(id) {
        Some(id) => reader.run(&tenant, id).await?,
        None => None,
    };
    let Some(found) = found else {
        let others = people::other_tenants(config, &reader, &whose.at.namespace, &tenant).await?;
        return Err(Exit::not_found(format!(
            "there is no run {id} of tenant {tenant} in namespace {}; `flywheel workflow list` has ids{others}",
            whose.at.namespace
        )));
    };
    if json {
        print_json(&serde_json::to_value(&found)?);
    } else {
        out!("{}", described(&found)?);
    }
    Ok(())
}

/// The run's own members as lines, then where it is and its effects as tables.
fn described(found: &RunDetail) -> anyhow::Result<String> {
    let mut told = people::described(&serde_json::to_value(&found.run)?, 0);
    let mut nodes = Rows::new(&["node", "doing", "since", "until", "awaits"]);
    for at in &found.at {
        let until = at.until.map(|until| until.to_string());
        nodes.push(vec![json!(at.node), json!(at.doing), json!(at.since.to_string()), json!(until), json!(at.awaits)]);
    }
    let mut effects = Rows::new(&["node", "by", "status", "attempts", "requested", "finished", "next try", "why", "key"]);
    for effect in &found.effects {
        let time = |time: Option<Millis>| json!(time.map(|time| time.to_string()));
        effects.push(vec![
            json!(effect.node),
            json!(format!("{} {}", effect.performer, effect.target)),
            json!(effect.status),
            json!(effect.attempts),
            json!(effect.requested_at.to_string()),
            time(effect.finished_at),
            time(effect.next_try_at),
            json!(effect.refusal.as_ref().or(effect.last_error.as_ref())),
            json!(effect.effect),
        ]);
    }
    for rows in [nodes, effects].iter().filter(|rows| !rows.rows.is_empty()) {
        told.push_str(&format!("\n{}\n", rows.to_table()));
    }
    Ok(told)
}

pub async fn story(config: &Config, asked: &Story, json: bool) -> anyhow::Result<()> {
    let namespace = Namespace::new(&asked.whose.at.namespace)?;
    let log = run::reader(config)?;
    let topics = Topics::find(&*log, &namespace)?.ok_or_else(|| Exit::not_found(format!("there is no namespace {namespace}")))?;
    let (reader, tenant) = readable(config, &asked.whose).await?;
    let run = match RunId::parse(&asked.of) {
        Some(id) => reader.run(&tenant, id).await?,
        None => None,
    };
    let (subject, from, id) = match &run {
        Some(found) => (people::subject(&found.run.subject), found.run.begins().1, found.run.id()),
        None => (people::subject(&asked.of), Offset(0), None),
    };
    let stretch = Stretch { from, facts: run.as_ref().map(RunDetail::told) };
    let key = subject.key(&tenant);
    let partition = partition_of(key.as_bytes(), topics.count(Topic::Journal));
    let journal: TopicPartition = topics.partition(Topic::Journal, partition);
    let place = (asked.skip, asked.limit);
    let lines = tokio::task::block_in_place(|| runs::story(&*log, journal, key.as_bytes(), id, stretch, place))?;
    if lines.is_empty() && asked.skip == 0 {
        let others = people::other_tenants(config, &reader, namespace.as_str(), &tenant).await?;
        return Err(Exit::not_found(format!("nothing was decided about {subject} of tenant {tenant} in namespace {namespace}{others}")));
    }
    if json {
        print_json(&serde_json::to_value(&lines)?);
    } else {
        told(&lines, id.is_some()).iter().for_each(|line| outln!("{line}"));
    }
    if lines.len() == asked.limit {
        note!("there may be more: --skip {}", asked.skip + asked.limit as u64);
    }
    Ok(())
}

/// Lines with their times; the begin of a run's id before each where there may be several runs.
fn told(lines: &[Line], is_one_run: bool) -> Vec<String> {
    let run = |line: &Line| match (&line.run, is_one_run) {
        (_, true) => String::new(),
        (Some(run), false) => format!("{}  ", &run[..run.len().min(8)]),
        (None, false) => " ".repeat(10),
    };
    let mut last = None;
    let told = lines.iter().map(|line| {
        // What happens at one moment is one paragraph: its time is said once.
        let time = line.at.to_string();
        let time = if last.replace(line.at) == Some(line.at) { " ".repeat(time.len()) } else { time };
        format!("{time}  {}{}", run(line), line.line)
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_told_once_and_runs_are_told_apart() {
        let line = |at, run: Option<&str>, text: &str| Line {
            at: Millis(at),
            run: run.map(str::to_owned),
            line: text.to_owned(),
            kind: String::new(),
            offset: 0,
        };
        let lines = [line(0, Some("0123456789"), "run of w started"), line(0, Some("0123456789"), "a to b"), line(1, None, "zone is UTC")];
        assert_eq!(
            told(&lines, false),
            [
                "1970-01-01T00:00:00.000Z  01234567  run of w started",
                "                          01234567  a to b",
                "1970-01-01T00:00:00.001Z            zone is UTC"
            ]
        );
        assert_eq!(told(&lines[1..2], true), ["1970-01-01T00:00:00.000Z  a to b"]);
    }
}
