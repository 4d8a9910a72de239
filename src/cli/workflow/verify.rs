//! `flywheel workflow verify NEW --against HISTORY`: recorded journals held against a definition, for whoever edits a campaign, and for CI.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::super::exit::Exit;
use super::super::output::{note, outln, print_json};
use super::super::{run, topic};
use crate::config::Config;
use crate::domain::{Millis, SubjectKey};
use crate::schema;
use crate::schema::records::JournalRecord;
use crate::workflow::{Definition, Fact, Policy, Verified, What};

const JOURNAL: &str = "journal";

#[derive(Debug, Args)]
pub struct Verify {
    /// The workflow file as it is to be published, or a shipped one's name.
    pub new: String,
    /// What was recorded: a namespace of the data folder, its topic NAMESPACE.journal, or a file that `topic export` wrote of it.
    #[arg(long, value_name = "HISTORY")]
    pub against: String,
    /// Of which recorded version: the beginning of its digest, `all`, or that under which the newest run began.
    #[arg(long, default_value = "newest", value_name = "DIGEST")]
    pub of: String,
    /// The policy file in force; the shipped one if absent.
    #[arg(long)]
    pub policy: Option<PathBuf>,
}

/// Every subject's facts, in their order.
type Journals = BTreeMap<String, Vec<Fact>>;

pub fn run(config: &Config, asked: &Verify, json: bool) -> anyhow::Result<()> {
    let definition = Arc::new(definition(&asked.new)?);
    let policy = match &asked.policy {
        None => Policy::shipped(),
        Some(file) => {
            let text =
                std::fs::read_to_string(file).map_err(|error| Exit::not_found(format!("cannot read {}: {error}", file.display())))?;
            Policy::parse(&file.display().to_string(), &text).map_err(|problems| Exit::check_failed(problems.to_string()))?
        }
    };
    let journals = journals(config, &asked.against)?;
    let versions = versions(&journals, &definition.name);
    let of = chosen(&versions, asked, &definition.name)?;
    let mut verified = Verified::default();
    for (subject, journal) in &journals {
        verified.add(&definition, &policy, subject, journal, of);
    }
    print(&definition, &verified, of, json);
    let others = versions.len() - 1;
    if of.is_some() && others > 0 && !json {
        note!("runs of {others} earlier version{} were left out: --of all", if others == 1 { "" } else { "s" });
    }
    match verified.divergences.len() {
        0 => Ok(()),
        several => Err(Exit::check_failed(format!("{several} of {} runs would have gone another way", verified.runs))),
    }
}

/// The recorded versions of the workflow, each with the time at which a run last began under it.
fn versions<'j>(journals: &'j Journals, name: &str) -> BTreeMap<&'j str, Millis> {
    let mut versions = BTreeMap::new();
    for fact in journals.values().flatten() {
        let What::RunStarted { workflow, digest, .. } = &fact.what else { continue };
        if workflow == name {
            let newest = versions.entry(digest.as_str()).or_insert(fact.at);
            *newest = fact.at.max(*newest);
        }
    }
    versions
}

/// Which of them is asked for; `None` for all.
fn chosen<'j>(versions: &BTreeMap<&'j str, Millis>, asked: &Verify, name: &str) -> anyhow::Result<Option<&'j str>> {
    let Some((newest, _)) = versions.iter().max_by_key(|(_, began)| **began) else {
        let message = format!("{} has no run of `{name}`: nothing could be verified. Was the workflow renamed?", asked.against);
        return Err(Exit::not_found(message));
    };
    match asked.of.as_str() {
        "all" => Ok(None),
        "newest" => Ok(Some(newest)),
        start => match versions.keys().filter(|digest| digest.starts_with(start)).collect::<Vec<_>>().as_slice() {
            [digest] => Ok(Some(digest)),
            found => {
                let known: Vec<String> = versions.keys().map(|digest| digest.chars().take(12).collect()).collect();
                let message = format!("{} recorded versions of `{name}` begin with {start:?}; there are {}", found.len(), known.join(", "));
                Err(Exit::not_found(message))
            }
        },
    }
}

fn definition(named: &str) -> anyhow::Result<Definition> {
    let shipped = crate::workflow::SHIPPED.iter().find(|(name, _)| *name == named).map(|(_, text)| (*text).to_owned());
    let text = match shipped {
        Some(text) => text,
        None => std::fs::read_to_string(named).map_err(|error| Exit::not_found(format!("cannot read {named}: {error}")))?,
    };
    Definition::parse(named, &text).map_err(|problems| Exit::check_failed(problems.to_string()))
}

fn journals(config: &Config, against: &str) -> anyhow::Result<Journals> {
    let mut journals = Journals::new();
    let path = Path::new(against);
    if path.is_file() {
        for record in topic::read_export(JOURNAL, path)? {
            let record = record?;
            take(&mut journals, &record.key, record.value.as_deref()).with_context(|| format!("a record of {against}"))?;
        }
        return Ok(journals);
    }
    let name = if against.contains('.') { against.to_owned() } else { format!("{against}.{JOURNAL}") };
    let log = run::reader(config)?;
    let found = topic::find(&*log, &name)?;
    topic::scan(&*log, &found, topic::Range::default(), |partition, record| {
        take(&mut journals, record.key, record.value).with_context(|| format!("{name}/{}/{}", partition.0, record.offset.0))
    })?;
    Ok(journals)
}

fn take(journals: &mut Journals, key: &[u8], value: Option<&[u8]>) -> anyhow::Result<()> {
    let Some(value) = value.filter(|_| !key.is_empty()) else { return Ok(()) };
    let JournalRecord::Fact(fact) = schema::decode::<JournalRecord<'_>>(value)? else { return Ok(()) };
    SubjectKey::parts(key).context("its key is no subject's")?;
    let fact = Fact::from_parts(Millis(fact.at), fact.run, fact.body)?;
    journals.entry(String::from_utf8_lossy(key).into_owned()).or_default().push(fact);
    Ok(())
}

fn print(definition: &Definition, verified: &Verified, of: Option<&str>, json: bool) {
    let Verified { runs, facts, divergences } = verified;
    let shown = |key: &str| key.replace('\0', "/");
    if json {
        let divergences = divergences.iter().map(|one| {
            json!({"subject": shown(&one.subject), "run": one.run.to_string(), "fact": one.fact, "at": one.at.to_string(),
                "expected": one.expected, "got": one.got})
        });
        let digest = definition.digest.to_hex();
        print_json(
            &json!({"workflow": definition.name, "digest": digest, "against": of, "runs": runs, "facts": facts, "divergences": divergences.collect::<Vec<_>>()}),
        );
        return;
    }
    for one in divergences {
        outln!("{} run {} fact {} at {}", shown(&one.subject), one.run, one.fact, one.at);
        outln!("  recorded: {}", one.got);
        outln!("  expected: {}", one.expected);
    }
    let same = runs - divergences.len();
    outln!("{}: {same} of {runs} runs, {facts} facts, as recorded", definition.name);
}
