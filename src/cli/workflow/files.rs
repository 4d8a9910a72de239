//! `flywheel workflow check|show|test`: definitions in files, compiled in, or published to a namespace.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use super::super::check::{Passed, Text, check_each};
use super::super::exit::Exit;
use super::super::output::{note, out, outln, print_json};
use super::super::run;
use super::Drawing;
use crate::config::Config;
use crate::domain::{Digest, Namespace};
use crate::engine::effects::{self, Known, Templates};
use crate::stream::{self, Topics, topology};
use crate::workflow::{self, Definition, Policy, SHIPPED};

/// Everything that is meant by names and paths; all shipped ones if nothing is named.
fn texts(named: &[String]) -> anyhow::Result<Vec<Text>> {
    if named.is_empty() {
        return Ok(SHIPPED.iter().map(|(name, text)| shipped(name, text)).collect());
    }
    let mut found = Vec::new();
    for name in named {
        found.extend(texts_of(name)?);
    }
    Ok(found)
}

fn shipped(name: &str, text: &str) -> Text {
    Text { file: format!("topologies/workflows/{name}.toml"), text: text.to_owned() }
}

fn texts_of(named: &str) -> anyhow::Result<Vec<Text>> {
    if let Some((name, text)) = SHIPPED.iter().find(|(name, _)| *name == named) {
        return Ok(vec![shipped(name, text)]);
    }
    let path = Path::new(named);
    if !path.exists() {
        let names = SHIPPED.map(|(name, _)| name).join(", ");
        let message =
            format!("there is no workflow {named:?}: shipped ones are {names}, anything else is a path to a .toml file or a folder");
        return Err(Exit::not_found(message));
    }
    let mut files: Vec<PathBuf> = vec![path.to_owned()];
    if path.is_dir() {
        let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {named}"))?;
        files = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        if files.is_empty() {
            return Err(Exit::not_found(format!("{named} holds no .toml file")));
        }
    }
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Text { file: file.display().to_string(), text })
    };
    files.into_iter().map(read).collect()
}

/// What workflows may name, as far as the configuration says it. Where it does not, or there is none, what is shipped stands in, and a name
/// that is not there is no mistake yet: publishing asks the server.
fn known(config: &Config, is_configured: bool, namespace: &str) -> Known {
    let performers = if is_configured { "in the configuration" } else { "among the shipped ones, and no configuration says more" };
    let known = Known::performers(&config.effects, &config.channels, performers, is_configured);
    let own = config.namespaces.iter().find(|own| own.name.as_str() == namespace);
    let (policy, topology) = (own.and_then(|own| own.policy.as_deref()), own.and_then(|own| own.topology.as_deref()));
    let (policy, topology) = (policy.unwrap_or(&config.policy.default), topology.unwrap_or(&config.topology.default));
    let known = match policy {
        "" => known.with_purposes(&Policy::shipped(), "in the shipped policy; another may be in force on the server", false),
        file => {
            let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
            match text.and_then(|text| Policy::parse(file, &text).map_err(|problems| problems.to_string())) {
                Ok(policy) => known.with_purposes(&policy, &format!("in the policy {file}"), true),
                Err(error) => {
                    note!("warning: no purpose could be held against the policy {file}: {error}");
                    known
                }
            }
        }
    };
    match topology::load(topology) {
        Ok(topology) => {
            let of = if is_configured { "in the topology" } else { "in the shipped topology" };
            let segments: Vec<&str> = topology.segments.iter().map(|segment| &*segment.name).collect();
            known.with_segments(segments, &format!("{of} {}", topology.name), is_configured)
        }
        Err(error) => {
            note!("warning: no segment could be held against the topology {topology}: {error}");
            known
        }
    }
}

pub fn check((config, file): (&Config, Option<&Path>), named: &[String], namespace: &str, json: bool) -> anyhow::Result<()> {
    let templates = Templates::load(&config.channels.templates.0).map_err(|error| Exit::check_failed(error.to_string()))?;
    let known = known(config, file.is_some(), namespace);
    check_each(texts(named)?.into_iter().map(Ok), json, |file, text| {
        let definition = Definition::parse(file, text)?;
        let warnings = effects::check(file, text, &definition, &templates, &known)?;
        let digest = definition.digest.to_hex();
        let (nodes, goals, tests) = (definition.nodes.len(), definition.goals.len(), definition.tests.len());
        let line = format!("{} of {nodes} nodes, {goals} goals, {tests} tests, digest {}", definition.name, &digest[..12]);
        let json = json!({"workflow": definition.name, "digest": digest, "nodes": nodes, "goals": goals, "tests": tests});
        Ok(Passed { line, json, warnings })
    })
}

pub fn show(config: &Config, named: &str, namespace: &str, format: Drawing, json: bool) -> anyhow::Result<()> {
    let definition = find(config, named, namespace)?;
    let drawing = match format {
        Drawing::Text => workflow::Drawing::Text,
        Drawing::Mermaid => workflow::Drawing::Mermaid,
    };
    let drawn = workflow::draw(&definition, drawing);
    if json {
        print_json(&json!({"workflow": definition.name, "about": definition.about, "digest": definition.digest.to_hex(),
                           "canonical": definition.canonical, "drawing": drawn}));
    } else {
        out!("{drawn}");
    }
    Ok(())
}

/// The definition that is meant: a file, else the one in force in the namespace under that name, else the shipped one.
pub fn find(config: &Config, named: &str, namespace: &str) -> anyhow::Result<Definition> {
    let is_path = Path::new(named).is_file();
    if !is_path && let Some(text) = published(config, namespace, named)? {
        return Definition::parse(&format!("{namespace}.definitions {named}"), &text).map_err(mistakes);
    }
    match texts_of(named)?.as_slice() {
        [Text { file, text }] => Definition::parse(file, text).map_err(mistakes),
        several => Err(Exit::not_found(format!("{named} is a folder of {} workflows: name one of them", several.len()))),
    }
}

fn mistakes(problems: crate::segments::Problems) -> anyhow::Error {
    Exit::check_failed(problems.to_string())
}

/// The text in force under that name in the namespace, or the one of that digest, if there is a log and it has one.
fn published(config: &Config, namespace: &str, named: &str) -> anyhow::Result<Option<String>> {
    let Ok(log) = run::reader(config) else { return Ok(None) };
    let Some(topics) = Topics::find(&*log, &Namespace::new(namespace)?)? else { return Ok(None) };
    let stored = stream::workflows(&*log, &topics)?;
    let by_digest = Digest::from_hex(named).filter(|digest| stored.known.contains_key(digest));
    let of_tenants = || stored.all_active().map(|(_, digest)| digest).find(|digest| stored.known[digest].name == named);
    let digest = stored.active(None, named).or(by_digest).or_else(of_tenants);
    Ok(digest.and_then(|digest| stored.known.get(&digest)).map(|version| version.text.clone()))
}

pub fn test(named: &[String], stories: bool, json: bool) -> anyhow::Result<()> {
    let (mut failed, mut ran, mut told) = (0, 0, Vec::new());
    for Text { file, text } in texts(named)? {
        let definition = Definition::parse(&file, &text).map_err(mistakes)?;
        let verdicts = workflow::test(&definition);
        if !json {
            outln!("{file}: {} tests", verdicts.len());
        }
        for verdict in &verdicts {
            ran += 1;
            failed += usize::from(!verdict.failures.is_empty());
            if !json {
                out!("{verdict}");
                if stories && verdict.failures.is_empty() {
                    verdict.story.iter().for_each(|line| outln!("    {line}"));
                }
            }
        }
        let tests = verdicts.iter().map(|v| json!({"test": v.name, "line": v.line, "failures": v.failures, "story": v.story}));
        told.push(json!({"workflow": definition.name, "file": file, "tests": tests.collect::<Vec<_>>()}));
    }
    if json {
        print_json(&json!(told));
    } else if failed == 0 {
        note!("{ran} test{} passed", if ran == 1 { "" } else { "s" });
    }
    if failed > 0 { Err(Exit::check_failed(format!("{failed} of {ran} tests failed"))) } else { Ok(()) }
}
