//! What reading promises: where a fetch begins and ends, waiting, times.

use std::sync::Arc;
use std::time::Duration;

use flywheel::domain::{Millis, Offset};
use flywheel::log::Error;

use super::super::world::{START, World, batches, short_lived};

const MINUTE_MS: i64 = 60_000;

pub fn a_fetch_outside_of_the_partition_is_refused(world: &mut World) {
    let events = world.create(&short_lived("events"));
    world.append(events[0], "a=1 b=1");
    let refused = world.fetch(events[0], 3, 100).unwrap_err();
    assert!(matches!(refused, Error::OffsetOutOfRange { asked: Offset(3), start: Offset(0), end: Offset(2), .. }), "{refused}");
    world.seal();
    world.clock.advance(2 * MINUTE_MS);
    world.clean();
    let refused = world.fetch(events[0], 1, 100).unwrap_err();
    assert!(matches!(refused, Error::OffsetOutOfRange { asked: Offset(1), start: Offset(2), end: Offset(2), .. }), "{refused}");
}

pub fn a_fetch_at_the_end_is_empty(world: &mut World) {
    let events = world.topic("events", 1);
    for end in [0, 2] {
        let fetched = world.fetch(events[0], end, 100).unwrap();
        assert!(fetched.is_empty() && fetched.next == Offset(end), "{fetched:?}");
        world.append(events[0], "a=1 b=1");
    }
}

pub fn a_fetch_starts_within_a_batch(world: &mut World) {
    let events = world.topic("events", 1);
    world.append(events[0], "a=1 b=2 c=3");
    world.append(events[0], "d=4 e=5");
    for sealed in [false, true] {
        if sealed {
            world.seal();
        }
        assert_eq!(world.read_from(events[0], 2), "2:c=3 3:d=4 4:e=5");
        assert_eq!(world.read_from(events[0], 4), "4:e=5");
    }
}

pub fn a_fetch_keeps_to_its_limit_and_always_moves(world: &mut World) {
    let events = world.topic("events", 1);
    let value = "x".repeat(1000);
    for number in 0..40 {
        world.append(events[0], &format!("k{number}={value}"));
    }
    for sealed in [false, true] {
        if sealed {
            world.seal();
        }
        for bytes_max in [0, 1, 1500, 10_000, usize::MAX] {
            let (mut at, mut seen) = (0, Vec::new());
            while at < 40 {
                let fetched = world.fetch(events[0], at, bytes_max).unwrap();
                let bytes: usize = fetched.records().map(|record| record.value.unwrap().len()).sum();
                assert!(!fetched.is_empty(), "at least one record where there is one");
                // About the limit: the record that reaches it may still come along.
                assert!(bytes <= bytes_max.saturating_add(value.len()), "{bytes} bytes for {bytes_max}");
                seen.extend(fetched.records().map(|record| record.offset.0));
                at = fetched.next.0;
            }
            assert_eq!(seen, (0..40).collect::<Vec<_>>());
        }
    }
}

pub fn waiting_ends_with_the_first_record_or_the_time(world: &mut World) {
    let events = world.topic("events", 2);
    assert!(!world.has_news(&[(events[0], 0), (events[1], 0)]));
    world.append(events[1], "a=1");
    assert!(world.has_news(&[(events[0], 0), (events[1], 0)]), "one of them is enough");
    assert!(!world.has_news(&[(events[0], 0), (events[1], 1)]));
    assert!(!world.log.wait(&[(events[0], Offset(0))], Duration::from_millis(5)).unwrap());
    // The waiter may start before or after the append; it must end either way, long before its time is up.
    let log = Arc::clone(&world.log);
    let partition = events[0];
    let waiter = std::thread::spawn(move || log.wait(&[(partition, Offset(0))], Duration::from_secs(600)));
    world.append(events[0], "b=1");
    assert!(waiter.join().unwrap().unwrap());
}

pub fn a_time_is_found_as_an_offset(world: &mut World) {
    let events = world.topic("events", 1);
    assert_eq!(world.log.offset_at(events[0], START).unwrap(), Offset(0), "the end of an empty partition");
    for words in ["a=1 b=1", "c=1", "d=1 e=1"] {
        world.append(events[0], words);
        world.clock.advance(1000);
    }
    for sealed in [false, true] {
        if sealed {
            world.seal();
        }
        for (after_start_ms, offset) in [(-5, 0), (0, 0), (1, 2), (1000, 2), (1001, 3), (2000, 3), (2001, 5), (i64::MAX / 2, 5)] {
            let found = world.log.offset_at(events[0], Millis(START.0 + after_start_ms)).unwrap();
            assert_eq!(found, Offset(offset), "{after_start_ms} ms after the start");
        }
    }
}

pub fn append_time_never_goes_back(world: &mut World) {
    let events = world.topic("events", 1);
    let first = world.submit(batches(&[(events[0], "a=1")])).unwrap();
    assert_eq!(first.append_time, START);
    world.clock.advance(-5000);
    world.append(events[0], "b=1");
    world.reopen();
    world.append(events[0], "c=1");
    world.clock.advance(9000);
    world.append(events[0], "d=1");
    let append_time = |offset| world.fetch(events[0], offset, 1).unwrap().records().next().unwrap().append_time;
    let times: Vec<i64> = (0..4).map(|offset| append_time(offset).0 - START.0).collect();
    assert_eq!(times, [0, 0, 0, 4000]);
}
