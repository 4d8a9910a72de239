//! The log, the state and every namespace that runs on them: what benchmarks and the demonstration drive directly, and what a server has
//! behind its gateway. No listener is here.

use std::sync::Arc;

use super::backend::OpenLog;
use super::world::{Plan, World};
use super::{Error, Folder, plans};
use crate::config::Config;
use crate::domain::Namespace;
use crate::env::{Clock, SystemClock};
use crate::log::LogWriter;
use crate::state::{self, FjallStore, StateStore};
use crate::stream::{NamespaceClock, Topics};

/// What everything stands on: the log, recovered and open, the clock, the folder, the settings.
#[derive(Clone)]
pub struct Ground {
    pub log: Arc<dyn LogWriter>,
    pub(super) opened: OpenLog,
    pub clock: Arc<dyn Clock>,
    pub folder: Folder,
    pub(super) config: Config,
}

impl Ground {
    /// The state store that is configured, open.
    ///
    /// # Errors
    /// Of the folder's: it is in use, or the disk is full. Of a cluster's: the key to change, after ten seconds at most.
    pub(super) fn open_state(&self) -> Result<Arc<dyn StateStore>, Error> {
        let begun = self.clock.now();
        let state = match self.config.state.backend {
            state::Backend::Fjall => self.open_state_folder()?,
            state::Backend::Cassandra => open_cassandra(&self.config)?,
        };
        tracing::info!(state_ms = self.clock.now().since_ms(begun), "the state is open");
        Ok(state)
    }

    fn open_state_folder(&self) -> Result<Arc<dyn StateStore>, Error> {
        let (state, opened) = FjallStore::open_or_rebuild(&self.folder.state(), self.config.state.fjall())?;
        if let state::Opened::Rebuilt { moved_to, reason } = opened {
            tracing::warn!(%reason, moved_to = %moved_to.display(), "the state would not open and is rebuilt from the log");
        }
        Ok(Arc::new(state))
    }
}

#[cfg(feature = "cassandra")]
fn open_cassandra(config: &Config) -> Result<Arc<dyn StateStore>, Error> {
    Ok(Arc::new(state::CassandraStore::open(&config.cassandra)?))
}

#[cfg(not(feature = "cassandra"))]
fn open_cassandra(_: &Config) -> Result<Arc<dyn StateStore>, Error> {
    let detail = "is cassandra, which this build knows nothing of: build it with `--features cassandra`, or `cluster`".to_owned();
    Err(state::Error::Refused { key: "state.backend", detail }.into())
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
        std::fs::create_dir_all(folder.root()).map_err(|error| Error::folder(&folder, &error))?;
        let begun = clock.now();
        let log = OpenLog::open(config, &folder, &clock)?;
        let opened = clock.now();
        let plans = plans::of(config, &*log.writer, more)?;
        for plan in &plans {
            Topics::make(&*log.writer, &plan.namespace, plan.clock, plan.partitions)?;
        }
        tracing::info!(log_ms = opened.since_ms(begun), namespaces_ms = clock.now().since_ms(opened), "the log is open");
        Ok(Self { ground: Ground { log: Arc::clone(&log.writer), opened: log, clock, folder, config: config.clone() }, plans })
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
    pub(super) fn start_on(self, state: Arc<dyn StateStore>) -> Result<Engine, Error> {
        let Ground { log, opened, clock, folder, config } = self.ground;
        let begun = clock.now();
        let mut engine = Engine { log, opened, clock, folder, worlds: Vec::new(), state, config };
        for plan in self.plans {
            let world = World::start(plan, &engine.opened, &engine.state, &engine.clock, &engine.folder, &engine.config)?;
            engine.worlds.push(world);
        }
        tracing::info!(folds_ms = engine.clock.now().since_ms(begun), "folds and projectors run");
        Ok(engine)
    }
}

/// Everything but the gateway: what benchmarks and the demonstration drive directly.
pub struct Engine {
    pub log: Arc<dyn LogWriter>,
    pub(super) opened: OpenLog,
    pub clock: Arc<dyn Clock>,
    pub folder: Folder,
    pub worlds: Vec<World>,
    state: Arc<dyn StateStore>,
    pub(super) config: Config,
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

    pub(super) fn ground(&self) -> Ground {
        let (log, clock) = (Arc::clone(&self.log), Arc::clone(&self.clock));
        Ground { log, opened: self.opened.clone(), clock, folder: self.folder.clone(), config: self.config.clone() }
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
