//! Membership of a consumer group: which partitions this process is to work on, and giving them back in peace.
//!
//! The member reads nothing: it keeps the heartbeat and hears of assignments. A partition that is to go is let go only once whoever works
//! on it has said that everything is committed and stored. One that was lost, because the group took this member for dead, is no longer
//! owned from the moment that librdkafka says so, which is before this member can join again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;

use super::Options;
use super::client::{self, Complaints, Context};
use crate::log::Error;

/// What a group tells its member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Assigned(Vec<i32>),
    /// To be let go once their work is stored.
    Revoked(Vec<i32>),
    /// Gone already: others may own them.
    Lost(Vec<i32>),
}

type OnLost = Box<dyn Fn(&[i32]) + Send + Sync>;

struct Callbacks {
    context: Context,
    topic: Arc<str>,
    told: Mutex<VecDeque<Told>>,
    is_leaving: AtomicBool,
    on_lost: OnLost,
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::trace(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.note(&error, reason);
    }
}

impl ConsumerContext for Callbacks {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let ours = list.elements_for_topic(&self.topic).iter().map(|element| element.partition()).collect::<Vec<_>>();
        let done = match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                // Paused before it is assigned nothing is fetched, and after it little: this consumer only keeps the membership.
                let assigned = consumer.incremental_assign(list).and_then(|()| consumer.pause(list));
                if !ours.is_empty() {
                    self.told.lock().push_back(Told::Assigned(ours));
                }
                assigned
            }
            _ if consumer.assignment_lost() => {
                (self.on_lost)(&ours);
                self.told.lock().push_back(Told::Lost(ours));
                consumer.incremental_unassign(list)
            }
            _ if self.is_leaving.load(Ordering::Acquire) || ours.is_empty() => consumer.incremental_unassign(list),
            _ => {
                self.told.lock().push_back(Told::Revoked(ours));
                Ok(())
            }
        };
        if let Err(error) = done {
            tracing::warn!(%error, topic = %self.topic, "the client did not follow a rebalance; it is asked to rejoin by its session");
        }
    }
}

pub(super) struct Member {
    consumer: BaseConsumer<Callbacks>,
    topic: Arc<str>,
    ledger: String,
    options: Arc<Options>,
    complaints: Complaints,
}

impl Member {
    /// Joins `group` for the partitions of `topic`; `on_lost` hears at once which are no longer this member's.
    pub(super) fn join(
        options: &Arc<Options>,
        complaints: &Complaints,
        group: &str,
        topic: &Arc<str>,
        on_lost: impl Fn(&[i32]) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let mut config = client::reading(options);
        let session_ms = options.session_timeout.as_millis();
        config
            .set("group.id", group)
            .set("group.instance.id", format!("{}-{group}", options.instance))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", session_ms.to_string())
            .set("heartbeat.interval.ms", (session_ms / 5).clamp(200, 3_000).to_string())
            .set("max.poll.interval.ms", session_ms.max(300_000).to_string())
            .set("auto.offset.reset", "latest")
            .set("topic.metadata.refresh.interval.ms", "5000");
        let callbacks = Callbacks {
            context: Context::new(complaints),
            topic: Arc::clone(topic),
            told: Mutex::default(),
            is_leaving: AtomicBool::new(false),
            on_lost: Box::new(on_lost),
        };
        let consumer: BaseConsumer<Callbacks> = config.create_with_context(callbacks).map_err(|error| client::refused_setting(&error))?;
        let subscribed = consumer.subscribe(&[topic]);
        subscribed.map_err(|error| client::meaning(&format!("joining {group}"), &error, complaints, options))?;
        let ledger = super::ledger::name(&options.prefix);
        Ok(Self { consumer, topic: Arc::clone(topic), ledger, options: Arc::clone(options), complaints: complaints.clone() })
    }

    /// Serves the group for up to `at_most` and says what it has told, which may be nothing.
    pub(super) fn poll(&self, at_most: Duration) -> Result<Vec<Told>, Error> {
        let deadline = Instant::now() + at_most;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // No message comes of partitions that are paused, save the few that were under way; nobody reads them here.
            if let Some(Err(error)) = self.consumer.poll(left) {
                self.refused(&error)?;
            }
            let told: Vec<Told> = self.consumer.context().told.lock().drain(..).collect();
            if !told.is_empty() || left.is_zero() {
                return Ok(told);
            }
        }
    }

    fn refused(&self, error: &KafkaError) -> Result<(), Error> {
        match error.rdkafka_error_code() {
            Some(Code::FencedInstanceId) => Err(Error::Refused {
                key: "kafka.instance",
                message: format!("another process runs as {:?}; each needs a name of its own", self.options.instance),
            }),
            Some(Code::GroupAuthorizationFailed | Code::TopicAuthorizationFailed) => {
                Err(client::meaning("joining a group", error, &self.complaints, &self.options))
            }
            // What passes is mended by the client itself.
            _ => Ok(()),
        }
    }

    /// Their work is stored: they may go to others.
    pub(super) fn release(&self, partitions: &[i32]) -> Result<(), Error> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        let released = self.consumer.incremental_unassign(&list);
        released.map_err(|error| client::meaning("giving back partitions", &error, &self.complaints, &self.options))
    }

    /// How the group knows this member now.
    pub(super) fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        self.consumer.group_metadata()
    }

    /// Gives everything to the others at once. A static member that merely stops keeps its partitions for a session, in case it comes
    /// back; one that is interested in another topic does not. Nothing of this member's may be at work any more.
    pub(super) fn leave(&self, at_most: Duration) {
        self.consumer.context().is_leaving.store(true, Ordering::Release);
        let deadline = Instant::now() + at_most;
        if self.consumer.subscribe(&[&self.ledger]).is_err() {
            return;
        }
        let holds = || self.consumer.assignment().is_ok_and(|held| !held.elements_for_topic(&self.topic).is_empty());
        while holds() && Instant::now() < deadline {
            if let Some(Err(error)) = self.consumer.poll(Duration::from_millis(50)) {
                tracing::debug!(%error, "leaving a group");
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // The consumer's own drop goes on until every partition is let go.
        self.consumer.context().is_leaving.store(true, Ordering::Release);
    }
}
