//! JSON objects as text: checked, merged, added to, never built as a tree unless two of them must become one.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::decide::Refusal;
use super::text::kind_of;
use crate::domain::DeadReason;

/// An optional object member as its text; empty if there is none or it is empty. PHP writes an empty object as `[]`.
pub(super) fn object<'a>(raw: Option<&'a str>, what: &str) -> Result<&'a str, Refusal> {
    let Some(text) = raw else { return Ok("") };
    match text.as_bytes().first() {
        Some(b'{') if is_empty(text) => Ok(""),
        Some(b'{') => Ok(text),
        Some(b'[') if is_empty(text) => Ok(""),
        _ => Err(Refusal::new(DeadReason::Malformed, format!("{what} is {}; send a JSON object or leave it out", kind_of(text)))),
    }
}

/// Whether nothing but white space stands between the brackets.
fn is_empty(container: &str) -> bool {
    container[1..container.len() - 1].bytes().all(|byte| byte.is_ascii_whitespace())
}

/// Two objects as one: members of `over` win, objects in both are merged likewise; values stay the text they were. Either may be empty.
pub(super) fn merged<'a>(under: &'a str, over: &'a str) -> Cow<'a, str> {
    if under.is_empty() || over.is_empty() {
        return Cow::Borrowed(if over.is_empty() { under } else { over });
    }
    let mut out = String::with_capacity(under.len() + over.len());
    merge(&mut out, under, over);
    Cow::Owned(out)
}

fn merge(out: &mut String, under: &str, over: &str) {
    let (Ok(mut members), Ok(above)) = (sorted_members(under), sorted_members(over)) else {
        // Not an object after all: the event's own text stands, and whoever reads it says what is wrong.
        out.push_str(over);
        return;
    };
    let mut joined = BTreeMap::new();
    for (name, value) in above {
        match members.get(&name) {
            Some(below) if below.get().starts_with('{') && value.get().starts_with('{') => {
                joined.insert(name, (below.get(), value.get()));
            }
            _ => {
                members.insert(name, value);
            }
        }
    }
    out.push('{');
    for (at, (name, value)) in members.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&Value::from(name.as_str()).to_string());
        out.push(':');
        match joined.get(name) {
            Some((below, above)) => merge(out, below, above),
            None => out.push_str(value.get()),
        }
    }
    out.push('}');
}

/// `object` with these members at its end; the caller knows that it has none of them. An empty text counts as an object.
pub(super) fn with_members<'a>(object: Cow<'a, str>, members: &[(&str, Option<&str>)]) -> Cow<'a, str> {
    if members.iter().all(|(_, raw)| raw.is_none()) {
        return object;
    }
    let mut text = object.into_owned();
    match text.rfind('}') {
        Some(end) => text.truncate(end),
        None => text.push('{'),
    }
    for (name, raw) in members {
        let Some(raw) = raw else { continue };
        if !text.ends_with('{') {
            text.push(',');
        }
        text.push('"');
        text.push_str(name);
        text.push_str("\":");
        text.push_str(raw);
    }
    text.push('}');
    Cow::Owned(text)
}

/// Every member of an object with its raw value, in the order of their names; of one given twice the last.
pub(super) fn sorted_members(json: &str) -> Result<BTreeMap<String, &RawValue>, serde_json::Error> {
    serde_json::from_str(json)
}
