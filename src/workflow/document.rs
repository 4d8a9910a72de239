//! A workflow file as it is written: every table and key, and nothing else. `check` makes a [`super::Definition`] of it.
//!
//! A node's keys stand in one table whatever its kind, so that every problem has a place in the file; which kind takes which is [`KINDS`].

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use toml::Spanned;

pub(super) type Text = Spanned<String>;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) workflow: Header,
    #[serde(default, rename = "node")]
    pub(super) nodes: Vec<Spanned<NodeTable>>,
    #[serde(default, rename = "test", skip_serializing)]
    pub(super) tests: Vec<Spanned<TestTable>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) name: Text,
    #[serde(default, skip_serializing)]
    pub(super) about: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) first: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) on_failure: Option<Text>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) vars: BTreeMap<Text, Spanned<toml::Value>>,
    pub(super) entry: Spanned<EntryTable>,
}

/// Exactly one of `segment`, `event`, `command`, `every` and `broadcast`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryTable {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) segment: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) event: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) command: Option<Spanned<bool>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) every: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) weekdays: Option<Vec<Text>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) zone: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) broadcast: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) throttle: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) when: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reenter: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<Text>,
}

macro_rules! node_table {
    ($($field:ident: $ty:ty,)+) => {
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct NodeTable {
            pub(super) name: Text,
            pub(super) kind: Text,
            #[serde(default, skip_serializing)]
            pub(super) about: String,
            $(#[serde(default, skip_serializing_if = "Option::is_none")] pub(super) $field: Option<Spanned<$ty>>,)+
        }

        impl NodeTable {
            /// The keys that are there beside `name`, `kind` and `about`, with their places.
            pub(super) fn present(&self) -> Vec<(&'static str, Range<usize>)> {
                let mut present = Vec::new();
                $(if let Some(value) = &self.$field { present.push((stringify!($field), value.span())); })+
                present
            }
        }
    };
}

node_table! {
    next: String,
    agent: String,
    channel: String,
    webhook: String,
    input: BTreeMap<String, Text>,
    returns: BTreeMap<String, Text>,
    retry: RetryTable,
    timeout: String,
    purpose: String,
    priority: String,
    not_after: String,
    takes: String,
    on_error: BTreeMap<Text, Text>,
    notify: Vec<Text>,
    unknown: String,
    on_failure: String,
    on_refused: String,
    wait: String,
    until_local: String,
    weekdays: Vec<Text>,
    zone: String,
    until_date: String,
    offset: String,
    any: Vec<AwaitedTable>,
    on_timeout: String,
    cases: Vec<CaseTable>,
    otherwise: String,
    fresh: bool,
    salt: String,
    arms: Vec<ArmTable>,
    branches: Vec<Text>,
    join: String,
    failing: String,
    needs: toml::Value,
    who: String,
    shows: BTreeMap<String, Text>,
    deadline: String,
    silence: String,
    on_approve: String,
    on_reject: String,
    body: String,
    when: String,
    most: u32,
    workflow: String,
    subject: String,
    event: String,
    properties: BTreeMap<String, Text>,
    set: BTreeMap<Text, Text>,
    outcome: String,
    failed: bool,
}

/// The keys that each kind of node takes: those that it must have, and those that it may.
pub(super) const KINDS: [(&str, &[&str], &[&str]); 14] = [
    (
        "effect",
        &["timeout", "next"],
        &[
            "agent",
            "channel",
            "webhook",
            "input",
            "returns",
            "retry",
            "unknown",
            "on_failure",
            "on_refused",
            "purpose",
            "priority",
            "not_after",
            "takes",
            "on_error",
            "notify",
        ],
    ),
    ("delay", &["next"], &["wait", "until_local", "weekdays", "zone", "until_date", "offset"]),
    ("wait_for", &["any", "timeout", "next"], &["on_timeout"]),
    ("branch", &["cases", "otherwise"], &["fresh"]),
    ("split", &["arms"], &["salt"]),
    ("parallel", &["branches", "join"], &["failing", "on_failure"]),
    ("join", &["next"], &["needs"]),
    ("approval", &["who", "deadline", "silence", "on_approve", "on_reject"], &["shows"]),
    ("loop", &["body", "most", "next"], &["when"]),
    ("start", &["workflow", "subject", "next"], &["input", "timeout", "on_failure"]),
    ("emit", &["event", "next"], &["properties"]),
    ("set", &["set", "next"], &[]),
    ("goal", &["event"], &["when", "next"]),
    ("exit", &[], &["outcome", "failed"]),
];

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryTable {
    #[serde(default = "attempts")]
    pub(super) attempts: Spanned<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) first: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) most: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) factor: Option<Spanned<f64>>,
}

fn attempts() -> Spanned<u32> {
    Spanned::new(0..0, 5)
}

/// Exactly one of `event`, `enters`, `leaves` and `signal`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AwaitedTable {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) event: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) enters: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) leaves: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) signal: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) when: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<Text>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseTable {
    pub(super) when: Text,
    pub(super) next: Text,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ArmTable {
    pub(super) name: Text,
    pub(super) weight: Spanned<u32>,
    pub(super) next: Text,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestTable {
    pub(super) name: Text,
    #[serde(default)]
    pub(super) start: Option<Text>,
    #[serde(default)]
    pub(super) subject: Option<String>,
    #[serde(default)]
    pub(super) zone: Option<String>,
    #[serde(default)]
    pub(super) profile: toml::Table,
    /// What is known of the person beside the profile: `email`, `phone`, `push_token`. Made up where it is not said.
    #[serde(default)]
    pub(super) attributes: toml::Table,
    /// What the person has said from the first, as in a consent event: `{ marketing = true }`.
    #[serde(default)]
    pub(super) consent: toml::Table,
    /// Another policy than the one that the binary carries, written as its file would be.
    #[serde(default)]
    pub(super) policy: Option<Text>,
    /// How long the test looks on after the last record.
    #[serde(default, rename = "for")]
    pub(super) lasts: Option<Text>,
    #[serde(default)]
    pub(super) given: Vec<Spanned<GivenTable>>,
    #[serde(default)]
    pub(super) effects: Vec<Spanned<EffectTable>>,
    #[serde(default)]
    pub(super) expect: Vec<Text>,
    #[serde(default)]
    pub(super) never: Vec<Text>,
}

impl Serialize for TestTable {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Tests are left out of the canonical text.
        serializer.serialize_unit()
    }
}

/// One thing that happens: exactly one of the kinds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct GivenTable {
    pub(super) at: Option<Text>,
    pub(super) enters: Option<String>,
    pub(super) leaves: Option<String>,
    pub(super) event: Option<String>,
    pub(super) start: Option<bool>,
    pub(super) signal: Option<String>,
    pub(super) approve: Option<Text>,
    pub(super) reject: Option<Text>,
    pub(super) pause: Option<bool>,
    pub(super) resume: Option<bool>,
    pub(super) cancel: Option<bool>,
    pub(super) retry: Option<bool>,
    /// What the person says about consent.
    pub(super) consent: Option<toml::Table>,
    /// The channel whose address nothing may be sent to any more.
    pub(super) suppress: Option<String>,
    pub(super) by: Option<String>,
    pub(super) id: Option<String>,
    /// An event's properties, a signal's payload, a start's input.
    pub(super) with: toml::Table,
    /// What the profile is from here on.
    pub(super) profile: Option<toml::Table>,
}

/// What the performer of an effect answers: the next of its node's entries each time, the last one again and again.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EffectTable {
    pub(super) node: Text,
    #[serde(default)]
    pub(super) takes: Option<Text>,
    #[serde(default)]
    pub(super) result: Option<toml::Table>,
    #[serde(default)]
    pub(super) fails: Option<String>,
    #[serde(default)]
    pub(super) category: Option<Text>,
    /// Begins and never answers.
    #[serde(default)]
    pub(super) lost: bool,
    #[serde(default = "once")]
    pub(super) times: u32,
}

fn once() -> u32 {
    1
}
