//! A read model's file: how it is opened for writing, which schema it has, and how far it has come.
//!
//! The schema is the numbered migrations, then one column per feature on `profiles`, then the views, which may name those columns.
//! WAL with `synchronous = NORMAL`: after a power cut the file is whole and a little behind, and its offsets say exactly how far.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Row};

use super::{Error, PROJECTION_VERSION};
use crate::domain::{Incarnation, Offset};

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations/sqlite");

/// Repeatable: dropped and made anew whenever their text changes.
const VIEWS: &str = concat!(
    include_str!("../../migrations/sqlite/repeatable/views.sql"),
    include_str!("../../migrations/sqlite/repeatable/workflow_views.sql")
);

/// Pages of 4 KiB the writer keeps in memory. The newest buckets' index pages and the hot profiles must fit, or each insert reads.
const CACHE_KIB: u32 = 64 * 1024;

/// How long a writer waits for another writer's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How far a partition has been applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPosition {
    pub topic: String,
    pub partition: u32,
    pub incarnation: Incarnation,
    pub next: Offset,
}

pub fn write_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(false)
        // Checkpoints are timed in `checkpoint`: the automatic ones would run inside a commit.
        .pragma("wal_autocheckpoint", "0")
        // Cut back when begun anew, so that the file's size says how much is in it.
        .pragma("journal_size_limit", "4194304")
        .pragma("cache_size", format!("-{CACHE_KIB}"))
        .pragma("temp_store", "MEMORY")
        .statement_cache_capacity(256)
        .thread_name(|id| format!("read-model-{id}"))
        .disable_statement_logging()
}

/// Creates a new file with the whole schema.
pub async fn create(path: &Path) -> Result<SqliteConnection, Error> {
    let options = write_options(path).create_if_missing(true);
    let mut connection = options.connect().await.map_err(Error::sql("create"))?;
    prepare(&mut connection).await?;
    set_meta(&mut connection, "projection_version", &PROJECTION_VERSION.to_string()).await?;
    Ok(connection)
}

/// Opens an existing file, bringing its schema up to this build's; refuses one whose rows another version made.
pub async fn open(path: &Path, namespace: &str) -> Result<SqliteConnection, Error> {
    let refused = |reason: String| Error::Refused { namespace: namespace.to_owned(), reason };
    if !path.exists() {
        return Err(refused(format!("its file {} is gone", path.display())));
    }
    let options = write_options(path).create_if_missing(false);
    let mut connection = options.connect().await.map_err(Error::sql("open"))?;
    match prepare(&mut connection).await {
        Ok(()) => {}
        Err(Error::Migrate(error)) => return Err(refused(error.to_string())),
        Err(error) => return Err(error),
    }
    let version = meta(&mut connection, "projection_version").await?;
    if version.as_deref() != Some(PROJECTION_VERSION.to_string().as_str()) {
        let version = version.unwrap_or_else(|| "none".to_owned());
        return Err(refused(format!("its rows are of projection version {version}, this build writes {PROJECTION_VERSION}")));
    }
    Ok(connection)
}

/// A file that nobody reads yet need not survive a power cut until it is finished.
pub async fn set_durable(connection: &mut SqliteConnection, durable: bool) -> Result<(), Error> {
    let pragma = if durable { "PRAGMA synchronous = NORMAL" } else { "PRAGMA synchronous = OFF" };
    sqlx::query(pragma).execute(connection).await.map_err(Error::sql("synchronous")).map(drop)
}

async fn prepare(connection: &mut SqliteConnection) -> Result<(), Error> {
    MIGRATIONS.run(&mut *connection).await?;
    super::tables::add_columns(connection).await?;
    let digest = crate::domain::Digest::of(VIEWS.as_bytes()).to_hex();
    if meta(connection, "views").await?.as_deref() != Some(&digest) {
        sqlx::raw_sql(VIEWS).execute(&mut *connection).await.map_err(Error::sql("views"))?;
        set_meta(connection, "views", &digest).await?;
    }
    Ok(())
}

async fn meta(connection: &mut SqliteConnection, key: &str) -> Result<Option<String>, Error> {
    let row = sqlx::query_scalar("SELECT value FROM meta WHERE key = ?").bind(key.to_owned());
    row.fetch_optional(connection).await.map_err(Error::sql("meta"))
}

async fn set_meta(connection: &mut SqliteConnection, key: &str, value: &str) -> Result<(), Error> {
    let statement = sqlx::query("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)").bind(key.to_owned()).bind(value.to_owned());
    statement.execute(connection).await.map_err(Error::sql("meta")).map(drop)
}

pub async fn positions(connection: &mut SqliteConnection) -> Result<Vec<StoredPosition>, Error> {
    let query = sqlx::query("SELECT topic, partition, incarnation, next_offset FROM processing_status");
    let rows = query.fetch_all(connection).await.map_err(Error::sql("positions"))?;
    let position = |row: sqlx::sqlite::SqliteRow| StoredPosition {
        topic: row.get(0),
        partition: row.get(1),
        incarnation: Incarnation(row.get(2)),
        next: Offset(row.get::<i64, _>(3) as u64),
    };
    Ok(rows.into_iter().map(position).collect())
}
