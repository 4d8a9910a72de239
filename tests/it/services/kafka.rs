//! Apache Kafka: one broker, or three with everything stored three times, each broker a KRaft controller too.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::Metadata;
use serde_json::Value;

use super::own;
use super::process::{Process, Spec, fresh_dir, fresh_password, fresh_port, wait_until};

/// How long one question to a broker may take: one that is paused never answers.
const ASK_MAX: Duration = Duration::from_secs(2);

pub struct KafkaOptions {
    /// 1, or 3: then topics have replication factor 3 and need 2 in sync, Kafka's own included.
    pub brokers: u32,
    pub heap_mb: u32,
    /// Where clients come to: 127.0.0.1, or the address of a [`super::Network`].
    pub address: Ipv4Addr,
    /// A second listener, which wants TLS and a password: [`Kafka::secure`].
    pub secure: bool,
    /// Where a broker (1 to 3) has its log, if not in its own folder: a small disk, say.
    pub data: Vec<(u32, PathBuf)>,
    /// Further lines of each broker's `server.properties`.
    pub properties: String,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self { brokers: 1, heap_mb: 512, address: Ipv4Addr::LOCALHOST, secure: false, data: Vec::new(), properties: String::new() }
    }
}

impl KafkaOptions {
    pub fn three() -> Self {
        Self { brokers: 3, heap_mb: 400, ..Self::default() }
    }
}

/// A running cluster. Brokers are numbered from 1.
pub struct Kafka {
    brokers: Vec<Broker>,
    address: Ipv4Addr,
    secure: Option<Secure>,
}

struct Broker {
    process: Process,
    port: u16,
    data: PathBuf,
}

/// What a client of the secure listener needs: TLS, SCRAM-SHA-512.
pub struct Secure {
    pub bootstrap: String,
    /// The authority's certificate, PEM.
    pub ca: PathBuf,
    pub user: String,
    pub password: String,
}

impl Kafka {
    /// Starts a cluster of the test's own and waits until every broker is known to every other. `None` if services are to be skipped.
    #[track_caller]
    pub fn start(options: KafkaOptions) -> Option<Self> {
        own("Kafka", || Self::try_start(options))
    }

    pub(super) fn try_start(options: KafkaOptions) -> Result<Self, String> {
        assert!(matches!(options.brokers, 1 | 3), "one broker or three");
        let controllers: Vec<String> = (1..=options.brokers).map(|node| format!("{node}@127.0.0.1:{}", fresh_port())).collect();
        let cluster = cluster_id();
        let password = fresh_password();
        let certificates = options.secure.then(|| certificates(options.address)).transpose()?;
        let mut secure_addresses = Vec::new();
        let mut brokers = Vec::new();
        for node in 1..=options.brokers {
            let port = fresh_port();
            let mut settings = vec![
                ("SERVICE_ADDRESS", options.address.to_string()),
                ("KAFKA_NODE", node.to_string()),
                ("KAFKA_PORT", port.to_string()),
                ("KAFKA_CONTROLLERS", controllers.join(",")),
                ("KAFKA_CLUSTER", cluster.clone()),
                ("KAFKA_HEAP_MB", options.heap_mb.to_string()),
                ("KAFKA_PROPERTIES", options.properties.clone()),
            ];
            if let Some(certificates) = &certificates {
                let secure_port = fresh_port();
                secure_addresses.push(format!("{}:{secure_port}", options.address));
                settings.push(("KAFKA_SECURE_PORT", secure_port.to_string()));
                settings.push(("KAFKA_PASSWORD", password.clone()));
                settings.push(("KAFKA_CERTIFICATES", certificates.display().to_string()));
            }
            let elsewhere = options.data.iter().find(|(wanted, _)| *wanted == node).map(|(_, path)| path.clone());
            settings.extend(elsewhere.iter().map(|path| ("KAFKA_DATA", path.display().to_string())));
            let name = format!("kafka-{node}");
            let process = Process::new(Spec { name, script: "kafka.sh", settings, ends_on: libc::SIGTERM, dies_on: libc::SIGKILL });
            let data = elsewhere.unwrap_or_else(|| process.dir().join("data"));
            brokers.push(Broker { process, port, data });
        }
        let secure = certificates.map(|certificates| Secure {
            bootstrap: secure_addresses.join(","),
            ca: certificates.join("ca.pem"),
            user: "flywheel".into(),
            password,
        });
        let kafka = Self { brokers, address: options.address, secure };
        kafka.try_start_brokers(&(1..=options.brokers).collect::<Vec<_>>())?;
        Ok(kafka)
    }

    /// `ADDRESS:PORT` of every broker, comma separated, running or not. No encryption, no password.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.brokers.iter().map(|broker| format!("{}:{}", self.address, broker.port)).collect();
        addresses.join(",")
    }

    /// Of a cluster that was started with [`KafkaOptions::secure`].
    pub fn secure(&self) -> &Secure {
        self.secure.as_ref().expect("started with secure: true")
    }

    pub fn is_running(&self, node: u32) -> bool {
        self.broker(node).process.is_running()
    }

    /// A broker's process and folder, for tests of its end.
    pub fn place(&self, node: u32) -> (u32, PathBuf) {
        let process = &self.broker(node).process;
        (process.pid(), process.dir().to_owned())
    }

    /// A broker's end in order: it hands over its partitions first.
    pub fn stop_broker(&self, node: u32) {
        self.broker(node).process.stop();
    }

    /// kill -9.
    pub fn kill_broker(&self, node: u32) {
        self.broker(node).process.kill();
    }

    /// SIGSTOP: its connections stay open and nobody answers.
    pub fn pause_broker(&self, node: u32) {
        self.broker(node).process.pause();
    }

    pub fn resume_broker(&self, node: u32) {
        self.broker(node).process.resume();
    }

    /// Starts a broker that was stopped or killed, on its port and data, and waits until it is a member again.
    #[track_caller]
    pub fn start_broker(&self, node: u32) {
        self.start_brokers(&[node]);
    }

    /// Several at once: without a majority none of them becomes ready.
    #[track_caller]
    pub fn start_brokers(&self, nodes: &[u32]) {
        if let Err(why) = self.try_start_brokers(nodes) {
            panic!("{why}");
        }
    }

    /// Every broker at once.
    pub fn pause(&self) {
        self.brokers.iter().for_each(|broker| broker.process.pause());
    }

    pub fn resume(&self) {
        self.brokers.iter().for_each(|broker| broker.process.resume());
    }

    /// The number of the active controller: of the running brokers' own notes, the newest. Just after its death this is `None` until
    /// another one is elected.
    pub fn controller(&self) -> Option<u32> {
        let running = self.brokers.iter().filter(|broker| broker.process.is_running());
        let notes = running.filter_map(|broker| {
            let text = std::fs::read(broker.data.join("__cluster_metadata-0/quorum-state")).ok()?;
            let state: Value = serde_json::from_slice(&text).ok()?;
            Some((state["leaderEpoch"].as_i64()?, state["leaderId"].as_i64()?))
        });
        let (_, leader) = notes.max()?;
        let leader = u32::try_from(leader).ok()?;
        self.is_running(leader).then_some(leader)
    }

    /// Waits until every partition of every topic has all its copies in sync, as between two faults.
    #[track_caller]
    pub fn wait_until_in_sync(&self) {
        wait_until("every copy of every partition is in sync", || {
            let Ok(metadata) = metadata(&self.bootstrap()) else { return false };
            let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            metadata.brokers().len() == self.brokers.len()
                && partitions.all(|partition| partition.isr().len() == partition.replicas().len())
        });
    }

    fn try_start_brokers(&self, nodes: &[u32]) -> Result<(), String> {
        nodes.iter().for_each(|node| self.broker(*node).process.spawn());
        for node in nodes {
            let broker = self.broker(*node);
            let is_member = || {
                let metadata = metadata(&format!("{}:{}", self.address, broker.port))?;
                let members: Vec<i32> = metadata.brokers().iter().map(|broker| broker.id()).collect();
                let is_in = |node: &u32| members.contains(&(*node as i32));
                if nodes.iter().all(is_in) { Ok(()) } else { Err(format!("members are {members:?}")) }
            };
            broker.process.wait_until_ready(is_member)?;
        }
        Ok(())
    }

    fn broker(&self, node: u32) -> &Broker {
        &self.brokers[node as usize - 1]
    }
}

/// What a broker knows of the cluster. A new client each time: one that was refused waits before it asks again.
fn metadata(bootstrap: &str) -> Result<Metadata, String> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("reconnect.backoff.max.ms", "100").set("log_level", "0");
    let client: BaseConsumer = config.create().map_err(|error| error.to_string())?;
    client.fetch_metadata(None, ASK_MAX).map_err(|error| error.to_string())
}

/// As Kafka writes a UUID: 22 characters of base64.
fn cluster_id() -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().as_bytes())
}

/// A folder with a throw-away authority and a broker's certificate.
fn certificates(address: Ipv4Addr) -> Result<PathBuf, String> {
    let dir = fresh_dir("certificates");
    let made = Command::new("scripts/services/certificates.sh")
        .arg(&dir)
        .arg(address.to_string())
        .output()
        .map_err(|error| format!("certificates.sh: {error}"))?;
    if !made.status.success() {
        return Err(format!("certificates.sh: {}", String::from_utf8_lossy(&made.stderr)));
    }
    Ok(dir)
}
