//! The one writer of a generation: its connection stands in the generation's schema, so that statements name tables as in SQLite.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashSet;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use super::months::Months;
use super::schemas::Schemas;
use super::{Postgres, bounded, bulk, numbered, values};
use crate::projections::Error;
use crate::projections::bulk::{Cell, Lookup, Statement};
use crate::projections::value::Row;

/// How long a generation counts as the one in force before it is asked again.
const BELIEVED_FOR: Duration = Duration::from_millis(500);

/// The tables of this generation, and nothing else of the database; with `events` go its parts.
const ANALYZE: &str = "DO $$ DECLARE name regclass; BEGIN \
     FOR name IN SELECT oid FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition \
     LOOP EXECUTE format('ANALYZE %s', name); END LOOP; END $$";

pub struct Store {
    postgres: Arc<Postgres>,
    schemas: Schemas,
    pub(super) connection: PgConnection,
    kinds: bulk::Kinds,
    months: Months,
    asked_at: Instant,
    /// Tables that were merged into in the transaction under way.
    merged: FxHashSet<&'static str>,
}

impl Store {
    /// Takes over a connection that stands in the generation's schema.
    pub(super) async fn new(postgres: Arc<Postgres>, schemas: Schemas, mut connection: PgConnection, schema: &str) -> Result<Self, Error> {
        let kinds = bulk::kinds(&mut connection, schema, postgres.timeout).await?;
        let months = Months::open(&mut connection, postgres.events_keep_days, postgres.timeout).await?;
        Ok(Self { postgres, schemas, connection, kinds, months, asked_at: Instant::now(), merged: FxHashSet::default() })
    }

    pub async fn begin(&mut self) -> Result<(), Error> {
        self.plain("BEGIN").await
    }

    pub async fn commit(&mut self) -> Result<(), Error> {
        self.plain("COMMIT").await?;
        self.months.committed();
        self.merged.clear();
        Ok(())
    }

    pub async fn roll_back(&mut self) -> Result<(), Error> {
        self.months.rolled_back();
        self.merged.clear();
        self.plain("ROLLBACK").await
    }

    async fn plain(&mut self, sql: &'static str) -> Result<(), Error> {
        bounded(self.postgres.timeout, sqlx::raw_sql(sql).execute(&mut self.connection)).await.map_err(Error::sql(sql)).map(drop)
    }

    pub async fn execute(&mut self, what: &'static str, sql: &str, cells: Vec<Cell>) -> Result<u64, Error> {
        let query = sqlx::query_with(AssertSqlSafe(numbered(sql)), bulk::arguments(cells));
        let done = bounded(self.postgres.long(), query.execute(&mut self.connection)).await;
        done.map_err(Error::sql(what)).map(|done| done.rows_affected())
    }

    pub async fn fetch(&mut self, what: &'static str, sql: &str, cells: Vec<Cell>) -> Result<Vec<Row>, Error> {
        let query = sqlx::query_with(AssertSqlSafe(numbered(sql)), bulk::arguments(cells));
        let found = bounded(self.postgres.long(), query.fetch_all(&mut self.connection)).await;
        found.and_then(|found| values::rows(&found)).map_err(Error::sql(what))
    }

    pub async fn write(&mut self, statement: &Statement, cells: Vec<Cell>) -> Result<(), Error> {
        if statement.table == "events"
            && let Some(at) = statement.columns.iter().position(|column| column == "timestamp")
        {
            let times = cells.iter().skip(at).step_by(statement.columns.len());
            let times = times.filter_map(|cell| if let Cell::Int(time) = cell { Some(*time) } else { None });
            self.months.make(&mut self.connection, times).await?;
        }
        let plan = statement.postgres.get_or_init(|| bulk::Plan::of(statement, &self.kinds));
        bulk::write(&mut self.connection, statement, plan, cells, &mut self.merged, self.postgres.long()).await
    }

    pub async fn look_up(&mut self, lookup: &Lookup, keys: Vec<Cell>) -> Result<Vec<Row>, Error> {
        let Lookup { what, select, column, tail } = lookup;
        let sql = format!("{select} {column} = ANY($1) {tail}");
        let query = sqlx::query_with(AssertSqlSafe(sql), bulk::keys(keys));
        let found = bounded(self.postgres.long(), query.fetch_all(&mut self.connection)).await;
        found.and_then(|found| values::rows(&found)).map_err(Error::sql(what))
    }

    pub async fn set_durable(&mut self, durable: bool) -> Result<(), Error> {
        self.plain(if durable { "SET synchronous_commit = on" } else { "SET synchronous_commit = off" }).await
    }

    pub async fn tend(&mut self, now: i64) -> Result<(), Error> {
        self.months.tend(&mut self.connection, now).await
    }

    /// Says how old events may be, now that it is known what time it is there.
    pub async fn keep_events(&mut self, now: i64) -> Result<(), Error> {
        self.months.keep(&mut self.connection, now).await
    }

    pub fn events_from(&self) -> i64 {
        self.months.events_from()
    }

    pub async fn is_in_force(&mut self, generation: u64) -> Result<bool, Error> {
        if self.asked_at.elapsed() < BELIEVED_FOR {
            return Ok(true);
        }
        self.asked_at = Instant::now();
        Ok(self.schemas.current_on(&mut self.connection).await? == Some(generation))
    }

    pub async fn finish(mut self) -> Result<(), Error> {
        // The planner knows nothing of tables that were just filled, and nobody may wait until it has looked by itself.
        let analyze = sqlx::raw_sql(ANALYZE).execute(&mut self.connection);
        bounded(self.postgres.long() * 10, analyze).await.map_err(Error::sql("analyze"))?;
        self.set_durable(true).await?;
        self.close().await
    }

    pub async fn close(self) -> Result<(), Error> {
        bounded(self.postgres.timeout, self.connection.close()).await.map_err(Error::sql("close"))
    }
}
