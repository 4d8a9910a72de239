//! What an event says about consent, in the forms that consent platforms and SDKs write it.
//!
//! - Segment: `context.consent.categoryPreferences`, a flag for each category, on any event;
//! - RudderStack: `context.consentManagement` with `allowedConsentIds` and `deniedConsentIds`, on any event;
//! - an identify's `traits.consent`;
//! - a track named `Consent Updated` with its properties: `purpose`, `channel` and `granted` of one answer, or many as `consent`;
//! - the e-mail specification's `Unsubscribed` and `Email Marked as Spam`: marketing by e-mail, denied.
//!
//! A category is a purpose on every channel. Where answers come in an object, a name that is a channel's stands for every purpose on it,
//! and the two may be nested either way round. A category that an event leaves out keeps its answer.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use smallvec::SmallVec;

/// The most answers taken from one event.
const STATED_MAX: usize = 64;

const CHANNELS: &[&str] = &["ads", "call", "direct_mail", "email", "in_app", "phone", "post", "push", "sms", "web", "whatsapp"];

/// The parts of an event that may speak of consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said<'a> {
    /// track, identify, ...
    pub kind: &'a str,
    pub name: &'a str,
    /// JSON object; the traits of an identify; empty if none.
    pub properties: &'a str,
    /// JSON object; empty if none.
    pub context: &'a str,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stated {
    /// Empty for every purpose.
    #[serde(default)]
    pub purpose: String,
    /// Empty for every channel.
    #[serde(default)]
    pub channel: String,
    pub granted: bool,
}

/// Every answer in an event, none for nearly all events (which cost two searches for a word).
pub fn stated(said: Said<'_>) -> SmallVec<[Stated; 4]> {
    let mut found = SmallVec::new();
    if said.context.contains("\"consent") {
        read_context(said.context, &mut found);
    }
    match said.kind {
        "identify" if said.properties.contains("\"consent\"") => {
            if let Some(Value::Object(traits)) = parse(said.properties) {
                read_answers(traits.get("consent"), &mut found);
            }
        }
        "track" => read_track(said, &mut found),
        _ => {}
    }
    found.truncate(STATED_MAX);
    found
}

fn parse(json: &str) -> Option<Value> {
    serde_json::from_str(json).ok()
}

fn read_context(context: &str, found: &mut SmallVec<[Stated; 4]>) {
    let Some(context) = parse(context) else { return };
    if let Some(Value::Object(categories)) = context.pointer("/consent/categoryPreferences") {
        for (category, answer) in categories {
            push(found, category, "", answer);
        }
    }
    for (list, granted) in [("allowedConsentIds", true), ("deniedConsentIds", false)] {
        let ids = context.get("consentManagement").and_then(|given| given.get(list)).and_then(Value::as_array);
        for category in ids.into_iter().flatten().filter_map(Value::as_str) {
            push(found, category, "", &Value::Bool(granted));
        }
    }
}

fn read_track(said: Said<'_>, found: &mut SmallVec<[Stated; 4]>) {
    match said.name {
        "Consent Updated" => {
            let Some(Value::Object(properties)) = parse(said.properties) else { return };
            read_answers(properties.get("consent"), found);
            let text = |name: &str| properties.get(name).and_then(Value::as_str).unwrap_or("");
            let (purpose, channel) = (text("purpose"), text("channel"));
            let answer = properties.get("granted").or_else(|| properties.get("status"));
            if let Some(answer) = answer.filter(|_| !purpose.is_empty() || !channel.is_empty()) {
                push(found, purpose, channel, answer);
            }
        }
        "Unsubscribed" | "Email Marked as Spam" => push(found, "marketing", "email", &Value::Bool(false)),
        _ => {}
    }
}

/// `{"marketing": true, "sms": false, "email": {"newsletter": true}, "research": {"phone": false}}`.
fn read_answers(answers: Option<&Value>, found: &mut SmallVec<[Stated; 4]>) {
    let Some(Value::Object(answers)) = answers else { return };
    for (name, answer) in answers {
        match answer {
            Value::Object(inner) => read_inner(name, inner, found),
            answer if is_channel(name) => push(found, "", name, answer),
            answer => push(found, name, "", answer),
        }
    }
}

fn read_inner(outer: &str, inner: &Map<String, Value>, found: &mut SmallVec<[Stated; 4]>) {
    for (name, answer) in inner {
        let (purpose, channel) = if is_channel(outer) { (name.as_str(), outer) } else { (outer, name.as_str()) };
        push(found, purpose, channel, answer);
    }
}

fn is_channel(name: &str) -> bool {
    CHANNELS.iter().any(|channel| channel.eq_ignore_ascii_case(name))
}

/// Takes a flag, a number or a word; what is none of them says nothing.
fn push(found: &mut SmallVec<[Stated; 4]>, purpose: &str, channel: &str, answer: &Value) {
    let word = |text: &str| match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "granted" | "given" | "accepted" | "allowed" | "opt_in" | "opted_in" | "opt-in" | "subscribed" => Some(true),
        "false" | "no" | "denied" | "withdrawn" | "revoked" | "rejected" | "opt_out" | "opted_out" | "opt-out" | "unsubscribed" => {
            Some(false)
        }
        _ => None,
    };
    let granted = match answer {
        Value::Bool(granted) => Some(*granted),
        Value::Number(number) => number.as_i64().filter(|number| matches!(number, 0 | 1)).map(|number| number == 1),
        Value::String(text) => word(text),
        _ => None,
    };
    if let Some(granted) = granted {
        found.push(Stated { purpose: purpose.to_owned(), channel: channel.to_owned(), granted });
    }
}
