//! Avro object container files of a topic: an export that any Avro tool reads, and its import back to the same bytes.
//!
//! Each entry holds the record's place, time and key beside its value, so that a topic can be rebuilt from the file. Values of older
//! versions are raised to the current one on the way out; the file says which version that was.

use std::io::{Read, Write};

use apache_avro::types::Value;
use apache_avro::{Codec, DeflateSettings, Reader, Schema, Writer};
use serde_json::{Value as Json, json};

use super::registry::{TopicSchema, topic_schema};
use super::{CODEC_PLAIN, Error, json};

/// Header member that holds the schema version of the values.
const VERSION_KEY: &str = "flywheel.schema.version";

/// A record with its place in the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub key: Vec<u8>,
    /// The record's value, header included; `None` removes the key.
    pub value: Option<Vec<u8>>,
}

/// The schema of an export's entries: the topic's own schema within it.
pub fn entry_schema(topic: &str) -> Result<Schema, Error> {
    schema_with(topic_schema(topic)?, topic_schema(topic)?.text)
}

fn schema_with(topic: &'static TopicSchema, text: &str) -> Result<Schema, Error> {
    let failed = |detail: String| Error::Container { topic: topic.topic, detail };
    let value: Json = serde_json::from_str(text).map_err(|error| failed(error.to_string()))?;
    let mut branches = vec![json!("null")];
    match value {
        Json::Array(kinds) => branches.extend(kinds),
        one => branches.push(one),
    }
    let entry = json!({
        "type": "record", "name": "ExportedRecord",
        "fields": [
            {"name": "partition", "type": "int"},
            {"name": "offset", "type": "long"},
            {"name": "timestamp", "type": "long"},
            {"name": "key", "type": "bytes"},
            {"name": "value", "type": branches},
        ]
    });
    Schema::parse(&entry).map_err(|error| failed(error.to_string()))
}

/// Takes one entry after the other.
pub type Push<'p> = dyn FnMut(Entry) -> Result<(), Error> + 'p;

/// Writes the entries of one topic that `fill` pushes to `out`, deflated, a block at a time; returns how many.
pub fn export<W: Write, E: From<Error>>(topic: &str, out: W, fill: impl FnOnce(&mut Push<'_>) -> Result<(), E>) -> Result<u64, E> {
    let topic = topic_schema(topic)?;
    let failed = |error: apache_avro::Error| Error::Container { topic: topic.topic, detail: error.to_string() };
    let schema = schema_with(topic, topic.text)?;
    let mut writer = Writer::with_codec(&schema, out, Codec::Deflate(DeflateSettings::default())).map_err(failed)?;
    writer.add_user_metadata(VERSION_KEY.to_owned(), topic.version.to_string()).map_err(failed)?;
    let mut written = 0;
    let mut push = |entry: Entry| {
        let value = match &entry.value {
            None => Value::Union(0, Box::new(Value::Null)),
            // The topic's own kinds come after null, in their order.
            Some(value) => match json::to_value(topic, value)? {
                Value::Union(branch, inner) => Value::Union(branch + 1, inner),
                record => Value::Union(1, Box::new(record)),
            },
        };
        let record = Value::Record(vec![
            ("partition".to_owned(), Value::Int(entry.partition)),
            ("offset".to_owned(), Value::Long(entry.offset)),
            ("timestamp".to_owned(), Value::Long(entry.timestamp)),
            ("key".to_owned(), Value::Bytes(entry.key)),
            ("value".to_owned(), value),
        ]);
        writer.append_value(record).map_err(failed)?;
        written += 1;
        Ok(())
    };
    fill(&mut push)?;
    writer.flush().map_err(failed)?;
    Ok(written)
}

/// Reads an export back, entry by entry, values in the bytes of the version they were exported with.
pub fn import<R: Read>(topic: &str, input: R) -> Result<impl Iterator<Item = Result<Entry, Error>> + use<R>, Error> {
    let topic = topic_schema(topic)?;
    let failed = |detail: String| Error::Container { topic: topic.topic, detail };
    let reader = Reader::new(input).map_err(|error| failed(error.to_string()))?;
    let stated = reader.user_metadata().get(VERSION_KEY).and_then(|version| std::str::from_utf8(version).ok()?.parse::<u8>().ok());
    let version = stated.ok_or_else(|| failed(format!("its header has no {VERSION_KEY}")))?;
    let text = topic.text_of(version)?;
    if *reader.writer_schema() != schema_with(topic, text)? {
        return Err(failed(format!("its schema is not version {version} of this topic's")));
    }
    let value_schema = Schema::parse_str(text).map_err(|error| failed(error.to_string()))?;
    Ok(reader.map(move |record| {
        let record = record.map_err(|error| Error::Container { topic: topic.topic, detail: error.to_string() })?;
        entry_of(topic, version, &value_schema, record)
    }))
}

fn entry_of(topic: &'static TopicSchema, version: u8, schema: &Schema, record: Value) -> Result<Entry, Error> {
    let failed = |detail: &str| Error::Container { topic: topic.topic, detail: detail.to_owned() };
    let Value::Record(fields) = record else { return Err(failed("an entry is no record")) };
    let mut values = fields.into_iter().map(|(_, value)| value);
    let mut next = || values.next().ok_or_else(|| failed("an entry lacks a field"));
    let (Value::Int(partition), Value::Long(offset), Value::Long(timestamp), Value::Bytes(key), Value::Union(branch, inner)) =
        (next()?, next()?, next()?, next()?, next()?)
    else {
        return Err(failed("an entry's field has another type"));
    };
    if branch == 0 {
        return Ok(Entry { partition, offset, timestamp, key, value: None });
    }
    let value = match schema {
        Schema::Union(_) => Value::Union(branch - 1, inner),
        _ => *inner,
    };
    let mut bytes = vec![CODEC_PLAIN, version];
    let writer = apache_avro::writer::datum::GenericDatumWriter::builder(schema).build().map_err(|error| failed(&error.to_string()))?;
    writer.write_value_ref(&mut bytes, &value).map_err(|error| failed(&error.to_string()))?;
    Ok(Entry { partition, offset, timestamp, key, value: Some(bytes) })
}
