//! What an operator says about time: that it may pass in a restored folder, or how late it is where an intake partition has stopped.
//!
//! Either is a record, appended through the running server or, without one, directly.

use anyhow::bail;
use serde_json::json;

use super::args;
use super::exit::Exit;
use super::output::print_json;
use super::run::reader;
use super::topic;
use super::writer::Writer;
use crate::app::Folder;
use crate::app::admin::Incoming;
use crate::config::Config;
use crate::domain::{Millis, Namespace, PartitionId};
use crate::env::{Clock, SystemClock};
use crate::log::{LogReader, TopicName};
use crate::stream::{self, NamespaceClock, Topic, Topics};

pub async fn run(config: &Config, asked: &args::Time, json: bool) -> anyhow::Result<()> {
    match asked {
        args::Time::Release => release(config, json).await,
        args::Time::Override { at, partition, to } => {
            state(config, &Namespace::new(&at.namespace)?, PartitionId(*partition), to, json).await
        }
    }
}

async fn release(config: &Config, json: bool) -> anyhow::Result<()> {
    let folder = Folder::new(&config.data.dir);
    if !folder.log().exists() {
        return Err(Exit::not_found(format!("there is no log in {}", folder.root().display())));
    }
    // Opening a folder is what finds out that it is a copy, so not before this is it known which incarnation there is to release.
    let writer = tokio::task::block_in_place(|| Writer::open(&folder))?;
    let log = reader(config)?;
    let mut released = Vec::new();
    for info in log.topics()?.iter().filter(|info| info.spec.name.topic() == Topic::Definitions.as_str()) {
        let namespace = Namespace::new(info.spec.name.namespace())?;
        let Some(topics) = Topics::find(&*log, &namespace)? else { continue };
        let is_wall = stream::clock_of(&*log, &topics)? == Some(NamespaceClock::Wall);
        // The first life of a log was never held.
        if !is_wall || info.incarnation.0 <= 1 || stream::released(&*log, &topics)? >= Some(info.incarnation) {
            continue;
        }
        let (key, value) = stream::release(&namespace, info.incarnation)?;
        let record = Incoming { partition: 0, timestamp: SystemClock.now().0, key, value: Some(value) };
        writer.append(info, vec![record]).await?;
        released.push(namespace.to_string());
    }
    if json {
        print_json(&json!({"released": released}));
    } else if released.is_empty() {
        println!("time is not held in any namespace");
    } else {
        println!("time passes again in {}", released.join(", "));
    }
    Ok(())
}

async fn state(config: &Config, namespace: &Namespace, feeder: PartitionId, to: &str, json: bool) -> anyhow::Result<()> {
    let log = reader(config)?;
    let topics = Topics::find(&*log, namespace)?.ok_or_else(|| Exit::not_found(format!("there is no namespace {namespace}")))?;
    let feeders = topics.count(Topic::Intake);
    if feeder.0 >= feeders {
        return Err(Exit::not_found(format!("intake of {namespace} has partitions 0 to {}, not {feeder}", feeders - 1)));
    }
    let Some(time) = Millis::parse(to) else { bail!("{to:?} is no RFC 3339 instant, such as 2024-05-01T00:00:00Z") };
    if stream::clock_of(&*log, &topics)? == Some(NamespaceClock::Wall) && time > SystemClock.now() {
        bail!("{to} has not come yet; a wall-clock namespace cannot be later than now");
    }
    let value = stream::override_of(&topics, feeder, time)?;
    let incoming = |partition| Incoming { partition, timestamp: time.0, key: Vec::new(), value: Some(value.clone()) };
    let records = (0..topics.count(Topic::Events)).map(incoming).collect();
    let events = topic::find(&*log, TopicName::new(namespace, Topic::Events.as_str()).as_str())?;
    let writer = tokio::task::block_in_place(|| Writer::open(&Folder::new(&config.data.dir)))?;
    writer.append(&events, records).await?;
    if json {
        print_json(&json!({"namespace": namespace.as_str(), "partition": feeder.0, "time": time.0}));
    } else {
        println!("intake partition {feeder} of {namespace} counts as {to}; time there is now the least of all partitions'");
    }
    Ok(())
}
