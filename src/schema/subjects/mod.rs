//! The schemas that foreign producers registered: subjects, versions, numbers. A fold of the topic `schemas`, pure.
//!
//! Numbers are given by the order of the topic: whoever folds it gives the same schema the same number, so two gateways need not agree on
//! anything else. Whether a change is allowed is decided before it is appended, on what was folded until then; the record says which revision
//! of its tenant's subjects that was, and has no effect at another one. So a fold never asks whether schemas are compatible, and another
//! build that judges this differently gives the same numbers.
//!
//! Tenants do not see each other's subjects. The same schema has one number for all of them, which tells nobody anything: it is shown to
//! those who registered it. The product's own schemas are subjects too, of all tenants, that nobody can change; their numbers are fixed.

mod built_in;
mod level;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

pub use level::Level;

use super::foreign::{self, WriterSchema};
use super::records::SchemasRecord;
use crate::domain::Digest;
use built_in::BuiltIn;

/// The longest name of a subject: Kafka's longest topic name with some room for what strategies append.
pub const SUBJECT_BYTES_MAX: usize = 512;
/// Most versions that one tenant may have over all its subjects.
pub const VERSIONS_MAX: usize = 10_000;

/// A version of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub subject: String,
    /// From 1 on.
    pub version: u32,
    pub id: u32,
    pub schema: Arc<str>,
}

/// Why a schema cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the schema is no Avro schema that can be read: {0}")]
    Invalid(String),
    #[error("the schema is not compatible with what was registered before under {level}: {}", .why.join("; "))]
    Incompatible { level: Level, why: Vec<String> },
    #[error("{0} is a subject of the product itself, which cannot be changed")]
    BuiltIn(String),
    #[error("there are {VERSIONS_MAX} versions already, as many as one tenant may have")]
    TooMany,
    #[error("{0:?} is no name of a subject: 1 to {SUBJECT_BYTES_MAX} bytes without control characters")]
    Name(String),
}

/// What everybody registered, as far as the topic was folded.
#[derive(Debug, Clone)]
pub struct Subjects {
    built_in: BuiltIn,
    /// Schema number n is at n - 1.
    schemas: Vec<Arc<str>>,
    numbers: HashMap<Digest, u32>,
    tenants: BTreeMap<String, Tenant>,
}

#[derive(Debug, Clone, Default)]
struct Tenant {
    /// How many changes took effect.
    revision: u64,
    level: Option<Level>,
    levels: BTreeMap<String, Level>,
    /// Schema numbers by subject, version 1 first.
    subjects: BTreeMap<String, Vec<u32>>,
    ids: BTreeSet<u32>,
    versions: usize,
}

impl Subjects {
    /// Nothing but the product's own, named after the topics of this namespace.
    pub fn new(namespace: &str) -> Self {
        Self { built_in: BuiltIn::of(namespace), schemas: Vec::new(), numbers: HashMap::new(), tenants: BTreeMap::new() }
    }

    /// Folds the next record of the topic; false if it has no effect.
    pub fn apply(&mut self, record: &SchemasRecord<'_>) -> bool {
        let (name, revision) = match record {
            SchemasRecord::Registered(registered) => (registered.tenant, registered.revision),
            SchemasRecord::Configured(configured) => (configured.tenant, configured.revision),
        };
        let tenant = self.tenants.entry(name.to_owned()).or_default();
        if revision != tenant.revision as i64 {
            return false;
        }
        match record {
            SchemasRecord::Registered(registered) => {
                let identity = identity(registered.schema);
                let id = match self.built_in.number(identity).or_else(|| self.numbers.get(&identity).copied()) {
                    Some(id) => id,
                    None => {
                        self.schemas.push(registered.schema.into());
                        let id = self.schemas.len() as u32;
                        self.numbers.insert(identity, id);
                        id
                    }
                };
                let versions = tenant.subjects.entry(registered.subject.to_owned()).or_default();
                if versions.contains(&id) {
                    return false;
                }
                versions.push(id);
                tenant.ids.insert(id);
                tenant.versions += 1;
            }
            SchemasRecord::Configured(configured) => {
                let level = Level::parse(configured.compatibility);
                match (configured.subject, level) {
                    ("", level) => tenant.level = level,
                    (subject, Some(level)) => drop(tenant.levels.insert(subject.to_owned(), level)),
                    (subject, None) => drop(tenant.levels.remove(subject)),
                }
            }
        }
        tenant.revision += 1;
        true
    }

    fn tenant(&self, tenant: &str) -> Option<&Tenant> {
        self.tenants.get(tenant)
    }

    /// How many changes of the tenant took effect: what a record that is appended now has to say.
    pub fn revision(&self, tenant: &str) -> u64 {
        self.tenant(tenant).map_or(0, |tenant| tenant.revision)
    }

    /// The schema of this number, if the tenant registered it or it is the product's own.
    pub fn schema(&self, tenant: &str, id: u32) -> Option<Arc<str>> {
        let built_in = self.built_in.schema(id);
        let own = || self.tenant(tenant).filter(|tenant| tenant.ids.contains(&id));
        built_in.or_else(|| own().and_then(|_| self.schemas.get(id as usize - 1).cloned()))
    }

    /// Names of subjects, sorted.
    pub fn subjects(&self, tenant: &str) -> Vec<String> {
        let own = self.tenant(tenant).into_iter().flat_map(|tenant| tenant.subjects.keys().cloned());
        let mut names: Vec<String> = self.built_in.subjects().map(str::to_owned).chain(own).collect();
        names.sort();
        names
    }

    /// Versions of a subject, oldest first; none of a subject that there is not.
    pub fn versions(&self, tenant: &str, subject: &str) -> Vec<Version> {
        let ids = match self.built_in.versions(subject) {
            Some(ids) => ids,
            None => self.tenant(tenant).and_then(|tenant| tenant.subjects.get(subject)).map_or(&[][..], Vec::as_slice),
        };
        let version = |(at, id): (usize, &u32)| {
            Some(Version { subject: subject.to_owned(), version: at as u32 + 1, id: *id, schema: self.schema(tenant, *id)? })
        };
        ids.iter().enumerate().filter_map(version).collect()
    }

    /// Every subject and version that has this schema.
    pub fn versions_of(&self, tenant: &str, id: u32) -> Vec<Version> {
        let of = |subject: &String| self.versions(tenant, subject);
        self.subjects(tenant).iter().flat_map(of).filter(|version| version.id == id).collect()
    }

    /// The version of a subject that is this schema.
    pub fn find(&self, tenant: &str, subject: &str, schema: &str) -> Option<Version> {
        let wanted = identity(schema);
        self.versions(tenant, subject).into_iter().find(|version| identity(&version.schema) == wanted)
    }

    /// The level that a subject has of its own; of all subjects without one for `None`.
    pub fn own_level(&self, tenant: &str, subject: Option<&str>) -> Option<Level> {
        let tenant = self.tenant(tenant)?;
        match subject {
            Some(subject) => tenant.levels.get(subject).copied(),
            None => tenant.level,
        }
    }

    /// The level that decides.
    pub fn level(&self, tenant: &str, subject: &str) -> Level {
        self.own_level(tenant, Some(subject)).or_else(|| self.own_level(tenant, None)).unwrap_or_default()
    }

    /// Whether a schema may become the next version of a subject.
    pub fn check(&self, tenant: &str, subject: &str, schema: &str) -> Result<(), Refused> {
        if self.built_in.versions(subject).is_some() {
            return Err(Refused::BuiltIn(subject.to_owned()));
        }
        named(subject)?;
        if self.tenant(tenant).is_some_and(|tenant| tenant.versions >= VERSIONS_MAX) {
            return Err(Refused::TooMany);
        }
        valid(schema)?;
        let versions = self.versions(tenant, subject);
        let level = self.level(tenant, subject);
        let before = if level.is_transitive() { &versions[..] } else { &versions[versions.len().saturating_sub(1)..] };
        let why = level.problems(before, schema);
        if why.is_empty() { Ok(()) } else { Err(Refused::Incompatible { level, why }) }
    }
}

/// Whether a subject may have this name.
pub fn named(subject: &str) -> Result<(), Refused> {
    let is_name = !subject.is_empty() && subject.len() <= SUBJECT_BYTES_MAX && !subject.chars().any(char::is_control);
    if is_name { Ok(()) } else { Err(Refused::Name(subject.chars().take(64).collect())) }
}

/// Whether this is a schema that bodies can be read with.
pub fn valid(schema: &str) -> Result<(), Refused> {
    WriterSchema::parse(schema).map(drop).map_err(|error| match error {
        foreign::Error::Schema(why) => Refused::Invalid(why),
        other => Refused::Invalid(other.to_string()),
    })
}

/// What makes two texts one schema: they differ at most in blanks and in the order of members.
fn identity(schema: &str) -> Digest {
    match serde_json::from_str::<Value>(schema) {
        Ok(value) => {
            let mut text = String::new();
            put_sorted(&value, &mut text);
            Digest::of(text.as_bytes())
        }
        Err(_) => Digest::of(schema.as_bytes()),
    }
}

fn put_sorted(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for item in items {
                put_sorted(item, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Object(members) => {
            let sorted: BTreeMap<&String, &Value> = members.iter().collect();
            text.push('{');
            for (name, value) in sorted {
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                put_sorted(value, text);
                text.push(',');
            }
            text.push('}');
        }
        plain => text.push_str(&plain.to_string()),
    }
}
