//! A small person and a catalog for tests: every type and every way of moving once.

use std::collections::BTreeMap;

use super::catalog::{Catalog, Clock, Field, Lookup, Type, Value};
use crate::domain::{DAY_MS, HOUR_MS, Millis};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Id {
    Named(&'static str),
    Count(String, i64),
    Trait(String, &'static str),
}

pub(super) struct Fixture;

pub(super) const FIELDS: [(&str, Type, Clock, u64); 10] = [
    ("orders", Type::Int, Clock::Still, 1),
    ("revenue", Type::Float, Clock::Still, 1),
    ("country", Type::Text, Clock::Still, 2),
    ("known_buyer", Type::Bool, Clock::Still, 1),
    ("last_event_at", Type::Time, Clock::Still, 4),
    ("last_order_at", Type::Time, Clock::Still, 1),
    ("days_since_last_event", Type::Int, Clock::Counts { every_ms: DAY_MS }, 4),
    ("revenue_30d", Type::Float, Clock::Falls, 8),
    ("silence", Type::Float, Clock::Rises, 4),
    ("churn", Type::Float, Clock::Dear, 4),
];

impl Catalog for Fixture {
    type Id = Id;

    fn field(&self, name: &str) -> Option<Field<Id>> {
        let (name, ty, clock, groups) = *FIELDS.iter().find(|(known, ..)| *known == name)?;
        Some(Field { id: Id::Named(name), ty, clock, groups })
    }

    fn call(&self, function: &str, arguments: &[&str]) -> Option<Result<Field<Id>, String>> {
        if function != "count" {
            return None;
        }
        let [event, window] = arguments else { return Some(Err("`count` takes an event's name and a window".to_owned())) };
        let Some(days) = window.strip_suffix('d').and_then(|days| days.parse().ok()) else {
            return Some(Err(format!("{window:?} is not a window that is counted")));
        };
        Some(Ok(Field { id: Id::Count((*event).to_owned(), days), ty: Type::Int, clock: Clock::Falls, groups: 16 }))
    }

    fn trait_as(&self, name: &str, ty: Type) -> Option<Field<Id>> {
        Some(Field { id: Id::Trait(name.to_owned(), ty.as_str()), ty, clock: Clock::Still, groups: 32 })
    }

    fn names(&self) -> Vec<String> {
        FIELDS.iter().map(|(name, ..)| (*name).to_owned()).chain(["count(".to_owned()]).collect()
    }
}

/// Stored values; what moves with time is worked out from event times.
#[derive(Debug, Default, Clone)]
pub(super) struct Person {
    pub(super) ints: BTreeMap<&'static str, i64>,
    pub(super) floats: BTreeMap<&'static str, f64>,
    pub(super) texts: BTreeMap<&'static str, String>,
    pub(super) bools: BTreeMap<&'static str, bool>,
    pub(super) last_event_at: Option<Millis>,
    pub(super) last_order_at: Option<Millis>,
    /// Times of the counted event.
    pub(super) counted: Vec<Millis>,
    pub(super) traits: BTreeMap<String, Trait>,
}

#[derive(Debug, Clone)]
pub(super) enum Trait {
    Bool(bool),
    Float(f64),
    Text(String),
}

impl Person {
    fn days_since(&self, now: Millis) -> Option<i64> {
        self.last_event_at.map(|last| now.since_ms(last).div_euclid(DAY_MS))
    }

    fn leaves_at(event: Millis, days: i64) -> Millis {
        (event + days * DAY_MS).floor_to(HOUR_MS) + HOUR_MS
    }
}

fn or_absent<'a, T>(value: Option<T>, wrap: impl Fn(T) -> Value<'a>) -> Value<'a> {
    value.map_or(Value::Absent, wrap)
}

impl Lookup<Id> for Person {
    fn value(&self, field: &Id, now: Millis) -> Value<'_> {
        match field {
            Id::Named("last_event_at") => or_absent(self.last_event_at, Value::Time),
            Id::Named("last_order_at") => or_absent(self.last_order_at, Value::Time),
            Id::Named("days_since_last_event") => or_absent(self.days_since(now), Value::Int),
            Id::Named("churn" | "silence") => or_absent(self.days_since(now), |days| Value::Float((days as f64 / 100.0).min(1.0))),
            Id::Named("revenue_30d") => {
                let held = self.counted.iter().filter(|event| now < Self::leaves_at(**event, 30)).count();
                Value::Float(held as f64 * 10.0)
            }
            Id::Named(name) => {
                let number = or_absent(self.ints.get(name), |value| Value::Int(*value));
                let number = if number == Value::Absent { or_absent(self.floats.get(name), |value| Value::Float(*value)) } else { number };
                let text = or_absent(self.texts.get(name), |value| Value::Text(value.into()));
                let truth = or_absent(self.bools.get(name), |value| Value::Bool(*value));
                [number, text, truth].into_iter().find(|value| *value != Value::Absent).unwrap_or(Value::Absent)
            }
            Id::Count(_, days) => Value::Int(self.counted.iter().filter(|event| now < Self::leaves_at(**event, *days)).count() as i64),
            Id::Trait(name, ty) => match (self.traits.get(name), *ty) {
                (Some(Trait::Bool(value)), "bool") => Value::Bool(*value),
                (Some(Trait::Float(value)), "double") => Value::Float(*value),
                (Some(Trait::Text(value)), "string") => Value::Text(value.into()),
                _ => Value::Absent,
            },
        }
    }

    fn next_change(&self, field: &Id, after: Millis) -> Option<Millis> {
        let leaving = |days| self.counted.iter().map(|event| Self::leaves_at(*event, days)).filter(|at| *at > after).min();
        match field {
            Id::Named("days_since_last_event") => {
                let last = self.last_event_at?;
                Some(last + (self.days_since(after)? + 1) * DAY_MS)
            }
            Id::Named("churn" | "silence") => {
                let days = self.days_since(after)?;
                (days < 100).then_some(self.last_event_at? + (days + 1) * DAY_MS)
            }
            Id::Named("revenue_30d") => leaving(30),
            Id::Count(_, days) => leaving(*days),
            _ => None,
        }
    }
}
