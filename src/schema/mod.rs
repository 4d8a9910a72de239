//! What the bytes in every topic mean: record types, their Avro schemas (`schemas/*.avsc`), versions and upcasts.
//!
//! Domain types are not wire types; this module converts both ways. A value is `codec u8 | schema version u8 | body`: codec 0 is plain
//! Avro binary, 1 is Avro sealed with the person's data key (reserved from the first version on, refused until keys exist).
//! The hot path is [`encode`] and [`decode`], which borrow; everything that needs no type (`topic tail`, exports) goes through [`to_json`]
//! and [`container`]. Leaves what is in a topic's key to `domain::SubjectKey`.

mod avro;
mod codec;
pub mod compatibility;
pub mod container;
pub mod foreign;
mod json;

pub mod profile;
pub mod records;
pub mod registry;
pub mod remote;
pub mod subjects;

#[cfg(test)]
mod golden;

pub use codec::{CODEC_PLAIN, CODEC_SEALED, HEADER_BYTES, Wire, decode, encode};

pub use json::{from_json, to_json};
pub use registry::{TOPICS, TopicSchema, topic_schema};

/// Why bytes and records could not be turned into each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a {topic} record of {len} bytes is too short for its header of codec and version")]
    Short { topic: &'static str, len: usize },
    #[error("this {topic} record is sealed with a person's data key, and this build has no key store")]
    Sealed { topic: &'static str },
    #[error("codec {codec} of a {topic} record is unknown; 0 is plain and 1 sealed")]
    Codec { topic: &'static str, codec: u8 },
    #[error(
        "a {topic} record of schema version {version}, but this build knows versions up to {known}: read it with the build that wrote it"
    )]
    Version { topic: &'static str, version: u8, known: u8 },
    #[error("a {topic} record does not decode as schema version {version}: {detail}")]
    Decode { topic: &'static str, version: u8, detail: String },
    #[error("this is no {topic} record: {detail}")]
    Encode { topic: &'static str, detail: String },
    #[error("no schema for topic {0:?}; the last part of a topic's name is one of the registry's")]
    Topic(String),
    #[error("{0} holds whatever its producers sent and has no schema of ours: export it as NDJSON")]
    Foreign(&'static str),
    #[error("the file is no export of {topic}: {detail}")]
    Container { topic: &'static str, detail: String },
}
