//! A running executor on a log in memory, with facts written by hand.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value as Json, json};

use super::words::{AD, AGENT, Effect, MAIL};
use crate::domain::{Millis, Namespace, Offset, PartitionId};
use crate::engine::effects::{Call, Handle, Leave, Limits, Performing, Registry, Remote, Settings, Setup, Sharing, start};
use crate::env::ManualClock;
use crate::log::{BatchBuilder, LogReader, LogWriter, MemoryLog, TopicPartition, Transaction};
use crate::permit::Executor;
use crate::schema::records::{CommandsRecord, JournalFact, JournalRecord};
use crate::state::{MemoryStore, StateStore};
use crate::stream::{Partitions, Topic, Topics};
use crate::workflow::{EffectId, Input, Outcome, Performer};

struct World {
    log: Arc<MemoryLog>,
    state: Arc<dyn StateStore>,
    topics: Topics,
    clock: Arc<ManualClock>,
    performed: Arc<Mutex<Vec<(u128, u32)>>>,
    /// What was told to whoever runs the place, and whether that works.
    told: Arc<Mutex<Vec<(EffectId, Json)>>>,
    is_deaf: Arc<AtomicBool>,
}

/// Hears of effects that were given up.
struct Operator(Arc<Mutex<Vec<(EffectId, Json)>>>, Arc<AtomicBool>);

impl Remote for Operator {
    fn perform(&self, call: Call, _: Option<Leave>) -> Performing<'_> {
        Box::pin(async move {
            self.0.lock().push((call.request.effect, call.request.input().into()));
            match self.1.load(Ordering::Acquire) {
                true => Outcome::Unknown { error: "no answer".into() },
                false => Outcome::Done { result: json!({}) },
            }
        })
    }
}

/// Performs what its input says: nothing, a panic, or for ever.
struct Slow(Arc<Mutex<Vec<(u128, u32)>>>);

impl Remote for Slow {
    fn perform(&self, call: Call, leave: Option<Leave>) -> Performing<'_> {
        Box::pin(async move {
            self.0.lock().push((call.request.effect.0, call.attempt));
            match call.request.effect.0 {
                13 => panic!("poison"),
                14 => std::future::pending().await,
                _ => Outcome::Done { result: json!({ "to": leave.map(|leave| leave.to) }) },
            }
        })
    }
}

fn world() -> World {
    let clock = Arc::new(ManualClock::at(Millis(1_000_000)));
    let log = Arc::new(MemoryLog::new(Arc::clone(&clock) as _));
    let topics = Topics::create(&*log, &Namespace::new("shop").unwrap(), Partitions { intake: 1, events: 2, inbox: 0 }).unwrap();
    World {
        log,
        state: Arc::new(MemoryStore::default()),
        topics,
        clock,
        performed: Arc::default(),
        told: Arc::default(),
        is_deaf: Arc::default(),
    }
}

impl World {
    fn start(&self) -> Handle {
        self.start_with(Limits::default(), 1 << 20, Duration::from_secs(5))
    }

    fn start_with(&self, limits: Limits, request_bytes_max: usize, flush_age: Duration) -> Handle {
        let performed = Arc::clone(&self.performed);
        let echo = move |call: &Call| {
            performed.lock().push((call.request.effect.0, call.attempt));
            assert_ne!(call.request.effect.0, 15, "poison");
            Outcome::Done { result: call.request.input().into() }
        };
        let slow = || Slow(Arc::clone(&self.performed));
        let registry = Registry::default().inline(Performer::Agent, "echo", echo).remote(Performer::Channel, "email", slow());
        let sharing = Sharing { in_flight_per_tenant: 100, breaker: Default::default() };
        let settings = Settings {
            schedule: sharing,
            limits: Box::new(move |_, _| limits),
            request_bytes_max,
            flush_age,
            flush_bytes_max: 1 << 20,
            threads: 1,
            notify: "ops".to_owned(),
            drain: Duration::from_millis(200),
        };
        let (log, state) = (Arc::clone(&self.log), Arc::clone(&self.state));
        let registry = registry.remote(Performer::Agent, "slow", slow());
        let registry = registry.remote(Performer::Webhook, "ops", Operator(Arc::clone(&self.told), Arc::clone(&self.is_deaf)));
        let setup = Setup {
            partitions: None,
            log,
            state,
            clock: Arc::clone(&self.clock) as _,
            topics: self.topics.clone(),
            registry,
            settings,
            fold: None,
            copied: None,
        };
        start(setup).unwrap()
    }

    fn facts(&self, effect: Effect, facts: &[Json]) {
        let partition = PartitionId(effect.number as u32 % 2);
        let mut batch = BatchBuilder::new();
        for fact in facts {
            let (run, body) = (effect.run(), fact.to_string());
            let record = JournalRecord::Fact(JournalFact { at: 1_000_000, run: &run, body: &body });
            batch.push_with(effect.key().as_bytes(), Millis(1_000_000), |out| crate::schema::encode(&record, out)).unwrap();
        }
        let batches = vec![(self.topics.partition(Topic::Journal, partition), batch.build())];
        self.log.append(Transaction { batches, commits: vec![] }).unwrap().wait().unwrap();
    }

    fn commands(&self) -> Vec<(PartitionId, Input)> {
        let mut found = Vec::new();
        for id in self.topics.partitions(Topic::Commands) {
            let fetched = self.log.fetch(id, Offset(0), usize::MAX).unwrap();
            for record in fetched.records() {
                let CommandsRecord::Command(command) = crate::schema::decode(record.value.unwrap()).unwrap() else { panic!("a command") };
                let input: Input = serde_json::from_str(command.body).unwrap();
                assert_eq!(serde_json::to_value(&input).unwrap().as_object().unwrap().keys().next().unwrap(), command.kind);
                found.push((id.partition, input));
            }
        }
        found
    }

    /// Waits for so many commands.
    #[track_caller]
    fn until(&self, count: usize) -> Vec<(PartitionId, Input)> {
        let begun = Instant::now();
        loop {
            let commands = self.commands();
            if commands.len() >= count {
                return commands;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{count} commands, have {commands:?}");
            let ends: Vec<(TopicPartition, Offset)> =
                self.topics.partitions(Topic::Commands).map(|id| (id, self.log.watermarks(id).unwrap().end)).collect();
            self.log.wait(&ends, Duration::from_millis(20)).unwrap();
        }
    }
}

#[test]
fn an_effect_is_performed_and_its_result_is_a_command_to_its_subject() {
    let world = world();
    let executor = world.start();
    world.facts(AGENT, &[AGENT.requested(), AGENT.minted(1)]);
    let commands = world.until(1);
    let Input::EffectFinished { effect, attempt: 1, outcome: Outcome::Done { result } } = &commands[0].1 else { panic!("{commands:?}") };
    assert_eq!((commands[0].0, *effect, result), (PartitionId(1), AGENT.id(), &json!({ "n": 1 })));
    executor.stop().unwrap();
}

#[test]
fn a_mail_goes_from_request_to_start_to_permit_to_sent() {
    let world = world();
    let executor = world.start();
    world.facts(MAIL, &[MAIL.requested(), MAIL.minted(1)]);
    let commands = world.until(1);
    let Input::EffectStarted { executor: me, .. } = &commands[0].1 else { panic!("{commands:?}") };
    assert!(world.performed.lock().is_empty());
    assert!(me.parse::<Executor>().is_ok());
    world.facts(MAIL, &[MAIL.started(1, me), MAIL.granted(1, me)]);
    let commands = world.until(2);
    let Input::EffectFinished { outcome: Outcome::Done { result }, .. } = &commands[1].1 else { panic!("{commands:?}") };
    assert_eq!(result["to"], "ada@example.com");
    executor.stop().unwrap();
}

#[test]
fn a_restart_loses_nothing_begins_nothing_irrevocable_twice_and_reads_only_what_is_new() {
    let world = world();
    let executor = world.start();
    world.facts(AD, &[AD.requested(), AD.minted(1)]);
    let commands = world.until(1);
    let Input::EffectStarted { executor: me, .. } = &commands[0].1 else { panic!("{commands:?}") };
    world.facts(MAIL, &[MAIL.requested(), MAIL.minted(1)]);
    world.until(2);
    executor.stop().unwrap();
    let given_back = world.commands().iter().filter(|(_, input)| serde_json::to_string(input).unwrap().contains("not_begun")).count();
    assert_eq!(given_back, 2, "a stop says of what it had asked for that it was not begun");
    // Another died after the ad's start was on record, and before anyone heard of it again. The mail never got so far.
    world.facts(AD, &[AD.void(1), AD.minted(2), AD.started(2, me)]);
    world.facts(MAIL, &[MAIL.void(1), MAIL.minted(2)]);
    world.facts(AGENT, &[AGENT.requested(), AGENT.minted(1)]);
    let executor = world.start();
    let commands = world.until(7);
    let late: Vec<String> = commands.iter().map(|(_, input)| serde_json::to_string(input).unwrap()).collect();
    assert!(late.iter().any(|text| text.contains("unknown") && text.contains(&AD.id().to_string())), "{late:?}");
    assert!(late.iter().any(|text| text.contains("done") && text.contains(&AGENT.id().to_string())), "{late:?}");
    let starts = late.iter().filter(|text| text.contains("effect_started") && text.contains(&MAIL.id().to_string()));
    assert_eq!(starts.count(), 2, "the mail is asked for again, by the new instance: {late:?}");
    assert_eq!(*world.performed.lock(), [(1, 1)], "the ad was not placed again");
    assert_eq!(executor.status().pending, 3);
    executor.stop().unwrap();
    // What is stored is enough: the facts are not needed again.
    let tables = world.state.tables().unwrap();
    let rows: usize = tables.iter().map(|table| world.state.scan(table, None, 100).unwrap().len()).sum();
    assert_eq!(rows, 6, "how each stands, and what it asks for: {tables:?}");
}

#[test]
fn a_performer_that_panics_fails_its_attempt_and_nothing_else() {
    let world = world();
    let executor = world.start();
    let slow = Effect { target: "slow", ..AGENT };
    for poison in [slow.of(13), AGENT.of(15)] {
        world.facts(poison, &[poison.requested(), poison.minted(1)]);
    }
    let commands = world.until(2);
    for (_, command) in &commands {
        let Input::EffectFinished { outcome: Outcome::Failed { error, permanent: false, .. }, .. } = command else {
            panic!("{commands:?}")
        };
        assert_eq!(error, "the performer panicked");
    }
    world.facts(AGENT, &[AGENT.requested(), AGENT.minted(1)]);
    world.until(3);
    executor.stop().unwrap();
}

#[test]
fn what_does_not_answer_by_its_deadline_is_unknown() {
    let world = world();
    let executor = world.start();
    let slow = Effect { target: "slow", ..AGENT }.of(14);
    let mut requested = slow.requested();
    requested["effect_requested"]["timeout_ms"] = json!(20);
    world.facts(slow, &[requested, slow.minted(1)]);
    let commands = world.until(1);
    let Input::EffectFinished { outcome: Outcome::Unknown { error }, .. } = &commands[0].1 else { panic!("{commands:?}") };
    assert_eq!(error, "no answer to the attempt within 20 ms");
    executor.stop().unwrap();
}

#[test]
fn what_waits_is_on_disk_and_is_read_when_its_turn_comes() {
    let world = world();
    let executor = world.start_with(Limits { concurrency: 1, per_second: 0 }, 0, Duration::ZERO);
    // Holds the lane until its deadline.
    let first = Effect { target: "slow", ..AGENT }.of(14);
    let mut requested = first.requested();
    requested["effect_requested"]["timeout_ms"] = json!(500);
    world.facts(first, &[requested, first.minted(1)]);
    let others: Vec<Effect> = (20..60).map(|number| Effect { target: "slow", ..AGENT }.of(number)).collect();
    for other in &others {
        world.facts(*other, &[other.requested(), other.minted(1)]);
    }
    until(|| executor.status().pending >= 41 && executor.status().request_bytes <= 1_000, || executor.status());
    let commands = world.until(41);
    let done = |effect: &Effect| {
        let is_it =
            |input: &Input| matches!(input, Input::EffectFinished { effect: id, outcome: Outcome::Done { .. }, .. } if *id == effect.id());
        commands.iter().any(|(_, input)| is_it(input))
    };
    assert!(others.iter().all(done));
    executor.stop().unwrap();
}

#[test]
fn after_a_restart_what_was_only_on_disk_is_performed() {
    let world = world();
    let executor = world.start_with(Limits { concurrency: 1, per_second: 0 }, 0, Duration::ZERO);
    let stuck = Effect { target: "slow", ..AGENT }.of(14);
    let waiting = Effect { target: "slow", ..AGENT }.of(16);
    let (mail, gone) = (MAIL.of(18), Executor([8; 16]).to_string());
    world.facts(stuck, &[stuck.requested(), stuck.minted(1)]);
    world.facts(waiting, &[waiting.requested(), waiting.minted(1)]);
    world.facts(mail, &[mail.requested(), mail.minted(1), mail.started(1, &gone), mail.granted(1, &gone)]);
    until(|| executor.status().pending >= 3, || executor.status());
    drop(executor);
    world.facts(stuck, &[stuck.cancelled()]);
    let before = world.commands().len();
    let executor = world.start();
    let commands = world.until(before + 2);
    let said = commands.iter().map(|(_, input)| serde_json::to_string(input).unwrap()).collect::<Vec<_>>().join("\n");
    assert!(said.contains(&waiting.id().to_string()) && said.contains(&mail.id().to_string()), "{said}");
    executor.stop().unwrap();
}

#[test]
fn what_nobody_performs_says_so() {
    let world = world();
    let executor = world.start();
    let stray = Effect { target: "oracle", ..AGENT };
    world.facts(stray, &[stray.requested(), stray.minted(1)]);
    let commands = world.until(1);
    let Input::EffectFinished { outcome: Outcome::Failed { error, permanent: true, .. }, .. } = &commands[0].1 else {
        panic!("{commands:?}")
    };
    assert!(error.contains("nobody here performs agent \"oracle\""), "{error}");
    executor.stop().unwrap();
}

/// Looks again and again until it is so; what there was instead is said when it takes too long.
#[track_caller]
fn until<T: Debug>(is: impl Fn() -> bool, instead: impl Fn() -> T) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", instead());
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Waits until what was asked for before the start is known.
fn begun(executor: &Handle) {
    until(|| executor.status().caught_up, || executor.status());
}

impl World {
    /// Waits until so many calls were made to tell of what was given up.
    #[track_caller]
    fn until_told(&self, count: usize) -> Vec<(EffectId, Json)> {
        until(|| self.told.lock().len() >= count, || self.told.lock().clone());
        self.told.lock().clone()
    }
}

#[test]
fn a_great_many_effects_that_are_given_up_alike_are_told_once_and_those_that_no_one_heard_of_again_after_a_kill() {
    let world = world();
    let executor = world.start();
    begun(&executor);
    world.facts(AGENT, &[AGENT.requested(), AGENT.given_up("no credentials")]);
    assert_eq!(world.until_told(1)[0].1["count"], 1, "at once");
    for number in 100..400 {
        let effect = AGENT.of(number);
        world.facts(effect, &[effect.requested(), effect.given_up("no credentials")]);
    }
    world.is_deaf.store(true, Ordering::Release);
    let other = AGENT.of(500);
    world.facts(other, &[other.requested(), other.given_up("no route")]);
    let told = world.until_told(2);
    assert_eq!(told[1].1["text"], "no route", "equal ones wait for a minute and hold up no other");
    executor.stop().unwrap();
    world.is_deaf.store(false, Ordering::Release);
    // Given up while nobody performed.
    let third = AGENT.of(501);
    world.facts(third, &[third.requested(), third.given_up("no paper")]);
    let executor = world.start();
    let told = world.until_told(5);
    let found = |text: &str| told[2..].iter().find(|(_, input)| input["text"] == text).unwrap_or_else(|| panic!("{text}: {told:?}"));
    assert_eq!(found("no route").0, told[1].0, "under the key of the call that was not answered");
    assert_eq!(found("no credentials").1["count"], 300);
    assert_eq!(found("no paper").1["count"], 1);
    executor.stop().unwrap();
    let executor = world.start();
    world.facts(AGENT.of(502), &[AGENT.of(502).requested(), AGENT.of(502).minted(1)]);
    world.until(1);
    assert_eq!(world.told.lock().len(), 5, "what was told is not told again");
    executor.stop().unwrap();
}

#[test]
fn what_was_given_up_before_anyone_performed_here_is_old_news() {
    let world = world();
    world.facts(AGENT, &[AGENT.requested(), AGENT.given_up("long ago")]);
    let executor = world.start();
    begun(&executor);
    let other = AGENT.of(3);
    world.facts(other, &[other.requested(), other.minted(1), other.given_up("now")]);
    assert_eq!(world.until_told(1)[0].1["text"], "now");
    executor.stop().unwrap();
}
