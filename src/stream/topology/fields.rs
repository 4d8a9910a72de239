//! Binds expressions to the profile: which names there are, how each moves with time, and how a person's values are read.

use std::borrow::Cow;
use std::fmt;

use crate::domain::{DAY_MS, Millis};
use crate::features::{self, FIELDS, FieldId, FieldType, Motion, Rules, Window};
use crate::models::View;
use crate::segments::{Catalog, Clock, Lookup, Type, Value};

/// What a predicate reads of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    Known(FieldId),
    /// A trait read as one type; absent if it holds another.
    Trait {
        name: Box<str>,
        ty: Type,
    },
}

/// As expressions write it.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Known(FieldId::Named(field)) => f.write_str(field.def().name),
            Field::Known(FieldId::EventCount { event, window }) => {
                write!(f, "count({event:?}, \"{}\")", window.map_or("all", Window::as_str))
            }
            Field::Known(FieldId::Funnel(name)) => write!(f, "funnel({name:?})"),
            Field::Known(FieldId::Trait(name)) => write!(f, "trait({name:?})"),
            Field::Trait { name, .. } => write!(f, "traits.{name}"),
        }
    }
}

/// How a field moves while nothing happens; `fields_move_as_their_clocks_say` holds features and models to it.
fn clock(field: &FieldId) -> Clock {
    match (field, field.motion()) {
        // Of the scores these two go one way only, so that their flips are searched for instead of being waited for day by day.
        (FieldId::Named(features::Field::Churn), _) => Clock::Rises,
        // An act that speaks against a purchase can, by being forgotten, lift the score by a thousandth; that wakes nobody.
        (FieldId::Named(features::Field::Intent), _) => Clock::Falls,
        (_, Motion::Still) => Clock::Still,
        (_, Motion::Counts) => Clock::Counts { every_ms: DAY_MS },
        (_, Motion::Falls) => Clock::Falls,
        (_, Motion::Moves) => Clock::Moves,
        (_, Motion::Dear) => Clock::Dear,
    }
}

fn field(id: FieldId) -> crate::segments::Field<Field> {
    let ty = match id.kind() {
        FieldType::Int => Type::Int,
        FieldType::Float | FieldType::Money => Type::Float,
        FieldType::Bool => Type::Bool,
        FieldType::Text => Type::Text,
        FieldType::Time => Type::Time,
    };
    let (clock, groups) = (clock(&id), u64::from(id.group().0));
    crate::segments::Field { id: Field::Known(id), ty, clock, groups }
}

/// The names that expressions may use under some settings: funnels are known by them.
pub struct Fields {
    funnels: Vec<String>,
}

impl Fields {
    pub fn new(rules: &Rules) -> Self {
        Self { funnels: rules.funnels().map(|(name, _)| name.to_owned()).collect() }
    }

    fn count(arguments: &[&str]) -> Result<FieldId, String> {
        let windows = || Window::ALL.map(Window::as_str).join(", ");
        let (event, window) = match arguments {
            [event] => (*event, None),
            [event, "all"] => (*event, None),
            [event, window] => {
                let known = Window::parse(window).ok_or_else(|| format!("{window:?} is not a window: they are {} and all", windows()))?;
                (*event, Some(known))
            }
            _ => return Err(format!("`count` takes an event's name and a window ({}): `count(\"Order Completed\", \"30d\")`", windows())),
        };
        Ok(FieldId::EventCount { event: event.into(), window })
    }

    fn funnel(&self, arguments: &[&str]) -> Result<FieldId, String> {
        let [name] = arguments else { return Err("`funnel` takes a funnel's name: `funnel(\"checkout\")`".to_owned()) };
        if !self.funnels.iter().any(|known| known == name) {
            let known =
                if self.funnels.is_empty() { "none is declared".to_owned() } else { format!("there are {}", self.funnels.join(", ")) };
            return Err(format!("there is no funnel {name:?}: {known} in [[features.funnels]]"));
        }
        Ok(FieldId::Funnel((*name).into()))
    }
}

impl Catalog for Fields {
    type Id = Field;

    fn field(&self, name: &str) -> Option<crate::segments::Field<Field>> {
        features::Field::parse(name).map(|named| field(FieldId::Named(named)))
    }

    fn call(&self, function: &str, arguments: &[&str]) -> Option<Result<crate::segments::Field<Field>, String>> {
        let id = match (function, arguments) {
            ("count", _) => Self::count(arguments),
            ("funnel", _) => self.funnel(arguments),
            ("trait", [name]) => Ok(FieldId::Trait((*name).into())),
            ("trait", _) => Err("`trait` takes a trait's name: `trait(\"plan\")`".to_owned()),
            _ => return None,
        };
        Some(id.map(field))
    }

    fn trait_as(&self, name: &str, ty: Type) -> Option<crate::segments::Field<Field>> {
        let groups = u64::from(features::Groups::TRAITS.0);
        Some(crate::segments::Field { id: Field::Trait { name: name.into(), ty }, ty, clock: Clock::Still, groups })
    }

    fn names(&self) -> Vec<String> {
        let functions = ["count(", "funnel(", "trait("].map(str::to_owned);
        FIELDS.iter().map(|def| def.name.to_owned()).chain(functions).collect()
    }
}

/// A person as predicates see them.
#[derive(Debug, Clone, Copy)]
pub struct Person<'a>(pub View<'a>);

impl Person<'_> {
    /// A field's value in the expressions' terms.
    pub(in crate::stream) fn known(value: features::Value<'_>) -> Value<'_> {
        match value {
            features::Value::Null => Value::Absent,
            features::Value::Int(value) => Value::Int(value),
            features::Value::Float(value) => Value::Float(value),
            features::Value::Bool(value) => Value::Bool(value),
            features::Value::Text(text) => Value::Text(text),
            features::Value::Time(time) => Value::Time(time),
            features::Value::Money(money) => Value::Float(money.to_f64()),
        }
    }

    pub(in crate::stream) fn trait_of<'p>(profile: &'p features::Profile, name: &str, ty: Type) -> Value<'p> {
        profile.trait_json(name).map_or(Value::Absent, |json| trait_value(json, ty))
    }
}

impl Lookup<Field> for Person<'_> {
    fn value(&self, field: &Field, now: Millis) -> Value<'_> {
        match field {
            Field::Known(id) => Self::known(self.0.value(id, now)),
            Field::Trait { name, ty } => Self::trait_of(self.0.profile, name, *ty),
        }
    }

    fn next_change(&self, field: &Field, after: Millis) -> Option<Millis> {
        match field {
            Field::Known(id) => self.0.next_change(id, after),
            Field::Trait { .. } => None,
        }
    }

    fn value_and_change(&self, field: &Field, now: Millis) -> (Value<'_>, Option<Millis>) {
        match field {
            Field::Known(id) => {
                let (value, next) = self.0.value_and_change(id, now);
                (Self::known(value), next)
            }
            Field::Trait { .. } => (self.value(field, now), None),
        }
    }
}

/// A trait's JSON text as `ty`; absent if it is of another type.
fn trait_value(json: &str, ty: Type) -> Value<'_> {
    match ty {
        Type::Bool => json.parse().map_or(Value::Absent, Value::Bool),
        Type::Float if json.starts_with(|first: char| first.is_ascii_digit() || first == '-') => {
            json.parse().map_or(Value::Absent, Value::Float)
        }
        Type::Text => match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(plain) if !plain.contains('\\') => Value::Text(Cow::Borrowed(plain)),
            Some(_) => serde_json::from_str(json).map_or(Value::Absent, |text: String| Value::Text(Cow::Owned(text))),
            None => Value::Absent,
        },
        _ => Value::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::HOUR_MS;
    use crate::features::{Profile, RawEvent, extract, settings};
    use crate::models::Models;

    fn rules() -> Rules {
        let steps = ["Product Viewed", "Product Added", "Order Completed"].map(str::to_owned).to_vec();
        let funnels = vec![settings::Funnel { name: "buy".to_owned(), steps, within_hours: 48 }];
        Rules::compile(settings::Settings { funnels, ..settings::Settings::default() }).expect("valid")
    }

    fn every_field() -> Vec<FieldId> {
        let named = FIELDS.iter().map(|def| FieldId::Named(def.field));
        let counts = Window::ALL.map(Some).into_iter().chain([None]);
        let counts = counts.map(|window| FieldId::EventCount { event: "Product Viewed".into(), window });
        named.chain(counts).chain([FieldId::Funnel("buy".into())]).collect()
    }

    #[test]
    fn fields_move_as_their_clocks_say() {
        let (rules, models) = (rules(), Models::default());
        let start = Millis::parse("2024-01-01T09:13:00Z").expect("a time");
        let events = ["Product Viewed", "Product Added", "Product Removed", "Order Completed", "Product Viewed", "Product Removed"];
        let mut profile = Profile::default();
        let mut at = start;
        for round in 0..12i64 {
            let name = events[usize::try_from(round * round % 6).expect("small")];
            let properties = r#"{"revenue": 12.5}"#;
            at = at + (round * 7 % 11) * 5 * HOUR_MS + round * 61_000;
            let raw = RawEvent { kind: "track", name, event_time: at.0, properties, ..RawEvent::default() };
            let _ = profile.observe(&extract(&raw, &rules), &rules);
            let person = Person(View { profile: &profile, rules: &rules, models: &models });
            for id in every_field() {
                check_clock(&person, &field(id), at);
            }
        }
    }

    fn number(value: &Value<'_>) -> f64 {
        match value {
            Value::Int(value) => *value as f64,
            Value::Float(value) => *value,
            Value::Time(time) => time.0 as f64,
            _ => 0.0,
        }
    }

    fn check_clock(person: &Person<'_>, field: &crate::segments::Field<Field>, from: Millis) {
        let mut before = person.value(&field.id, from);
        let mut next = person.next_change(&field.id, from);
        for hour in 1..100 * 24 {
            let now = from + hour * HOUR_MS;
            let value = person.value(&field.id, now);
            let what = || format!("{} from {before:?} to {value:?} at {now}, next change {next:?}", field.id);
            assert!(value == before || next.is_some_and(|next| next <= now), "unannounced: {}", what());
            let step = number(&value) - number(&before);
            match field.clock {
                Clock::Still => assert_eq!(value, before, "{}", what()),
                Clock::Counts { .. } => assert!(step == 0.0 || step == 1.0, "{}", what()),
                Clock::Falls => assert!(step < 1e-3, "{}", what()),
                Clock::Rises => assert!(step >= 0.0, "{}", what()),
                Clock::Moves | Clock::Dear => {}
            }
            if next.is_some_and(|next| next <= now) {
                next = person.next_change(&field.id, now);
            }
            before = value;
        }
    }

    #[test]
    fn traits_are_read_as_the_type_they_are_compared_with() {
        let cases = [
            ("\"pro\"", Type::Text, Value::Text("pro".into())),
            (r#""a\"b""#, Type::Text, Value::Text("a\"b".into())),
            ("12", Type::Float, Value::Float(12.0)),
            ("-1.5e1", Type::Float, Value::Float(-15.0)),
            ("true", Type::Bool, Value::Bool(true)),
            ("\"12\"", Type::Float, Value::Absent),
            ("12", Type::Text, Value::Absent),
            ("null", Type::Text, Value::Absent),
            ("{}", Type::Bool, Value::Absent),
        ];
        for (json, ty, value) in cases {
            assert_eq!(trait_value(json, ty), value, "{json} as {}", ty.as_str());
        }
    }
}
