//! What a question to people is recognised by, and what is known of how an answer to it came.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::domain::{Digest, Millis};

/// Hexadecimal digits of a question's digest: enough that no two are the same by chance.
const SHOWN_CHARS: usize = 32;

/// How a person's decision came. Nothing of it is known of silence, of rules, and of decisions of before it was kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// The click or call that it came by, which no other has: whoever made it is told that it was theirs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cause: String,
    /// Whom the link was for that it came by; empty if it came by none. `by` is what its giver wrote.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub link: String,
    /// The digest of the question that its giver saw ([`shown_digest`]).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub shown: String,
    /// The digest of the message that its giver saw: no other may go.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Provenance {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whom it is told as coming from: `by`, and whose link it was if that is another.
    pub fn told(&self, by: &str) -> String {
        if self.link.is_empty() || self.link == by { by.to_owned() } else { format!("{by} (by the link of {})", self.link) }
    }
}

/// What a question to people is recognised by, beside its step: a digest of everything that they see of it.
pub fn shown_digest(node: &str, who: &str, shows: &Json, until: Millis) -> String {
    let text = serde_json::json!([node, who, shows, until]).to_string();
    Digest::of(text.as_bytes()).to_hex()[..SHOWN_CHARS].to_owned()
}
