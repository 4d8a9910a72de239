//! Every (topic, version, schema text), compiled in from `schemas/`: the current one of a topic in `schemas/TOPIC.avsc`, the ones before
//! it in `schemas/history/TOPIC.VERSION.avsc`.
//!
//! To change a schema: copy the file to `history` under its version, add a line of `history` here, raise the version, then run the tests,
//! which write the new golden bytes and refuse a change that leaves older bytes unreadable.

use std::sync::OnceLock;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;

use bytes::BufMut;

use super::Error;
use super::codec::{Wire, decode, encode};
use super::profile::ProfileRecord;
use super::records::{
    BatchOutcomes, CommandsRecord, CorrectionsRecord, DeadLetter, Definition, EventsRecord, IdentityRecord, IntakeRecord, JournalRecord,
    SchemasRecord, SegmentChange,
};

/// What may stand in one topic: its current schema and all before it.
pub struct TopicSchema {
    /// The topic's name without its namespace.
    pub topic: &'static str,
    pub version: u8,
    pub text: &'static str,
    /// Older versions' texts, oldest first.
    pub history: &'static [(u8, &'static str)],
    /// Decodes a value of any version and encodes it as the current one.
    pub(super) upgrade: fn(&[u8]) -> Result<Vec<u8>, Error>,
    fast: OnceLock<serde_avro_fast::Schema>,
    fast_history: OnceLock<Vec<(u8, serde_avro_fast::Schema)>>,
    avro: OnceLock<apache_avro::Schema>,
}

impl TopicSchema {
    pub const fn new(
        topic: &'static str,
        version: u8,
        text: &'static str,
        history: &'static [(u8, &'static str)],
        upgrade: fn(&[u8]) -> Result<Vec<u8>, Error>,
    ) -> Self {
        Self { topic, version, text, history, upgrade, fast: OnceLock::new(), fast_history: OnceLock::new(), avro: OnceLock::new() }
    }

    pub(super) fn current(&'static self) -> &'static serde_avro_fast::Schema {
        self.fast.get_or_init(|| parse_fast(self.topic, self.text))
    }

    /// The schema that bytes of this version were written with.
    pub(super) fn at(&'static self, version: u8) -> Result<&'static serde_avro_fast::Schema, Error> {
        if version == self.version {
            return Ok(self.current());
        }
        let older = self.fast_history.get_or_init(|| self.history.iter().map(|(v, text)| (*v, parse_fast(self.topic, text))).collect());
        let found = older.iter().find(|(known, _)| *known == version).map(|(_, schema)| schema);
        found.ok_or(Error::Version { topic: self.topic, version, known: self.version })
    }

    /// The current schema for trees instead of types.
    pub(super) fn avro(&'static self) -> &'static apache_avro::Schema {
        self.avro.get_or_init(|| match apache_avro::Schema::parse_str(self.text) {
            Ok(schema) => schema,
            Err(error) => panic!("the built-in schema of {} does not parse, which a test excludes: {error}", self.topic),
        })
    }

    pub(super) fn generic_reader(&'static self) -> GenericDatumReader<'static> {
        GenericDatumReader::builder(self.avro()).build().expect("a schema that parsed refers only to names of its own")
    }

    pub(super) fn generic_writer(&'static self) -> GenericDatumWriter<'static> {
        GenericDatumWriter::builder(self.avro()).build().expect("a schema that parsed refers only to names of its own")
    }

    /// The schema text of a version.
    pub fn text_of(&self, version: u8) -> Result<&'static str, Error> {
        if version == self.version {
            return Ok(self.text);
        }
        let found = self.history.iter().find(|(known, _)| *known == version).map(|(_, text)| *text);
        found.ok_or(Error::Version { topic: self.topic, version, known: self.version })
    }

    /// Every version's number and text, oldest first.
    pub fn versions(&self) -> impl Iterator<Item = (u8, &'static str)> {
        self.history.iter().copied().chain([(self.version, self.text)])
    }
}

fn parse_fast(topic: &str, text: &str) -> serde_avro_fast::Schema {
    match text.parse() {
        Ok(schema) => schema,
        Err(error) => panic!("the built-in schema of {topic} does not parse, which a test excludes: {error}"),
    }
}

pub(super) fn upgrade<'a, T: Wire<'a>>(value: &'a [u8]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(value.len() + 16);
    encode(&decode::<T>(value)?, &mut out)?;
    Ok(out)
}

/// One line per topic: a static's name, the record type, the topic, its version, the versions before as (number, text), and what writes the
/// current one if that is done by hand.
macro_rules! topics {
    ($($name:ident: $record:ident $(<$life:lifetime>)?, $topic:literal, $version:literal, $history:expr $(, $by_hand:ident)?;)+) => {
        $(
            static $name: TopicSchema = TopicSchema::new(
                $topic,
                $version,
                include_str!(concat!("../../schemas/", $topic, ".avsc")),
                $history,
                |value| upgrade::<$record>(value),
            );

            impl<'a> Wire<'a> for $record $(<$life>)? {
                fn schema() -> &'static TopicSchema {
                    &$name
                }
                $(
                    fn put(&self, out: &mut impl BufMut) -> Result<(), Error> {
                        self.$by_hand(out);
                        Ok(())
                    }
                )?
            }
        )+

        /// Every topic's schemas.
        pub static TOPICS: &[&TopicSchema] = &[$(&$name),+];
    };
}

topics! {
    INTAKE: IntakeRecord<'a>, "intake", 3, &[
        (1, include_str!("../../schemas/history/intake.1.avsc")),
        (2, include_str!("../../schemas/history/intake.2.avsc")),
    ];
    IDENTITIES: IdentityRecord, "identities", 1, &[];
    EVENTS: EventsRecord<'a>, "events", 7, &[
        (1, include_str!("../../schemas/history/events.1.avsc")),
        (2, include_str!("../../schemas/history/events.2.avsc")),
        (3, include_str!("../../schemas/history/events.3.avsc")),
        (4, include_str!("../../schemas/history/events.4.avsc")),
        (5, include_str!("../../schemas/history/events.5.avsc")),
        (6, include_str!("../../schemas/history/events.6.avsc")),
    ];
    PROFILES: ProfileRecord<'a>, "profiles", 1, &[], put_body;
    SEGMENT_CHANGES: SegmentChange<'a>, "segment_changes", 2, &[(1, include_str!("../../schemas/history/segment_changes.1.avsc"))];
    CORRECTIONS: CorrectionsRecord<'a>, "corrections", 1, &[];
    COMMANDS: CommandsRecord<'a>, "commands", 2, &[(1, include_str!("../../schemas/history/commands.1.avsc"))];
    JOURNAL: JournalRecord<'a>, "journal", 2, &[(1, include_str!("../../schemas/history/journal.1.avsc"))];
    DEFINITIONS: Definition<'a>, "definitions", 3, &[
        (1, include_str!("../../schemas/history/definitions.1.avsc")),
        (2, include_str!("../../schemas/history/definitions.2.avsc")),
    ];
    SCHEMAS: SchemasRecord<'a>, "schemas", 1, &[];
    DEAD_LETTERS: DeadLetter<'a>, "dead_letters", 2, &[(1, include_str!("../../schemas/history/dead_letters.1.avsc"))];
    OUTCOMES: BatchOutcomes, "outcomes", 2, &[(1, include_str!("../../schemas/history/outcomes.1.avsc"))];
}

/// The topic whose values are their producers' own.
pub const FOREIGN: &str = "inbox";

/// Whether a topic, named with or without its namespace, holds bytes as foreign producers sent them.
pub(super) fn is_foreign(topic: &str) -> bool {
    topic.rsplit('.').next() == Some(FOREIGN)
}

/// The schemas of a topic named with or without its namespace: `intake`, `demo.intake`.
pub fn topic_schema(topic: &str) -> Result<&'static TopicSchema, Error> {
    if is_foreign(topic) {
        return Err(Error::Foreign(FOREIGN));
    }
    let name = topic.rsplit('.').next().unwrap_or(topic);
    TOPICS.iter().copied().find(|schema| schema.topic == name).ok_or_else(|| Error::Topic(topic.to_owned()))
}
