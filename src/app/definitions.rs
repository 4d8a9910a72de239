//! Workflows and policy as the gateway needs them, read once: the topic `definitions` is gone through again only when it has grown, and a
//! text is compiled once, when something of it is first asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::{Digest, Namespace, Offset, PartitionId, TenantId};
use crate::gateway::WorkflowFound;
use crate::log::LogReader;
use crate::stream::{self, Policies, Topic, Topics, Version, Workflows};
use crate::workflow::{Definition, Policy};

/// What was read, and where the topic ended then.
type AsOf<T> = BTreeMap<Namespace, (Offset, T)>;

#[derive(Default)]
pub struct Definitions {
    workflows: Mutex<AsOf<Arc<Workflows>>>,
    policies: Mutex<AsOf<Arc<Policies>>>,
    /// None of a text that this build does not read.
    compiled: Mutex<BTreeMap<Digest, Option<Arc<Definition>>>>,
}

impl Definitions {
    pub fn workflows(&self, log: &dyn LogReader, topics: &Topics) -> Result<Arc<Workflows>, stream::Error> {
        as_of(&self.workflows, log, topics, || stream::workflows(log, topics).map(Arc::new))
    }

    /// The policy in force for a tenant, or for whoever has none of their own; or why its text cannot be read.
    pub fn policy(&self, log: &dyn LogReader, topics: &Topics, of: Option<&TenantId>) -> Result<Result<Policy, String>, stream::Error> {
        let policies = as_of(&self.policies, log, topics, || stream::policies(log, topics).map(Arc::new))?;
        Ok(match policies.of(of) {
            Some(found) => Policy::parse("the policy in force", &found.text).map_err(|problems| problems.to_string()),
            None => Ok(Policy::shipped()),
        })
    }

    pub fn parsed(&self, digest: Digest, name: &str, text: &str) -> Option<Arc<Definition>> {
        if let Some(known) = self.compiled.lock().get(&digest) {
            return known.clone();
        }
        let parsed = Definition::stored(name, text).ok().map(Arc::new);
        self.compiled.lock().insert(digest, parsed.clone());
        parsed
    }

    /// A workflow as it is shown, as the one of a tenant or of the namespace. What was stored was checked; a build that reads it no more
    /// shows its name all the same.
    pub fn found(&self, digest: Digest, version: &Version, whose: Option<&TenantId>, all: &Workflows) -> WorkflowFound {
        let name = version.name.clone();
        let definition = self.parsed(digest, &name, &version.text);
        let when = definition.as_ref().and_then(|known| Some(known.entry.when.as_ref()?.text().to_owned()));
        let (about, reads) = (version.about.clone(), definition.map(|known| known.profile.clone()).unwrap_or_default());
        let is_active = all.active(whose, &name) == Some(digest);
        WorkflowFound { name, digest: digest.to_hex(), about, tenant: whose.map(ToString::to_string), is_active, reads, when }
    }
}

/// What is kept if the topic ends where it did, else what `read` says now.
fn as_of<T: Clone>(
    kept: &Mutex<AsOf<T>>,
    log: &dyn LogReader,
    topics: &Topics,
    read: impl FnOnce() -> Result<T, stream::Error>,
) -> Result<T, stream::Error> {
    // Before reading: what comes meanwhile is read again, and not missed.
    let end = log.watermarks(topics.partition(Topic::Definitions, PartitionId(0)))?.end;
    if let Some((of, known)) = kept.lock().get(&topics.namespace)
        && *of == end
    {
        return Ok(known.clone());
    }
    let known = read()?;
    kept.lock().insert(topics.namespace.clone(), (end, known.clone()));
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Millis;
    use crate::env::ManualClock;
    use crate::log::MemoryLog;
    use crate::stream::Partitions;

    fn named(wait: &str) -> Definition {
        let text = format!(
            "[workflow]\nname = \"w\"\nabout = \"waits {wait}\"\n[workflow.entry]\ncommand = true\n\n[[node]]\nname = \"rest\"\nkind = \"delay\"\n\
             wait = \"{wait}\"\nnext = \"over\"\n\n[[node]]\nname = \"over\"\nkind = \"exit\"\n"
        );
        Definition::parse("w.toml", &text).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn what_is_published_is_read_once_and_seen_at_once() {
        let log = MemoryLog::new(Arc::new(ManualClock::at(Millis(0))));
        let topics = Topics::create(&log, &Namespace::new("main").unwrap(), Partitions { intake: 1, events: 1, inbox: 0 }).unwrap();
        let definitions = Definitions::default();
        let mut versions = Vec::new();
        for days in 1..=40 {
            let workflow = named(&format!("{days}d"));
            stream::activate_workflow(&log, &topics, &workflow, Millis(0)).unwrap();
            versions.push(workflow.digest);
            let found = definitions.workflows(&log, &topics).unwrap();
            assert_eq!((found.known.len(), found.active(None, "w")), (days, Some(workflow.digest)));
        }
        let found = definitions.workflows(&log, &topics).unwrap();
        assert!(Arc::ptr_eq(&found, &definitions.workflows(&log, &topics).unwrap()), "the topic is not gone through again");
        let newest = versions[39];
        let version = &found.known[&newest];
        let shown = definitions.found(newest, version, None, &found);
        assert!(shown.is_active);
        assert_eq!(definitions.compiled.lock().len(), 1, "only what was asked for is compiled");
        let again = definitions.parsed(newest, &version.name, &version.text).unwrap();
        assert!(Arc::ptr_eq(&again, &definitions.parsed(newest, &version.name, &version.text).unwrap()), "and once");
    }
}
