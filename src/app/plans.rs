//! Which namespaces a server runs: `main`, those of the configuration, and those that the folder already has.

use std::collections::BTreeSet;

use super::Error;
use super::world::Plan;
use crate::config::{Config, NamespaceConfig};
use crate::domain::Namespace;
use crate::engine::effects::Registry;
use crate::log::LogReader;
use crate::stream::inbox::{self, Senders};
use crate::stream::topology::Topology;
use crate::stream::{self, NamespaceClock, Partitions, Topic, Topics, topology};
use crate::workflow::Policy;

pub fn of(config: &Config, log: &dyn LogReader, more: Option<Plan>) -> Result<Vec<Plan>, Error> {
    let mut plans: Vec<Plan> = more.into_iter().collect();
    let main = Namespace::new("main").expect("a slug");
    for namespace in &config.namespaces {
        plans.push(configured(config, namespace)?);
    }
    if plans.iter().all(|plan| plan.namespace != main) {
        let wall = NamespaceConfig { name: main, clock: NamespaceClock::Wall, topology: None, policy: None, partitions: None, inbox: None };
        plans.push(configured(config, &wall)?);
    }
    for namespace in existing(log)? {
        if plans.iter().all(|plan| plan.namespace != namespace) {
            plans.extend(as_it_was(config, log, namespace)?);
        }
    }
    for source in &config.sources {
        if plans.iter().all(|plan| plan.namespace != source.namespace) {
            return Err(Error::UnknownNamespace { source_name: source.name.to_string(), namespace: source.namespace.to_string() });
        }
    }
    Ok(plans)
}

fn configured(config: &Config, namespace: &NamespaceConfig) -> Result<Plan, Error> {
    let topology = namespace.topology.as_deref().unwrap_or(&config.topology.default);
    let partitions = namespace.partitions.unwrap_or(config.topology.partitions);
    let policy = namespace.policy.as_deref().unwrap_or(&config.policy.default);
    let inbox = namespace.inbox_options(&config.inbox);
    Ok(Plan {
        topology: topology::load(topology)?,
        partitions: Partitions { intake: partitions, events: partitions, inbox: inbox.partitions },
        workflows: Vec::new(),
        policy: policy_of(&namespace.name, policy)?,
        performers: Registry::default(),
        senders: senders(config, &namespace.name, &inbox)?,
        namespace: namespace.name.clone(),
        clock: namespace.clock,
    })
}

/// Who may send to a namespace's inbox: its sources, and the tenants of its sources and keys.
fn senders(config: &Config, namespace: &Namespace, options: &inbox::Options) -> Result<Senders, Error> {
    let mut senders = Senders::default();
    for source in config.sources_or_development().into_iter().filter(|source| source.namespace == *namespace) {
        senders.tenants.insert(source.tenant.clone());
        let sender = inbox::Sender { tenant: source.tenant, source: source.name, disabled: source.disabled };
        senders.write_keys.insert(source.write_key, sender);
    }
    let keys = config.api_keys.iter().filter(|key| key.namespace == *namespace);
    senders.tenants.extend(keys.map(|key| key.tenant.clone()));
    senders.with_options(options).map_err(Error::Inbox)
}

/// The policy in a file, checked; none where no file is named.
fn policy_of(namespace: &Namespace, file: &str) -> Result<Option<Policy>, Error> {
    if file.is_empty() {
        return Ok(None);
    }
    let wrong = |detail: String| Error::Policy { namespace: namespace.to_string(), detail };
    let text = std::fs::read_to_string(file).map_err(|error| {
        wrong(format!("cannot read {file}: {error}; policy.default, or `policy` below [[namespaces]], is a path to a .toml file"))
    })?;
    Policy::parse(file, &text).map(Some).map_err(|problems| wrong(problems.to_string()))
}

/// Every namespace that the log has a topic of.
fn existing(log: &dyn LogReader) -> Result<BTreeSet<Namespace>, Error> {
    let topics = log.topics()?;
    Ok(topics.iter().filter_map(|topic| Namespace::new(topic.spec.name.namespace()).ok()).collect())
}

/// A namespace that nobody configured goes on with the clock and the topology it has; `None` if it never got as far as having them.
fn as_it_was(config: &Config, log: &dyn LogReader, namespace: Namespace) -> Result<Option<Plan>, Error> {
    let Some(topics) = Topics::find(log, &namespace)? else { return Ok(None) };
    let (Some(clock), Some(text)) = (stream::clock_of(log, &topics)?, stream::topology_text(log, &topics)?) else { return Ok(None) };
    let topology = Topology::parse(&format!("definitions of {namespace}"), &text).map_err(topology::Error::from)?;
    let partitions =
        Partitions { intake: topics.count(Topic::Intake), events: topics.count(Topic::Events), inbox: topics.count(Topic::Inbox) };
    let senders = senders(config, &namespace, &config.inbox)?;
    Ok(Some(Plan { namespace, clock, topology, partitions, workflows: Vec::new(), policy: None, performers: Registry::default(), senders }))
}

/// What counts as an order and the like in a namespace, as its topology in force says.
pub fn rules_of(log: &dyn LogReader, namespace: &Namespace) -> Result<crate::features::Rules, Error> {
    Ok(as_it_was(&Config::default(), log, namespace.clone())?.map(|plan| plan.topology.rules).unwrap_or_default())
}
