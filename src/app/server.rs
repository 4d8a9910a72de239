//! The whole product in one process: the log, the gateway before it, then state and every namespace; stopped in the reverse order.
//!
//! `edge` has the gateway, `engine` everything behind it; here they are watched, kept clean and stopped together.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::JoinHandle;

use super::Error;
use super::backend::OpenLog;
use super::edge::Edge;
use super::engine::Engine;
use super::vitals::Vitals;
use super::world::World;
use crate::env::Clock;
use crate::log::{Advice, LogWriter};

/// How often metrics are brought up to date that nobody counts as it happens.
const MEASURE_EVERY: Duration = Duration::from_secs(5);
/// How often a running server looks whether one of its loops has given up.
const VITALS_EVERY: Duration = Duration::from_millis(250);

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

    /// From here on nothing is starting.
    pub(super) fn of(edge: Edge, engine: Engine) -> Self {
        edge.know(engine.worlds.iter().map(World::vitals).collect());
        let cleaner = tokio::spawn(clean(Arc::clone(&engine.log), Arc::clone(&engine.clock), engine.config.log.clean_interval_s));
        let measurer = tokio::spawn(measure(engine.opened.clone()));
        Server { engine, address: edge.address, edge, cleaner, measurer }
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
                if self.edge.has_ended() {
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

async fn measure(log: OpenLog) {
    let mut every = tokio::time::interval(MEASURE_EVERY);
    loop {
        every.tick().await;
        log.measure();
    }
}

async fn clean(log: Arc<dyn LogWriter>, clock: Arc<dyn Clock>, interval_s: u64) {
    let mut every = tokio::time::interval(Duration::from_secs(interval_s.max(1)));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let (log, now) = (Arc::clone(&log), clock.now());
        let cleaned = tokio::task::spawn_blocking(move || log.clean(now)).await;
        match cleaned {
            Ok(Ok(0)) => {}
            Ok(Ok(bytes)) => tracing::info!(bytes, "retention and compaction freed space"),
            Ok(Err(error)) => tracing::warn!(%error, "retention and compaction failed; they are tried again"),
            Err(error) => tracing::error!(%error, "retention and compaction panicked; they are tried again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

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
        server.edge.abort();
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
}
