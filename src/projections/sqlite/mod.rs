//! A read model in SQLite: one file per namespace and generation (`files`), written by one connection whose write-ahead file is kept small
//! (`checkpoint`), in statements of many rows (`bulk`).
//!
//! The schema is the numbered migrations, then one column per feature on `profiles`, then the views, which may name those columns.
//! WAL with `synchronous = NORMAL`: after a power cut the file is whole and a little behind, and its offsets say exactly how far.

pub mod bulk;
mod checkpoint;
pub mod files;
pub mod read;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Column as _, ConnectOptions, Connection, Row as _, TypeInfo, ValueRef};

use self::checkpoint::Checkpoints;
use super::bulk::{Cell, Lookup, Statement};
use super::value::{Row, Value};
use super::{Error, PROJECTION_VERSION, VIEWS};
use crate::domain::FieldType;
use crate::schema::profile;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations/sqlite");

/// Pages of 4 KiB the writer keeps in memory. The newest buckets' index pages and the hot profiles must fit, or each insert reads.
const CACHE_KIB: u32 = 64 * 1024;

/// How long a writer waits for another writer's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The one writer of a file.
pub struct Store {
    path: PathBuf,
    connection: SqliteConnection,
    checkpoints: Checkpoints,
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

impl Store {
    /// Creates a new file with the whole schema.
    pub async fn create(path: &Path) -> Result<Self, Error> {
        let options = write_options(path).create_if_missing(true);
        let mut connection = options.connect().await.map_err(Error::sql("create"))?;
        prepare(&mut connection).await?;
        set_meta(&mut connection, "projection_version", &PROJECTION_VERSION.to_string()).await?;
        Ok(Self::of(path, connection))
    }

    /// Opens an existing file, bringing its schema up to this build's; refuses one whose rows another version made.
    pub async fn open(path: &Path, namespace: &str) -> Result<Self, Error> {
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
        Ok(Self::of(path, connection))
    }

    fn of(path: &Path, connection: SqliteConnection) -> Self {
        Self { path: path.to_owned(), connection, checkpoints: Checkpoints::new(path) }
    }

    /// A file that nobody reads yet need not survive a power cut until it is finished.
    pub async fn set_durable(&mut self, durable: bool) -> Result<(), Error> {
        let pragma = if durable { "PRAGMA synchronous = NORMAL" } else { "PRAGMA synchronous = OFF" };
        sqlx::query(pragma).execute(&mut self.connection).await.map_err(Error::sql("synchronous")).map(drop)
    }

    /// A transaction that writes from its begin, so that it never finds another writer half way.
    pub async fn begin(&mut self) -> Result<(), Error> {
        self.plain("BEGIN IMMEDIATE").await
    }

    pub async fn commit(&mut self) -> Result<(), Error> {
        self.plain("COMMIT").await
    }

    pub async fn roll_back(&mut self) -> Result<(), Error> {
        self.plain("ROLLBACK").await
    }

    async fn plain(&mut self, sql: &'static str) -> Result<(), Error> {
        sqlx::query(sql).execute(&mut self.connection).await.map_err(Error::sql(sql)).map(drop)
    }

    pub async fn execute(&mut self, what: &'static str, sql: &str, cells: Vec<Cell>) -> Result<u64, Error> {
        let query = sqlx::query_with(AssertSqlSafe(sql.to_owned()), arguments(cells));
        query.execute(&mut self.connection).await.map_err(Error::sql(what)).map(|done| done.rows_affected())
    }

    pub async fn fetch(&mut self, what: &'static str, sql: &str, cells: Vec<Cell>) -> Result<Vec<Row>, Error> {
        let query = sqlx::query_with(AssertSqlSafe(sql.to_owned()), arguments(cells));
        let found = query.fetch_all(&mut self.connection).await.map_err(Error::sql(what))?;
        rows(&found).map_err(Error::sql(what))
    }

    pub async fn write(&mut self, statement: &Statement, cells: Vec<Cell>) -> Result<(), Error> {
        bulk::write(&mut self.connection, statement, cells).await
    }

    pub async fn look_up(&mut self, lookup: &Lookup, keys: Vec<Cell>) -> Result<Vec<Row>, Error> {
        bulk::fetch(&mut self.connection, lookup, keys).await
    }

    /// Between transactions: keeps the write-ahead file small without waiting for it.
    pub async fn tend(&mut self) -> Result<(), Error> {
        self.checkpoints.tend(&mut self.connection).await
    }

    /// The same where nobody waits for rows.
    pub async fn tend_waiting(&mut self) -> Result<(), Error> {
        if self.checkpoints.is_due() {
            self.checkpoints.complete(&mut self.connection).await?;
        }
        Ok(())
    }

    /// Makes everything durable in the database itself and closes it.
    pub async fn finish(mut self) -> Result<(), Error> {
        self.set_durable(true).await?;
        let path = self.path.clone();
        self.close().await?;
        std::fs::File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io(&path))
    }

    /// Closes the file in order, so that nothing is left in the write-ahead file.
    pub async fn close(mut self) -> Result<(), Error> {
        self.checkpoints.complete(&mut self.connection).await?;
        self.connection.close().await.map_err(Error::sql("close"))
    }
}

async fn prepare(connection: &mut SqliteConnection) -> Result<(), Error> {
    MIGRATIONS.run(&mut *connection).await?;
    add_columns(connection).await?;
    let digest = crate::domain::Digest::of(VIEWS.as_bytes()).to_hex();
    if meta(connection, "views").await?.as_deref() != Some(&digest) {
        sqlx::raw_sql(VIEWS).execute(&mut *connection).await.map_err(Error::sql("views"))?;
        set_meta(connection, "views", &digest).await?;
    }
    Ok(())
}

/// Adds a column for every feature that `profiles` lacks.
async fn add_columns(connection: &mut SqliteConnection) -> Result<(), Error> {
    let present = sqlx::query("SELECT name FROM pragma_table_info('profiles')").fetch_all(&mut *connection).await;
    let present: Vec<String> = present.map_err(Error::sql("profiles"))?.iter().map(|row| row.get(0)).collect();
    let mut ddl = String::new();
    for column in profile::columns() {
        if !present.iter().any(|name| name == column.name) {
            ddl.push_str(&format!("ALTER TABLE profiles ADD COLUMN {} {};\n", column.name, sql_type(column.kind)));
        }
    }
    if ddl.is_empty() {
        return Ok(());
    }
    let ddl = format!("BEGIN IMMEDIATE;\n{ddl}COMMIT;");
    sqlx::raw_sql(AssertSqlSafe(ddl)).execute(connection).await.map_err(Error::sql("feature columns")).map(drop)
}

fn sql_type(kind: FieldType) -> &'static str {
    match kind {
        FieldType::Int | FieldType::Bool | FieldType::Time => "INTEGER",
        FieldType::Float | FieldType::Money => "REAL",
        FieldType::Text => "TEXT",
    }
}

async fn meta(connection: &mut SqliteConnection, key: &str) -> Result<Option<String>, Error> {
    let row = sqlx::query_scalar("SELECT value FROM meta WHERE key = ?").bind(key.to_owned());
    row.fetch_optional(connection).await.map_err(Error::sql("meta"))
}

async fn set_meta(connection: &mut SqliteConnection, key: &str, value: &str) -> Result<(), Error> {
    let statement = sqlx::query("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)").bind(key.to_owned()).bind(value.to_owned());
    statement.execute(connection).await.map_err(Error::sql("meta")).map(drop)
}

fn arguments(cells: Vec<Cell>) -> SqliteArguments {
    let mut arguments = SqliteArguments::default();
    cells.into_iter().for_each(|cell| bulk::bind(&mut arguments, cell));
    arguments
}

/// The rows of one answer.
fn rows(found: &[SqliteRow]) -> Result<Vec<Row>, sqlx::Error> {
    let columns = found.first().map_or(&[][..], SqliteRow::columns);
    let columns: Arc<[String]> = columns.iter().map(|column| column.name().to_owned()).collect();
    found.iter().map(|row| Ok(Row::new(Arc::clone(&columns), values(row)?))).collect()
}

fn values(row: &SqliteRow) -> Result<Vec<Value>, sqlx::Error> {
    (0..row.columns().len()).map(|at| value(row, at)).collect()
}

fn value(row: &SqliteRow, at: usize) -> Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    // The value's own type, not the column's: SQLite columns hold any.
    match raw.type_info().name() {
        "INTEGER" => row.try_get_unchecked(at).map(Value::Int),
        "REAL" => row.try_get_unchecked(at).map(Value::Float),
        "BLOB" => row.try_get_unchecked(at).map(Value::Blob),
        _ => row.try_get_unchecked(at).map(Value::Text),
    }
}
