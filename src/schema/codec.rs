//! The hot path between records and bytes: a two-byte header, then Avro binary through `serde_avro_fast`, borrowed on the way in.
//!
//! Bytes of an older version are read with the schema they were written with, straight into today's type: fields it no longer has are
//! skipped, fields it did not have yet take their `serde(default)`. `compatibility` keeps the schemas fit for that.

use std::io::Read;

use bytes::BufMut;
use serde::{Deserialize, Serialize};
use serde_avro_fast::de::DeserializerState;
use serde_avro_fast::ser::SerializerConfig;

use super::Error;
use super::registry::TopicSchema;

/// Plain Avro binary.
pub const CODEC_PLAIN: u8 = 0;
/// Avro binary sealed with the person's data key.
pub const CODEC_SEALED: u8 = 1;
/// Codec and version.
pub const HEADER_BYTES: usize = 2;

/// A record type of a topic.
pub trait Wire<'a>: Serialize + Deserialize<'a> {
    /// The topic's schema, current and past.
    fn schema() -> &'static TopicSchema;

    /// Writes the Avro body of the current version. A record written very often may do it by hand.
    fn put(&self, out: &mut impl BufMut) -> Result<(), Error> {
        put_by_serde(self, out)
    }
}

pub(super) fn put_by_serde<'a, T: Wire<'a>>(record: &T, out: &mut impl BufMut) -> Result<(), Error> {
    let topic = T::schema();
    let mut config = SerializerConfig::new(topic.current());
    serde_avro_fast::to_datum(record, out.writer(), &mut config)
        .map_err(|error| Error::Encode { topic: topic.topic, detail: error.to_string() })?;
    Ok(())
}

/// Appends the record to `out`, header first. After an error `out` may hold a part of it.
pub fn encode<'a, T: Wire<'a>>(record: &T, out: &mut impl BufMut) -> Result<(), Error> {
    let topic = T::schema();
    out.put_u8(CODEC_PLAIN);
    out.put_u8(topic.version);
    record.put(out)
}

/// Reads a record, of this version or an older one, borrowing text and bytes from `value`.
pub fn decode<'a, T: Wire<'a>>(value: &'a [u8]) -> Result<T, Error> {
    let topic = T::schema();
    let (version, body) = split(topic, value)?;
    let failed = |detail: String| Error::Decode { topic: topic.topic, version, detail };
    let mut state = DeserializerState::from_slice(body, topic.at(version)?);
    let record = T::deserialize(state.deserializer()).map_err(|error| failed(error.to_string()))?;
    let left = state.into_reader().read(&mut [0]).unwrap_or(0);
    if left > 0 { Err(failed("bytes are left after its end".to_owned())) } else { Ok(record) }
}

/// Checks the header: the schema version, and the Avro body behind it.
pub(super) fn split<'a>(topic: &'static TopicSchema, value: &'a [u8]) -> Result<(u8, &'a [u8]), Error> {
    match value {
        [CODEC_PLAIN, version, body @ ..] => Ok((*version, body)),
        [CODEC_SEALED, _, ..] => Err(Error::Sealed { topic: topic.topic }),
        [codec, _, ..] => Err(Error::Codec { topic: topic.topic, codec: *codec }),
        _ => Err(Error::Short { topic: topic.topic, len: value.len() }),
    }
}
