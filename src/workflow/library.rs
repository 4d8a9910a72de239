//! The definitions that decisions are made under, by digest and by the names that new entries go by: everyone's, and each tenant's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::definition::Definition;
use crate::domain::Digest;

/// The definitions that decisions are made under: all that runs are on, and which of each name takes new entries.
#[derive(Debug, Clone, Default)]
pub struct Library {
    /// Keyed as runs name it, in hex: every step of a run looks here.
    by_digest: BTreeMap<String, Arc<Definition>>,
    /// Names to digests: of everyone's.
    active: BTreeMap<String, String>,
    /// The same of each tenant's own.
    of_tenants: BTreeMap<String, BTreeMap<String, String>>,
}

impl Library {
    /// Knows `definition`, for runs that are on it.
    pub fn add(&mut self, definition: Arc<Definition>) {
        self.by_digest.insert(definition.digest.to_hex(), definition);
    }

    /// Knows `definition` and sends new entries of everyone to it. Runs in progress stay where they are.
    pub fn activate(&mut self, definition: Arc<Definition>) {
        self.active.insert(definition.name.clone(), definition.digest.to_hex());
        self.add(definition);
    }

    /// The same for new entries of one tenant's subjects only.
    pub fn activate_for(&mut self, tenant: &str, definition: Arc<Definition>) {
        self.of_tenants.entry(tenant.to_owned()).or_default().insert(definition.name.clone(), definition.digest.to_hex());
        self.add(definition);
    }

    /// Sends no new entries to everyone's workflow of this name. Runs in progress stay where they are.
    pub fn retire(&mut self, name: &str) {
        self.active.remove(name);
    }

    pub fn get(&self, digest: &Digest) -> Option<&Arc<Definition>> {
        self.by_digest.get(&digest.to_hex())
    }

    /// By the digest as runs and facts name it.
    pub(super) fn of(&self, digest: &str) -> Option<&Arc<Definition>> {
        self.by_digest.get(digest)
    }

    /// What a subject of this tenant would enter under a name: the tenant's own, else everyone's.
    pub fn active(&self, tenant: &str, name: &str) -> Option<&Arc<Definition>> {
        let own = self.of_tenants.get(tenant).and_then(|own| own.get(name));
        self.by_digest.get(own.or_else(|| self.active.get(name))?)
    }

    /// Everything that a subject of this tenant may enter, each name once.
    pub fn active_for(&self, tenant: &str) -> impl Iterator<Item = &Arc<Definition>> {
        let own = self.of_tenants.get(tenant);
        let everyones = self.active.iter().filter(move |(name, _)| own.is_none_or(|own| !own.contains_key(*name)));
        everyones
            .map(|(_, digest)| digest)
            .chain(own.into_iter().flat_map(BTreeMap::values))
            .filter_map(|digest| self.by_digest.get(digest))
    }

    /// Everything that takes entries, with the tenant whose own it is.
    pub fn all_active(&self) -> impl Iterator<Item = (Option<&str>, &Arc<Definition>)> {
        let own = self.of_tenants.iter().flat_map(|(tenant, own)| own.values().map(move |digest| (Some(tenant.as_str()), digest)));
        let all = self.active.values().map(|digest| (None, digest)).chain(own);
        all.filter_map(|(tenant, digest)| Some((tenant, self.by_digest.get(digest)?)))
    }
}
