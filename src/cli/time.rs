//! What an operator says about time: that it may pass in a restored folder, or how late it is where an intake partition has stopped.
//!
//! Either is a record, appended through the running server or, without one, directly.

use anyhow::bail;
use serde_json::json;

use super::args;
use super::exit::Exit;
use super::output::{outln, print_json};
use super::run::reader;
use super::topic;
use super::writer::Writer;
use crate::app::Folder;
use crate::app::admin::Incoming;
use crate::config::Config;
use crate::domain::{Millis, Namespace, PartitionId};
use crate::env::{Clock, SystemClock};
use crate::log::{LogReader, TopicName};
use crate::schema;
use crate::schema::records::EventsRecord;
use crate::stream::{self, NamespaceClock, Topic, Topics};

/// How far beyond the newest event an event-time namespace may be told to be: a month's end is, a wrong century is not.
const AHEAD_MS_MAX: i64 = 31 * 86_400_000;

pub async fn run(config: &Config, asked: &args::Time, json: bool) -> anyhow::Result<()> {
    match asked {
        args::Time::Release => release(config, json).await,
        args::Time::Override { at, partition, to, force } => {
            state(config, &Namespace::new(&at.namespace)?, PartitionId(*partition), to, *force, json).await
        }
    }
}

async fn release(config: &Config, json: bool) -> anyhow::Result<()> {
    let folder = Folder::new(&config.data.dir);
    if !folder.log().exists() {
        return Err(Exit::not_found(format!("there is no log in {}; --data names another folder", folder.root().display())));
    }
    // Opening a folder is what finds out that it is a copy, so not before this is it known which incarnation there is to release.
    let writer = tokio::task::block_in_place(|| Writer::open(config, &folder))?;
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
        let record = Incoming { partition: 0, timestamp: SystemClock.now().0, key, value: Some(value), headers: Vec::new() };
        writer.append(info, vec![record]).await?;
        released.push(namespace.to_string());
    }
    if json {
        print_json(&json!({"released": released}));
    } else if released.is_empty() {
        outln!("time is not held in any namespace");
    } else {
        outln!("time passes again in {}", released.join(", "));
    }
    Ok(())
}

/// When the newest event is of that intake has let through.
fn newest_event(log: &dyn LogReader, topics: &Topics) -> anyhow::Result<Option<Millis>> {
    let mut newest = None;
    let events = topic::find(log, TopicName::new(&topics.namespace, Topic::Events.as_str()).as_str())?;
    topic::scan(log, &events, topic::Range::default(), |_, record| {
        if let EventsRecord::Event(event) = schema::decode(record.value.unwrap_or_default())? {
            newest = newest.max(Some(Millis(event.event_time)));
        }
        Ok(())
    })?;
    Ok(newest)
}

async fn state(config: &Config, namespace: &Namespace, feeder: PartitionId, to: &str, force: bool, json: bool) -> anyhow::Result<()> {
    let log = reader(config)?;
    let topics = Topics::find(&*log, namespace)?.ok_or_else(|| Exit::not_found(format!("there is no namespace {namespace}")))?;
    let feeders = topics.count(Topic::Intake);
    if feeder.0 >= feeders {
        return Err(Exit::not_found(format!("intake of {namespace} has partitions 0 to {}, not {feeder}", feeders - 1)));
    }
    let Some(time) = Millis::parse(to) else { bail!("{to:?} is no RFC 3339 instant, such as 2024-05-01T00:00:00Z") };
    if stream::clock_of(&*log, &topics)? == Some(NamespaceClock::Wall) {
        if time > SystemClock.now() {
            bail!("{to} has not come yet; a wall-clock namespace cannot be later than now");
        }
    } else if !force {
        let newest = newest_event(&*log, &topics)?;
        let latest = newest.map(|newest| Millis(newest.0.saturating_add(AHEAD_MS_MAX)));
        if latest.is_none_or(|latest| time > latest) {
            let newest = newest.map_or_else(|| "there is no event".to_owned(), |newest| format!("the newest event is of {newest}"));
            bail!(
                "{to} is more than 31 days ahead ({newest}), and time never goes back: everything before would be late. --force says it all the same"
            );
        }
    }
    let value = stream::override_of(&topics, feeder, time)?;
    let incoming = |partition| Incoming { partition, timestamp: time.0, key: Vec::new(), value: Some(value.clone()), headers: Vec::new() };
    let records = (0..topics.count(Topic::Events)).map(incoming).collect();
    let events = topic::find(&*log, TopicName::new(namespace, Topic::Events.as_str()).as_str())?;
    let writer = tokio::task::block_in_place(|| Writer::open(config, &Folder::new(&config.data.dir)))?;
    writer.append(&events, records).await?;
    if json {
        print_json(&json!({"namespace": namespace.as_str(), "partition": feeder.0, "time": time.0}));
    } else {
        outln!("intake partition {feeder} of {namespace} counts as {to}; time there is now the least of all partitions'");
    }
    Ok(())
}
