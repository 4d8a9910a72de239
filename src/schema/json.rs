//! Records as JSON and back, led by the schema alone: what `topic tail`, `topic export` and `topic import` show and read.
//!
//! A record of a topic with several kinds says which it is in `"type"`. Bytes are base64. JSON carried as text (bodies, properties) stays
//! text, so that an export imports to the same bytes. Values of `inbox` are not ours: they are text, or `{"base64": ..}` if they are none.
//! Slow on purpose (a tree per record); folds use `decode`.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{NamesRef, ResolvedSchema};
use apache_avro::types::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};

use super::registry::{FOREIGN, TopicSchema, is_foreign, topic_schema};
use super::{CODEC_PLAIN, Error, codec};

/// The member that names the record's kind where a topic has several.
const KIND: &str = "type";
/// The member that holds a foreign value which is no text.
const BASE64: &str = "base64";

/// Any record of `topic` (with or without its namespace), of any known version, as the current version's JSON.
pub fn to_json(topic: &str, value: &[u8]) -> Result<Json, Error> {
    if is_foreign(topic) {
        return Ok(std::str::from_utf8(value).map_or_else(|_| json!({ BASE64: STANDARD.encode(value) }), Json::from));
    }
    let topic = topic_schema(topic)?;
    Ok(value_to_json(topic.avro(), &to_value(topic, value)?))
}

/// The bytes of a record that [`to_json`] would show so. Members left out take the schema's default; unknown ones are refused.
pub fn from_json(topic: &str, json: &Json) -> Result<Vec<u8>, Error> {
    if is_foreign(topic) {
        let decoded = || STANDARD.decode(json.get(BASE64)?.as_str()?).ok();
        let value = json.as_str().map(|text| text.as_bytes().to_vec()).or_else(decoded);
        return value.ok_or_else(|| Error::Encode { topic: FOREIGN, detail: format!("neither text nor {{\"{BASE64}\": ..}}: {json}") });
    }
    let topic = topic_schema(topic)?;
    let failed = |detail: String| Error::Encode { topic: topic.topic, detail };
    let names = ResolvedSchema::new(topic.avro()).map_err(|error| failed(error.to_string()))?;
    let value = json_to_value(topic.avro(), names.get_names(), json).map_err(failed)?;
    from_value(topic, &value)
}

/// Decodes to a tree of the current version.
pub(super) fn to_value(topic: &'static TopicSchema, value: &[u8]) -> Result<Value, Error> {
    let (version, body) = codec::split(topic, value)?;
    let failed = |error: apache_avro::Error| Error::Decode { topic: topic.topic, version, detail: error.to_string() };
    if version == topic.version {
        let mut left = body;
        let tree = topic.generic_reader().read_value(&mut left).map_err(failed)?;
        return if left.is_empty() {
            Ok(tree)
        } else {
            Err(Error::Decode { topic: topic.topic, version, detail: format!("{} bytes are left after its end", left.len()) })
        };
    }
    let upgraded = (topic.upgrade)(value)?;
    topic.generic_reader().read_value(&mut &upgraded[super::HEADER_BYTES..]).map_err(failed)
}

/// Encodes a tree of the current version, header first.
pub(super) fn from_value(topic: &'static TopicSchema, value: &Value) -> Result<Vec<u8>, Error> {
    let mut out = vec![CODEC_PLAIN, topic.version];
    let written = topic.generic_writer().write_value_ref(&mut out, value);
    written.map_err(|error| Error::Encode { topic: topic.topic, detail: error.to_string() })?;
    Ok(out)
}

fn value_to_json(schema: &Schema, value: &Value) -> Json {
    let (Schema::Union(union), Value::Union(branch, inner)) = (schema, value) else { return plain_json(value) };
    let mut json = plain_json(inner);
    let name = union.variants().get(*branch as usize).and_then(Schema::name);
    if let (Json::Object(members), Some(name)) = (&mut json, name) {
        members.insert(KIND.to_owned(), Json::from(name.name()));
    }
    json
}

fn plain_json(value: &Value) -> Json {
    match value {
        Value::Boolean(flag) => Json::from(*flag),
        Value::Int(number) => Json::from(*number),
        Value::Long(number) => Json::from(*number),
        Value::Float(number) => Json::from(f64::from(*number)),
        Value::Double(number) => Json::from(*number),
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => Json::from(STANDARD.encode(bytes)),
        Value::String(text) | Value::Enum(_, text) => Json::from(text.as_str()),
        Value::Union(_, inner) => plain_json(inner),
        Value::Array(items) => Json::Array(items.iter().map(plain_json).collect()),
        Value::Map(members) => Json::Object(members.iter().map(|(name, value)| (name.clone(), plain_json(value))).collect()),
        Value::Record(fields) => Json::Object(fields.iter().map(|(name, value)| (name.clone(), plain_json(value))).collect()),
        // Null, and the logical types, which the schemas of this product do not use (a test in `golden` shows every field as JSON).
        _ => Json::Null,
    }
}

fn json_to_value(schema: &Schema, names: &NamesRef<'_>, json: &Json) -> Result<Value, String> {
    let number = || json.as_i64().ok_or_else(|| format!("{json} is not an integer"));
    let text = || json.as_str().ok_or_else(|| format!("{json} is not a string"));
    Ok(match schema {
        Schema::Null if json.is_null() => Value::Null,
        Schema::Boolean => Value::Boolean(json.as_bool().ok_or_else(|| format!("{json} is not true or false"))?),
        Schema::Int => Value::Int(i32::try_from(number()?).map_err(|_| format!("{json} is beyond 32 bits"))?),
        Schema::Long => Value::Long(number()?),
        Schema::Double => Value::Double(json.as_f64().ok_or_else(|| format!("{json} is not a number"))?),
        Schema::Bytes => Value::Bytes(STANDARD.decode(text()?).map_err(|error| format!("not base64: {error}"))?),
        Schema::String => Value::String(text()?.to_owned()),
        Schema::Enum(symbols) => {
            let symbol = text()?;
            let at = symbols
                .symbols
                .iter()
                .position(|known| known == symbol)
                .ok_or_else(|| format!("{symbol:?} is none of {:?}", symbols.symbols))?;
            Value::Enum(at as u32, symbol.to_owned())
        }
        Schema::Array(array) => {
            let items = json.as_array().ok_or_else(|| format!("{json} is not an array"))?;
            Value::Array(items.iter().map(|item| json_to_value(&array.items, names, item)).collect::<Result<_, _>>()?)
        }
        Schema::Map(map) => {
            let members = json.as_object().ok_or_else(|| format!("{json} is not an object"))?;
            let member = |(name, value): (&String, &Json)| Ok((name.clone(), json_to_value(&map.types, names, value)?));
            Value::Map(members.iter().map(member).collect::<Result<HashMap<_, _>, String>>()?)
        }
        Schema::Union(union) => union_to_value(union.variants(), names, json)?,
        Schema::Record(record) => {
            let members = json.as_object().ok_or_else(|| format!("{json} is not an object"))?;
            record_to_value(&record.fields, names, members)?
        }
        Schema::Ref { name } => {
            let named = names.get(name).ok_or_else(|| format!("no schema named {name}"))?;
            json_to_value(named, names, json)?
        }
        other => return Err(format!("{json} is no {other}")),
    })
}

fn union_to_value(variants: &[Schema], names: &NamesRef<'_>, json: &Json) -> Result<Value, String> {
    let kind = json.get(KIND).and_then(Json::as_str);
    let mut refused = None;
    for (branch, variant) in variants.iter().enumerate() {
        if kind.is_some() && variant.name().map(|name| name.name()) != kind {
            continue;
        }
        match json_to_value(variant, names, json) {
            Ok(value) => return Ok(Value::Union(branch as u32, Box::new(value))),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| format!("\"{KIND}\" names none of the kinds this topic has")))
}

fn record_to_value(
    fields: &[apache_avro::schema::RecordField],
    names: &NamesRef<'_>,
    members: &Map<String, Json>,
) -> Result<Value, String> {
    let unknown = members.keys().find(|name| *name != KIND && !fields.iter().any(|field| field.name == **name));
    if let Some(name) = unknown {
        return Err(format!("unknown member {name:?}"));
    }
    let mut values = Vec::with_capacity(fields.len());
    for field in fields {
        let json = members.get(&field.name).or(field.default.as_ref()).ok_or_else(|| format!("member {:?} is missing", field.name))?;
        let value = json_to_value(&field.schema, names, json).map_err(|error| format!("{}: {error}", field.name))?;
        values.push((field.name.clone(), value));
    }
    Ok(Value::Record(values))
}
