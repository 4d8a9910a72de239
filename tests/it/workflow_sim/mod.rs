//! The whole engine and its effect executor on the embedded log, on a disk that stops where it likes: a thousand short histories, each from
//! a seed.
//!
//! A seed decides what the workflows are, who does what, how performers misbehave, which partitions are slow and when the machine stops;
//! `promises` says what holds of every journal, `mirror` what each journal must be to the byte. `FLYWHEEL_SIM_SEED=n cargo test --test it
//! workflow_sim` runs one seed again and tells its story, `FLYWHEEL_SIM_SEEDS=n` runs the first n.

mod end;
mod executor;
mod mirror;
mod program;
mod promises;
mod run;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use run::Life;

/// About a minute where nothing else runs: `FLYWHEEL_SIM_SEEDS` for more.
const SEEDS: u64 = 1_000;
/// With this many, everything that can happen has happened.
const SEEDS_ENOUGH: u64 = 150;
/// Two run side by side: more would only wait for each other.
const WORKERS: usize = 2;

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

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panicked")
}

fn run_seed(seed: u64) -> Result<Life, String> {
    let run = || Life::new(seed, false, false).all();
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| format!("seed {seed}: {}", message(&*panic)))
}

/// Runs seeds until one fails, and returns how often what happened.
fn run_seeds(from: u64, seeds: u64) -> Result<BTreeMap<&'static str, u64>, (u64, String)> {
    let next = AtomicU64::new(from);
    let work = || {
        let mut totals: BTreeMap<&'static str, u64> = BTreeMap::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + seeds {
                return Ok(totals);
            }
            match run_seed(seed) {
                Ok(life) => {
                    *totals.entry("seeds").or_default() += 1;
                    life.counts.0.iter().for_each(|(name, count)| *totals.entry(name).or_default() += count);
                }
                Err(failure) => {
                    next.store(from + seeds, Ordering::Relaxed);
                    return Err((seed, failure));
                }
            }
        }
    };
    let mut totals: BTreeMap<&'static str, u64> = BTreeMap::new();
    let ends: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    for end in ends {
        end?.into_iter().for_each(|(name, count)| *totals.entry(name).or_default() += count);
    }
    Ok(totals)
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
