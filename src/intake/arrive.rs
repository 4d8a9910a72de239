//! What whoever appends to `intake` must know of an event before the fold reads it: its message id, its key, and what its batch shares with it.
//!
//! Judges nothing: what identifies nobody is keyed by its message id, so that it gets to the fold, which says what is wrong with it.

use std::borrow::Cow;

use super::key::{derived_message_id, key_of};
use super::scan::{Item, Raw};
use crate::domain::{ID_BYTES_MAX, Millis, Subject, TenantId, is_placeholder_id};

/// The most that a batch may put beside each of its events.
pub const SHARED_BYTES_MAX: usize = 16 * 1024;

/// The id that the event brings, else one derived from it, and whether it was derived.
pub fn message_id<'a>(item: &Item<'a>, route: &str) -> (Cow<'a, str>, bool) {
    match item.message_id.and_then(Raw::id).filter(|id| id.len() <= ID_BYTES_MAX) {
        Some(given) => (given, false),
        None => (derived_message_id(item.body, route).into(), true),
    }
}

/// What a `sentAt` says, in milliseconds since 1970.
pub fn sent_at(raw: Raw<'_>) -> Option<i64> {
    Millis::parse(&raw.id()?).map(|time| time.0)
}

/// `{"context":..,"integrations":..}` of what the batch has of them; empty if it has neither.
pub fn shared_parts(context: Option<Raw<'_>>, integrations: Option<Raw<'_>>) -> String {
    let mut text = String::new();
    for (name, part) in [("context", context), ("integrations", integrations)] {
        let Some(Raw(part)) = part.filter(|part| part.is_object()) else { continue };
        text.push_str(if text.is_empty() { "{\"" } else { ",\"" });
        text.push_str(name);
        text.push_str("\":");
        text.push_str(part);
    }
    if !text.is_empty() {
        text.push('}');
    }
    text
}

/// Replaces `key` by the one that the fold will decide the event under; what identifies nobody is keyed by its message id.
pub fn write_key(key: &mut Vec<u8>, tenant: &TenantId, item: &Item<'_>, route: &str, message_id: &str) {
    key.clear();
    key.extend_from_slice(tenant.as_str().as_bytes());
    key.push(0);
    let has_escapes = |raw: Option<Raw<'_>>| raw.is_some_and(|raw| raw.0.contains('\\'));
    let is_plain = !item.has_escaped_names && ![item.kind, item.anonymous_id, item.user_id, item.previous_id].into_iter().any(has_escapes);
    if is_plain {
        write_plain_id(key, item, route, message_id);
        return;
    }
    match key_of(item.body, route) {
        Ok(Subject::User(id)) => write_id(key, b"u:", &id),
        Ok(Subject::Anonymous(id)) => write_id(key, b"a:", &id),
        Ok(Subject::Address(_)) | Err(_) => write_id(key, b"a:", message_id),
    }
}

/// What [`key_of`] says of an event without escapes in its ids, without parsing it again: the anonymous id while there is one (of an alias
/// the id it ties), else the user id.
fn write_plain_id(key: &mut Vec<u8>, item: &Item<'_>, route: &str, message_id: &str) {
    let is_alias = item.kind.and_then(Raw::id).as_deref().unwrap_or(route) == "alias";
    let previous_id = if is_alias { item.previous_id.and_then(Raw::id) } else { None };
    let identifies = |id: &Cow<'_, str>| !is_placeholder_id(id) && id.len() <= ID_BYTES_MAX;
    let anonymous_id = previous_id.or_else(|| item.anonymous_id.and_then(Raw::id)).filter(identifies);
    if let Some(id) = anonymous_id {
        return write_id(key, b"a:", &id);
    }
    match item.user_id.and_then(Raw::id).filter(identifies) {
        Some(id) => write_id(key, b"u:", &id),
        None => write_id(key, b"a:", message_id),
    }
}

fn write_id(key: &mut Vec<u8>, mark: &[u8], id: &str) {
    key.extend_from_slice(mark);
    key.extend_from_slice(id.as_bytes());
}
