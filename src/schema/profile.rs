//! The record of topic `profiles`: a person's features, scores with reasons, traits, consent and segments as of a time.
//!
//! Its features are named columns. Which ones there are is written once, in `schemas/profiles.avsc`, and a test holds that file to the
//! features' own table; here they are read from it, so that this module knows none by name.

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

use bytes::BufMut;
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::avro::{put_array, put_double, put_long, put_null, put_some, put_text, put_truth};
use crate::domain::{FieldType, Millis, Money, Value};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfileRecord<'a> {
    /// `u:ID` or `a:ID`.
    pub subject: &'a str,
    /// The time that windows and scores are as of: the person's own.
    pub as_of: i64,
    pub fold_version: i32,
    /// JSON object.
    pub traits: &'a str,
    /// JSON, as the consent fold states it; empty if it never heard of any.
    pub consent: &'a str,
    #[serde(borrow)]
    pub features: Features<'a>,
    pub events: Vec<EventTotals<'a>>,
    pub currencies: Vec<CurrencyTotals<'a>>,
    pub funnels: Vec<FunnelStep<'a>>,
    pub scores: Vec<ScoreRecord<'a>>,
    /// Names of the segments the person is in, sorted.
    pub segments: Vec<&'a str>,
}

impl ProfileRecord<'_> {
    /// The record's Avro body: what `serde_avro_fast` writes, a third of the time.
    pub(super) fn put_body(&self, out: &mut impl BufMut) {
        put_text(out, self.subject);
        put_long(out, self.as_of);
        put_long(out, i64::from(self.fold_version));
        put_text(out, self.traits);
        put_text(out, self.consent);
        self.features.0.iter().for_each(|value| put_feature(out, value));
        put_array(out, &self.events, |out, event| {
            put_text(out, event.event);
            [event.total, event.d7, event.d30, event.d90].into_iter().for_each(|count| put_long(out, count));
        });
        put_array(out, &self.currencies, |out, sum| {
            put_text(out, sum.currency);
            [sum.orders, sum.revenue, sum.refunds].into_iter().for_each(|number| put_long(out, number));
        });
        put_array(out, &self.funnels, |out, funnel| {
            put_text(out, funnel.funnel);
            [funnel.step, funnel.steps].into_iter().for_each(|number| put_long(out, i64::from(number)));
        });
        put_array(out, &self.scores, |out, score| {
            put_text(out, score.score);
            put_double(out, score.value);
            put_text(out, score.model);
            put_long(out, i64::from(score.version));
            put_array(out, &score.reasons, |out, reason| {
                put_text(out, reason.feature);
                put_double(out, reason.effect);
            });
        });
        put_array(out, &self.segments, |out, segment| put_text(out, segment));
    }
}

fn put_feature(out: &mut impl BufMut, value: &Value<'_>) {
    match value {
        Value::Null => return put_null(out),
        _ => put_some(out),
    }
    match value {
        Value::Null => {}
        Value::Int(number) | Value::Time(Millis(number)) | Value::Money(Money(number)) => put_long(out, *number),
        Value::Float(number) => put_double(out, *number),
        Value::Bool(truth) => put_truth(out, *truth),
        Value::Text(text) => put_text(out, text),
    }
}

/// Counts of one event type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventTotals<'a> {
    pub event: &'a str,
    pub total: i64,
    pub d7: i64,
    pub d30: i64,
    pub d90: i64,
}

/// Orders in one currency; amounts in millionths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurrencyTotals<'a> {
    pub currency: &'a str,
    pub orders: i64,
    pub revenue: i64,
    pub refunds: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FunnelStep<'a> {
    pub funnel: &'a str,
    pub step: i32,
    pub steps: i32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreRecord<'a> {
    pub score: &'a str,
    pub value: f64,
    pub model: &'a str,
    pub version: i32,
    pub reasons: Vec<ReasonRecord<'a>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReasonRecord<'a> {
    pub feature: &'a str,
    pub effect: f64,
}

/// One value per column of [`columns`], in its order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Features<'a>(pub Vec<Value<'a>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub kind: FieldType,
}

/// The columns of `features`, as the current schema lists them.
pub fn columns() -> &'static [Column] {
    static COLUMNS: OnceLock<Vec<Column>> = OnceLock::new();
    COLUMNS.get_or_init(|| {
        let schema: RecordText<'static> = serde_json::from_str(include_str!("../../schemas/profiles.avsc")).expect("a test parses it");
        let features = schema.fields.into_iter().find(|field| field.name == "features").expect("a test encodes them");
        let record: RecordText<'static> = serde_json::from_str(features.kind.get()).expect("a test encodes them");
        let column =
            |field: FieldText<'static>| Column { name: field.name, kind: FieldType::parse(field.is).expect("a test compares them") };
        record.fields.into_iter().map(column).collect()
    })
}

#[derive(Deserialize)]
struct RecordText<'a> {
    #[serde(borrow)]
    fields: Vec<FieldText<'a>>,
}

#[derive(Deserialize)]
struct FieldText<'a> {
    name: &'a str,
    #[serde(rename = "type", borrow)]
    kind: &'a serde_json::value::RawValue,
    /// Ours: the type behind the Avro type.
    #[serde(default)]
    is: &'a str,
}

impl Serialize for Features<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let columns = columns();
        assert_eq!(self.0.len(), columns.len(), "one value per column");
        let mut record = serializer.serialize_struct("Features", columns.len())?;
        for (column, value) in columns.iter().zip(&self.0) {
            match value {
                Value::Null => record.serialize_field(column.name, &()),
                Value::Int(number) | Value::Time(Millis(number)) | Value::Money(Money(number)) => {
                    record.serialize_field(column.name, number)
                }
                Value::Float(number) => record.serialize_field(column.name, number),
                Value::Bool(truth) => record.serialize_field(column.name, truth),
                Value::Text(text) => record.serialize_field(column.name, &**text),
            }?;
        }
        record.end()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Features<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("Features", &[], FeaturesVisitor)
    }
}

struct FeaturesVisitor;

impl<'de> Visitor<'de> for FeaturesVisitor {
    type Value = Features<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record of features")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let columns = columns();
        let mut values = vec![Value::Null; columns.len()];
        let mut expected = 0;
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            // Written in the same order, unless by another version.
            let place = match columns.get(expected) {
                Some(column) if column.name == name => Some(expected),
                _ => columns.iter().position(|column| column.name == name),
            };
            match place {
                Some(place) => {
                    values[place] = map.next_value_seed(ColumnSeed(columns[place].kind))?;
                    expected = place + 1;
                }
                None => {
                    map.next_value::<serde::de::IgnoredAny>()?;
                }
            }
        }
        Ok(Features(values))
    }
}

/// Reads a value as its column's type: the bytes do not tell a time from a number.
struct ColumnSeed(FieldType);

impl<'de> DeserializeSeed<'de> for ColumnSeed {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ColumnSeed {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of type {} or null", self.0.as_str())
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Value<'de>, E> {
        match self.0 {
            FieldType::Int => Ok(Value::Int(number)),
            FieldType::Time => Ok(Value::Time(Millis(number))),
            FieldType::Money => Ok(Value::Money(Money(number))),
            _ => Err(E::invalid_type(serde::de::Unexpected::Signed(number), &self)),
        }
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
        Ok(Value::Float(number))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{decode, encode};

    #[test]
    fn every_type_of_column_comes_back() {
        let values = columns().iter().map(|column| match column.kind {
            FieldType::Int => Value::Int(-3),
            FieldType::Float => Value::Null,
            FieldType::Bool => Value::Bool(true),
            FieldType::Text => Value::Text("\u{e9}".into()),
            FieldType::Time => Value::Time(Millis(5)),
            FieldType::Money => Value::Money(Money(7)),
        });
        let record = ProfileRecord {
            subject: "u:1",
            as_of: 9,
            fold_version: 1,
            traits: "{}",
            consent: "",
            features: Features(values.collect()),
            events: Vec::new(),
            currencies: Vec::new(),
            funnels: Vec::new(),
            scores: Vec::new(),
            segments: vec!["a", "b"],
        };
        let mut bytes = Vec::new();
        encode(&record, &mut bytes).unwrap();
        assert_eq!(decode::<ProfileRecord<'_>>(&bytes).unwrap(), record);
    }
}
