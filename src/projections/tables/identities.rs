//! `identities`: which user each anonymous id belongs to, from when; a record replaces all ties of its key.

use std::collections::BTreeMap;

use super::Who;
use crate::projections::Error;
use crate::projections::bulk::{Cell, Statement};
use crate::projections::store::Store;
use crate::schema::records::Tie;

#[derive(Debug)]
pub struct Identities {
    gone: Statement,
    insert: Statement,
    /// By (tenant, anonymous id), the latest record of each.
    ties: BTreeMap<(String, String), Vec<Tie>>,
}

impl Identities {
    pub fn new() -> Self {
        let columns = ["tenant_id", "anonymous_id", "ordinal", "user_id", "since"];
        Self {
            gone: Statement::deleting("identities", &["tenant_id", "anonymous_id"]),
            insert: Statement::replace("identities", &columns, &["tenant_id", "anonymous_id", "ordinal"]),
            ties: BTreeMap::new(),
        }
    }

    pub fn set(&mut self, who: Who<'_>, ties: Vec<Tie>) {
        self.ties.insert((who.tenant.to_owned(), who.id.to_owned()), ties);
    }

    pub async fn write(&mut self, store: &mut Store) -> Result<(), Error> {
        let (mut gone, mut cells) = (Vec::new(), Vec::new());
        for ((tenant, anonymous_id), ties) in std::mem::take(&mut self.ties) {
            gone.extend([tenant.as_str(), anonymous_id.as_str()].map(Cell::from));
            for (ordinal, tie) in ties.into_iter().enumerate() {
                let key = [Cell::Text(tenant.clone()), Cell::Text(anonymous_id.clone()), Cell::Int(ordinal as i64)];
                cells.extend(key.into_iter().chain([Cell::Text(tie.user_id), tie.from.into()]));
            }
        }
        store.write(&self.gone, gone).await?;
        store.write(&self.insert, cells).await
    }
}
