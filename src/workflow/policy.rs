//! A namespace's policy: what permits are decided by, and which approvals a rule gives.
//!
//! Written in TOML and checked as a whole, with file, line, reason and hint, like the workflows themselves. Its digest is of the canonical
//! text, without comments and layout.

use std::ops::Range;

use serde::Deserialize;
use serde_json::Value as Json;
use toml::Spanned;

use super::cases::to_json;
use super::document::Text;
use super::expression::{Condition, Names, Scope};
use crate::domain::{Digest, Millis};
use crate::permit;
use crate::segments::{Problems, Source};

/// The policy that holds where none was declared.
pub const SHIPPED_POLICY: &str = include_str!("../../topologies/policy.toml");

#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub permits: permit::Policy,
    pub approvals: Vec<Rule>,
    /// The same policy without comments and layout: what the digest is of. It parses to the same policy.
    pub canonical: String,
    pub digest: Digest,
}

/// An approval that needs no person.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub workflow: String,
    pub node: String,
    /// Over what the approval shows; without it the rule always holds.
    pub when: Option<Condition>,
    pub by: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default, rename = "purpose")]
    purposes: Vec<Spanned<permit::Purpose>>,
    #[serde(default, rename = "cap")]
    caps: Vec<Spanned<permit::Cap>>,
    #[serde(default, rename = "quiet")]
    quiet: Vec<Spanned<permit::Quiet>>,
    #[serde(default)]
    zone: Option<Text>,
    #[serde(default)]
    permit_valid: Option<Spanned<Length>>,
    #[serde(default, rename = "approval")]
    approvals: Vec<Spanned<RuleTable>>,
}

#[derive(Deserialize)]
struct Length(#[serde(deserialize_with = "permit::duration")] i64);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    workflow: Text,
    node: Text,
    #[serde(default)]
    when: Option<Text>,
    by: Text,
}

impl Policy {
    /// The one that the binary carries.
    pub fn shipped() -> Policy {
        Self::parse("topologies/policy.toml", SHIPPED_POLICY).expect("a test reads it")
    }

    /// Reads and checks a policy; `file` is what problems call it.
    pub fn parse(file: &str, text: &str) -> Result<Policy, Problems> {
        let mut source = Source::new(file, text);
        let policy = match toml::from_str::<Document>(text) {
            Ok(document) => Some(assemble(&document, text, &mut source)),
            Err(error) => {
                source.report_toml(&error);
                None
            }
        };
        source.finish(policy)
    }

    /// The rule that gives an approval at once, if one does.
    pub fn approves(&self, workflow: &str, node: &str, shows: &Json, now: Millis) -> Option<&Rule> {
        let scope = Scope { run: None, subject: "", entry: None, event: None, profile: None, shows: Some(shows), now };
        let mut rules = self.approvals.iter().filter(|rule| rule.workflow == workflow && rule.node == node);
        rules.find(|rule| rule.when.as_ref().is_none_or(|when| when.holds(&scope)))
    }
}

fn assemble(document: &Document, text: &str, source: &mut Source<'_>) -> Policy {
    let permits = permit::Policy {
        purposes: document.purposes.iter().map(|purpose| purpose.get_ref().clone()).collect(),
        caps: document.caps.iter().map(|cap| cap.get_ref().clone()).collect(),
        quiet: document.quiet.iter().map(|quiet| quiet.get_ref().clone()).collect(),
        zone: document.zone.as_ref().map_or_else(|| "UTC".to_owned(), |zone| zone.get_ref().clone()),
        valid_ms: document.permit_valid.as_ref().map_or(crate::domain::MINUTE_MS, |valid| valid.get_ref().0),
    };
    if permits.purposes.is_empty() {
        let hint = "add `[[purpose]]` with a name and a basis: opt_in, opt_out or transactional".to_owned();
        source.report(0..0, "the policy has no purpose: no message could be sent", Some(hint));
    }
    for problem in permits.check() {
        source.report(place(document, problem.place), format!("{}: {}", problem.what, problem.reason), Some(problem.hint.to_owned()));
    }
    let approvals = document.approvals.iter().filter_map(|table| rule(table.get_ref(), source)).collect();
    let canonical = canonical(text);
    Policy { permits, approvals, digest: Digest::of(canonical.as_bytes()), canonical }
}

fn rule(table: &RuleTable, source: &mut Source<'_>) -> Option<Rule> {
    let names = Names { only_shows: true, ..Names::default() };
    let when = match &table.when {
        None => None,
        Some(text) => match Condition::compile(text.get_ref(), &names) {
            Ok(condition) => Some(condition),
            Err(error) => {
                source.report_expression(text.span(), text.get_ref(), &error);
                return None;
            }
        },
    };
    for (what, text) in [("workflow", &table.workflow), ("node", &table.node), ("by", &table.by)] {
        if text.get_ref().is_empty() {
            source.report(text.span(), format!("an approval rule's `{what}` is empty"), None);
        }
    }
    Some(Rule { workflow: table.workflow.get_ref().clone(), node: table.node.get_ref().clone(), when, by: table.by.get_ref().clone() })
}

fn place(document: &Document, place: permit::Place) -> Range<usize> {
    let found = match place {
        permit::Place::Purpose(at) => document.purposes.get(at).map(Spanned::span),
        permit::Place::Cap(at) => document.caps.get(at).map(Spanned::span),
        permit::Place::Quiet(at) => document.quiet.get(at).map(Spanned::span),
        permit::Place::Zone => document.zone.as_ref().map(Spanned::span),
        permit::Place::Valid => document.permit_valid.as_ref().map(Spanned::span),
        permit::Place::Whole => document.quiet.first().map(Spanned::span),
    };
    found.unwrap_or(0..0)
}

/// The same content with its keys in order.
fn canonical(text: &str) -> String {
    let table: toml::Value = toml::from_str(text).expect("it was read before");
    toml::to_string(&to_json(&table)).expect("a policy is plain data")
}
