//! A profile row as the JSON that the API and the command line show: features by name, scores with their reasons, times as text.

use serde_json::{Map, Value, json};

use crate::domain::{FieldType, Millis, Money};
use crate::schema::profile;

use super::value::Row;

/// A row of `SELECT * FROM profiles`.
pub(super) fn to_json(row: &Row) -> Value {
    let mut features = Map::new();
    for column in profile::columns() {
        features.insert(column.name.to_owned(), feature(row, column));
    }
    json!({
        "user_id": text(row, "user_id"),
        "anonymous_id": text(row, "anonymous_id"),
        "as_of": time(row, "as_of"),
        "fold_version": row.named::<i64>("fold_version"),
        "traits": parsed(row, "traits", json!({})),
        "consent": parsed(row, "consent", Value::Null),
        "segments": parsed(row, "segments", json!([])),
        "features": features,
        "scores": parsed(row, "score_reasons", json!([])),
        "event_counts": parsed(row, "event_counts", json!([])),
        "currencies": currencies(parsed(row, "currency_totals", json!([]))),
        "funnels": parsed(row, "funnel_steps", json!([])),
    })
}

/// Null too where the file is of a build that did not have the feature.
fn feature(row: &Row, column: &profile::Column) -> Value {
    let name = column.name;
    match column.kind {
        FieldType::Int => json!(row.named::<Option<i64>>(name).flatten()),
        FieldType::Bool => json!(row.named::<Option<bool>>(name).flatten()),
        FieldType::Float | FieldType::Money => json!(row.named::<Option<f64>>(name).flatten()),
        FieldType::Text => json!(text(row, name)),
        FieldType::Time => json!(time(row, name)),
    }
}

/// Amounts in units, as everywhere that people see them; the column has exact millionths.
fn currencies(mut totals: Value) -> Value {
    for total in totals.as_array_mut().into_iter().flatten() {
        for amount in ["revenue", "refunds"] {
            if let Some(millionths) = total[amount].as_i64() {
                total[amount] = json!(Money(millionths).to_f64());
            }
        }
    }
    totals
}

fn text(row: &Row, name: &str) -> Option<String> {
    row.named::<Option<String>>(name).flatten()
}

fn time(row: &Row, name: &str) -> Option<String> {
    let ms = row.named::<Option<i64>>(name).flatten();
    ms.and_then(|ms| Millis(ms).to_rfc3339())
}

/// A column that holds JSON; `empty` where it is NULL or nests deeper than is read back.
fn parsed(row: &Row, name: &str, empty: Value) -> Value {
    text(row, name).and_then(|json| serde_json::from_str(&json).ok()).unwrap_or(empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_in_units_and_what_is_no_amount_stays() {
        let stored = json!([{"currency": "USD", "orders": 3, "revenue": 37_550_000, "refunds": null}]);
        assert_eq!(currencies(stored), json!([{"currency": "USD", "orders": 3, "revenue": 37.55, "refunds": null}]));
        assert_eq!(currencies(json!([])), json!([]));
    }
}
