//! A namespace's schemas: `main$g3` has the tables of generation 3, `main` the views over the generation in force, which people query.
//!
//! A generation's views are made as `main$v3` and put in force by renaming: that takes no lock that a running query holds, so nothing waits
//! for anybody. Slugs hold no `$`, so no namespace's schema is another's. The comment on `main` says which generation it shows, and that it
//! is ours: a schema of that name that somebody else made is never touched.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::{Postgres, Store, analysts, bounded, literal, quoted};
use crate::domain::{Digest, FieldType, Namespace};
use crate::projections::{Error, PROJECTION_VERSION, VIEWS};
use crate::schema::profile;

const TABLES: &str = include_str!("../../../migrations/postgres/tables.sql");
const POLICIES: &str = include_str!("../../../migrations/postgres/policies.sql");
const FUNCTIONS: &str = include_str!("../../../migrations/postgres/functions.sql");

/// Begins the comment on a schema in force.
const MARK: &str = "flywheel read model";

/// What a rebuild's lock is taken on, with the schema's name.
const LOCK: &str = "flywheel rebuild";

/// Every namespace that has a read model in this database under this prefix.
pub async fn namespaces(postgres: &Postgres) -> Result<Vec<Namespace>, Error> {
    let mut connection = postgres.connect("namespaces").await?;
    let sql = "SELECT nspname::text FROM pg_namespace WHERE obj_description(oid, 'pg_namespace') LIKE $1 || '%' AND starts_with(nspname::text, $2)";
    let query = sqlx::query(sql).bind(MARK).bind(&postgres.prefix).fetch_all(&mut connection);
    let found = bounded(postgres.timeout, query).await.map_err(Error::sql("namespaces"))?;
    let name = |row: &sqlx::postgres::PgRow| row.get::<&str, _>(0).strip_prefix(postgres.prefix.as_str()).map(str::to_owned);
    let mut found: Vec<Namespace> = found.iter().filter_map(name).filter_map(|name| Namespace::new(name).ok()).collect();
    found.sort();
    Ok(found)
}

#[derive(Clone)]
pub struct Schemas {
    postgres: Arc<Postgres>,
    namespace: Namespace,
}

impl Schemas {
    pub fn new(postgres: &Arc<Postgres>, namespace: &Namespace) -> Self {
        Self { postgres: Arc::clone(postgres), namespace: namespace.clone() }
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The schema that people query.
    pub fn live(&self) -> Result<String, Error> {
        self.postgres.base(&self.namespace)
    }

    fn tables(&self, generation: u64) -> Result<String, Error> {
        Ok(format!("{}$g{generation}", self.live()?))
    }

    fn draft(&self, generation: u64) -> Result<String, Error> {
        Ok(format!("{}$v{generation}", self.live()?))
    }

    async fn connect(&self) -> Result<PgConnection, Error> {
        self.postgres.connect(&format!("projector {}", self.namespace)).await
    }

    pub async fn current(&self) -> Result<Option<u64>, Error> {
        self.live()?;
        self.current_on(&mut self.connect().await?).await
    }

    pub async fn current_on(&self, connection: &mut PgConnection) -> Result<Option<u64>, Error> {
        let live = self.live()?;
        let sql = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = $1";
        let query = sqlx::query(sql).bind(&live).fetch_optional(connection);
        let Some(found) = bounded(self.postgres.timeout, query).await.map_err(Error::sql("the generation in force"))? else {
            return Ok(None);
        };
        let comment: Option<String> = found.get(0);
        let generation = comment.as_deref().filter(|comment| comment.starts_with(MARK)).and_then(|comment| comment.rsplit(' ').next());
        match generation.and_then(|number| number.parse().ok()) {
            Some(generation) => Ok(Some(generation)),
            None => {
                let what = format!("the schema {live:?} is there and is not a read model of ours; begin the names with another prefix");
                Err(Error::Setting { key: "postgres.prefix", what })
            }
        }
    }

    pub async fn next(&self) -> Result<u64, Error> {
        let mut connection = self.connect().await?;
        let newest = self.existing(&mut connection, "$g").await?.into_iter().max().unwrap_or(0);
        Ok(newest.max(self.current_on(&mut connection).await?.unwrap_or(0)) + 1)
    }

    /// Numbers of the schemas that are named like this.
    async fn existing(&self, connection: &mut PgConnection, mark: &str) -> Result<Vec<u64>, Error> {
        let begin = format!("{}{mark}", self.live()?);
        let sql = "SELECT nspname::text FROM pg_namespace WHERE starts_with(nspname::text, $1)";
        let query = sqlx::query(sql).bind(&begin).fetch_all(connection);
        let found = bounded(self.postgres.timeout, query).await.map_err(Error::sql("generations"))?;
        let number = |row: &sqlx::postgres::PgRow| row.get::<&str, _>(0).strip_prefix(begin.as_str())?.parse().ok();
        Ok(found.iter().filter_map(number).collect())
    }

    /// Makes a generation whole or not at all.
    pub async fn create(&self, generation: u64) -> Result<Store, Error> {
        let mut connection = self.connect().await?;
        let (tables, views) = (self.tables(generation)?, self.draft(generation)?);
        let sql = format!(
            "BEGIN; CREATE SCHEMA {schema}; SET LOCAL search_path = {schema}; {TABLES}; {columns} {POLICIES}; \
             INSERT INTO meta (key, value) VALUES ('projection_version', '{PROJECTION_VERSION}'), ('tables', '{digest}'); \
             {views}; COMMIT",
            schema = quoted(&tables),
            columns = add_columns(&[]),
            digest = digest_of_tables(),
            views = make_views(&tables, &views),
        );
        self.run(&mut connection, "create", sql).await?;
        self.enter(connection, generation).await
    }

    pub async fn open(&self, generation: u64) -> Result<Store, Error> {
        let mut connection = self.connect().await?;
        let (live, tables) = (self.live()?, self.tables(generation)?);
        let refused = |reason: String| Error::Refused { namespace: self.namespace.to_string(), reason };
        let sql = format!("SELECT key, value FROM {}.meta", quoted(&tables));
        let query = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection);
        let meta = match bounded(self.postgres.timeout, query).await {
            Ok(rows) => rows,
            Err(error) if is_missing(&error) => return Err(refused(format!("its schema {tables:?} is gone (postgres.url)"))),
            Err(error) => return Err(Error::sql("open")(error)),
        };
        let value = |key: &str| meta.iter().find(|row| row.get::<&str, _>(0) == key).map(|row| row.get::<String, _>(1));
        let expected = [("projection_version", PROJECTION_VERSION.to_string()), ("tables", digest_of_tables())];
        for (key, ours) in expected {
            let theirs = value(key).unwrap_or_else(|| "none".to_owned());
            if theirs != ours {
                let reason = format!("its schema {tables:?} in postgres.url has {key} {theirs}, this build writes {ours}");
                return Err(refused(reason));
            }
        }
        if value("views").as_deref() != Some(&digest_of_views()) {
            self.renew_views(&mut connection, generation).await?;
        }
        analysts::allow(&mut connection, &tables, &live, &self.postgres.analysts, self.postgres.timeout).await?;
        self.enter(connection, generation).await
    }

    /// Makes the views of this build over tables that stay, and the columns that they may name.
    async fn renew_views(&self, connection: &mut PgConnection, generation: u64) -> Result<(), Error> {
        let (tables, draft) = (self.tables(generation)?, self.draft(generation)?);
        let sql = "SELECT column_name::text FROM information_schema.columns WHERE table_schema = $1 AND table_name = 'profiles'";
        let query = sqlx::query(sql).bind(&tables).fetch_all(&mut *connection);
        let present = bounded(self.postgres.timeout, query).await.map_err(Error::sql("feature columns"))?;
        let present: Vec<String> = present.iter().map(|row| row.get(0)).collect();
        let sql = format!(
            "BEGIN; SET LOCAL search_path = {schema}; {columns} DROP SCHEMA IF EXISTS {draft} CASCADE; {views}; COMMIT",
            schema = quoted(&tables),
            columns = add_columns(&present),
            views = make_views(&tables, &draft),
            draft = quoted(&draft),
        );
        self.run(connection, "views", sql).await?;
        self.swap(connection, generation).await
    }

    async fn enter(&self, mut connection: PgConnection, generation: u64) -> Result<Store, Error> {
        let tables = self.tables(generation)?;
        self.run(&mut connection, "enter", format!("SET search_path = {}", quoted(&tables))).await?;
        Store::new(Arc::clone(&self.postgres), self.clone(), connection, &tables).await
    }

    pub async fn switch_to(&self, generation: u64) -> Result<(), Error> {
        let mut connection = self.connect().await?;
        let (tables, draft) = (self.tables(generation)?, self.draft(generation)?);
        analysts::allow(&mut connection, &tables, &draft, &self.postgres.analysts, self.postgres.timeout).await?;
        self.swap(&mut connection, generation).await
    }

    /// Renames the views into force, and what was in force out of it, in one step.
    async fn swap(&self, connection: &mut PgConnection, generation: u64) -> Result<(), Error> {
        let (live, draft) = (self.live()?, self.draft(generation)?);
        let is_there = self.current_on(connection).await?.is_some();
        let out_of_force = match is_there {
            // A name that no other swap takes.
            true => format!(
                "DO $$ BEGIN EXECUTE format('ALTER SCHEMA %I RENAME TO %I', {live}, {live} || '$x' || txid_current()); END $$;",
                live = literal(&live)
            ),
            false => String::new(),
        };
        let sql = format!(
            "BEGIN; {out_of_force} ALTER SCHEMA {} RENAME TO {}; COMMENT ON SCHEMA {} IS {}; COMMIT",
            quoted(&draft),
            quoted(&live),
            quoted(&live),
            literal(&format!("{MARK} of {}, generation {generation}", self.namespace)),
        );
        self.run(connection, "swap", sql).await?;
        self.remove_views(connection).await;
        Ok(())
    }

    /// Views that are out of force go once nobody reads them.
    async fn remove_views(&self, connection: &mut PgConnection) {
        let Ok(numbers) = self.existing(connection, "$x").await else { return };
        for number in numbers {
            let Ok(live) = self.live() else { return };
            self.drop_schema(connection, &format!("{live}$x{number}")).await;
        }
    }

    pub async fn remove_others(&self) -> Result<(), Error> {
        let mut connection = self.connect().await?;
        let current = self.current_on(&mut connection).await?;
        self.remove_views(&mut connection).await;
        for (mark, number) in self.existing(&mut connection, "$v").await?.into_iter().map(|number| ("$v", number)) {
            self.drop_schema(&mut connection, &format!("{}{mark}{number}", self.live()?)).await;
        }
        for generation in self.existing(&mut connection, "$g").await? {
            if Some(generation) != current {
                self.drop_schema(&mut connection, &self.tables(generation)?).await;
            }
        }
        Ok(())
    }

    pub async fn remove(&self, generation: u64) -> Result<(), Error> {
        let mut connection = self.connect().await?;
        self.drop_schema(&mut connection, &self.draft(generation)?).await;
        self.drop_schema(&mut connection, &self.tables(generation)?).await;
        Ok(())
    }

    /// One that somebody reads still is left to the next rebuild: nobody waits for it.
    async fn drop_schema(&self, connection: &mut PgConnection, schema: &str) {
        let sql = format!("DROP SCHEMA IF EXISTS {} CASCADE", quoted(schema));
        if let Err(error) = self.run(connection, "drop", sql).await {
            tracing::warn!(schema, %error, "a schema that is not in force any more could not be dropped; the next rebuild does");
        }
    }

    /// Held by the connection: it ends with the process, whatever ends it.
    pub async fn lock(&self) -> Result<PgConnection, Error> {
        let mut connection = self.connect().await?;
        let sql = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))";
        let query = sqlx::query(sql).bind(format!("{LOCK} {}", self.live()?)).fetch_one(&mut connection);
        let row = bounded(self.postgres.timeout, query).await.map_err(Error::sql("lock"))?;
        if !row.get::<bool, _>(0) {
            return Err(Error::RebuildRuns(self.namespace.to_string()));
        }
        // It has nothing to do for as long as the rebuild takes.
        self.run(&mut connection, "lock", "SET idle_session_timeout = 0".to_owned()).await?;
        Ok(connection)
    }

    async fn run(&self, connection: &mut PgConnection, what: &'static str, sql: String) -> Result<(), Error> {
        let at_most: Duration = self.postgres.long();
        let done = bounded(at_most, sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection)).await;
        if done.is_err() {
            // Of what failed half way nothing stays; the connection may be gone with it.
            let _ = bounded(self.postgres.timeout, sqlx::raw_sql("ROLLBACK").execute(connection)).await;
        }
        done.map_err(Error::sql(what)).map(drop)
    }
}

/// Whether an error says that a schema or table is not there.
pub fn is_missing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| ["42P01", "3F000"].contains(&&*code))
}

fn digest_of_tables() -> String {
    Digest::of(format!("{TABLES}\0{POLICIES}").as_bytes()).to_hex()
}

/// With the feature columns: views show them all.
fn digest_of_views() -> String {
    Digest::of(format!("{FUNCTIONS}\0{VIEWS}\0{}", add_columns(&[])).as_bytes()).to_hex()
}

/// A column for every feature that `profiles` lacks.
fn add_columns(present: &[String]) -> String {
    let lacking = profile::columns().iter().filter(|column| !present.iter().any(|name| name == column.name));
    let column = |column: &profile::Column| format!("ADD COLUMN {} {}", column.name, sql_type(column.kind));
    let columns: Vec<String> = lacking.map(column).collect();
    if columns.is_empty() { String::new() } else { format!("ALTER TABLE profiles {};", columns.join(", ")) }
}

fn sql_type(kind: FieldType) -> &'static str {
    match kind {
        FieldType::Int | FieldType::Time => "bigint",
        FieldType::Bool => "boolean",
        FieldType::Float | FieldType::Money => "double precision",
        FieldType::Text => "text COLLATE \"C\"",
    }
}

/// The schema that people query: functions, views, and each table as a view of itself. All of them look with the rights of who asks.
fn make_views(tables: &str, views: &str) -> String {
    format!(
        "CREATE SCHEMA {views}; SET LOCAL search_path = {views}, {tables}; {FUNCTIONS}; {VIEWS}; \
         DO $$ DECLARE name text; BEGIN \
           FOR name IN SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
                       WHERE n.nspname = {tables_text} AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'analysts' LOOP \
             EXECUTE format('CREATE VIEW %I.%I AS SELECT * FROM %I.%I', {views_text}, name, {tables_text}, name); \
           END LOOP; \
           FOR name IN SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
                       WHERE n.nspname = {views_text} AND c.relkind = 'v' LOOP \
             EXECUTE format('ALTER VIEW %I.%I SET (security_invoker = true)', {views_text}, name); \
           END LOOP; \
         END $$; \
         INSERT INTO {tables}.meta (key, value) VALUES ('views', '{digest}') ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        digest = digest_of_views(),
        tables_text = literal(tables),
        views_text = literal(views),
        tables = quoted(tables),
        views = quoted(views),
    )
}
