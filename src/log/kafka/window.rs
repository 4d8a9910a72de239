//! The newest records read of a partition, kept for other readers who come to the same place a moment later.

use std::collections::VecDeque;

use crate::domain::{Millis, Offset};
use crate::log::{BatchBuilder, Fetched, RecordBatch};

/// A stretch of one partition without a gap in what was read: `[start, next)`.
pub(super) struct Window {
    batches: VecDeque<RecordBatch>,
    start: u64,
    next: u64,
    bytes: usize,
    bytes_max: usize,
}

impl Window {
    pub(super) fn new(at: u64, bytes_max: usize) -> Self {
        Self { batches: VecDeque::new(), start: at, next: at, bytes: 0, bytes_max }
    }

    /// Where reading goes on.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn covers(&self, offset: u64) -> bool {
        self.start <= offset && offset <= self.next
    }

    /// Whether it has a record at or past `offset`.
    pub(super) fn has_at(&self, offset: u64) -> bool {
        self.batches.back().and_then(RecordBatch::last_offset).is_some_and(|last| last.0 >= offset)
    }

    /// What was read ends here: what lies between the last record and this offset is no record.
    pub(super) fn reach(&mut self, offset: u64) {
        self.next = self.next.max(offset);
    }

    fn push(&mut self, batch: RecordBatch) {
        let Some(last) = batch.last_offset() else { return };
        self.next = last.0 + 1;
        self.bytes += batch.data().len();
        self.batches.push_back(batch);
        // The newest stays, however large.
        while self.bytes > self.bytes_max && self.batches.len() > 1 {
            let dropped = self.batches.pop_front().expect("there are two");
            self.bytes -= dropped.data().len();
            self.start = dropped.last_offset().expect("no batch is empty").0 + 1;
        }
    }

    /// Records from `from` on, which it covers: about `bytes_max` of them, at least one if there is one.
    pub(super) fn serve(&self, from: u64, bytes_max: usize) -> Fetched {
        let first = self.batches.partition_point(|batch| batch.last_offset().is_some_and(|last| last.0 < from));
        let mut fetched = Fetched { batches: Vec::new(), next: Offset(self.next.max(from)) };
        let mut left = bytes_max;
        for batch in self.batches.range(first..) {
            let Some(batch) = batch.starting_at(Offset(from)) else { continue };
            if left == 0 && !fetched.batches.is_empty() {
                fetched.next = fetched.batches.last().and_then(RecordBatch::last_offset).map_or(Offset(from), Offset::next);
                return fetched;
            }
            let (part, rest) = batch.split_at_bytes(left);
            left = left.saturating_sub(part.data().len());
            let last = part.last_offset();
            fetched.batches.push(part);
            if rest.is_some() {
                fetched.next = last.map_or(Offset(from), Offset::next);
                return fetched;
            }
        }
        fetched
    }
}

/// Gathers messages into batches: one per append time, which one append shares.
#[derive(Default)]
pub(super) struct Gather {
    builder: BatchBuilder,
    offsets: Vec<u64>,
    append_time: Millis,
    /// Beyond it a batch is closed, so that a window can drop the old and keep the new.
    bytes_max: usize,
}

impl Gather {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    /// Adds the record at `offset`, which `write` pushes.
    pub(super) fn push(&mut self, window: &mut Window, offset: u64, append_time: Millis, write: impl FnOnce(&mut BatchBuilder)) {
        if !self.offsets.is_empty() && (append_time != self.append_time || self.builder.bytes() >= self.bytes_max) {
            self.close(window);
        }
        self.append_time = append_time;
        self.offsets.push(offset);
        write(&mut self.builder);
    }

    pub(super) fn close(&mut self, window: &mut Window) {
        if self.offsets.is_empty() {
            return;
        }
        let offsets = std::mem::take(&mut self.offsets);
        let builder = std::mem::take(&mut self.builder);
        window.push(builder.build_at(self.append_time, offsets));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets with the append time of each.
    fn window(records: &[(u64, i64)], bytes_max: usize) -> Window {
        let mut window = Window::new(records[0].0, bytes_max);
        let mut gather = Gather::new(100);
        for (offset, time) in records {
            gather.push(&mut window, *offset, Millis(*time), |batch| batch.push(b"key", Some(b"value"), Millis(0)));
        }
        gather.close(&mut window);
        window
    }

    fn offsets(fetched: &Fetched) -> (Vec<u64>, u64) {
        (fetched.records().map(|record| record.offset.0).collect(), fetched.next.0)
    }

    #[test]
    fn readers_are_served_from_any_place_that_it_covers() {
        let mut window = window(&[(3, 7), (4, 7), (6, 7), (7, 9), (8, 9)], 10_000);
        window.reach(11);
        assert_eq!(offsets(&window.serve(3, usize::MAX)), (vec![3, 4, 6, 7, 8], 11));
        assert_eq!(offsets(&window.serve(5, usize::MAX)), (vec![6, 7, 8], 11), "from within a gap");
        assert_eq!(offsets(&window.serve(9, usize::MAX)), (vec![], 11), "from past the last record");
        assert_eq!(offsets(&window.serve(3, 0)), (vec![3], 4), "at least one");
        assert_eq!(offsets(&window.serve(3, 60)), (vec![3, 4], 5), "about as much as was asked for");
        let times: Vec<i64> = window.serve(3, usize::MAX).records().map(|record| record.append_time.0).collect();
        assert_eq!(times, [7, 7, 7, 9, 9]);
        assert!(window.has_at(8) && !window.has_at(9) && window.covers(11) && !window.covers(2) && !window.covers(12));
    }

    #[test]
    fn the_oldest_are_dropped_and_the_newest_always_kept() {
        let records: Vec<(u64, i64)> = (0..100).map(|offset| (offset, offset as i64)).collect();
        let window = window(&records, 100);
        assert!(!window.covers(90) && window.covers(99) && window.next() == 100);
        assert_eq!(offsets(&window.serve(99, 1)), (vec![99], 100));
    }
}
