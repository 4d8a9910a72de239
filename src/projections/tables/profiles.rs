//! `profiles`: one row per person, the latest record wins; every feature is a column.
//!
//! Which features there are comes from the record's schema alone, so that a new one needs no change here: the column is added when a
//! file is opened, and filled as profiles change or, for all at once, by a rebuild.

use std::collections::BTreeMap;

use super::Who;
use crate::domain::{Offset, Value};
use crate::projections::Error;
use crate::projections::bulk::{Cell, Statement};
use crate::projections::store::Store;
use crate::schema::profile::{self, ProfileRecord};

/// The columns that every version has; the migrations create them.
const FIXED: [&str; 14] = [
    "tenant_id",
    "subject",
    "user_id",
    "anonymous_id",
    "log_offset",
    "as_of",
    "fold_version",
    "traits",
    "consent",
    "segments",
    "event_counts",
    "currency_totals",
    "funnel_steps",
    "score_reasons",
];

/// (tenant, subject)
type Person = (String, String);

#[derive(Debug)]
pub struct Profiles {
    upsert: Statement,
    gone: Statement,
    /// The batch's latest row of each person; `None` if the record removes them.
    rows: BTreeMap<Person, Option<Vec<Cell>>>,
}

impl Profiles {
    pub fn new() -> Self {
        let columns: Vec<&str> = FIXED.into_iter().chain(profile::columns().iter().map(|column| column.name)).collect();
        let set: Vec<String> = columns[2..].iter().map(|name| format!("{name} = excluded.{name}")).collect();
        let newest = format!("{} WHERE excluded.log_offset >= profiles.log_offset", set.join(", "));
        Self {
            upsert: Statement::set("profiles", &columns, &["tenant_id", "subject"], &newest),
            gone: Statement::deleting("profiles", &["tenant_id", "subject"]),
            rows: BTreeMap::new(),
        }
    }

    pub fn set(&mut self, who: Who<'_>, record: &ProfileRecord<'_>, offset: Offset) {
        let (user_id, anonymous_id) = if who.is_user { (who.id, "") } else { ("", who.id) };
        let mut row = Vec::with_capacity(FIXED.len() + record.features.0.len());
        let fixed: [Cell; FIXED.len()] = [
            who.tenant.into(),
            who.subject.into(),
            Cell::text_or_null(user_id),
            Cell::text_or_null(anonymous_id),
            (offset.0 as i64).into(),
            record.as_of.into(),
            i64::from(record.fold_version).into(),
            Cell::text_or_null(record.traits),
            Cell::text_or_null(record.consent),
            json(&record.segments),
            json(&record.events),
            json(&record.currencies),
            json(&record.funnels),
            json(&record.scores),
        ];
        row.extend(fixed);
        row.extend(record.features.0.iter().map(cell));
        self.rows.insert((who.tenant.to_owned(), who.subject.to_owned()), Some(row));
    }

    pub fn remove(&mut self, who: Who<'_>) {
        self.rows.insert((who.tenant.to_owned(), who.subject.to_owned()), None);
    }

    pub async fn write(&mut self, store: &mut Store) -> Result<(), Error> {
        let (mut cells, mut gone) = (Vec::new(), Vec::new());
        for ((tenant, subject), row) in std::mem::take(&mut self.rows) {
            match row {
                Some(row) => cells.extend(row),
                None => gone.extend([tenant, subject].map(Cell::Text)),
            }
        }
        store.write(&self.gone, gone).await?;
        store.write(&self.upsert, cells).await
    }
}

/// A list as JSON, NULL where it is empty: most people have no funnel step, no second currency, no segment.
fn json<T: serde::Serialize>(list: &[T]) -> Cell {
    match list {
        [] => Cell::Null,
        list => Cell::Text(serde_json::to_string(list).expect("texts and numbers always serialize")),
    }
}

/// Money goes in as units, as expressions and people see it; exact sums are in `daily_revenue` and `currency_totals`.
fn cell(value: &Value<'_>) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Int(number) => Cell::Int(*number),
        Value::Float(number) => Cell::Float(*number),
        Value::Bool(truth) => Cell::Int(i64::from(*truth)),
        Value::Text(text) => Cell::Text(text.clone().into_owned()),
        Value::Time(time) => Cell::Int(time.0),
        Value::Money(amount) => Cell::Float(amount.to_f64()),
    }
}
