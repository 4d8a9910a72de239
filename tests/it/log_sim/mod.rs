//! The embedded log on a disk that fails: thousands of short histories, each from a seed.
//!
//! A seed decides what is asked of the log, what the disk does to it and what a crash leaves; the judgement after each restart is in
//! `truth`. `FLYWHEEL_SIM_SEED=n cargo test --test it log_sim` runs one seed again, `FLYWHEEL_SIM_SEEDS=n` runs the first n.

mod run;
mod truth;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use flywheel::log::embedded::Driver;
use rand::Rng;

use run::Run;

const SEEDS: u64 = 2_000;
/// Two run side by side: more would only wait for each other.
const WORKERS: usize = 2;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panicked")
}

fn run_seed(seed: u64, tells: bool) -> Result<(), String> {
    let run = || Run::new(seed, tells, |rng| Driver::Caller { group: rng.random_range(1..5) }).all();
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| format!("seed {seed}: {}", message(&*panic)))
}

#[test]
fn the_embedded_log_keeps_its_promises_on_a_failing_disk() {
    if let Some(seed) = number("FLYWHEEL_SIM_SEED") {
        return run_seed(seed, true).unwrap();
    }
    let seeds = number("FLYWHEEL_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return None;
            }
            if let Err(failure) = run_seed(seed, false) {
                next.store(seeds, Ordering::Relaxed);
                return Some((seed, failure));
            }
        }
    };
    let failures = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().unwrap()).min()
    });
    if let Some((seed, failure)) = failures {
        panic!("{failure}\nrun it again with FLYWHEEL_SIM_SEED={seed} cargo test --test it log_sim");
    }
}
