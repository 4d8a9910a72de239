//! Why a partition loop cannot go on. Whatever concerns one record is a dead letter instead; these stop the process.

use crate::{log, schema, state};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    State(#[from] state::Error),
    #[error(transparent)]
    Schema(#[from] schema::Error),
    #[error(
        "{what}: state of fold version {found} has applied up to {flushed}, but {committed} is committed, and this build folds as version {ours}. \
         Either stop it cleanly with the build that wrote it and then start this one, or start with stream.rebuild_state = true (FLYWHEEL_STREAM__REBUILD_STATE=true) once to fold the log again"
    )]
    FoldVersion { what: String, found: u32, ours: u32, flushed: u64, committed: u64 },
    #[error("{what}: the state must be built again, but records below {start} are no longer in the log; restore a backup that has both")]
    Trimmed { what: String, start: u64 },
    #[error("{what}: {committed} is committed, but the log ends at {end}; it was cut or replaced: run `flywheel doctor`")]
    PastTheEnd { what: String, committed: u64, end: u64 },
    #[error(
        "{what}: {records} records were read but {counted} outcomes counted; this is a defect, and nothing of that batch was committed"
    )]
    Unbalanced { what: String, records: u64, counted: u64 },
    #[error("namespace {namespace} keeps {have} time, asked for {want}; its clock is fixed when it is created")]
    ClockDisagrees { namespace: String, have: &'static str, want: &'static str },
    #[error("{what} is damaged: {detail}")]
    Corrupt { what: String, detail: String },
    #[error("definition {digest} of kind {kind} is not in {topic}")]
    UnknownDefinition { kind: String, digest: String, topic: String },
    #[error("definition {digest}: {detail}")]
    BadDefinition { digest: String, detail: String },
    #[error("{} has a workflow {name}: choose another name, or have that one retired first", who(.by.as_deref()))]
    NameTaken { name: String, by: Option<String> },
    #[error(
        "the purpose `{purpose}` is used by {by}{}: keep its [[purpose]], or have that workflow retired, or published with another purpose, first",
        more(*.others)
    )]
    PurposeInUse { purpose: String, by: String, others: usize },
    /// Of one record, which becomes a dead letter; never seen outside a partition loop.
    #[error("{}: {}", .0.reason, .0.detail)]
    Record(super::fold::Fault),
    #[error("{what} stopped: {detail}")]
    Thread { what: String, detail: String },
}

/// How many nodes more.
fn more(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" (and {others} more nodes)") }
}

/// Whose a name is.
fn who(tenant: Option<&str>) -> String {
    tenant.map_or_else(|| "the namespace".to_owned(), |tenant| format!("tenant {tenant}"))
}
