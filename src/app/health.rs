//! What the gateway asks of those behind it: a person's profile, and whether everything is ready and well.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::vitals::Vitals;
use crate::domain::{Namespace, Subject, TenantId};
use crate::env::Clock;
use crate::gateway::{ProfileAnswer, ProfileReader, ReadError, Readiness, Reason};
use crate::log::LogWriter;
use crate::projections::{self, Place, Reader};
use crate::stream::NamespaceClock;

/// Profiles from the read models.
pub(super) struct Profiles(BTreeMap<Namespace, Reader>);

impl Profiles {
    pub(super) fn of(place: &Place, namespaces: &[(Namespace, NamespaceClock)]) -> Self {
        let reader = |(namespace, _): &(Namespace, NamespaceClock)| (namespace.clone(), Reader::new(place, namespace));
        Self(namespaces.iter().map(reader).collect())
    }
}

impl ProfileReader for Profiles {
    fn profile<'a>(&'a self, namespace: &'a Namespace, tenant: &'a TenantId, subject: &'a Subject) -> ProfileAnswer<'a> {
        Box::pin(async move {
            let Some(reader) = self.0.get(namespace) else { return Ok(None) };
            match reader.profile(tenant, subject).await {
                Ok(profile) => Ok(profile.map(|profile| profile.to_string())),
                // A new folder has none for a moment, a restored one until it is built.
                Err(projections::Error::Missing(_)) => Err(ReadError::NotYet),
                Err(error) => Err(ReadError::Failed(error.to_string())),
            }
        })
    }
}

pub(super) struct Health {
    pub(super) log: Arc<dyn LogWriter>,
    pub(super) vitals: Arc<OnceLock<Vec<Vitals>>>,
    pub(super) clock: Arc<dyn Clock>,
    /// A loop that stands still is then as good as none.
    pub(super) needs_loops: bool,
}

impl Readiness for Health {
    fn not_ready(&self) -> Vec<Reason> {
        let log = self.log.health().err().map(|error| Reason { component: "log".to_owned(), reason: error.to_string() });
        let loops = if self.needs_loops { self.degraded() } else { Vec::new() };
        log.into_iter().chain(loops).collect()
    }

    fn degraded(&self) -> Vec<Reason> {
        let Some(vitals) = self.vitals.get() else {
            let reason = "state and folds are starting; events are taken meanwhile".to_owned();
            return vec![Reason { component: "stream".to_owned(), reason }];
        };
        vitals.iter().flat_map(Vitals::degraded).collect()
    }

    fn intake_lag_ms(&self, namespace: &Namespace) -> u64 {
        // What is not known yet is not small.
        let Some(vitals) = self.vitals.get() else { return u64::MAX };
        let vitals = vitals.iter().find(|vitals| vitals.namespace == *namespace);
        vitals.map_or(0, |vitals| vitals.intake_lag_ms(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Engine, Folder};
    use super::*;
    use crate::config::Config;

    async fn engine(dir: &tempfile::TempDir) -> Engine {
        let mut config = Config::default();
        config.data.dir = dir.path().to_owned();
        tokio::task::spawn_blocking(move || Engine::start(&config)).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_profile_asked_for_before_there_is_a_read_model_is_not_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let main = Namespace::new("main").unwrap();
        let profiles = Profiles::of(&Folder::new(dir.path()).read().into(), &[(main.clone(), NamespaceClock::Wall)]);
        let tenant = TenantId::new("default").unwrap();
        assert_eq!(profiles.profile(&main, &tenant, &Subject::user("ada")).await, Err(ReadError::NotYet));
    }

    #[tokio::test]
    async fn what_is_starting_is_degraded_and_ready() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(&dir).await;
        let health =
            Health { log: Arc::clone(&engine.log) as _, vitals: Arc::default(), clock: Arc::clone(&engine.clock), needs_loops: false };
        assert_eq!((health.not_ready(), health.degraded().len()), (Vec::new(), 1));
    }

    #[tokio::test]
    async fn a_log_that_takes_nothing_is_not_ready() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(&dir).await;
        let log = Arc::clone(&engine.log);
        let health = Health {
            log: Arc::clone(&log) as _,
            vitals: Arc::new(OnceLock::from(Vec::new())),
            clock: Arc::clone(&engine.clock),
            needs_loops: false,
        };
        assert_eq!(health.not_ready(), []);
        log.close();
        let reasons = health.not_ready();
        assert_eq!((reasons.len(), reasons[0].component.as_str()), (1, "log"));
    }
}
