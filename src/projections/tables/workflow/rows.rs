//! Runs, steps, effects and the rest as rows: each touched row is written once per batch, whole.

use super::effect::Effect;
use super::out::{Approval, ApprovalKey, Asked, Decided, Out};
use super::run::{Arm, Run, Step};
use crate::projections::Error;
use crate::projections::bulk::{Cell, Statement};
use crate::projections::store::Store;

#[derive(Debug)]
pub struct Statements {
    definitions: Statement,
    runs: Statement,
    steps: Statement,
    gone_steps: Statement,
    effects: Statement,
    messages: Statement,
    approvals: Statement,
    arms: Statement,
    funnel: Statement,
    ways: Statement,
    errors: Statement,
    skips: Statement,
    notifications: Statement,
    suppressions: Statement,
    time: Statement,
}

/// Tenant, subject, channel and address, with reason, since, until and who said so; without them it is lifted.
#[derive(Debug)]
pub struct Suppression {
    pub address: [String; 4],
    pub word: Option<(String, i64, Option<i64>, String)>,
}

/// Where new entries go under a name; nowhere from here on, without a definition.
#[derive(Debug)]
pub struct Active {
    /// Empty: everyone's.
    pub tenant: String,
    pub workflow: String,
    pub definition: Option<i64>,
}

/// Rows to be written that are made by more than one place.
#[derive(Debug, Default)]
pub struct Cells {
    pub definitions: Vec<Cell>,
    /// In order: the last word counts.
    pub activated: Vec<Active>,
    pub runs: Vec<Cell>,
    pub steps: Vec<Cell>,
    pub effects: Vec<Cell>,
    pub messages: Vec<Cell>,
    pub arms: Vec<Cell>,
    pub skips: Vec<Cell>,
    /// In order: the last word on an address counts.
    pub suppressions: Vec<Suppression>,
    pub time: Vec<Cell>,
}

/// Those of a run that never change come first.
const RUN: [&str; 22] = [
    "run_ref",
    "tenant_id",
    "run_id",
    "definition_ref",
    "subject",
    "run_key",
    "cause",
    "parent_subject",
    "parent_run",
    "started_at",
    "ended_at",
    "status",
    "outcome",
    "nodes",
    "since",
    "updated_at",
    "paused_at",
    "paused_by",
    "pause_reason",
    "goal",
    "goal_at",
    "visits",
];
const RUN_FIXED: usize = 10;

const EFFECT: [&str; 25] = [
    "effect_ref",
    "run_ref",
    "visit",
    "node",
    "effect_id",
    "performer",
    "target",
    "purpose",
    "requested_at",
    "status",
    "attempts",
    "started_at",
    "finished_at",
    "next_try_at",
    "failures",
    "failed_at",
    "last_error",
    "category",
    "refusal_code",
    "refusal",
    "executor",
    "performed",
    "assumed",
    "settled",
    "result",
];
const EFFECT_FIXED: usize = 9;

impl Statements {
    pub fn new() -> Self {
        let run: Vec<&str> = RUN.into_iter().chain(["facts"]).collect();
        Self {
            definitions: Statement::keep("wf_definitions", &["definition_ref", "workflow", "digest"], &["definition_ref"]),
            runs: upsert("wf_runs", &run, "run_ref", RUN_FIXED),
            steps: Statement::replace(
                "wf_steps",
                &["run_ref", "visit", "node", "doing", "since", "until", "awaits", "effect_ref"],
                &["run_ref", "visit"],
            ),
            gone_steps: Statement::deleting("wf_steps", &["run_ref", "visit"]),
            effects: upsert("wf_effects", &EFFECT, "effect_ref", EFFECT_FIXED),
            messages: upsert("wf_messages", &["effect_ref", "address", "template", "permit_until", "sent_at"], "effect_ref", 1),
            approvals: Statement::set(
                "wf_approvals",
                &[
                    "run_ref",
                    "visit",
                    "node",
                    "who",
                    "shows",
                    "requested_at",
                    "deadline",
                    "status",
                    "decided_at",
                    "decided_by",
                    "comment",
                    "late_clicks",
                    "shown",
                    "decided_link",
                ],
                &["run_ref", "visit"],
                "who = excluded.who, shows = excluded.shows, requested_at = excluded.requested_at, \
                 deadline = excluded.deadline, status = excluded.status, decided_at = excluded.decided_at, \
                 decided_by = excluded.decided_by, comment = excluded.comment, late_clicks = wf_approvals.late_clicks + excluded.late_clicks, \
                 shown = excluded.shown, decided_link = excluded.decided_link",
            ),
            arms: Statement::replace(
                "wf_arms",
                &["run_ref", "node", "tenant_id", "definition_ref", "arm", "assigned_at", "goal", "converted_at"],
                &["run_ref", "node"],
            ),
            funnel: Statement::add(
                "wf_funnel",
                &["tenant_id", "definition_ref", "day", "node", "entered", "\"left\""],
                &["tenant_id", "definition_ref", "day", "node"],
            ),
            ways: Statement::add(
                "wf_ways",
                &["tenant_id", "definition_ref", "day", "node", "way", "runs"],
                &["tenant_id", "definition_ref", "day", "node", "way"],
            ),
            errors: Statement::add(
                "wf_errors",
                &["tenant_id", "definition_ref", "day", "node", "target", "category", "errors"],
                &["tenant_id", "definition_ref", "day", "node", "target", "category"],
            ),
            skips: Statement::insert("wf_skips", &["skip_ref", "tenant_id", "subject", "workflow", "reason", "cause", "at"]),
            notifications: Statement::insert(
                "wf_notifications",
                &["notification_ref", "run_ref", "node", "at", "category", "severity", "text"],
            ),
            suppressions: Statement::set(
                "wf_suppressions",
                &["tenant_id", "subject", "channel", "address", "reason", "since", "until", "said_by"],
                &["tenant_id", "subject", "channel", "address"],
                // What holds for good is not shortened by what holds for a time.
                "reason = excluded.reason, since = excluded.since, until = excluded.until, said_by = excluded.said_by \
                 WHERE wf_suppressions.until IS NOT NULL OR excluded.until IS NULL",
            ),
            time: Statement::replace("wf_time", &["partition", "time"], &["partition"]),
        }
    }

    pub async fn write(&self, store: &mut Store, cells: Cells, out: Out) -> Result<(), Error> {
        let Out { mut counts, approvals, notifications, mut gone_steps } = out;
        store.write(&self.definitions, cells.definitions).await?;
        for Active { tenant, workflow, definition } in cells.activated {
            let named = "DELETE FROM wf_active WHERE tenant_id = ? AND workflow = ?";
            store.execute("wf_active", named, vec![tenant.as_str().into(), workflow.as_str().into()]).await?;
            if let Some(definition) = definition {
                let named = "INSERT INTO wf_active (tenant_id, workflow, definition_ref) VALUES (?, ?, ?)";
                store.execute("wf_active", named, vec![tenant.into(), workflow.as_str().into(), definition.into()]).await?;
            }
            let active = "UPDATE wf_definitions AS d SET is_active = EXISTS (SELECT 1 FROM wf_active AS a WHERE a.workflow = d.workflow \
                          AND a.definition_ref = d.definition_ref) WHERE workflow = ?";
            store.execute("wf_definitions", active, vec![workflow.into()]).await?;
        }
        store.write(&self.runs, cells.runs).await?;
        gone_steps.sort_unstable();
        let gone = gone_steps.into_iter().flat_map(|(run, visit)| [Cell::Int(run), Cell::Int(visit)]).collect();
        store.write(&self.gone_steps, gone).await?;
        store.write(&self.steps, cells.steps).await?;
        store.write(&self.effects, cells.effects).await?;
        store.write(&self.messages, cells.messages).await?;
        store.write(&self.arms, cells.arms).await?;
        store.write(&self.notifications, notifications).await?;
        let mut asked = Vec::new();
        for (key, mut approval) in approvals {
            match approval.asked.take() {
                Some(it) => asked.extend(asked_cells(key, it, &approval)),
                None => decide(store, key, &approval).await?,
            }
        }
        store.write(&self.approvals, asked).await?;
        let added = counts.take();
        store.write(&self.funnel, added.funnel).await?;
        store.write(&self.ways, added.ways).await?;
        store.write(&self.errors, added.errors).await?;
        store.write(&self.skips, cells.skips).await?;
        for suppression in cells.suppressions {
            self.suppress(store, suppression).await?;
        }
        store.write(&self.time, cells.time).await
    }
}

impl Statements {
    /// One at a time: they are few.
    async fn suppress(&self, store: &mut Store, suppression: Suppression) -> Result<(), Error> {
        let Suppression { address, word } = suppression;
        match word {
            Some((reason, since, until, by)) => {
                let cells = address.map(Cell::Text).into_iter().chain([Cell::Text(reason), since.into(), until.into(), text(&by)]);
                store.write(&self.suppressions, cells.collect()).await
            }
            None => {
                let sql = "DELETE FROM wf_suppressions WHERE tenant_id = ? AND subject = ? AND address = ?";
                let [tenant, subject, _, address] = address;
                store.execute("wf_suppressions", sql, [tenant, subject, address].map(Cell::Text).into()).await.map(drop)
            }
        }
    }
}

/// Inserts rows, or sets all columns but the first `fixed` of those that are there.
fn upsert(table: &'static str, columns: &[&str], key: &'static str, fixed: usize) -> Statement {
    Statement::replace_but(table, columns, &[key], &columns[..fixed])
}

fn text(text: &str) -> Cell {
    Cell::text_or_null(text)
}

impl Cells {
    /// Adds the rows of a run that changed.
    pub fn add(&mut self, run: &Run) {
        self.runs.extend(run_cells(run));
        self.steps.extend(run.steps.iter().filter(|step| step.touched).flat_map(|step| step_cells(run.place, step)));
        for effect in run.effects.iter().filter(|effect| effect.touched) {
            self.add_effect(effect);
        }
        self.arms.extend(run.arms.iter().filter(|arm| arm.touched).flat_map(|arm| arm_cells(run, arm)));
    }

    pub fn add_effect(&mut self, effect: &Effect) {
        self.effects.extend(effect_cells(effect));
        if let Some(message) = &effect.message {
            let times = [message.permit_until.into(), message.sent_at.into()];
            self.messages.extend([effect.place.into(), text(&message.address), text(&message.template)].into_iter().chain(times));
        }
    }
}

fn run_cells(run: &Run) -> [Cell; RUN.len() + 1] {
    let parent = run.parent.as_ref();
    let paused = run.paused.as_ref();
    [
        run.place.into(),
        run.tenant.as_str().into(),
        Cell::Text(run.id.to_string()),
        run.definition.into(),
        run.subject.as_str().into(),
        run.key.as_deref().map_or(Cell::Null, Cell::from),
        run.cause.as_str().into(),
        parent.map_or(Cell::Null, |(subject, _)| subject.as_str().into()),
        parent.map_or(Cell::Null, |(_, run)| run.as_str().into()),
        run.started_at.into(),
        run.ended.as_ref().map(|(at, _)| *at).into(),
        run.status().into(),
        text(&run.outcome),
        Cell::Text(run.nodes()),
        run.since.into(),
        run.updated_at.into(),
        paused.map(|paused| paused.at).into(),
        paused.map_or(Cell::Null, |paused| text(&paused.by)),
        paused.map_or(Cell::Null, |paused| text(&paused.reason)),
        run.goal.as_ref().map_or(Cell::Null, |(goal, _)| goal.as_str().into()),
        run.goal.as_ref().map(|(_, at)| *at).into(),
        run.visits.into(),
        run.facts.into(),
    ]
}

fn step_cells(run: i64, step: &Step) -> [Cell; 8] {
    [
        run.into(),
        step.visit.into(),
        step.node.as_str().into(),
        step.doing.as_str().into(),
        step.since.into(),
        step.until.into(),
        text(&step.awaits),
        step.effect.into(),
    ]
}

fn arm_cells(run: &Run, arm: &Arm) -> [Cell; 8] {
    let converted = arm.converted.as_ref();
    [
        run.place.into(),
        arm.node.as_str().into(),
        run.tenant.as_str().into(),
        run.definition.into(),
        arm.arm.as_str().into(),
        arm.at.into(),
        converted.map_or(Cell::Null, |(goal, _)| goal.as_str().into()),
        converted.map(|(_, at)| *at).into(),
    ]
}

fn effect_cells(effect: &Effect) -> [Cell; EFFECT.len()] {
    [
        effect.place.into(),
        effect.run.into(),
        effect.visit.into(),
        effect.node.as_str().into(),
        Cell::Text(effect.id.to_string()),
        effect.performer.as_str().into(),
        effect.target.as_str().into(),
        text(&effect.purpose),
        effect.requested_at.into(),
        effect.status.into(),
        effect.attempts.into(),
        effect.started_at.into(),
        effect.finished_at.into(),
        effect.next_try_at.into(),
        effect.failures.into(),
        effect.failed_at.into(),
        text(&effect.last_error),
        text(&effect.category),
        text(&effect.refusal_code),
        text(&effect.refusal),
        text(&effect.executor),
        effect.performed.into(),
        i64::from(effect.assumed).into(),
        text(&effect.settled),
        text(&effect.result),
    ]
}

fn asked_cells((run, visit): ApprovalKey, asked: Asked, approval: &Approval) -> [Cell; 14] {
    let decided = approval.decided.as_ref();
    [
        run.into(),
        visit.into(),
        Cell::Text(asked.node),
        Cell::Text(asked.who),
        text(&asked.shows),
        asked.at.into(),
        asked.deadline.into(),
        decided.map_or("open", |decided| decided.status).into(),
        decided.map(|decided| decided.at).into(),
        decided.map_or(Cell::Null, |decided| text(&decided.by)),
        decided.map_or(Cell::Null, |decided| text(&decided.comment)),
        approval.late.into(),
        text(&asked.shown),
        decided.map_or(Cell::Null, |decided| text(&decided.link)),
    ]
}

/// An approval whose request is a row already.
async fn decide(store: &mut Store, (run, visit): ApprovalKey, approval: &Approval) -> Result<(), Error> {
    let sql = "UPDATE wf_approvals SET status = coalesce(?, status), decided_at = coalesce(?, decided_at), \
               decided_by = coalesce(?, decided_by), decided_link = coalesce(?, decided_link), comment = coalesce(?, comment), \
               late_clicks = late_clicks + ? \
               WHERE run_ref = ? AND visit = ?";
    let decided = approval.decided.as_ref();
    let said = |of: fn(&Decided) -> &str| decided.map_or(Cell::Null, |decided| text(of(decided)));
    let cells = vec![
        said(|decided| decided.status),
        decided.map(|decided| decided.at).into(),
        said(|decided| &decided.by),
        said(|decided| &decided.link),
        said(|decided| &decided.comment),
        approval.late.into(),
        run.into(),
        visit.into(),
    ];
    store.execute("wf_approvals", sql, cells).await.map(drop)
}
