//! Runs: a page of them by what one looks for, and one with all that belongs to it.

use serde::Serialize;

use super::{text, text_or_null};
use crate::domain::{Millis, Offset, PartitionId, TenantId};
use crate::projections::tables::place_of;
use crate::projections::value::Row;
use crate::projections::{Error, Reader};
use crate::workflow::{EffectId, RunId};

/// Every status, and `open` for all that have not ended.
pub const STATUSES: [&str; 10] =
    ["open", "running", "waiting", "paused", "completed", "goal", "failed", "cancelled", "terminated", "merged"];

/// Which runs; everything that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunQuery {
    pub workflow: Option<String>,
    /// One of [`STATUSES`].
    pub status: Option<String>,
    /// `u:ID` or `a:ID`.
    pub subject: Option<String>,
    /// What the reason of a pause contains.
    pub reason: Option<String>,
    /// Only those with an effect that is out of attempts, waits for its next, or of which nobody knows whether it was done.
    pub is_stuck: bool,
    /// The `next` of the page before.
    pub after: Option<String>,
    pub limit: u32,
}

/// The run and subject that an effect belongs to; of a message also where it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectOf {
    pub run: String,
    pub subject: String,
    /// The channel, agent or webhook.
    pub target: String,
    pub address: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RunPage {
    pub runs: Vec<Run>,
    /// Where the next page begins; none on the last one.
    pub next: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    pub run: String,
    pub workflow: String,
    pub digest: String,
    pub subject: String,
    pub key: Option<String>,
    /// running, waiting, paused; or how it ended: completed, goal, failed, cancelled, terminated, merged.
    pub status: String,
    pub outcome: Option<String>,
    /// Where it is, or where it ended.
    pub nodes: Option<String>,
    /// `split=arm, ...`.
    pub arms: Option<String>,
    #[serde(serialize_with = "text")]
    pub started_at: Millis,
    #[serde(serialize_with = "text_or_null")]
    pub ended_at: Option<Millis>,
    /// Since when it is where it is.
    #[serde(serialize_with = "text")]
    pub since: Millis,
    pub paused: Option<Paused>,
    /// The last goal that was reached.
    pub goal: Option<String>,
    pub cause: String,
    pub parent_subject: Option<String>,
    pub parent_run: Option<String>,
    pub facts: i64,
    #[serde(skip)]
    pub place: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Paused {
    #[serde(serialize_with = "text")]
    pub at: Millis,
    pub by: String,
    pub reason: String,
}

impl Run {
    pub fn id(&self) -> Option<RunId> {
        RunId::parse(&self.run)
    }

    /// Where in `journal` it begins.
    pub fn begins(&self) -> (PartitionId, Offset) {
        place_of(self.place)
    }
}

impl RunDetail {
    /// How many lines its story has, as far as the read model has come: its facts, and results that came when nobody waited any more.
    pub fn told(&self) -> u64 {
        self.run.facts.unsigned_abs() + self.settled
    }
}

/// One run with everything that belongs to it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunDetail {
    #[serde(flatten)]
    pub run: Run,
    /// The steps that are open.
    pub at: Vec<Node>,
    pub effects: Vec<Effect>,
    /// Effects with a result that came when nobody waited any more.
    #[serde(skip)]
    pub settled: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Node {
    pub node: String,
    pub visit: i64,
    /// arriving, delay, wait, ask, effect, approval, start, ready.
    pub doing: String,
    #[serde(serialize_with = "text")]
    pub since: Millis,
    #[serde(serialize_with = "text_or_null")]
    pub until: Option<Millis>,
    pub awaits: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effect {
    /// The idempotency key.
    pub effect: String,
    pub node: String,
    pub performer: String,
    pub target: String,
    pub purpose: Option<String>,
    pub status: String,
    pub attempts: i64,
    #[serde(serialize_with = "text")]
    pub requested_at: Millis,
    #[serde(serialize_with = "text_or_null")]
    pub finished_at: Option<Millis>,
    #[serde(serialize_with = "text_or_null")]
    pub next_try_at: Option<Millis>,
    pub last_error: Option<String>,
    pub category: Option<String>,
    pub refusal: Option<String>,
    pub result: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusCount {
    pub workflow: String,
    pub status: String,
    pub runs: i64,
}

const RUN: &str = "SELECT r.run_id, d.workflow, d.digest, r.subject, r.run_key, r.status, r.outcome, r.nodes, \
                   (SELECT group_concat(a.node || '=' || a.arm, ', ' ORDER BY a.node) FROM wf_arms AS a WHERE a.run_ref = r.run_ref), \
                   r.started_at, r.ended_at, r.since, r.paused_at, r.paused_by, r.pause_reason, r.goal, r.cause, r.parent_subject, \
                   r.parent_run, r.facts, r.run_ref \
                   FROM wf_runs AS r JOIN wf_definitions AS d ON d.definition_ref = r.definition_ref";

/// Effects of one run that are shown, the newest: a loop may have had a million.
const EFFECTS_MAX: u32 = 500;

impl Reader {
    /// Newest first.
    pub async fn runs(&self, tenant: &TenantId, query: &RunQuery) -> Result<RunPage, Error> {
        let mut filter = "r.tenant_id = ?".to_owned();
        let mut values = vec![tenant.as_str()];
        let mut narrow = |condition: &str, value: &'_ Option<String>| {
            if value.is_some() {
                filter.push_str(" AND ");
                filter.push_str(condition);
            }
        };
        narrow("r.definition_ref IN (SELECT definition_ref FROM wf_definitions WHERE workflow = ?)", &query.workflow);
        values.extend(query.workflow.as_deref());
        let status = query.status.as_deref();
        match status {
            Some("open") => narrow("r.ended_at IS NULL", &query.status),
            // The few of them have an index.
            Some("paused") => narrow("r.paused_at IS NOT NULL", &query.status),
            Some("running" | "waiting") => narrow("r.ended_at IS NULL AND r.status = ?", &query.status),
            _ => narrow("r.status = ?", &query.status),
        }
        values.extend(status.filter(|status| !["open", "paused"].contains(status)));
        narrow("r.subject = ?", &query.subject);
        values.extend(query.subject.as_deref());
        narrow("r.paused_at IS NOT NULL AND instr(r.pause_reason, ?) > 0", &query.reason);
        values.extend(query.reason.as_deref());
        let stuck = Some(String::new()).filter(|_| query.is_stuck);
        narrow(
            "EXISTS (SELECT 1 FROM wf_effects AS e WHERE e.run_ref = r.run_ref AND (e.status IN ('failed', 'unknown') OR e.next_try_at IS NOT NULL))",
            &stuck,
        );
        narrow("r.run_ref < CAST(? AS BIGINT)", &query.after);
        values.extend(query.after.as_deref());
        let limit = query.limit.max(1);
        let sql = format!("{RUN} WHERE {filter} ORDER BY r.run_ref DESC LIMIT {}", limit.saturating_add(1));
        let mut runs: Vec<Run> = self.rows(sql, &values).await?.iter().map(run).collect();
        let is_more = runs.len() > limit as usize;
        runs.truncate(limit as usize);
        let next = runs.last().filter(|_| is_more).map(|last| last.place.to_string());
        Ok(RunPage { runs, next })
    }

    pub async fn run(&self, tenant: &TenantId, id: RunId) -> Result<Option<RunDetail>, Error> {
        let found = self.rows(format!("{RUN} WHERE r.run_id = ? AND r.tenant_id = ?"), &[&id.to_string(), tenant.as_str()]).await?;
        // The newest: an id is given again only once nobody remembers the first.
        let Some(run) = found.iter().map(run).max_by_key(|run| run.place) else { return Ok(None) };
        let place = run.place.to_string();
        let steps = "SELECT node, visit, doing, since, until, awaits FROM wf_steps WHERE run_ref = CAST(? AS BIGINT) ORDER BY visit";
        let at = self.rows(steps.to_owned(), &[&place]).await?.iter().map(node).collect();
        let effects = format!(
            "SELECT effect_id, node, performer, target, purpose, status, attempts, requested_at, finished_at, next_try_at, last_error, \
             category, refusal, result FROM wf_effects WHERE run_ref = CAST(? AS BIGINT) ORDER BY effect_ref DESC LIMIT {EFFECTS_MAX}"
        );
        let mut effects: Vec<Effect> = self.rows(effects, &[&place]).await?.iter().map(effect).collect();
        effects.reverse();
        let settled = "SELECT count(*) FROM wf_effects WHERE run_ref = CAST(? AS BIGINT) AND settled IS NOT NULL".to_owned();
        let settled = self.rows(settled, &[&place]).await?.first().map_or(0, |row| row.get::<i64>(0).unsigned_abs());
        Ok(Some(RunDetail { run, at, effects, settled }))
    }

    /// Whose an effect is.
    pub async fn effect_of(&self, tenant: &TenantId, effect: EffectId) -> Result<Option<EffectOf>, Error> {
        let sql = "SELECT r.run_id, r.subject, e.target, m.address FROM wf_effects AS e JOIN wf_runs AS r ON r.run_ref = e.run_ref \
                   LEFT JOIN wf_messages AS m ON m.effect_ref = e.effect_ref WHERE e.effect_id = ? AND r.tenant_id = ?";
        let rows = self.rows(sql.to_owned(), &[&effect.to_string(), tenant.as_str()]).await?;
        Ok(rows.first().map(|row| EffectOf { run: row.get(0), subject: row.get(1), target: row.get(2), address: row.get(3) }))
    }

    /// How many runs each workflow has in each status.
    pub async fn run_counts(&self, tenant: &TenantId) -> Result<Vec<StatusCount>, Error> {
        let sql = "SELECT d.workflow, r.status, count(*) FROM wf_runs AS r JOIN wf_definitions AS d ON d.definition_ref = r.definition_ref \
                   WHERE r.tenant_id = ? GROUP BY 1, 2 ORDER BY 1, 2";
        let count = |row: &Row| StatusCount { workflow: row.get(0), status: row.get(1), runs: row.get(2) };
        Ok(self.rows(sql.to_owned(), &[tenant.as_str()]).await?.iter().map(count).collect())
    }
}

pub(super) fn time(row: &Row, at: usize) -> Option<Millis> {
    row.get::<Option<i64>>(at).map(Millis)
}

fn run(row: &Row) -> Run {
    let words = |at: usize| row.get::<Option<String>>(at).unwrap_or_default();
    Run {
        run: row.get(0),
        workflow: row.get(1),
        digest: row.get(2),
        subject: row.get(3),
        key: row.get(4),
        status: row.get(5),
        outcome: row.get(6),
        nodes: row.get(7),
        arms: row.get(8),
        started_at: Millis(row.get(9)),
        ended_at: time(row, 10),
        since: Millis(row.get(11)),
        paused: time(row, 12).map(|at| Paused { at, by: words(13), reason: words(14) }),
        goal: row.get(15),
        cause: row.get(16),
        parent_subject: row.get(17),
        parent_run: row.get(18),
        facts: row.get(19),
        place: row.get(20),
    }
}

fn node(row: &Row) -> Node {
    Node { node: row.get(0), visit: row.get(1), doing: row.get(2), since: Millis(row.get(3)), until: time(row, 4), awaits: row.get(5) }
}

fn effect(row: &Row) -> Effect {
    Effect {
        effect: row.get(0),
        node: row.get(1),
        performer: row.get(2),
        target: row.get(3),
        purpose: row.get(4),
        status: row.get(5),
        attempts: row.get(6),
        requested_at: Millis(row.get(7)),
        finished_at: time(row, 8),
        next_try_at: time(row, 9),
        last_error: row.get(10),
        category: row.get(11),
        refusal: row.get(12),
        result: row.get(13),
    }
}
