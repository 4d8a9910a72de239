//! SQL from people: one read-only statement, bounded in time and rows, its answer as typed values.
//!
//! Three locks: the connection is read-only, its transaction too, and anything but a single SELECT, WITH, VALUES or EXPLAIN is refused
//! before it is run, because ATTACH, PRAGMA and SET would reach beyond this namespace. How each database runs it is in its own `read`.

use super::value::Value;
use super::{Error, Place, Reader};
use crate::domain::Namespace;

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
pub async fn query(place: impl Into<Place>, namespace: &Namespace, sql: &str, limits: Limits) -> Result<Rows, Error> {
    check_statement(sql)?;
    Reader::new(place, namespace).query_alone(sql, limits).await
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
