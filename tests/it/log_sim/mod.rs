//! The embedded log on a disk that fails: thousands of short histories, each from a seed.
//!
//! A seed decides what is asked of the log, what the disk does to it and what a crash leaves; the judgement after each restart is in
//! `truth`. `FLYWHEEL_SIM_SEED=n cargo test --test it log_sim` runs one seed again, `FLYWHEEL_SIM_SEEDS=n` runs the first n.

mod asked;
mod named;
mod run;
mod truth;

use flywheel::log::embedded::Driver;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use run::{Run, Telling};

use crate::seeds::{self, number};

const SEEDS: u64 = 3_000;
/// With this many, everything that can happen has happened.
const SEEDS_ENOUGH: u64 = 500;

fn on_one_thread(rng: &mut ChaCha8Rng) -> Driver {
    Driver::Caller { group: rng.random_range(1..5) }
}

fn run_seeds(seeds: u64, driver: fn(&mut ChaCha8Rng) -> Driver) -> Result<seeds::Counts, (u64, String)> {
    seeds::run(0..seeds, |seed| Run::new(seed, Telling::Nothing, driver).all().counts().named().into_iter().collect())
}

#[test]
fn the_embedded_log_keeps_its_promises_on_a_failing_disk() {
    if let Some(seed) = number("FLYWHEEL_SIM_SEED") {
        drop(Run::new(seed, Telling::Print, on_one_thread).all());
        return;
    }
    let seeds = number("FLYWHEEL_SIM_SEEDS").unwrap_or(SEEDS);
    match run_seeds(seeds, on_one_thread) {
        Err((seed, failure)) => panic!("{failure}\nrun it again with FLYWHEEL_SIM_SEED={seed} cargo test --test it log_sim"),
        Ok(totals) => {
            println!("{totals:?}");
            let unmet: Vec<_> = totals.iter().filter(|(_, count)| **count == 0).collect();
            assert!(seeds < SEEDS_ENOUGH || unmet.is_empty(), "never happened in {seeds} seeds: {unmet:?}");
        }
    }
}

/// The same promises with the log's own threads; a seed does not decide their order, so a failure may take several tries to show again.
#[test]
fn the_embedded_log_keeps_its_promises_with_threads_of_its_own() {
    let seeds = number("FLYWHEEL_SIM_SEEDS").unwrap_or(SEEDS) / 10;
    if let Err((seed, failure)) = run_seeds(seeds, |_| Driver::Threads) {
        panic!("seed {seed} with threads: {failure}");
    }
}

#[test]
fn a_seed_is_one_history() {
    for seed in 0..20 {
        let run = || Run::new(seed, Telling::Keep, on_one_thread).all().story;
        let story = run();
        assert!(story.len() > 10 && story == run(), "seed {seed}");
    }
}
