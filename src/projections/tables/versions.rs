//! `wf_publications`: when which version of a workflow was brought into force, by whom, and until when.

use crate::domain::Offset;
use crate::projections::Error;
use crate::projections::bulk::Cell;
use crate::projections::store::Store;
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

    pub async fn write(&mut self, store: &mut Store) -> Result<(), Error> {
        for Word { place, tenant, workflow, digest, about, at, by } in self.words.drain(..) {
            let over = "UPDATE wf_publications SET is_over = TRUE, retired_at = ?, retired_by = ? WHERE tenant_id = ? AND workflow = ? AND NOT is_over";
            let cells = vec![at.into(), by.clone().into(), tenant.as_str().into(), workflow.as_str().into()];
            store.execute("wf_publications", over, cells).await?;
            if digest.is_empty() {
                continue;
            }
            let new = "INSERT INTO wf_publications (publication_ref, tenant_id, workflow, digest, about, published_at, published_by) \
                       VALUES (?, ?, ?, ?, ?, ?, ?)";
            let texts = [tenant, workflow, digest, about].map(Cell::Text);
            let cells = [Cell::Int(place)].into_iter().chain(texts).chain([at.into(), by.into()]);
            store.execute("wf_publications", new, cells.collect()).await?;
        }
        Ok(())
    }
}
