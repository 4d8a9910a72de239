//! Clients of librdkafka as this log wants them, and what their errors mean to its callers.
//!
//! A client reconnects for ever in the background and tells of it only in callbacks, so the last thing it complained about is kept: a call
//! that ran out of time then says why.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::Options;
use crate::log::Error;

/// Between two tries of a call that met a cluster that is moving.
const MOVING_PAUSE: Duration = Duration::from_millis(50);

/// What librdkafka last complained about, over all clients of a log.
#[derive(Debug, Default, Clone)]
pub(super) struct Complaints(Arc<Mutex<Option<(Code, String)>>>);

impl Complaints {
    pub(super) fn last(&self) -> Option<(Code, String)> {
        self.0.lock().clone()
    }

    /// The last one says that a setting is wrong, which no waiting mends.
    pub(super) fn is_definite(&self) -> bool {
        matches!(self.last(), Some((Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL, _)))
    }

    fn note(&self, error: &KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut last = self.0.lock();
        // That all brokers are down follows from what was said before, which says why.
        if code != Code::AllBrokersDown || last.is_none() {
            *last = Some((code, reason.to_owned()));
        }
    }
}

/// Where callbacks go.
#[derive(Clone, Default)]
pub(super) struct Context {
    complaints: Complaints,
}

impl Context {
    pub(super) fn new(complaints: &Complaints) -> Self {
        Self { complaints: complaints.clone() }
    }

    pub(super) fn note(&self, error: &KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason);
        self.complaints.note(error, reason);
    }
}

pub(super) fn trace(level: RDKafkaLogLevel, facility: &str, message: &str) {
    use RDKafkaLogLevel::{Alert, Critical, Emerg, Error, Warning};
    match level {
        // Lost connections are logged as errors and mended by themselves; what lasts is told by the call that fails.
        Emerg | Alert | Critical | Error | Warning => tracing::debug!(target: "librdkafka", facility, message),
        _ => tracing::trace!(target: "librdkafka", facility, message),
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        trace(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(&error, reason);
    }
}

impl ConsumerContext for Context {}

/// What every client of this log has in common.
pub(super) fn base(options: &Options) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (key, value) in &options.client {
        config.set(key, value);
    }
    let call_ms = options.call_timeout.as_millis().to_string();
    config
        .set("bootstrap.servers", &options.brokers)
        .set("client.id", format!("flywheel-{}", options.instance))
        .set("socket.keepalive.enable", "true")
        // Two small requests in a row would wait 40 ms for the acknowledgement of the first.
        .set("socket.nagle.disable", "true")
        .set("socket.timeout.ms", &call_ms)
        .set("reconnect.backoff.max.ms", "1000")
        .set("topic.metadata.refresh.interval.ms", "60000");
    config
}

/// One that reads records whose transactions are over, and none that were aborted.
pub(super) fn reading(options: &Options) -> ClientConfig {
    let mut config = base(options);
    config
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.error.backoff.ms", "100")
        .set("queued.min.messages", "100000")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.message.max.bytes", "4194304");
    config
}

/// One that writes, each record once and in order.
pub(super) fn writing(options: &Options) -> ClientConfig {
    let mut config = base(options);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", &options.compression)
        .set("message.max.bytes", super::MESSAGE_BYTES_MAX.to_string())
        .set("queue.buffering.max.messages", "2000000")
        .set("queue.buffering.max.kbytes", "1048576")
        .set("batch.num.messages", "20000")
        .set("linger.ms", "1");
    config
}

/// The error of a client that could not be made: a setting that librdkafka refuses.
pub(super) fn refused_setting(error: &KafkaError) -> Error {
    let message = match error {
        // The value may be a secret.
        KafkaError::ClientConfig(_, why, key, _) => format!("{key}: {why}"),
        KafkaError::ClientCreation(why) => why.clone(),
        other => other.to_string(),
    };
    Error::Refused { key: "kafka.client", message }
}

/// Whether a call met a cluster that is busy with itself: leaders and coordinators move, and know it a moment later.
pub(super) fn is_moving(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::NotCoordinator
                | Code::CoordinatorNotAvailable
                | Code::CoordinatorLoadInProgress
                | Code::BrokerTransportFailure
                | Code::AllBrokersDown
        )
    )
}

/// Before a question is asked again: a cluster tells nobody when what was asked about has changed.
pub(super) fn pause(at_most: Duration) {
    std::thread::park_timeout(at_most);
}

/// Makes a call again, for as long as one call may take, while the cluster is moving.
pub(super) fn patiently<T>(options: &Options, mut call: impl FnMut() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
    let deadline = Instant::now() + options.call_timeout;
    loop {
        match call() {
            Err(error) if is_moving(&error) && Instant::now() < deadline => pause(MOVING_PAUSE),
            outcome => return outcome,
        }
    }
}

/// What a failed call means: which setting is wrong, or that it may succeed later.
pub(super) fn meaning(doing: &str, error: &KafkaError, complaints: &Complaints, options: &Options) -> Error {
    let code = error.rdkafka_error_code();
    let told = complaints.last();
    let said = told.as_ref().map(|(code, _)| *code);
    let why = told.as_ref().map_or_else(|| error.to_string(), |(_, reason)| reason.clone());
    let refused = |key, message| Error::Refused { key, message };
    for code in [code, said].into_iter().flatten() {
        match code {
            Code::Authentication | Code::SaslAuthenticationFailed => {
                return refused(
                    "kafka.client",
                    format!("the broker does not take this user and password (sasl.username, sasl.password): {why}"),
                );
            }
            Code::SSL => return refused("kafka.client", format!("TLS: {why}")),
            Code::Resolve => return refused("kafka.brokers", format!("{}: {why}", options.brokers)),
            Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed => {
                return refused("kafka.client", format!("{doing}: this user may not: {error}"));
            }
            Code::TransactionalIdAuthorizationFailed => {
                return refused("kafka.client", format!("{doing}: this user may not write transactions: {error}"));
            }
            _ => {}
        }
    }
    let timed_out =
        matches!(code, Some(Code::OperationTimedOut | Code::AllBrokersDown | Code::BrokerTransportFailure | Code::TimedOutQueue));
    let message = if timed_out { format!("no answer from {} (kafka.brokers): {why}", options.brokers) } else { error.to_string() };
    Error::Unavailable { context: doing.to_owned(), message }
}
