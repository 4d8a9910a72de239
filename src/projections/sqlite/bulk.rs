//! Multi-row statements for SQLite: a statement exists in a few sizes, so that any number of rows needs a handful and all stay prepared.
//!
//! One statement of 256 rows costs a fifth of 256 statements of one row. Placeholders are anonymous: numbered ones are looked up by name.

use std::sync::Arc;

use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments, AssertSqlSafe};

use super::rows;
use crate::projections::Error;
use crate::projections::bulk::{Cell, Lookup, Statement, Verb};
use crate::projections::value::Row;

/// Rows per statement, largest first; ends with 1 so that every count can be made up.
const SIZES: [usize; 5] = [256, 64, 16, 4, 1];

/// SQLite refuses more than 32,766 parameters; beyond this many a statement gains nothing and its program grows large.
const PARAMETERS_MAX: usize = 8_192;

/// A statement's text for each size.
#[derive(Debug)]
pub struct Texts(Vec<(usize, Arc<str>)>);

impl Texts {
    pub fn of(verb: Verb, table: &str, columns: &[String], tail: &str) -> Self {
        let names = columns.join(",");
        let text = |values: &str| match verb {
            Verb::Insert => format!("INSERT INTO {table} ({names}) VALUES {values} {tail}"),
            // Of bare `VALUES` SQLite makes a list that it goes through for every row of the table; of a subquery over them, one that it
            // looks up in the index.
            Verb::Delete => format!("DELETE FROM {table} WHERE ({names}) IN (SELECT * FROM (VALUES {values}))"),
        };
        let row = format!("({})", vec!["?"; columns.len()].join(","));
        let fits = |rows: &usize| *rows == 1 || rows * columns.len() <= PARAMETERS_MAX;
        let of_size = |rows| (rows, Arc::from(text(&vec![row.as_str(); rows].join(","))));
        Self(SIZES.into_iter().filter(fits).map(of_size).collect())
    }
}

/// Writes all cells, row after row.
pub async fn write(connection: &mut SqliteConnection, statement: &Statement, cells: Vec<Cell>) -> Result<(), Error> {
    let (mut rows_left, columns) = (statement.rows(&cells), statement.columns.len());
    let mut cells = cells.into_iter();
    for (rows, sql) in &statement.sqlite.0 {
        while rows_left >= *rows {
            let mut arguments = SqliteArguments::default();
            arguments.reserve(rows * columns, 0);
            cells.by_ref().take(rows * columns).for_each(|cell| bind(&mut arguments, cell));
            let query = sqlx::query_with(AssertSqlSafe(sql.clone()), arguments);
            query.execute(&mut *connection).await.map_err(Error::sql(statement.table))?;
            rows_left -= rows;
        }
    }
    Ok(())
}

/// The rows of all keys, in the order of `lookup` within each few of them.
pub async fn fetch(connection: &mut SqliteConnection, lookup: &Lookup, keys: Vec<Cell>) -> Result<Vec<Row>, Error> {
    let Lookup { what, select, column, tail } = lookup;
    let mut found = Vec::new();
    let mut left = keys.len();
    let mut keys = keys.into_iter();
    for size in SIZES {
        let sql = (left >= size).then(|| format!("{select} {column} IN ({}) {tail}", vec!["?"; size].join(",")));
        while left >= size {
            let Some(sql) = sql.clone() else { break };
            let mut arguments = SqliteArguments::default();
            keys.by_ref().take(size).for_each(|key| bind(&mut arguments, key));
            let some = sqlx::query_with(AssertSqlSafe(sql), arguments).fetch_all(&mut *connection).await;
            found.extend(some.and_then(|some| rows(&some)).map_err(Error::sql(what))?);
            left -= size;
        }
    }
    Ok(found)
}

pub fn bind(arguments: &mut SqliteArguments, cell: Cell) {
    let added = match cell.storable() {
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
        for (rows, sql) in &statement.sqlite.0 {
            let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"))).fetch_all(&mut connection).await.unwrap();
            let steps: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
            assert!(steps.iter().any(|step| step == "SEARCH t USING PRIMARY KEY (a=? AND b=?)"), "{rows} rows: {steps:?}");
        }
        let key = |n: i64| [Cell::Text("k".to_owned()), Cell::Text(n.to_string())];
        write(&mut connection, &Statement::insert("t", &["a", "b"]), (0..400).flat_map(key).collect()).await.unwrap();
        write(&mut connection, &statement, (0..399).flat_map(key).collect()).await.unwrap();
        let left: Vec<String> = sqlx::query_scalar("SELECT b FROM t").fetch_all(&mut connection).await.unwrap();
        assert_eq!(left, ["399"]);
    }
}
