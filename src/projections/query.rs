//! SQL from people: one read-only statement, bounded in time and rows, its answer as typed values.
//!
//! Three locks: the file is opened read-only, `query_only` is set, and anything but a single SELECT, WITH, VALUES or EXPLAIN is refused
//! before it is run, because ATTACH and PRAGMA would reach beyond this namespace.

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Column as _, ConnectOptions, Executor, Row, SqlSafeStr, Statement, TypeInfo, ValueRef};

use super::Error;
use super::generation::Generations;
use crate::domain::Namespace;

/// The progress check's period in steps of SQLite's virtual machine: about a tenth of a millisecond.
const STEPS_PER_CHECK: i32 = 10_000;

/// What a query may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub time_ms_max: u64,
    pub rows_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time_ms_max: 30_000, rows_max: 100_000 }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Int(i64),
    Float(f64),
    Text(String),
    Blob(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
}

/// An answer, whole.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rows {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Value>>,
    /// True if there were more rows than [`Limits::rows_max`].
    pub truncated: bool,
}

/// Runs one statement on the read model in force. Works beside a running server and without one.
pub async fn query(dir: &Path, namespace: &Namespace, sql: &str, limits: Limits) -> Result<Rows, Error> {
    check_statement(sql)?;
    let mut connection = connect(dir, namespace).await?;
    run(&mut connection, sql, limits).await
}

/// A read-only connection to the generation in force.
async fn connect(dir: &Path, namespace: &Namespace) -> Result<SqliteConnection, Error> {
    let generations = Generations::new(dir, namespace);
    let mut tried = None;
    loop {
        let current = generations.current()?.ok_or_else(|| Error::Missing(namespace.to_string()))?;
        match read_options(&generations.db(current)).connect().await {
            Ok(connection) => return Ok(connection),
            // A rebuild may have swapped and removed the file between reading the pointer and opening it.
            Err(_) if tried != Some(current) => tried = Some(current),
            Err(error) => return Err(Error::sql("open for reading")(error)),
        }
    }
}

pub(super) fn read_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(Duration::from_secs(5))
        .pragma("query_only", "1")
        .disable_statement_logging()
}

pub(super) async fn run(connection: &mut SqliteConnection, sql: &str, limits: Limits) -> Result<Rows, Error> {
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

/// Refuses what is not one reading statement. Text between quotes and comments is skipped, so that a `;` there is no second statement.
pub(super) fn check_statement(sql: &str) -> Result<(), Error> {
    let mut rest = skip_blank(sql);
    let first: String = rest.chars().take_while(char::is_ascii_alphabetic).collect::<String>().to_ascii_uppercase();
    if !["SELECT", "WITH", "VALUES", "EXPLAIN"].contains(&first.as_str()) {
        return Err(Error::NotAQuery(format!("it begins with {first:?}")));
    }
    while let Some(next) = rest.chars().next() {
        rest = match next {
            '\'' | '"' | '`' => after_quoted(&rest[1..], next),
            '[' => after_quoted(&rest[1..], ']'),
            ';' if skip_blank(&rest[1..]).is_empty() => return Ok(()),
            ';' => return Err(Error::NotAQuery("there is a second statement after ';'".to_owned())),
            _ if rest.starts_with("--") || rest.starts_with("/*") => skip_blank(rest),
            _ => &rest[next.len_utf8()..],
        };
    }
    Ok(())
}

fn after_quoted(text: &str, end: char) -> &str {
    // A doubled quote reads as the end of one and the begin of the next: the same text is skipped.
    text.find(end).map_or("", |at| &text[at + end.len_utf8()..])
}

fn skip_blank(text: &str) -> &str {
    let mut rest = text.trim_start();
    loop {
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.find('\n').map_or("", |at| comment[at..].trim_start());
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.find("*/").map_or("", |at| comment[at + 2..].trim_start());
        } else {
            return rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_reading_statement_passes() {
        let pass = [
            "select 1",
            "  -- who\n/* and */ SELECT ';' AS \"a;b\", [c;d], 'it''s;'; -- done;",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "values (1)",
            "explain query plan select 1;",
        ];
        for sql in pass {
            assert!(check_statement(sql).is_ok(), "{sql}");
        }
        let refused =
            ["", "ATTACH 'x' AS y", "PRAGMA query_only=0", "select 1; attach 'x' as y", "select 1;;", "delete from events", "/* select"];
        for sql in refused {
            assert!(check_statement(sql).is_err(), "{sql}");
        }
    }
}
