//! The promises themselves, one function each, named for what holds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flywheel::domain::{Millis, Offset, PartitionId};
use flywheel::log::{
    Advice, BatchBuilder, COMMIT_METADATA_BYTES_MAX, Cleanup, Committed, Error, RECORD_BYTES_MAX, Retention, TopicId, TopicInfo,
    TopicPartition, TopicSpec, Transaction,
};

use super::world::{START, World, batches, commits, compacted, short_lived, spec, text};

const MINUTE_MS: i64 = 60_000;

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
    let read = world.read(events[0]);
    assert_eq!(read, world.read(events[1]), "both partitions took the transactions in one order");
    for thread in 0..8 {
        let of_thread = |word: &&str| word.contains(&format!(":t{thread}="));
        let numbers: Vec<&str> = read.split(' ').filter(of_thread).map(|word| word.split_once('=').unwrap().1).collect();
        assert_eq!(numbers, (0..50).map(|number| number.to_string()).collect::<Vec<_>>());
    }
}

pub fn a_ticket_can_be_awaited(world: &mut World) {
    let events = world.topic("events", 1);
    let ticket = world.log.append(batches(&[(events[0], "a=1")])).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(ticket).unwrap().first_offsets, [Offset(0)]);
    assert_eq!(world.read(events[0]), "0:a=1", "what is acknowledged is served");
}

pub fn a_commit_is_found_with_its_metadata(world: &mut World) {
    let events = world.topic("events", 2);
    let owner = world.acquire("fold", events[1]);
    assert_eq!(world.committed("fold", events[1]), None, "owning is not committing");
    world.commit(&owner, 7, "cursor").unwrap();
    assert_eq!(world.committed("fold", events[1]), Some((7, "cursor".to_owned())));
    assert_eq!(world.committed("fold", events[0]), None);
    assert_eq!(world.committed("other", events[1]), None);
    world.commit(&owner, 9, "").unwrap();
    assert_eq!(world.committed("fold", events[1]), Some((9, String::new())), "the newest replaces the one before, metadata and all");
}

pub fn outputs_and_offset_are_committed_together(world: &mut World) {
    let (events, profiles) = (world.topic("events", 1), world.topic("profiles", 1));
    world.append(events[0], "a=1 b=1 c=1");
    let owner = world.acquire("fold", events[0]);
    let mut outputs = batches(&[(profiles[0], "a=x b=x")]);
    outputs.commits = commits(&owner, 2, "m").commits;
    world.submit(outputs).unwrap();
    for reopened in [false, true] {
        if reopened {
            world.reopen();
        }
        assert_eq!(world.read(profiles[0]), "0:a=x 1:b=x");
        assert_eq!(world.committed("fold", events[0]), Some((2, "m".to_owned())));
    }
}

pub fn a_stale_owner_is_fenced_with_all_it_brought(world: &mut World) {
    let (events, profiles) = (world.topic("events", 1), world.topic("profiles", 1));
    let stale = world.acquire("fold", events[0]);
    world.commit(&stale, 1, "").unwrap();
    let newer = world.acquire("fold", events[0]);
    assert!(newer.epoch > stale.epoch);
    let mut outputs = batches(&[(profiles[0], "late=1")]);
    outputs.commits = commits(&stale, 5, "").commits;
    let refused = world.submit(outputs).unwrap_err();
    assert!(matches!(refused, Error::Fenced(partition) if partition == events[0]), "{refused}");
    assert_eq!(refused.advice(), Advice::Fatal);
    assert_eq!(world.marks(profiles[0]), (0, 0));
    assert_eq!(world.committed("fold", events[0]), Some((1, String::new())));
    world.commit(&newer, 2, "").unwrap();
}

pub fn owners_of_other_groups_and_partitions_are_not_fenced(world: &mut World) {
    let events = world.topic("events", 2);
    let owner = world.acquire("fold", events[0]);
    world.acquire("fold", events[1]);
    world.acquire("other", events[0]);
    world.commit(&owner, 1, "").unwrap();
}

pub fn an_ownership_ends_with_its_process(world: &mut World) {
    let events = world.topic("events", 1);
    let before = world.acquire("fold", events[0]);
    world.reopen();
    assert!(matches!(world.commit(&before, 1, ""), Err(Error::Fenced(_))), "the next process acquires before it commits");
}

pub fn fencing_outlives_a_restart(world: &mut World) {
    let events = world.topic("events", 1);
    let before = world.acquire("fold", events[0]);
    world.commit(&before, 1, "").unwrap();
    world.reopen();
    let after = world.acquire("fold", events[0]);
    assert!(after.epoch > before.epoch, "an epoch is never given twice: {before:?}, {after:?}");
    assert!(matches!(world.commit(&before, 2, ""), Err(Error::Fenced(_))));
    world.commit(&after, 3, "").unwrap();
}

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

pub fn retention_drops_what_is_old_and_read(world: &mut World) {
    let (short, kept) = (world.create(&short_lived("short"))[0], world.topic("kept", 1)[0]);
    for partition in [short, kept] {
        world.append(partition, "a=1 b=1");
    }
    world.seal();
    world.clock.advance(MINUTE_MS - 1000);
    assert_eq!(world.clean(), 0, "not old yet");
    world.append(short, "c=1");
    world.seal();
    world.clock.advance(2000);
    assert!(world.clean() > 0);
    for reopened in [false, true] {
        if reopened {
            world.reopen();
        }
        assert_eq!(world.read(short), "2:c=1");
        assert_eq!(world.marks(short), (2, 3));
        assert_eq!(world.read(kept), "0:a=1 1:b=1", "forever is forever");
    }
    world.clock.advance(2 * MINUTE_MS);
    world.clean();
    assert_eq!(world.marks(short), (3, 3));
    assert_eq!(world.append(short, "d=1"), 3, "offsets go on where they were");
}

pub fn retention_waits_for_every_group(world: &mut World) {
    let events = world.create(&short_lived("events"))[0];
    for word in ["a=1", "b=1", "c=1"] {
        world.append(events, word);
        world.seal();
    }
    let (fast, slow) = (world.acquire("fast", events), world.acquire("slow", events));
    world.commit(&fast, 3, "").unwrap();
    world.clock.advance(2 * MINUTE_MS);
    world.clean();
    assert_eq!(world.read(events), "0:a=1 1:b=1 2:c=1", "a group that owns it and has committed nothing has everything to read");
    world.commit(&slow, 2, "").unwrap();
    world.clean();
    assert_eq!(world.read(events), "2:c=1");
    world.commit(&slow, 3, "").unwrap();
    world.reopen();
    world.clean();
    assert_eq!(world.marks(events), (3, 3));
}

pub fn retention_stops_at_a_pin(world: &mut World) {
    let events = world.create(&short_lived("events"))[0];
    for word in ["a=1", "b=1", "c=1"] {
        world.append(events, word);
        world.seal();
    }
    world.log.pin("backup", events, Some(Offset(1))).unwrap();
    world.log.pin("replay", events, Some(Offset(0))).unwrap();
    world.log.pin("replay", events, Some(Offset(2))).unwrap();
    world.clock.advance(2 * MINUTE_MS);
    world.reopen();
    world.clean();
    assert_eq!(world.read(events), "1:b=1 2:c=1", "the lowest pin holds, and pins outlive a restart");
    world.log.pin("backup", events, None).unwrap();
    world.clean();
    assert_eq!(world.read(events), "2:c=1");
    world.log.pin("replay", events, None).unwrap();
    world.clean();
    assert_eq!(world.marks(events), (3, 3));
}

/// The newest value of every key.
fn table(world: &World, partition: TopicPartition) -> String {
    let mut newest = std::collections::BTreeMap::new();
    for word in world.read(partition).split_whitespace() {
        let record = word.split_once(':').unwrap().1;
        match record.split_once('=') {
            Some((key, value)) => newest.insert(key.to_owned(), value.to_owned()),
            None => newest.remove(record),
        };
    }
    newest.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

pub fn compaction_keeps_the_newest_of_every_key(world: &mut World) {
    let profiles = world.create(&compacted("profiles"))[0];
    for round in 0..5 {
        world.append(profiles, &format!("a={round} b={round} only{round}=1"));
        world.seal();
    }
    world.append(profiles, "b=9");
    world.seal();
    assert!(world.clean() > 0);
    let expect = "2:only0=1 5:only1=1 8:only2=1 11:only3=1 12:a=4 14:only4=1 15:b=9";
    for reopened in [false, true] {
        if reopened {
            world.reopen();
        }
        assert_eq!(world.read(profiles), expect, "records keep their offsets");
        assert_eq!(world.marks(profiles).1, 16);
        assert_eq!(world.read_from(profiles, 9), "11:only3=1 12:a=4 14:only4=1 15:b=9", "reading starts in a gap too");
    }
    assert_eq!(world.append(profiles, "a=10"), 16);
    assert_eq!(table(world, profiles), "a=10 b=9 only0=1 only1=1 only2=1 only3=1 only4=1");
}

pub fn compaction_removes_keys_without_a_value(world: &mut World) {
    let profiles = world.create(&compacted("profiles"))[0];
    world.append(profiles, "a=1 b=1 c=1");
    world.seal();
    world.append(profiles, "c=2 a");
    world.seal();
    world.clean();
    assert_eq!(world.read(profiles), "1:b=1 3:c=2");
    assert_eq!(world.marks(profiles).1, 5);
    let fetched = world.fetch(profiles, 4, 100).unwrap();
    assert!(fetched.is_empty() && fetched.next == Offset(5), "a reader in the gap at the end arrives at the end: {fetched:?}");
    world.reopen();
    assert_eq!(world.append(profiles, "a=2"), 5);
    assert_eq!(table(world, profiles), "a=2 b=1 c=2");
}

pub fn compaction_waits_for_every_group_and_pin(world: &mut World) {
    let profiles = world.create(&compacted("profiles"))[0];
    for value in 0..4 {
        world.append(profiles, &format!("a={value}"));
        world.seal();
    }
    let owner = world.acquire("projector", profiles);
    world.log.pin("backup", profiles, Some(Offset(1))).unwrap();
    world.clean();
    assert_eq!(world.read(profiles), "0:a=0 1:a=1 2:a=2 3:a=3", "a group that owns it has everything to read");
    world.commit(&owner, 2, "").unwrap();
    world.clean();
    assert!(world.read(profiles).ends_with("1:a=1 2:a=2 3:a=3"), "the pin is lower than the group");
    world.log.pin("backup", profiles, None).unwrap();
    world.clean();
    assert!(world.read(profiles).ends_with("2:a=2 3:a=3"));
    world.commit(&owner, 4, "").unwrap();
    world.clean();
    assert_eq!(world.read(profiles), "3:a=3");
}

pub fn what_is_too_large_is_refused(world: &mut World) {
    let events = world.topic("events", 1)[0];
    let with_value = |len: usize| {
        let mut batch = BatchBuilder::new();
        batch.push(b"small", Some(b"1"), Millis(0));
        batch.push(b"k", Some(&vec![7; len]), Millis(0));
        Transaction { batches: vec![(events, batch.build())], commits: Vec::new() }
    };
    let refused = world.submit(with_value(RECORD_BYTES_MAX + 1)).unwrap_err();
    assert!(matches!(refused, Error::TooLarge { .. }) && refused.advice() == Advice::Reject, "{refused}");
    assert_eq!(world.marks(events), (0, 0));
    world.submit(with_value(RECORD_BYTES_MAX - 100)).unwrap();
    let owner = world.acquire("fold", events);
    let with_metadata = |len: usize| {
        let committed = Committed { offset: Offset(1), metadata: Bytes::from(vec![b'm'; len]) };
        Transaction { batches: Vec::new(), commits: vec![(owner.clone(), committed)] }
    };
    let refused = world.submit(with_metadata(COMMIT_METADATA_BYTES_MAX + 1)).unwrap_err();
    assert!(matches!(refused, Error::TooLarge { .. }), "{refused}");
    assert_eq!(world.committed("fold", events), None);
    world.submit(with_metadata(COMMIT_METADATA_BYTES_MAX)).unwrap();
    world.reopen();
    assert_eq!(world.fetch(events, 1, 1).unwrap().records().next().unwrap().value.unwrap().len(), RECORD_BYTES_MAX - 100);
}

pub fn a_topic_is_created_once_and_found_again(world: &mut World) {
    let info = world.log.create_topic(&spec("events", 3)).unwrap();
    let other = world.log.create_topic(&compacted("profiles")).unwrap();
    assert_ne!(info.id, other.id);
    assert_eq!(world.log.create_topic(&spec("events", 3)).unwrap(), info);
    for reopened in [false, true] {
        if reopened {
            world.reopen();
        }
        let mut topics = world.log.topics().unwrap();
        topics.sort_by_key(|topic| topic.id);
        let mut expect = [info.clone(), other.clone()];
        expect.sort_by_key(|topic| topic.id);
        assert_eq!(topics, expect);
        assert_eq!(world.log.create_topic(&spec("events", 3)).unwrap(), info);
    }
}

pub fn a_topic_that_disagrees_is_refused(world: &mut World) {
    let agreed = spec("events", 2);
    world.log.create_topic(&agreed).unwrap();
    world.reopen();
    let others = [
        TopicSpec { partitions: 3, ..agreed.clone() },
        TopicSpec { cleanup: Cleanup::Compact, ..agreed.clone() },
        TopicSpec { partitions: 3, retention: Retention::Age(Duration::from_secs(1)), ..agreed.clone() },
    ];
    for other in others {
        let refused = world.log.create_topic(&other).unwrap_err();
        assert!(matches!(refused, Error::TopicDisagrees { .. }) && refused.advice() == Advice::Reject, "{refused}");
    }
    assert_eq!(world.log.create_topic(&agreed).unwrap().spec, agreed);
    assert_eq!(world.log.topics().unwrap()[0].spec, agreed, "a refusal changes nothing");
}

pub fn a_topic_created_again_is_kept_as_long_as_is_asked_last(world: &mut World) {
    let first = TopicSpec { retention: Retention::Age(Duration::from_secs(1)), ..spec("events", 2) };
    let info = world.log.create_topic(&first).unwrap();
    for retention in [Retention::Forever, Retention::Age(Duration::from_secs(2))] {
        let again = TopicSpec { retention, ..first.clone() };
        let expect = TopicInfo { spec: again.clone(), ..info.clone() };
        assert_eq!(world.log.create_topic(&again).unwrap(), expect);
        assert_eq!(world.log.topics().unwrap(), std::slice::from_ref(&expect));
        world.reopen();
        assert_eq!(world.log.topics().unwrap(), [expect]);
    }
}

pub fn what_does_not_exist_is_refused(world: &mut World) {
    let events = world.topic("events", 1);
    let no_topic = TopicPartition { topic: TopicId(99), partition: PartitionId(0) };
    let no_partition = TopicPartition { partition: PartitionId(1), ..events[0] };
    for nowhere in [no_topic, no_partition] {
        let refusals = [
            world.log.watermarks(nowhere).err(),
            world.fetch(nowhere, 0, 1).err(),
            world.log.offset_at(nowhere, START).err(),
            world.submit(batches(&[(nowhere, "a=1")])).err(),
            world.log.acquire(&flywheel::log::Group("fold".into()), nowhere).err(),
            world.log.wait(&[(nowhere, Offset(0))], Duration::ZERO).err(),
            world.log.pin("pin", nowhere, Some(Offset(0))).err(),
        ];
        for (at, refused) in refusals.into_iter().enumerate() {
            assert!(matches!(refused, Some(Error::UnknownTopic(_))), "call {at} on {nowhere:?}: {refused:?}");
        }
    }
}

pub fn everything_is_there_after_reopening(world: &mut World) {
    let (events, profiles) = (world.topic("events", 2), world.create(&compacted("profiles"))[0]);
    for round in 0..3 {
        world.append(events[0], "a=1 b=2");
        world.append(profiles, "p=1");
        let owner = world.acquire("fold", events[0]);
        world.commit(&owner, 2 * (round + 1), &format!("round {round}")).unwrap();
        match round {
            0 => {}
            1 => world.seal(),
            _ => world.reopen(),
        }
    }
    world.reopen();
    assert_eq!(world.read(events[0]), "0:a=1 1:b=2 2:a=1 3:b=2 4:a=1 5:b=2");
    assert_eq!(world.marks(events[1]), (0, 0));
    assert_eq!(world.read(profiles), "0:p=1 1:p=1 2:p=1");
    assert_eq!(world.committed("fold", events[0]), Some((6, "round 2".to_owned())));
    assert_eq!(world.append(events[0], "c=3"), 6);
    let fetched = world.fetch(events[0], 6, 100).unwrap();
    assert_eq!(fetched.records().map(|record| text(record.key)).collect::<Vec<_>>(), ["c"]);
}
