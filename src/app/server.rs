//! The whole product in one process: log, state, every namespace, the gateway; started in that order and stopped in the reverse one.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::world::{Plan, Vitals, World};
use super::{Contact, Error, Folder, admin, plans};
use crate::config::{Config, DEVELOPMENT_WRITE_KEY};
use crate::domain::{Namespace, Subject, TenantId};
use crate::env::fs::RealFs;
use crate::env::{Clock, SystemClock};
use crate::gateway::{self, Access, Clocked, NotReady, ProfileAnswer, ProfileReader, Readiness, Source, Sources};
use crate::log::embedded::{self, EmbeddedLog};
use crate::log::{Advice, LogWriter};
use crate::projections::Reader;
use crate::state::{FjallStore, Opened, StateStore};
use crate::stream::NamespaceClock;

/// How often a running server looks whether one of its loops has given up.
const VITALS_EVERY: Duration = Duration::from_millis(250);

/// Everything but the gateway: what benchmarks and the demonstration drive directly.
pub struct Engine {
    pub log: Arc<EmbeddedLog>,
    pub clock: Arc<dyn Clock>,
    pub folder: Folder,
    pub worlds: Vec<World>,
    state: Arc<dyn StateStore>,
    config: Config,
}

impl Engine {
    /// Opens the folder and starts every namespace that is configured or already there.
    pub fn start(config: &Config) -> Result<Self, Error> {
        Self::start_with(config, None)
    }

    /// The same with one more namespace, under a topology of the caller's.
    pub fn start_with(config: &Config, more: Option<Plan>) -> Result<Self, Error> {
        let folder = Folder::new(&config.data.dir);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let options = embedded::Options {
            wal_bytes: config.log.wal_bytes,
            tail_bytes_max: config.log.tail_bytes_max,
            queue_bytes_max: config.log.queue_bytes_max,
            ..embedded::Options::default()
        };
        std::fs::create_dir_all(folder.root()).map_err(|error| Error::folder(&folder, &error))?;
        let log = EmbeddedLog::open(Arc::new(RealFs), &folder.log(), options, Arc::clone(&clock))?;
        let (state, opened) = FjallStore::open_or_rebuild(&folder.state(), config.state.clone())?;
        if let Opened::Rebuilt { moved_to, reason } = opened {
            tracing::warn!(%reason, moved_to = %moved_to.display(), "the state would not open and is rebuilt from the log");
        }
        let state: Arc<dyn StateStore> = Arc::new(state);
        let mut engine = Self { log, clock, folder, worlds: Vec::new(), state, config: config.clone() };
        for plan in plans::of(config, &*engine.log, more)? {
            let world = World::start(plan, &engine.log, &engine.state, &engine.clock, &engine.folder, &config.stream)?;
            engine.worlds.push(world);
        }
        Ok(engine)
    }

    pub fn world(&self, namespace: &str) -> Option<&World> {
        self.worlds.iter().find(|world| world.namespace.as_str() == namespace)
    }

    /// Commits what is under way, flushes all state, closes the log.
    pub fn stop(self) -> Result<(), Error> {
        let mut result = Ok(());
        for world in self.worlds {
            let stopped = world.stop();
            if result.is_ok() {
                result = stopped;
            }
        }
        self.log.close();
        result
    }
}

/// An engine behind a gateway.
pub struct Server {
    pub engine: Engine,
    pub address: SocketAddr,
    gateway: JoinHandle<Result<(), gateway::Error>>,
    shutdown: tokio::sync::watch::Sender<bool>,
    cleaner: JoinHandle<()>,
}

impl Server {
    /// Serves `engine`; the listener is bound before this returns.
    pub async fn start(engine: Engine, metrics: Option<PrometheusHandle>) -> Result<Self, Error> {
        let config = engine.config.clone();
        let listener =
            TcpListener::bind(&config.server.listen).await.map_err(|error| Error::Listen(config.server.listen.clone(), error))?;
        let address = listener.local_addr().map_err(|error| Error::Listen(config.server.listen.clone(), error))?;
        if config.sources.is_empty() && !address.ip().is_loopback() {
            return Err(Error::DevelopmentKeyInPublic(address));
        }
        let token = uuid::Uuid::new_v4().simple().to_string();
        let contact = Contact { pid: std::process::id(), url: format!("http://{address}"), admin_token: token.clone() };
        engine.folder.write_contact(&contact).map_err(|error| Error::folder(&engine.folder, &error))?;
        let vitals: Vec<Vitals> = engine.worlds.iter().map(World::vitals).collect();
        let app = gateway::App {
            log: Arc::clone(&engine.log) as _,
            clock: Arc::clone(&engine.clock),
            profiles: Arc::new(Profiles::of(&engine)),
            readiness: Arc::new(Health { log: Arc::clone(&engine.log) as _, vitals, clock: Arc::clone(&engine.clock) }),
            metrics,
            sources: sources(&config, &engine.worlds),
            options: config.gateway.clone(),
            extra: Some(admin::router(Arc::clone(&engine.log) as _, token)),
        };
        let (shutdown, mut asked) = tokio::sync::watch::channel(false);
        let stop = async move {
            // The sender's end is as good a reason to stop as its word.
            let _ = asked.wait_for(|stop| *stop).await;
        };
        let gateway = tokio::spawn(gateway::serve(listener, app, stop));
        let cleaner = tokio::spawn(clean(Arc::clone(&engine.log), Arc::clone(&engine.clock), config.log.clean_interval_s));
        Ok(Self { engine, address, gateway, shutdown, cleaner })
    }

    /// Serves until `until` resolves, a loop gives up or the gateway ends, then stops in order.
    pub async fn run(self, until: impl Future<Output = ()>) -> Result<(), Error> {
        let vitals: Vec<Vitals> = self.engine.worlds.iter().map(World::vitals).collect();
        let failed = async {
            let mut every = tokio::time::interval(VITALS_EVERY);
            loop {
                every.tick().await;
                if let Some(failure) = vitals.iter().find_map(Vitals::failure) {
                    return failure;
                }
                // No append will succeed again, while nothing that waits for one to come would notice.
                if let Some(error) = self.engine.log.health().err().filter(|error| error.advice() == Advice::Fatal) {
                    return error.to_string();
                }
                // It ends when told to, which is not yet. Without it nothing listens, and nobody would come to see why.
                if self.gateway.is_finished() {
                    return "the gateway has ended by itself".to_owned();
                }
            }
        };
        let failure = tokio::select! {
            () = until => None,
            failure = failed => Some(failure),
        };
        let stopped = self.stop().await;
        match (failure, stopped) {
            (Some(failure), Ok(())) => Err(Error::Stopped(failure)),
            (Some(failure), Err(error)) => Err(Error::Stopped(format!("{failure}; {error}"))),
            (None, stopped) => stopped,
        }
    }

    /// Drains requests, then folds, flushes and closes.
    pub async fn stop(self) -> Result<(), Error> {
        self.shutdown.send_replace(true);
        let served = self.gateway.await;
        self.cleaner.abort();
        self.engine.folder.remove_contact();
        let engine = self.engine;
        let stopped = tokio::task::spawn_blocking(move || engine.stop()).await;
        stopped.unwrap_or_else(|error| Err(Error::Stopped(error.to_string())))?;
        Ok(served.map_err(|error| Error::Stopped(format!("the gateway ended badly: {error}")))??)
    }
}

async fn clean(log: Arc<EmbeddedLog>, clock: Arc<dyn Clock>, interval_s: u64) {
    let mut every = tokio::time::interval(Duration::from_secs(interval_s.max(1)));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let (log, now) = (Arc::clone(&log), clock.now());
        let cleaned = tokio::task::spawn_blocking(move || crate::log::LogWriter::clean(&*log, now)).await;
        match cleaned {
            Ok(Ok(0)) => {}
            Ok(Ok(bytes)) => tracing::info!(bytes, "retention and compaction freed space"),
            Ok(Err(error)) => tracing::warn!(%error, "retention and compaction failed; they are tried again"),
            Err(error) => tracing::error!(%error, "retention and compaction panicked; they are tried again"),
        }
    }
}

fn sources(config: &Config, worlds: &[World]) -> Sources {
    let mut sources = Sources::default();
    for source in config.sources_or_development() {
        if config.sources.is_empty() {
            sources.keyless = Some(Access { tenant: source.tenant.clone(), namespace: source.namespace.clone() });
        }
        let entry = Source { tenant: source.tenant, namespace: source.namespace, source: source.name, disabled: source.disabled };
        sources.write_keys.insert(source.write_key, entry);
    }
    for key in &config.api_keys {
        sources.api_keys.insert(key.api_key.clone(), Access { tenant: key.tenant.clone(), namespace: key.namespace.clone() });
    }
    for world in worlds {
        let clocked = match world.clock {
            NamespaceClock::Wall => Clocked::Wall,
            NamespaceClock::Event => Clocked::Event,
        };
        sources.namespaces.insert(world.namespace.clone(), clocked);
    }
    sources
}

/// Whether this server still takes the key that needs no configuration.
pub fn takes_development_key(config: &Config) -> Option<&'static str> {
    config.sources.is_empty().then_some(DEVELOPMENT_WRITE_KEY)
}

/// Profiles from the read models.
struct Profiles(BTreeMap<Namespace, Reader>);

impl Profiles {
    fn of(engine: &Engine) -> Self {
        let reader = |world: &World| (world.namespace.clone(), Reader::new(&engine.folder.read(), &world.namespace));
        Self(engine.worlds.iter().map(reader).collect())
    }
}

impl ProfileReader for Profiles {
    fn profile<'a>(&'a self, namespace: &'a Namespace, tenant: &'a TenantId, subject: &'a Subject) -> ProfileAnswer<'a> {
        Box::pin(async move {
            let Some(reader) = self.0.get(namespace) else { return Ok(None) };
            match reader.profile(tenant, subject).await {
                Ok(profile) => Ok(profile.map(|profile| profile.to_string())),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

struct Health {
    log: Arc<dyn LogWriter>,
    vitals: Vec<Vitals>,
    clock: Arc<dyn Clock>,
}

impl Readiness for Health {
    fn not_ready(&self) -> Vec<NotReady> {
        let log = self.log.health().err().map(|error| NotReady { component: "log".to_owned(), reason: error.to_string() });
        log.into_iter().chain(self.vitals.iter().flat_map(Vitals::not_ready)).collect()
    }

    fn intake_lag_ms(&self, namespace: &Namespace) -> u64 {
        let vitals = self.vitals.iter().find(|vitals| vitals.namespace == *namespace);
        vitals.map_or(0, |vitals| vitals.intake_lag_ms(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn server(dir: &tempfile::TempDir) -> Server {
        let mut config = Config::default();
        config.data.dir = dir.path().to_owned();
        config.server.listen = "127.0.0.1:0".to_owned();
        let engine = tokio::task::spawn_blocking(move || Engine::start(&config)).await.unwrap().unwrap();
        Server::start(engine, None).await.unwrap()
    }

    #[tokio::test]
    async fn a_server_whose_gateway_ends_stops_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(&dir).await;
        server.gateway.abort();
        let ended = server.run(std::future::pending()).await;
        assert!(matches!(&ended, Err(Error::Stopped(why)) if why.contains("gateway")), "{ended:?}");
    }

    #[tokio::test]
    async fn a_server_whose_log_has_failed_stops_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(&dir).await;
        server.engine.log.close();
        let ended = server.run(std::future::pending()).await;
        assert!(matches!(&ended, Err(Error::Stopped(why)) if why.contains("log is closed")), "{ended:?}");
    }

    #[tokio::test]
    async fn a_log_that_takes_nothing_is_not_ready() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(&dir).await;
        let log = Arc::clone(&server.engine.log);
        let health = Health { log: Arc::clone(&log) as _, vitals: Vec::new(), clock: Arc::clone(&server.engine.clock) };
        assert_eq!(health.not_ready(), []);
        log.close();
        let reasons = health.not_ready();
        assert_eq!((reasons.len(), reasons[0].component.as_str()), (1, "log"));
    }
}
