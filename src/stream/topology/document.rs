//! A topology file as it is written: every table and key, and nothing else. `mod.rs` makes a checked [`super::Topology`] of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::{features, intake, models};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) topology: Header,
    #[serde(default, rename = "processor")]
    pub(super) processors: Vec<Spanned<ProcessorTable>>,
    #[serde(default)]
    pub(super) intake: Option<Spanned<intake::Settings>>,
    #[serde(default)]
    pub(super) features: Option<Spanned<features::Settings>>,
    #[serde(default)]
    pub(super) scores: Option<Spanned<models::Settings>>,
    #[serde(default, rename = "segment")]
    pub(super) segments: Vec<SegmentTable>,
    #[serde(default, rename = "test", skip_serializing)]
    pub(super) tests: Vec<Spanned<TestTable>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) name: Spanned<String>,
    #[serde(default, skip_serializing)]
    pub(super) about: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProcessorTable {
    pub(super) name: Spanned<String>,
    pub(super) kind: Spanned<String>,
    pub(super) reads: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) writes: Vec<Spanned<String>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SegmentTable {
    pub(super) name: Spanned<String>,
    #[serde(default, skip_serializing)]
    pub(super) about: String,
    pub(super) when: Spanned<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestTable {
    pub(super) name: Spanned<String>,
    /// What `at` counts from.
    #[serde(default)]
    pub(super) start: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) given: Vec<Spanned<GivenTable>>,
    #[serde(default)]
    pub(super) expect: Vec<Spanned<ExpectTable>>,
}

/// One record that arrives. Exactly one of `track`, `page`, `screen`, `identify`, `group`, `alias` and `body`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct GivenTable {
    pub(super) at: Option<Spanned<String>>,
    /// When it arrived, if later than it happened.
    pub(super) received: Option<Spanned<String>>,
    pub(super) user: Option<String>,
    pub(super) anonymous: Option<String>,
    /// The message id; one is made up if there is none.
    pub(super) id: Option<String>,
    pub(super) track: Option<String>,
    pub(super) page: Option<String>,
    pub(super) screen: Option<String>,
    pub(super) identify: Option<toml::Table>,
    pub(super) group: Option<String>,
    pub(super) alias: Option<String>,
    /// A body as it is, to show what becomes of a broken one.
    pub(super) body: Option<String>,
    pub(super) properties: Option<toml::Table>,
    pub(super) traits: Option<toml::Table>,
    pub(super) context: Option<toml::Table>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectTable {
    /// As of when; the last record's time if absent.
    #[serde(default)]
    pub(super) at: Option<Spanned<String>>,
    /// How many records ended as `applied`, `duplicate`, `filtered`, `dead_lettered`, or as one of the reasons.
    #[serde(default)]
    pub(super) outcomes: BTreeMap<Spanned<String>, u64>,
    /// Everyone in a segment.
    #[serde(default)]
    pub(super) members: BTreeMap<Spanned<String>, Vec<String>>,
    /// Every change of the segments it names, in order: `60d ann enters lapsing`.
    #[serde(default)]
    pub(super) changes: Option<Vec<Spanned<String>>>,
    /// Conditions that hold for a person.
    #[serde(default)]
    pub(super) profiles: BTreeMap<Spanned<String>, Vec<Spanned<String>>>,
}
