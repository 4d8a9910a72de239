//! Runs, approvals and stories for the gateway, as the read models have them: a moment behind the journal.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::{Namespace, Subject, TenantId};
use crate::gateway::{
    ApprovalFound, ApprovalsAsked, Decided, EffectFound, ReadError, RunFound, RunsAsked, RunsPage, SuppressionFound, SuppressionsAsked,
    SuppressionsPage,
};
use crate::projections::runs::{Approval, ApprovalQuery, EffectOf, Run, RunDetail, RunQuery, Suppression, SuppressionQuery};
use crate::projections::{self, Reader};
use crate::workflow::{EffectId, RunId};

pub(super) fn failed(error: projections::Error) -> ReadError {
    match error {
        projections::Error::Missing(_) => ReadError::NotYet,
        error => ReadError::Failed(error.to_string()),
    }
}

/// `u:ID` or `a:ID`, as rows have it.
fn subject(text: &str) -> Subject {
    Subject::parse(text).unwrap_or_else(|| Subject::user(text))
}

fn found(run: &Run, json: serde_json::Value) -> Option<RunFound> {
    let ended = run.ended_at.map(|at| format!("{} at {at}", run.status));
    let is_paused = run.paused.is_some();
    Some(RunFound { run: run.id()?, subject: subject(&run.subject), workflow: run.workflow.clone(), is_paused, ended, json })
}

fn json(value: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

pub(super) async fn run(reader: &Reader, tenant: &TenantId, id: RunId) -> Result<Option<(RunFound, RunDetail)>, ReadError> {
    let Some(detail) = reader.run(tenant, id).await.map_err(failed)? else { return Ok(None) };
    Ok(found(&detail.run, json(&detail)).map(|found| (found, detail)))
}

pub(super) async fn runs(reader: &Reader, tenant: &TenantId, asked: &RunsAsked) -> Result<RunsPage, ReadError> {
    let RunsAsked { workflow, status, subject, error, is_stuck, after, limit } = asked.clone();
    let query = RunQuery { workflow, status, subject, reason: error, is_stuck, after, limit };
    let page = reader.runs(tenant, &query).await.map_err(failed)?;
    Ok(RunsPage { runs: page.runs.iter().filter_map(|run| found(run, json(run))).collect(), next: page.next })
}

pub(super) async fn approvals(reader: &Reader, tenant: &TenantId, asked: &ApprovalsAsked) -> Result<Vec<ApprovalFound>, ReadError> {
    let query = ApprovalQuery { run: asked.run, workflow: asked.workflow.clone(), open_only: asked.open_only, limit: asked.limit };
    let approvals = reader.approvals(tenant, &query).await.map_err(failed)?;
    Ok(approvals.into_iter().filter_map(approval).collect())
}

fn approval(row: Approval) -> Option<ApprovalFound> {
    let decided = row.decided_at.filter(|_| row.status != "cancelled").map(|at| Decided {
        approved: row.status == "approved",
        by: row.decided_by.unwrap_or_default(),
        link: row.decided_link.unwrap_or_default(),
        comment: row.comment.unwrap_or_default(),
        at,
    });
    Some(ApprovalFound {
        run: RunId::parse(&row.run)?,
        subject: subject(&row.subject),
        workflow: row.workflow,
        node: row.node,
        visit: row.visit.unsigned_abs(),
        who: row.who,
        shows: row.shows,
        shown: row.shown.unwrap_or_default(),
        asked_at: row.requested_at,
        until: row.deadline,
        decided,
        cancelled: row.decided_at.filter(|_| row.status == "cancelled"),
    })
}

pub(super) async fn effect(reader: &Reader, tenant: &TenantId, effect: EffectId) -> Result<Option<EffectFound>, ReadError> {
    let Some(found) = reader.effect_of(tenant, effect).await.map_err(failed)? else { return Ok(None) };
    let EffectOf { run, subject: of, target, address } = found;
    Ok(RunId::parse(&run).map(|run| EffectFound { run, subject: subject(&of), target, to: address }))
}

pub(super) async fn suppressions(reader: &Reader, tenant: &TenantId, asked: &SuppressionsAsked) -> Result<SuppressionsPage, ReadError> {
    let SuppressionsAsked { address, after, limit } = asked.clone();
    let page = reader
        .suppressions(tenant, &SuppressionQuery { address: address.map(|key| key.to_string()), after, limit })
        .await
        .map_err(failed)?;
    let shown = |one: Suppression| {
        let (since, until) = (one.since.to_string(), one.until.map(|until| until.to_string()));
        SuppressionFound { address: one.address, channel: one.channel, reason: one.reason, since, until, by: one.by }
    };
    Ok(SuppressionsPage { suppressions: page.suppressions.into_iter().map(shown).collect(), next: page.next })
}

/// Readers by namespace; each keeps a few connections.
pub(super) type Readers = BTreeMap<Namespace, Arc<Reader>>;
