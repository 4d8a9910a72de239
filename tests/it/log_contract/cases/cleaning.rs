//! What retention and compaction leave, and whom they wait for.

use flywheel::domain::Offset;
use flywheel::log::TopicPartition;

use super::super::world::{World, compacted, short_lived};

const MINUTE_MS: i64 = 60_000;

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
