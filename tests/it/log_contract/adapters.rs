//! The logs under test.

use std::sync::Arc;

use std::path::PathBuf;

use flywheel::env::ManualClock;
use flywheel::env::fs::{Fs, RealFs, SimFs};
use flywheel::log::embedded::{Driver, Options};
use flywheel::log::{EmbeddedLog, LogWriter, MemoryLog};

use super::world::Adapter;

#[derive(Default)]
pub struct Memory(Option<MemoryLog>);

impl Adapter for Memory {
    fn open(&mut self, clock: &ManualClock) -> Arc<dyn LogWriter> {
        let log = match &self.0 {
            Some(before) => before.reopen(),
            None => MemoryLog::new(Arc::new(clock.clone())),
        };
        self.0 = Some(log.clone());
        Arc::new(log)
    }

    fn seal(&mut self) {}
}

/// The embedded log in a folder; small files, so that the suite sees them roll.
pub struct Embedded {
    fs: Arc<dyn Fs>,
    folder: PathBuf,
    driver: Driver,
    log: Option<Arc<EmbeddedLog>>,
    _temporary: Option<tempfile::TempDir>,
}

impl Embedded {
    pub fn on_disk() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("log");
        Self { fs: Arc::new(RealFs), folder, driver: Driver::Threads, log: None, _temporary: Some(temporary) }
    }

    /// On a simulated disk, everything on the calling thread.
    pub fn simulated() -> Self {
        Self { fs: Arc::new(SimFs::new(0)), folder: "log".into(), driver: Driver::Caller { group: 1 }, log: None, _temporary: None }
    }
}

impl Adapter for Embedded {
    fn open(&mut self, clock: &ManualClock) -> Arc<dyn LogWriter> {
        self.log = None;
        let options = Options { driver: self.driver, ..Options::small() };
        let log = EmbeddedLog::open(Arc::clone(&self.fs), &self.folder, options, Arc::new(clock.clone())).unwrap();
        self.log = Some(Arc::clone(&log));
        log
    }

    fn seal(&mut self) {
        self.log.as_ref().unwrap().roll().unwrap();
    }
}

/// Topics of their own on a broker that all tests share.
#[cfg(feature = "kafka")]
pub struct Kafka {
    options: flywheel::log::kafka::Options,
    log: Option<Arc<flywheel::log::KafkaLog>>,
}

#[cfg(feature = "kafka")]
impl Kafka {
    /// None where services are skipped.
    pub fn new() -> Option<Self> {
        Some(Self { options: crate::kafka_log::options(crate::services::kafka()?), log: None })
    }
}

#[cfg(feature = "kafka")]
impl Adapter for Kafka {
    fn open(&mut self, _: &ManualClock) -> Arc<dyn LogWriter> {
        if let Some(before) = self.log.take() {
            before.close();
        }
        let log = flywheel::log::KafkaLog::open(self.options.clone()).unwrap();
        self.log = Some(Arc::clone(&log));
        log
    }

    fn seal(&mut self) {}
}
