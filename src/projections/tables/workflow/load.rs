//! Rows back to what the fold knows: runs that are open and not in memory, a batch's worth at once.

use rustc_hash::FxHashMap;

use super::effect::{Effect, Message, STATUSES};
use super::run::{Arm, Doing, Paused, Run, Step};
use crate::projections::Error;
use crate::projections::bulk::{Cell, Lookup};
use crate::projections::store::Store;
use crate::projections::value::Row;
use crate::workflow::{EffectId, RunId};

const EFFECT: &str = "SELECT e.effect_ref, e.run_ref, e.visit, e.node, e.effect_id, e.performer, e.target, e.purpose, e.status, e.attempts, \
                      e.requested_at, e.started_at, e.finished_at, e.next_try_at, e.failures, e.failed_at, e.last_error, e.category, \
                      e.refusal_code, e.refusal, e.executor, e.performed, e.assumed, e.settled, e.result, \
                      m.effect_ref, m.address, m.template, m.permit_until, m.sent_at \
                      FROM wf_effects AS e LEFT JOIN wf_messages AS m ON m.effect_ref = e.effect_ref WHERE";

#[derive(Debug)]
pub struct Lookups {
    runs: Lookup,
    steps: Lookup,
    effects: Lookup,
    arms: Lookup,
}

impl Lookups {
    pub fn new() -> Self {
        let run = "SELECT run_ref, tenant_id, run_id, definition_ref, subject, run_key, cause, parent_subject, parent_run, started_at, \
                   since, updated_at, paused_at, paused_by, pause_reason, goal, goal_at, visits, facts FROM wf_runs WHERE";
        let step = "SELECT run_ref, visit, node, doing, since, until, awaits, effect_ref FROM wf_steps WHERE";
        let arm = "SELECT run_ref, node, arm, assigned_at, goal, converted_at FROM wf_arms WHERE";
        Self {
            runs: Lookup::new("look up runs", run, "run_id", "AND ended_at IS NULL"),
            steps: Lookup::new("look up steps", step, "run_ref", "ORDER BY run_ref, visit"),
            effects: Lookup::new("look up effects", EFFECT, "e.effect_ref", ""),
            arms: Lookup::new("look up arms", arm, "run_ref", ""),
        }
    }

    /// Those of `ids` that are open, with everything that is open of them.
    pub async fn runs(&self, store: &mut Store, ids: Vec<RunId>) -> Result<Vec<Run>, Error> {
        let ids = ids.into_iter().map(|id| Cell::Text(id.to_string())).collect();
        let rows = store.look_up(&self.runs, ids).await?;
        let mut runs: FxHashMap<i64, Run> = rows.iter().filter_map(run).map(|run| (run.place, run)).collect();
        let places = || runs.keys().map(|place| Cell::Int(*place)).collect();
        let (steps, arms) = (store.look_up(&self.steps, places()).await?, store.look_up(&self.arms, places()).await?);
        let mut effects = Vec::new();
        for row in &steps {
            let step = step(row);
            effects.extend(step.effect.map(Cell::Int));
            if let Some(run) = runs.get_mut(&row.get(0)) {
                run.steps.push(step);
            }
        }
        for row in &arms {
            if let Some(run) = runs.get_mut(&row.get(0)) {
                run.arms.push(arm(row));
            }
        }
        for row in store.look_up(&self.effects, effects).await? {
            let Some(effect) = effect(&row) else { continue };
            // That of a step which is about to move on is over.
            if let Some(run) = runs.get_mut(&effect.run).filter(|_| effect.finished_at.is_none()) {
                run.effects.push(effect);
            }
        }
        let mut runs: Vec<Run> = runs.into_values().collect();
        runs.sort_unstable_by_key(|run| run.place);
        Ok(runs)
    }

    /// One that is over, or of a run that is.
    pub async fn effect(&self, store: &mut Store, id: EffectId) -> Result<Option<Effect>, Error> {
        let sql = format!("{EFFECT} e.effect_id = ?");
        let found = store.fetch("look up an effect", &sql, vec![Cell::Text(id.to_string())]).await?;
        Ok(found.first().and_then(effect))
    }
}

fn text(row: &Row, at: usize) -> String {
    row.get::<Option<String>>(at).unwrap_or_default()
}

/// `None` if its id is none: someone else wrote it.
fn run(row: &Row) -> Option<Run> {
    let parent: Option<String> = row.get(7);
    let paused: Option<i64> = row.get(12);
    let goal: Option<String> = row.get(15);
    Some(Run {
        place: row.get(0),
        tenant: row.get(1),
        id: RunId::parse(row.get(2))?,
        definition: row.get(3),
        subject: row.get(4),
        key: row.get(5),
        cause: row.get(6),
        parent: parent.map(|subject| (subject, text(row, 8))),
        started_at: row.get(9),
        ended: None,
        outcome: String::new(),
        last_nodes: String::new(),
        since: row.get(10),
        updated_at: row.get(11),
        paused: paused.map(|at| Paused { at, by: text(row, 13), reason: text(row, 14) }),
        goal: goal.map(|goal| (goal, row.get::<Option<i64>>(16).unwrap_or_default())),
        visits: row.get(17),
        facts: row.get(18),
        steps: Vec::new(),
        effects: Vec::new(),
        arms: Vec::new(),
        touched: false,
    })
}

fn step(row: &Row) -> Step {
    Step {
        visit: row.get(1),
        node: row.get(2),
        doing: Doing::named(row.get(3)),
        since: row.get(4),
        until: row.get(5),
        awaits: text(row, 6),
        effect: row.get(7),
        stored: true,
        touched: false,
    }
}

fn arm(row: &Row) -> Arm {
    let goal: Option<String> = row.get(4);
    let converted = goal.map(|goal| (goal, row.get::<Option<i64>>(5).unwrap_or_default()));
    Arm { node: row.get(1), arm: row.get(2), at: row.get(3), converted, touched: false }
}

fn effect(row: &Row) -> Option<Effect> {
    let status: String = row.get(8);
    let message: Option<i64> = row.get(25);
    Some(Effect {
        place: row.get(0),
        run: row.get(1),
        visit: row.get(2),
        node: row.get(3),
        id: EffectId::parse(row.get(4))?,
        performer: row.get(5),
        target: row.get(6),
        purpose: text(row, 7),
        status: STATUSES.into_iter().find(|known| **known == *status)?,
        attempts: row.get(9),
        requested_at: row.get(10),
        started_at: row.get(11),
        finished_at: row.get(12),
        next_try_at: row.get(13),
        failures: row.get(14),
        failed_at: row.get(15),
        last_error: text(row, 16),
        category: text(row, 17),
        refusal_code: text(row, 18),
        refusal: text(row, 19),
        executor: text(row, 20),
        performed: row.get(21),
        assumed: row.get(22),
        settled: text(row, 23),
        result: text(row, 24),
        message: message.map(|_| Message {
            address: text(row, 26),
            template: text(row, 27),
            permit_until: row.get(28),
            sent_at: row.get(29),
        }),
        touched: false,
    })
}
