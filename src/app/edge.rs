//! The gateway of this process: bound and answering before state and folds are there, joined with the engine once they are.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use super::campaigns::Runs;
use super::engine::{Engine, Ground, Opened};
use super::health::{Health, Profiles};
use super::links::links;
use super::server::Server;
use super::vitals::Vitals;
use super::{Contact, Error, Folder, admin};
use crate::config::{Config, DEVELOPMENT_WRITE_KEY, Role};
use crate::domain::Namespace;
use crate::engine::effects::{Known, Templates};
use crate::gateway::{self, Access, Clocked, Source, Sources};
use crate::limits::{self, Limits};
use crate::state::{self, StateStore};
use crate::stream::NamespaceClock;

/// Connections that may wait to be accepted, as far as the system lets them (`net.core.somaxconn`).
const ACCEPT_QUEUE: u32 = 4096;
/// Between two tries to open the state on a full disk, and how many of them make a line.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);
const FULL_DISK_LINE_EVERY: u64 = 10;
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
        let Ground { log, clock, folder, config, .. } = ground.clone();
        let place = super::read_models(&config)?;
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
            profiles: Arc::new(Profiles::of(&place, namespaces)),
            campaigns: Arc::new(Runs::of(&log, &clock, &place, namespaces, (templates, performers))?),
            links: links(&config, &folder, &contact.url)?,
            readiness: Arc::new(Health {
                log: Arc::clone(&log) as _,
                vitals: Arc::clone(&vitals),
                clock,
                // Who takes events is ready while they are kept; who does not is ready while its loops go on.
                needs_loops: !config.process.is(Role::Gateway),
            }),
            metrics,
            sources: Sources {
                owner: Some(gateway::Owner { token: token.clone(), listening: address.ip() }),
                ..sources(&config, namespaces)
            },
            limits: Arc::new(request_limits(&config).await?),
            options: config.gateway.clone(),
            takes_requests: config.process.is(Role::Gateway),
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
        Server::of(self, engine)
    }

    /// What is to be told of how every namespace is.
    pub(super) fn know(&self, vitals: Vec<Vitals>) {
        // Nobody else sets them.
        let _ = self.vitals.set(vitals);
    }

    /// It ends when told to; by itself only by a mistake of ours.
    pub(super) fn has_ended(&self) -> bool {
        self.gateway.is_finished()
    }

    #[cfg(test)]
    pub(super) fn abort(&self) {
        self.gateway.abort();
    }

    /// Drains requests.
    pub async fn close(self) -> Result<(), Error> {
        self.shutdown.send_replace(true);
        let served = self.gateway.await;
        self.folder.remove_contact();
        Ok(served.map_err(|error| Error::Stopped(format!("the gateway ended badly: {error}")))??)
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

/// Who counts requests: this process, or Redis for all gateways.
#[cfg(feature = "redis")]
async fn request_limits(config: &Config) -> Result<Limits, Error> {
    let (rate, burst) = (config.gateway.tenant_requests_per_s, config.gateway.tenant_burst);
    if config.redis.url.is_empty() {
        return Ok(Limits::local(rate, burst));
    }
    let redis = limits::Redis::new(&config.redis, rate, burst)?;
    match limits::check(&config.redis).await {
        // A wrong login does not heal by itself; a server that is not there yet does, and events are taken meanwhile.
        Err(error) if error.key != "redis.url" => return Err(error.into()),
        Err(error) => tracing::warn!(%error, "redis does not answer: request rates are counted by this process's share until it does"),
        Ok(()) => {}
    }
    Ok(Limits::Redis(redis))
}

#[cfg(not(feature = "redis"))]
async fn request_limits(config: &Config) -> Result<Limits, Error> {
    if config.redis.url.is_empty() {
        return Ok(Limits::local(config.gateway.tenant_requests_per_s, config.gateway.tenant_burst));
    }
    let detail = "is set, but this build knows nothing of Redis: build it with `--features redis`, or `cluster`".to_owned();
    Err(limits::Error { key: "redis.url", detail }.into())
}
