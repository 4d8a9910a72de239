//! `outcomes`, `outcome_totals`, `outcome_coverage` and `dead_letters`: what became of every inbound record.
//!
//! Totals are by kind and reason and always add up to the records covered: what a tally counts without listing is under no reason.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteConnection;

use super::Who;
use crate::domain::Offset;
use crate::projections::Error;
use crate::projections::bulk::{Cell, Statement};
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
    coverage: Vec<Cell>,
    dead: Vec<Cell>,
}

impl Outcomes {
    pub fn new() -> Self {
        let outcome_columns = ["stage", "log_partition", "log_offset", "message_id", "kind", "reason", "at", "tenant_id"];
        let coverage_columns = ["stage", "partition", "from_offset", "to_offset", "records"];
        let add_up = "ON CONFLICT DO UPDATE SET gaps = gaps + (excluded.from_offset > to_offset), \
                      to_offset = max(to_offset, excluded.to_offset), records = records + excluded.records";
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
            insert_outcomes: Statement::new("outcomes", "INSERT OR REPLACE INTO", &outcome_columns, ""),
            insert_totals: Statement::new(
                "outcome_totals",
                "INSERT INTO",
                &["stage", "kind", "reason", "records"],
                "ON CONFLICT DO UPDATE SET records = records + excluded.records",
            ),
            insert_coverage: Statement::new("outcome_coverage", "INSERT INTO", &coverage_columns, add_up),
            insert_dead: Statement::new("dead_letters", "INSERT INTO", &dead_columns, ""),
            outcomes: Vec::new(),
            totals: BTreeMap::new(),
            coverage: Vec::new(),
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
        let stretch: [Cell; 5] = [
            batch.stage.as_str().into(),
            i64::from(batch.partition).into(),
            batch.from_offset.into(),
            batch.to_offset.into(),
            batch.records.into(),
        ];
        self.coverage.extend(stretch);
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

    pub async fn write(&mut self, connection: &mut SqliteConnection) -> Result<(), Error> {
        self.insert_outcomes.write(connection, std::mem::take(&mut self.outcomes)).await?;
        let mut totals = Vec::new();
        for ((stage, kind, reason), records) in std::mem::take(&mut self.totals) {
            totals.extend([Cell::Text(stage), Cell::Text(kind), Cell::Text(reason), records.into()]);
        }
        self.insert_totals.write(connection, totals).await?;
        self.insert_coverage.write(connection, std::mem::take(&mut self.coverage)).await?;
        self.insert_dead.write(connection, std::mem::take(&mut self.dead)).await
    }
}
