//! The whole engine and its effect executor on the embedded log, on a disk that stops where it likes: a thousand short histories, each from
//! a seed.
//!
//! A seed decides what the workflows are, who does what, how performers misbehave, which partitions are slow and when the machine stops;
//! `promises` says what holds of every journal, `mirror` what each journal must be to the byte. `FLYWHEEL_SIM_SEED=n cargo test --test it
//! workflow_sim` runs one seed again and tells its story, `FLYWHEEL_SIM_SEEDS=n` runs the first n.

mod end;
mod executor;
mod mirror;
mod people;
mod program;
mod promises;
mod run;

use run::Life;

use crate::seeds::{self, number};

/// About a minute where nothing else runs: `FLYWHEEL_SIM_SEEDS` for more.
const SEEDS: u64 = 1_000;
/// With this many, everything that can happen has happened.
const SEEDS_ENOUGH: u64 = 150;

/// What a run of all seeds must have come across.
const HAPPENS: [&str; 27] = [
    "crashes",
    "performed",
    "performed again",
    "messages",
    "cut off",
    "not begun",
    "stops",
    "looked up",
    "said again",
    "facts",
    "refused",
    "held",
    "starts",
    "ends told",
    "carried",
    "questions",
    "emitted",
    "completed",
    "goal",
    "failed",
    "cancelled",
    "terminated",
    "merged",
    "seeds",
    "scheduled",
    "broadcasts",
    "suppressed",
];

fn run_seeds(from: u64, seeds: u64) -> Result<seeds::Counts, (u64, String)> {
    seeds::run(from..from + seeds, |seed| {
        let mut counts = Life::new(seed, false, false).all().counts;
        counts.add("seeds", 1);
        counts.0
    })
}

#[test]
fn workflows_keep_their_promises_whatever_fails() {
    if let Some(seed) = number("FLYWHEEL_SIM_SEED") {
        drop(Life::new(seed, true, true).all());
        return;
    }
    let seeds = number("FLYWHEEL_SIM_SEEDS").unwrap_or(SEEDS);
    match run_seeds(number("FLYWHEEL_SIM_FROM").unwrap_or(0), seeds) {
        Err((seed, failure)) => panic!("{failure}\nrun it again with FLYWHEEL_SIM_SEED={seed} cargo test --test it workflow_sim"),
        Ok(totals) => {
            println!("{totals:?}");
            let unmet: Vec<_> = HAPPENS.iter().filter(|name| totals.get(*name).is_none_or(|count| *count == 0)).collect();
            assert!(seeds < SEEDS_ENOUGH || unmet.is_empty(), "never happened in {seeds} seeds: {unmet:?}");
        }
    }
}

#[test]
fn a_seed_is_one_history() {
    for seed in 0..6 {
        let run = || Life::new(seed, true, false).all().story;
        let story = run();
        assert!(story.len() > 10 && story == run(), "seed {seed}");
    }
}
