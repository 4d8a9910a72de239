//! Exactly once: beside another projector, after a crash, under a rebuild.

use super::*;

#[test]
fn what_was_not_projected_is_pinned_in_the_log() {
    let world = World::new();
    world.event(0, "u:ann", "Page", 1, "");
    let pins = Arc::new(Recorded::default());
    let options = Options { pins: Some(pins.clone()), ..Options::default() };
    let handle = Projector::start(world.log.clone(), &world.place, &world.namespace, options).unwrap();
    world.wait(&handle);
    handle.stop();
    let pins = pins.0.lock();
    let events: Vec<Offset> = pins.iter().filter(|(partition, _)| *partition == world.partition("events", 0)).map(|pin| pin.1).collect();
    assert_eq!((events.first(), events.last()), (Some(&Offset(0)), Some(&Offset(1))), "at the start and at the stop at the latest");
}

#[derive(Default)]
struct Recorded(parking_lot::Mutex<Vec<(TopicPartition, Offset)>>);

impl Pins for Recorded {
    fn pin_all(&self, name: &str, offsets: &[(TopicPartition, Offset)]) -> Result<(), log::Error> {
        assert_eq!(name, "projections.shop");
        self.0.lock().extend(offsets);
        Ok(())
    }
}

#[test]
fn of_two_projectors_each_record_is_applied_by_one() {
    for world in World::on_each() {
        world.event(0, "u:ann", "Page", 1, "");
        world.project();
        let (mut first, mut second) = (block_on(world.tail()), block_on(world.tail()));
        world.event(0, "u:ann", "Page", 2, "");
        assert_eq!(block_on(first.step(1 << 20)).unwrap().records, 1);
        let refused = block_on(second.step(1 << 20));
        assert!(matches!(refused, Err(Error::Overtaken { .. })), "{refused:?}");
        block_on(second.reload()).unwrap();
        assert_eq!(block_on(second.step(1 << 20)).unwrap().records, 0);
        world.event(0, "u:ann", "Page", 3, "");
        assert_eq!(block_on(second.step(1 << 20)).unwrap().records, 1);
        assert_eq!(world.sql("SELECT count(*), (SELECT events FROM daily_totals) FROM events"), ["3|3"]);
    }
}

#[test]
fn a_file_ahead_of_the_log_or_of_another_incarnation_is_refused_and_rebuilt() {
    let distrusted = [
        "UPDATE processing_status SET incarnation = 7 WHERE topic = 'events'",
        "UPDATE processing_status SET next_offset = 99 WHERE topic = 'events' AND partition = 1",
        "UPDATE meta SET value = '0' WHERE key = 'projection_version'",
        "INSERT INTO processing_status (topic, partition, incarnation, next_offset) VALUES ('events', 5, 1, 0)",
    ];
    for sql in distrusted {
        for world in World::on_each() {
            world.event(0, "u:ann", "Page", 1, "");
            world.project();
            // The wrong row first: what is to be refused cannot be opened any more.
            block_on(tamper(&world, "UPDATE events SET event_name = 'wrong'"));
            block_on(tamper(&world, sql));
            world.project();
            assert_eq!(world.sql("SELECT event_name FROM events"), ["Page"], "{sql}");
            assert_eq!(block_on(world.generations().current()).unwrap(), Some(2), "{sql}");
        }
    }
}

#[test]
fn a_damaged_or_missing_file_is_rebuilt() {
    for damage in [None, Some(b"not a database at all, whatever it is called".repeat(200))] {
        let world = World::new();
        world.event(0, "u:ann", "Page", 1, "");
        world.project();
        let path = world.dir.path().join("shop-1.db");
        match &damage {
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        world.project();
        assert_eq!(world.sql("SELECT event_name FROM events"), ["Page"]);
    }
}

#[test]
fn a_rebuild_is_swapped_in_under_a_running_projector() {
    for world in World::on_each() {
        for at in 0..50 {
            world.event(at % 2, "u:ann", "Page", i64::from(at), "");
        }
        let handle = world.start();
        world.wait(&handle);
        let mut seen = Vec::new();
        let rebuilt = block_on(rebuild(world.log.clone(), &world.place, &world.namespace, &Options::default(), &mut |progress| {
            seen.push(progress);
            ControlFlow::Continue(())
        }));
        assert_eq!(rebuilt.unwrap(), Rebuilt { generation: 2, records: 50 });
        assert_eq!(seen.last(), Some(&Progress { records: 50, left: 0 }));
        world.event(0, "u:bob", "Page", 1, "");
        world.wait(&handle);
        // The projector may have put bob into the old file just before it saw the swap; then it puts him into the new one again.
        while world.sql("SELECT count(*) FROM events") != ["51"] {
            std::thread::yield_now();
        }
        handle.stop();
        assert_eq!(world.sql("SELECT sum(events), count(*) FROM daily_totals"), ["51|1"]);
        assert_eq!(block_on(world.generations().current()).unwrap(), Some(2));
    }
}

#[test]
fn a_rebuild_that_does_not_finish_leaves_the_old_one() {
    for world in World::on_each() {
        world.event(0, "u:ann", "Page", 1, "");
        world.project();
        let called_off =
            block_on(rebuild(world.log.clone(), &world.place, &world.namespace, &Options::default(), &mut |_| ControlFlow::Break(())));
        assert!(matches!(called_off, Err(Error::Stopped(_))), "{called_off:?}");
        // What a crash leaves: a file that no pointer names.
        block_on(async {
            drop(world.generations().create(7).await.unwrap());
        });
        assert_eq!(world.sql("SELECT count(*) FROM events"), ["1"]);
        let again =
            block_on(rebuild(world.log.clone(), &world.place, &world.namespace, &Options::default(), &mut |_| ControlFlow::Continue(())));
        assert_eq!(again.unwrap(), Rebuilt { generation: 8, records: 1 });
        assert_eq!(block_on(world.generations().next()).unwrap(), 9, "what a crash left is gone, its number too");
    }
}
