//! A field's value at some time: what features, scores, segments and the `profiles` record hand to each other.

use std::borrow::Cow;

use super::money::Money;
use super::time::Millis;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldType {
    Int,
    Float,
    Bool,
    Text,
    Time,
    Money,
}

impl FieldType {
    pub const ALL: [FieldType; 6] = [FieldType::Int, FieldType::Float, FieldType::Bool, FieldType::Text, FieldType::Time, FieldType::Money];

    /// The name in schemas and documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            FieldType::Int => "int",
            FieldType::Float => "float",
            FieldType::Bool => "bool",
            FieldType::Text => "text",
            FieldType::Time => "time",
            FieldType::Money => "money",
        }
    }

    pub fn parse(name: &str) -> Option<FieldType> {
        FieldType::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// `Null` where nothing is known: no order yet, no session, no campaign.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    Null,
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(Cow<'a, str>),
    Time(Millis),
    Money(Money),
}
