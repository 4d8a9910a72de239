//! Daily roll-ups per tenant and UTC day of the event's own time: events by name, actives, orders and revenue by currency.
//!
//! Incremental and exact: a batch's counts are added up here and then added to the stored ones; actives are one row per (day, subject),
//! inserted or ignored, and a trigger counts those that are new.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::Who;
use crate::domain::{Currency, Money};
use crate::features::{RawEvent, Rules, extract};
use crate::projections::bulk::{Cell, Statement};
use crate::projections::store::Store;
use crate::projections::{Error, day};
use crate::schema::records::EventBody;

#[derive(Debug)]
pub struct Daily {
    insert_events: Statement,
    insert_totals: Statement,
    insert_actives: Statement,
    insert_revenue: Statement,
    rules: Arc<Rules>,
    days: FxHashMap<String, BTreeMap<i64, Day>>,
}

#[derive(Debug, Default)]
struct Day {
    events: i64,
    names: FxHashMap<String, i64>,
    subjects: FxHashSet<String>,
    revenue: BTreeMap<Currency, Sales>,
}

#[derive(Debug, Default)]
struct Sales {
    orders: i64,
    revenue: Money,
    refunds: Money,
}

impl Daily {
    pub fn new(rules: Arc<Rules>) -> Self {
        Self {
            insert_events: Statement::add(
                "daily_events",
                &["tenant_id", "day", "event_name", "events"],
                &["tenant_id", "day", "event_name"],
            ),
            insert_totals: Statement::add("daily_totals", &["tenant_id", "day", "events"], &["tenant_id", "day"]),
            insert_actives: Statement::keep("daily_actives", &["tenant_id", "day", "subject"], &["tenant_id", "day", "subject"]),
            insert_revenue: Statement::add(
                "daily_revenue",
                &["tenant_id", "day", "currency", "orders", "revenue_micros", "refunds_micros"],
                &["tenant_id", "day", "currency"],
            ),
            rules,
            days: FxHashMap::default(),
        }
    }

    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    pub fn add(&mut self, who: Who<'_>, event: &EventBody<'_>) {
        let days = entry(&mut self.days, who.tenant);
        let day = days.entry(day::of(event.event_time)).or_default();
        day.events += 1;
        *entry(&mut day.names, event.name) += 1;
        if !day.subjects.contains(who.subject) {
            day.subjects.insert(who.subject.to_owned());
        }
        let rule = self.rules.event(event.name);
        if event.kind == "track" && (rule.order || rule.refund) {
            day.sell(event, &self.rules);
        }
    }

    pub async fn write(&mut self, store: &mut Store) -> Result<(), Error> {
        let (mut events, mut totals, mut actives, mut revenue) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (tenant, days) in sorted(std::mem::take(&mut self.days)) {
            for (day, counts) in days {
                let key = || [Cell::from(tenant.as_str()), Cell::Text(day::text(day))];
                totals.extend(key().into_iter().chain([counts.events.into()]));
                for (name, count) in sorted(counts.names) {
                    events.extend(key().into_iter().chain([Cell::Text(name), count.into()]));
                }
                for (currency, sales) in counts.revenue {
                    let amounts = [sales.orders, sales.revenue.0, sales.refunds.0].map(Cell::Int);
                    revenue.extend(key().into_iter().chain([currency.as_str().into()]).chain(amounts));
                }
                let mut subjects: Vec<String> = counts.subjects.into_iter().collect();
                subjects.sort_unstable();
                for subject in subjects {
                    actives.extend(key().into_iter().chain([Cell::Text(subject)]));
                }
            }
        }
        store.write(&self.insert_totals, totals).await?;
        store.write(&self.insert_events, events).await?;
        store.write(&self.insert_revenue, revenue).await?;
        store.write(&self.insert_actives, actives).await
    }
}

impl Day {
    /// The same extraction as the profile's monetary features, so that both agree to the cent.
    fn sell(&mut self, event: &EventBody<'_>, rules: &Rules) {
        let raw = RawEvent { kind: event.kind, name: event.name, event_time: event.event_time, properties: event.properties, context: "" };
        let seen = extract(&raw, rules);
        let sales = self.revenue.entry(seen.currency.unwrap_or(rules.currency)).or_default();
        if seen.rule.order {
            sales.orders += 1;
            sales.revenue = sales.revenue.saturating_add(seen.amount);
        }
        if seen.rule.refund {
            sales.refunds = sales.refunds.saturating_add(seen.amount);
        }
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
