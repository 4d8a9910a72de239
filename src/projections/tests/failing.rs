//! What fails in the projector's thread is tried again; nothing ends it but being told to stop.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::log::{self, Committed, Fetched, Group, TopicInfo, Watermarks};

/// Panics when first read, then fails for good as far as its error says, then is sound.
struct Faulty {
    log: Arc<MemoryLog>,
    fetches: AtomicUsize,
}

impl LogReader for Faulty {
    fn topics(&self) -> Result<Vec<TopicInfo>, log::Error> {
        self.log.topics()
    }
    fn watermarks(&self, partition: TopicPartition) -> Result<Watermarks, log::Error> {
        self.log.watermarks(partition)
    }
    fn fetch(&self, partition: TopicPartition, from: Offset, bytes_max: usize) -> Result<Fetched, log::Error> {
        match self.fetches.fetch_add(1, Ordering::SeqCst) {
            0 => panic!("of the first read"),
            1 => Err(log::Error::Corrupt("the second read".to_owned())),
            _ => self.log.fetch(partition, from, bytes_max),
        }
    }
    fn offset_at(&self, partition: TopicPartition, time: Millis) -> Result<Offset, log::Error> {
        self.log.offset_at(partition, time)
    }
    fn committed(&self, group: &Group, partition: TopicPartition) -> Result<Option<Committed>, log::Error> {
        self.log.committed(group, partition)
    }
    fn wait(&self, positions: &[(TopicPartition, Offset)], at_most: Duration) -> Result<bool, log::Error> {
        self.log.wait(positions, at_most)
    }
}

#[test]
fn after_a_panic_and_a_failure_that_looks_lasting_sql_goes_on() {
    for world in World::on_each() {
        world.event(0, "u:ann", "Page", 1, "");
        let log = Arc::new(Faulty { log: world.log.clone(), fetches: AtomicUsize::new(0) });
        let handle = Projector::start(log.clone(), &world.place, &world.namespace, Options::default()).unwrap();
        world.wait(&handle);
        assert!(log.fetches.load(Ordering::SeqCst) > 2);
        assert_eq!(world.sql("SELECT count(*) FROM events"), ["1"]);
        handle.stop();
        assert_eq!(handle.health(), Health::Stopped);
    }
}

#[test]
fn a_pause_before_the_next_try_ends_when_the_projector_is_stopped() {
    let world = World::new();
    // A folder that cannot be one.
    let blocked = world.dir.path().join("file");
    std::fs::write(&blocked, "in the way").unwrap();
    let handle = Projector::start(world.log.clone(), blocked.join("read"), &world.namespace, Options::default()).unwrap();
    while !matches!(handle.health(), Health::Retrying(_)) {
        std::thread::yield_now();
    }
    handle.stop();
    assert_eq!(handle.health(), Health::Stopped);
}
