//! The whole product in one process: the log, the gateway before it, then state and every namespace; stopped in the reverse order.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use super::campaigns::Runs;
use super::links::links;
use super::world::{Plan, Vitals, World};
use super::{Contact, Error, Folder, admin, plans};
use crate::config::{Config, DEVELOPMENT_WRITE_KEY};
use crate::domain::{Namespace, Subject, TenantId};
use crate::engine::effects::{Known, Templates};
use crate::env::fs::RealFs;
use crate::env::{Clock, SystemClock};
use crate::gateway::{self, Access, Clocked, ProfileAnswer, ProfileReader, ReadError, Readiness, Reason, Source, Sources};
use crate::log::embedded::{self, EmbeddedLog};
use crate::log::{Advice, LogWriter};
use crate::projections::{self, Reader};
use crate::state::{self, FjallStore, StateStore};
use crate::stream::{NamespaceClock, Topics};

/// How often metrics are brought up to date that nobody counts as it happens.
const MEASURE_EVERY: Duration = Duration::from_secs(5);
/// Connections that may wait to be accepted, as far as the system lets them (`net.core.somaxconn`).
const ACCEPT_QUEUE: u32 = 4096;
/// Between two tries to open the state on a full disk, and how many of them make a line.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);
const FULL_DISK_LINE_EVERY: u64 = 10;
/// How often a running server looks whether one of its loops has given up.
const VITALS_EVERY: Duration = Duration::from_millis(250);

/// What everything stands on: the log, recovered and open, the clock, the folder, the settings.
#[derive(Clone)]
pub struct Ground {
    pub log: Arc<EmbeddedLog>,
    pub clock: Arc<dyn Clock>,
    pub folder: Folder,
    config: Config,
}

impl Ground {
    fn open_state(&self) -> Result<Arc<dyn StateStore>, Error> {
        let begun = self.clock.now();
        let (state, opened) = FjallStore::open_or_rebuild(&self.folder.state(), self.config.state.clone())?;
        if let state::Opened::Rebuilt { moved_to, reason } = opened {
            tracing::warn!(%reason, moved_to = %moved_to.display(), "the state would not open and is rebuilt from the log");
        }
        tracing::info!(state_ms = self.clock.now().since_ms(begun), "the state is open");
        Ok(Arc::new(state))
    }
}

/// A folder whose log is open and whose namespaces are known, which is all that acknowledging needs. State and folds come next, and may
/// take a while: the state store has a journal to read, the folds what was not stored.
pub struct Opened {
    pub ground: Ground,
    plans: Vec<Plan>,
}

impl Opened {
    /// Opens the log, and makes every namespace that is configured or already there ready to be appended to.
    pub fn open(config: &Config) -> Result<Self, Error> {
        Self::open_with(config, None)
    }

    /// The same with one more namespace, under a topology of the caller's.
    pub fn open_with(config: &Config, more: Option<Plan>) -> Result<Self, Error> {
        let folder = Folder::new(&config.data.dir);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let options = embedded::Options {
            wal_bytes: config.log.wal_bytes,
            tail_bytes_max: config.log.tail_bytes_max,
            queue_bytes_max: config.log.queue_bytes_max,
            ..embedded::Options::default()
        };
        std::fs::create_dir_all(folder.root()).map_err(|error| Error::folder(&folder, &error))?;
        let begun = clock.now();
        let log = EmbeddedLog::open(Arc::new(RealFs), &folder.log(), options, Arc::clone(&clock))?;
        let opened = clock.now();
        let plans = plans::of(config, &*log, more)?;
        for plan in &plans {
            Topics::make(&*log, &plan.namespace, plan.clock, plan.partitions)?;
        }
        tracing::info!(log_ms = opened.since_ms(begun), namespaces_ms = clock.now().since_ms(opened), "the log is open");
        Ok(Self { ground: Ground { log, clock, folder, config: config.clone() }, plans })
    }

    pub fn namespaces(&self) -> Vec<(Namespace, NamespaceClock)> {
        self.plans.iter().map(|plan| (plan.namespace.clone(), plan.clock)).collect()
    }

    /// Opens the state and starts every namespace.
    pub fn start(self) -> Result<Engine, Error> {
        let state = self.ground.open_state()?;
        self.start_on(state)
    }

    /// Starts every namespace on a state that is open.
    fn start_on(self, state: Arc<dyn StateStore>) -> Result<Engine, Error> {
        let Ground { log, clock, folder, config } = self.ground;
        let begun = clock.now();
        let mut engine = Engine { log, clock, folder, worlds: Vec::new(), state, config };
        for plan in self.plans {
            let copied = engine.log.copied();
            let world = World::start(plan, &engine.log, &engine.state, &engine.clock, &engine.folder, &engine.config, copied)?;
            engine.worlds.push(world);
        }
        tracing::info!(folds_ms = engine.clock.now().since_ms(begun), "folds and projectors run");
        Ok(engine)
    }
}

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
        Opened::open(config)?.start()
    }

    /// The same with one more namespace, under a topology of the caller's.
    pub fn start_with(config: &Config, more: Option<Plan>) -> Result<Self, Error> {
        Opened::open_with(config, more)?.start()
    }

    fn ground(&self) -> Ground {
        let (log, clock) = (Arc::clone(&self.log), Arc::clone(&self.clock));
        Ground { log, clock, folder: self.folder.clone(), config: self.config.clone() }
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

/// A gateway that takes events while the engine behind it is still starting: not ready, but acknowledging.
pub struct Edge {
    pub address: SocketAddr,
    folder: Folder,
    gateway: JoinHandle<Result<(), gateway::Error>>,
    shutdown: tokio::sync::watch::Sender<bool>,
    /// Of every namespace, once they run.
    vitals: Arc<OnceLock<Vec<Vitals>>>,
}

impl Edge {
    /// The listener is bound before this returns.
    pub async fn open(
        ground: &Ground,
        namespaces: &[(Namespace, NamespaceClock)],
        metrics: Option<PrometheusHandle>,
    ) -> Result<Self, Error> {
        let Ground { log, clock, folder, config } = ground.clone();
        let listener = listen(&config.server.listen).await.map_err(|error| Error::Listen(config.server.listen.clone(), error))?;
        let address = listener.local_addr().map_err(|error| Error::Listen(config.server.listen.clone(), error))?;
        if config.sources.is_empty() && !address.ip().is_loopback() {
            return Err(Error::DevelopmentKeyInPublic(address));
        }
        if super::links::configured(&config).is_none() && !address.ip().is_loopback() {
            tracing::warn!(
                "links.base_url is empty, so links in messages lead to this machine only, and mail programs offer no one-click unsubscribing: \
                 set it to the https address at which this server is reached from outside"
            );
        }
        let token = uuid::Uuid::new_v4().simple().to_string();
        let contact = Contact { pid: std::process::id(), url: format!("http://{address}"), admin_token: token.clone() };
        folder.write_contact(&contact).map_err(|error| Error::folder(&folder, &error))?;
        let vitals: Arc<OnceLock<Vec<Vitals>>> = Arc::default();
        let templates = Templates::load(&config.channels.templates.0).and_then(Templates::all_sound);
        let templates = templates.map_err(|error| Error::Templates(error.to_string()))?;
        let performers = Known::performers(&config.effects, &config.channels, "on this server", true);
        let app = gateway::App {
            log: Arc::clone(&log) as _,
            clock: Arc::clone(&clock),
            profiles: Arc::new(Profiles::of(&folder, namespaces)),
            campaigns: Arc::new(Runs::of(&log, &clock, &folder, namespaces, (templates, performers))?),
            links: links(&config, &folder, &contact.url)?,
            readiness: Arc::new(Health { log: Arc::clone(&log) as _, vitals: Arc::clone(&vitals), clock }),
            metrics,
            sources: Sources {
                owner: Some(gateway::Owner { token: token.clone(), listening: address.ip() }),
                ..sources(&config, namespaces)
            },
            options: config.gateway.clone(),
            extra: Some(admin::router(log, token, address.ip())),
        };
        let (shutdown, mut asked) = tokio::sync::watch::channel(false);
        let stop = async move {
            // The sender's end is as good a reason to stop as its word.
            let _ = asked.wait_for(|stop| *stop).await;
        };
        let gateway = tokio::spawn(gateway::serve(listener, app, stop));
        Ok(Self { address, folder, gateway, shutdown, vitals })
    }

    /// Starts state and folds behind the listener and serves until `until` resolves or something gives up.
    pub async fn run(self, opened: Opened, until: impl Future<Output = ()>) -> Result<(), Error> {
        let mut until = std::pin::pin!(until);
        let ground = opened.ground.clone();
        let state = match self.open_state(&ground, until.as_mut()).await {
            Ok(Some(state)) => state,
            ended => {
                let closed = self.close().await;
                ground.log.close();
                return ended.map(|_| ()).and(closed);
            }
        };
        // Who asks for a stop meanwhile is heard when the folds have started, which is soon.
        let started = tokio::task::spawn_blocking(move || opened.start_on(state)).await;
        match started.unwrap_or_else(|error| Err(Error::Stopped(error.to_string()))) {
            Ok(engine) => self.serve(engine).run(until).await,
            Err(error) => {
                let closed = self.close().await;
                ground.log.close();
                Err::<(), Error>(error).and(closed)
            }
        }
    }

    /// The state, waited for while the disk is full: what is acknowledged is safe in the log. `None` if `until` resolves first.
    async fn open_state(
        &self,
        ground: &Ground,
        mut until: std::pin::Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Option<Arc<dyn StateStore>>, Error> {
        for tried in 0u64.. {
            let here = ground.clone();
            let opened = tokio::task::spawn_blocking(move || here.open_state()).await;
            match opened.unwrap_or_else(|error| Err(Error::Stopped(error.to_string()))) {
                Err(Error::State(state::Error::NoSpace)) => {}
                opened => return opened.map(Some),
            }
            if tried.is_multiple_of(FULL_DISK_LINE_EVERY) {
                tracing::warn!("the disk is full, so the state cannot be opened: make room, it is tried again every second");
            }
            tokio::select! {
                () = until.as_mut() => return Ok(None),
                () = tokio::time::sleep(FULL_DISK_PAUSE) => {}
            }
        }
        Ok(None)
    }

    /// The engine runs: nothing is starting from here on.
    pub fn serve(self, engine: Engine) -> Server {
        // Nobody else sets them.
        let _ = self.vitals.set(engine.worlds.iter().map(World::vitals).collect());
        let cleaner = tokio::spawn(clean(Arc::clone(&engine.log), Arc::clone(&engine.clock), engine.config.log.clean_interval_s));
        let measurer = tokio::spawn(measure(Arc::clone(&engine.log)));
        Server { engine, address: self.address, edge: self, cleaner, measurer }
    }

    /// Drains requests.
    pub async fn close(self) -> Result<(), Error> {
        self.shutdown.send_replace(true);
        let served = self.gateway.await;
        self.folder.remove_contact();
        Ok(served.map_err(|error| Error::Stopped(format!("the gateway ended badly: {error}")))??)
    }
}

/// An engine behind a gateway.
pub struct Server {
    pub engine: Engine,
    pub address: SocketAddr,
    edge: Edge,
    cleaner: JoinHandle<()>,
    measurer: JoinHandle<()>,
}

impl Server {
    /// Serves `engine`; the listener is bound before this returns.
    pub async fn start(engine: Engine, metrics: Option<PrometheusHandle>) -> Result<Self, Error> {
        let namespaces: Vec<_> = engine.worlds.iter().map(|world| (world.namespace.clone(), world.clock)).collect();
        Ok(Edge::open(&engine.ground(), &namespaces, metrics).await?.serve(engine))
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
                if self.edge.gateway.is_finished() {
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
        let served = self.edge.close().await;
        self.cleaner.abort();
        self.measurer.abort();
        let engine = self.engine;
        let stopped = tokio::task::spawn_blocking(move || engine.stop()).await;
        stopped.unwrap_or_else(|error| Err(Error::Stopped(error.to_string())))?;
        served
    }
}

/// Binds with a longer queue than the library's: connections that come all at once, as after a deploy of their clients, otherwise find it full,
/// and the kernel makes them wait a second.
async fn listen(address: &str) -> std::io::Result<TcpListener> {
    let mut last = None;
    for address in tokio::net::lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(ACCEPT_QUEUE)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidInput, "it names no address")))
}

async fn measure(log: Arc<EmbeddedLog>) {
    let mut every = tokio::time::interval(MEASURE_EVERY);
    loop {
        every.tick().await;
        log.measure();
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

fn sources(config: &Config, namespaces: &[(Namespace, NamespaceClock)]) -> Sources {
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
    for (namespace, clock) in namespaces {
        let clocked = match clock {
            NamespaceClock::Wall => Clocked::Wall,
            NamespaceClock::Event => Clocked::Event,
        };
        sources.namespaces.insert(namespace.clone(), clocked);
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
    fn of(folder: &Folder, namespaces: &[(Namespace, NamespaceClock)]) -> Self {
        let reader = |(namespace, _): &(Namespace, NamespaceClock)| (namespace.clone(), Reader::new(&folder.read(), namespace));
        Self(namespaces.iter().map(reader).collect())
    }
}

impl ProfileReader for Profiles {
    fn profile<'a>(&'a self, namespace: &'a Namespace, tenant: &'a TenantId, subject: &'a Subject) -> ProfileAnswer<'a> {
        Box::pin(async move {
            let Some(reader) = self.0.get(namespace) else { return Ok(None) };
            match reader.profile(tenant, subject).await {
                Ok(profile) => Ok(profile.map(|profile| profile.to_string())),
                // A new folder has none for a moment, a restored one until it is built.
                Err(projections::Error::Missing(_)) => Err(ReadError::NotYet),
                Err(error) => Err(ReadError::Failed(error.to_string())),
            }
        })
    }
}

struct Health {
    log: Arc<dyn LogWriter>,
    vitals: Arc<OnceLock<Vec<Vitals>>>,
    clock: Arc<dyn Clock>,
}

impl Readiness for Health {
    fn not_ready(&self) -> Vec<Reason> {
        let log = self.log.health().err().map(|error| Reason { component: "log".to_owned(), reason: error.to_string() });
        log.into_iter().collect()
    }

    fn degraded(&self) -> Vec<Reason> {
        let Some(vitals) = self.vitals.get() else {
            let reason = "state and folds are starting; events are taken meanwhile".to_owned();
            return vec![Reason { component: "stream".to_owned(), reason }];
        };
        vitals.iter().flat_map(Vitals::degraded).collect()
    }

    fn intake_lag_ms(&self, namespace: &Namespace) -> u64 {
        // What is not known yet is not small.
        let Some(vitals) = self.vitals.get() else { return u64::MAX };
        let vitals = vitals.iter().find(|vitals| vitals.namespace == *namespace);
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
        server.edge.gateway.abort();
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
    async fn a_profile_asked_for_before_there_is_a_read_model_is_not_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let main = Namespace::new("main").unwrap();
        let profiles = Profiles::of(&Folder::new(dir.path()), &[(main.clone(), NamespaceClock::Wall)]);
        let tenant = TenantId::new("default").unwrap();
        assert_eq!(profiles.profile(&main, &tenant, &Subject::user("ada")).await, Err(ReadError::NotYet));
    }

    #[tokio::test]
    async fn what_is_starting_is_degraded_and_ready() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(&dir).await;
        let health = Health { log: Arc::clone(&server.engine.log) as _, vitals: Arc::default(), clock: Arc::clone(&server.engine.clock) };
        assert_eq!((health.not_ready(), health.degraded().len()), (Vec::new(), 1));
    }

    #[tokio::test]
    async fn a_log_that_takes_nothing_is_not_ready() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(&dir).await;
        let log = Arc::clone(&server.engine.log);
        let health =
            Health { log: Arc::clone(&log) as _, vitals: Arc::new(OnceLock::from(Vec::new())), clock: Arc::clone(&server.engine.clock) };
        assert_eq!(health.not_ready(), []);
        log.close();
        let reasons = health.not_ready();
        assert_eq!((reasons.len(), reasons[0].component.as_str()), (1, "log"));
    }
}
