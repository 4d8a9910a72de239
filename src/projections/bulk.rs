//! Many rows in few statements: what a table's statement does is said here once; each database makes its own text of it.
//!
//! Rows are plain cells, row after row. SQLite takes them as `VALUES` of a few sizes (`sqlite::bulk`), Postgres as arrays or as a copy
//! stream (`postgres::bulk`).

#[cfg(feature = "postgres")]
use std::sync::OnceLock;

use super::sqlite::bulk::Texts;

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

    /// As it is stored: Postgres takes no zero byte in a text and SQLite has no number for "not a number", so neither gets them.
    pub fn storable(self) -> Cell {
        match self {
            Cell::Text(text) => Cell::Text(storable(text)),
            Cell::Float(number) if number.is_nan() => Cell::Null,
            cell => cell,
        }
    }
}

/// A text without zero bytes; each becomes U+FFFD.
pub fn storable(text: String) -> String {
    if memchr::memchr(0, text.as_bytes()).is_some() { text.replace('\0', "\u{fffd}") } else { text }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text)
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Cell::Int(value)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Cell::Null, Into::into)
    }
}

/// What happens to a row whose key is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// It cannot be: the table has no key, or keys are never given twice.
    None,
    /// The one that is there stays.
    Keep,
    /// An assignment, which names the table for what is there and `excluded` for what comes.
    Set(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Insert,
    /// The columns are the key of the rows to be gone.
    Delete,
}

/// One table's statement for any number of rows.
#[derive(Debug)]
pub struct Statement {
    pub verb: Verb,
    pub table: &'static str,
    pub columns: Vec<String>,
    /// The columns whose values name a row, where a row may be there already.
    pub keys: Vec<&'static str>,
    pub conflict: Conflict,
    pub sqlite: Texts,
    #[cfg(feature = "postgres")]
    pub postgres: OnceLock<super::postgres::bulk::Plan>,
}

impl Statement {
    pub fn insert(table: &'static str, columns: &[&str]) -> Self {
        Self::new(Verb::Insert, table, columns, &[], Conflict::None)
    }

    /// Leaves rows that are there as they are.
    pub fn keep(table: &'static str, columns: &[&str], keys: &[&'static str]) -> Self {
        Self::new(Verb::Insert, table, columns, keys, Conflict::Keep)
    }

    /// Sets all other columns of a row that is there.
    pub fn replace(table: &'static str, columns: &[&str], keys: &[&'static str]) -> Self {
        let fixed: Vec<&str> = keys.to_vec();
        Self::replace_but(table, columns, keys, &fixed)
    }

    /// Sets all columns of a row that is there but `fixed`, which never change.
    pub fn replace_but(table: &'static str, columns: &[&str], keys: &[&'static str], fixed: &[&str]) -> Self {
        let set: Vec<String> =
            columns.iter().filter(|name| !fixed.contains(name)).map(|name| format!("{name} = excluded.{name}")).collect();
        Self::set(table, columns, keys, &set.join(", "))
    }

    /// Adds the other columns, all of them counters, to those of a row that is there.
    pub fn add(table: &'static str, columns: &[&str], keys: &[&'static str]) -> Self {
        let set: Vec<String> =
            columns.iter().filter(|name| !keys.contains(name)).map(|name| format!("{name} = {table}.{name} + excluded.{name}")).collect();
        Self::set(table, columns, keys, &set.join(", "))
    }

    /// `assignment` is what follows `DO UPDATE SET`.
    pub fn set(table: &'static str, columns: &[&str], keys: &[&'static str], assignment: &str) -> Self {
        Self::new(Verb::Insert, table, columns, keys, Conflict::Set(assignment.to_owned()))
    }

    /// Deletes the rows whose `columns`, an index's first ones, are those given.
    pub fn deleting(table: &'static str, columns: &[&str]) -> Self {
        Self::new(Verb::Delete, table, columns, &[], Conflict::None)
    }

    fn new(verb: Verb, table: &'static str, columns: &[&str], keys: &[&'static str], conflict: Conflict) -> Self {
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        let keys = keys.to_vec();
        let tail = tail(&keys, &conflict);
        let sqlite = Texts::of(verb, table, &columns, &tail);
        Self {
            verb,
            table,
            columns,
            keys,
            conflict,
            sqlite,
            #[cfg(feature = "postgres")]
            postgres: OnceLock::new(),
        }
    }

    /// How many whole rows these cells are.
    pub fn rows(&self, cells: &[Cell]) -> usize {
        assert!(cells.len().is_multiple_of(self.columns.len()), "{}: whole rows only", self.table);
        cells.len() / self.columns.len()
    }

    /// What follows the rows; both databases read it alike.
    #[cfg(feature = "postgres")]
    pub fn tail(&self) -> String {
        tail(&self.keys, &self.conflict)
    }
}

fn tail(keys: &[&'static str], conflict: &Conflict) -> String {
    match conflict {
        Conflict::None => String::new(),
        Conflict::Keep => format!("ON CONFLICT ({}) DO NOTHING", keys.join(", ")),
        Conflict::Set(assignment) => format!("ON CONFLICT ({}) DO UPDATE SET {assignment}", keys.join(", ")),
    }
}

/// A reading statement that looks up many keys at once.
#[derive(Debug)]
pub struct Lookup {
    pub what: &'static str,
    /// The select up to the column that is looked up, that column, and what follows.
    pub select: String,
    pub column: &'static str,
    pub tail: &'static str,
}

impl Lookup {
    /// `select` ends with `WHERE`; `tail` follows the condition.
    pub fn new(what: &'static str, select: &str, column: &'static str, tail: &'static str) -> Self {
        Self { what, select: select.to_owned(), column, tail }
    }
}
