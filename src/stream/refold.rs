//! A fold driven over a partition's history without committing anything: what it makes goes to the caller.

use super::fold::{Applied, Fold, Seal, Window};
use super::outputs::Outputs;
use super::progress::{Cursor, Progress, Watermark};
use super::{Error, Options, Topics};
use crate::log::{LogReader, RecordBatch, TopicPartition};

/// How much was folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refolded {
    pub records: u64,
}

/// Folds everything that is there when it begins, batch by batch; `take` gets each batch's outputs. A record that cannot be applied is
/// passed over, as it was the first time.
pub fn refold<F: Fold>(
    log: &dyn LogReader,
    topics: Topics,
    mut fold: F,
    options: &Options,
    mut take: impl FnMut(Vec<(TopicPartition, RecordBatch)>) -> Result<(), Error>,
) -> Result<Refolded, Error> {
    let (topic, partition) = fold.input();
    let (input, incarnation) = (topics.partition(topic, partition), topics.incarnation(topic));
    fold.restore(None, incarnation)?;
    let bounds = log.watermarks(input)?;
    let mut out = Outputs::new(topics);
    let mut next = bounds.start;
    let mut refolded = Refolded::default();
    let seal = Seal { folded: None, end_asked: None, tick_due: false };
    while next < bounds.end {
        let fetched = log.fetch(input, next, options.fetch_bytes_max)?;
        let records: Vec<_> = fetched.records().take_while(|record| record.offset < bounds.end).collect();
        fold.prepare(&records)?;
        for (at, record) in records.iter().enumerate() {
            let mut after: Option<Cursor> = None;
            loop {
                let window = Window { after: after.as_ref(), until: None };
                let Applied::More(cursor) = fold.apply(at, record, window, &mut out)? else { break };
                fold.seal(&seal, &mut out)?;
                take(out.take())?;
                if matches!(cursor, Cursor::Sweep { .. }) {
                    fold.flush(Watermark {
                        incarnation,
                        fold_version: fold.version(),
                        progress: Progress { next: record.offset, cursor: Some(cursor.clone()) },
                        memo: Default::default(),
                    })?;
                }
                after = Some(cursor);
            }
            refolded.records += 1;
        }
        fold.seal(&seal, &mut out)?;
        take(out.take())?;
        if fetched.next <= next {
            break;
        }
        next = fetched.next;
    }
    Ok(refolded)
}
