//! Reading a namespace's views: a few pooled connections, and one statement of a person's own.
//!
//! The connections stand in the schema that is in force, whichever generation that is when a statement is read. No statement is kept
//! prepared: after a swap it would be about tables that are gone.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Column as _, ConnectOptions, Executor, SqlSafeStr, Statement};

use super::schemas::{Schemas, is_missing};
use super::{Postgres, bounded, bulk, numbered, quoted, values};
use crate::domain::Namespace;
use crate::projections::Error;
use crate::projections::bulk::Cell;
use crate::projections::query::{Column, Limits, Rows};
use crate::projections::value::Row;

/// A cheap handle; clones share the connections.
#[derive(Clone)]
pub struct Source {
    postgres: Arc<Postgres>,
    schemas: Schemas,
}

impl Source {
    pub fn new(postgres: Arc<Postgres>, namespace: &Namespace) -> Self {
        let schemas = Schemas::new(&postgres, namespace);
        Self { postgres, schemas }
    }

    pub async fn rows(&self, sql: &str, cells: Vec<Cell>) -> Result<Vec<Row>, Error> {
        let pool = self.pool()?;
        let query = sqlx::query_with(AssertSqlSafe(numbered(sql)), bulk::arguments(cells));
        match bounded(self.postgres.timeout, query.fetch_all(&pool)).await {
            Ok(found) => values::rows(&found).map_err(Error::sql("read")),
            Err(error) if is_missing(&error) => Err(self.missing(error).await),
            Err(error) => Err(self.failed(error)),
        }
    }

    pub async fn query(&self, sql: &str, limits: Limits) -> Result<Rows, Error> {
        let mut connection = bounded(self.postgres.timeout, self.pool()?.acquire()).await.map_err(|error| self.failed(error))?;
        self.run(&mut connection, sql, limits).await
    }

    /// On a connection of its own.
    pub async fn query_alone(&self, sql: &str, limits: Limits) -> Result<Rows, Error> {
        let live = self.schemas.live()?;
        let mut connection = self.postgres.connect("query").await?;
        let enter = sqlx::raw_sql(AssertSqlSafe(entering(&live, self.postgres.timeout))).execute(&mut connection);
        bounded(self.postgres.timeout, enter).await.map_err(Error::sql("connect"))?;
        self.run(&mut connection, sql, limits).await
    }

    fn pool(&self) -> Result<PgPool, Error> {
        let live = self.schemas.live()?;
        let mut pools = self.postgres.pools.lock();
        let pool = pools.entry(self.schemas.namespace().clone()).or_insert_with(|| {
            let options = self.postgres.options.clone().statement_cache_capacity(0).application_name("flywheel reader");
            let setup: Arc<str> = entering(&live, self.postgres.timeout).into();
            PgPoolOptions::new()
                .max_connections(self.postgres.connections_max)
                .acquire_timeout(self.postgres.timeout)
                .after_connect(move |connection, _| {
                    let setup = Arc::clone(&setup);
                    Box::pin(async move { sqlx::raw_sql(AssertSqlSafe(setup)).execute(connection).await.map(drop) })
                })
                .connect_lazy_with(options.disable_statement_logging())
        });
        Ok(pool.clone())
    }

    /// Runs in a transaction that cannot write, and that ends without a trace.
    async fn run(&self, connection: &mut PgConnection, sql: &str, limits: Limits) -> Result<Rows, Error> {
        let begin = format!("BEGIN TRANSACTION READ ONLY; SET LOCAL statement_timeout = {}", limits.time_ms_max.max(1));
        // The server ends it in time; should it not, we do.
        let at_most = Duration::from_millis(limits.time_ms_max) + self.postgres.timeout;
        let answer = bounded(at_most, async {
            sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *connection).await?;
            let answer = answer(connection, sql, limits).await;
            sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
            answer
        });
        match answer.await {
            Ok(answer) => Ok(answer),
            Err(error) if is_missing(&error) => Err(self.missing(error).await),
            Err(error) => Err(interrupted(error, limits)),
        }
    }

    /// Where a table is not there: whether that is because nothing is.
    async fn missing(&self, error: sqlx::Error) -> Error {
        match self.schemas.current().await {
            Ok(None) => Error::Missing(self.schemas.namespace().to_string()),
            Ok(Some(_)) => Error::sql("query")(error),
            Err(error) => error,
        }
    }

    fn failed(&self, error: sqlx::Error) -> Error {
        match error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => self.postgres.unreachable(error),
            error => Error::sql("read")(error),
        }
    }
}

/// What a reading connection begins with. The server gives up when we do, or it would work on for nobody.
fn entering(live: &str, timeout: Duration) -> String {
    let (live, timeout) = (quoted(live), timeout.as_millis());
    format!(
        "SET client_min_messages = warning; SET default_transaction_read_only = on; SET statement_timeout = {timeout}; SET search_path = {live}"
    )
}

/// Through a cursor, so that no more comes than may; that also takes one statement only, and none that writes.
async fn answer(connection: &mut PgConnection, sql: &str, limits: Limits) -> Result<Rows, sqlx::Error> {
    let described = connection.prepare(AssertSqlSafe(sql.to_owned()).into_sql_str()).await?;
    let columns = described.columns().iter().map(|column| Column { name: column.name().to_owned() }).collect();
    let is_explain = sql.trim_start().get(..7).is_some_and(|word| word.eq_ignore_ascii_case("explain"));
    let found = match is_explain {
        true => sqlx::query(AssertSqlSafe(sql.to_owned())).persistent(false).fetch_all(&mut *connection).await?,
        false => {
            let declare = format!("DECLARE answer NO SCROLL CURSOR FOR {sql}");
            sqlx::query(AssertSqlSafe(declare)).persistent(false).execute(&mut *connection).await?;
            let fetch = format!("FETCH FORWARD {} FROM answer", limits.rows_max.saturating_add(1));
            sqlx::raw_sql(AssertSqlSafe(fetch)).fetch_all(&mut *connection).await?
        }
    };
    let mut rows = found.iter().map(values::values).collect::<Result<Vec<_>, _>>()?;
    let truncated = rows.len() > limits.rows_max;
    rows.truncate(limits.rows_max);
    Ok(Rows { columns, rows, truncated })
}

fn interrupted(error: sqlx::Error, limits: Limits) -> Error {
    const QUERY_CANCELED: &str = "57014";
    let is_late = match &error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::TimedOut,
        error => error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == QUERY_CANCELED),
    };
    match is_late {
        true => Error::Timeout { ms: limits.time_ms_max },
        false => Error::Sql { context: "query", source: error },
    }
}
