//! Every record's outcome, counted; and, for the stage that keeps it, the account that goes to `outcomes` with the commit.
//!
//! The account names each record that was not applied. It is cut into several records when it grows, each of which balances by itself.

use super::outputs::Outputs;
use super::worker::balanced;
use super::{Error, Topic};
use crate::domain::{FilterReason, Millis, Offset, Outcome, PartitionId, SubjectKey, Tally};
use crate::log::RecordRef;
use crate::schema::records::{BatchOutcomes, RecordOutcome};

/// Keeps one account well below a record's bound, whatever the message ids.
const EXCEPTION_BYTES_MAX: usize = 256 << 10;

pub(super) struct Account {
    stage: &'static str,
    partition: PartitionId,
    is_kept: bool,
    pages: Vec<Page>,
}

#[derive(Default)]
struct Page {
    from: Offset,
    next: Offset,
    records: u64,
    tally: Tally,
    exceptions: Vec<RecordOutcome>,
    exception_bytes: usize,
}

impl Account {
    pub(super) fn new(stage: &'static str, partition: PartitionId, is_kept: bool) -> Self {
        Self { stage, partition, is_kept, pages: Vec::new() }
    }

    pub(super) fn count(&mut self, record: &RecordRef<'_>, outcome: Outcome, message_id: impl FnOnce() -> String) {
        let offset = record.offset;
        if self.pages.last().is_none_or(|page| page.exception_bytes > EXCEPTION_BYTES_MAX) {
            self.pages.push(Page { from: offset, ..Page::default() });
        }
        let page = self.pages.last_mut().expect("pushed above");
        page.next = offset.next();
        page.records += 1;
        page.tally.count(outcome);
        let is_exception = !matches!(outcome, Outcome::Applied | Outcome::Filtered(FilterReason::Control));
        if self.is_kept && is_exception {
            let (message_id, tenant) = (message_id(), SubjectKey::parts(record.key).map_or_else(String::new, |key| key.tenant.to_owned()));
            page.exception_bytes += message_id.len() + tenant.len() + 64;
            let (kind, reason) = (outcome.kind().to_owned(), outcome.reason().to_owned());
            page.exceptions.push(RecordOutcome { offset: record.offset.0 as i64, message_id, kind, reason, tenant });
        }
    }

    pub(super) fn clear(&mut self) {
        self.pages.clear();
    }

    /// Checks that the counts balance, writes the account, begins anew; returns the whole commit's tally.
    pub(super) fn seal(&mut self, out: &mut Outputs, now: Millis) -> Result<Tally, Error> {
        let mut whole = Tally::default();
        for page in std::mem::take(&mut self.pages) {
            let what = format!("{} partition {}, offsets {}..{}", self.stage, self.partition, page.from, page.next);
            balanced(&what, page.records, &page.tally)?;
            whole.add(&page.tally);
            if self.is_kept {
                let partition = PartitionId(self.partition.0 % out.topics().count(Topic::Outcomes));
                out.push_to(Topic::Outcomes, partition, b"", now, &self.record(page, now))?;
            }
        }
        Ok(whole)
    }

    fn record(&self, page: Page, now: Millis) -> BatchOutcomes {
        let control = page.tally.filtered[FilterReason::Control as usize];
        BatchOutcomes {
            stage: self.stage.to_owned(),
            partition: self.partition.0 as i32,
            from_offset: page.from.0 as i64,
            to_offset: page.next.0 as i64,
            at: now.0,
            records: page.records as i64,
            applied: page.tally.applied as i64,
            duplicate: page.tally.duplicate as i64,
            filtered: (page.tally.filtered.iter().sum::<u64>() - control) as i64,
            dead_lettered: page.tally.dead_lettered.iter().sum::<u64>() as i64,
            control: control as i64,
            exceptions: page.exceptions,
        }
    }
}
