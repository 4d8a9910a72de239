//! The product's own schemas as subjects: every version of every topic's values, and the form of an event that producers may start from.
//!
//! Their numbers are fixed, far above those that the topic gives out, so that no build has to register anything.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::identity;
use crate::domain::Digest;
use crate::schema::registry::TOPICS;

/// A producer's event, to copy.
const EVENT: &str = include_str!("../../../schemas/producers/event.avsc");
const EVENT_SUBJECT: &str = "flywheel.event";

/// A topic's number, for ever; a new topic gets the next one.
const NUMBERS: &[(&str, u32)] = &[
    ("intake", 1),
    ("identities", 2),
    ("events", 3),
    ("profiles", 4),
    ("segment_changes", 5),
    ("corrections", 6),
    ("commands", 7),
    ("journal", 8),
    ("definitions", 9),
    ("schemas", 10),
    ("dead_letters", 11),
    ("outcomes", 12),
];
/// Topic n's version v is number `FIRST + n * EACH + v`.
const FIRST: u32 = 1_000_000_000;
const EACH: u32 = 1_000;

#[derive(Debug, Clone)]
pub(super) struct BuiltIn {
    subjects: BTreeMap<String, Vec<u32>>,
    schemas: HashMap<u32, Arc<str>>,
    numbers: HashMap<Digest, u32>,
}

impl BuiltIn {
    pub(super) fn of(namespace: &str) -> Self {
        let mut built_in = Self { subjects: BTreeMap::new(), schemas: HashMap::new(), numbers: HashMap::new() };
        built_in.add(EVENT_SUBJECT.to_owned(), FIRST + 1, EVENT);
        for topic in TOPICS {
            let number = NUMBERS.iter().find(|(name, _)| *name == topic.topic).map(|(_, number)| *number);
            let number = number.expect("every topic has a number, which a test holds");
            for (version, text) in topic.versions() {
                built_in.add(format!("{namespace}.{}-value", topic.topic), FIRST + number * EACH + u32::from(version), text);
            }
        }
        built_in
    }

    fn add(&mut self, subject: String, id: u32, text: &str) {
        self.subjects.entry(subject).or_default().push(id);
        self.schemas.insert(id, text.into());
        self.numbers.insert(identity(text), id);
    }

    pub(super) fn subjects(&self) -> impl Iterator<Item = &str> {
        self.subjects.keys().map(String::as_str)
    }

    pub(super) fn versions(&self, subject: &str) -> Option<&[u32]> {
        self.subjects.get(subject).map(Vec::as_slice)
    }

    pub(super) fn schema(&self, id: u32) -> Option<Arc<str>> {
        self.schemas.get(&id).cloned()
    }

    pub(super) fn number(&self, identity: Digest) -> Option<u32> {
        self.numbers.get(&identity).copied()
    }
}
