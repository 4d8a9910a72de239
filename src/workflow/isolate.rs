//! A run whose decision panics is paused, so that the subject and its partition go on.
//!
//! A panic here is a bug of ours; what made it come up is one run's state and one definition. [`isolate`] finds that run by deciding without
//! it, and leaves everything as if it had been paused before the input came.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::context::Context;
use super::drive::{Driven, drive};
use super::evolve::evolve;
use super::fact::{Fact, What};
use super::ids::RunId;
use super::input::Input;
use super::state::Subject;
use crate::domain::Millis;

/// Who pauses such a run. One that was paused so takes no part in anything until it is resumed or ended.
pub const ISOLATION: &str = "isolation";

/// To be called with the state of before the input, after [`drive`] panicked: pauses the one run that panics, or all of them where it
/// cannot be told, and decides the input for what is left. `None`: it panics all the same, so the input itself is to be set aside.
pub fn isolate(state: &mut Subject, context: Context<'_>, input: &Input, at: Millis) -> Option<Driven> {
    let going: Vec<RunId> = state.runs.iter().filter(|(_, run)| !run.is_isolated()).map(|(id, _)| *id).collect();
    let alone = going.iter().map(|id| vec![*id]);
    for runs in alone.chain([going.clone()]) {
        if let Some((after, driven)) = without(state, context, &runs, input, at) {
            *state = after;
            return Some(driven);
        }
    }
    None
}

fn without(state: &Subject, context: Context<'_>, runs: &[RunId], input: &Input, at: Millis) -> Option<(Subject, Driven)> {
    let decided = catch_unwind(AssertUnwindSafe(|| {
        let mut state = state.clone();
        let mut facts = Vec::new();
        for run in runs {
            let what = What::RunPaused { reason: format!("a decision about {} failed", input.kind()), by: ISOLATION.to_owned() };
            let fact = Fact { at: at.max(state.now), run: Some(*run), what };
            evolve(&mut state, &fact);
            facts.push(fact);
        }
        let driven = drive(&mut state, context, input, at);
        facts.extend(driven.facts);
        (state, Driven { facts, rejected: driven.rejected })
    }));
    decided.ok()
}
