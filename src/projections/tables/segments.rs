//! `membership` (now), `membership_history` (every entry and exit) and `segment_daily` (entries and exits per day).

use std::collections::BTreeMap;

use super::Who;
use crate::domain::Offset;
use crate::projections::bulk::{Cell, Statement};
use crate::projections::store::Store;
use crate::projections::{Error, day};
use crate::schema::records::SegmentChange;

/// (tenant, segment, subject)
type Member = (String, String, String);

#[derive(Debug)]
pub struct Segments {
    insert_members: Statement,
    delete_members: Statement,
    insert_history: Statement,
    insert_daily: Statement,
    /// The batch's last word on each membership: since when, digest, cause; `None` for left.
    members: BTreeMap<Member, Option<(i64, String, String)>>,
    history: Vec<Cell>,
    /// Entered and left by (tenant, segment, day).
    daily: BTreeMap<(String, String, i64), (i64, i64)>,
}

impl Segments {
    pub fn new() -> Self {
        Self {
            insert_members: Statement::replace(
                "membership",
                &["tenant_id", "segment", "subject", "since", "digest", "cause"],
                &["tenant_id", "segment", "subject"],
            ),
            delete_members: Statement::deleting("membership", &["tenant_id", "segment", "subject"]),
            insert_history: Statement::insert(
                "membership_history",
                &["tenant_id", "segment", "subject", "entered", "at", "digest", "cause", "late", "log_partition", "log_offset"],
            ),
            insert_daily: Statement::add(
                "segment_daily",
                &["tenant_id", "segment", "day", "entered", "\"left\""],
                &["tenant_id", "segment", "day"],
            ),
            members: BTreeMap::new(),
            history: Vec::new(),
            daily: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, who: Who<'_>, change: &SegmentChange<'_>, partition: u32, offset: Offset) {
        let row: [Cell; 10] = [
            who.tenant.into(),
            change.segment.into(),
            who.subject.into(),
            i64::from(change.entered).into(),
            change.at.into(),
            change.digest.into(),
            Cell::text_or_null(change.cause),
            i64::from(change.late).into(),
            i64::from(partition).into(),
            (offset.0 as i64).into(),
        ];
        self.history.extend(row);
        let state = change.entered.then(|| (change.at, change.digest.to_owned(), change.cause.to_owned()));
        self.members.insert((who.tenant.to_owned(), change.segment.to_owned(), who.subject.to_owned()), state);
        let day = self.daily.entry((who.tenant.to_owned(), change.segment.to_owned(), day::of(change.at))).or_default();
        match change.entered {
            true => day.0 += 1,
            false => day.1 += 1,
        }
    }

    pub async fn write(&mut self, store: &mut Store) -> Result<(), Error> {
        let (mut entered, mut left) = (Vec::new(), Vec::new());
        for ((tenant, segment, subject), state) in std::mem::take(&mut self.members) {
            let key = [Cell::Text(tenant), Cell::Text(segment), Cell::Text(subject)];
            match state {
                Some((since, digest, cause)) => {
                    entered.extend(key.into_iter().chain([since.into(), Cell::Text(digest), Cell::text_or_null(&cause)]));
                }
                None => left.extend(key),
            }
        }
        store.write(&self.delete_members, left).await?;
        store.write(&self.insert_members, entered).await?;
        store.write(&self.insert_history, std::mem::take(&mut self.history)).await?;
        let mut daily = Vec::new();
        for ((tenant, segment, day), (entered, left)) in std::mem::take(&mut self.daily) {
            daily.extend([Cell::Text(tenant), Cell::Text(segment), Cell::Text(day::text(day)), entered.into(), left.into()]);
        }
        store.write(&self.insert_daily, daily).await
    }
}
