//! The event spine of one namespace: its topics, its definitions, and every partition's intake and profile loop; where there is an inbox,
//! also its decoders.

use std::sync::Arc;

use super::definitions::{self, Library, NamespaceClock};
use super::inbox::{self, InboxFold};
use super::intake::{IntakeFold, Setup as IntakeSetup};
use super::profile::{ProfileFold, Setup as ProfileSetup};
use super::pulse::Pulse;
use super::runner::Handle;
use super::status::Stopping;
use super::topology::Topology;
use super::worker::{Stepper, Surroundings, Worker};
use super::{Error, Options, Partitions, Topic, Topics};
use crate::domain::{Incarnation, Millis, Namespace, PartitionId};
use crate::env::Clock;
use crate::log::{LogReader, LogWriter};
use crate::state::StateStore;

/// Everything a spine is made of.
#[derive(Clone)]
pub struct Setup {
    pub log: Arc<dyn LogWriter>,
    pub state: Arc<dyn StateStore>,
    pub clock: Arc<dyn Clock>,
    pub namespace: Namespace,
    /// How the namespace's time passes; fixed when it is created.
    pub time: NamespaceClock,
    /// For topics that do not exist yet.
    pub partitions: Partitions,
    pub topology: Arc<Topology>,
    pub options: Options,
    /// The incarnation that began because the log's folder was a copy, if any did: wall time stands still until an operator releases it.
    pub copied: Option<Incarnation>,
    /// Who may send to the namespace's inbox, where it has one.
    pub inbox: inbox::Setup,
}

/// A namespace made ready: topics created, topology activated, every partition taken over, nothing running yet.
pub struct Spine {
    around: Surroundings,
    library: Arc<Library>,
    workers: Vec<Box<dyn Stepper>>,
}

impl Spine {
    /// Starts the loops on threads of their own.
    pub fn start(setup: Setup) -> Result<Handle, Error> {
        Ok(Self::open(setup)?.run())
    }

    /// Creates topics, brings the topology into force, takes over the partitions. Tests and simulations step the workers themselves.
    pub fn open(setup: Setup) -> Result<Self, Error> {
        // An importer states the time when everything before it was acknowledged, and can know nothing of what still waits to be decoded.
        let inbox = if setup.time == NamespaceClock::Event { 0 } else { setup.partitions.inbox };
        let topics = Topics::make(&*setup.log, &setup.namespace, setup.time, Partitions { inbox, ..setup.partitions })?;
        let is_new = definitions::topology_text(&*setup.log, &topics)?.is_none();
        // The first one is in force from the beginning; a later one from now on, or, in event time, from where it stands in the log.
        let from = if is_new || setup.time == NamespaceClock::Event { Millis::MIN } else { setup.clock.now() };
        definitions::activate(&*setup.log, &topics, &setup.topology, from)?;
        let reader: Arc<dyn LogReader> = Arc::clone(&setup.log) as Arc<dyn LogReader>;
        let library = Arc::new(Library::new(Arc::clone(&reader), topics.clone()));
        library.add(Arc::clone(&setup.topology));
        let loops = [Topic::Inbox, Topic::Intake, Topic::Events].map(|topic| topics.count(topic) as usize).iter().sum();
        if let Some(copied) = setup.copied.filter(|_| setup.time == NamespaceClock::Wall)
            && definitions::released(&*setup.log, &topics)? < Some(copied)
        {
            tracing::warn!(namespace = %setup.namespace, "time stands still: this folder is a copy of another. Once that one is no longer in use: flywheel time release");
        }
        let around = Surroundings {
            log: setup.log,
            state: setup.state,
            clock: setup.clock,
            topics,
            options: setup.options,
            stopping: Arc::new(Stopping::default()),
            pulse: Arc::new(Pulse::new(loops)),
        };
        let mut workers: Vec<Box<dyn Stepper>> = Vec::new();
        for id in around.topics.partitions(Topic::Intake) {
            let intake = IntakeSetup {
                partition: id.partition,
                clock: setup.time,
                library: Arc::clone(&library),
                current: Arc::clone(&setup.topology),
                held: setup.copied,
            };
            let fold = IntakeFold::new(Arc::clone(&around.state), Arc::clone(&reader), around.topics.clone(), &around.options, intake)?;
            workers.push(Box::new(Worker::open(around.clone(), fold)?));
        }
        for id in around.topics.partitions(Topic::Events) {
            workers.push(Box::new(profile_worker(&around, &library, &setup.topology, setup.time, id.partition)?));
        }
        for id in around.topics.partitions(Topic::Inbox) {
            let fold = InboxFold::new(Arc::clone(&reader), around.topics.clone(), id.partition, setup.inbox.clone());
            workers.push(Box::new(Worker::open(around.clone(), fold)?));
        }
        Ok(Self { around, library, workers })
    }

    /// What the spine's workers stand in, for those that are added.
    pub fn surroundings(&self) -> &Surroundings {
        &self.around
    }

    pub fn library(&self) -> &Arc<Library> {
        &self.library
    }

    /// Runs one more loop beside the spine's own.
    pub fn add(&mut self, worker: Box<dyn Stepper>) {
        self.around.pulse.add_loop();
        self.workers.push(worker);
    }

    /// Intake's partitions first, then those of `events` and of `inbox`, then what was added.
    pub fn workers(&mut self) -> &mut [Box<dyn Stepper>] {
        &mut self.workers
    }

    pub fn topics(&self) -> &Topics {
        &self.around.topics
    }

    /// Spreads the partitions over threads and lets them run.
    pub fn run(self) -> Handle {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if self.around.options.threads == 0 { cores } else { self.around.options.threads };
        let mut groups: Vec<Vec<Box<dyn Stepper>>> = (0..threads.min(self.workers.len()).max(1)).map(|_| Vec::new()).collect();
        let count = groups.len();
        for worker in self.workers {
            let (_, partition) = (worker.position(), worker.shared().status().partition as usize);
            groups[partition % count].push(worker);
        }
        let Surroundings { log, clock, topics, stopping, .. } = self.around;
        Handle::run(groups, &log, &clock, stopping, topics.namespace.as_str())
    }
}

fn profile_worker(
    around: &Surroundings,
    library: &Arc<Library>,
    topology: &Arc<Topology>,
    clock: NamespaceClock,
    partition: PartitionId,
) -> Result<Worker<ProfileFold>, Error> {
    let has_holes = |topic| around.log.has_declared_holes(around.topics.partition(topic, partition));
    let writes_again = has_holes(Topic::Profiles)? || has_holes(Topic::Events)?;
    let setup = ProfileSetup { partition, clock, library: Arc::clone(library), initial: Arc::clone(topology), writes_again };
    let fold = ProfileFold::new(Arc::clone(&around.state), around.topics.clone(), &around.options, setup);
    Worker::open(around.clone(), fold)
}
