//! `ingest.*`: the gateway over the embedded log, without folds, against a bare server that does nothing but keep the bytes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::net::TcpListener;

use super::figure::{FSYNC, Figure};
use super::load::{self, Measured, Pace, Shape};
use super::{floor, on_own_thread};
use crate::channels::bots::Rules;
use crate::channels::link::Keys;
use crate::domain::{Namespace, SourceId, Subject, TenantId};
use crate::env::SystemClock;
use crate::env::fs::RealFs;
use crate::gateway::{self, Clocked, ProfileAnswer, ProfileReader, Readiness, Reason, Source, Sources};
use crate::limits::Limits;
use crate::log::embedded::{EmbeddedLog, Options};
use crate::stream::{Partitions, Topics};

const CONNECTIONS: usize = 128;
const EVENT_BYTES: usize = 400;
/// How long the rate is looked for that `ingest.latency` halves, where `ingest.b1` itself was not asked for.
const RATE_LOOK: Duration = Duration::from_secs(4);
const WRITE_KEY: &str = "bench";

/// The load: (figure, events a request, compressed).
const LOADS: &[(&str, usize, bool)] =
    &[("ingest.b1", 1, false), ("ingest.b10", 10, false), ("ingest.b100", 100, false), ("ingest.b100.gzip", 100, true)];

pub async fn run(dir: &Path, only: &dyn Fn(&str) -> bool, time: Duration, print: &dyn Fn(&Figure)) -> anyhow::Result<()> {
    let ours = Gateway::start(&dir.join("ours")).await?;
    let (bare, bare_server) = floor::bare_server(dir).await?;
    for (name, events, gzip) in LOADS {
        let wants_latency = *name == "ingest.b1" && only("ingest.latency");
        if !only(name) && !wants_latency {
            continue;
        }
        let shape = Shape { events: *events, event_bytes: EVENT_BYTES, gzip: *gzip, users: 100_000 };
        // In pairs, in one run: the machine's mood is the same for both. Only to know the rate, a short look is enough.
        let closed = if only(name) { time } else { time.min(RATE_LOOK) };
        let floor = measure(bare, shape, Pace::Closed, closed).await?;
        let measured = measure(ours.address, shape, Pace::Closed, closed).await?;
        let rate = |measured: &Measured| measured.per_second() * *events as f64;
        let setup = format!(
            "{CONNECTIONS} connections, {EVENT_BYTES}-byte events, batches of {events}{}, burst of {} s, p99 {:.1} ms",
            if *gzip { ", gzip" } else { "" },
            time.as_secs(),
            measured.millis_at(0.99),
        );
        if only(name) {
            let figure = Figure::new(*name, rate(&measured), "events/s", FSYNC, setup);
            // The bare server keeps compressed bodies as they are, which is no floor for reading them.
            print(&if *gzip { figure } else { figure.against(rate(&floor)) });
        }
        if wants_latency {
            let pace = Pace::Open(measured.per_second() / 2.0);
            let floor = measure(bare, shape, pace, time).await?;
            let paced = measure(ours.address, shape, pace, time).await?;
            let setup = format!(
                "open loop at {:.0} requests/s, {} s, p50 {:.1} ms",
                measured.per_second() / 2.0,
                time.as_secs(),
                paced.millis_at(0.5)
            );
            print(&Figure::new("ingest.latency", paced.millis_at(0.99), "ms p99", FSYNC, setup).against(floor.millis_at(0.99)));
        }
    }
    bare_server.abort();
    ours.stop().await
}

async fn measure(address: SocketAddr, shape: Shape, pace: Pace, time: Duration) -> anyhow::Result<Measured> {
    let request = load::batch_request(&address.to_string(), WRITE_KEY, shape);
    on_own_thread(move || async move {
        let numbers = Arc::new(AtomicU64::new(0));
        load::run(address, &request, CONNECTIONS, pace, time, &numbers).await
    })
    .await
}

/// A gateway over an embedded log, with nobody reading behind it.
struct Gateway {
    address: SocketAddr,
    log: Arc<EmbeddedLog>,
    stop: tokio::sync::oneshot::Sender<()>,
    served: tokio::task::JoinHandle<Result<(), gateway::Error>>,
}

impl Gateway {
    async fn start(dir: &Path) -> anyhow::Result<Self> {
        let clock = Arc::new(SystemClock);
        let log = EmbeddedLog::open(Arc::new(RealFs), dir, Options::default(), clock.clone())?;
        let namespace = Namespace::new("bench")?;
        Topics::create(&*log, &namespace, Partitions::default())?;
        let mut sources = Sources::default();
        let source =
            Source { tenant: TenantId::new("bench")?, namespace: namespace.clone(), source: SourceId::new("bench")?, disabled: false };
        sources.write_keys.insert(WRITE_KEY.to_owned(), source);
        sources.namespaces.insert(namespace, Clocked::Wall);
        let options = gateway::Options::default();
        let limits = Limits::local(options.tenant_requests_per_s, options.tenant_burst);
        let app = gateway::App {
            limits: Arc::new(limits),
            takes_requests: true,
            log: log.clone(),
            clock,
            profiles: Arc::new(Nobody),
            campaigns: Arc::new(Nobody),
            links: gateway::Links {
                base: String::new(),
                keys: Keys::new("bench", [("bench".to_owned(), vec![0; 32])])?,
                bots: Arc::new(Rules::shipped().clone()),
            },
            readiness: Arc::new(Nobody),
            metrics: None,
            sources,
            options,
            extra: None,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let until = async {
            // Dropped or told: either ends it.
            let _ = stopped.await;
        };
        let served = tokio::spawn(gateway::serve(listener, app, until));
        Ok(Self { address, log, stop, served })
    }

    async fn stop(self) -> anyhow::Result<()> {
        drop(self.stop);
        self.served.await??;
        self.log.close();
        Ok(())
    }
}

/// No profiles, always ready.
struct Nobody;

impl ProfileReader for Nobody {
    fn profile<'a>(&'a self, _: &'a Namespace, _: &'a TenantId, _: &'a Subject) -> ProfileAnswer<'a> {
        Box::pin(async { Ok(None) })
    }
}

impl gateway::Campaigns for Nobody {}

impl Readiness for Nobody {
    fn not_ready(&self) -> Vec<Reason> {
        Vec::new()
    }

    fn degraded(&self) -> Vec<Reason> {
        Vec::new()
    }

    fn intake_lag_ms(&self, _: &Namespace) -> u64 {
        0
    }
}
