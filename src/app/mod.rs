//! Composition: the one place that names concrete adapters and joins settings to components.

pub mod admin;
mod backend;
mod campaigns;
mod definitions;
mod edge;
mod engine;
mod folder;
mod health;
mod holding;
mod links;
mod plans;
mod preferences;
mod preview;
mod read_models;
mod runs;
mod server;
mod vitals;
mod world;

use std::net::SocketAddr;

pub use backend::OpenLog;
pub use edge::{Edge, takes_development_key};
pub use engine::{Engine, Ground, Opened};
pub use folder::{Contact, Folder};
pub use links::links;
pub use plans::rules_of;
pub use read_models::{check_read_models, read_models};
pub use server::Server;
pub use vitals::Vitals;
pub use world::{Plan, World};

use crate::engine::effects;
use crate::{gateway, log, projections, state, stream};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the data folder {folder}: {message}")]
    Folder { folder: String, message: String },
    #[error("cannot listen on {0}: {1}; choose another address with --listen or server.listen, port 0 for a free one")]
    Listen(String, std::io::Error),
    #[error(
        "{0} can be reached from other machines, and no source is configured: the development write key is for loopback only. \
         Add [[sources]] with a write key of your own to flywheel.toml"
    )]
    DevelopmentKeyInPublic(SocketAddr),
    #[error("source {source_name} sends to namespace {namespace}, which is not configured; add it under [[namespaces]]")]
    UnknownNamespace { source_name: String, namespace: String },
    #[error("{key} = {value:?} needs a build with the feature {feature}: cargo build --release --features cluster")]
    NotBuilt { key: &'static str, value: &'static str, feature: &'static str },
    #[error("stopped: {0}")]
    Stopped(String),
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error(transparent)]
    State(#[from] state::Error),
    #[error(transparent)]
    Limits(#[from] crate::limits::Error),
    #[error(transparent)]
    Effects(#[from] effects::Error),
    #[error(transparent)]
    Stream(#[from] stream::Error),
    #[error(transparent)]
    Topology(#[from] stream::topology::Error),
    #[error(transparent)]
    Projections(#[from] projections::Error),
    #[error(transparent)]
    Gateway(#[from] gateway::Error),
    #[error(
        "channels.email.smtp sends to people, and links in their mail would lead nowhere: {0}. Set links.base_url to the https address \
         at which this server is reached from outside, such as https://go.example.com; mail programs offer one-click unsubscribing at no other"
    )]
    NoBaseUrl(String),
    #[error("the policy of namespace {namespace}: {detail}")]
    Policy { namespace: String, detail: String },
    #[error("{0}")]
    Inbox(String),
    #[error("channels.templates: {0}")]
    Templates(String),
    #[error("links.keys: {0}")]
    LinkKey(#[from] crate::channels::link::KeyError),
    #[error("channels.bots: {}: {why}; src/channels/bots.toml shows the form", .file.display())]
    Bots { file: std::path::PathBuf, why: String },
}

impl Error {
    /// Whether the same may succeed a moment later.
    fn passes(&self) -> bool {
        match self {
            Error::Log(error) | Error::Stream(stream::Error::Log(error)) | Error::Effects(effects::Error::Log(error)) => {
                error.advice() == log::Advice::Retry
            }
            Error::State(error) | Error::Stream(stream::Error::State(error)) | Error::Effects(effects::Error::State(error)) => {
                error.may_pass()
            }
            _ => false,
        }
    }

    fn folder(folder: &Folder, error: &std::io::Error) -> Self {
        Error::Folder { folder: folder.root().display().to_string(), message: error.to_string() }
    }
}
