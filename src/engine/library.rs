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
    /// Of the whole namespace.
    #[serde(flatten)]
    everyones: Own,
    /// Every workflow that ever was: runs may be on it.
    known: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    of_tenants: BTreeMap<String, Own>,
}

/// What the namespace has for everyone, or a tenant for its own subjects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Own {
    workflows: BTreeMap<String, String>,
    policy: Option<String>,
}

impl InForce {
    /// Takes in an activation; false if it is of a kind that is no business of workflows.
    pub(super) fn hear(&mut self, activated: &Activated<'_>) -> bool {
        if ![KIND_WORKFLOW, KIND_POLICY].contains(&activated.kind) {
            return false;
        }
        let own = match activated.tenant {
            "" => &mut self.everyones,
            tenant => self.of_tenants.entry(tenant.to_owned()).or_default(),
        };
        match activated.kind {
            KIND_POLICY => own.policy = Some(activated.digest.to_owned()).filter(|digest| !digest.is_empty()),
            _ if activated.digest.is_empty() => drop(own.workflows.remove(activated.name)),
            _ => {
                own.workflows.insert(activated.name.to_owned(), activated.digest.to_owned());
                if !self.known.iter().any(|digest| digest == activated.digest) {
                    self.known.push(activated.digest.to_owned());
                }
            }
        }
        true
    }
}

/// The definitions themselves.
pub(super) struct Definitions {
    texts: Arc<stream::Library>,
    pub(super) library: Library,
    everyones: Policy,
    /// Those of tenants who have one of their own.
    of_tenants: BTreeMap<String, Policy>,
}

impl Definitions {
    pub(super) fn new(texts: Arc<stream::Library>) -> Self {
        Self { texts, library: Library::default(), everyones: Policy::shipped(), of_tenants: BTreeMap::new() }
    }

    /// Brings what is in force into the library.
    pub(super) fn follow(&mut self, in_force: &InForce) -> Result<(), Error> {
        let mut library = Library::default();
        for digest in &in_force.known {
            library.add(self.texts.workflow(parse(digest)?)?);
        }
        for digest in in_force.everyones.workflows.values() {
            library.activate(self.texts.workflow(parse(digest)?)?);
        }
        let mut of_tenants = BTreeMap::new();
        for (tenant, own) in &in_force.of_tenants {
            for digest in own.workflows.values() {
                library.activate_for(tenant, self.texts.workflow(parse(digest)?)?);
            }
            if let Some(digest) = &own.policy {
                of_tenants.insert(tenant.clone(), self.policy(digest)?);
            }
        }
        self.everyones = in_force.everyones.policy.as_deref().map_or_else(|| Ok(Policy::shipped()), |digest| self.policy(digest))?;
        (self.library, self.of_tenants) = (library, of_tenants);
        Ok(())
    }

    fn policy(&self, digest: &str) -> Result<Policy, Error> {
        let text = self.texts.text(KIND_POLICY, parse(digest)?)?;
        Policy::parse(digest, &text).map_err(|problems| bad(digest, &problems))
    }

    /// What permits and approvals of this tenant's subjects are decided by.
    pub(super) fn policy_of(&self, tenant: &str) -> &Policy {
        self.of_tenants.get(tenant).unwrap_or(&self.everyones)
    }
}

fn parse(digest: &str) -> Result<Digest, Error> {
    Digest::from_hex(digest).ok_or_else(|| bad(digest, &"it is no digest"))
}

fn bad(digest: &str, detail: &dyn std::fmt::Display) -> Error {
    Error::BadDefinition { digest: digest.to_owned(), detail: detail.to_string() }
}
