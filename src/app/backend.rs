//! The log that a process stands on, as its settings say: its own folder's, or a cluster's.

use std::sync::Arc;

use super::{Error, Folder};
use crate::config::{Config, LogBackend};
use crate::domain::Incarnation;
use crate::env::Clock;
use crate::env::fs::RealFs;
use crate::log::embedded::{self, EmbeddedLog, EmbeddedReader};
use crate::log::{LogReader, LogWriter};

/// An open log with what only some of them have.
#[derive(Clone)]
pub struct OpenLog {
    pub writer: Arc<dyn LogWriter>,
    embedded: Option<Arc<EmbeddedLog>>,
}

impl OpenLog {
    /// Opens it for writing.
    pub fn open(config: &Config, folder: &Folder, clock: &Arc<dyn Clock>) -> Result<Self, Error> {
        match config.log.backend {
            LogBackend::Embedded => {
                let options = embedded::Options {
                    wal_bytes: config.log.wal_bytes,
                    tail_bytes_max: config.log.tail_bytes_max,
                    queue_bytes_max: config.log.queue_bytes_max,
                    ..embedded::Options::default()
                };
                let log = EmbeddedLog::open(Arc::new(RealFs), &folder.log(), options, Arc::clone(clock))?;
                Ok(Self { writer: Arc::clone(&log) as _, embedded: Some(log) })
            }
            LogBackend::Kafka => {
                let instance = folder.instance(&config.kafka.instance).map_err(|error| Error::folder(folder, &error))?;
                Ok(Self { writer: kafka(config, &instance)?, embedded: None })
            }
        }
    }

    /// Opens it beside whoever writes it; `None` if there is none yet.
    pub fn reader(config: &Config, folder: &Folder) -> Result<Option<Arc<dyn LogReader>>, Error> {
        match config.log.backend {
            LogBackend::Embedded if !folder.log().exists() => Ok(None),
            LogBackend::Embedded => Ok(Some(Arc::new(EmbeddedReader::open(Arc::new(RealFs), &folder.log())?))),
            LogBackend::Kafka => Ok(Some(Self::visitor(config)?)),
        }
    }

    /// A cluster's log for a command, which has no place in any group.
    pub fn visitor(config: &Config) -> Result<Arc<dyn LogWriter>, Error> {
        kafka(config, &format!("command-{}", uuid::Uuid::new_v4().simple()))
    }

    /// Whether several processes share the partitions.
    pub fn is_shared(&self) -> bool {
        self.embedded.is_none()
    }

    /// The incarnation that began because the log's folder was a copy, if any did.
    pub fn copied(&self) -> Option<Incarnation> {
        self.embedded.as_ref()?.copied()
    }

    /// Brings figures up to date that nobody counts as it happens.
    pub fn measure(&self) {
        if let Some(log) = &self.embedded {
            log.measure();
        }
    }
}

#[cfg(feature = "kafka")]
fn kafka(config: &Config, instance: &str) -> Result<Arc<dyn LogWriter>, Error> {
    use std::time::Duration;

    use crate::log::{KafkaLog, kafka};
    let of = &config.kafka;
    let options = kafka::Options {
        brokers: of.brokers.clone(),
        prefix: of.topic_prefix.clone(),
        instance: instance.to_owned(),
        replication_factor: of.replication_factor,
        min_insync_replicas: of.min_insync_replicas,
        create_topics: of.create_topics,
        session_timeout: Duration::from_millis(of.session_timeout_ms),
        transaction_timeout: Duration::from_millis(of.transaction_timeout_ms),
        call_timeout: Duration::from_millis(of.call_timeout_ms),
        queue_bytes_max: config.log.queue_bytes_max,
        compression: of.compression.clone(),
        client: of.client.clone(),
        ..kafka::Options::default()
    };
    Ok(KafkaLog::open(options)?)
}

#[cfg(not(feature = "kafka"))]
fn kafka(_: &Config, _: &str) -> Result<Arc<dyn LogWriter>, Error> {
    Err(Error::NotBuilt { key: "log.backend", value: "kafka", feature: "kafka" })
}
