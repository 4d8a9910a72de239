//! `identities`: which user each anonymous id belongs to, from when; a record replaces all ties of its key.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteConnection;

use super::Who;
use crate::projections::Error;
use crate::projections::bulk::{Cell, Statement};
use crate::schema::records::Tie;

#[derive(Debug)]
pub struct Identities {
    insert: Statement,
    /// By (tenant, anonymous id), the latest record of each.
    ties: BTreeMap<(String, String), Vec<Tie>>,
}

impl Identities {
    pub fn new() -> Self {
        let columns = ["tenant_id", "anonymous_id", "ordinal", "user_id", "since"];
        Self { insert: Statement::new("identities", "INSERT INTO", &columns, ""), ties: BTreeMap::new() }
    }

    pub fn set(&mut self, who: Who<'_>, ties: Vec<Tie>) {
        self.ties.insert((who.tenant.to_owned(), who.id.to_owned()), ties);
    }

    pub async fn write(&mut self, connection: &mut SqliteConnection) -> Result<(), Error> {
        let mut cells = Vec::new();
        for ((tenant, anonymous_id), ties) in std::mem::take(&mut self.ties) {
            let gone = sqlx::query("DELETE FROM identities WHERE tenant_id = ? AND anonymous_id = ?");
            let gone = gone.bind(tenant.clone()).bind(anonymous_id.clone());
            gone.execute(&mut *connection).await.map_err(Error::sql("identities"))?;
            for (ordinal, tie) in ties.into_iter().enumerate() {
                let key = [Cell::Text(tenant.clone()), Cell::Text(anonymous_id.clone()), Cell::Int(ordinal as i64)];
                cells.extend(key.into_iter().chain([Cell::Text(tie.user_id), tie.from.into()]));
            }
        }
        self.insert.write(connection, cells).await
    }
}
