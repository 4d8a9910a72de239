//! What workflows want to hear of a person: which events and segment changes, and with what of the profile.
//!
//! Runs stay on the definition that they began under, which may be superseded or retired since: what the runs of any definition that ever
//! took entries wait for is told for good, what begins runs only while it does. Nobody here knows when a definition's last run has ended, so
//! nothing is taken back; what is kept are names, each once, however many versions there were.
//!
//! Everything else stays in this fold. Consent, address and time zone are always told: they must be known before the first campaign is.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::ProfileFold;
use super::past::Past;
use crate::consent::Stated;
use crate::domain::{Millis, SubjectKey};
use crate::features::{self, FieldId, Value, Window};
use crate::schema::records::{Activated, Ask, Command, CommandsRecord, CommandsTick, EventBody, SegmentChange};
use crate::stream::cache::Slot;
use crate::stream::outputs::Outputs;
use crate::stream::{Error, Topic};
use crate::workflow::{Definition, Input, RunId};

/// Traits that say where a person can be reached, and the attribute that each becomes.
const REACHED_BY: [(&str, &str); 4] = [("email", "email"), ("phone", "phone"), ("push_token", "push_token"), ("pushToken", "push_token")];
/// The attribute that the time zone becomes, whichever trait or context it was said in.
const TIME_ZONE: &str = "time_zone";

/// What the runs of every workflow that ever took entries want to hear, together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Heard {
    events: BTreeSet<String>,
    segments: BTreeSet<String>,
    /// As expressions name them.
    fields: BTreeSet<String>,
}

impl Heard {
    pub(super) fn add(&mut self, definition: &Definition) {
        let (events, segments) = definition.runs_hear();
        self.events.extend(events.into_iter().map(str::to_owned));
        self.segments.extend(segments.into_iter().map(str::to_owned));
        self.fields.extend(definition.profile.iter().cloned());
    }

    /// That, and what others heard.
    pub(super) fn and(&self, others: &Heard) -> Heard {
        let both = |mine: &BTreeSet<String>, theirs: &BTreeSet<String>| mine.union(theirs).cloned().collect();
        Heard {
            events: both(&self.events, &others.events),
            segments: both(&self.segments, &others.segments),
            fields: both(&self.fields, &others.fields),
        }
    }
}

/// What is asked about people: of a tenant with workflows of its own by everyone's and by those, of all others by everyone's.
#[derive(Debug, Default)]
pub(super) struct Interests {
    pub(super) everyones: Interest,
    pub(super) of_tenants: BTreeMap<String, Interest>,
}

impl Interests {
    /// In the person with this key.
    fn in_key(&self, key: &[u8]) -> &Interest {
        if self.of_tenants.is_empty() {
            return &self.everyones;
        }
        let own = SubjectKey::parts(key).and_then(|key| self.of_tenants.get(key.tenant));
        own.unwrap_or(&self.everyones)
    }
}

/// What runs want to hear, and what begins runs of the workflows in force.
#[derive(Debug, Default)]
pub(super) struct Interest {
    events: BTreeSet<String>,
    /// Of the events, those that runs hear, whether or not they begin any.
    heard: BTreeSet<String>,
    segments: BTreeSet<String>,
    /// By the name that expressions use.
    fields: Vec<(String, Wanted)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Known(FieldId),
    Trait(Box<str>),
}

impl Interest {
    pub(super) fn of<'d>(heard: &Heard, in_force: impl Iterator<Item = &'d Definition>) -> Self {
        let Heard { mut events, mut segments, fields } = heard.clone();
        for definition in in_force {
            let (event, segment) = definition.begins_with();
            events.extend(event.map(str::to_owned));
            segments.extend(segment.map(str::to_owned));
        }
        let fields = fields.into_iter().filter_map(|name| Wanted::parse(&name).map(|wanted| (name, wanted))).collect();
        Self { events, heard: heard.events.clone(), segments, fields }
    }

    pub(super) fn of_event(&self, name: &str) -> bool {
        self.events.contains(name)
    }

    /// Whether a run may wait for it or have it as a goal.
    pub(super) fn of_run(&self, name: &str) -> bool {
        self.heard.contains(name)
    }

    pub(super) fn of_segment(&self, name: &str) -> bool {
        self.segments.contains(name)
    }
}

impl Wanted {
    /// As expressions write it: `orders`, `traits.plan`, `count("Order Completed", "30d")`.
    fn parse(name: &str) -> Option<Self> {
        if let Some(name) = name.strip_prefix("traits.") {
            return Some(Wanted::Trait(name.into()));
        }
        if let Some(arguments) = name.strip_prefix("count(").and_then(|rest| rest.strip_suffix(')')) {
            let (event, window): (String, String) = serde_json::from_str::<(String, String)>(&format!("[{arguments}]")).ok()?;
            return Some(Wanted::Known(FieldId::EventCount { event: event.as_str().into(), window: Window::parse(&window) }));
        }
        features::Field::parse(name).map(|field| Wanted::Known(FieldId::Named(field)))
    }
}

fn depth_of(depth: i32) -> u8 {
    u8::try_from(depth.max(0)).unwrap_or(u8::MAX)
}

fn json_of_properties(text: &str) -> Json {
    if text.is_empty() { Json::Null } else { serde_json::from_str(text).unwrap_or(Json::Null) }
}

fn json_of(value: Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Int(value) => json!(value),
        Value::Float(value) => json!(value),
        Value::Bool(value) => json!(value),
        Value::Text(text) => json!(text),
        Value::Time(time) => time.to_rfc3339().map_or(Json::Null, Json::String),
        Value::Money(money) => json!(money.to_f64()),
    }
}

impl ProfileFold {
    /// What the workflows that a person can enter want to hear.
    pub(super) fn interest(&self, slot: Slot) -> &Interest {
        self.interests.in_key(self.cache.key(slot))
    }

    /// What the workflows want to know of a person, as of `now`.
    fn told_of(&self, slot: Slot, wanted: &[(String, Wanted)], now: Millis) -> Json {
        let profile = &self.cache.get(slot).profile;
        let view = self.deployed.person(profile);
        let mut told = Map::new();
        for (name, wanted) in wanted {
            let value = match wanted {
                Wanted::Known(id) => json_of(view.0.value(id, now)),
                Wanted::Trait(name) => profile.trait_json(name).and_then(|json| serde_json::from_str(json).ok()).unwrap_or(Json::Null),
            };
            // Absent and unknown are the same to an expression.
            if !value.is_null() {
                told.insert(name.clone(), value);
            }
        }
        Json::Object(told)
    }

    /// The same for what every workflow in force wants to know.
    pub(super) fn told_of_all(&self, slot: Slot, at: Millis) -> Json {
        let now = self.cache.get(slot).profile.now().unwrap_or(at).max(at);
        self.told_of(slot, &self.interest(slot).fields, now)
    }

    pub(super) fn tell(&self, slot: Slot, at: Millis, input: &Input, out: &mut Outputs) -> Result<(), Error> {
        let body = serde_json::to_string(input).expect("inputs are plain data");
        let command = CommandsRecord::Command(Command { kind: input.kind(), at: Some(at.0), depth: 0, body: &body });
        out.push_to(Topic::Commands, self.partition, self.cache.key(slot), at, &command)
    }

    /// An event that some workflow waits for, begins with or has as its goal.
    pub(super) fn tell_event(&self, slot: Slot, event: &EventBody<'_>, now: Millis, late: bool, out: &mut Outputs) -> Result<(), Error> {
        if out.is_silent() || !self.interest(slot).of_event(event.name) {
            return Ok(());
        }
        let properties = json_of_properties(event.properties);
        let profile = self.told_of(slot, &self.interest(slot).fields, now);
        let (cause, name) = (event.message_id.to_owned(), event.name.to_owned());
        self.tell(slot, now, &Input::Event { cause, name, properties, profile, late, depth: depth_of(event.depth) }, out)
    }

    /// What was done before a login: held against what the user waited for at its time, and no reason to begin anything.
    pub(super) fn tell_past(&self, slot: Slot, past: &Past, now: Millis, out: &mut Outputs) -> Result<(), Error> {
        let mut heard = past.iter().filter(|event| self.interest(slot).of_run(&event.name)).peekable();
        if out.is_silent() || heard.peek().is_none() {
            return Ok(());
        }
        let profile = self.told_of(slot, &self.interest(slot).fields, now);
        heard.try_for_each(|event| {
            let (at, cause, name, profile) = (event.at, event.message_id.to_string(), event.name.to_string(), profile.clone());
            self.tell(slot, at, &Input::Past { at, cause, name, properties: json_of_properties(&event.properties), profile }, out)
        })
    }

    pub(super) fn tell_segment(&self, slot: Slot, change: &SegmentChange<'_>, depth: i32, out: &mut Outputs) -> Result<(), Error> {
        let SegmentChange { segment, entered, at, cause, late, .. } = *change;
        if out.is_silent() || !self.interest(slot).of_segment(segment) {
            return Ok(());
        }
        let now = Millis(at);
        let profile = self.told_of(slot, &self.interest(slot).fields, now);
        // When time caused it there is no message: the moment is what tells two entries apart.
        let cause = if cause.is_empty() { format!("{segment}@{}", now.0) } else { format!("{segment}@{cause}") };
        let depth = depth_of(depth);
        self.tell(slot, now, &Input::SegmentChange { cause, segment: segment.to_owned(), entered, profile, late, depth }, out)
    }

    /// The time zone in force, if it was another before.
    pub(super) fn tell_zone(&self, slot: Slot, before: Option<&str>, now: Millis, out: &mut Outputs) -> Result<(), Error> {
        match self.cache.get(slot).profile.time_zone() {
            Some(zone) if before != Some(zone) && !out.is_silent() => {
                self.tell(slot, now, &Input::Attribute { name: TIME_ZONE.to_owned(), value: json!(zone) }, out)
            }
            _ => Ok(()),
        }
    }

    /// Where the person can be reached, as far as an event changed it.
    pub(super) fn tell_reach(&self, slot: Slot, before: &Reach, now: Millis, out: &mut Outputs) -> Result<(), Error> {
        if out.is_silent() {
            return Ok(());
        }
        let now_is = self.reach(slot);
        for (at, (_, name)) in REACHED_BY.iter().enumerate() {
            if let Some(json) = now_is.0[at].as_ref().filter(|json| before.0[at].as_ref() != Some(json)) {
                let value = serde_json::from_str(json).unwrap_or(Json::Null);
                self.tell(slot, now, &Input::Attribute { name: (*name).to_owned(), value }, out)?;
            }
        }
        Ok(())
    }

    pub(super) fn reach(&self, slot: Slot) -> Reach {
        let profile = &self.cache.get(slot).profile;
        Reach(REACHED_BY.map(|(name, _)| profile.trait_json(name).map(Into::into)))
    }

    /// What the person has said about being written to, at the time when they said it.
    pub(super) fn tell_consent(
        &self,
        slot: Slot,
        cause: &str,
        at: Millis,
        now: Millis,
        stated: Vec<Stated>,
        out: &mut Outputs,
    ) -> Result<(), Error> {
        if out.is_silent() {
            return Ok(());
        }
        self.tell(slot, now, &Input::Consent { cause: cause.to_owned(), at, stated }, out)
    }

    pub(super) fn answer(&self, slot: Slot, ask: &Ask<'_>, out: &mut Outputs) -> Result<(), Error> {
        let now = self.cache.get(slot).profile.now().unwrap_or(Millis(ask.at)).max(Millis(ask.at));
        let Some(run) = RunId::parse(ask.run) else { return Ok(()) };
        let wanted: Vec<_> = ask.fields.iter().filter_map(|name| Some(((*name).to_owned(), Wanted::parse(name)?))).collect();
        let profile = self.told_of(slot, &wanted, now);
        self.tell(slot, Millis(ask.at), &Input::Answer { run, profile }, out)
    }

    /// The subject is or becomes another: told to its workflows.
    pub(super) fn tell_identity(&self, slot: Slot, input: &Input, at: Millis, out: &mut Outputs) -> Result<(), Error> {
        if out.is_silent() { Ok(()) } else { self.tell(slot, at, input, out) }
    }

    /// Time goes on to the commands of the same partition.
    pub(super) fn forward_time(&self, out: &mut Outputs) -> Result<(), Error> {
        let time = self.memo.time();
        out.push_to(Topic::Commands, self.partition, b"", time, &CommandsRecord::Tick(CommandsTick { time: time.0 }))
    }

    pub(super) fn forward_activated(&self, activated: &Activated<'_>, out: &mut Outputs) -> Result<(), Error> {
        out.push_to(Topic::Commands, self.partition, b"", Millis(activated.from), &CommandsRecord::Activated(activated.clone()))
    }
}

/// The traits of [`REACHED_BY`], as JSON text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reach([Option<Box<str>>; REACHED_BY.len()]);
