//! Where read models are: SQLite files in a folder, or a Postgres database. Everything else in this module is given one of these.

use std::path::{Path, PathBuf};
#[cfg(feature = "postgres")]
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Error;
#[cfg(feature = "postgres")]
use super::postgres::Postgres;
use crate::domain::TenantId;

/// A cheap handle; clones share what is open.
#[derive(Clone)]
pub enum Place {
    /// One SQLite file per namespace and generation.
    Folder(PathBuf),
    /// One schema per namespace and generation.
    #[cfg(feature = "postgres")]
    Postgres(Arc<Postgres>),
}

/// Which database the read models are in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    #[default]
    Sqlite,
    Postgres,
}

/// How read models on Postgres are reached and kept: the section `[postgres]`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:5432/database`, with `?sslmode=verify-full` and the like. Secret.
    pub url: String,
    /// Put before the names of all schemas, so that several installations can share a database.
    pub prefix: String,
    /// Connections for reading, per namespace and process. Each projector has one of its own.
    pub connections_max: u32,
    /// How long a connection or a statement may take, in ms, before it is given up and tried anew.
    pub timeout_ms: u64,
    /// Days that rows of `events` are kept, in wall-clock namespaces; 0 keeps all. The log keeps its own.
    pub events_keep_days: u32,
    pub analysts: Vec<Analyst>,
}

/// A login of the database's that sees one tenant's rows and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Analyst {
    /// A role that exists already: `CREATE ROLE acme_analyst LOGIN PASSWORD '...'`.
    pub role: String,
    pub tenant: TenantId,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { url: String::new(), prefix: String::new(), connections_max: 4, timeout_ms: 8_000, events_keep_days: 0, analysts: Vec::new() }
    }
}

impl std::fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresOptions").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Place {
    /// A database; refuses settings that cannot be, without a word to the server.
    #[cfg(feature = "postgres")]
    pub fn postgres(options: &PostgresOptions) -> Result<Self, Error> {
        Ok(Place::Postgres(Arc::new(Postgres::new(options)?)))
    }

    /// The same for a build that has no Postgres.
    #[cfg(not(feature = "postgres"))]
    pub fn postgres(_: &PostgresOptions) -> Result<Self, Error> {
        let what = "this build has no Postgres: build with --features postgres, or set read.backend to \"sqlite\"".to_owned();
        Err(Error::Setting { key: "read.backend", what })
    }

    /// Asks the database whether it is there and may be used, within the time that `postgres.timeout_ms` gives. A folder always is.
    pub async fn check(&self) -> Result<(), Error> {
        match self {
            Place::Folder(_) => Ok(()),
            #[cfg(feature = "postgres")]
            Place::Postgres(postgres) => postgres.check().await,
        }
    }

    pub fn backend(&self) -> Backend {
        match self {
            Place::Folder(_) => Backend::Sqlite,
            #[cfg(feature = "postgres")]
            Place::Postgres(_) => Backend::Postgres,
        }
    }
}

impl From<&Path> for Place {
    fn from(folder: &Path) -> Self {
        Place::Folder(folder.to_owned())
    }
}

impl From<PathBuf> for Place {
    fn from(folder: PathBuf) -> Self {
        Place::Folder(folder)
    }
}

impl From<&PathBuf> for Place {
    fn from(folder: &PathBuf) -> Self {
        Place::Folder(folder.clone())
    }
}

impl From<&Place> for Place {
    fn from(place: &Place) -> Self {
        place.clone()
    }
}
