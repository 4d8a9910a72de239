//! What happens offline, on the same records and through the same folds: digests of what was derived, histories folded again, dead letters
//! sent again.
//!
//! Reads any log, also beside a running server; only `redrive` writes.

pub mod digest;
pub mod fold;
pub mod redrive;

use crate::domain::Offset;
use crate::log::{LogReader, RecordRef, TopicPartition};
use crate::stream::Error;

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
