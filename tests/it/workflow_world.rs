//! A spine with its workflow processor on the memory log, stepped by hand, and a test's own executor that answers by name.

use std::collections::BTreeMap;

use bytes::Bytes;
use flywheel::domain::{Incarnation, Millis, Offset, PartitionId, SubjectKey, partition_of};
use flywheel::engine;
use flywheel::schema;
use flywheel::schema::records::{Command, CommandsRecord, JournalRecord};
use flywheel::stream::{NamespaceClock, Setup, Spine, Topic, activate_policy, activate_workflow, drive};
use flywheel::workflow::{Definition, EffectId, Fact, Input, Outcome, Policy, RunId, What};
use serde_json::Value as Json;

use crate::spine_world::World;

pub fn definition(text: &str) -> Definition {
    Definition::parse("test.toml", text).unwrap_or_else(|problems| panic!("{problems}"))
}

pub fn open(world: &World, workflows: &[&str], policy: Option<&str>) -> Spine {
    let mut spine = world.open();
    let from = if world.time == NamespaceClock::Event { Millis::MIN } else { flywheel::env::Clock::now(&world.clock) };
    for text in workflows {
        activate_workflow(&world.log, spine.topics(), &definition(text), from).expect("activates");
    }
    if let Some(text) = policy {
        let policy = Policy::parse("policy.toml", text).unwrap_or_else(|problems| panic!("{problems}"));
        activate_policy(&world.log, spine.topics(), None, &policy, from).expect("activates");
    }
    engine::join(&mut spine, world.time, None).expect("joins");
    spine
}

/// A folder that is a copy of another, as of this incarnation.
pub fn open_copied(world: &World, copied: Incarnation) -> Spine {
    let setup = Setup { copied: Some(copied), ..world.setup() };
    let mut spine = Spine::open(setup).unwrap_or_else(|error| panic!("{error}"));
    engine::join(&mut spine, world.time, Some(copied)).expect("joins");
    spine
}

/// Sends a command to a subject.
pub fn command(world: &World, key: &Bytes, input: &Input, at: Option<Millis>) {
    let topics = world.topics();
    let body = serde_json::to_string(input).expect("plain data");
    let record = CommandsRecord::Command(Command { kind: input.kind(), at: at.map(|at| at.0), depth: 0, body: &body });
    let partition = partition_of(key, topics.count(Topic::Commands));
    world.append(&topics, Topic::Commands, partition, key, flywheel::env::Clock::now(&world.clock), &record);
}

/// Everything that was decided, per subject, in order.
pub fn journal(world: &World) -> BTreeMap<Bytes, Vec<Fact>> {
    let mut facts: BTreeMap<Bytes, Vec<Fact>> = BTreeMap::new();
    for record in world.records(Topic::Journal) {
        if let JournalRecord::Fact(fact) = schema::decode(record.value.as_deref().expect("a value")).expect("decodes") {
            let fact = Fact::from_parts(Millis(fact.at), fact.run, fact.body).expect("a fact");
            facts.entry(record.key.clone()).or_default().push(fact);
        }
    }
    facts
}

/// The kinds of facts of one subject's runs, without those of the subject itself.
pub fn kinds(world: &World, key: &Bytes) -> Vec<String> {
    let facts = journal(world).remove(key).unwrap_or_default();
    facts.iter().filter(|fact| fact.run.is_some()).map(|fact| fact.parts().1.split('"').nth(1).expect("a kind").to_owned()).collect()
}

/// Every attempt that was minted and has no result.
pub fn open_attempts(world: &World) -> Vec<(Bytes, EffectId, u32, String, Json)> {
    let mut open = Vec::new();
    for (key, facts) in journal(world) {
        let mut requests: BTreeMap<EffectId, (String, Json)> = BTreeMap::new();
        let mut minted: BTreeMap<EffectId, u32> = BTreeMap::new();
        for fact in facts {
            match fact.what {
                What::EffectRequested { effect, node, input, .. } => drop(requests.insert(effect, (node, input))),
                What::AttemptMinted { effect, attempt, .. } => drop(minted.insert(effect, attempt)),
                What::EffectCompleted { effect, .. } | What::AttemptFailed { effect, .. } | What::EffectFailed { effect, .. } => {
                    minted.remove(&effect);
                }
                _ => {}
            }
        }
        for (effect, attempt) in minted {
            let (node, input) = requests[&effect].clone();
            open.push((key.clone(), effect, attempt, node, input));
        }
    }
    open
}

/// Answers open attempts until there are none and nothing is left to do.
pub fn run_to_end(world: &World, spine: &mut Spine, mut answer: impl FnMut(&str, &Json) -> Outcome) {
    for _ in 0..100 {
        drive(spine.workers()).unwrap_or_else(|error| panic!("{error}"));
        let open = open_attempts(world);
        if open.is_empty() {
            return;
        }
        for (key, effect, attempt, node, input) in open {
            let outcome = answer(&node, &input);
            command(world, &key, &Input::EffectFinished { effect, attempt, outcome }, None);
        }
    }
    panic!("effects go on for ever");
}

pub fn done(result: Json) -> Outcome {
    Outcome::Done { result }
}

pub fn run_of(workflow: &str, key: &Bytes, cause: &str) -> RunId {
    RunId::of(workflow, SubjectKey::from_bytes(key.clone()).expect("a key").as_str(), cause)
}

/// How many records of a topic there are, in all partitions.
pub fn count(world: &World, topic: Topic) -> usize {
    world.records(topic).len()
}

/// The whole journal of a partition, as bytes.
pub fn journal_bytes(world: &World) -> Vec<(PartitionId, Offset, Bytes)> {
    let topics = world.topics();
    let mut all = Vec::new();
    for id in topics.partitions(Topic::Journal) {
        let fetched = flywheel::log::LogReader::fetch(&world.log, id, Offset(0), usize::MAX).expect("reads");
        all.extend(fetched.records().map(|record| (id.partition, record.offset, Bytes::copy_from_slice(record.value.unwrap_or_default()))));
    }
    all
}

/// Lets time pass in steps, so that ticks are written and heard.
pub fn pass(world: &World, spine: &mut flywheel::stream::Spine, ms: i64) {
    let end = flywheel::env::Clock::now(&world.clock) + ms;
    while flywheel::env::Clock::now(&world.clock) < end {
        let left = end.since_ms(flywheel::env::Clock::now(&world.clock));
        world.clock.advance(left.min(600_000));
        world.drive(spine);
    }
    world.clock.advance(1_100);
    world.drive(spine);
}
