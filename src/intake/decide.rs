//! The decision itself: one record, one outcome, and what it sends.
//!
//! The order of the checks is the order of the answers to "why is my event not there": applied before, source off, malformed, filtered.

use std::borrow::Cow;

use smallvec::{SmallVec, smallvec};

use super::clock::event_time;
use super::event::{Content, Event, Kind, broken, content, kind};
use super::filter::{Looked, reason};
use super::ids::{Who, who};
use super::key::derived_message_id;
use super::members::Members;
use super::settings::Rules;
use super::state::KeyState;
use super::text::{is_too_deep, mended};
use super::{Decision, Item, Output, Seen};
use crate::domain::{DeadReason, FilterReason, Millis, Outcome, Subject};
use crate::identity::Change;

/// Why an event cannot be applied, in the words of its dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: DeadReason,
    pub(super) detail: Cow<'static, str>,
}

impl Refusal {
    pub(super) fn new(reason: DeadReason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// Decides one record on its key's state. The state changes only as the decision says; a refused record leaves it alone.
pub fn decide<'a>(state: &mut KeyState, item: &Item<'a>, seen: Seen, rules: &Rules) -> Decision<'a> {
    if seen == Seen::Applied {
        return ended(Outcome::Duplicate, "this message id was applied before under this key".into());
    }
    if rules.disabled_sources.iter().any(|source| source == item.source) {
        return ended(Outcome::Filtered(FilterReason::SourceDisabled), "intake.disabled_sources names this source".into());
    }
    let read = match mended(item.body) {
        Cow::Borrowed(body) => read(&Item { body, ..*item }, rules),
        Cow::Owned(body) => read(&Item { body: &body, ..*item }, rules).map(Read::into_owned),
    };
    let known_loop = |read: Read<'a>| refuse_user_as_anonymous(state, &read.event).map(|()| read);
    match read.and_then(known_loop) {
        Ok(read) => finish(state, item, read, rules),
        Err(refusal) => ended(Outcome::DeadLettered(refusal.reason), refusal.detail),
    }
}

fn ended<'a>(outcome: Outcome, detail: Cow<'static, str>) -> Decision<'a> {
    Decision { outcome, detail, outputs: SmallVec::new() }
}

/// A valid event, before anyone asked whose it is.
struct Read<'a> {
    event: Event<'a>,
    looked: Looked,
}

impl Read<'_> {
    fn into_owned<'b>(self) -> Read<'b> {
        Read { event: self.event.into_owned(), looked: self.looked }
    }
}

fn read<'a>(item: &Item<'a>, rules: &Rules) -> Result<Read<'a>, Refusal> {
    if item.body.len() > rules.event_bytes_max {
        let detail =
            format!("the event has {} bytes, at most {} are taken; send less in one event", item.body.len(), rules.event_bytes_max);
        return Err(Refusal::new(DeadReason::TooLarge, detail));
    }
    if is_too_deep(item.body) || is_too_deep(item.batch) {
        return Err(Refusal::new(DeadReason::Malformed, "the event nests deeper than 64 levels; flatten its properties"));
    }
    let members = Members::read(item.body).map_err(broken)?;
    let kind = kind(&members, item.route)?;
    let Who { anonymous, user } = who(kind, &members)?;
    check_key(item, anonymous.as_deref())?;
    let event_time = event_time(&members, item, rules.clock)?;
    let Content { name, properties, context, looked } = content(kind, &members, item, rules)?;
    let message_id = match item.message_id {
        "" => Cow::Owned(derived_message_id(item.body, item.route)),
        id => Cow::Borrowed(id),
    };
    let (user_id, anonymous_id) = (user.unwrap_or_default(), anonymous.unwrap_or_default());
    Ok(Read { event: Event { message_id, kind, name, event_time, user_id, anonymous_id, properties, context }, looked })
}

/// An anonymous id's ties are in its own key's state, so its events must come under it. A user's events need no state.
fn check_key(item: &Item<'_>, anonymous: Option<&str>) -> Result<(), Refusal> {
    match anonymous {
        Some(id) if item.key_is_user || item.key_id != id => {
            let detail = format!("the event belongs under anonymous id {id:?} but its record has another key; its producer must use it");
            Err(Refusal::new(DeadReason::Undecodable, detail))
        }
        _ => Ok(()),
    }
}

/// One hop: where a device's id was used as a user's id too, an alias of it would tie a user to a user.
fn refuse_user_as_anonymous(state: &KeyState, event: &Event<'_>) -> Result<(), Refusal> {
    if event.kind == Kind::Alias && state.ties.knows(&event.anonymous_id) {
        let detail = format!("{:?} is a user already, and a user is never tied to a user", event.anonymous_id);
        return Err(Refusal::new(DeadReason::IdentityLoop, detail));
    }
    Ok(())
}

fn finish<'a>(state: &mut KeyState, item: &Item<'a>, read: Read<'a>, rules: &Rules) -> Decision<'a> {
    let Read { mut event, looked } = read;
    if let Some(reason) = reason(state, item, looked, rules) {
        let detail = match reason {
            FilterReason::Bot => "the user agent is a bot's (intake.bots)",
            FilterReason::Internal => "it is the company's own traffic (intake.internal)",
            _ => "the key sent more than its allowance (intake.flood)",
        };
        return ended(Outcome::Filtered(reason), detail.into());
    }
    let mut outputs = SmallVec::new();
    if event.user_id.is_empty() {
        if let Some(user) = state.ties.user_at(event.event_time) {
            event.user_id = Cow::Owned(user.to_owned());
        }
    } else if !event.anonymous_id.is_empty() && matches!(event.kind, Kind::Identify | Kind::Alias) {
        outputs = tie(state, &event.anonymous_id, &event.user_id, event.event_time);
    }
    let subject = if event.user_id.is_empty() {
        state.sent_events = true;
        Subject::anonymous(&event.anonymous_id)
    } else {
        Subject::user(&event.user_id)
    };
    outputs.push(Output::Event { subject, event });
    Decision { outcome: Outcome::Applied, detail: Cow::Borrowed(""), outputs }
}

/// Ties the key's anonymous id to a user: what both keys and `identities` must hear, ahead of the event that ties.
fn tie<'a>(state: &mut KeyState, anonymous_id: &str, user_id: &str, at: Millis) -> SmallVec<[Output<'a>; 1]> {
    let change = state.ties.tie(user_id, at);
    if change == Change::None {
        return SmallVec::new();
    }
    let ties = state.ties.iter().map(|(user, from)| (user.to_owned(), from)).collect();
    let mut outputs: SmallVec<[Output<'a>; 1]> = smallvec![Output::IdentityChanged { anonymous_id: anonymous_id.to_owned(), ties }];
    // Later ties take nothing over: the history went to the first user, and nothing was sent to the anonymous subject since.
    if change == Change::First && state.sent_events {
        let (from, to) = (anonymous_id.to_owned(), user_id.to_owned());
        outputs.push(Output::Handover { anonymous_id: from.clone(), user_id: to.clone(), at });
        outputs.push(Output::Expect { anonymous_id: from, user_id: to, at });
    }
    outputs
}
