//! What happens offline, on the same records and through the same folds: digests of what was derived, histories folded again, dead letters
//! sent again.
//!
//! Reads any log, also beside a running server; only `redrive` writes.

pub mod digest;
pub mod fold;
pub mod redrive;

use std::collections::BTreeMap;

use crate::domain::{Millis, Offset, PartitionId};
use crate::log::{LogReader, RecordRef, TopicPartition};
use crate::schema;
use crate::schema::records::EventsRecord;
use crate::stream::{Error, Topic, Topics};

const FETCH_BYTES: usize = 4 << 20;

/// Visits every record of a partition that is there when it begins.
fn each_record(
    log: &dyn LogReader,
    partition: TopicPartition,
    from: Option<Offset>,
    mut visit: impl FnMut(&RecordRef<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let bounds = log.watermarks(partition)?;
    let mut next = from.unwrap_or(bounds.start).max(bounds.start);
    while next < bounds.end {
        let fetched = log.fetch(partition, next, FETCH_BYTES)?;
        for record in fetched.records().take_while(|record| record.offset < bounds.end) {
            visit(&record)?;
        }
        if fetched.next <= next {
            break;
        }
        next = fetched.next;
    }
    Ok(())
}

/// The time that all of intake has stated to `events`: the least of its partitions' newest words, `None` before each has given one. Reads
/// one partition, since every word goes to all of them.
pub fn stated(log: &dyn LogReader, topics: &Topics) -> Result<Option<Millis>, Error> {
    let mut newest: BTreeMap<i32, i64> = BTreeMap::new();
    each_record(log, topics.partition(Topic::Events, PartitionId(0)), None, |record| {
        if record.key.is_empty()
            && let EventsRecord::Tick(tick) = schema::decode(record.value.unwrap_or_default())?
        {
            let known = newest.entry(tick.feeder).or_insert(tick.time);
            *known = (*known).max(tick.time);
        }
        Ok(())
    })?;
    let is_whole = newest.len() >= topics.count(Topic::Intake) as usize;
    Ok(newest.values().min().filter(|_| is_whole).copied().map(Millis))
}
