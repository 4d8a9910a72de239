//! `log.append` and `log.fetch`: the embedded log alone.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::figure::{FSYNC, Figure, NOTHING};
use super::floor;
use crate::domain::{Millis, Namespace, Offset, PartitionId};
use crate::env::SystemClock;
use crate::env::fs::RealFs;
use crate::log::embedded::{EmbeddedLog, Options};
use crate::log::{BatchBuilder, Cleanup, LogReader, LogWriter, Retention, TopicName, TopicPartition, TopicSpec, Transaction};

const CALLERS: u64 = 64;
const RECORDS: usize = 100;
const RECORD_BYTES: usize = 400;
const PARTITIONS: u32 = 4;
const FETCH_BYTES: usize = 4 << 20;

pub fn run(dir: &Path, time: Duration) -> anyhow::Result<Vec<Figure>> {
    let log = EmbeddedLog::open(Arc::new(RealFs), &dir.join("log"), Options::default(), Arc::new(SystemClock))?;
    let name = TopicName::new(&Namespace::new("bench")?, "events");
    let spec = TopicSpec { name, partitions: PARTITIONS, retention: Retention::Forever, cleanup: Cleanup::Delete };
    let topic = log.create_topic(&spec)?.id;
    let stop = AtomicBool::new(false);
    let records = AtomicU64::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (log, stop, records) = (&log, &stop, &records);
            let partition = TopicPartition { topic, partition: PartitionId((caller % u64::from(PARTITIONS)) as u32) };
            scope.spawn(move || append_until(log, partition, stop, records));
        }
        let (_never, timer) = std::sync::mpsc::channel::<()>();
        // Waits out the time: nobody ever sends.
        let _ = timer.recv_timeout(time);
        stop.store(true, Ordering::SeqCst);
    });
    let elapsed = started.elapsed().as_secs_f64();
    let bytes = records.load(Ordering::SeqCst) as f64 * RECORD_BYTES as f64;
    let group = RECORDS * RECORD_BYTES * CALLERS as usize / 2;
    let disk = floor::disk_group_fsync(dir, group, Duration::from_secs(3))?;
    let setup =
        format!("{CALLERS} callers, {RECORDS} records of {RECORD_BYTES} bytes a call, {:.0} s; floor: groups of {group} bytes", elapsed);
    let mut figures = vec![Figure::new("log.append", bytes / elapsed / 1e6, "MB/s", FSYNC, setup).against(disk / 1e6)];
    figures.push(fetch(&*log, topic)?);
    log.close();
    Ok(figures)
}

fn append_until(log: &EmbeddedLog, partition: TopicPartition, stop: &AtomicBool, records: &AtomicU64) {
    let body = vec![b'x'; RECORD_BYTES];
    while !stop.load(Ordering::Relaxed) {
        let mut batch = BatchBuilder::new();
        for _ in 0..RECORDS {
            batch.push(b"acme\0u:1", Some(&body), Millis(0));
        }
        let transaction = Transaction { batches: vec![(partition, batch.build())], commits: Vec::new() };
        let appended = log.append(transaction).and_then(|ticket| ticket.wait());
        match appended {
            Ok(_) => drop(records.fetch_add(RECORDS as u64, Ordering::Relaxed)),
            Err(error) if error.advice() == crate::log::Advice::Retry => std::thread::yield_now(),
            Err(error) => panic!("the benchmark's append failed: {error}"),
        }
    }
}

fn fetch(log: &dyn LogReader, topic: crate::log::TopicId) -> anyhow::Result<Figure> {
    let started = Instant::now();
    let mut bytes = 0;
    let mut count = 0u64;
    for partition in 0..PARTITIONS {
        let partition = TopicPartition { topic, partition: PartitionId(partition) };
        let mut position = Offset(0);
        loop {
            let fetched = log.fetch(partition, position, FETCH_BYTES)?;
            if fetched.next == position {
                break;
            }
            for record in fetched.records() {
                bytes += record.key.len() + record.value.map_or(0, <[u8]>::len);
                count += 1;
            }
            position = fetched.next;
        }
    }
    let elapsed = started.elapsed().as_secs_f64();
    Ok(Figure::new(
        "log.fetch",
        bytes as f64 / elapsed / 1e9,
        "GB/s",
        NOTHING,
        format!("{count} records of {RECORD_BYTES} bytes, one reader, page cache"),
    ))
}
