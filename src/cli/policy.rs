//! `flywheel policy`: what permits and approvals are decided by, checked as a file, put in force through the server, and shown.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use serde_json::json;
use tokio::task::block_in_place;

use super::args::InNamespace;
use super::check::{Passed, Text, check_each};
use super::exit::Exit;
use super::output::{note, out, outln, print_json};
use super::run;
use super::workflow::act::{self, Owner};
use super::workflow::api::{told, with_problems};
use crate::config::Config;
use crate::domain::{Namespace, TenantId};
use crate::segments::Problems;
use crate::stream::{self, Topics};
use crate::workflow;

#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Refuse mistakes, with file, line, reason and a hint.
    Check {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Check a policy file and have permits and approvals be decided by it from now on. The configuration's policy file does the same at the
    /// next start after it was changed.
    Publish {
        file: PathBuf,
        #[command(flatten)]
        owner: Owner,
    },
    /// Take back a tenant's own policy, so that the namespace's decides about its people again; without --tenant the namespace's, in whose
    /// place is the shipped one.
    Retire {
        #[command(flatten)]
        owner: Owner,
    },
    /// Print the policy in force, as a file to begin from.
    Show {
        #[command(flatten)]
        at: InNamespace,
        /// As it holds for this tenant's people: its own, else the namespace's.
        #[arg(long)]
        tenant: Option<String>,
    },
}

pub async fn run(config: &Config, asked: &Policy, json: bool) -> anyhow::Result<()> {
    match asked {
        Policy::Check { files } => check(files, json),
        Policy::Publish { file, owner } => publish(config, owner, file, json).await.map_err(told),
        Policy::Retire { owner } => retire(config, owner, json).await.map_err(told),
        Policy::Show { at, tenant } => block_in_place(|| show(config, &at.namespace, tenant.as_deref(), json)),
    }
}

fn read(file: &PathBuf) -> anyhow::Result<String> {
    std::fs::read_to_string(file).map_err(|error| Exit::not_found(format!("cannot read {}: {error}", file.display())))
}

fn check(files: &[PathBuf], json: bool) -> anyhow::Result<()> {
    let texts = files.iter().map(|path| Ok(Text { file: path.display().to_string(), text: read(path)? }));
    check_each(texts, json, |file, text| {
        let policy = workflow::Policy::parse(file, text)?;
        let (digest, permits) = (policy.digest.to_hex(), &policy.permits);
        let (purposes, caps, quiet, rules) = (permits.purposes.len(), permits.caps.len(), permits.quiet.len(), policy.approvals.len());
        let line = format!("{purposes} purposes, {caps} caps, {quiet} quiet times, {rules} approval rules, digest {}", &digest[..12]);
        let json = json!({"digest": digest, "purposes": purposes, "caps": caps, "quiet": quiet, "approval_rules": rules});
        Ok(Passed { line, json, warnings: Problems(Vec::new()) })
    })
}

async fn publish(config: &Config, owner: &Owner, file: &PathBuf, json: bool) -> anyhow::Result<()> {
    let body = json!({"file": file.display().to_string(), "text": read(file)?, "by": act::named_or_user(owner.by.as_ref())});
    let answer = owner.api(config)?.post("/api/v1/policy", &[], &body).await.map_err(with_problems)?;
    if json {
        print_json(&answer);
        return Ok(());
    }
    let digest = answer["digest"].as_str().unwrap_or_default();
    let whose = answer["tenant"].as_str().map_or_else(|| "everyone".to_owned(), |tenant| format!("tenant {tenant}"));
    let word = if answer["published"] == true { "in force" } else { "in force already" };
    outln!("the policy is {word} for {whose}, digest {}", digest.get(..12).unwrap_or(digest));
    if answer["in_force"] == false {
        note!("it is stored, and the fold has not heard of it everywhere yet: it decides in a moment");
    }
    Ok(())
}

async fn retire(config: &Config, owner: &Owner, json: bool) -> anyhow::Result<()> {
    let body = json!({ "by": act::named_or_user(owner.by.as_ref()) });
    let answer = owner.api(config)?.post("/api/v1/policy/retire", &[], &body).await?;
    if json {
        print_json(&answer);
        return Ok(());
    }
    let digest = answer["digest"].as_str().unwrap_or_default();
    let now = if answer["is_shipped"] == true { "the shipped policy" } else { "the namespace's policy" };
    let whose = answer["tenant"].as_str().map_or_else(|| "everyone".to_owned(), |tenant| format!("tenant {tenant}"));
    outln!("{now} is in force for {whose}, digest {}", digest.get(..12).unwrap_or(digest));
    if answer["in_force"] == false {
        note!("it is stored, and the fold has not heard of it everywhere yet: it decides in a moment");
    }
    Ok(())
}

fn show(config: &Config, namespace: &str, tenant: Option<&str>, json: bool) -> anyhow::Result<()> {
    let tenant = tenant.map(TenantId::new).transpose()?;
    let namespace = Namespace::new(namespace)?;
    let log = run::reader(config)?;
    let topics = Topics::find(&*log, &namespace)?;
    let topics = topics.ok_or_else(|| Exit::not_found(format!("there is no namespace {namespace} in {}", config.data.dir.display())))?;
    let found = stream::policy(&*log, &topics, tenant.as_ref()).context("reading the policy in force")?;
    let shipped = workflow::Policy::shipped();
    let of = found.as_ref().and_then(|found| found.of.as_ref());
    let said_by = match &found {
        None => "shipped: nobody declared one",
        Some(found) if found.from_file => "the configuration's file",
        Some(_) => "published",
    };
    let digest = found.as_ref().map_or(shipped.digest, |found| found.digest).to_hex();
    // The shipped one with its comments, which say what to change.
    let text = found.as_ref().map_or(workflow::SHIPPED_POLICY, |found| &found.text);
    if json {
        let tenant = of.map(ToString::to_string);
        print_json(&json!({"digest": digest, "text": text, "tenant": tenant, "is_shipped": found.is_none(),
                           "from_file": found.as_ref().is_some_and(|found| found.from_file)}));
        return Ok(());
    }
    let whose = of.map_or_else(|| "everyone".to_owned(), |tenant| format!("tenant {tenant}"));
    note!("for {whose}, {said_by}, digest {}", &digest[..12]);
    out!("{text}");
    Ok(())
}
