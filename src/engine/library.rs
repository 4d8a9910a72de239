//! Which definitions decisions are made under: those that were activated, and those that runs are still on.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::Digest;
use crate::schema::records::Activated;
use crate::stream::{self, Error, KIND_POLICY, KIND_WORKFLOW};
use crate::workflow::{Library, Policy};

/// What is in force, by digest: kept with the states and rebuilt from the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InForce {
    /// Of the whole namespace.
    #[serde(flatten)]
    everyones: Own,
    /// Every workflow that ever was: runs may be on it.
    known: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    of_tenants: BTreeMap<String, Own>,
}

/// What the namespace has for everyone, or a tenant for its own subjects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Own {
    workflows: BTreeMap<String, String>,
    policy: Option<String>,
}

impl InForce {
    /// Takes in an activation; false if it is of a kind that is no business of workflows.
    pub(super) fn hear(&mut self, activated: &Activated<'_>) -> bool {
        if ![KIND_WORKFLOW, KIND_POLICY].contains(&activated.kind) {
            return false;
        }
        let own = match activated.tenant {
            "" => &mut self.everyones,
            tenant => self.of_tenants.entry(tenant.to_owned()).or_default(),
        };
        match activated.kind {
            KIND_POLICY => own.policy = Some(activated.digest.to_owned()).filter(|digest| !digest.is_empty()),
            _ if activated.digest.is_empty() => drop(own.workflows.remove(activated.name)),
            _ => {
                own.workflows.insert(activated.name.to_owned(), activated.digest.to_owned());
                if !self.known.iter().any(|digest| digest == activated.digest) {
                    self.known.push(activated.digest.to_owned());
                }
            }
        }
        true
    }
}

/// The definitions themselves.
pub(super) struct Definitions {
    texts: Arc<stream::Library>,
    pub(super) library: Library,
    everyones: Arc<Policy>,
    /// Those of tenants who have one of their own.
    of_tenants: BTreeMap<String, Arc<Policy>>,
}

impl Definitions {
    pub(super) fn new(texts: Arc<stream::Library>) -> Self {
        Self { texts, library: Library::default(), everyones: Arc::new(Policy::shipped()), of_tenants: BTreeMap::new() }
    }

    /// Brings what is in force into the library.
    pub(super) fn follow(&mut self, in_force: &InForce) -> Result<(), Error> {
        let mut library = Library::default();
        for digest in &in_force.known {
            library.add(self.texts.workflow(parse(digest)?)?);
        }
        for digest in in_force.everyones.workflows.values() {
            library.activate(self.texts.workflow(parse(digest)?)?);
        }
        let mut of_tenants = BTreeMap::new();
        for (tenant, own) in &in_force.of_tenants {
            for digest in own.workflows.values() {
                library.activate_for(tenant, self.texts.workflow(parse(digest)?)?);
            }
            if let Some(digest) = &own.policy {
                of_tenants.insert(tenant.clone(), self.texts.policy(parse(digest)?)?);
            }
        }
        self.everyones = match &in_force.everyones.policy {
            Some(digest) => self.texts.policy(parse(digest)?)?,
            None => Arc::new(Policy::shipped()),
        };
        (self.library, self.of_tenants) = (library, of_tenants);
        Ok(())
    }

    /// What permits and approvals of this tenant's subjects are decided by.
    pub(super) fn policy_of(&self, tenant: &str) -> &Policy {
        self.of_tenants.get(tenant).unwrap_or(&self.everyones)
    }
}

fn parse(digest: &str) -> Result<Digest, Error> {
    Digest::from_hex(digest).ok_or_else(|| bad(digest, &"it is no digest"))
}

fn bad(digest: &str, detail: &dyn std::fmt::Display) -> Error {
    Error::BadDefinition { digest: digest.to_owned(), detail: detail.to_string() }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::domain::{Millis, Namespace, Offset, TenantId};
    use crate::env::ManualClock;
    use crate::log::{self, Committed, Fetched, Group, LogReader, MemoryLog, TopicInfo, TopicPartition, Watermarks};
    use crate::stream::{Partitions, Topics};

    /// Counts what is read.
    struct Counted {
        log: Arc<MemoryLog>,
        fetches: AtomicUsize,
    }

    impl LogReader for Counted {
        fn topics(&self) -> Result<Vec<TopicInfo>, log::Error> {
            self.log.topics()
        }

        fn watermarks(&self, partition: TopicPartition) -> Result<Watermarks, log::Error> {
            self.log.watermarks(partition)
        }

        fn fetch(&self, partition: TopicPartition, from: Offset, bytes_max: usize) -> Result<Fetched, log::Error> {
            self.fetches.fetch_add(1, Ordering::Relaxed);
            self.log.fetch(partition, from, bytes_max)
        }

        fn offset_at(&self, partition: TopicPartition, time: Millis) -> Result<Offset, log::Error> {
            self.log.offset_at(partition, time)
        }

        fn committed(&self, group: &Group, partition: TopicPartition) -> Result<Option<Committed>, log::Error> {
            self.log.committed(group, partition)
        }

        fn wait(&self, positions: &[(TopicPartition, Offset)], at_most: std::time::Duration) -> Result<bool, log::Error> {
            self.log.wait(positions, at_most)
        }
    }

    #[test]
    fn policies_are_read_in_one_go_and_compiled_once_however_many_tenants_have_one() {
        let log = Arc::new(MemoryLog::new(Arc::new(ManualClock::at(Millis(0)))));
        let topics = Topics::create(&*log, &Namespace::new("main").unwrap(), Partitions { intake: 1, events: 1, inbox: 0 }).unwrap();
        let mut in_force = InForce::default();
        let mut publish = |tenant: &str, limit: usize| {
            let text =
                format!("[[purpose]]\nname = \"news\"\nbasis = \"opt_in\"\n[[cap]]\nname = \"daily\"\nwindow = \"1d\"\nlimit = {limit}\n");
            let policy = Policy::parse("p.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
            let of = TenantId::new(tenant).unwrap();
            stream::activate_policy(&*log, &topics, Some(&of), &policy, Millis(0)).unwrap();
            in_force.hear(&Activated { kind: KIND_POLICY, name: KIND_POLICY, digest: &policy.digest.to_hex(), from: 0, tenant });
        };
        for of in 1..=50 {
            publish(&format!("t{of}"), of);
        }
        let counted = Arc::new(Counted { log: Arc::clone(&log), fetches: AtomicUsize::new(0) });
        let mut definitions = Definitions::new(Arc::new(stream::Library::new(Arc::clone(&counted) as _, topics.clone())));
        definitions.follow(&in_force).unwrap();
        assert_eq!(counted.fetches.load(Ordering::Relaxed), 1);
        let before = Arc::clone(&definitions.of_tenants["t7"]);
        definitions.follow(&in_force).unwrap();
        assert_eq!(counted.fetches.load(Ordering::Relaxed), 1, "nothing new, nothing read");
        assert!(Arc::ptr_eq(&before, &definitions.of_tenants["t7"]), "nor compiled");
        assert_eq!(definitions.policy_of("t7").permits.caps[0].limit, 7);
    }
}
