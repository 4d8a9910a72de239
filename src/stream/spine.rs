//! The event spine of one namespace: its topics, its definitions, and every partition's intake and profile loop; where there is an inbox,
//! also its decoders.

use std::sync::Arc;

use super::definitions::{self, Library, NamespaceClock};
use super::inbox::{self, InboxFold};
use super::intake::{IntakeFold, Setup as IntakeSetup};
use super::profile::{ProfileFold, Setup as ProfileSetup};
use super::pulse::Pulse;
use super::runner::Handle;
use super::stage::Stage;
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

/// A namespace made ready: topics created, topology activated, nothing running yet.
pub struct Spine {
    around: Surroundings,
    library: Arc<Library>,
    stages: Vec<Arc<Stage>>,
    /// Of every partition, where this process has them all; none where it shares them with others.
    workers: Option<Vec<Box<dyn Stepper>>>,
}

impl Spine {
    /// Starts the loops on threads of their own.
    pub fn start(setup: Setup) -> Result<Handle, Error> {
        Ok(Self::open(setup)?.run())
    }

    /// Creates topics, brings the topology into force, takes over the partitions. Tests and simulations step the workers themselves.
    pub fn open(setup: Setup) -> Result<Self, Error> {
        let mut spine = Self::prepare(setup)?;
        spine.workers = Some(Vec::new());
        for stage in std::mem::take(&mut spine.stages) {
            spine.add(stage)?;
        }
        Ok(spine)
    }

    /// The same, with every partition left to whom the stage's group gives it.
    pub fn share(setup: Setup) -> Result<Self, Error> {
        let mut spine = Self::prepare(setup)?;
        // Who is due where other processes are at work is not known here: time is told at its usual pace.
        spine.around.pulse = Arc::new(Pulse::new(usize::MAX / 2));
        Ok(spine)
    }

    fn prepare(setup: Setup) -> Result<Self, Error> {
        // An importer states the time when everything before it was acknowledged, and can know nothing of what still waits to be decoded.
        let inbox = if setup.time == NamespaceClock::Event { 0 } else { setup.partitions.inbox };
        let topics = Topics::make(&*setup.log, &setup.namespace, setup.time, Partitions { inbox, ..setup.partitions })?;
        let is_new = definitions::topology_text(&*setup.log, &topics)?.is_none();
        // The first one is in force from the beginning; a later one from now on, or, in event time, from where it stands in the log.
        let from = if is_new || setup.time == NamespaceClock::Event { Millis::MIN } else { setup.clock.now() };
        definitions::activate(&*setup.log, &topics, &setup.topology, from)?;
        let reader: Arc<dyn LogReader> = Arc::clone(&setup.log) as Arc<dyn LogReader>;
        let library = Arc::new(Library::new(reader, topics.clone()));
        library.add(Arc::clone(&setup.topology));
        if let Some(copied) = setup.copied.filter(|_| setup.time == NamespaceClock::Wall)
            && definitions::released(&*setup.log, &topics)? < Some(copied)
        {
            tracing::warn!(namespace = %setup.namespace, "time stands still: this folder is a copy of another. Once that one is no longer in use: flywheel time release");
        }
        let around = Surroundings {
            log: Arc::clone(&setup.log),
            state: Arc::clone(&setup.state),
            clock: Arc::clone(&setup.clock),
            topics,
            options: setup.options.clone(),
            stopping: Arc::new(Stopping::default()),
            pulse: Arc::new(Pulse::new(0)),
        };
        let stages = stages(&around, &library, &setup);
        Ok(Self { around, library, stages, workers: None })
    }

    /// What the spine's workers stand in, for those that are added.
    pub fn surroundings(&self) -> &Surroundings {
        &self.around
    }

    pub fn library(&self) -> &Arc<Library> {
        &self.library
    }

    /// Runs one more stage beside the spine's own; takes over its partitions, where this process has them all.
    pub fn add(&mut self, stage: Arc<Stage>) -> Result<(), Error> {
        if let Some(workers) = &mut self.workers {
            for id in self.around.topics.partitions(stage.topic) {
                workers.push((stage.open)(id.partition)?);
                self.around.pulse.add_loop();
            }
        }
        self.stages.push(stage);
        Ok(())
    }

    /// Intake's partitions first, then those of `events` and of `inbox`, then what was added; none where they are shared.
    pub fn workers(&mut self) -> &mut [Box<dyn Stepper>] {
        self.workers.as_deref_mut().unwrap_or_default()
    }

    pub fn topics(&self) -> &Topics {
        &self.around.topics
    }

    /// Spreads the partitions over threads and lets them run.
    pub fn run(self) -> Handle {
        self.run_stages(|_| true)
    }

    /// The same with only some of the stages, by name: others run elsewhere. Where this process has every partition, it runs them all.
    pub fn run_stages(self, is_wanted: impl Fn(&str) -> bool) -> Handle {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if self.around.options.threads == 0 { cores } else { self.around.options.threads };
        let Surroundings { log, clock, topics, stopping, .. } = self.around;
        let Some(workers) = self.workers else {
            let wanted = self.stages.into_iter().filter(|stage| is_wanted(stage.name) && topics.count(stage.topic) > 0).collect();
            return Handle::share(wanted, &topics, threads, &log, &clock, stopping);
        };
        let mut groups: Vec<Vec<Box<dyn Stepper>>> = (0..threads.min(workers.len()).max(1)).map(|_| Vec::new()).collect();
        let count = groups.len();
        for worker in workers {
            let (_, partition) = (worker.position(), worker.shared().status().partition as usize);
            groups[partition % count].push(worker);
        }
        Handle::run(groups, &log, &clock, stopping, topics.namespace.as_str())
    }
}

/// The spine's own.
fn stages(around: &Surroundings, library: &Arc<Library>, setup: &Setup) -> Vec<Arc<Stage>> {
    let topics = &around.topics;
    let (at, texts, current, clock, held) = (around.clone(), Arc::clone(library), Arc::clone(&setup.topology), setup.time, setup.copied);
    let intake = Stage::new(super::intake::STAGE, topics, Topic::Intake, move |partition| {
        let (library, current) = (Arc::clone(&texts), Arc::clone(&current));
        let intake = IntakeSetup { partition, clock, library, current, held };
        let reader = Arc::clone(&at.log) as Arc<dyn LogReader>;
        let fold = IntakeFold::new(Arc::clone(&at.state), reader, at.topics.clone(), &at.options, intake)?;
        Ok(Box::new(Worker::open(at.clone(), fold)?))
    });
    let (at, texts, topology) = (around.clone(), Arc::clone(library), Arc::clone(&setup.topology));
    let profiles = Stage::new(super::profile::STAGE, topics, Topic::Events, move |partition| {
        Ok(Box::new(profile_worker(&at, &texts, &topology, clock, partition)?))
    });
    let (at, senders) = (around.clone(), setup.inbox.clone());
    let decoder = Stage::new(super::inbox::STAGE, topics, Topic::Inbox, move |partition| {
        let fold = InboxFold::new(Arc::clone(&at.log) as Arc<dyn LogReader>, at.topics.clone(), partition, senders.clone());
        Ok(Box::new(Worker::open(at.clone(), fold)?))
    });
    vec![intake, profiles, decoder]
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
