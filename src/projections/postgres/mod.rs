//! Read models on Postgres: one schema of tables per namespace and generation, one schema of views that people query.
//!
//! `schemas` has their names, making and swapping; `store` is the writer, `bulk` and `copy` its many rows, `months` the partitions of
//! `events`, `analysts` who else may read, `read` the readers. Here is how the database is reached, and what is said when it is not.
//!
//! Every call has a deadline of its own: a server that is paused, or a network that swallows packets, answers nothing at all. After one
//! the connection is dropped, and with it whatever it had begun.

mod analysts;
pub mod bulk;
mod copy;
mod months;
pub mod read;
pub mod schemas;
mod store;
mod values;

use std::collections::BTreeMap;
use std::future::Future;
use std::str::FromStr;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::{AssertSqlSafe, ConnectOptions, Row};

pub use self::store::Store;
use super::Error;
use super::place::{Analyst, PostgresOptions};
use crate::domain::Namespace;

/// Views that check the rights of whoever asks came with it, and row-level security of tenants stands on them.
const SERVER_VERSION_MIN: i32 = 150_000;

/// The longest name of anything in Postgres is 63 bytes; a schema's is the prefix, the namespace and `$g` with a number.
const NAME_BYTES_MAX: usize = 48;

/// Bulk statements and schema changes may take this many times as long as short statements.
const LONG: u32 = 5;

/// A database that read models are in.
pub struct Postgres {
    options: PgConnectOptions,
    prefix: String,
    connections_max: u32,
    timeout: Duration,
    events_keep_days: u32,
    analysts: Vec<Analyst>,
    /// For reading, by namespace.
    pools: Mutex<BTreeMap<Namespace, PgPool>>,
}

impl Postgres {
    pub fn new(options: &PostgresOptions) -> Result<Self, Error> {
        let refused = |key, what: &str| Err(Error::Setting { key, what: what.to_owned() });
        let is_url = options.url.starts_with("postgres://") || options.url.starts_with("postgresql://");
        let Ok(connect) = PgConnectOptions::from_str(&options.url) else {
            return refused("postgres.url", "not a URL of the form postgres://user:password@host:5432/database");
        };
        if !is_url || connect.get_database().is_none() {
            return refused("postgres.url", "names no database; its form is postgres://user:password@host:5432/database");
        }
        let slug = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
        if !options.prefix.bytes().all(slug) || options.prefix.len() > 24 {
            return refused("postgres.prefix", "takes at most 24 of a-z, 0-9, '_' and '-'");
        }
        if options.prefix.starts_with("pg_") {
            return refused("postgres.prefix", "names that begin with pg_ are the server's own");
        }
        if options.connections_max == 0 || options.timeout_ms == 0 {
            return refused(
                if options.connections_max == 0 { "postgres.connections_max" } else { "postgres.timeout_ms" },
                "takes at least 1",
            );
        }
        Ok(Self {
            options: connect.disable_statement_logging(),
            prefix: options.prefix.clone(),
            connections_max: options.connections_max,
            timeout: Duration::from_millis(options.timeout_ms),
            events_keep_days: options.events_keep_days,
            analysts: options.analysts.clone(),
            pools: Mutex::default(),
        })
    }

    /// Whether the database is there and all that is configured can be done in it.
    pub async fn check(&self) -> Result<(), Error> {
        let mut connection = self.connect("check").await?;
        let sql = "SELECT current_setting('server_version_num')::int, has_database_privilege(current_database(), 'CREATE') \
                   AND has_database_privilege(current_database(), 'TEMP')";
        let row = bounded(self.timeout, sqlx::query(sql).fetch_one(&mut connection)).await.map_err(Error::sql("check"))?;
        let (version, may_create): (i32, bool) = (row.get(0), row.get(1));
        if version < SERVER_VERSION_MIN {
            let what = format!("the server is Postgres {}, read models need 15 or later", version / 10_000);
            return Err(Error::Setting { key: "postgres.url", what });
        }
        if !may_create {
            let what =
                "its user may not make schemas and temporary tables in this database: GRANT CREATE, TEMP ON DATABASE ... TO it".to_owned();
            return Err(Error::Setting { key: "postgres.url", what });
        }
        analysts::check(&mut connection, &self.analysts, self.timeout).await
    }

    /// A connection for writing, named after what it is for.
    async fn connect(&self, what: &str) -> Result<PgConnection, Error> {
        let options = self.options.clone().application_name(&format!("flywheel {what}"));
        let mut connection = bounded(self.timeout, options.connect()).await.map_err(|error| self.unreachable(error))?;
        // A projector that vanished without a word must not hold the rows that its successor waits for.
        let timeout = self.timeout.as_millis();
        let long = timeout * u128::from(LONG);
        let sql = format!(
            "SET client_min_messages = warning; SET lock_timeout = {timeout}; SET statement_timeout = {long}; \
             SET idle_in_transaction_session_timeout = {long}"
        );
        bounded(self.timeout, sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection)).await.map_err(|error| self.unreachable(error))?;
        Ok(connection)
    }

    /// What is said of a connection that could not be made: where to, never with what password.
    fn unreachable(&self, source: sqlx::Error) -> Error {
        let (host, port) = (self.options.get_host(), self.options.get_port());
        let database = self.options.get_database().unwrap_or_default();
        let code = source.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
        let wrong = match code.as_deref() {
            Some("28P01" | "28000") => format!("{host}:{port} does not let user {:?} in: {source}", self.options.get_username()),
            Some("3D000") => format!("there is no database {database:?} at {host}:{port}; create it, or name another"),
            Some("42501") => format!("user {:?} may not use database {database:?} at {host}:{port}", self.options.get_username()),
            _ if matches!(source, sqlx::Error::Configuration(_) | sqlx::Error::Tls(_)) => format!("{host}:{port}: {source}"),
            _ if matches!(source, sqlx::Error::Protocol(_)) => format!("what answers at {host}:{port} is no Postgres server: {source}"),
            _ => {
                let what = format!("Postgres at {host}:{port}, database {database:?}, cannot be reached");
                return Error::Unreachable { key: "postgres.url", what, source };
            }
        };
        Error::Setting { key: "postgres.url", what: wrong }
    }

    /// The name of the schema that people query, or why the namespace can have none.
    fn base(&self, namespace: &Namespace) -> Result<String, Error> {
        let base = format!("{}{namespace}", self.prefix);
        let wrong = match base.as_str() {
            _ if base.len() > NAME_BYTES_MAX => {
                format!(
                    "the schema {base:?} has a longer name than Postgres takes: prefix and namespace have {NAME_BYTES_MAX} bytes together"
                )
            }
            "public" | "information_schema" => format!("the schema {base:?} is the database's own; begin the names with a prefix"),
            _ if base.starts_with("pg_") => format!("the schema {base:?} would be the server's own; begin the names with a prefix"),
            _ => return Ok(base),
        };
        Err(Error::Setting { key: "postgres.prefix", what: wrong })
    }

    fn long(&self) -> Duration {
        self.timeout * LONG
    }
}

/// Runs a call to the server for so long; what has no answer by then has none.
async fn bounded<T>(at_most: Duration, call: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(at_most, call).await {
        Ok(done) => done,
        Err(_) => {
            let what = format!("no answer within {} ms (postgres.timeout_ms)", at_most.as_millis());
            Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, what)))
        }
    }
}

/// A name as it stands in a statement.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as it stands in a statement.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The same statement with Postgres's placeholders: `?` in turn, `?1` by number. Quoted text is left alone.
fn numbered(sql: &str) -> String {
    let (mut text, mut next, mut quote) = (String::with_capacity(sql.len() + 16), 0, None);
    let mut rest = sql.chars().peekable();
    while let Some(c) = rest.next() {
        match (quote, c) {
            (None, '?') => {
                text.push('$');
                if !rest.peek().is_some_and(char::is_ascii_digit) {
                    next += 1;
                    text.push_str(&next.to_string());
                }
                continue;
            }
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_numbered_outside_of_quotes() {
        let cases = [
            ("a = ? AND b IN (?, ?)", "a = $1 AND b IN ($2, $3)"),
            ("a = ?1 AND b = ?2 AND c = ?1", "a = $1 AND b = $2 AND c = $1"),
            ("a = '?' AND \"?\" = ? AND b = 'it''s ?'", "a = '?' AND \"?\" = $1 AND b = 'it''s ?'"),
        ];
        for (sql, expected) in cases {
            assert_eq!(numbered(sql), expected);
        }
    }

    #[test]
    fn settings_that_cannot_be_are_refused_by_name_and_without_the_password() {
        type Change = fn(&mut PostgresOptions);
        let of = |change: Change| {
            let mut options = PostgresOptions { url: "postgres://flywheel:hunter2@localhost/marketing".to_owned(), ..Default::default() };
            change(&mut options);
            Postgres::new(&options).err().map(|error| error.to_string()).unwrap_or_default()
        };
        let cases: [(Change, &str); 7] = [
            (|_| {}, ""),
            (|options| options.url.clear(), "postgres.url"),
            (|options| options.url = "mysql://flywheel:hunter2@localhost/marketing".to_owned(), "postgres.url"),
            (|options| options.url = "postgres://flywheel:hunter2@localhost".to_owned(), "postgres.url"),
            (|options| options.prefix = "A b".to_owned(), "postgres.prefix"),
            (|options| options.connections_max = 0, "postgres.connections_max"),
            (|options| options.timeout_ms = 0, "postgres.timeout_ms"),
        ];
        for (change, key) in cases {
            let said = of(change);
            assert!(said.starts_with(key) && said.is_empty() == key.is_empty() && !said.contains("hunter2"), "{key}: {said}");
        }
    }
}
