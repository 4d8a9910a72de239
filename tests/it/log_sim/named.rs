//! Crashes that were found by seeds or are too rare for them, each with its name; the seed only varies what the disk keeps.

use std::path::Path;
use std::sync::Arc;

use flywheel::domain::{Millis, Namespace, Offset, PartitionId};
use flywheel::env::ManualClock;
use flywheel::env::fs::SimFs;
use flywheel::env::fs::sim::{Call, Crash};
use flywheel::log::embedded::{Driver, EmbeddedLog, Options};
use flywheel::log::{
    Advice, Appended, BatchBuilder, Cleanup, Error, LogReader, LogWriter, Retention, Ticket, TopicName, TopicPartition, TopicSpec,
    Transaction,
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SEEDS: u64 = 100;

fn open(fs: &SimFs) -> Arc<EmbeddedLog> {
    open_with(fs, 1, 16 << 10)
}

fn options(group: usize, wal_bytes: u64) -> Options {
    Options { driver: Driver::Caller { group }, wal_first_bytes: wal_bytes, wal_bytes, ..Options::small() }
}

fn open_with(fs: &SimFs, group: usize, wal_bytes: u64) -> Arc<EmbeddedLog> {
    EmbeddedLog::open(Arc::new(fs.clone()), Path::new("log"), options(group, wal_bytes), Arc::new(ManualClock::at(Millis(0)))).unwrap()
}

fn topic(log: &EmbeddedLog) -> TopicPartition {
    let name = TopicName::new(&Namespace::new("sim").unwrap(), "events");
    let spec = TopicSpec { name, partitions: 1, retention: Retention::Forever, cleanup: Cleanup::Delete };
    TopicPartition { topic: log.create_topic(&spec).unwrap().id, partition: PartitionId(0) }
}

fn submit(log: &EmbeddedLog, partition: TopicPartition, len: usize) -> Result<Ticket, Error> {
    submit_bytes(log, partition, &vec![1; len])
}

fn submit_bytes(log: &EmbeddedLog, partition: TopicPartition, value: &[u8]) -> Result<Ticket, Error> {
    let mut batch = BatchBuilder::new();
    batch.push(b"key", Some(value), Millis(0));
    log.append(Transaction { batches: vec![(partition, batch.build())], commits: Vec::new() })
}

fn append(log: &EmbeddedLog, partition: TopicPartition, len: usize) -> Result<Appended, Error> {
    let ticket = submit(log, partition, len)?;
    log.drive();
    ticket.wait()
}

/// How many records can be read.
fn readable(log: &EmbeddedLog, partition: TopicPartition) -> usize {
    let end = log.watermarks(partition).unwrap().end;
    let mut at = Offset(0);
    let mut count = 0;
    while at < end {
        let fetched = log.fetch(partition, at, usize::MAX).unwrap();
        count += fetched.len();
        at = fetched.next;
    }
    count
}

#[test]
fn what_a_failed_sync_left_in_the_cache_is_durable_before_it_is_served() {
    let mut served_uncertain = 0;
    for seed in 0..SEEDS {
        let fs = SimFs::new(seed);
        let log = open(&fs);
        let partition = topic(&log);
        append(&log, partition, 600).unwrap();
        fs.fail_next(Call::Sync, 9);
        let failed = append(&log, partition, 600).unwrap_err();
        assert_eq!(failed.advice(), Advice::Fatal, "nobody knows whether it will be found");
        let fs = fs.crash(Crash::Process, seed);
        let log = open(&fs);
        let served = readable(&log, partition);
        served_uncertain += u64::from(served == 2);
        let fs = fs.crash(Crash::Power, seed);
        assert_eq!(readable(&open(&fs), partition), served, "seed {seed}");
    }
    assert!(served_uncertain > 0 && served_uncertain < SEEDS);
}

#[test]
fn a_full_disk_refuses_for_certain_also_where_writes_are_copies() {
    for seed in 0..SEEDS {
        let fs = SimFs::new(seed);
        let log = open(&fs);
        let partition = topic(&log);
        append(&log, partition, 600).unwrap();
        fs.set_copies_on_write(true);
        // Room for the first sectors of the group, and to wipe its head again.
        fs.set_capacity(Some(fs.space_used() + 1024));
        let refused = append(&log, partition, 3_000).unwrap_err();
        assert_eq!(refused.advice(), Advice::Retry, "seed {seed}: {refused}");
        assert_eq!(readable(&log, partition), 1, "reads go on");
        assert!(matches!(log.health(), Err(Error::NoSpace)), "seed {seed}: {:?}", log.health());
        fs.set_capacity(None);
        append(&log, partition, 600).unwrap();
        log.health().unwrap();
        let fs = fs.crash(Crash::Power, seed);
        assert_eq!(readable(&open(&fs), partition), 2, "seed {seed}: the refused one is not there");
    }
}

#[test]
fn a_refused_group_of_which_one_frame_was_written_whole_is_not_found() {
    for seed in 0..12 {
        let fs = SimFs::new(seed);
        let log = open_with(&fs, 2, 4 << 20);
        let partition = topic(&log);
        append(&log, partition, 600).unwrap();
        fs.set_copies_on_write(true);
        // Each of the two fills a frame; there is room for one and a half.
        fs.set_capacity(Some(fs.space_used() + 1_200_000));
        let tickets = [submit(&log, partition, 800_000).unwrap(), submit(&log, partition, 800_000).unwrap()];
        for ticket in tickets {
            assert_eq!(ticket.wait().unwrap_err().advice(), Advice::Retry);
        }
        let fs = fs.crash(Crash::Process, seed);
        assert_eq!(readable(&open(&fs), partition), 1, "seed {seed}");
    }
}

#[test]
fn a_full_disk_that_lasts_uses_up_no_file_numbers() {
    for seed in 0..12 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // What cannot be compressed, so that its segment needs as much room as it did.
        let value: Vec<u8> = (0..3_000).map(|_| rng.random()).collect();
        let fs = SimFs::new(seed);
        let log = open(&fs);
        let partition = topic(&log);
        // Room for another write-ahead file or two, but not always for the segment of a full one.
        fs.set_capacity(Some(fs.space_used() + rng.random_range(1_000..40_000)));
        let mut acknowledged = 0;
        let mut refused = 0;
        while refused < 200 {
            match submit_bytes(&log, partition, &value).and_then(|ticket| {
                log.drive();
                ticket.wait()
            }) {
                Ok(_) => acknowledged += 1,
                Err(error) => {
                    assert_eq!(error.advice(), Advice::Retry, "seed {seed}: {error}");
                    refused += 1;
                }
            }
        }
        fs.set_capacity(None);
        append(&log, partition, 600).unwrap();
        log.roll().unwrap();
        assert_eq!(readable(&log, partition), acknowledged + 1, "seed {seed}");
        let number = |path: &Path| path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        let highest: u64 = fs.files().iter().filter_map(|(path, _)| number(path)).max().unwrap();
        assert!(highest < 20, "seed {seed}: file {highest} after {refused} refusals");
        let fs = fs.crash(Crash::Power, seed);
        assert_eq!(readable(&open(&fs), partition), acknowledged + 1, "seed {seed}");
    }
}

/// Found by seed 1245: a killed process left a manifest that was not durable, the next one removed what only the manifest before named,
/// and the power cut kept the removal but not the manifest.
#[test]
fn nothing_goes_that_the_last_durable_manifest_names() {
    for seed in 0..4 {
        for (rolled, opened) in (0..36).flat_map(|rolled| (0..12).map(move |opened| (rolled, opened))) {
            let fs = SimFs::new(seed);
            let log = open(&fs);
            let partition = topic(&log);
            for _ in 0..3 {
                append(&log, partition, 600).unwrap();
            }
            // Killed somewhere between write-ahead file, segment and manifest.
            fs.power_off_after(rolled);
            log.roll().ok();
            let fs = fs.crash(Crash::Process, seed);
            fs.power_off_after(opened);
            let again =
                EmbeddedLog::open(Arc::new(fs.clone()), Path::new("log"), options(1, 16 << 10), Arc::new(ManualClock::at(Millis(0))));
            drop(again);
            let fs = fs.crash(Crash::Power, seed);
            assert_eq!(readable(&open(&fs), partition), 3, "seed {seed}, killed after {rolled}, power cut after {opened}");
        }
    }
}
