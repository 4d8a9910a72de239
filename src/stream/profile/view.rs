//! People read from a store, outside of any fold: for tests of topologies and for tools.

use std::sync::Arc;

use super::person::Person as Stored;
use crate::domain::{Millis, PartitionId, SubjectKey};
use crate::features::Profile;
use crate::models::View;
use crate::segments::{Lookup, Value};
use crate::state::StateStore;
use crate::stream::topology::{Field, Person, Topology};
use crate::stream::{Error, Topic, Topics};

/// How many people are read at a time.
const PAGE: usize = 1_000;

/// One person with the rules to read them by.
pub struct Owned {
    pub profile: Profile,
    topology: Arc<Topology>,
}

impl Owned {
    fn view(&self) -> View<'_> {
        View { profile: &self.profile, rules: &self.topology.rules, models: &self.topology.models }
    }
}

impl Lookup<Field> for Owned {
    fn value(&self, field: &Field, now: Millis) -> Value<'_> {
        // Not through `Person`, whose values live no longer than itself.
        match field {
            Field::Known(id) => Person::known(self.view().value(id, now)),
            Field::Trait { name, ty } => Person::trait_of(&self.profile, name, *ty),
        }
    }

    fn next_change(&self, field: &Field, after: Millis) -> Option<Millis> {
        Person(self.view()).next_change(field, after)
    }
}

/// Everyone whom a partition's stored table holds, in key order, except those who became someone else.
pub fn people(
    state: &dyn StateStore,
    topics: &Topics,
    partition: PartitionId,
    topology: &Arc<Topology>,
) -> Result<Vec<(SubjectKey, Owned)>, Error> {
    let table = super::table(topics, partition, topics.incarnation(Topic::Events));
    let mut people = Vec::new();
    let mut after: Option<bytes::Bytes> = None;
    loop {
        let page = state.scan(&table, after.as_deref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(people) };
        after = Some(last.clone());
        for (key, state) in page {
            let person = Stored::decode(&state.state)?;
            let Ok(key) = SubjectKey::from_bytes(key) else { continue };
            if person.heirs.is_empty() {
                people.push((key, Owned { profile: person.profile, topology: Arc::clone(topology) }));
            }
        }
    }
}
