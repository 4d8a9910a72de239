//! `flywheel workflow start|signal|approve|...|publish|retire`: what people do to runs and definitions, through the server that runs them.
//!
//! Each waits a few seconds for what becomes of it, so that the answer is the decision and not only that it was asked for.

use std::path::PathBuf;

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::super::args::InNamespace;
use super::super::output::{Rows, note, outln, print_json};
use super::api::{Api, problem_line, told, with_problems};
use crate::config::{self, Config};
use crate::workflow::{Definition, EntryBy};

/// How long a command waits for the decision.
const WAIT_S: u64 = 10;

/// Where, and who says so.
#[derive(Debug, Args, Clone)]
pub struct Whose {
    #[command(flatten)]
    pub at: InNamespace,
    /// Tenant; the only one there is, or `default`, if absent.
    #[arg(long)]
    pub tenant: Option<String>,
    /// Who says so, for the journal; the terminal's user if absent.
    #[arg(long)]
    pub by: Option<String>,
}

/// Whose workflows or policy.
#[derive(Debug, Args, Clone)]
pub struct Owner {
    #[command(flatten)]
    pub at: InNamespace,
    /// For this tenant's people only; for those of every tenant of the namespace if absent.
    #[arg(long)]
    pub tenant: Option<String>,
    /// Who says so, for the record; the terminal's user if absent.
    #[arg(long)]
    pub by: Option<String>,
}

impl Owner {
    pub fn api(&self, config: &Config) -> anyhow::Result<Api> {
        Api::of_owner(config, &self.at.namespace, self.tenant.as_deref())
    }
}

/// One run, or all that a filter names.
#[derive(Debug, Args, Clone)]
pub struct Which {
    /// The run's id; without it --workflow says which runs.
    #[arg(required_unless_present = "workflow", conflicts_with = "workflow")]
    pub run: Option<String>,
    /// All runs of this workflow in progress.
    #[arg(long)]
    pub workflow: Option<String>,
    /// Of them those in this state.
    #[arg(long, requires = "workflow", value_parser = PossibleValuesParser::new(["open", "running", "waiting", "paused"]))]
    pub status: Option<String>,
    /// Of them those whose pause has this in its reason.
    #[arg(long, requires = "workflow")]
    pub error: Option<String>,
    /// Only say how many there are.
    #[arg(long, requires = "workflow")]
    pub dry_run: bool,
    /// Why, for the journal.
    #[arg(long)]
    pub reason: Option<String>,
    #[command(flatten)]
    pub whose: Whose,
}

#[derive(Debug, Args, Clone)]
pub struct Decision {
    pub run: String,
    /// The approval's node; the only open one if absent.
    pub node: Option<String>,
    /// The question as `workflow approvals` prints it: the decision is about that one and no other. If absent, the one that is open now.
    #[arg(long, value_name = "QUESTION")]
    pub question: Option<String>,
    #[arg(long)]
    pub comment: Option<String>,
    #[command(flatten)]
    pub whose: Whose,
}

#[derive(Debug, Subcommand)]
pub enum Act {
    /// Start a run of a published workflow.
    Start {
        workflow: String,
        /// The person; without --user and --anonymous the campaign itself is the subject.
        #[arg(long)]
        user: Option<String>,
        #[arg(long, conflicts_with = "user")]
        anonymous: Option<String>,
        /// What it begins with, as a JSON object.
        #[arg(long, value_name = "JSON")]
        input: Option<String>,
        /// Idempotency key: the same key gives the same run.
        #[arg(long)]
        id: Option<String>,
        #[command(flatten)]
        whose: Whose,
    },
    /// Send a run a signal that it waits for.
    Signal {
        run: String,
        name: String,
        /// What the signal brings along.
        #[arg(long, value_name = "JSON")]
        with: Option<String>,
        #[command(flatten)]
        whose: Whose,
    },
    /// Say yes to what a run asks.
    Approve(Decision),
    /// Say no to what a run asks.
    Reject(Decision),
    /// Print the questions that wait for people, with the link of each one's page.
    Approvals {
        /// Decided ones too.
        #[arg(long)]
        all: bool,
        #[arg(long)]
        workflow: Option<String>,
        #[command(flatten)]
        whose: Whose,
    },
    /// Let nothing more happen in a run, or in all runs of a workflow.
    Pause(Which),
    /// Let a paused run go on, or all that are paused: what is out of attempts is tried again.
    Resume(Which),
    /// Try again what is out of attempts, also where nobody knows whether it was done, and at once what waits for its next try, such as
    /// for the end of quiet hours or of a cap under a policy of before.
    Retry(Which),
    /// End a run in order, or all runs of a workflow: what is in flight settles.
    Cancel(Which),
    /// End a run that cannot be ended in order.
    Terminate {
        run: String,
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        whose: Whose,
    },
    /// Say what became of an effect of which nobody knows whether it was done.
    #[command(group(clap::ArgGroup::new("outcome").required(true)))]
    Resolve {
        effect: String,
        /// It was done, with what it gave.
        #[arg(long, value_name = "JSON", group = "outcome")]
        done: Option<String>,
        /// It was not done: it may be tried again.
        #[arg(long, group = "outcome")]
        not_done: bool,
        #[command(flatten)]
        whose: Whose,
    },
    /// Check workflow files, run their tests, and have new entries go to them. Runs in progress stay on the version they began under.
    Publish {
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        owner: Owner,
    },
    /// Have a workflow take no new entries. Runs in progress go on.
    Retire {
        name: String,
        #[command(flatten)]
        owner: Owner,
    },
}

pub async fn run(config: &Config, asked: &Act, json: bool) -> anyhow::Result<()> {
    let done = match asked {
        Act::Start { workflow, user, anonymous, input, id, whose } => {
            start(config, whose, (workflow, user.as_deref(), anonymous.as_deref()), input.as_deref(), id.as_deref(), json).await
        }
        Act::Signal { run, name, with, whose } => {
            let with = with.as_deref().map(|text| parsed("--with", text)).transpose()?;
            act(config, whose, run, "signal", json!({"name": name, "with": with}), json).await
        }
        Act::Approve(decision) => decide(config, decision, "approve", json).await,
        Act::Reject(decision) => decide(config, decision, "reject", json).await,
        Act::Approvals { all, workflow, whose } => approvals(config, whose, *all, workflow.as_deref(), json).await,
        Act::Pause(which) => many(config, which, "pause", json).await,
        Act::Resume(which) => many(config, which, "resume", json).await,
        Act::Retry(which) => many(config, which, "retry", json).await,
        Act::Cancel(which) => many(config, which, "cancel", json).await,
        Act::Terminate { run, reason, whose } => act(config, whose, run, "terminate", json!({ "reason": reason }), json).await,
        Act::Resolve { effect, done, not_done, whose } => {
            let done = done.as_deref().map(|text| parsed("--done", text)).transpose()?;
            let api = api(config, whose).await?;
            let body = json!({"done": done, "not_done": not_done, "by": by(whose)});
            let answer = api.post(&format!("/api/v1/effects/{effect}/resolve"), &waiting(), &body).await?;
            say(&answer, json);
            Ok(())
        }
        Act::Publish { files, owner } => publish(config, owner, files, json).await,
        Act::Retire { name, owner } => retire(config, owner, name, json).await,
    };
    done.map_err(told)
}

async fn api(config: &Config, whose: &Whose) -> anyhow::Result<Api> {
    Api::of(config, &whose.at.namespace, whose.tenant.as_deref()).await
}

/// For what is asked of all that a tenant has. One run is there or not, and says more than whether its tenant is.
async fn api_of_known(config: &Config, whose: &Whose) -> anyhow::Result<Api> {
    Api::of_known(config, &whose.at.namespace, whose.tenant.as_deref()).await
}

pub fn by(whose: &Whose) -> String {
    named_or_user(whose.by.as_ref())
}

pub fn named_or_user(by: Option<&String>) -> String {
    by.cloned().or_else(config::user).unwrap_or_else(|| "command line".to_owned())
}

fn waiting() -> [(&'static str, String); 1] {
    [("wait", WAIT_S.to_string())]
}

fn parsed(what: &str, text: &str) -> anyhow::Result<Value> {
    serde_json::from_str(text).with_context(|| format!("{what} is no JSON: {text:?}"))
}

/// What became of it: one line, and what the journal tells of it on standard error.
fn say(answer: &Value, json: bool) {
    if json {
        return print_json(answer);
    }
    let text = |name: &str| answer[name].as_str().unwrap_or_default();
    let status = match text("status") {
        "accepted" => "accepted, not decided yet",
        "already_started" => "started already, by the same key",
        other => other,
    };
    outln!("{} {status}", text("run"));
    for line in answer["story"].as_array().into_iter().flatten() {
        note!("  {} {}", line["at"].as_str().unwrap_or_default(), line["line"].as_str().unwrap_or_default());
    }
}

async fn start(
    config: &Config,
    whose: &Whose,
    (workflow, user, anonymous): (&str, Option<&str>, Option<&str>),
    input: Option<&str>,
    id: Option<&str>,
    json: bool,
) -> anyhow::Result<()> {
    let input = input.map(|text| parsed("--input", text)).transpose()?;
    let mut body = json!({"workflow": workflow, "input": input, "id": id});
    if let Some(user) = user {
        body["user_id"] = json!(user);
    }
    if let Some(anonymous) = anonymous {
        body["anonymous_id"] = json!(anonymous);
    }
    let answer = api(config, whose).await?.post("/api/v1/campaigns/create", &waiting(), &body).await?;
    say(&answer, json);
    Ok(())
}

async fn act(config: &Config, whose: &Whose, run: &str, action: &str, mut body: Value, json: bool) -> anyhow::Result<()> {
    body["by"] = json!(by(whose));
    let answer = api(config, whose).await?.post(&format!("/api/v1/campaigns/{run}/{action}"), &waiting(), &body).await?;
    say(&answer, json);
    Ok(())
}

async fn decide(config: &Config, decision: &Decision, action: &str, json: bool) -> anyhow::Result<()> {
    let body = json!({"node": decision.node, "question": decision.question, "comment": decision.comment});
    act(config, &decision.whose, &decision.run, action, body, json).await
}

async fn many(config: &Config, which: &Which, action: &str, json: bool) -> anyhow::Result<()> {
    if let Some(run) = &which.run {
        return act(config, &which.whose, run, action, json!({ "reason": which.reason }), json).await;
    }
    let api = api_of_known(config, &which.whose).await?;
    let mut body = json!({
        "action": action, "workflow": which.workflow, "status": which.status, "error": which.error,
        "by": by(&which.whose), "reason": which.reason, "dry_run": which.dry_run,
    });
    let told = if which.dry_run { "would be told" } else { "told" };
    let mut runs = 0;
    loop {
        let answer = api.post("/api/v1/campaigns/actions", &[], &body).await?;
        runs += answer["runs"].as_u64().unwrap_or_default();
        if answer["next"].is_null() {
            break;
        }
        note!("{runs} runs {told} so far");
        body["after"] = answer["next"].clone();
    }
    if json {
        print_json(&json!({"action": action, "runs": runs, "more": false}));
    } else {
        outln!("{runs} runs {told} to {action}");
    }
    Ok(())
}

async fn approvals(config: &Config, whose: &Whose, all: bool, workflow: Option<&str>, json: bool) -> anyhow::Result<()> {
    let mut query = vec![("status", if all { "all" } else { "open" }.to_owned()), ("limit", "1000".to_owned())];
    query.extend(workflow.map(|workflow| ("workflow", workflow.to_owned())));
    let answer = api_of_known(config, whose).await?.get("/api/v1/approvals", &query).await?;
    if json {
        print_json(&answer);
        return Ok(());
    }
    let mut rows = Rows::new(&["workflow", "run", "node", "for", "who", "until", "decided", "question", "link"]);
    for one in answer["approvals"].as_array().into_iter().flatten() {
        let decided = one["decided"].as_object().map(|decided| {
            let word = if decided["approved"] == true { "approved" } else { "rejected" };
            format!("{word} by {}", decided["by"].as_str().unwrap_or_default())
        });
        let decided = decided.or_else(|| (one["status"] == "cancelled").then(|| "no longer asked".to_owned()));
        let text = |name: &str| one[name].clone();
        rows.push(vec![
            text("workflow"),
            text("run"),
            text("node"),
            text("subject"),
            text("who"),
            text("until"),
            json!(decided),
            text("question"),
            text("link"),
        ]);
    }
    rows.print(false);
    Ok(())
}

async fn publish(config: &Config, owner: &Owner, files: &[PathBuf], json: bool) -> anyhow::Result<()> {
    let mut read = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        read.push(json!({"file": file.display().to_string(), "text": text}));
    }
    let published =
        owner.api(config)?.post("/api/v1/workflows", &[], &json!({ "files": &read, "by": named_or_user(owner.by.as_ref()) })).await;
    let answer = match published {
        Ok(answer) => answer,
        Err(error) => return Err(with_problems(error)),
    };
    let is_scheduled = |file: &Value| {
        let text = file["text"].as_str().unwrap_or_default();
        Definition::parse("", text).is_ok_and(|definition| matches!(definition.entry.by, EntryBy::Schedule { .. }))
    };
    if owner.tenant.is_none() && read.iter().any(is_scheduled) {
        note!(
            "the runs that a schedule begins are tenant `default`'s, as for every workflow of the whole namespace; --tenant gives it to another"
        );
    }
    if json {
        print_json(&answer);
        return Ok(());
    }
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        note!("warning: {}", problem_line(warning).trim_end());
    }
    for one in answer["workflows"].as_array().into_iter().flatten() {
        let (name, digest) = (one["name"].as_str().unwrap_or_default(), one["digest"].as_str().unwrap_or_default());
        let word = if one["published"] == true { "published" } else { "in force already" };
        outln!("{name} {word}, {} tests passed, digest {}", one["tests"], digest.get(..12).unwrap_or(digest));
    }
    if answer["in_force"] == false {
        note!("it is stored, and the fold has not heard of it everywhere yet: new entries go to it in a moment");
    }
    Ok(())
}

async fn retire(config: &Config, owner: &Owner, name: &str, json: bool) -> anyhow::Result<()> {
    let answer = owner
        .api(config)?
        .post(&format!("/api/v1/workflows/{name}/retire"), &[], &json!({ "by": named_or_user(owner.by.as_ref()) }))
        .await?;
    if json {
        print_json(&answer);
    } else {
        outln!("{name} takes no new entries; runs in progress go on");
    }
    Ok(())
}
