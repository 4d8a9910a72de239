//! Postgres's values as ours, from both of its formats: the binary one of prepared statements, the text of plain ones.

use std::sync::Arc;

use sqlx::postgres::{PgRow, PgValueFormat, PgValueRef};
use sqlx::{Column, Row as _, TypeInfo, ValueRef};

use crate::projections::value::{Row, Value};

/// The rows of one answer.
pub fn rows(found: &[PgRow]) -> Result<Vec<Row>, sqlx::Error> {
    let columns = found.first().map_or(&[][..], PgRow::columns);
    let columns: Arc<[String]> = columns.iter().map(|column| column.name().to_owned()).collect();
    found.iter().map(|row| Ok(Row::new(Arc::clone(&columns), values(row)?))).collect()
}

pub fn values(row: &PgRow) -> Result<Vec<Value>, sqlx::Error> {
    (0..row.columns().len()).map(|at| value(row, at)).collect()
}

fn value(row: &PgRow, at: usize) -> Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    match raw.format() {
        PgValueFormat::Text => of_text(&raw),
        PgValueFormat::Binary => of_binary(row, at, raw.type_info().name()),
    }
}

/// What people's own statements answer: any type, as Postgres writes it.
fn of_text(raw: &PgValueRef<'_>) -> Result<Value, sqlx::Error> {
    let text = raw.as_str().map_err(sqlx::Error::Decode)?;
    let number = |text: &str| text.parse().map(Value::Float).map_err(|error| sqlx::Error::Decode(Box::new(error)));
    Ok(match raw.type_info().name() {
        "INT8" | "INT4" | "INT2" | "OID" => Value::Int(text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?),
        "BOOL" => Value::Int(i64::from(text == "t")),
        "FLOAT8" | "FLOAT4" => number(text)?,
        // Sums of whole numbers are these too: whole as far as they are written so.
        "NUMERIC" => match text.parse() {
            Ok(whole) => Value::Int(whole),
            Err(_) => number(text)?,
        },
        _ => Value::Text(text.to_owned()),
    })
}

/// What our own statements answer: a few types.
fn of_binary(row: &PgRow, at: usize, kind: &str) -> Result<Value, sqlx::Error> {
    match kind {
        "INT8" => row.try_get_unchecked(at).map(Value::Int),
        "INT4" => row.try_get_unchecked::<i32, _>(at).map(|number| Value::Int(number.into())),
        "BOOL" => row.try_get_unchecked::<bool, _>(at).map(|truth| Value::Int(truth.into())),
        "FLOAT8" => row.try_get_unchecked(at).map(Value::Float),
        "BYTEA" => row.try_get_unchecked(at).map(Value::Blob),
        _ => row.try_get_unchecked(at).map(Value::Text),
    }
}
