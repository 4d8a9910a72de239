//! Daily roll-ups per tenant and UTC day of the event's own time: events by name, actives.
//!
//! Incremental and exact: a batch's counts are added up here and then added to the stored ones; actives are one row per (day, subject),
//! inserted or ignored, and a trigger counts those that are new.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};
use sqlx::sqlite::SqliteConnection;

use super::Who;
use crate::projections::bulk::{Cell, Statement};
use crate::projections::{Error, day};
use crate::schema::records::EventBody;

#[derive(Debug)]
pub struct Daily {
    insert_events: Statement,
    insert_totals: Statement,
    insert_actives: Statement,
    days: FxHashMap<String, BTreeMap<i64, Day>>,
}

#[derive(Debug, Default)]
struct Day {
    events: i64,
    names: FxHashMap<String, i64>,
    subjects: FxHashSet<String>,
}

impl Daily {
    pub fn new() -> Self {
        Self {
            insert_events: Statement::new(
                "daily_events",
                "INSERT INTO",
                &["tenant_id", "day", "event_name", "events"],
                "ON CONFLICT DO UPDATE SET events = events + excluded.events",
            ),
            insert_totals: Statement::new(
                "daily_totals",
                "INSERT INTO",
                &["tenant_id", "day", "events"],
                "ON CONFLICT DO UPDATE SET events = events + excluded.events",
            ),
            insert_actives: Statement::new("daily_actives", "INSERT OR IGNORE INTO", &["tenant_id", "day", "subject"], ""),
            days: FxHashMap::default(),
        }
    }

    pub fn add(&mut self, who: Who<'_>, event: &EventBody<'_>) {
        let days = entry(&mut self.days, who.tenant);
        let day = days.entry(day::of(event.event_time)).or_default();
        day.events += 1;
        *entry(&mut day.names, event.name) += 1;
        if !day.subjects.contains(who.subject) {
            day.subjects.insert(who.subject.to_owned());
        }
    }

    pub async fn write(&mut self, connection: &mut SqliteConnection) -> Result<(), Error> {
        let (mut events, mut totals, mut actives) = (Vec::new(), Vec::new(), Vec::new());
        for (tenant, days) in sorted(std::mem::take(&mut self.days)) {
            for (day, counts) in days {
                let key = || [Cell::from(tenant.as_str()), Cell::Text(day::text(day))];
                totals.extend(key().into_iter().chain([counts.events.into()]));
                for (name, count) in sorted(counts.names) {
                    events.extend(key().into_iter().chain([Cell::Text(name), count.into()]));
                }
                let mut subjects: Vec<String> = counts.subjects.into_iter().collect();
                subjects.sort_unstable();
                for subject in subjects {
                    actives.extend(key().into_iter().chain([Cell::Text(subject)]));
                }
            }
        }
        self.insert_totals.write(connection, totals).await?;
        self.insert_events.write(connection, events).await?;
        self.insert_actives.write(connection, actives).await
    }
}

/// The value under `key`, made if missing; allocates only then.
fn entry<'m, V: Default>(map: &'m mut FxHashMap<String, V>, key: &str) -> &'m mut V {
    if !map.contains_key(key) {
        map.insert(key.to_owned(), V::default());
    }
    map.get_mut(key).expect("inserted above")
}

/// Rows go in by key, so that neighbours share pages and two runs write the same file.
fn sorted<V>(map: FxHashMap<String, V>) -> BTreeMap<String, V> {
    map.into_iter().collect()
}
