//! A run whose decision fails is set aside, so that its subject and partition go on.
//!
//! A failure here is a bug of ours, or something too large to be written; what made it come up is one run's state and one definition.
//! Which run that is, whoever writes the facts finds out by trying: only it sees all that can fail.

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

/// With the state of before the input that failed: pauses these runs, and decides the input for what is left. It panics like [`drive`]
/// where the fault is not theirs.
pub fn isolate(state: &mut Subject, context: Context<'_>, runs: &[RunId], input: &Input, at: Millis) -> Driven {
    let mut facts = Vec::new();
    for run in runs {
        let what = What::RunPaused { reason: format!("a decision about {} failed", input.kind()), by: ISOLATION.to_owned() };
        let fact = Fact { at: at.max(state.now), run: Some(*run), what };
        evolve(state, &fact);
        facts.push(fact);
    }
    let driven = drive(state, context, input, at);
    facts.extend(driven.facts);
    Driven { facts, rejected: driven.rejected }
}
