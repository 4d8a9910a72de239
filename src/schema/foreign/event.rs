//! A foreign record as an event's JSON: our names for its fields, and objects where JSON was carried as text.
//!
//! Fields are told by name alone, in the spelling of the JSON or with underscores, so that a schema need not be ours: one with these fields
//! is an event, one with an array `batch` of such records is a batch. Fields that an event does not have are left out.

use serde_json::{Map, Value};

use super::Error;

/// (the name in JSON, other names of it).
const FIELDS: &[(&str, &[&str])] = &[
    ("type", &["kind"]),
    ("event", &["event_name"]),
    ("name", &[]),
    ("category", &[]),
    ("messageId", &["message_id"]),
    ("userId", &["user_id"]),
    ("anonymousId", &["anonymous_id"]),
    ("previousId", &["previous_id"]),
    ("groupId", &["group_id"]),
    ("channel", &[]),
    ("timestamp", &["event_time"]),
    ("originalTimestamp", &["original_timestamp"]),
    ("sentAt", &["sent_at"]),
    ("properties", &[]),
    ("traits", &[]),
    ("context", &[]),
    ("integrations", &[]),
];
/// Those that are objects, or JSON of one as text.
const OBJECTS: &[&str] = &["properties", "traits", "context", "integrations"];

/// The text of one event or of a batch.
pub fn event(value: Value) -> Result<String, Error> {
    let Value::Object(mut record) = value else { return Err(Error::Shape("the value is no record".into())) };
    let Some(Value::Array(items)) = record.get_mut("batch").map(Value::take) else { return Ok(one(record)?.to_string()) };
    let items: Result<Vec<Value>, Error> = items.into_iter().map(item).collect();
    let mut batch = Map::from_iter([("batch".to_owned(), Value::Array(items?))]);
    for (name, others) in FIELDS.iter().filter(|(name, _)| ["sentAt", "context", "integrations"].contains(name)) {
        put(&mut batch, &mut record, name, others)?;
    }
    if record.get("historical") == Some(&Value::Bool(true)) {
        batch.insert("historical".to_owned(), Value::Bool(true));
    }
    Ok(Value::Object(batch).to_string())
}

fn item(value: Value) -> Result<Value, Error> {
    match value {
        Value::Object(record) => one(record),
        _ => Err(Error::Shape("an item of `batch` is no record".into())),
    }
}

fn one(mut record: Map<String, Value>) -> Result<Value, Error> {
    let mut event = Map::new();
    for (name, others) in FIELDS {
        put(&mut event, &mut record, name, others)?;
    }
    let ids = ["userId", "anonymousId", "previousId", "groupId"];
    if !event.contains_key("type") && !event.contains_key("event") && !ids.iter().any(|id| event.contains_key(*id)) {
        return Err(Error::Shape("the record has none of the fields of an event: type, event, userId, anonymousId, ...".into()));
    }
    // As our own schema of an event has it: a track's name is its `name`.
    if event.get("type").is_some_and(|kind| kind == "track")
        && !event.contains_key("event")
        && let Some(name) = event.remove("name")
    {
        event.insert("event".to_owned(), name);
    }
    if !event.contains_key("type") && event.contains_key("event") {
        event.insert("type".to_owned(), Value::from("track"));
    }
    Ok(Value::Object(event))
}

/// Moves a field, if there is one by any of its names; null is none.
fn put(into: &mut Map<String, Value>, from: &mut Map<String, Value>, name: &str, others: &[&str]) -> Result<(), Error> {
    let mut names = std::iter::once(&name).chain(others);
    let Some(value) = names.find_map(|name| from.remove(*name).filter(|value| !value.is_null())) else { return Ok(()) };
    let value = if OBJECTS.contains(&name) { object(name, value)? } else { value };
    into.insert(name.to_owned(), value);
    Ok(())
}

fn object(name: &str, value: Value) -> Result<Value, Error> {
    let wrong = || Error::Shape(format!("{name} is no record, no map and no JSON object as text"));
    match value {
        Value::Object(_) => Ok(value),
        Value::String(text) if text.trim().is_empty() => Ok(Value::Object(Map::new())),
        Value::String(text) => serde_json::from_str(&text).ok().filter(Value::is_object).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}
