//! Binds expressions to the profile: which names there are and how each moves with time.

use std::fmt;

use super::settings::FeatureSettings;
use crate::domain::DAY_MS;
use crate::segments::{Catalog, Clock, Type};

/// What a predicate reads of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    Named(&'static str),
    Count { event: Box<str>, window: Box<str> },
    Funnel(Box<str>),
    Trait { name: Box<str>, ty: Type },
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Named(name) => f.write_str(name),
            Field::Count { event, window } => write!(f, "count({event:?}, {window:?})"),
            Field::Funnel(name) => write!(f, "funnel({name:?})"),
            Field::Trait { name, .. } => write!(f, "traits.{name}"),
        }
    }
}

/// The names that expressions may use under some settings.
pub struct Fields;

impl Fields {
    pub fn new(_features: &FeatureSettings) -> Self {
        Self
    }
}

const COUNTS: Clock = Clock::Counts { every_ms: DAY_MS };
const FIELDS: [(&str, Type, Clock, u64); 16] = [
    ("first_seen", Type::Time, Clock::Still, 1),
    ("last_seen", Type::Time, Clock::Still, 1),
    ("age_days", Type::Int, COUNTS, 1),
    ("days_since_seen", Type::Int, COUNTS, 1),
    ("events", Type::Int, Clock::Still, 2),
    ("events_30d", Type::Int, Clock::Falls, 2),
    ("sessions", Type::Int, Clock::Still, 8),
    ("orders", Type::Int, Clock::Still, 16),
    ("orders_90d", Type::Int, Clock::Falls, 2),
    ("days_since_order", Type::Int, COUNTS, 16),
    ("revenue", Type::Float, Clock::Still, 16),
    ("engagement", Type::Float, Clock::Dear, 1024),
    ("intent", Type::Float, Clock::Dear, 1024),
    ("churn", Type::Float, Clock::Dear, 1024),
    ("lead", Type::Float, Clock::Dear, 1024),
    ("lead_qualified", Type::Bool, Clock::Dear, 1024),
];

impl Catalog for Fields {
    type Id = Field;

    fn field(&self, name: &str) -> Option<crate::segments::Field<Field>> {
        let (name, ty, clock, groups) = *FIELDS.iter().find(|(known, ..)| *known == name)?;
        Some(crate::segments::Field { id: Field::Named(name), ty, clock, groups })
    }

    fn call(&self, function: &str, arguments: &[&str]) -> Option<Result<crate::segments::Field<Field>, String>> {
        let (id, clock) = match (function, arguments) {
            ("count", [event, window]) => (Field::Count { event: (*event).into(), window: (*window).into() }, Clock::Falls),
            ("funnel", [name]) => (Field::Funnel((*name).into()), Clock::Moves),
            ("count", _) => {
                return Some(Err("`count` takes an event's name and a window: `count(\"Order Completed\", \"30d\")`".to_owned()));
            }
            ("funnel", _) => return Some(Err("`funnel` takes a funnel's name: `funnel(\"checkout\")`".to_owned())),
            _ => return None,
        };
        Some(Ok(crate::segments::Field { id, ty: Type::Int, clock, groups: 2 }))
    }

    fn trait_as(&self, name: &str, ty: Type) -> Option<crate::segments::Field<Field>> {
        Some(crate::segments::Field { id: Field::Trait { name: name.into(), ty }, ty, clock: Clock::Still, groups: 512 })
    }

    fn names(&self) -> Vec<String> {
        FIELDS.iter().map(|(name, ..)| (*name).to_owned()).chain(["count(".to_owned(), "funnel(".to_owned()]).collect()
    }
}
