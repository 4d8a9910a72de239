//! What people and operators do in a life: events, commands about runs and about subjects, decisions, new versions of workflows.

use bytes::Bytes;
use flywheel::domain::{HOUR_MS, Subject as Who, partition_of};
use flywheel::log::{BatchBuilder, Transaction};
use flywheel::permit::{AddressKey, Cause};
use flywheel::schema;
use flywheel::schema::records::{Command, CommandsRecord, IntakeItem, IntakeRecord};
use flywheel::stream::{Topic, activate_workflow, retire_workflow};
use flywheel::workflow::{Definition, Doing, EffectId, Input, Provenance, RunId};
use rand::Rng;
use serde_json::json;

use super::program::{CHILD, program};
use super::run::Life;
use crate::spine_world::tenant;

pub(super) const PEOPLE: [&str; 4] = ["u0", "u1", "u2", "a:a0"];

impl Life {
    /// A person does something, as the gateway would hear of it.
    pub(super) fn send(&mut self, who: &str, mut body: serde_json::Value) {
        self.sent += 1;
        let id = format!("m{}", self.sent);
        let subject = Who::person(who);
        body["messageId"] = json!(id);
        body["timestamp"] = json!(self.now().to_rfc3339());
        match &subject {
            Who::Anonymous(id) => body["anonymousId"] = json!(id),
            Who::User(id) | Who::Address(id) => body["userId"] = json!(id),
        }
        let topics = self.topics.clone().expect("open");
        let key = subject.key(&tenant());
        let (now, body) = (self.now(), body.to_string());
        self.tell(|| format!("{now} {who}: {body}"));
        let item = IntakeItem {
            source: "web",
            message_id: &id,
            message_id_derived: false,
            received_at: now.0,
            sent_at: None,
            route: "",
            remote_ip: "",
            user_agent: "",
            historical: false,
            body: &body,
            batch: "",
            redriven_from: None,
            depth: 0,
        };
        let partition = partition_of(key.as_bytes(), topics.count(Topic::Intake));
        let mut batch = BatchBuilder::new();
        batch.push_with(key.as_bytes(), now, |buffer| schema::encode(&IntakeRecord::Item(item), buffer)).expect("encodes");
        self.append(Transaction { batches: vec![(topics.partition(Topic::Intake, partition), batch.build())], commits: Vec::new() });
    }

    pub(super) fn person(&mut self) {
        let who = PEOPLE[self.rng.random_range(0..PEOPLE.len())];
        let number = self.rng.random_range(0..30);
        let track = |event: &str| json!({ "type": "track", "event": event, "properties": { "order": number, "total": number } });
        let body = match self.rng.random_range(0..12) {
            0..4 => track("Begin"),
            4..7 => track("E"),
            7 => track("Goal"),
            8 => track("Order Completed"),
            9 => {
                let purpose = ["marketing", "news"][self.rng.random_range(0..2)];
                let granted = self.rng.random_bool(0.6);
                json!({ "type": "track", "event": "Consent Updated", "properties": { "purpose": purpose, "channel": "email", "granted": granted } })
            }
            10 if self.rng.random_bool(0.1) => {
                let address = address_of(PEOPLE[self.rng.random_range(0..PEOPLE.len())]);
                json!({ "type": "identify", "traits": { "email": address } })
            }
            10 if self.rng.random_bool(0.3) => {
                let user = ["u0", "u1"][self.rng.random_range(0..2)];
                return self.send("a:a0", json!({ "type": "identify", "userId": user }));
            }
            _ => track("Page"),
        };
        self.send(who, body);
    }

    /// A command, from outside of the engine.
    pub(super) fn order(&mut self, key: &Bytes, input: &Input) -> bool {
        let at = match input {
            Input::EffectStarted { .. } | Input::EffectFinished { .. } => None,
            _ => Some(self.now().0),
        };
        let body = serde_json::to_string(input).expect("plain data");
        self.tell(|| format!("to {key:?}: {body}"));
        self.put(key, &CommandsRecord::Command(Command { kind: input.kind(), at, depth: 0, body: &body }))
    }

    fn put(&mut self, key: &Bytes, record: &CommandsRecord<'_>) -> bool {
        let topics = self.topics.clone().expect("open");
        let partition = partition_of(key, topics.count(Topic::Commands));
        let mut batch = BatchBuilder::new();
        batch.push_with(key, self.now(), |buffer| schema::encode(record, buffer)).expect("encodes");
        self.append(Transaction { batches: vec![(topics.partition(Topic::Commands, partition), batch.build())], commits: Vec::new() })
    }

    fn key(&mut self) -> Bytes {
        let subject = match self.rng.random_range(0..6) {
            at @ 0..3 => Who::user(PEOPLE[at]),
            3 => Who::anonymous("a0"),
            _ => Who::user("campaign:c"),
        };
        subject.key(&tenant()).bytes().clone()
    }

    /// A run in progress, as far as the journal says.
    fn run(&mut self) -> Option<(Bytes, RunId)> {
        let runs = self.journal.subjects.iter().flat_map(|(key, subject)| subject.runs.keys().map(move |run| (key.clone(), *run)));
        let runs: Vec<_> = runs.collect();
        (!runs.is_empty()).then(|| runs[self.rng.random_range(0..runs.len())].clone())
    }

    pub(super) fn command(&mut self) {
        self.sent += 1;
        let cause = format!("hand-{}", if self.rng.random_ratio(1, 4) { self.sent / 2 } else { self.sent });
        let by = "kim".to_owned();
        let choice = self.rng.random_range(0..22);
        if choice < 9 {
            return self.about_a_subject(choice, cause);
        }
        let Some((key, run)) = self.run() else { return };
        let input = match choice {
            9..12 => Input::Signal { run, cause, name: "s".to_owned(), payload: json!({ "n": self.sent }) },
            12..15 => {
                let steps = &self.journal.subjects[&key].runs[&run].steps;
                let Some(node) = steps.values().map(|step| step.node.clone()).next() else { return };
                Input::Approval {
                    run,
                    node,
                    approved: self.rng.random_bool(0.7),
                    by,
                    comment: String::new(),
                    visit: None,
                    provenance: Provenance::default(),
                }
            }
            15 => Input::Pause { run, by, reason: "chance".to_owned() },
            16 | 17 => Input::Resume { run, by },
            18 => Input::Retry { run, by },
            19 if self.rng.random_bool(0.3) => Input::Cancel { run, by, reason: String::new() },
            19 if self.rng.random_bool(0.2) => Input::Terminate { run, by, reason: String::new() },
            20 => match self.stuck(&key) {
                Some(effect) => self.truth_of(effect),
                None => return,
            },
            _ => Input::Due,
        };
        self.order(&key, &input);
    }

    fn about_a_subject(&mut self, choice: u32, cause: String) {
        let mut key = self.key();
        let input = match choice {
            0..4 => {
                let workflow = ["one", "two", "one", "two", CHILD, "nobody"][self.rng.random_range(0..6)].to_owned();
                if self.rng.random_ratio(1, 3) {
                    key = Who::user(&format!("campaign:{workflow}")).key(&tenant()).bytes().clone();
                }
                Input::Start { workflow, cause, entry: json!({ "order": 1 }), profile: json!({}), depth: 0, parent: None }
            }
            4 | 5 => Input::Attribute { name: "number".to_owned(), value: json!(self.sent) },
            6 => {
                let who = ["u0", "u1", "u2"][self.rng.random_range(0..3)];
                let (address, channel) = (AddressKey::of("email", &address_of(who)), "email".to_owned());
                let at = self.now();
                key = Who::address(&address.to_string()).key(&tenant()).bytes().clone();
                match self.rng.random_bool(0.5) {
                    true => Input::Suppress {
                        address,
                        channel,
                        reason: Cause::Complaint,
                        at,
                        until: self.rng.random_bool(0.5).then_some(at + HOUR_MS),
                        by: String::new(),
                    },
                    false => Input::Unsuppress { address, channel, at, by: String::new() },
                }
            }
            // What nobody can read, or what went round too often.
            7 => {
                let depth = if self.rng.random_bool(0.5) { 16 } else { 0 };
                let record = CommandsRecord::Command(Command { kind: "signal", at: None, depth, body: "{\"signal\":" });
                self.rubbish += u64::from(self.put(&key, &record));
                return;
            }
            _ => match self.executor.any_effect(&mut self.rng) {
                // Nobody was asked to do this: an attempt that was never minted.
                Some(effect) => {
                    Input::EffectFinished { effect, attempt: 99, outcome: flywheel::workflow::Outcome::Done { result: json!({}) } }
                }
                None => return,
            },
        };
        self.order(&key, &input);
    }

    pub(super) fn stuck(&self, key: &Bytes) -> Option<EffectId> {
        let steps = self.journal.subjects[key].runs.values().flat_map(|run| run.steps.values());
        let mut pending = steps.filter_map(|step| match &step.doing {
            Doing::Effect(pending) if pending.stuck.is_some() && !self.executor.is_on(pending.id) => Some(pending.id),
            _ => None,
        });
        pending.next_back()
    }

    /// A person found out, and does not lie.
    pub(super) fn truth_of(&self, effect: EffectId) -> Input {
        Input::Resolve { effect, done: self.executor.was_done(effect).then(|| json!({ "ok": true })), by: "kim".to_owned() }
    }

    /// Another version of a workflow, or none any more.
    pub(super) fn publish(&mut self) {
        if self.rng.random_bool(0.5) {
            return;
        }
        let name = ["one", "two"][self.rng.random_range(0..2)];
        let (log, topics) = self.at_log();
        let now = self.now();
        let done = if self.rng.random_ratio(1, 4) {
            retire_workflow(&*log, &topics, None, name, now)
        } else {
            let text = program(&mut self.rng, name);
            let definition = Definition::parse("random.toml", &text).unwrap_or_else(|problems| panic!("{text}\n{problems}"));
            let canonical = definition.canonical.clone();
            self.tell(|| format!("published: {canonical}"));
            self.definitions.push(definition);
            activate_workflow(&*log, &topics, self.definitions.last().expect("just pushed"), now)
        };
        if let Err(error) = done {
            assert!(self.is_off(), "publishing: {error}");
        }
    }
}

/// Two of them share one.
pub fn address_of(who: &str) -> String {
    match who.trim_start_matches("a:") {
        "u1" | "u2" => "family@example.org".to_owned(),
        who => format!("{who}@example.org"),
    }
}
