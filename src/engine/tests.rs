//! Runs that cannot be decided any more: each is paused alone, whatever brought it up, and everyone else goes on. And addresses, who tell
//! everyone that holds them what is said of them, whenever the machine stops.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value as Json, json};

use crate::domain::{HOUR_MS, Millis, Namespace, Offset, PartitionId, Subject as Who, TenantId};
use crate::engine;
use crate::env::ManualClock;
use crate::log::{BatchBuilder, LogReader, LogWriter, MemoryLog, Transaction};
use crate::permit::{AddressKey, Cause};
use crate::schema;
use crate::schema::records::{Command, CommandsRecord, DeadLetter, JournalRecord};
use crate::state::MemoryStore;
use crate::stream::topology::Topology;
use crate::stream::{NamespaceClock, Options, Partitions, Setup, Spine, Topic, activate_workflow, drive};
use crate::workflow::{Definition, Fact, Input, Subject, What, address_subject, evolve};

const START: Millis = Millis(1_704_067_200_000);

const TOPOLOGY: &str = r#"
[topology]
name = "test"
[[processor]]
name = "intake"
kind = "intake"
reads = ["intake"]
writes = ["identities", "events", "dead_letters", "outcomes"]
[[processor]]
name = "profiles"
kind = "profiles"
reads = ["events"]
writes = ["events", "profiles", "segment_changes", "corrections", "dead_letters"]
"#;

/// One partition of everything, so that whoever fails has neighbours.
struct World {
    log: MemoryLog,
    clock: ManualClock,
    spine: Spine,
    time: NamespaceClock,
}

impl World {
    fn new(workflow: &str) -> Self {
        let clock = ManualClock::at(START);
        let log = MemoryLog::new(Arc::new(clock.clone()));
        let spine = spine(&log, &clock, NamespaceClock::Wall, Some(workflow));
        let mut world = Self { log, clock, spine, time: NamespaceClock::Wall };
        world.drive();
        world
    }

    fn in_time(time: NamespaceClock) -> Self {
        let clock = ManualClock::at(START);
        let log = MemoryLog::new(Arc::new(clock.clone()));
        let spine = spine(&log, &clock, time, None);
        Self { log, clock, spine, time }
    }

    /// The machine stops and its states are lost; what was appended is not.
    fn crash(&mut self) {
        self.spine = spine(&self.log, &self.clock, self.time, None);
    }

    fn drive(&mut self) {
        drive(self.spine.workers()).unwrap_or_else(|error| panic!("{error}"));
    }

    fn pass(&mut self, ms: i64) {
        for ms in [ms, 1_100, 1_100] {
            self.clock.advance(ms);
            self.drive();
        }
    }

    fn send(&mut self, who: &str, input: &Input) {
        let body = serde_json::to_string(input).unwrap();
        self.put(who, &CommandsRecord::Command(Command { kind: input.kind(), at: None, depth: 0, body: &body }));
    }

    fn put(&mut self, who: &str, record: &CommandsRecord<'_>) {
        let key = Who::user(who).key(&TenantId::new("acme").unwrap());
        let mut batch = BatchBuilder::new();
        batch.push_with(key.as_bytes(), START, |buffer| schema::encode(record, buffer)).unwrap();
        let partition = self.spine.topics().partition(Topic::Commands, PartitionId(0));
        let transaction = Transaction { batches: vec![(partition, batch.build())], commits: Vec::new() };
        self.log.append(transaction).and_then(|ticket| ticket.wait()).unwrap();
        self.drive();
    }

    fn start(&mut self, who: &str, cause: &str, entry: Json) {
        let (workflow, cause) = ("w".to_owned(), cause.to_owned());
        self.send(who, &Input::Start { workflow, cause, entry, profile: json!({}), depth: 0, parent: None });
    }

    fn values(&self, topic: Topic) -> Vec<(Bytes, Bytes)> {
        let partition = self.spine.topics().partition(topic, PartitionId(0));
        let fetched = self.log.fetch(partition, Offset(0), usize::MAX).unwrap();
        fetched
            .records()
            .map(|record| (Bytes::copy_from_slice(record.key), Bytes::copy_from_slice(record.value.unwrap_or_default())))
            .collect()
    }

    fn facts(&self) -> Vec<(Bytes, Fact)> {
        let fact = |(key, value): (Bytes, Bytes)| match schema::decode(&value).unwrap() {
            JournalRecord::Fact(fact) => Some((key, Fact::from_parts(Millis(fact.at), fact.run, fact.body).unwrap())),
            _ => None,
        };
        self.values(Topic::Journal).into_iter().filter_map(fact).collect()
    }

    /// Who was paused by isolation, and how many runs have ended.
    fn outcome(&self) -> (Vec<String>, usize) {
        let (mut paused, mut ended) = (Vec::new(), 0);
        for (key, fact) in self.facts() {
            match fact.what {
                What::RunPaused { by, .. } if by == "isolation" => paused.push(String::from_utf8_lossy(&key[7..]).into_owned()),
                What::RunEnded { .. } => ended += 1,
                _ => {}
            }
        }
        (paused, ended)
    }

    fn dead_letters(&self) -> Vec<String> {
        let reason = |value: &Bytes| schema::decode::<DeadLetter<'_>>(value).unwrap().reason.to_owned();
        self.values(Topic::DeadLetters).iter().map(|(_, value)| reason(value)).collect()
    }
}

fn spine(log: &MemoryLog, clock: &ManualClock, time: NamespaceClock, workflow: Option<&str>) -> Spine {
    let topology = Topology::parse("test.toml", TOPOLOGY).unwrap_or_else(|problems| panic!("{problems}"));
    let setup = Setup {
        log: Arc::new(log.clone()),
        state: Arc::new(MemoryStore::new()),
        clock: Arc::new(clock.clone()),
        namespace: Namespace::new("t").unwrap(),
        time,
        partitions: Partitions { intake: 1, events: 1, inbox: 0 },
        topology: Arc::new(topology),
        options: Options { linger_ms: 0, ..Options::default() },
        copied: None,
        inbox: Default::default(),
    };
    let mut spine = Spine::open(setup).unwrap();
    if let Some(workflow) = workflow {
        let definition = Definition::parse("test.toml", workflow).unwrap_or_else(|problems| panic!("{problems}"));
        activate_workflow(log, spine.topics(), &definition, START).unwrap();
    }
    engine::join(&mut spine, time, None).unwrap();
    spine
}

/// A node of this name panics when it is decided, in builds for tests only.
const PANICS: &str = r#"
[workflow]
name = "w"
entry = { command = true, reenter = "always" }
[[node]]
name = "rest"
kind = "wait_for"
any = [{ event = "Go" }]
timeout = "1h"
next = "which"
[[node]]
name = "which"
kind = "branch"
cases = [{ when = "entry.bad == true", next = "poison" }]
otherwise = "end"
[[node]]
name = "poison"
kind = "delay"
wait = "1h"
next = "end"
[[node]]
name = "end"
kind = "exit"
"#;

fn three_runs_of_two(world: &mut World) {
    for (who, cause, bad) in [("ann", "1", false), ("ann", "2", true), ("ann", "3", false), ("bob", "4", false)] {
        world.start(who, cause, json!({ "bad": bad }));
    }
}

#[test]
fn a_run_that_panics_at_a_command_is_paused_alone_and_the_command_kept() {
    let mut world = World::new(PANICS);
    three_runs_of_two(&mut world);
    for who in ["ann", "bob"] {
        let (cause, name) = ("m".to_owned(), "Go".to_owned());
        world.send(who, &Input::Event { cause, name, properties: json!({}), profile: json!({}), late: false, depth: 0 });
    }
    assert_eq!(world.outcome(), (vec!["ann".to_owned()], 3));
    assert_eq!(world.dead_letters(), ["panicked"]);
}

#[test]
fn a_run_that_panics_at_a_tick_is_paused_alone_and_the_tick_reaches_everyone() {
    let mut world = World::new(PANICS);
    three_runs_of_two(&mut world);
    world.pass(HOUR_MS);
    assert_eq!(world.outcome(), (vec!["ann".to_owned()], 3));
    assert!(world.dead_letters().is_empty());
    world.pass(HOUR_MS);
    assert_eq!(world.outcome().0.len(), 1, "it is not tried again and again");
}

#[test]
fn a_start_that_panics_at_once_is_a_dead_letter_and_leaves_nothing_behind() {
    let mut world = World::new(
        &PANICS
            .replace("[[node]]\nname = \"rest\"", "[[node]]\nname = \"poison_first\"")
            .replace("name = \"w\"\n", "name = \"w\"\nfirst = \"which\"\n")
            .replace(
                "kind = \"wait_for\"\nany = [{ event = \"Go\" }]\ntimeout = \"1h\"\nnext = \"which\"",
                "kind = \"goal\"\nevent = \"Go\"",
            ),
    );
    three_runs_of_two(&mut world);
    assert_eq!((world.outcome(), world.dead_letters()), ((Vec::new(), 3), vec!["panicked".to_owned()]));
}

/// Emits its input so often that it becomes more than a record may hold.
const GROWS: &str = r#"
[workflow]
name = "w"
entry = { command = true, reenter = "always" }
[[node]]
name = "rest"
kind = "delay"
wait = "1h"
next = "say"
[[node]]
name = "say"
kind = "emit"
event = "Said"
properties = { a = "entry.text", b = "entry.text", c = "entry.text" }
next = "end"
[[node]]
name = "end"
kind = "exit"
"#;

#[test]
fn a_run_that_says_more_than_a_record_may_hold_is_paused_alone() {
    let mut world = World::new(GROWS);
    for (who, cause, len) in [("ann", "1", 10), ("ann", "2", 400_000), ("bob", "3", 10)] {
        world.start(who, cause, json!({ "text": "x".repeat(len) }));
    }
    world.pass(HOUR_MS);
    assert_eq!((world.outcome(), world.dead_letters()), ((vec!["ann".to_owned()], 2), Vec::new()));
}

#[test]
fn a_start_that_says_too_much_at_once_is_a_dead_letter_and_the_partition_goes_on() {
    let mut world = World::new(&GROWS.replace("wait = \"1h\"", "wait = \"0s\""));
    for (who, cause, len) in [("ann", "1", 10), ("ann", "2", 400_000), ("bob", "3", 10)] {
        world.start(who, cause, json!({ "text": "x".repeat(len) }));
    }
    assert_eq!((world.outcome(), world.dead_letters()), ((Vec::new(), 2), vec!["too_large".to_owned()]));
}

#[test]
fn runs_that_together_say_more_than_a_commit_may_hold_are_paused_and_nobody_else_is() {
    let again = "next = \"again\"\n[[node]]\nname = \"again\"\nkind = \"loop\"\nmost = 200\nbody = \"say\"\nnext = \"end\"\n[[node]]\nname = \"say\"";
    let grows = GROWS
        .replace("next = \"say\"\n[[node]]\nname = \"say\"", again)
        .replace("c = \"entry.text\" }\nnext = \"end\"", "c = \"entry.text\" }\nnext = \"again\"");
    let mut world = World::new(&grows);
    for cause in ["1", "2", "3", "4", "5", "6"] {
        world.start("ann", cause, json!({ "text": "x".repeat(20_000) }));
    }
    world.start("bob", "7", json!({ "text": "x" }));
    world.pass(HOUR_MS);
    assert_eq!((world.outcome(), world.dead_letters()), ((vec!["ann".to_owned(); 6], 1), Vec::new()));
}

#[test]
fn a_delay_that_begins_after_an_idle_minute_is_not_shorter_than_it_says() {
    let mut world = World::new(&GROWS.replace("wait = \"1h\"", "wait = \"30s\""));
    world.start("bob", "0", json!({ "text": "x" }));
    world.pass(HOUR_MS);
    assert_eq!(world.outcome().1, 1);
    // Nobody has heard time since.
    world.clock.advance(50_000);
    world.start("ann", "1", json!({ "text": "x" }));
    world.pass(20_000);
    assert_eq!(world.outcome().1, 1, "half a minute is not over");
    world.pass(10_000);
    assert_eq!(world.outcome().1, 2);
}

#[test]
fn what_nobody_can_read_is_a_dead_letter_and_counted() {
    let mut world = World::new(PANICS);
    world.put("ann", &CommandsRecord::Command(Command { kind: "signal", at: None, depth: 0, body: "{\"signal\":" }));
    world.put("ann", &CommandsRecord::Command(Command { kind: "new", at: None, depth: 0, body: "{\"of a later build\":{}}" }));
    world.start("ann", "1", json!({ "bad": false }));
    world.pass(HOUR_MS);
    assert_eq!((world.outcome().1, world.dead_letters()), (1, vec!["undecodable".to_owned(), "undecodable".to_owned()]));
    let status: Vec<_> =
        world.spine.workers().iter().map(|worker| worker.shared().status()).filter(|status| status.stage == "workflows").collect();
    assert_eq!(status.iter().map(|status| status.dead_lettered).sum::<u64>(), 2);
}

fn key(subject: &Who) -> Bytes {
    subject.key(&TenantId::new("acme").unwrap()).bytes().clone()
}

impl World {
    fn say(&mut self, to: &Who, input: &Input) {
        let body = serde_json::to_string(input).unwrap();
        let command = Command { kind: input.kind(), at: Some(START.0), depth: 0, body: &body };
        let mut batch = BatchBuilder::new();
        batch.push_with(&key(to), START, |buffer| schema::encode(&CommandsRecord::Command(command), buffer)).unwrap();
        let partition = self.spine.topics().partition(Topic::Commands, PartitionId(0));
        let transaction = Transaction { batches: vec![(partition, batch.build())], commits: Vec::new() };
        self.log.append(transaction).and_then(|ticket| ticket.wait()).unwrap();
    }

    /// Everyone's state, as the journal tells it.
    fn states(&self) -> std::collections::BTreeMap<Bytes, Subject> {
        let mut states = std::collections::BTreeMap::<Bytes, Subject>::new();
        for (key, fact) in self.facts() {
            evolve(states.entry(key).or_default(), &fact);
        }
        states
    }
}

/// Two people share an address, one of them gets another; it bounces, is taken off the list, and somebody comes to it later. Says who may
/// not be written to at the end of each act.
fn acts(time: NamespaceClock, stops_every: Option<usize>) -> (Vec<Vec<&'static str>>, Vec<(Bytes, Bytes)>) {
    let mut world = World::in_time(time);
    let shared = AddressKey::of("email", "family@example.org");
    let email = |address: &str| Input::Attribute { name: "email".to_owned(), value: address.into() };
    let channel = || "email".to_owned();
    let bounced =
        Input::Suppress { address: shared, channel: channel(), reason: Cause::HardBounce, at: START, until: None, by: String::new() };
    let lifted = Input::Unsuppress { address: shared, channel: channel(), at: START + 1, by: String::new() };
    let again =
        Input::Suppress { address: shared, channel: channel(), reason: Cause::Manual, at: START + 2, until: None, by: String::new() };
    let (ann, bob, cy, address) = (Who::user("ann"), Who::user("bob"), Who::user("cy"), address_subject(shared));
    let acts = [
        vec![(&ann, email("Family@Example.org")), (&bob, email("family@example.org")), (&address, bounced)],
        vec![(&bob, email("bob@example.org"))],
        // Written otherwise it is the same address, of which nothing is forgotten and nothing need be said again.
        vec![(&ann, email("family@EXAMPLE.org"))],
        vec![(&cy, email(" family@example.org "))],
        vec![(&address, lifted.clone())],
        vec![(&ann, email("ann@example.org")), (&address, again)],
        vec![(&address, lifted)],
    ];
    let (mut said, mut count) = (Vec::new(), 0);
    for act in acts {
        for (to, input) in act {
            world.say(to, &input);
            count += 1;
            if stops_every.is_some_and(|every| count % every == 0) {
                world.crash();
            }
            // In pieces: what follows of one command is appended with it, and decided by whoever comes next.
            if stops_every == Some(1) {
                for worker in world.spine.workers() {
                    worker.step().unwrap();
                }
                world.crash();
            }
            world.drive();
        }
        let states = world.states();
        let may_not = |who: &&str| {
            let Some(state) = states.get(&key(&Who::user(who))) else { return false };
            let own = state.address("email").map(|address| AddressKey::of("email", address));
            own.is_some_and(|own| state.suppressions.of(own, START + 3).is_some())
        };
        said.push(["ann", "bob", "cy"].into_iter().filter(may_not).collect());
    }
    let facts = world.values(Topic::Journal).into_iter().filter(|(key, _)| !key.is_empty()).collect();
    (said, facts)
}

#[test]
fn an_address_tells_everyone_who_holds_it_whenever_the_machine_stops() {
    for time in [NamespaceClock::Wall, NamespaceClock::Event] {
        let (said, facts) = acts(time, None);
        let expected: [&[&str]; 7] = [&["ann", "bob"], &["ann"], &["ann"], &["ann", "cy"], &[], &["cy"], &["cy"]];
        assert_eq!(said, expected, "{time:?}: the last word is older than the one before it, and lifts nothing");
        for every in 1..5 {
            let stopped = acts(time, Some(every));
            assert_eq!(stopped.0, said, "{time:?}, stopped at every {every}th command");
            let sorted = |facts: &[(Bytes, Bytes)]| {
                let mut of: Vec<_> = facts.to_vec();
                of.sort();
                of
            };
            assert_eq!(sorted(&stopped.1), sorted(&facts), "{time:?}: nothing is said twice, and nothing is missing");
        }
    }
}
