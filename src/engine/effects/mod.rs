//! Effects: what runs ask of the world, performed at least once under one key, fairly, and on record before anything irrevocable.
//!
//! The subjects' folds mint attempts; this executor reads them from the journal, performs them through a [`Registry`] of performers and
//! hands what became of them in as commands. It owns no decision: whether to retry, what an unknown outcome means and whether a message
//! may go are facts that it waits for. What is pending is a fold of the journal, kept by tenant in tables of its own.

mod append;
mod board;
mod breaker;
mod bucket;
mod call;
mod drive;
mod executor;
mod follower;
mod gate;
mod lane;
mod metrics;
mod named;
mod notices;
mod options;
mod outcome;
mod pending;
pub mod performers;
mod registry;
mod schedule;
mod table;
mod tail;
mod telling;
pub mod templates;
mod told;

#[cfg(test)]
mod tests;

pub use board::{Board, Command, Held, Job, LimitsOf};
pub use breaker::Settings as BreakerSettings;
pub use call::{Call, Inline, Leave, Needs, Performing, Port, Remote, Request};
pub use drive::advance;
pub use executor::{Handle, Settings, Setup, Status, Watch, start};
pub use follower::Follower;
pub use gate::Gate;
pub use named::{Known, Names};
pub use options::{ChannelOptions, EmailOptions, Folder, Options, SmtpOptions, Surroundings, WebhookOptions, WorkerOptions};
pub use registry::{ANY, Registry};
pub use schedule::{Limits, Settings as Sharing};
pub use table::Tables;
pub use templates::{Templates, check, literal};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] crate::log::Error),
    #[error(transparent)]
    State(#[from] crate::state::Error),
    #[error(transparent)]
    Stream(#[from] crate::stream::Error),
    #[error(transparent)]
    Schema(#[from] crate::schema::Error),
    #[error(transparent)]
    Fact(#[from] crate::workflow::CodecError),
    #[error("a row of pending effects cannot be read: {0}")]
    Row(String),
    #[error("no runtime for effects: {0}")]
    Runtime(String),
    #[error("{key}: {why}")]
    Options { key: String, why: String },
    #[error("stopped: {0}")]
    Stopped(String),
}
