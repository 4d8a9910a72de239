//! Which namespaces a server runs: `main`, those of the configuration, and those that the folder already has.

use std::collections::BTreeSet;

use super::Error;
use super::world::Plan;
use crate::config::{Config, NamespaceConfig};
use crate::domain::Namespace;
use crate::engine::effects::Registry;
use crate::log::LogReader;
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
        let (topology, partitions) = (&config.topology.default, config.topology.partitions);
        plans.push(plan(main, NamespaceClock::Wall, topology, partitions, &config.policy.default)?);
    }
    for namespace in existing(log)? {
        if plans.iter().all(|plan| plan.namespace != namespace) {
            plans.extend(as_it_was(log, namespace)?);
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
    plan(namespace.name.clone(), namespace.clock, topology, partitions, policy)
}

fn plan(namespace: Namespace, clock: NamespaceClock, name: &str, partitions: u32, policy: &str) -> Result<Plan, Error> {
    let topology: Topology = topology::load(name)?;
    let policy = policy_of(&namespace, policy)?;
    Ok(Plan {
        namespace,
        clock,
        topology,
        partitions: Partitions { intake: partitions, events: partitions },
        workflows: Vec::new(),
        policy,
        performers: Registry::default(),
    })
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
fn as_it_was(log: &dyn LogReader, namespace: Namespace) -> Result<Option<Plan>, Error> {
    let Some(topics) = Topics::find(log, &namespace)? else { return Ok(None) };
    let (Some(clock), Some(text)) = (stream::clock_of(log, &topics)?, stream::topology_text(log, &topics)?) else { return Ok(None) };
    let topology = Topology::parse(&format!("definitions of {namespace}"), &text).map_err(topology::Error::from)?;
    let partitions = Partitions { intake: topics.count(Topic::Intake), events: topics.count(Topic::Events) };
    Ok(Some(Plan { namespace, clock, topology, partitions, workflows: Vec::new(), policy: None, performers: Registry::default() }))
}

/// What counts as an order and the like in a namespace, as its topology in force says.
pub fn rules_of(log: &dyn LogReader, namespace: &Namespace) -> Result<crate::features::Rules, Error> {
    Ok(as_it_was(log, namespace.clone())?.map(|plan| plan.topology.rules).unwrap_or_default())
}
