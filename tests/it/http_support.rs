//! A gateway on a free loopback port over a log in memory, and a client that says exactly the bytes it is told to.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use flywheel::channels::link::Keys;
use flywheel::domain::{Millis, Namespace, Offset, PartitionId, SourceId, Subject, SubjectKey, TenantId};
use flywheel::env::ManualClock;
use flywheel::gateway::{
    self, Access, App, Campaigns, Clocked, Links, Options, ProfileAnswer, ProfileReader, ReadError, Readiness, Reason, Source, Sources,
};
use flywheel::log::{Cleanup, LogReader, LogWriter, MemoryLog, Retention, TopicInfo, TopicName, TopicPartition, TopicSpec};
use flywheel::schema::{self, records::IntakeRecord};
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const NOW: Millis = Millis(1_767_225_600_000);
pub const KEY: &str = "wk_shop";
pub const PARTITIONS: u32 = 4;

/// What the app would tell the gateway, as a test wants it.
#[derive(Default)]
pub struct World {
    pub not_ready: Mutex<Vec<Reason>>,
    pub degraded: Mutex<Vec<Reason>>,
    pub lag_ms: Mutex<u64>,
}

impl Readiness for World {
    fn not_ready(&self) -> Vec<Reason> {
        self.not_ready.lock().clone()
    }

    fn degraded(&self) -> Vec<Reason> {
        self.degraded.lock().clone()
    }

    fn intake_lag_ms(&self, _: &Namespace) -> u64 {
        *self.lag_ms.lock()
    }
}

impl ProfileReader for World {
    fn profile<'a>(&'a self, namespace: &'a Namespace, tenant: &'a TenantId, subject: &'a Subject) -> ProfileAnswer<'a> {
        let known = subject.id() == "ann";
        Box::pin(async move {
            if subject.id() == "broken" {
                return Err(ReadError::Failed("the disk is gone".to_owned()));
            }
            if subject.id() == "early" {
                return Err(ReadError::NotYet);
            }
            Ok(known.then(|| format!(r#"{{"where":"{namespace}/{tenant}/{subject}"}}"#)))
        })
    }
}

pub fn namespace(name: &str) -> Namespace {
    Namespace::new(name).expect("a slug")
}

fn source(namespace: &str, name: &str, disabled: bool) -> Source {
    let tenant = TenantId::new("acme").expect("a slug");
    let source = SourceId::new(name).expect("a slug");
    Source { tenant, namespace: self::namespace(namespace), source, disabled }
}

pub fn sources() -> Sources {
    let mut sources = Sources::default();
    sources.namespaces.insert(namespace("main"), Clocked::Wall);
    sources.namespaces.insert(namespace("past"), Clocked::Event);
    sources.write_keys.insert(KEY.to_owned(), source("main", "shop", false));
    sources.keyless = Some(Access { tenant: TenantId::new("acme").expect("a slug"), namespace: namespace("main") });
    sources.write_keys.insert("wk_past".to_owned(), source("past", "import", false));
    sources.write_keys.insert("wk_off".to_owned(), source("main", "old", true));
    sources
}

/// One record of `intake`, owned.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrived {
    pub partition: PartitionId,
    /// `u:ID` or `a:ID`; empty for a time statement.
    pub key: String,
    pub timestamp: Millis,
    pub record: serde_json::Value,
}

impl Arrived {
    pub fn text(&self, field: &str) -> String {
        self.record["IntakeItem"][field].as_str().unwrap_or_default().to_owned()
    }
}

pub struct Running {
    pub address: SocketAddr,
    pub log: Arc<dyn LogWriter>,
    pub world: Arc<World>,
    pub stop: Option<oneshot::Sender<()>>,
    pub served: JoinHandle<Result<(), gateway::Error>>,
}

pub async fn start(options: Options) -> Running {
    start_on(options, sources(), Arc::new(MemoryLog::new(Arc::new(ManualClock::at(NOW))))).await
}

pub async fn start_on(options: Options, sources: Sources, log: Arc<dyn LogWriter>) -> Running {
    start_measured(options, sources, log, None).await
}

pub async fn start_measured(options: Options, sources: Sources, log: Arc<dyn LogWriter>, metrics: Option<PrometheusHandle>) -> Running {
    start_with(options, sources, log, metrics, Arc::new(NoCampaigns)).await
}

struct NoCampaigns;

impl Campaigns for NoCampaigns {}

pub fn links() -> Links {
    let keys = Keys::new("test", [("test".to_owned(), vec![7; 32])]).expect("a key");
    Links { base: "https://go.example".to_owned(), keys, bots: std::sync::Arc::new(flywheel::channels::bots::Rules::shipped().clone()) }
}

pub async fn start_with(
    options: Options,
    sources: Sources,
    log: Arc<dyn LogWriter>,
    metrics: Option<PrometheusHandle>,
    campaigns: Arc<dyn Campaigns>,
) -> Running {
    for namespace in sources.namespaces.keys() {
        let name = TopicName::new(namespace, "intake");
        let spec = TopicSpec { name, partitions: PARTITIONS, retention: Retention::Forever, cleanup: Cleanup::Delete };
        log.create_topic(&spec).expect("a new topic");
    }
    let world = Arc::new(World::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = oneshot::channel();
    let app = App {
        takes_requests: true,
        log: log.clone(),
        clock: Arc::new(ManualClock::at(NOW)),
        profiles: world.clone(),
        campaigns,
        links: links(),
        readiness: world.clone(),
        metrics,
        sources,
        limits: Arc::new(flywheel::limits::Limits::local(options.tenant_requests_per_s, options.tenant_burst)),
        options,
        extra: Some(axum::Router::new().route("/admin/v1/echo", axum::routing::get(|| async { "of the app" }))),
    };
    let shutdown = async {
        let _ = stopped.await;
    };
    let served = tokio::spawn(gateway::serve(listener, app, shutdown));
    Running { address, log, world, stop: Some(stop), served }
}

impl Running {
    /// Says these bytes on a connection of its own and hears everything until it closes.
    pub async fn say(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.expect("listens");
        stream.write_all(request).await.expect("takes the request");
        Answer::read(&mut stream).await
    }

    pub async fn send(&self, request: &Request) -> Answer {
        self.say(&request.bytes(self.address)).await
    }

    /// Everything in a namespace's intake, partition by partition.
    pub fn arrived(&self, namespace: &str) -> Vec<Arrived> {
        let info = topic(&*self.log, namespace);
        let mut arrived = Vec::new();
        for partition in 0..info.spec.partitions {
            let partition = TopicPartition { topic: info.id, partition: PartitionId(partition) };
            let fetched = self.log.fetch(partition, Offset(0), usize::MAX).expect("reads");
            for record in fetched.records() {
                let value = record.value.expect("intake has values");
                let decoded = schema::decode::<IntakeRecord<'_>>(value).expect("decodes");
                let key = if record.key.is_empty() {
                    String::new()
                } else {
                    let key = SubjectKey::from_bytes(Bytes::copy_from_slice(record.key)).expect("a subject's key");
                    assert_eq!(key.tenant_str(), "acme");
                    key.subject().to_string()
                };
                let record_json = serde_json::to_value(&decoded).expect("plain data");
                arrived.push(Arrived { partition: partition.partition, key, timestamp: record.timestamp, record: record_json });
            }
        }
        arrived
    }
}

fn topic(log: &dyn LogReader, namespace: &str) -> TopicInfo {
    let name = TopicName::parse(&format!("{namespace}.intake")).expect("a name");
    log.topics().expect("topics").into_iter().find(|topic| topic.spec.name == name).expect("was created")
}

/// A request as bytes in the making.
#[derive(Debug, Clone)]
pub struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    chunked: bool,
}

pub fn get(path: &str) -> Request {
    Request { method: "GET", path: path.to_owned(), headers: Vec::new(), body: Vec::new(), chunked: false }
}

pub fn post(path: &str, body: impl AsRef<[u8]>) -> Request {
    Request { method: "POST", body: body.as_ref().to_vec(), ..get(path) }
}

pub fn options(path: &str) -> Request {
    Request { method: "OPTIONS", ..get(path) }
}

impl Request {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn basic(self, user_and_colon: &str) -> Self {
        use base64::Engine;
        let encoded = base64::engine::general_purpose::STANDARD.encode(user_and_colon);
        self.header("Authorization", &format!("Basic {encoded}"))
    }

    /// As every SDK that uses Basic does.
    pub fn key(self) -> Self {
        self.basic(&format!("{KEY}:"))
    }

    pub fn gzip(mut self) -> Self {
        self.body = gzip(&self.body);
        self.header("Content-Encoding", "gzip")
    }

    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    pub fn bytes(&self, address: SocketAddr) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", self.method, self.path).into_bytes();
        if !self.headers.iter().any(|(name, _)| name == "Host") {
            out.extend_from_slice(format!("Host: {address}\r\n").as_bytes());
        }
        for (name, value) in &self.headers {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if self.chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in self.body.chunks(1000) {
                out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                out.extend_from_slice(chunk);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"0\r\n\r\n");
        } else {
            out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", self.body.len()).as_bytes());
            out.extend_from_slice(&self.body);
        }
        out
    }
}

pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).expect("memory");
    encoder.finish().expect("memory")
}

#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// 0 if the connection closed without one.
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads one answer to the connection's end.
    pub async fn read(stream: &mut TcpStream) -> Answer {
        let mut bytes = Vec::new();
        // A reset after the answer is as good as an end.
        let _ = stream.read_to_end(&mut bytes).await;
        Self::parse(&bytes)
    }

    pub fn parse(bytes: &[u8]) -> Answer {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Answer::default() };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).unwrap_or(0);
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        Answer { status, headers: headers.collect(), body: bytes[end + 4..].to_vec() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}
