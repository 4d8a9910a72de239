//! The simulated disk keeps what was synced, and every fault it offers happens.

use std::collections::BTreeSet;

use super::*;

const FILE: &str = "log/file";

fn machine(seed: u64) -> SimFs {
    let fs = SimFs::new(seed);
    fs.create_dir_all(Path::new("log")).unwrap();
    fs
}

fn content(fs: &SimFs, path: &str) -> Option<Vec<u8>> {
    let file = fs.open(Path::new(path), false).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

/// What a file holds after each of a thousand crashes that follow `prepare`.
fn after_crashes(crash: Crash, prepare: impl Fn(&SimFs)) -> BTreeSet<Option<Vec<u8>>> {
    let run = |seed| {
        let fs = machine(seed);
        prepare(&fs);
        content(&fs.crash(crash, seed), FILE)
    };
    (0..1000).map(run).collect()
}

fn write_synced(fs: &SimFs, bytes: &[u8]) -> Arc<dyn File> {
    let file = fs.create(Path::new(FILE)).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync_data().unwrap();
    fs.sync_dir(Path::new("log")).unwrap();
    file
}

#[test]
fn what_was_synced_survives_every_crash() {
    for crash in [Crash::Power, Crash::Process] {
        let seen = after_crashes(crash, |fs| drop(write_synced(fs, &[7; 3000])));
        assert_eq!(seen, BTreeSet::from([Some(vec![7; 3000])]));
    }
}

#[test]
fn a_killed_process_loses_nothing_that_a_power_cut_could_not_take_later() {
    let write = |fs: &SimFs| write_synced(fs, b"old").write_all_at(b"new", 0).unwrap();
    assert_eq!(after_crashes(Crash::Process, write), BTreeSet::from([Some(b"new".to_vec())]));
    let killed_then_cut = |seed| {
        let fs = machine(seed);
        write(&fs);
        content(&fs.crash(Crash::Process, seed).crash(Crash::Power, seed), FILE)
    };
    assert!((0..100).map(killed_then_cut).any(|left| left == Some(b"old".to_vec())));
}

#[test]
fn unsynced_bytes_are_kept_lost_zeroed_or_torn() {
    let seen = after_crashes(Crash::Power, |fs| {
        let file = write_synced(fs, &[1; 600]);
        file.write_all_at(&[2; 1000], 300).unwrap();
    });
    let has = |what: &str, test: &dyn Fn(&[u8]) -> bool| assert!(seen.iter().flatten().any(|bytes| test(bytes)), "never {what}");
    has("lost", &|bytes| bytes == [1; 600]);
    has("kept", &|bytes| bytes == [vec![1; 300], vec![2; 1000]].concat());
    has("a size without its data", &|bytes| bytes.len() == 1300 && bytes[1030..].iter().all(|byte| *byte == 0));
    has("a later sector without an earlier one", &|bytes| bytes.len() == 1300 && bytes[599] == 1 && bytes[1299] == 2);
    has("torn within a sector", &|bytes| bytes[300..512].contains(&1) && bytes[300..512].contains(&2));
    assert!(seen.iter().flatten().all(|bytes| bytes[..300] == [1; 300]), "what was synced and not overwritten stays");
}

#[test]
fn an_earlier_version_of_a_sector_can_be_what_survives() {
    let seen = after_crashes(Crash::Power, |fs| {
        let file = write_synced(fs, b"a");
        file.write_all_at(b"b", 0).unwrap();
        file.write_all_at(b"c", 0).unwrap();
    });
    assert_eq!(seen, [b"a", b"b", b"c"].map(|left| Some(left.to_vec())).into());
}

#[test]
fn an_unsynced_truncation_may_not_have_happened() {
    let seen = after_crashes(Crash::Power, |fs| write_synced(fs, b"abc").set_len(1).unwrap());
    let lengths: BTreeSet<usize> = seen.iter().flatten().map(Vec::len).collect();
    assert_eq!(lengths, BTreeSet::from([1, 3]));
}

#[test]
fn names_are_lost_until_their_folder_is_synced() {
    let seen = after_crashes(Crash::Power, |fs| {
        let file = fs.create(Path::new(FILE)).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        file.sync_data().unwrap();
    });
    assert_eq!(seen, BTreeSet::from([None, Some(b"x".to_vec())]));
    let removed = after_crashes(Crash::Power, |fs| {
        drop(write_synced(fs, b"x"));
        fs.remove(Path::new(FILE)).unwrap();
    });
    assert_eq!(removed, BTreeSet::from([None, Some(b"x".to_vec())]));
}

#[test]
fn a_rename_is_old_or_new_and_may_go_ahead_of_the_content() {
    let replace = |sync: bool| {
        after_crashes(Crash::Power, move |fs| {
            drop(write_synced(fs, b"old"));
            let file = fs.create(Path::new("log/next")).unwrap();
            file.write_all_at(b"new", 0).unwrap();
            if sync {
                file.sync_data().unwrap();
            }
            fs.rename(Path::new("log/next"), Path::new(FILE)).unwrap();
        })
    };
    assert_eq!(replace(true), [b"old", b"new"].map(|left| Some(left.to_vec())).into());
    assert!(replace(false).contains(&Some(Vec::new())), "the new name with nothing in it");
}

#[test]
fn after_a_failed_sync_the_next_one_succeeds_and_the_bytes_may_be_gone() {
    let seen = after_crashes(Crash::Power, |fs| {
        let file = write_synced(fs, b"old");
        file.write_all_at(b"new", 0).unwrap();
        fs.fail_next(Call::Sync, 1);
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(libc::EIO));
        file.sync_data().unwrap();
    });
    assert_eq!(seen, [b"old", b"new"].map(|left| Some(left.to_vec())).into());
}

#[test]
fn a_full_disk_refuses_and_takes_again_when_there_is_space() {
    let fs = machine(1);
    let file = write_synced(&fs, &[1; 512]);
    fs.set_capacity(Some(1024));
    file.write_all_at(&[2; 512], 0).unwrap();
    file.write_all_at(&[2; 512], 512).unwrap();
    let refused = file.write_all_at(&[3; 512], 1024).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs.create(Path::new("log/more")).err().unwrap().kind(), io::ErrorKind::StorageFull);
    fs.set_capacity(Some(4096));
    file.write_all_at(&[3; 512], 1024).unwrap();
    fs.set_capacity(Some(fs.space_used() + 100));
    file.write_all_at(&[4; 512], 0).unwrap();
    fs.set_copies_on_write(true);
    assert!(file.write_all_at(&[5; 512], 0).is_err(), "writing over what is there needs space where writes are copies");
    fs.set_capacity(Some(0));
    assert_eq!(content(&fs, FILE).unwrap().len(), 1536, "reads go on");
}

#[test]
fn the_power_goes_after_so_many_changes_and_stays_off() {
    let fs = machine(1);
    let file = write_synced(&fs, b"x");
    fs.power_off_after(1);
    file.write_all_at(b"y", 0).unwrap();
    assert!(file.sync_data().is_err());
    assert!(file.read_at(&mut [0], 0).is_err() && fs.open(Path::new(FILE), false).is_err() && fs.is_off());
}

#[test]
fn calls_fail_as_scripted_and_reads_come_short_by_chance() {
    let fs = machine(1);
    let file = write_synced(&fs, &[1; 100]);
    fs.fail_next(Call::Read, 1);
    assert!(file.read_at(&mut [0; 10], 0).is_err());
    fs.fail_next(Call::Write, 1);
    assert!(file.write_all_at(&[2; 10], 0).is_err());
    fs.fail_next(Call::Name, 1);
    assert!(fs.remove(Path::new(FILE)).is_err());
    fs.fail_next(Call::SyncFolder, 1);
    assert!(fs.sync_dir(Path::new("log")).is_err());
    fs.set_faults(Faults { short_read: 1000, ..Faults::default() });
    assert!(file.read_at(&mut [0; 100], 0).unwrap() < 100);
    let mut whole = [0; 100];
    file.read_exact_at(&mut whole, 0).unwrap();
}

#[test]
fn a_flipped_bit_is_read_back() {
    let fs = machine(1);
    drop(write_synced(&fs, &[0; 10]));
    fs.flip_bit(Path::new(FILE), 3, 7);
    let fs = fs.crash(Crash::Power, 2);
    assert_eq!(content(&fs, FILE).unwrap()[3], 0x80);
}

#[test]
fn a_lock_is_held_until_its_process_ends() {
    let fs = machine(1);
    let path = Path::new("log/lock");
    let held = fs.lock(path, "process 7").unwrap();
    assert_eq!(fs.lock(path, "process 8").err().unwrap().to_string(), "process 7");
    let restarted = fs.crash(Crash::Process, 1);
    let again = restarted.lock(path, "process 8").unwrap();
    drop(held);
    assert!(restarted.lock(path, "process 9").is_err(), "a dead handle frees nothing");
    drop(again);
    restarted.lock(path, "process 9").unwrap();
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let run = |seed: u64| {
        let fs = machine(seed);
        fs.set_faults(Faults { write: 300, sync: 300, ..Faults::default() });
        let file = fs.create(Path::new(FILE)).unwrap();
        fs.sync_dir(Path::new("log")).unwrap();
        for round in 0..50_u64 {
            file.write_all_at(&[round as u8; 700], round * 400).ok();
            file.sync_data().ok();
        }
        content(&fs.crash(Crash::Power, seed), FILE)
    };
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed));
    }
}
