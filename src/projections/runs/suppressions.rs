//! Addresses that nothing is sent to, as they themselves have it: by their hashes, with why and since when.

use serde::Serialize;

use super::{text, text_or_null};
use crate::domain::{Millis, TenantId};
use crate::projections::value::Row;
use crate::projections::{Error, Reader};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SuppressionQuery {
    /// One address, by its hash; all if absent.
    pub address: Option<String>,
    /// The `next` of the page before.
    pub after: Option<String>,
    pub limit: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suppression {
    /// The address's hash.
    pub address: String,
    pub channel: String,
    /// hard_bounce, complaint, soft_bounces or manual.
    pub reason: String,
    #[serde(serialize_with = "text")]
    pub since: Millis,
    /// For good if absent.
    #[serde(serialize_with = "text_or_null")]
    pub until: Option<Millis>,
    /// Who or what said so, such as the message that came back.
    pub by: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SuppressionPage {
    pub suppressions: Vec<Suppression>,
    /// Where the next page begins; none on the last one.
    pub next: Option<String>,
}

impl Reader {
    /// By hash. One whose time is over is listed until something else is said of it.
    pub async fn suppressions(&self, tenant: &TenantId, query: &SuppressionQuery) -> Result<SuppressionPage, Error> {
        let mut filter = "tenant_id = ? AND subject > ? AND subject LIKE '@:%'".to_owned();
        // `@:` is before every address's own name.
        let after = query.after.as_deref().map_or("@:".to_owned(), |after| format!("@:{after}"));
        let subject = query.address.as_ref().map(|address| format!("@:{address}"));
        let mut values = vec![tenant.as_str(), &after];
        if let Some(subject) = &subject {
            filter.push_str(" AND subject = ?");
            values.push(subject);
        }
        let limit = query.limit.max(1);
        let sql = format!(
            "SELECT address, channel, reason, since, until, said_by FROM wf_suppressions WHERE {filter} ORDER BY subject LIMIT {}",
            limit.saturating_add(1)
        );
        let mut suppressions: Vec<Suppression> = self.rows(sql, &values).await?.iter().map(suppression).collect();
        let is_more = suppressions.len() > limit as usize;
        suppressions.truncate(limit as usize);
        let next = suppressions.last().filter(|_| is_more).map(|last| last.address.clone());
        Ok(SuppressionPage { suppressions, next })
    }
}

fn suppression(row: &Row) -> Suppression {
    Suppression {
        address: row.get(0),
        channel: row.get(1),
        reason: row.get(2),
        since: Millis(row.get(3)),
        until: row.get::<Option<i64>>(4).map(Millis),
        by: row.get(5),
    }
}
