//! Figures: arrivals per node, results per arm, what fires next.

use std::collections::BTreeMap;

use serde::Serialize;

use super::interval::{Interval, newcombe, rate, wilson};
use super::{text, text_or_null};
use crate::domain::{Millis, TenantId};
use crate::projections::value::Row;
use crate::projections::{Error, Reader};

/// One node's arrivals and departures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Funnel {
    pub node: String,
    pub entered: i64,
    pub left: i64,
    /// Those who are there now: of those that entered, who has not left.
    pub here: i64,
    pub ways: Vec<Way>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Way {
    pub way: String,
    pub runs: i64,
}

/// A time that a version of a workflow was brought into force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Publication {
    pub digest: String,
    /// Whose: none where it is of the whole namespace.
    pub tenant: Option<String>,
    pub about: String,
    #[serde(serialize_with = "text_or_null")]
    pub published_at: Option<Millis>,
    pub published_by: Option<String>,
    /// Whether new entries go to it.
    pub is_active: bool,
    /// When it was retired, or another version took its place.
    #[serde(serialize_with = "text_or_null")]
    pub retired_at: Option<Millis>,
    pub retired_by: Option<String>,
}

/// One arm of a split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmResult {
    /// Of which version: each has weights of its own, so that arms of several are not added up.
    pub digest: String,
    pub node: String,
    pub arm: String,
    pub runs: u64,
    /// Runs that reached a goal after they were assigned.
    pub converted: u64,
    pub rate: f64,
    /// Of the rate, at 95 %.
    pub interval: Interval,
    /// What the others of its split are held against.
    pub is_baseline: bool,
    /// The rate's distance from the baseline's, at 95 %; none for the baseline itself.
    pub difference: Option<Interval>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Timer {
    #[serde(serialize_with = "text")]
    pub due: Millis,
    pub run: String,
    pub workflow: String,
    pub subject: String,
    pub node: String,
    pub doing: String,
}

/// Names of arms that say "nothing was done here".
const BASELINES: [&str; 3] = ["holdout", "control", "baseline"];

impl Reader {
    /// Every node that a run of the workflow ever came to, the most visited first; of all versions, or of those
    /// whose digest begins so. `days` (from, before) as `2024-03-01`: only of runs that began then, wherever they went since.
    pub async fn funnel(
        &self,
        tenant: &TenantId,
        workflow: &str,
        digest: Option<&str>,
        days: Option<(&str, &str)>,
    ) -> Result<Vec<Funnel>, Error> {
        let (from, before) = days.unwrap_or(("", "~"));
        let digest = digest.unwrap_or("");
        let of = "tenant_id = ?1 AND definition_ref IN (SELECT definition_ref FROM wf_definitions WHERE workflow = ?2 AND substr(digest, 1, length(?3)) = ?3)";
        let nodes = format!(
            "SELECT node, CAST(sum(entered) AS BIGINT) AS entered, CAST(sum(\"left\") AS BIGINT), CAST(sum(entered - \"left\") AS BIGINT) FROM wf_funnel \
             WHERE {of} AND day >= ?4 AND day < ?5 GROUP BY node ORDER BY 2 DESC, min(day), node"
        );
        let values = [tenant.as_str(), workflow, digest, from, before];
        let ways = format!(
            "SELECT node, way, CAST(sum(runs) AS BIGINT) FROM wf_ways WHERE {of} AND day >= ?4 AND day < ?5 GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2"
        );
        let mut by_node: BTreeMap<String, Vec<Way>> = BTreeMap::new();
        for row in self.rows(ways, &values).await? {
            by_node.entry(row.get(0)).or_default().push(Way { way: row.get(1), runs: row.get(2) });
        }
        let mut funnel = |row: &Row| {
            let node: String = row.get(0);
            let ways = by_node.remove(&node).unwrap_or_default();
            Funnel { node, entered: row.get(1), left: row.get(2), here: row.get(3), ways }
        };
        Ok(self.rows(nodes, &values).await?.iter().map(&mut funnel).collect())
    }

    /// When versions of a workflow were published, the namespace's and the tenant's own, the newest first.
    pub async fn publications(&self, tenant: &TenantId, workflow: &str) -> Result<Vec<Publication>, Error> {
        let sql = "SELECT digest, nullif(tenant_id, ''), about, published_at, published_by, NOT is_over, retired_at, retired_by \
                   FROM wf_publications WHERE workflow = ? AND tenant_id IN ('', ?) ORDER BY publication_ref DESC";
        let publication = |row: &Row| Publication {
            digest: row.get(0),
            tenant: row.get(1),
            about: row.get(2),
            published_at: row.get::<Option<i64>>(3).map(Millis),
            published_by: row.get(4),
            is_active: row.get(5),
            retired_at: row.get::<Option<i64>>(6).map(Millis),
            retired_by: row.get(7),
        };
        Ok(self.rows(sql.to_owned(), &[workflow, tenant.as_str()]).await?.iter().map(publication).collect())
    }

    /// Conversions by arm of every split of a workflow, each version by itself, the one that somebody was given an arm of last before the
    /// others.
    pub async fn arms(&self, tenant: &TenantId, workflow: &str) -> Result<Vec<Vec<ArmResult>>, Error> {
        let sql = "SELECT d.digest, a.node, a.arm, count(*), count(a.converted_at), max(a.run_ref) FROM wf_arms AS a \
                   JOIN wf_definitions AS d ON d.definition_ref = a.definition_ref \
                   WHERE a.tenant_id = ? AND d.workflow = ? GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";
        let rows = self.rows(sql.to_owned(), &[tenant.as_str(), workflow]).await?;
        let count = |row: &Row, at: usize| row.get::<i64>(at).unsigned_abs();
        let mut versions: BTreeMap<String, (i64, Vec<Counted>)> = BTreeMap::new();
        for row in &rows {
            let (newest, counts) = versions.entry(row.get(0)).or_default();
            *newest = row.get::<i64>(5).max(*newest);
            counts.push((row.get(1), row.get(2), count(row, 3), count(row, 4)));
        }
        let mut versions: Vec<_> = versions.into_iter().collect();
        versions.sort_by_key(|(_, (newest, _))| std::cmp::Reverse(*newest));
        Ok(versions.into_iter().map(|(digest, (_, counts))| compared(&digest, &counts)).collect())
    }

    /// What fires until then, the next first.
    pub async fn timers(&self, tenant: &TenantId, until: Option<Millis>, limit: u32) -> Result<Vec<Timer>, Error> {
        let until = until.unwrap_or(Millis::MAX).0.to_string();
        let sql = format!(
            "SELECT s.until, r.run_id, d.workflow, r.subject, s.node, s.doing FROM wf_steps AS s JOIN wf_runs AS r ON r.run_ref = s.run_ref \
             JOIN wf_definitions AS d ON d.definition_ref = r.definition_ref \
             WHERE s.until IS NOT NULL AND s.until <= CAST(? AS BIGINT) AND r.paused_at IS NULL AND r.tenant_id = ? \
             ORDER BY s.until LIMIT {}",
            limit.max(1)
        );
        let timer = |row: &Row| Timer {
            due: Millis(row.get(0)),
            run: row.get(1),
            workflow: row.get(2),
            subject: row.get(3),
            node: row.get(4),
            doing: row.get(5),
        };
        Ok(self.rows(sql, &[&until, tenant.as_str()]).await?.iter().map(timer).collect())
    }

    /// The time that timers go by; none before there was any.
    pub async fn workflow_now(&self) -> Result<Option<Millis>, Error> {
        let rows = self.rows("SELECT min(time) FROM wf_time".to_owned(), &[]).await?;
        Ok(rows.first().and_then(|row| row.get::<Option<i64>>(0)).map(Millis))
    }
}

/// Node, arm, runs, converted.
type Counted = (String, String, u64, u64);

/// Counts with intervals, each arm against its split's baseline: the one that is named so, else the first.
fn compared(digest: &str, counts: &[Counted]) -> Vec<ArmResult> {
    let baseline_of = |node: &str| {
        let arms: Vec<_> = counts.iter().filter(|(of, ..)| of == node).collect();
        let named = BASELINES.iter().find_map(|name| arms.iter().find(|(_, arm, ..)| arm == name));
        named.or(arms.first()).map(|(_, arm, runs, converted)| (arm.clone(), (*converted, *runs)))
    };
    let result = |(node, arm, runs, converted): &Counted| {
        let baseline = baseline_of(node);
        let is_baseline = baseline.as_ref().is_some_and(|(name, _)| name == arm);
        ArmResult {
            digest: digest.to_owned(),
            node: node.clone(),
            arm: arm.clone(),
            runs: *runs,
            converted: *converted,
            rate: rate(*converted, *runs),
            interval: wilson(*converted, *runs),
            is_baseline,
            difference: baseline.filter(|_| !is_baseline).map(|(_, counts)| newcombe((*converted, *runs), counts)),
        }
    };
    counts.iter().map(result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arms_are_held_against_the_one_that_nothing_was_done_to() {
        let counts = [("arm", "a", 80, 48), ("arm", "holdout", 20, 2), ("offer", "big", 5, 1), ("offer", "small", 5, 1)];
        let results = compared("d", &counts.map(|(node, arm, runs, converted)| (node.to_owned(), arm.to_owned(), runs, converted)));
        let told: Vec<_> = results.iter().map(|arm| (&*arm.arm, arm.is_baseline, arm.difference.map(|d| d.excludes_zero()))).collect();
        assert_eq!(told, [("a", false, Some(true)), ("holdout", true, None), ("big", true, None), ("small", false, Some(false))]);
    }
}
