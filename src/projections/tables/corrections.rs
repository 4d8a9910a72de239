//! `session_corrections`: which sessions late events made one, in the order it was found out.

use super::Who;
use crate::domain::Offset;
use crate::projections::Error;
use crate::projections::bulk::{Cell, Statement};
use crate::projections::store::Store;
use crate::schema::records::CorrectionsRecord;

#[derive(Debug)]
pub struct Corrections {
    insert: Statement,
    cells: Vec<Cell>,
}

impl Corrections {
    pub fn new() -> Self {
        let columns = ["tenant_id", "subject", "first_start", "second_start", "at", "cause", "log_partition", "log_offset"];
        Self { insert: Statement::insert("session_corrections", &columns), cells: Vec::new() }
    }

    pub fn add(&mut self, who: Who<'_>, record: &CorrectionsRecord<'_>, partition: u32, offset: Offset) {
        let CorrectionsRecord::SessionsJoined(joined) = record;
        let row: [Cell; 8] = [
            who.tenant.into(),
            who.subject.into(),
            joined.first_start.into(),
            joined.second_start.into(),
            joined.at.into(),
            joined.cause.into(),
            i64::from(partition).into(),
            (offset.0 as i64).into(),
        ];
        self.cells.extend(row);
    }

    pub async fn write(&mut self, store: &mut Store) -> Result<(), Error> {
        store.write(&self.insert, std::mem::take(&mut self.cells)).await
    }
}
