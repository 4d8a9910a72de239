//! What a namespace's inbox is told: how many partitions it has, and what is true of records that do not say it themselves.

use serde::{Deserialize, Serialize};

/// How values are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Avro if the value begins with the zero byte of the Confluent wire format, which no JSON does.
    #[default]
    Auto,
    Json,
    Avro,
}

/// The inbox of one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Partitions of the topic; 0 is no inbox. Fixed once it exists.
    pub partitions: u32,
    /// Whose records are that name no tenant and carry no write key; empty: they are dead letters.
    pub tenant: String,
    /// The source of records that name none.
    pub source: String,
    pub format: Format,
}

impl Default for Options {
    fn default() -> Self {
        Self { partitions: 0, tenant: String::new(), source: "inbox".into(), format: Format::Auto }
    }
}
