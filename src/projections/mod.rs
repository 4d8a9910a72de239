//! Read models: the log's topics as SQL tables that anyone can query, in SQLite (one file per namespace) or on Postgres (one schema).
//!
//! A projector tails a namespace's topics and commits rows and offsets in one transaction, only if the stored offset is the one it
//! started from; so every record is in the tables exactly once, whatever crashes and however many projectors run. The tables are never
//! the truth: a generation of another incarnation, or ahead of the log, is refused and built anew beside the old one, then swapped in.
//!
//! Order to read in: `place` and `generation` (where they are), `store` (the seam between the two databases), `value` and `bulk` (what
//! goes through it), `sqlite/` and `postgres/` behind it, `tables/` (records to rows), `tail` (one step: fetch, apply, commit),
//! `projector` (the thread), `rebuild`, then `query`, `reader` and `runs`.
//! Leaves to others: what records mean (`schema`), features (`features`), serving over HTTP (`gateway`).

mod bulk;
mod day;
mod generation;
pub mod metrics;
mod person;
mod place;
#[cfg(feature = "postgres")]
mod postgres;
mod projector;
mod query;
mod reader;
mod rebuild;
pub mod runs;
mod sqlite;
mod store;
mod tables;
mod tail;
#[cfg(test)]
mod tests;
mod value;

use std::path::PathBuf;

pub use generation::namespaces;
pub use place::{Analyst, Backend, Place, PostgresOptions};
pub use projector::{Handle, Health, Options, Pins, Projector};
pub use query::{Column, Limits, Rows, query};
pub use reader::{
    Member, OutcomeTotal, PartitionStatus, Reader, Reconciliation, Revenue, SegmentSize, SegmentSummary, Trace, TracedEvent, TracedOutcome,
};
pub use rebuild::{Progress, Rebuilt, rebuild};
pub use value::Value;

use crate::{log, schema};

/// Raised when rows come out differently for the same records: files of another version are rebuilt.
pub const PROJECTION_VERSION: u32 = 2;

/// Views for people, the same text for both databases; made anew whenever it changes.
const VIEWS: &str =
    concat!(include_str!("../../migrations/repeatable/views.sql"), include_str!("../../migrations/repeatable/workflow_views.sql"));

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read model: {context}: {source}")]
    Sql { context: &'static str, source: sqlx::Error },
    #[error("read model schema: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// Nothing will come of it until the setting, or what it names, is another.
    #[error("{key}: {what}")]
    Setting { key: &'static str, what: String },
    /// It may be there again.
    #[error("{key}: {what}: {source}; it is tried again")]
    Unreachable { key: &'static str, what: String, source: sqlx::Error },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    Schema(#[from] schema::Error),
    #[error("the read model of {namespace} is not to be trusted: {reason}; it is rebuilt from the log (`flywheel projections rebuild`)")]
    Refused { namespace: String, reason: String },
    #[error("another projector applied {topic}/{partition} first; its rows stand and this transaction is dropped")]
    Overtaken { topic: String, partition: u32 },
    #[error("namespace {0} has no read model yet; it appears as soon as a server has run on this folder")]
    Missing(String),
    #[error(
        "only a single SELECT, WITH, VALUES or EXPLAIN statement is run here: {0}. docs/sql.md has the tables and views; `SELECT name FROM sqlite_schema` lists them in SQLite"
    )]
    NotAQuery(String),
    #[error("the query took longer than {ms} ms and was stopped; narrow it, for instance by tenant_id and timestamp")]
    Timeout { ms: u64 },
    #[error("stopped: {0}")]
    Stopped(String),
    #[error("a rebuild of {0} is running already; wait for it or stop it")]
    RebuildRuns(String),
}

impl Error {
    /// For `map_err`: names what was being done.
    pub(crate) fn sql(context: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
        move |source| Error::Sql { context, source }
    }

    /// True if the file is not to be trusted and must be built anew.
    fn wants_rebuild(&self) -> bool {
        match self {
            Error::Refused { .. } => true,
            // SQLITE_CORRUPT and SQLITE_NOTADB, also as extended codes.
            Error::Sql { source, .. } => {
                let error = source.as_database_error().filter(|error| error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some());
                let code: Option<i32> = error.and_then(|error| error.code()?.parse().ok());
                code.is_some_and(|code| [11, 26].contains(&(code & 0xff)))
            }
            _ => false,
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { path, source }
    }
}
