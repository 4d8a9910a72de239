//! Multi-row statements: rows are collected as plain values, then written a few hundred per statement.
//!
//! One statement of 256 rows costs SQLite a fifth of 256 statements of one row. A table's statement exists in a few sizes, so that any
//! number of rows needs a handful of them and all stay prepared. Placeholders are anonymous: numbered ones are looked up by name.

use std::sync::Arc;

use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe};

use super::Error;

/// Rows per statement, largest first; ends with 1 so that every count can be made up.
const SIZES: [usize; 5] = [256, 64, 16, 4, 1];

/// SQLite refuses more than 32,766 parameters; beyond this many a statement gains nothing and its program grows large.
const PARAMETERS_MAX: usize = 8_192;

/// A value on its way into a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Int(i64),
    Float(f64),
    Text(String),
}

impl Cell {
    /// Text, or NULL where it is empty: the records say "none" with an empty string.
    pub fn text_or_null(text: &str) -> Cell {
        if text.is_empty() { Cell::Null } else { Cell::Text(text.to_owned()) }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.to_owned())
    }
}

impl From<Option<i64>> for Cell {
    fn from(value: Option<i64>) -> Self {
        value.map_or(Cell::Null, Cell::Int)
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Cell::Int(value)
    }
}

/// A table's statement in several sizes.
#[derive(Debug)]
pub struct Statement {
    table: &'static str,
    columns: usize,
    sizes: Vec<(usize, Arc<str>)>,
}

impl Statement {
    /// `head (columns) VALUES (?,..),.. tail`: `head` is as much as `INSERT INTO t` or `INSERT OR IGNORE INTO t`.
    pub fn new(table: &'static str, verb: &str, columns: &[&str], tail: &str) -> Self {
        Self::over(table, columns, |values| format!("{verb} {table} ({}) VALUES {values} {tail}", columns.join(",")))
    }

    /// Deletes the rows whose `columns`, an index's first ones, are those given. Of bare `VALUES` SQLite makes a list that it goes through
    /// for every row of the table; of a subquery over them, one that it looks up in the index.
    pub fn deleting(table: &'static str, columns: &[&str]) -> Self {
        let names = columns.join(",");
        Self::over(table, columns, |values| format!("DELETE FROM {table} WHERE ({names}) IN (SELECT * FROM (VALUES {values}))"))
    }

    fn over(table: &'static str, columns: &[&str], text: impl Fn(&str) -> String) -> Self {
        let row = format!("({})", vec!["?"; columns.len()].join(","));
        let sizes = SIZES
            .into_iter()
            .filter(|rows| *rows == 1 || rows * columns.len() <= PARAMETERS_MAX)
            .map(|rows| {
                let values = vec![row.as_str(); rows].join(",");
                (rows, Arc::from(text(&values)))
            })
            .collect();
        Self { table, columns: columns.len(), sizes }
    }

    /// Writes all cells, row after row.
    pub async fn write(&self, connection: &mut SqliteConnection, cells: Vec<Cell>) -> Result<(), Error> {
        assert!(cells.len().is_multiple_of(self.columns), "{}: whole rows only", self.table);
        let mut rows_left = cells.len() / self.columns;
        let mut cells = cells.into_iter();
        for (rows, sql) in &self.sizes {
            while rows_left >= *rows {
                let mut arguments = SqliteArguments::default();
                arguments.reserve(rows * self.columns, 0);
                for cell in cells.by_ref().take(rows * self.columns) {
                    bind(&mut arguments, cell);
                }
                let statement = sqlx::query_with(AssertSqlSafe(sql.clone()), arguments);
                statement.execute(&mut *connection).await.map_err(Error::sql(self.table))?;
                rows_left -= rows;
            }
        }
        Ok(())
    }
}

/// A reading statement that looks up many keys at once, in several sizes too.
#[derive(Debug)]
pub struct Lookup {
    what: &'static str,
    sizes: Vec<(usize, Arc<str>)>,
}

impl Lookup {
    /// `select` ends with `WHERE column IN`; `tail` follows the list.
    pub fn new(what: &'static str, select: &str, tail: &str) -> Self {
        let text = |keys: usize| Arc::from(format!("{select} ({}) {tail}", vec!["?"; keys].join(",")));
        Self { what, sizes: SIZES.into_iter().map(|keys| (keys, text(keys))).collect() }
    }

    /// The rows of all keys, in no order.
    pub async fn fetch(&self, connection: &mut SqliteConnection, keys: Vec<Cell>) -> Result<Vec<SqliteRow>, Error> {
        let mut found = Vec::new();
        let mut left = keys.len();
        let mut keys = keys.into_iter();
        for (size, sql) in &self.sizes {
            while left >= *size {
                let mut arguments = SqliteArguments::default();
                keys.by_ref().take(*size).for_each(|key| bind(&mut arguments, key));
                let query = sqlx::query_with(AssertSqlSafe(sql.clone()), arguments);
                found.extend(query.fetch_all(&mut *connection).await.map_err(Error::sql(self.what))?);
                left -= size;
            }
        }
        Ok(found)
    }
}

fn bind(arguments: &mut SqliteArguments, cell: Cell) {
    let added = match cell {
        Cell::Null => arguments.add(None::<i64>),
        Cell::Int(value) => arguments.add(value),
        Cell::Float(value) => arguments.add(value),
        Cell::Text(value) => arguments.add(value),
    };
    added.expect("plain values always encode");
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, Row};

    use super::*;

    #[tokio::test]
    async fn rows_are_deleted_by_the_index_whatever_their_number() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let table = "CREATE TABLE t (a TEXT NOT NULL, b TEXT NOT NULL, c INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID";
        sqlx::query(table).execute(&mut connection).await.unwrap();
        let statement = Statement::deleting("t", &["a", "b"]);
        for (rows, sql) in &statement.sizes {
            let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"))).fetch_all(&mut connection).await.unwrap();
            let steps: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
            assert!(steps.iter().any(|step| step == "SEARCH t USING PRIMARY KEY (a=? AND b=?)"), "{rows} rows: {steps:?}");
        }
        let key = |n: i64| [Cell::Text("k".to_owned()), Cell::Text(n.to_string())];
        let insert = Statement::new("t", "INSERT INTO", &["a", "b"], "");
        insert.write(&mut connection, (0..400).flat_map(key).collect()).await.unwrap();
        statement.write(&mut connection, (0..399).flat_map(key).collect()).await.unwrap();
        let left: Vec<String> = sqlx::query_scalar("SELECT b FROM t").fetch_all(&mut connection).await.unwrap();
        assert_eq!(left, ["399"]);
    }
}
