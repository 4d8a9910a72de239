//! From a file to a [`Definition`], or to everything that is wrong with it, each with file, line, reason and hint.
//!
//! A workflow that passes has no node that leads nowhere, none that nothing leads to, no loop without a bound, no wait without an end
//! and no expression of the wrong type: none of that can come up while a customer is in it.

mod entry;
mod graph;
mod node;
mod warnings;
mod words;

use std::collections::BTreeMap;

use serde_json::Value as Json;
use toml::Spanned;

pub use self::warnings::warnings;
use self::words::Words;
use super::cases;
use super::definition::{Definition, Goal, Kind, Node, NodeIx};
use super::document::{Document, Header, KINDS, NodeTable};
use super::expression::{Names, Returns, type_named, type_of_json};
use crate::domain::Digest;
use crate::segments::{Problems, Source, Type, did_you_mean};

/// Nodes of one workflow: far more than anyone draws.
const NODES_MAX: usize = 1_000;

impl Definition {
    /// Reads and checks a workflow; `file` is what problems call it.
    pub fn parse(file: &str, text: &str) -> Result<Definition, Problems> {
        Self::read(Source::new(file, text))
    }

    /// Reads one that was published, by this build or an earlier one with fewer rules.
    pub fn stored(file: &str, text: &str) -> Result<Definition, Problems> {
        Self::read(Source::stored(file, text))
    }

    fn read(mut source: Source<'_>) -> Result<Definition, Problems> {
        let definition = match toml::from_str::<Document>(source.text) {
            Ok(document) => assemble(&document, &mut source),
            Err(error) => {
                source.report_toml(&error);
                None
            }
        };
        source.finish(definition)
    }
}

fn assemble(document: &Document, source: &mut Source<'_>) -> Option<Definition> {
    let header = &document.workflow;
    check_name("workflow", header.name.get_ref(), header.name.span(), source);
    let vars = variables(header, source);
    let tables = known_kinds(document, source)?;
    let names = names(&vars, &tables);
    let index = index(&tables, source);
    let mut words = Words { names, index, source };
    let (mut nodes, mut goals) = (Vec::new(), Vec::new());
    for table in &tables {
        let name = table.get_ref().name.get_ref();
        if table.get_ref().kind.get_ref() == "goal" {
            goals.push(goal(table, &mut words));
        } else if let Some(kind) = node::kind(table, &mut words) {
            nodes.push(Node { name: name.as_str().into(), about: table.get_ref().about.clone(), kind });
        }
    }
    let entry = entry::entry(&header.entry, &mut words);
    let first = match &header.first {
        Some(first) => words.target(first.get_ref(), first.span()),
        None => Some(0),
    };
    let on_failure = header.on_failure.as_ref().and_then(|name| words.target(name.get_ref(), name.span()));
    let (entry, first) = (entry?, first?);
    if nodes.len() != words.index.len() {
        return None;
    }
    let places: Vec<_> =
        tables.iter().filter(|table| table.get_ref().kind.get_ref() != "goal").map(|table| table.get_ref().name.span()).collect();
    let roots: Vec<NodeIx> = goals.iter().filter_map(|goal| goal.next).chain(on_failure).collect();
    if let Some(at) = entry::round(&entry, &nodes) {
        let hint = "give the entry a `when` that the emitted event does not meet, `reenter = \"never\"`, or emit another event".to_owned();
        let message = format!("`{}` emits the event that the workflow begins with: it would begin itself again and again", nodes[at].name);
        source.report_rule(places.get(at).cloned().unwrap_or(0..0), message, Some(hint));
    }
    // What is wrong in a node may be what leads to another.
    let is_whole = source.is_clean();
    graph::check(&graph::Graph { nodes: &nodes, first, roots: &roots, places: &places, is_whole }, source);
    let canonical = canonical(document);
    let mut definition = Definition {
        name: header.name.get_ref().clone(),
        about: header.about.clone(),
        digest: Digest::of(canonical.as_bytes()),
        canonical,
        entry,
        vars,
        on_failure,
        first,
        nodes,
        goals,
        tests: Vec::new(),
        profile: Vec::new(),
    };
    definition.profile = words::profile(&definition);
    definition.tests = cases::check(&document.tests, &definition, source);
    Some(definition)
}

fn check_name(what: &str, name: &str, span: std::ops::Range<usize>, source: &mut Source<'_>) {
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !is_name || name.len() > 64 {
        let hint = "names are a-z, 0-9 and `_`, beginning with a letter: expressions and columns carry them".to_owned();
        source.report(span, format!("{name:?} is not a {what}'s name"), Some(hint));
    }
}

fn variables(header: &Header, source: &mut Source<'_>) -> BTreeMap<String, (Type, Json)> {
    let mut vars = BTreeMap::new();
    for (name, value) in &header.vars {
        let json = cases::to_json(value.get_ref());
        match type_of_json(&json) {
            Some(ty) => {
                vars.insert(name.get_ref().clone(), (ty, json));
            }
            None => source.report(value.span(), "a variable is a text, a number, or true or false", None),
        }
    }
    vars
}

/// The nodes whose kind is known and whose keys fit it.
fn known_kinds<'d>(document: &'d Document, source: &mut Source<'_>) -> Option<Vec<&'d Spanned<NodeTable>>> {
    if document.nodes.is_empty() || document.nodes.len() > NODES_MAX {
        let message = format!("a workflow has 1 to {NODES_MAX} nodes, this one {}", document.nodes.len());
        source.report(document.workflow.name.span(), message, Some("add `[[node]]` tables".to_owned()));
        return None;
    }
    let mut all_known = true;
    for table in &document.nodes {
        let node = table.get_ref();
        check_name("node", node.name.get_ref(), node.name.span(), source);
        let kind = node.kind.get_ref();
        let Some((_, must, may)) = KINDS.iter().find(|(known, ..)| known == kind) else {
            let names = KINDS.iter().map(|(name, ..)| *name);
            let hint = match did_you_mean(kind, names.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("kinds are {}", names.collect::<Vec<_>>().join(", ")),
            };
            source.report(node.kind.span(), format!("there is no kind of node `{kind}`"), Some(hint));
            all_known = false;
            continue;
        };
        let present = node.present();
        for (key, span) in &present {
            if !must.contains(key) && !may.contains(key) {
                let hint = format!("it takes {}", must.iter().chain(*may).copied().collect::<Vec<_>>().join(", "));
                source.report(span.clone(), format!("`{key}` is not a key of a `{kind}` node"), Some(hint));
            }
        }
        for key in *must {
            if !present.iter().any(|(there, _)| there == key) {
                let (message, hint) = missing(kind, key);
                source.report(node.name.span(), format!("`{}` {message}", node.name.get_ref()), Some(hint));
                all_known = false;
            }
        }
    }
    all_known.then(|| document.nodes.iter().collect())
}

/// What is said where a key is missing: what would go wrong, and what to write.
fn missing(kind: &str, key: &str) -> (String, String) {
    match (kind, key) {
        (_, "next") => ("is a dead end: nothing says where it leads".to_owned(), "add `next = \"node\"`, or make it an `exit`".to_owned()),
        ("wait_for", "timeout") => {
            ("waits with no way out: what it waits for may never come".to_owned(), "add `timeout = \"3d\"`".to_owned())
        }
        ("approval", "deadline") => ("waits with no way out: nobody may answer".to_owned(), "add `deadline = \"2d\"`".to_owned()),
        ("approval", "silence") => {
            ("does not say what silence means".to_owned(), "add `silence = \"rejects\"`, `\"approves\"` or `\"pauses\"`".to_owned())
        }
        ("loop", "most") => ("is a loop without a bound".to_owned(), "add `most = 3`".to_owned()),
        ("branch", "otherwise") => ("is a dead end where no case holds".to_owned(), "add `otherwise = \"node\"`".to_owned()),
        ("effect", "timeout") => ("does not say how long it may take".to_owned(), "add `timeout = \"30s\"`".to_owned()),
        _ => (format!("has no `{key}`"), format!("a `{kind}` node needs it")),
    }
}

fn index(tables: &[&Spanned<NodeTable>], source: &mut Source<'_>) -> BTreeMap<String, NodeIx> {
    let mut index = BTreeMap::new();
    let mut goals: Vec<&str> = Vec::new();
    for table in tables {
        let name = &table.get_ref().name;
        let is_goal = table.get_ref().kind.get_ref() == "goal";
        let again = index.contains_key(name.get_ref()) || goals.contains(&name.get_ref().as_str());
        if again {
            source.report(name.span(), format!("there are two nodes named `{}`", name.get_ref()), None);
        } else if is_goal {
            goals.push(name.get_ref());
        } else {
            let at = NodeIx::try_from(index.len()).unwrap_or(NodeIx::MAX);
            index.insert(name.get_ref().clone(), at);
        }
    }
    index
}

/// What expressions may name; a type that is not one is reported where the node is checked.
fn names(vars: &BTreeMap<String, (Type, Json)>, tables: &[&Spanned<NodeTable>]) -> Names {
    let mut results = BTreeMap::new();
    for table in tables {
        let node = table.get_ref();
        let declared = |fields: &[(&str, Type)]| Returns::Declared(fields.iter().map(|(name, ty)| ((*name).to_owned(), *ty)).collect());
        let returns = match node.kind.get_ref().as_str() {
            "effect" => {
                let declared = node.returns.as_ref().map(Spanned::get_ref).into_iter().flatten();
                Returns::Declared(declared.filter_map(|(name, ty)| Some((name.clone(), type_named(ty.get_ref())?))).collect())
            }
            "wait_for" | "start" => Returns::Anything,
            "approval" => declared(&[("approved", Type::Bool), ("by", Type::Text), ("comment", Type::Text)]),
            "loop" => declared(&[("round", Type::Int)]),
            _ => continue,
        };
        results.insert(node.name.get_ref().clone(), returns);
    }
    Names { vars: vars.iter().map(|(name, (ty, _))| (name.clone(), *ty)).collect(), results, event: false, only_shows: false }
}

fn goal(table: &Spanned<NodeTable>, words: &mut Words<'_, '_>) -> Goal {
    let node = table.get_ref();
    let when = node.when.as_ref().and_then(|text| words.on_event(|words| words.condition(text)));
    Goal {
        name: node.name.get_ref().clone(),
        event: node.event.as_ref().map(|event| event.get_ref().clone()).unwrap_or_default(),
        when,
        next: node.next.as_ref().and_then(|name| words.target(name.get_ref(), name.span())),
    }
}

fn canonical(document: &Document) -> String {
    let mut plain = document.clone();
    plain.tests.clear();
    plain.workflow.about.clear();
    // What a node is for changes nothing that it does; `about` is not written.
    toml::to_string(&plain).expect("a workflow is plain data")
}

/// The place that `Kind::Join` has in its parallel.
pub(super) fn is_join(kind: &Kind) -> bool {
    matches!(kind, Kind::Join { .. })
}
