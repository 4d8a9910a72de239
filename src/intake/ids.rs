//! Who an event says it is about.

use std::borrow::Cow;

use super::decide::Refusal;
use super::event::Kind;
use super::members::Members;
use super::text::scalar;
use crate::domain::{DeadReason, ID_BYTES_MAX, is_placeholder_id};

/// An event's ids; at least one is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who<'a> {
    /// The anonymous id; of an alias the id it ties.
    pub(super) anonymous: Option<Cow<'a, str>>,
    pub(super) user: Option<Cow<'a, str>>,
}

/// Reads the ids, or says what is wrong with them.
pub(super) fn who<'a>(kind: Kind, members: &Members<'a>) -> Result<Who<'a>, Refusal> {
    let user = id("userId", members.user_id)?;
    let anonymous = match (kind, members.previous_id.and_then(scalar)) {
        (Kind::Alias, Some(previous)) if !previous.is_empty() => {
            let previous = id("previousId", members.previous_id)?;
            Some(previous.ok_or_else(|| missing("the alias's previousId identifies nobody; send the anonymous id that becomes the user"))?)
        }
        _ => id("anonymousId", members.anonymous_id)?,
    };
    if kind == Kind::Alias {
        let (Some(from), Some(to)) = (&anonymous, &user) else {
            return Err(missing("an alias needs userId and previousId (or anonymousId); send both"));
        };
        if from == to {
            let detail = format!("the alias ties {from:?} to itself; send the anonymous id as previousId and the user's as userId");
            return Err(Refusal::new(DeadReason::IdentityLoop, detail));
        }
    }
    if anonymous.is_none() && user.is_none() {
        let detail = format!(
            "anonymousId is {} and userId is {}: neither identifies anyone; send one that does",
            shown(members.anonymous_id),
            shown(members.user_id)
        );
        return Err(Refusal::new(DeadReason::NoIdentity, detail));
    }
    Ok(Who { anonymous, user })
}

/// A string or number that identifies someone; `None` for what does not.
fn id<'a>(name: &str, raw: Option<&'a str>) -> Result<Option<Cow<'a, str>>, Refusal> {
    let Some(text) = raw.and_then(scalar) else { return Ok(None) };
    if text.len() > ID_BYTES_MAX {
        let detail = format!("{name} has {} bytes, at most {ID_BYTES_MAX} are taken; send a shorter id", text.len());
        return Err(Refusal::new(DeadReason::TooLarge, detail));
    }
    Ok(Some(text).filter(|text| !is_placeholder_id(text)))
}

fn missing(detail: &'static str) -> Refusal {
    Refusal::new(DeadReason::MissingField, detail)
}

/// A raw id in a message, cut to a length that a table can show.
fn shown(raw: Option<&str>) -> &str {
    match raw {
        None => "absent",
        Some(raw) => &raw[..raw.floor_char_boundary(40)],
    }
}
