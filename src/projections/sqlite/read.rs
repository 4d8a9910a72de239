//! Reading a namespace's file: a few pooled connections to the generation in force, and one statement of a person's own on any of them.
//!
//! The pool belongs to one generation; after a rebuild the next question opens the new one.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Column as _, ConnectOptions, Executor, SqlSafeStr, Statement};

use super::files::Files;
use super::{arguments, rows, values};
use crate::projections::Error;
use crate::projections::bulk::Cell;
use crate::projections::query::{Column, Limits, Rows};
use crate::projections::value::Row;

/// Few: reads are short, and each connection is a thread.
const CONNECTIONS_MAX: u32 = 4;

/// How long a generation counts as the one in force before the pointer is read again. The old file answers as before meanwhile.
const BELIEVED_FOR: Duration = Duration::from_secs(1);

/// The progress check's period in steps of SQLite's virtual machine: about a tenth of a millisecond.
const STEPS_PER_CHECK: i32 = 10_000;

/// A cheap handle; clones share the pool.
#[derive(Clone)]
pub struct Source {
    files: Files,
    believed_for: Duration,
    pool: Arc<Mutex<Option<Pool>>>,
}

/// The connections to one generation's file.
struct Pool {
    generation: u64,
    connections: SqlitePool,
    /// When the pointer last said so.
    read_at: Instant,
    /// A read failed since: the file may be gone.
    is_doubted: bool,
}

impl Source {
    pub fn new(files: Files) -> Self {
        Self { files, believed_for: BELIEVED_FOR, pool: Arc::default() }
    }

    /// The same, believing what the pointer said for this long.
    #[cfg(test)]
    pub fn believing_for(self, believed_for: Duration) -> Self {
        Self { believed_for, ..self }
    }

    pub async fn rows(&self, sql: String, cells: Vec<Cell>) -> Result<Vec<Row>, Error> {
        let read = sqlx::query_with(AssertSqlSafe(sql), arguments(cells)).fetch_all(&self.pool()?).await;
        if read.is_err()
            && let Some(pool) = &mut *self.pool.lock()
        {
            pool.is_doubted = true;
        }
        read.and_then(|read| rows(&read)).map_err(Error::sql("read"))
    }

    pub async fn query(&self, sql: &str, limits: Limits) -> Result<Rows, Error> {
        let mut connection = self.pool()?.acquire().await.map_err(Error::sql("connect"))?;
        run(&mut connection, sql, limits).await
    }

    /// On a connection of its own.
    pub async fn query_alone(&self, sql: &str, limits: Limits) -> Result<Rows, Error> {
        let mut connection = connect(&self.files).await?;
        run(&mut connection, sql, limits).await
    }

    /// The pool of the generation in force, as far as is known: the pointer is a file, and reading it would hold up who else waits here.
    fn pool(&self) -> Result<SqlitePool, Error> {
        let mut pool = self.pool.lock();
        if let Some(pool) = &*pool
            && !pool.is_doubted
            && pool.read_at.elapsed() < self.believed_for
        {
            return Ok(pool.connections.clone());
        }
        let current = self.files.current()?.ok_or_else(|| Error::Missing(self.files.namespace().to_string()))?;
        let connections = match &*pool {
            Some(pool) if pool.generation == current => pool.connections.clone(),
            _ => {
                let options = SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(Duration::from_secs(10));
                options.connect_lazy_with(read_options(&self.files.db(current)))
            }
        };
        *pool = Some(Pool { generation: current, connections: connections.clone(), read_at: Instant::now(), is_doubted: false });
        Ok(connections)
    }
}

/// A read-only connection to the generation in force.
async fn connect(files: &Files) -> Result<SqliteConnection, Error> {
    let mut tried = None;
    loop {
        let current = files.current()?.ok_or_else(|| Error::Missing(files.namespace().to_string()))?;
        match read_options(&files.db(current)).connect().await {
            Ok(connection) => return Ok(connection),
            // A rebuild may have swapped and removed the file between reading the pointer and opening it.
            Err(_) if tried != Some(current) => tried = Some(current),
            Err(error) => return Err(Error::sql("open for reading")(error)),
        }
    }
}

fn read_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(Duration::from_secs(5))
        .pragma("query_only", "1")
        .disable_statement_logging()
}

async fn run(connection: &mut SqliteConnection, sql: &str, limits: Limits) -> Result<Rows, Error> {
    let deadline = Instant::now() + Duration::from_millis(limits.time_ms_max);
    let mut locked = connection.lock_handle().await.map_err(Error::sql("lock"))?;
    locked.set_progress_handler(STEPS_PER_CHECK, move || Instant::now() < deadline);
    drop(locked);
    let described = connection.prepare(AssertSqlSafe(sql.to_owned()).into_sql_str()).await;
    let described = described.map_err(|error| interrupted(error, limits))?;
    let columns = described.columns().iter().map(|column| Column { name: column.name().to_owned() }).collect();
    let mut answer = Rows { columns, ..Rows::default() };
    let take = |row: SqliteRow| {
        if answer.rows.len() == limits.rows_max {
            answer.truncated = true;
            // Any error ends the statement; the flag says that this one is no failure.
            return Err(sqlx::Error::RowNotFound);
        }
        answer.rows.push(values(&row)?);
        Ok(())
    };
    let fetched = sqlx::query(AssertSqlSafe(sql.to_owned())).persistent(false).try_map(take).fetch_all(&mut *connection).await;
    // The next statement on this connection has a deadline of its own, or none.
    connection.lock_handle().await.map_err(Error::sql("lock"))?.remove_progress_handler();
    match fetched {
        Err(error) if !answer.truncated => Err(interrupted(error, limits)),
        _ => Ok(answer),
    }
}

fn interrupted(error: sqlx::Error, limits: Limits) -> Error {
    const SQLITE_INTERRUPT: &str = "9";
    match error.as_database_error().and_then(|error| error.code()) {
        Some(code) if code == SQLITE_INTERRUPT => Error::Timeout { ms: limits.time_ms_max },
        _ => Error::Sql { context: "query", source: error },
    }
}
