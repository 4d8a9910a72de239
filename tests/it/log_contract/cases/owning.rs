//! What groups are promised: offsets committed with outputs, and owners of before kept out.

use flywheel::log::{Advice, Error};

use super::super::world::{World, batches, commits};

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
