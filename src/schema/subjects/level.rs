//! Which changes of a subject's schema are allowed: the levels of the Confluent registry, on Avro's resolution rules.

use std::fmt;

use super::Version;
use crate::schema::compatibility;

/// The level of a subject without one is the tenant's; the tenant's without one is `BACKWARD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    None,
    /// The new schema reads what was written with the newest before it.
    #[default]
    Backward,
    BackwardTransitive,
    /// The newest schema before it reads what is written with the new one.
    Forward,
    ForwardTransitive,
    Full,
    FullTransitive,
}

impl Level {
    pub const ALL: [Level; 7] = [
        Level::None,
        Level::Backward,
        Level::BackwardTransitive,
        Level::Forward,
        Level::ForwardTransitive,
        Level::Full,
        Level::FullTransitive,
    ];

    /// As the registry's API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::None => "NONE",
            Level::Backward => "BACKWARD",
            Level::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Level::Forward => "FORWARD",
            Level::ForwardTransitive => "FORWARD_TRANSITIVE",
            Level::Full => "FULL",
            Level::FullTransitive => "FULL_TRANSITIVE",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(text))
    }

    /// Whether all versions before count, not just the newest.
    pub fn is_transitive(self) -> bool {
        matches!(self, Level::BackwardTransitive | Level::ForwardTransitive | Level::FullTransitive)
    }

    /// What stands against `schema` after these versions.
    pub fn problems(self, before: &[Version], schema: &str) -> Vec<String> {
        let reads_old = matches!(self, Level::Backward | Level::BackwardTransitive | Level::Full | Level::FullTransitive);
        let is_read = matches!(self, Level::Forward | Level::ForwardTransitive | Level::Full | Level::FullTransitive);
        let mut problems = Vec::new();
        for version in before {
            if reads_old && let Err(why) = compatibility::check(&version.schema, schema) {
                problems.push(format!("it does not read what version {} wrote: {why}", version.version));
            }
            if is_read && let Err(why) = compatibility::check(schema, &version.schema) {
                problems.push(format!("version {} does not read what it writes: {why}", version.version));
            }
        }
        problems
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
