//! An event's own content: its kind, name, properties and context in one shape, whichever SDK sent it.

use std::borrow::Cow;

use super::Item;
use super::decide::Refusal;
use super::filter::{self, Looked};
use super::json::{merged, object, with_members};
use super::members::{Context, Members, Page, Person, Shared};
use super::settings::Rules;
use super::text::scalar;
use crate::domain::{DeadReason, Millis};

/// The longest event, page or group name, in bytes.
const NAME_BYTES_MAX: usize = 512;

/// The six calls of the Segment specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Track,
    Identify,
    Page,
    Screen,
    Group,
    Alias,
}

impl Kind {
    pub const ALL: [Kind; 6] = [Kind::Track, Kind::Identify, Kind::Page, Kind::Screen, Kind::Group, Kind::Alias];

    /// The name on the wire and in `events`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Track => "track",
            Kind::Identify => "identify",
            Kind::Page => "page",
            Kind::Screen => "screen",
            Kind::Group => "group",
            Kind::Alias => "alias",
        }
    }

    pub fn parse(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A validated event. Borrows the record it came from wherever nothing had to be changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'a> {
    pub message_id: Cow<'a, str>,
    pub kind: Kind,
    /// The event's name; for page and screen their name; else, and where they have none, the kind.
    pub name: Cow<'a, str>,
    pub event_time: Millis,
    /// The user it belongs to, also where only a tie says so; empty while nobody is known.
    pub user_id: Cow<'a, str>,
    /// Empty if it had none; of an alias the id it ties.
    pub anonymous_id: Cow<'a, str>,
    /// JSON object: properties of track, page, screen; traits of identify, group, alias; empty if none.
    pub properties: Cow<'a, str>,
    /// JSON object, the batch's merged under the event's; empty if none.
    pub context: Cow<'a, str>,
}

impl Event<'_> {
    pub(super) fn into_owned(self) -> Event<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Event {
            message_id: owned(self.message_id),
            kind: self.kind,
            name: owned(self.name),
            event_time: self.event_time,
            user_id: owned(self.user_id),
            anonymous_id: owned(self.anonymous_id),
            properties: owned(self.properties),
            context: owned(self.context),
        }
    }
}

/// The kind that the body says, else the route.
pub(super) fn kind(members: &Members<'_>, route: &str) -> Result<Kind, Refusal> {
    let said = members.kind.and_then(scalar);
    let name = said.as_deref().filter(|name| !name.is_empty()).unwrap_or(route);
    Kind::parse(name).ok_or_else(|| {
        let known = "track, identify, page, screen, group or alias";
        let detail = match name {
            "" => format!("the event has no type; send \"type\" as {known}"),
            "merge" | "audiencelist" => format!("{name} is a call of RudderStack's own; send {known} (an alias ties two ids)"),
            other => format!("type {:?} is none of {known}", &other[..other.floor_char_boundary(40)]),
        };
        Refusal::new(DeadReason::UnknownType, detail)
    })
}

/// What an event carries besides ids and times.
#[derive(Debug)]
pub(super) struct Content<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) properties: Cow<'a, str>,
    pub(super) context: Cow<'a, str>,
    pub(super) looked: Looked,
}

/// Reads name, properties and context, and what the filters want to know of them.
pub(super) fn content<'a>(kind: Kind, members: &Members<'a>, item: &Item<'a>, rules: &Rules) -> Result<Content<'a>, Refusal> {
    let shared = if item.batch.is_empty() { Shared::default() } else { Shared::read(item.batch).map_err(broken)? };
    let context = merged(object(shared.context, "the batch's context")?, object(members.context, "context")?);
    let (name, properties) = match kind {
        Kind::Track => (name("event", members.event)?, object(members.properties, "properties")?.into()),
        Kind::Page | Kind::Screen => page(members)?,
        Kind::Identify => (None, identify_traits(&context, object(members.traits, "traits")?)?),
        Kind::Group | Kind::Alias => (None, object(members.traits, "traits")?.into()),
    };
    let group_id = members.group_id.filter(|raw| scalar(raw).is_some_and(|id| !id.trim().is_empty()));
    match (kind, &name, group_id) {
        (Kind::Track, None, _) => return Err(missing("a track needs the name of what happened in \"event\"")),
        (Kind::Group, _, None) => return Err(missing("a group needs the group's id in \"groupId\"")),
        _ => {}
    }
    let known = if context.is_empty() { Context::default() } else { Context::read(&context).map_err(broken)? };
    let looked = look(&known, members, item, rules)?;
    let integrations = merged(object(shared.integrations, "the batch's integrations")?, object(members.integrations, "integrations")?);
    let added = [
        ("groupId", group_id.filter(|_| known.group_id.is_none())),
        ("channel", members.channel.filter(|_| known.channel.is_none())),
        ("integrations", Some(&*integrations).filter(|raw| !raw.is_empty() && known.integrations.is_none())),
    ];
    let context = with_members(context, &added);
    Ok(Content { name: name.unwrap_or(Cow::Borrowed(kind.as_str())), properties, context, looked })
}

fn look(known: &Context<'_>, members: &Members<'_>, item: &Item<'_>, rules: &Rules) -> Result<Looked, Refusal> {
    let user_agent = known.user_agent.and_then(scalar);
    let ip = known.ip.and_then(scalar);
    let mut email = None;
    if !rules.email_domains.is_empty() {
        for traits in [members.traits, known.traits] {
            let traits = object(traits, "traits")?;
            if email.is_none() && !traits.is_empty() {
                email = Person::read(traits).map_err(broken)?.email.and_then(scalar);
            }
        }
    }
    Ok(filter::look(item, user_agent.as_deref(), ip.as_deref(), email.as_deref(), rules))
}

/// An identify's own traits over those in its context, where RudderStack's Python client puts all of them.
fn identify_traits<'a>(context: &Cow<'a, str>, own: &'a str) -> Result<Cow<'a, str>, Refusal> {
    match context {
        Cow::Borrowed("") => Ok(own.into()),
        Cow::Borrowed(text) => Ok(merged(object(Context::read(text).map_err(broken)?.traits, "context.traits")?, own)),
        Cow::Owned(text) => {
            let traits = object(Context::read(text).map_err(broken)?.traits, "context.traits")?;
            Ok(Cow::Owned(merged(traits, own).into_owned()))
        }
    }
}

/// A page's or screen's name and properties: the top level's name and category belong to the properties too.
fn page<'a>(members: &Members<'a>) -> Result<(Option<Cow<'a, str>>, Cow<'a, str>), Refusal> {
    let properties = object(members.properties, "properties")?;
    let known = if properties.is_empty() { Page::default() } else { Page::read(properties).map_err(broken)? };
    let name = match name("name", members.name)? {
        Some(name) => Some(name),
        None => name("properties.name", known.name)?,
    };
    let text = |raw: Option<&'a str>| raw.filter(|raw| scalar(raw).is_some_and(|text| !text.is_empty()));
    let added = [
        ("name", text(members.name).filter(|_| known.name.is_none())),
        ("category", text(members.category).filter(|_| known.category.is_none())),
    ];
    Ok((name, with_members(properties.into(), &added)))
}

/// A name that is not blank.
fn name<'a>(member: &str, raw: Option<&'a str>) -> Result<Option<Cow<'a, str>>, Refusal> {
    let Some(text) = raw.and_then(scalar).filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    if text.len() > NAME_BYTES_MAX {
        let detail = format!("{member} has {} bytes, at most {NAME_BYTES_MAX} are taken; put what varies into properties", text.len());
        return Err(Refusal::new(DeadReason::TooLarge, detail));
    }
    Ok(Some(text))
}

pub(super) fn broken(error: serde_json::Error) -> Refusal {
    Refusal::new(DeadReason::Malformed, format!("the event is not JSON: {error}; send a JSON object"))
}

fn missing(detail: &'static str) -> Refusal {
    Refusal::new(DeadReason::MissingField, detail)
}
