//! `read_models.runs`, `.cpu`, `.cpu.live`: facts of runs with five effects into SQL, and what that costs beside the fold.
//!
//! The log is in memory and filled by copying one run's facts under other ids, so that what is measured is the projector alone: first with
//! a journal that lies there, in large transactions, then with one that grows at the rate that a server is asked for, in small ones.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::figure::{Figure, NOTHING};
use super::folds::cpu_seconds;
use crate::domain::{Millis, Namespace, Offset, PartitionId, Subject, TenantId};
use crate::env::SystemClock;
use crate::log::memory::MemoryLog;
use crate::log::{BatchBuilder, LogWriter, TopicPartition, Transaction};
use crate::projections::{Handle, Options, Projector};
use crate::schema;
use crate::schema::records::{JournalFact, JournalRecord};
use crate::stream::{Partitions, Topic, Topics};
use crate::workflow::{Definition, EffectId, Fact, RunId, What};

const IN_FLIGHT: usize = 256;
const EFFECTS: usize = 5;
const RESULT_BYTES: usize = 190;
const RUNS: usize = 50_000;
/// What the live part is fed, and for how long.
const RUNS_PER_SECOND: usize = 2_500;
const LIVE: Duration = Duration::from_secs(10);
const FEED_EVERY: Duration = Duration::from_millis(10);
const WAIT_AT_MOST: Duration = Duration::from_secs(120);

pub fn run(dir: &Path) -> anyhow::Result<Vec<Figure>> {
    let mut journal = Journal::new()?;
    let facts = journal.facts.len();
    for _ in 0..RUNS * facts {
        journal.next()?;
    }
    journal.flush()?;
    let setup = format!("{facts} facts a run, {IN_FLIGHT} runs in flight, 200-byte results, 4 partitions, log in memory");
    let (cpu, begun) = (cpu_seconds(), Instant::now());
    let handle = Projector::start(journal.log.clone(), dir, &journal.topics.namespace, Options::default())?;
    journal.wait(&handle)?;
    let (elapsed, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let backlog = format!("a journal of {RUNS} runs, {setup}");
    let mut figures = vec![
        Figure::new("read_models.runs", RUNS as f64 / elapsed, "runs/s", NOTHING, backlog.clone()),
        Figure::new("read_models.cpu", cpu * 1e3 / RUNS as f64, "ms/run", NOTHING, backlog),
    ];
    let (cpu, begun, mut fed) = (cpu_seconds(), Instant::now(), 0);
    while begun.elapsed() < LIVE {
        let due = (begun.elapsed().as_secs_f64() * RUNS_PER_SECOND as f64) as usize * facts;
        while fed < due {
            journal.next()?;
            fed += 1;
        }
        journal.flush()?;
        std::thread::park_timeout(FEED_EVERY);
    }
    journal.wait(&handle)?;
    let cpu = (cpu_seconds() - cpu) * 1e3 / (fed as f64 / facts as f64);
    let live = format!("{RUNS_PER_SECOND} runs/s as they come, {setup}; writing the log included");
    figures.push(Figure::new("read_models.cpu.live", cpu, "ms/run", NOTHING, live));
    handle.stop();
    Ok(figures)
}

/// A journal that grows by one fact at a time, of each run in flight in turn.
struct Journal {
    log: Arc<MemoryLog>,
    topics: Topics,
    tenant: TenantId,
    /// Of the run that the others are copies of.
    facts: Vec<(i64, String)>,
    run: RunId,
    effects: Vec<String>,
    /// The number of each run in flight, and its next fact.
    in_flight: Vec<(usize, usize)>,
    started: usize,
    turn: usize,
    batches: Vec<BatchBuilder>,
    ends: Vec<u64>,
}

impl Journal {
    fn new() -> anyhow::Result<Self> {
        let log = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
        let topics = Topics::create(&*log, &Namespace::new("main")?, Partitions::default())?;
        let definition = Definition::parse("five.toml", &five())?;
        let told: Vec<Fact> = definition.tests.iter().flat_map(|test| crate::workflow::run(&definition, test)).collect();
        let run = told.iter().find_map(|fact| fact.run).unwrap_or(RunId(0));
        let effects = told.iter().filter_map(|fact| match &fact.what {
            What::EffectRequested { effect, .. } => Some(effect.to_string()),
            _ => None,
        });
        let effects = effects.collect();
        let facts = told.iter().filter(|fact| fact.run.is_some()).map(|fact| (fact.at.0, fact.parts().1)).collect();
        let partitions = topics.count(Topic::Journal) as usize;
        Ok(Self {
            log,
            tenant: TenantId::new("default")?,
            facts,
            run,
            effects,
            in_flight: (0..IN_FLIGHT).map(|number| (number, 0)).collect(),
            started: IN_FLIGHT,
            turn: 0,
            batches: (0..partitions).map(|_| BatchBuilder::new()).collect(),
            ends: vec![0; partitions],
            topics,
        })
    }

    /// Adds the next fact of the run whose turn it is.
    fn next(&mut self) -> anyhow::Result<()> {
        self.turn = (self.turn + 1) % IN_FLIGHT;
        let (number, at) = self.in_flight[self.turn];
        let (time, body) = &self.facts[at];
        let run = RunId(self.run.0 ^ u128::from(mixed(number as u64)) << 64).to_string();
        let mut body = body.clone();
        for (place, effect) in self.effects.iter().enumerate() {
            if body.contains(effect.as_str()) {
                let other = EffectId(u128::from(mixed(number as u64)) << 64 | place as u128);
                body = body.replace(effect.as_str(), &other.to_string());
            }
        }
        let mut value = Vec::new();
        schema::encode(&JournalRecord::Fact(JournalFact { at: *time, run: &run, body: &body }), &mut value)?;
        let key = Subject::user(&format!("user-{number}")).key(&self.tenant);
        let partition = number % self.batches.len();
        self.batches[partition].push(key.as_bytes(), Some(&value), Millis(*time));
        self.ends[partition] += 1;
        self.in_flight[self.turn] = match at + 1 < self.facts.len() {
            true => (number, at + 1),
            false => {
                self.started += 1;
                (self.started - 1, 0)
            }
        };
        Ok(())
    }

    fn partition(&self, number: usize) -> TopicPartition {
        self.topics.partition(Topic::Journal, PartitionId(number as u32))
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let full: Vec<usize> = (0..self.batches.len()).filter(|at| !self.batches[*at].is_empty()).collect();
        let batches = full.iter().map(|at| (self.partition(*at), std::mem::replace(&mut self.batches[*at], BatchBuilder::new()).build()));
        let transaction = Transaction { batches: batches.collect(), commits: Vec::new() };
        if !transaction.batches.is_empty() {
            self.log.append(transaction)?.wait()?;
        }
        Ok(())
    }

    fn wait(&self, handle: &Handle) -> anyhow::Result<()> {
        for (number, end) in self.ends.iter().enumerate().filter(|(_, end)| **end > 0) {
            let there = handle.wait_applied("journal", PartitionId(number as u32), Offset(end - 1), WAIT_AT_MOST);
            anyhow::ensure!(there, "the read model did not come to the end: {:?}", handle.health());
        }
        Ok(())
    }
}

/// A hash of a number, so that ids lie as ids do: anywhere.
fn mixed(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Five effects in sequence, and the test whose journal is copied.
fn five() -> String {
    let mut text = "[workflow]\nname = \"five\"\nentry = { command = true }\n".to_owned();
    let mut answers = String::new();
    for at in 0..EFFECTS {
        let next = if at + 1 < EFFECTS { format!("step{}", at + 1) } else { "over".to_owned() };
        text += &format!(
            "[[node]]\nname = \"step{at}\"\nkind = \"effect\"\nagent = \"bench\"\ninput = {{ step = \"{at}\" }}\ntimeout = \"1m\"\nnext = \"{next}\"\n"
        );
        answers += &format!("{{ node = \"step{at}\", result = {{ text = \"{}\" }} }},", "x".repeat(RESULT_BYTES));
    }
    text += "[[node]]\nname = \"over\"\nkind = \"exit\"\n";
    text + &format!("[[test]]\nname = \"one\"\ngiven = [{{ start = true }}]\neffects = [{answers}]\nexpect = [\"run ended completed\"]\n")
}
