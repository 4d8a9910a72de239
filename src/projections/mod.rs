//! Read models: the log's topics as SQL tables that anyone can query, one SQLite file per namespace.
//!
//! A projector tails a namespace's topics and commits rows and offsets in one transaction, only if the stored offset is the one it
//! started from; so every record is in the tables exactly once, whatever crashes and however many projectors run. The tables are never
//! the truth: a file of another incarnation, or ahead of the log, is refused and built anew beside the old one, then swapped in.
//!
//! Order to read in: `generation` (files), `store` (schema and connections), `bulk` (multi-row statements), `tables/` (records
//! to rows), `tail` (one step: fetch, apply, commit), `checkpoint`, `projector` (the thread), `rebuild`, then `query`, `reader` and `runs`.
//! Leaves to others: what records mean (`schema`), features (`features`), serving over HTTP (`gateway`).

mod bulk;
mod checkpoint;
mod day;
mod generation;
pub mod metrics;
mod person;
mod projector;
mod query;
mod reader;
mod rebuild;
pub mod runs;
mod store;
mod tables;
mod tail;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use generation::namespaces;
pub use projector::{Handle, Health, Options, Pins, Projector};
pub use query::{Column, Limits, Rows, Value, query};
pub use reader::{
    Member, OutcomeTotal, PartitionStatus, Reader, Reconciliation, Revenue, SegmentSize, SegmentSummary, Trace, TracedEvent, TracedOutcome,
};
pub use rebuild::{Progress, Rebuilt, rebuild};

use crate::{log, schema};

/// Raised when rows come out differently for the same records: files of another version are rebuilt.
pub const PROJECTION_VERSION: u32 = 2;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read model: {context}: {source}")]
    Sql { context: &'static str, source: sqlx::Error },
    #[error("read model schema: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
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
        "only a single SELECT, WITH, VALUES or EXPLAIN statement is run here: {0}. `SELECT name FROM sqlite_schema` lists the tables and views, docs/sql.md explains them"
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
                let code = source.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
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
