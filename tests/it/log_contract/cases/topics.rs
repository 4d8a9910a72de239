//! What is refused, and what topics are when they are asked for again and after reopening.

use std::time::Duration;

use bytes::Bytes;
use flywheel::domain::{Millis, Offset, PartitionId};
use flywheel::log::{
    Advice, BatchBuilder, COMMIT_METADATA_BYTES_MAX, Cleanup, Committed, Error, RECORD_BYTES_MAX, Retention, TopicId, TopicInfo,
    TopicPartition, TopicSpec, Transaction,
};

use super::super::world::{START, World, batches, compacted, spec, text};

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
