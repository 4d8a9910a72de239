//! Many short histories, each from a seed, on threads side by side: how they are run, counted and told of when one fails.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// How often what happened.
pub type Counts = BTreeMap<&'static str, u64>;

/// Two run side by side: more would only wait for each other.
const WORKERS: usize = 2;

/// What the environment asks for, such as `FLYWHEEL_SIM_SEED`.
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panicked")
}

/// Runs seeds until one fails; that one and why.
pub fn run(seeds: Range<u64>, one: impl Fn(u64) -> Counts + Sync) -> Result<Counts, (u64, String)> {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut totals = Counts::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(totals);
            }
            match catch_unwind(AssertUnwindSafe(|| one(seed))) {
                Ok(counts) => add(&mut totals, counts),
                Err(panic) => {
                    next.store(seeds.end, Ordering::Relaxed);
                    return Err((seed, format!("seed {seed}: {}", message(&*panic))));
                }
            }
        }
    };
    let mut totals = Counts::new();
    let ends: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    for end in ends {
        add(&mut totals, end?);
    }
    Ok(totals)
}

fn add(totals: &mut Counts, counts: Counts) {
    counts.into_iter().for_each(|(name, count)| *totals.entry(name).or_default() += count);
}
