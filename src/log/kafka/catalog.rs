//! Topics on the cluster: named, created and held against what this log needs of them.
//!
//! A topic that exists and would lose, reorder or refuse our records is refused by name, with the setting that is wrong: brokers do not
//! complain about any of them until it is too late.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::client::{self, Complaints, Context};
use super::reader::{Physical, Reader};
use super::{MESSAGE_BYTES_MAX, Options};
use crate::domain::{Incarnation, Offset};
use crate::log::{Cleanup, Error, TopicId, TopicName};

/// While a cluster is reached for: what one question may take, and the pause before the next.
const REACH_STEP: Duration = Duration::from_secs(1);
const REACH_PAUSE: Duration = Duration::from_millis(100);
const LEADER_PAUSE: Duration = Duration::from_millis(20);

pub(super) struct Catalog {
    options: Arc<Options>,
    complaints: Complaints,
    reader: Arc<Reader>,
}

/// The number of a topic within this log: of its name, so that every process gives the same.
pub(super) fn id(name: &TopicName) -> TopicId {
    // The largest is no topic's: it stands for one that is not there.
    TopicId((xxhash_rust::xxh3::xxh3_64(name.as_str().as_bytes()) as u32).min(u32::MAX - 1))
}

/// What it is called on the cluster. A later incarnation is another topic.
pub(super) fn physical(prefix: &str, name: &TopicName, incarnation: Incarnation) -> String {
    match incarnation {
        Incarnation(1) => format!("{prefix}{name}"),
        Incarnation(later) => format!("{prefix}{name}.i{later}"),
    }
}

/// What a topic of this cleanup is created with.
fn settings(cleanup: Cleanup, min_insync_replicas: i32) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        ("min.insync.replicas", min_insync_replicas.to_string()),
        ("unclean.leader.election.enable", "false".to_owned()),
        ("max.message.bytes", (2 * MESSAGE_BYTES_MAX).to_string()),
    ];
    match cleanup {
        Cleanup::Delete => {
            // What is deleted, and when, is decided here: below every reader and pin, never by a clock alone.
            settings
                .extend([("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")].map(|(k, v)| (k, v.to_owned())));
        }
        Cleanup::Compact => {
            settings.extend(
                [("cleanup.policy", "compact"), ("segment.bytes", "67108864"), ("min.cleanable.dirty.ratio", "0.3")]
                    .map(|(k, v)| (k, v.to_owned())),
            );
        }
    }
    settings
}

/// What is wrong with a setting of a topic that exists, for a log that needs `wanted` there.
fn disagrees(key: &str, have: &str, wanted: &str) -> bool {
    let number = |text: &str| text.parse::<i64>().ok();
    match key {
        "min.insync.replicas" => number(have) < number(wanted),
        "max.message.bytes" => number(have) < Some(MESSAGE_BYTES_MAX as i64),
        "segment.bytes" | "min.cleanable.dirty.ratio" => false,
        _ => have != wanted,
    }
}

impl Catalog {
    pub(super) fn new(options: &Arc<Options>, complaints: &Complaints, reader: &Arc<Reader>) -> Self {
        Self { options: Arc::clone(options), complaints: complaints.clone(), reader: Arc::clone(reader) }
    }

    /// Partitions and replication factor of a topic; `None` if it is not there.
    pub(super) fn find(&self, topic: &str) -> Result<Option<(u32, i32)>, Error> {
        let client = self.reader.client()?;
        let asked = client::patiently(&self.options, || client.fetch_metadata(Some(topic), self.options.call_timeout));
        let metadata = asked.map_err(|error| self.meaning(&format!("looking for topic {topic}"), &error))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
        match found.error().map(Code::from) {
            None if !found.partitions().is_empty() => {
                let copies = found.partitions().iter().map(|partition| partition.replicas().len() as i32).min();
                Ok(Some((found.partitions().len() as u32, copies.unwrap_or(0))))
            }
            None | Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::LeaderNotAvailable) => Ok(None),
            Some(code) => Err(self.meaning(&format!("looking for topic {topic}"), &KafkaError::MetadataFetch(code))),
        }
    }

    /// Creates it if it is missing, and refuses one that is there and not as it must be.
    pub(super) fn ensure(&self, topic: &str, partitions: u32, cleanup: Cleanup) -> Result<(), Error> {
        let Some((have, copies)) = self.find(topic)? else { return self.create(topic, partitions, cleanup) };
        let mut wrong = Vec::new();
        if have != partitions {
            wrong.push(("partitions".to_owned(), have.to_string(), partitions.to_string()));
        }
        if copies < self.options.min_insync_replicas {
            wrong.push(("replication factor".to_owned(), copies.to_string(), format!("{} or more", self.options.min_insync_replicas)));
        }
        let set = self.settings_of(topic)?;
        for (key, wanted) in settings(cleanup, self.options.min_insync_replicas) {
            let have = set.get(key).map_or("", String::as_str);
            if disagrees(key, have, &wanted) {
                let wanted = if key == "max.message.bytes" { MESSAGE_BYTES_MAX.to_string() } else { wanted };
                wrong.push((key.to_owned(), have.to_owned(), wanted));
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let list = |which: fn(&(String, String, String)) -> &String| {
            wrong.iter().map(|wrong| format!("{} {}", wrong.0, which(wrong))).collect::<Vec<_>>().join(", ")
        };
        Err(Error::TopicSettings { topic: topic.to_owned(), have: list(|wrong| &wrong.1), want: list(|wrong| &wrong.2) })
    }

    fn create(&self, topic: &str, partitions: u32, cleanup: Cleanup) -> Result<(), Error> {
        if !self.options.create_topics {
            return Err(Error::Refused {
                key: "kafka.create_topics",
                message: format!(
                    "topic {topic} is missing and is not to be created; create it with {partitions} partitions, or set the key to true"
                ),
            });
        }
        let settings = settings(cleanup, self.options.min_insync_replicas);
        let mut wanted = NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(self.options.replication_factor));
        for (key, value) in &settings {
            wanted = wanted.set(key, value);
        }
        let admin = self.admin()?;
        let options =
            AdminOptions::new().request_timeout(Some(self.options.call_timeout)).operation_timeout(Some(self.options.call_timeout));
        let created = block_on(admin.create_topics([&wanted], &options));
        let created = created.map_err(|error| self.meaning(&format!("creating topic {topic}"), &error))?;
        for outcome in created {
            match outcome {
                // Another process was as quick.
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err((_, code @ (Code::InvalidReplicationFactor | Code::PolicyViolation))) => {
                    return Err(Error::Refused {
                        key: "kafka.replication_factor",
                        message: format!("topic {topic} cannot have {} copies here: {code}", self.options.replication_factor),
                    });
                }
                Err((_, code)) => return Err(self.meaning(&format!("creating topic {topic}"), &KafkaError::AdminOp(code))),
            }
        }
        self.await_leaders(topic, partitions)
    }

    /// A topic that was created a moment ago has no leaders yet, and whoever writes to it would be told that it does not exist.
    fn await_leaders(&self, topic: &str, partitions: u32) -> Result<(), Error> {
        let deadline = Instant::now() + self.options.call_timeout;
        loop {
            let asked = self.reader.client()?.fetch_metadata(Some(topic), self.options.call_timeout);
            let led = asked.is_ok_and(|metadata| {
                let found = metadata.topics().iter().find(|found| found.name() == topic);
                found.is_some_and(|found| {
                    found.partitions().len() == partitions as usize && found.partitions().iter().all(|partition| partition.leader() >= 0)
                })
            });
            if led {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let context = format!("creating topic {topic}");
                return Err(Error::Unavailable { context, message: "its partitions have no leaders yet".into() });
            }
            client::pause(LEADER_PAUSE);
        }
    }

    fn settings_of(&self, topic: &str) -> Result<HashMap<String, String>, Error> {
        let doing = format!("asking for the settings of topic {topic}");
        let admin = self.admin()?;
        let options = AdminOptions::new().request_timeout(Some(self.options.call_timeout));
        let described = block_on(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options));
        let mut described = described.map_err(|error| self.meaning(&doing, &error))?;
        let found = described.pop().ok_or_else(|| Error::UnknownTopic(topic.to_owned()))?;
        let found = found.map_err(|code| self.meaning(&doing, &KafkaError::AdminOp(code)))?;
        Ok(found.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
    }

    /// Deletes what lies below each offset.
    pub(super) fn delete_below(&self, below: &[(Physical, Offset)]) -> Result<(), Error> {
        let mut list = TopicPartitionList::new();
        for (of, offset) in below {
            list.add_partition_offset(&of.topic, of.partition, KafkaOffset::Offset(offset.0 as i64)).expect("an offset is a number");
        }
        let admin = self.admin()?;
        let options =
            AdminOptions::new().request_timeout(Some(self.options.call_timeout)).operation_timeout(Some(self.options.call_timeout));
        let deleted = block_on(admin.delete_records(&list, &options));
        let deleted = deleted.map_err(|error| self.meaning("deleting old records", &error))?;
        for element in deleted.elements() {
            element.error().map_err(|error| self.meaning(&format!("deleting old records of {}", element.topic()), &error))?;
        }
        Ok(())
    }

    /// The brokers answer and take us for who we say we are; waited for, unless a setting is wrong.
    pub(super) fn reach(&self) -> Result<(), Error> {
        let client = self.reader.client()?;
        let ledger = super::ledger::name(&self.options.prefix);
        let deadline = Instant::now() + self.options.call_timeout;
        loop {
            let Err(error) = client.fetch_metadata(Some(&ledger), REACH_STEP) else { return Ok(()) };
            // What the client met on the way is in its queue: the context notes it.
            while client.poll(Duration::ZERO).is_some() {}
            if self.complaints.is_definite() || Instant::now() >= deadline {
                return Err(self.meaning("reaching the cluster", &error));
            }
            client::pause(REACH_PAUSE);
        }
    }

    fn admin(&self) -> Result<AdminClient<Context>, Error> {
        let made = client::base(&self.options).create_with_context(Context::new(&self.complaints));
        made.map_err(|error| client::refused_setting(&error))
    }

    fn meaning(&self, doing: &str, error: &KafkaError) -> Error {
        client::meaning(doing, error, &self.complaints, &self.options)
    }
}

/// Waits for an administrative call on a thread of its own: callers may be on a runtime's thread, which must not begin another runtime.
fn block_on<T: Send>(call: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime of one thread");
        runtime.block_on(call)
    };
    std::thread::scope(|scope| scope.spawn(run).join().expect("a call does not panic"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_may_be_stricter_than_was_asked_for_and_not_laxer() {
        let cases = [
            ("min.insync.replicas", "2", "2", false),
            ("min.insync.replicas", "3", "2", false),
            ("min.insync.replicas", "1", "2", true),
            ("max.message.bytes", "1048588", "", false),
            ("max.message.bytes", "1000", "", true),
            ("message.timestamp.type", "CreateTime", "LogAppendTime", true),
            ("retention.ms", "604800000", "-1", true),
            ("cleanup.policy", "compact", "delete", true),
            ("segment.bytes", "1", "2", false),
        ];
        for (key, have, wanted, wrong) in cases {
            assert_eq!(disagrees(key, have, wanted), wrong, "{key} {have}");
        }
    }

    #[test]
    fn incarnations_are_topics_of_their_own() {
        let name = TopicName::parse("main.events").unwrap();
        assert_eq!(physical("eu.", &name, Incarnation(1)), "eu.main.events");
        assert_eq!(physical("", &name, Incarnation(3)), "main.events.i3");
    }
}
