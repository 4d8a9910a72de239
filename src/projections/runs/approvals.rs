//! Questions that runs ask people: open ones first to fall due, decided ones newest first.

use serde::Serialize;
use serde_json::Value;

use super::list::time;
use super::{text, text_or_null};
use crate::domain::{Millis, TenantId};
use crate::projections::value::Row;
use crate::projections::{Error, Reader};
use crate::workflow::RunId;

/// Which approvals; everything that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApprovalQuery {
    pub run: Option<RunId>,
    pub workflow: Option<String>,
    pub open_only: bool,
    pub limit: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Approval {
    pub run: String,
    pub workflow: String,
    pub subject: String,
    pub node: String,
    pub visit: i64,
    pub who: String,
    /// What those asked are to see.
    pub shows: Value,
    /// What the question is recognised by, beside its step.
    pub shown: Option<String>,
    #[serde(serialize_with = "text")]
    pub requested_at: Millis,
    #[serde(serialize_with = "text")]
    pub deadline: Millis,
    /// open, approved, rejected, or cancelled when the run went on without it.
    pub status: String,
    #[serde(serialize_with = "text_or_null")]
    pub decided_at: Option<Millis>,
    pub decided_by: Option<String>,
    /// Whom the link was for that the decision came by; `decided_by` is what its giver wrote.
    pub decided_link: Option<String>,
    pub comment: Option<String>,
    pub late_clicks: i64,
}

impl Reader {
    pub async fn approvals(&self, tenant: &TenantId, query: &ApprovalQuery) -> Result<Vec<Approval>, Error> {
        let mut filter = "r.tenant_id = ?".to_owned();
        let run = query.run.map(|run| run.to_string());
        let mut values = vec![tenant.as_str()];
        if let Some(run) = &run {
            filter.push_str(" AND r.run_id = ?");
            values.push(run);
        }
        if let Some(workflow) = &query.workflow {
            filter.push_str(" AND d.workflow = ?");
            values.push(workflow);
        }
        let order = match query.open_only {
            true => {
                filter.push_str(" AND a.status = 'open'");
                "a.deadline, a.run_ref, a.visit"
            }
            false => "a.requested_at DESC, a.run_ref DESC, a.visit DESC",
        };
        let sql = format!(
            "SELECT r.run_id, d.workflow, r.subject, a.node, a.visit, a.who, a.shows, a.requested_at, a.deadline, a.status, a.decided_at, \
             a.decided_by, a.comment, a.late_clicks, a.shown, a.decided_link \
             FROM wf_approvals AS a JOIN wf_runs AS r ON r.run_ref = a.run_ref \
             JOIN wf_definitions AS d ON d.definition_ref = r.definition_ref WHERE {filter} ORDER BY {order} LIMIT {}",
            query.limit.max(1)
        );
        Ok(self.rows(sql, &values).await?.iter().map(approval).collect())
    }
}

fn approval(row: &Row) -> Approval {
    // What was cut for length is no JSON any more: then it is shown as it is.
    let shows: String = row.get::<Option<String>>(6).unwrap_or_default();
    Approval {
        run: row.get(0),
        workflow: row.get(1),
        subject: row.get(2),
        node: row.get(3),
        visit: row.get(4),
        who: row.get(5),
        shows: serde_json::from_str(&shows).unwrap_or(Value::String(shows)),
        requested_at: Millis(row.get(7)),
        deadline: Millis(row.get(8)),
        status: row.get(9),
        decided_at: time(row, 10),
        decided_by: row.get(11),
        comment: row.get(12),
        late_clicks: row.get(13),
        shown: row.get(14),
        decided_link: row.get(15),
    }
}
