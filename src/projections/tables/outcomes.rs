//! `outcomes`, `outcome_totals`, `outcome_coverage` and `dead_letters`: what became of every inbound record.
//!
//! Totals are by kind and reason and always add up to the records covered: what a tally counts without listing is under no reason.

use std::collections::BTreeMap;

use super::Who;
use crate::domain::Offset;
use crate::projections::Error;
use crate::projections::bulk::{Cell, Statement};
use crate::projections::store::Store;
use crate::schema;
use crate::schema::records::{BatchOutcomes, DeadLetter, IntakeRecord};

#[derive(Debug)]
pub struct Outcomes {
    insert_outcomes: Statement,
    insert_totals: Statement,
    insert_coverage: Statement,
    insert_dead: Statement,
    outcomes: Vec<Cell>,
    /// Records by (stage, kind, reason).
    totals: BTreeMap<(String, String, String), i64>,
    /// By (stage, partition).
    coverage: BTreeMap<(String, i64), Stretch>,
    dead: Vec<Cell>,
}

/// What the batch's tallies of one partition cover, from the first to the last.
#[derive(Debug, Default)]
struct Stretch {
    from: i64,
    to: i64,
    records: i64,
    /// Times that a tally began beyond the end of the one before.
    gaps: i64,
}

impl Outcomes {
    pub fn new() -> Self {
        let outcome_columns = ["stage", "log_partition", "log_offset", "message_id", "kind", "reason", "at", "tenant_id"];
        let coverage_columns = ["stage", "partition", "from_offset", "to_offset", "records", "gaps"];
        let add_up = "gaps = outcome_coverage.gaps + excluded.gaps \
                      + CASE WHEN excluded.from_offset > outcome_coverage.to_offset THEN 1 ELSE 0 END, \
                      to_offset = CASE WHEN excluded.to_offset > outcome_coverage.to_offset THEN excluded.to_offset \
                      ELSE outcome_coverage.to_offset END, records = outcome_coverage.records + excluded.records";
        let dead_columns = [
            "tenant_id",
            "subject",
            "topic",
            "origin_incarnation",
            "origin_partition",
            "origin_offset",
            "stage",
            "reason",
            "detail",
            "message_id",
            "at",
            "body",
            "log_partition",
            "log_offset",
        ];
        Self {
            insert_outcomes: Statement::replace("outcomes", &outcome_columns, &["stage", "log_partition", "log_offset"]),
            insert_totals: Statement::add("outcome_totals", &["stage", "kind", "reason", "records"], &["stage", "kind", "reason"]),
            insert_coverage: Statement::set("outcome_coverage", &coverage_columns, &["stage", "partition"], add_up),
            insert_dead: Statement::insert("dead_letters", &dead_columns),
            outcomes: Vec::new(),
            totals: BTreeMap::new(),
            coverage: BTreeMap::new(),
            dead: Vec::new(),
        }
    }

    pub fn add_batch(&mut self, batch: &BatchOutcomes) {
        let mut unlisted = BTreeMap::from([
            ("applied", batch.applied),
            ("duplicate", batch.duplicate),
            ("filtered", batch.filtered),
            ("dead_lettered", batch.dead_lettered),
            ("control", batch.control),
        ]);
        for exception in &batch.exceptions {
            let row: [Cell; 8] = [
                batch.stage.as_str().into(),
                i64::from(batch.partition).into(),
                exception.offset.into(),
                exception.message_id.as_str().into(),
                exception.kind.as_str().into(),
                exception.reason.as_str().into(),
                batch.at.into(),
                Cell::text_or_null(&exception.tenant),
            ];
            self.outcomes.extend(row);
            if let Some(count) = unlisted.get_mut(exception.kind.as_str()) {
                *count -= 1;
            }
            *self.total(&batch.stage, &exception.kind, &exception.reason) += 1;
        }
        for (kind, count) in unlisted {
            if count != 0 {
                *self.total(&batch.stage, kind, "") += count;
            }
        }
        let key = (batch.stage.clone(), i64::from(batch.partition));
        let fresh = Stretch { from: batch.from_offset, to: batch.from_offset, ..Stretch::default() };
        let stretch = self.coverage.entry(key).or_insert(fresh);
        stretch.gaps += i64::from(batch.from_offset > stretch.to);
        stretch.to = stretch.to.max(batch.to_offset);
        stretch.records += batch.records;
    }

    fn total(&mut self, stage: &str, kind: &str, reason: &str) -> &mut i64 {
        self.totals.entry((stage.to_owned(), kind.to_owned(), reason.to_owned())).or_default()
    }

    pub fn add_dead_letter(&mut self, key: &[u8], letter: &DeadLetter<'_>, partition: u32, offset: Offset) {
        let (tenant, subject) = Who::parse(key).map_or(("", ""), |who| (who.tenant, who.subject));
        // The body is there to be read; what is sent again comes from the log, so one that will not decode is no loss.
        let body = match schema::decode::<IntakeRecord<'_>>(letter.value) {
            Ok(IntakeRecord::Item(item)) => item.body,
            _ => "",
        };
        let row: [Cell; 14] = [
            Cell::text_or_null(tenant),
            Cell::text_or_null(subject),
            letter.topic.into(),
            i64::from(letter.origin.incarnation).into(),
            i64::from(letter.origin.partition).into(),
            letter.origin.offset.into(),
            letter.stage.into(),
            letter.reason.into(),
            letter.detail.into(),
            Cell::text_or_null(letter.message_id),
            letter.at.into(),
            Cell::text_or_null(body),
            i64::from(partition).into(),
            (offset.0 as i64).into(),
        ];
        self.dead.extend(row);
    }

    pub async fn write(&mut self, store: &mut Store) -> Result<(), Error> {
        store.write(&self.insert_outcomes, std::mem::take(&mut self.outcomes)).await?;
        let mut totals = Vec::new();
        for ((stage, kind, reason), records) in std::mem::take(&mut self.totals) {
            totals.extend([Cell::Text(stage), Cell::Text(kind), Cell::Text(reason), records.into()]);
        }
        store.write(&self.insert_totals, totals).await?;
        let mut coverage = Vec::new();
        for ((stage, partition), stretch) in std::mem::take(&mut self.coverage) {
            let numbers = [partition, stretch.from, stretch.to, stretch.records, stretch.gaps].map(Cell::Int);
            coverage.extend([Cell::Text(stage)].into_iter().chain(numbers));
        }
        store.write(&self.insert_coverage, coverage).await?;
        store.write(&self.insert_dead, std::mem::take(&mut self.dead)).await
    }
}
