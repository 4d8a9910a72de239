//! What appending promises: order, wholeness, any bytes, many at once.

use flywheel::domain::{Millis, Offset, PartitionId};
use flywheel::log::{BatchBuilder, Error, HeaderList, TopicPartition, Transaction};

use super::super::world::{World, batches};

pub fn offsets_rise_by_one_in_the_order_of_appends(world: &mut World) {
    let events = world.topic("events", 2);
    assert_eq!(world.marks(events[0]), (0, 0));
    assert_eq!(world.append(events[0], "a=1 b=2"), 0);
    assert_eq!(world.append(events[1], "x=1"), 0, "each partition counts for itself");
    assert_eq!(world.append(events[0], "a=3"), 2);
    assert_eq!(world.read(events[0]), "0:a=1 1:b=2 2:a=3");
    assert_eq!(world.marks(events[0]), (0, 3));
    assert_eq!(world.marks(events[1]), (0, 1));
}

pub fn a_batch_of_several_partitions_becomes_visible_as_one(world: &mut World) {
    let (events, profiles) = (world.topic("events", 2), world.topic("profiles", 1));
    world.append(events[1], "before=1");
    let appended = world.submit(batches(&[(events[0], "a=1"), (profiles[0], "p=1 q=2"), (events[1], "b=1")])).unwrap();
    assert_eq!(appended.first_offsets, [Offset(0), Offset(0), Offset(1)], "in the order handed in");
    assert_eq!(world.read(events[0]), "0:a=1");
    assert_eq!(world.read(profiles[0]), "0:p=1 1:q=2");
    assert_eq!(world.read(events[1]), "0:before=1 1:b=1");
}

pub fn a_transaction_with_one_bad_part_leaves_nothing(world: &mut World) {
    let events = world.topic("events", 1);
    let nowhere = TopicPartition { topic: events[0].topic, partition: PartitionId(7) };
    let refused = world.submit(batches(&[(events[0], "a=1"), (nowhere, "b=1")]));
    assert!(matches!(refused, Err(Error::UnknownTopic(_))), "{refused:?}");
    assert_eq!(world.marks(events[0]), (0, 0));
    assert_eq!(world.append(events[0], "c=1"), 0, "the refused one took no offset");
}

pub fn several_batches_of_one_partition_follow_each_other(world: &mut World) {
    let events = world.topic("events", 1);
    let appended = world.submit(batches(&[(events[0], "a=1 b=1"), (events[0], "c=1")])).unwrap();
    assert_eq!(appended.first_offsets, [Offset(0), Offset(2)]);
    assert_eq!(world.read(events[0]), "0:a=1 1:b=1 2:c=1");
}

pub fn an_empty_transaction_is_taken(world: &mut World) {
    let events = world.topic("events", 1);
    world.append(events[0], "a=1");
    assert!(world.submit(Transaction::default()).unwrap().first_offsets.is_empty());
    assert_eq!(world.append(events[0], ""), 1, "an empty batch stands where the next record will");
    assert_eq!(world.append(events[0], "b=1"), 1);
    world.reopen();
    assert_eq!(world.read(events[0]), "0:a=1 1:b=1");
}

pub fn keys_and_values_are_any_bytes(world: &mut World) {
    let events = world.topic("events", 1);
    let wild: Vec<u8> = (0..=255).collect();
    type Parts<'a> = (&'a [u8], Option<&'a [u8]>, i64);
    let records: [Parts<'_>; 5] =
        [(b"", Some(b""), 0), (&wild, Some(&wild), i64::MIN), (b"gone", None, i64::MAX), (b"", None, -1), (b"\0", Some(b"\0"), 1)];
    let mut batch = BatchBuilder::new();
    for (key, value, timestamp) in records {
        batch.push(key, value, Millis(timestamp));
    }
    world.submit(Transaction { batches: vec![(events[0], batch.build())], commits: Vec::new() }).unwrap();
    for reopened in [false, true] {
        if reopened {
            world.seal();
            world.reopen();
        }
        let fetched = world.fetch(events[0], 0, usize::MAX).unwrap();
        let seen: Vec<_> = fetched.records().map(|record| (record.key, record.value, record.timestamp.0)).collect();
        assert_eq!(seen, records);
    }
}

pub fn headers_come_back_as_they_were_sent(world: &mut World) {
    let inbox = world.topic("inbox", 1)[0];
    let mut headers = HeaderList::default();
    for (name, value) in [("flywheel-tenant", Some(&b"acme"[..])), ("trace", None), ("trace", Some(&[0, 255])), ("", Some(b""))] {
        headers.push(name, value).unwrap();
    }
    let mut batch = BatchBuilder::new();
    batch.push(b"before", Some(b"1"), Millis(0));
    batch.push_headed(b"k", Some(b"2"), Millis(0), headers.as_headers());
    batch.push_headed(b"", None, Millis(0), headers.as_headers());
    batch.push(b"after", None, Millis(0));
    world.submit(Transaction { batches: vec![(inbox, batch.build())], commits: Vec::new() }).unwrap();
    for reopened in [false, true] {
        if reopened {
            world.seal();
            world.reopen();
        }
        let fetched = world.fetch(inbox, 0, usize::MAX).unwrap();
        let seen: Vec<_> = fetched.records().map(|record| (record.key, HeaderList::from(record.headers))).collect();
        let none = HeaderList::default();
        assert_eq!(seen, [(&b"before"[..], none.clone()), (b"k", headers.clone()), (b"", headers.clone()), (b"after", none)]);
    }
}

pub fn appends_of_many_threads_keep_each_threads_order(world: &mut World) {
    let events = world.topic("events", 2);
    let log = &world.log;
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let events = &events;
            scope.spawn(move || {
                for number in 0..50 {
                    let word = format!("t{thread}={number}");
                    let ticket = log.append(batches(&[(events[0], &word), (events[1], &word)])).unwrap();
                    // Every fifth is waited for, so that some are alone in flight and some are not.
                    if number % 5 == 0 {
                        ticket.wait().unwrap();
                    }
                }
                log.append(Transaction::default()).unwrap().wait().unwrap();
            });
        }
    });
    for read in [world.read(events[0]), world.read(events[1])] {
        for thread in 0..8 {
            let of_thread = |word: &&str| word.contains(&format!(":t{thread}="));
            let numbers: Vec<&str> = read.split(' ').filter(of_thread).map(|word| word.split_once('=').unwrap().1).collect();
            assert_eq!(numbers, (0..50).map(|number| number.to_string()).collect::<Vec<_>>());
        }
    }
}

pub fn partitions_take_the_transactions_of_many_threads_in_one_order(world: &mut World) {
    let events = world.topic("events", 2);
    let log = &world.log;
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let events = &events;
            scope.spawn(move || {
                for number in 0..50 {
                    let word = format!("t{thread}={number}");
                    log.append(batches(&[(events[0], &word), (events[1], &word)])).unwrap().wait().unwrap();
                }
            });
        }
    });
    assert_eq!(world.read(events[0]), world.read(events[1]));
}

pub fn a_ticket_can_be_awaited(world: &mut World) {
    let events = world.topic("events", 1);
    let ticket = world.log.append(batches(&[(events[0], "a=1")])).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(ticket).unwrap().first_offsets, [Offset(0)]);
    assert_eq!(world.read(events[0]), "0:a=1", "what is acknowledged is served");
}
