//! `wf_publications`: when which version of a workflow was brought into force, by whom, and until when.

use sqlx::sqlite::SqliteConnection;

use crate::domain::Offset;
use crate::projections::Error;
use crate::schema::records::Definition;

/// A word about a workflow. They are few, so that each is a statement of its own.
#[derive(Debug)]
struct Word {
    place: i64,
    tenant: String,
    workflow: String,
    /// Empty: it is retired.
    digest: String,
    about: String,
    at: Option<i64>,
    by: Option<String>,
}

#[derive(Debug, Default)]
pub struct Versions {
    words: Vec<Word>,
}

impl Versions {
    /// Whether it is about a workflow.
    pub fn add(&mut self, definition: &Definition<'_>, offset: Offset) -> bool {
        if definition.kind != "workflow" {
            return false;
        }
        let text = |text: &str| text.to_owned();
        self.words.push(Word {
            place: offset.0 as i64,
            tenant: text(definition.tenant),
            workflow: text(definition.name),
            digest: text(definition.digest),
            about: text(definition.about),
            at: Some(definition.at).filter(|at| *at != 0),
            by: Some(text(definition.by)).filter(|by| !by.is_empty()),
        });
        true
    }

    pub async fn write(&mut self, connection: &mut SqliteConnection) -> Result<(), Error> {
        for Word { place, tenant, workflow, digest, about, at, by } in self.words.drain(..) {
            let over = "UPDATE wf_publications SET is_over = 1, retired_at = ?, retired_by = ? WHERE tenant_id = ? AND workflow = ? AND NOT is_over";
            let over = sqlx::query(over).bind(at).bind(by.clone()).bind(tenant.clone()).bind(workflow.clone());
            over.execute(&mut *connection).await.map_err(Error::sql("wf_publications"))?;
            if digest.is_empty() {
                continue;
            }
            let new = "INSERT INTO wf_publications (publication_ref, tenant_id, workflow, digest, about, published_at, published_by) \
                       VALUES (?, ?, ?, ?, ?, ?, ?)";
            let new = sqlx::query(new).bind(place).bind(tenant).bind(workflow).bind(digest).bind(about).bind(at).bind(by);
            new.execute(&mut *connection).await.map_err(Error::sql("wf_publications"))?;
        }
        Ok(())
    }
}
