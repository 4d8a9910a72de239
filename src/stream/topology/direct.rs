//! Runs a topology's features and segments over records without a log: known users only, each message once.

use std::collections::BTreeMap;

use super::fields::{Field, Person};
use super::{Change, Given, Run, Seen, Topology};
use crate::domain::{Millis, Subject};
use crate::features::{Profile, RawEvent, extract};
use crate::models::View;
use crate::segments::{Lookup, Value};

#[derive(Debug, Clone, Copy, Default)]
pub struct Direct;

#[derive(Default)]
struct State {
    profile: Profile,
    member_of: Vec<bool>,
    due: Option<Millis>,
}

/// A profile that outlives the run.
struct Kept {
    profile: Profile,
    topology: Topology,
}

impl Kept {
    fn person(&self) -> Person<'_> {
        Person(View { profile: &self.profile, rules: &self.topology.rules, models: &self.topology.models })
    }
}

impl Lookup<Field> for Kept {
    fn value(&self, field: &Field, now: Millis) -> Value<'_> {
        match self.person().value(field, now) {
            Value::Text(text) => Value::Text(text.into_owned().into()),
            Value::Absent => Value::Absent,
            Value::Bool(value) => Value::Bool(value),
            Value::Int(value) => Value::Int(value),
            Value::Float(value) => Value::Float(value),
            Value::Time(time) => Value::Time(time),
        }
    }

    fn next_change(&self, field: &Field, after: Millis) -> Option<Millis> {
        self.person().next_change(field, after)
    }
}

impl Run for Direct {
    fn run(&self, topology: &Topology, given: &[Given], until: Millis) -> Result<Seen, String> {
        let mut people: BTreeMap<Subject, State> = BTreeMap::new();
        let mut changes = Vec::new();
        for record in given {
            let body: serde_json::Value = serde_json::from_str(&record.body).map_err(|error| error.to_string())?;
            let text = |key: &str| body.get(key).and_then(|value| value.as_str()).unwrap_or("").to_owned();
            let json = |key: &str| body.get(key).map(ToString::to_string).unwrap_or_default();
            let (kind, time) = (text("type"), Millis::parse(&text("timestamp")).ok_or("no timestamp")?);
            let name = [text("event"), text("name"), kind.clone()].into_iter().find(|name| !name.is_empty()).unwrap_or_default();
            let (properties, context) =
                (json(if kind == "identify" || kind == "group" { "traits" } else { "properties" }), json("context"));
            let who = if text("userId").is_empty() { Subject::anonymous(&text("anonymousId")) } else { Subject::user(&text("userId")) };
            let state = people.entry(who.clone()).or_default();
            wake(topology, &who, state, time, &mut changes);
            let raw = RawEvent {
                kind: &kind,
                name: &name,
                event_time: time.0,
                properties: &properties,
                context: &context,
                ..RawEvent::default()
            };
            let _ = state.profile.observe(&extract(&raw, &topology.rules), &topology.rules);
            let now = state.profile.now().unwrap_or(time);
            decide(topology, &who, state, now, &mut changes);
        }
        for (who, state) in &mut people {
            wake(topology, who, state, until, &mut changes);
        }
        changes.sort();
        let outcomes = BTreeMap::from([("applied".to_owned(), given.len() as u64)]);
        let keep = |(who, state): (Subject, State)| {
            let kept: Box<dyn Lookup<Field>> = Box::new(Kept { profile: state.profile, topology: topology.clone() });
            (who, kept)
        };
        Ok(Seen { outcomes, changes, profiles: people.into_iter().map(keep).collect() })
    }
}

fn wake(topology: &Topology, who: &Subject, state: &mut State, until: Millis, changes: &mut Vec<Change>) {
    while let Some(due) = state.due.filter(|due| *due <= until) {
        state.profile.wake(due);
        decide(topology, who, state, due, changes);
    }
}

fn decide(topology: &Topology, who: &Subject, state: &mut State, now: Millis, changes: &mut Vec<Change>) {
    state.member_of.resize(topology.segments.len(), false);
    let person = Person(View { profile: &state.profile, rules: &topology.rules, models: &topology.models });
    let mut due: Option<Millis> = None;
    for (segment, is_member) in topology.segments.iter().zip(&mut state.member_of) {
        let entered = segment.evaluate(&person, now);
        if entered != *is_member {
            *is_member = entered;
            changes.push(Change { at: now, subject: who.clone(), segment: segment.name.to_string(), entered });
        }
        let flip = segment.next_flip(&person, now);
        due = [due, flip].into_iter().flatten().min();
    }
    state.due = due;
}
