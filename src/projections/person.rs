//! A profile row as the JSON that the API and the command line show: features by name, scores with their reasons, times as text.

use serde_json::{Map, Value, json};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::domain::{FieldType, Millis};
use crate::schema::profile;

/// A row of `SELECT * FROM profiles`.
pub(super) fn to_json(row: &SqliteRow) -> Value {
    let mut features = Map::new();
    for column in profile::columns() {
        features.insert(column.name.to_owned(), feature(row, column));
    }
    json!({
        "user_id": text(row, "user_id"),
        "anonymous_id": text(row, "anonymous_id"),
        "as_of": time(row, "as_of"),
        "fold_version": row.try_get::<i64, _>("fold_version").ok(),
        "traits": parsed(row, "traits", json!({})),
        "consent": parsed(row, "consent", Value::Null),
        "segments": parsed(row, "segments", json!([])),
        "features": features,
        "scores": parsed(row, "score_reasons", json!([])),
        "event_counts": parsed(row, "event_counts", json!([])),
        "currencies": parsed(row, "currency_totals", json!([])),
        "funnels": parsed(row, "funnel_steps", json!([])),
    })
}

/// Null too where the file is of a build that did not have the feature.
fn feature(row: &SqliteRow, column: &profile::Column) -> Value {
    let name = column.name;
    match column.kind {
        FieldType::Int => json!(row.try_get::<Option<i64>, _>(name).unwrap_or_default()),
        FieldType::Bool => json!(row.try_get::<Option<bool>, _>(name).unwrap_or_default()),
        FieldType::Float | FieldType::Money => json!(row.try_get::<Option<f64>, _>(name).unwrap_or_default()),
        FieldType::Text => json!(text(row, name)),
        FieldType::Time => json!(time(row, name)),
    }
}

fn text(row: &SqliteRow, name: &str) -> Option<String> {
    row.try_get(name).unwrap_or_default()
}

fn time(row: &SqliteRow, name: &str) -> Option<String> {
    let ms: Option<i64> = row.try_get(name).unwrap_or_default();
    ms.and_then(|ms| Millis(ms).to_rfc3339())
}

/// A column that holds JSON; `empty` where it is NULL or nests deeper than is read back.
fn parsed(row: &SqliteRow, name: &str, empty: Value) -> Value {
    text(row, name).and_then(|json| serde_json::from_str(&json).ok()).unwrap_or(empty)
}
