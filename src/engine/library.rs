//! Which definitions decisions are made under: those that were activated, and those that runs are still on.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::Digest;
use crate::schema::records::Activated;
use crate::stream::{self, Error, KIND_POLICY, KIND_WORKFLOW};
use crate::workflow::{Library, Policy};

/// What is in force, by digest: kept with the states and rebuilt from the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InForce {
    workflows: BTreeMap<String, String>,
    policy: Option<String>,
    /// Every workflow that ever was: runs may be on it.
    known: Vec<String>,
}

impl InForce {
    /// Takes in an activation; false if it is of a kind that is no business of workflows.
    pub(super) fn hear(&mut self, activated: &Activated<'_>) -> bool {
        match activated.kind {
            KIND_WORKFLOW if activated.digest.is_empty() => drop(self.workflows.remove(activated.name)),
            KIND_WORKFLOW => {
                self.workflows.insert(activated.name.to_owned(), activated.digest.to_owned());
                if !self.known.iter().any(|digest| digest == activated.digest) {
                    self.known.push(activated.digest.to_owned());
                }
            }
            KIND_POLICY => self.policy = Some(activated.digest.to_owned()).filter(|digest| !digest.is_empty()),
            _ => return false,
        }
        true
    }
}

/// The definitions themselves.
pub(super) struct Definitions {
    texts: Arc<stream::Library>,
    pub(super) library: Library,
    pub(super) policy: Policy,
}

impl Definitions {
    pub(super) fn new(texts: Arc<stream::Library>) -> Self {
        Self { texts, library: Library::default(), policy: Policy::shipped() }
    }

    /// Brings what is in force into the library.
    pub(super) fn follow(&mut self, in_force: &InForce) -> Result<(), Error> {
        let mut library = Library::default();
        for digest in &in_force.known {
            library.add(self.texts.workflow(parse(digest)?)?);
        }
        for digest in in_force.workflows.values() {
            library.activate(self.texts.workflow(parse(digest)?)?);
        }
        self.library = library;
        self.policy = match &in_force.policy {
            None => Policy::shipped(),
            Some(digest) => {
                let text = self.texts.text(KIND_POLICY, parse(digest)?)?;
                Policy::parse(digest, &text).map_err(|problems| bad(digest, &problems))?
            }
        };
        Ok(())
    }
}

fn parse(digest: &str) -> Result<Digest, Error> {
    Digest::from_hex(digest).ok_or_else(|| bad(digest, &"it is no digest"))
}

fn bad(digest: &str, detail: &dyn std::fmt::Display) -> Error {
    Error::BadDefinition { digest: digest.to_owned(), detail: detail.to_string() }
}
