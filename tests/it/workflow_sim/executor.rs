//! The engine's own executor, without its threads, and the world in which it performs: what was done there no crash undoes.
//!
//! Board, tables, follower and gate are those of the product, on the simulated log and stores. The performers are as bad as they come:
//! late, silent and fond of failing after they did it; the process dies between any two steps, stops in good order, and what it handed in
//! is said again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use flywheel::domain::Millis;
use flywheel::engine;
use flywheel::engine::effects::{Board, BreakerSettings, Error, Follower, Gate, Job, Limits, Sharing, advance};
use flywheel::log::LogReader;
use flywheel::permit::Executor as Instance;
use flywheel::state::StateStore;
use flywheel::stream::Topics;
use flywheel::workflow::{Category, EffectId, Fact, Input, Outcome, Performer, What};
use parking_lot::Mutex;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

/// How often what happened.
#[derive(Debug, Clone, Default)]
pub struct Deeds {
    pub performed: u64,
    pub repeated: u64,
    pub messages: u64,
    /// Not answered within their time.
    pub cut_off: u64,
    pub looked_up: u64,
    pub not_begun: u64,
    pub said_again: u64,
    pub stops: u64,
}

/// One life of the process.
struct Process {
    board: Mutex<Board>,
    follower: Follower,
    gate: Gate,
    has_begun: bool,
}

/// With its performer.
struct Begun {
    job: Job,
    until: u64,
    /// Whether it was done, or not, is decided, and this is said of it; `None` if it hangs.
    outcome: Option<Option<Outcome>>,
}

pub struct Executor {
    process: Option<Process>,
    lives: u8,
    limits: Limits,
    jobs: Vec<Begun>,
    /// Handed in, in this order, and not in the log yet.
    queue: VecDeque<(Bytes, Input)>,
    /// In the log, and may be said again.
    said: Vec<(Bytes, Input)>,
    requested: Vec<EffectId>,
    /// The world outside: how often each effect was done there.
    pub done: BTreeMap<EffectId, u32>,
    pub deeds: Deeds,
    /// At the end everything is answered, and nothing twice.
    behaves: bool,
}

impl Executor {
    pub fn new(rng: &mut ChaCha8Rng) -> Self {
        let limits = Limits { concurrency: rng.random_range(1..5), per_second: [0, 0, 3][rng.random_range(0..3)] };
        Self {
            process: None,
            lives: 0,
            limits,
            jobs: Vec::new(),
            queue: VecDeque::new(),
            said: Vec::new(),
            requested: Vec::new(),
            done: BTreeMap::new(),
            deeds: Deeds::default(),
            behaves: false,
        }
    }

    /// Another instance begins, on whatever the last one left in these tables.
    pub fn open(&mut self, log: Arc<dyn LogReader>, store: Arc<dyn StateStore>, topics: &Topics) -> Result<(), Error> {
        self.lives += 1;
        let sharing = Sharing { in_flight_per_tenant: 8, breaker: BreakerSettings { in_a_row: 4, ..BreakerSettings::default() } };
        let limits = self.limits;
        let mut board = Board::new(Instance([self.lives; 16]), sharing, Box::new(move |_, _| limits));
        let gate = Gate::new(&*log, topics, Some(engine::group(&topics.namespace)), None)?;
        let follower = Follower::open(log, store, topics, &mut board)?;
        self.process = Some(Process { board: Mutex::new(board), follower, gate, has_begun: false });
        Ok(())
    }

    /// The process ends: what was done is done, who did it is forgotten.
    pub fn crash(&mut self, rng: &mut ChaCha8Rng) {
        for begun in std::mem::take(&mut self.jobs) {
            // In the middle of it.
            if begun.outcome.is_none() && rng.random_bool(0.3) {
                let _ = self.perform(&begun.job, rng);
            }
        }
        self.process = None;
        self.queue.clear();
        self.said.retain(|_| rng.random_bool(0.5));
    }

    pub fn behave(&mut self) {
        self.behaves = true;
    }

    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.queue.is_empty()
    }

    pub fn was_done(&self, effect: EffectId) -> bool {
        self.done.contains_key(&effect)
    }

    /// Whether somebody may be at it.
    pub fn is_on(&self, effect: EffectId) -> bool {
        let finishes = |input: &Input| matches!(input, Input::EffectFinished { effect: of, .. } if *of == effect);
        self.jobs.iter().any(|begun| begun.job.call.request.effect == effect) || self.queue.iter().any(|(_, input)| finishes(input))
    }

    pub fn any_effect(&self, rng: &mut ChaCha8Rng) -> Option<EffectId> {
        (!self.requested.is_empty()).then(|| self.requested[rng.random_range(0..self.requested.len())])
    }

    pub fn hear(&mut self, fact: &Fact) {
        if let What::EffectRequested { effect, .. } = fact.what {
            self.requested.push(effect);
        }
    }

    /// Something that it does; [`next`](Self::next) has what comes of it.
    pub fn step(&mut self, log: &dyn LogReader, rng: &mut ChaCha8Rng, now: u64, appended: Millis) -> Result<(), Error> {
        self.cut_off(rng, now);
        let Some(process) = &mut self.process else { return Ok(()) };
        let choice = if self.behaves { 0 } else { rng.random_range(0..12) };
        if matches!(choice, 0..5) {
            process.follower.read(&process.board, || now)?;
            let ends = process.follower.ends()?;
            if !process.has_begun && process.gate.is_open(log)? && process.follower.is_at(&ends) {
                process.board.lock().begin(false, now);
                process.has_begun = true;
            }
        }
        if matches!(choice, 0 | 5..9) && process.has_begun {
            let most = if self.behaves { usize::MAX } else { rng.random_range(1..4) };
            advance(&mut process.board.lock(), process.follower.tables(), most, now, appended)?;
        }
        if choice == 9 {
            process.follower.flush(&process.board, [0, 1 << 20][rng.random_range(0..2)])?;
        }
        self.take(now);
        if matches!(choice, 0 | 10 | 11) {
            self.answer(rng, now);
        }
        Ok(())
    }

    /// It stops in good order; another is to be opened once what it said is in the log.
    pub fn stop(&mut self, now: u64) -> Result<(), Error> {
        self.deeds.stops += 1;
        let Some(process) = &mut self.process else { return Ok(()) };
        if process.has_begun {
            process.board.lock().give_all_back(now);
        }
        let stored = process.follower.flush(&process.board, 0);
        self.take(now);
        stored
    }

    fn take(&mut self, now: u64) {
        let Some(process) = &self.process else { return };
        let mut board = process.board.lock();
        for job in board.take_ready() {
            self.jobs.push(Begun { until: now + job.call.deadline.as_millis() as u64, job, outcome: None });
        }
        for command in board.take_commands() {
            let not_begun = matches!(command.input, Input::EffectFinished { outcome: Outcome::NotBegun { .. }, .. });
            self.deeds.not_begun += u64::from(not_begun);
            self.queue.push_back((command.subject.bytes().clone(), command.input));
        }
    }

    /// What is handed in next; to be [`appended`](Self::appended) if the log took it.
    pub fn next(&mut self, rng: &mut ChaCha8Rng) -> Option<(Bytes, Input)> {
        if !self.said.is_empty() && !self.behaves && rng.random_ratio(1, 12) {
            self.deeds.said_again += 1;
            return Some(self.said[rng.random_range(0..self.said.len())].clone());
        }
        self.queue.pop_front()
    }

    pub fn appended(&mut self, key: Bytes, input: Input, rng: &mut ChaCha8Rng) {
        if matches!(input, Input::EffectFinished { .. }) && rng.random_bool(0.2) {
            self.said.push((key, input));
        }
    }

    /// Those whose time is over by now, whatever else happened since: they were done in their time, or not at all.
    pub fn cut_off(&mut self, rng: &mut ChaCha8Rng, now: u64) {
        let mut at = 0;
        while at < self.jobs.len() {
            if now < self.jobs[at].until {
                at += 1;
                continue;
            }
            let begun = self.jobs.swap_remove(at);
            if begun.outcome.is_none() && rng.random_bool(0.3) {
                let _ = self.perform(&begun.job, rng);
            }
            self.deeds.cut_off += 1;
            self.finished(begun.job, Outcome::Unknown { error: "no answer in its time".to_owned() }, now);
        }
    }

    /// Some job is done, or said to be.
    fn answer(&mut self, rng: &mut ChaCha8Rng, now: u64) {
        if self.jobs.is_empty() {
            return;
        }
        let at = rng.random_range(0..self.jobs.len());
        let outcome = match self.jobs[at].outcome.take() {
            Some(outcome) => outcome,
            None => {
                let Begun { job, until, .. } = self.jobs.swap_remove(at);
                let outcome = self.perform(&job, rng);
                self.jobs.push(Begun { job, until, outcome: Some(outcome) });
                return;
            }
        };
        match outcome {
            Some(outcome) => {
                let job = self.jobs.swap_remove(at).job;
                self.finished(job, outcome, now);
            }
            None => self.jobs[at].outcome = Some(None),
        }
    }

    fn finished(&mut self, job: Job, outcome: Outcome, now: u64) {
        if let Some(process) = &self.process {
            process.board.lock().finished(job.held, &job.call.request, outcome, now);
        }
        self.take(now);
    }

    /// Does it, or not, and what is said of it; `None` if nothing ever is.
    fn perform(&mut self, job: &Job, rng: &mut ChaCha8Rng) -> Option<Outcome> {
        let request = &job.call.request;
        let (effect, result) = (request.effect, json!({ "ok": true, "text": "done" }));
        if job.call.look_up {
            self.deeds.looked_up += 1;
            return Some(match rng.random_range(0..10) {
                0 if !self.behaves => failed("cannot look", rng),
                1 if !self.behaves => Outcome::Unknown { error: "cannot tell".to_owned() },
                _ if self.was_done(effect) => Outcome::Done { result },
                _ => Outcome::NotDone,
            });
        }
        match rng.random_range(0..20) {
            0..3 => return Some(failed("503", rng)),
            3 => return Some(Outcome::Unknown { error: "no connection".to_owned() }),
            4 if !self.behaves => return None,
            _ => {}
        }
        let is_message = request.by == Performer::Channel;
        if is_message {
            let leave = job.leave.as_ref().expect("no message is performed without leave");
            assert_eq!((leave.permit.key(), leave.permit.channel()), (request.key(), "email"), "a permit is of its message");
        }
        self.deeds.performed += 1;
        self.deeds.messages += u64::from(is_message);
        let times = self.done.entry(effect).or_default();
        *times += 1;
        self.deeds.repeated += u64::from(*times > 1);
        match rng.random_range(0..10) {
            0 => Some(Outcome::Unknown { error: "connection lost".to_owned() }),
            1 if !self.behaves => None,
            _ => Some(Outcome::Done { result }),
        }
    }
}

fn failed(error: &str, rng: &mut ChaCha8Rng) -> Outcome {
    let category = [Category::Api, Category::Agent, Category::System][rng.random_range(0..3)];
    let retry_after_ms = rng.random_bool(0.3).then(|| rng.random_range(0..600_000));
    Outcome::Failed { category, error: error.to_owned(), permanent: rng.random_ratio(1, 8), retry_after_ms }
}
