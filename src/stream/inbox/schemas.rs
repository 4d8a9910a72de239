//! Which schema a number means: by our own registry, whose topic is followed here, or by one elsewhere.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::{Offset, PartitionId, TenantId};
use crate::log::{LogReader, TopicPartition};
use crate::schema;
use crate::schema::foreign::WriterSchema;
use crate::schema::records::SchemasRecord;
use crate::schema::remote::{Lookup, Remote};
use crate::schema::subjects::Subjects;
use crate::stream::{Error, Topic, Topics};

const FETCH_BYTES: usize = 1 << 20;

pub(super) enum Schemas {
    Own(Box<Own>),
    Elsewhere(Arc<Remote>),
}

impl Schemas {
    pub(super) fn find(&mut self, tenant: &TenantId, id: u32) -> Result<Lookup, Error> {
        match self {
            Schemas::Own(own) => own.find(tenant, id),
            Schemas::Elsewhere(remote) => Ok(remote.find(id)),
        }
    }

    pub(super) fn failing(&self) -> Option<String> {
        match self {
            Schemas::Own(_) => None,
            Schemas::Elsewhere(remote) => remote.failing(),
        }
    }
}

/// What was registered here. Whoever publishes with a number has had it from the topic, so what is not in it by now is nobody's.
pub(super) struct Own {
    log: Arc<dyn LogReader>,
    place: TopicPartition,
    next: Offset,
    subjects: Subjects,
    ready: HashMap<u32, Result<Arc<WriterSchema>, String>>,
}

impl Own {
    pub(super) fn new(log: Arc<dyn LogReader>, topics: &Topics) -> Self {
        let place = topics.partition(Topic::Schemas, PartitionId(0));
        Self { log, place, next: Offset(0), subjects: Subjects::new(topics.namespace.as_str()), ready: HashMap::new() }
    }

    fn find(&mut self, tenant: &TenantId, id: u32) -> Result<Lookup, Error> {
        let mut text = self.subjects.schema(tenant.as_str(), id);
        if text.is_none() {
            self.follow()?;
            text = self.subjects.schema(tenant.as_str(), id);
        }
        let Some(text) = text else {
            return Ok(Lookup::Unknown(format!(
                "no schema {id} is registered here by tenant {tenant}; see registry.url if it is another registry's"
            )));
        };
        let parse = || WriterSchema::parse(&text).map(Arc::new).map_err(|error| format!("schema {id}: {error}"));
        Ok(match self.ready.entry(id).or_insert_with(parse) {
            Ok(schema) => Lookup::Known(Arc::clone(schema)),
            Err(why) => Lookup::Unknown(why.clone()),
        })
    }

    /// Folds what was registered since.
    fn follow(&mut self) -> Result<(), Error> {
        let end = self.log.watermarks(self.place)?.end;
        while self.next < end {
            let fetched = self.log.fetch(self.place, self.next, FETCH_BYTES)?;
            for record in fetched.records() {
                if let Ok(record) = schema::decode::<SchemasRecord<'_>>(record.value.unwrap_or_default()) {
                    self.subjects.apply(&record);
                }
            }
            if fetched.next <= self.next {
                break;
            }
            self.next = fetched.next;
        }
        Ok(())
    }
}
