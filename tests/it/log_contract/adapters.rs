//! The logs under test.

use std::sync::Arc;

use flywheel::env::ManualClock;
use flywheel::log::{LogWriter, MemoryLog};

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
