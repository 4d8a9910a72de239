//! What the log says: the journal as it is, folded into states, and the journal as it must be.
//!
//! The second is the engine's whole contract in a page: each partition's commands in order, handed to the pure core at the time that the
//! commands before them tell. No crash, batch, cache or cursor appears in it, so whatever those do to the engine must not show either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use flywheel::domain::{Millis, Offset, PartitionId, Subject as Who, SubjectKey, TenantId, partition_of};
use flywheel::log::LogReader;
use flywheel::schema;
use flywheel::schema::records::{CommandsRecord, JournalRecord};
use flywheel::stream::{Topic, Topics};
use flywheel::workflow::{
    Clock, Context, DEPTH_MAX, Definition, Fact, Input, Library, Policy, Subject, drive, drive_due, evolve, next_time, schedule_cause,
};

const FETCH_BYTES: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are facts")]
pub enum Item {
    Time(i64),
    Activated(String, String),
    Fact(Bytes, Fact),
}

/// Calls `each` with append time, key and value of a partition's records from `from` on; where it ends.
pub fn read(
    log: &dyn LogReader,
    topics: &Topics,
    topic: Topic,
    partition: PartitionId,
    from: u64,
    mut each: impl FnMut(Millis, &[u8], &[u8]),
) -> u64 {
    let id = topics.partition(topic, partition);
    let end = log.watermarks(id).expect("watermarks").end;
    let mut from = Offset(from);
    while from < end {
        let fetched = log.fetch(id, from, FETCH_BYTES).expect("fetches");
        for record in fetched.records() {
            each(record.append_time, record.key, record.value.unwrap_or_default());
        }
        from = fetched.next;
    }
    from.0
}

/// The journal, read as it grows.
#[derive(Default)]
pub struct Journal {
    next: BTreeMap<PartitionId, u64>,
    pub items: BTreeMap<PartitionId, Vec<Item>>,
    pub facts: BTreeMap<Bytes, Vec<Fact>>,
    pub subjects: BTreeMap<Bytes, Subject>,
}

impl Journal {
    /// What is new.
    pub fn read(&mut self, log: &dyn LogReader, topics: &Topics) -> Vec<(Bytes, Fact)> {
        let mut new = Vec::new();
        for id in topics.partitions(Topic::Journal) {
            let items = self.items.entry(id.partition).or_default();
            let before = items.len();
            let from = self.next.get(&id.partition).copied().unwrap_or(0);
            let next = read(log, topics, Topic::Journal, id.partition, from, |_, key, value| items.push(item(key, value)));
            self.next.insert(id.partition, next);
            for item in &items[before..] {
                let Item::Fact(key, fact) = item else { continue };
                evolve(self.subjects.entry(key.clone()).or_default(), fact);
                self.facts.entry(key.clone()).or_default().push(fact.clone());
                new.push((key.clone(), fact.clone()));
            }
        }
        new
    }
}

pub fn item(key: &[u8], value: &[u8]) -> Item {
    match schema::decode(value).expect("a journal record") {
        JournalRecord::Time(time) => Item::Time(time.time),
        JournalRecord::Activated(activated) => Item::Activated(activated.name.to_owned(), activated.digest.to_owned()),
        JournalRecord::Fact(fact) => {
            Item::Fact(Bytes::copy_from_slice(key), Fact::from_parts(Millis(fact.at), fact.run, fact.body).expect("a fact"))
        }
    }
}

/// One partition of the engine, as plain as can be.
#[derive(Default)]
pub struct Reference {
    pub items: Vec<Item>,
    pub subjects: BTreeMap<Bytes, Subject>,
    pub time: Option<i64>,
    pub dead: u64,
    active: BTreeMap<String, String>,
    known: BTreeSet<String>,
    library: Library,
    has_policy: bool,
    next: u64,
    partition: PartitionId,
}

/// How far a command's own time may be ahead of partition time: as the engine's documentation says.
const AHEAD_MS_MAX: i64 = 5 * 60_000;

/// What decisions are made under.
pub struct Setting<'s> {
    pub definitions: &'s [Definition],
    pub policy: &'s Policy,
    pub clock: Clock,
    /// Of `commands`.
    pub partitions: u32,
}

impl Reference {
    /// Everything that the partition's commands come to.
    pub fn read(&mut self, log: &dyn LogReader, topics: &Topics, partition: PartitionId, setting: &Setting<'_>) {
        let from = self.next;
        self.partition = partition;
        self.next =
            read(log, topics, Topic::Commands, partition, from, |append_time, key, value| self.record(append_time, key, value, setting));
    }

    fn record(&mut self, append_time: Millis, key: &[u8], value: &[u8], setting: &Setting<'_>) {
        match schema::decode(value).expect("a command record") {
            CommandsRecord::Tick(tick) if self.time.is_none_or(|time| time < tick.time) => {
                let before = self.time.replace(tick.time);
                self.items.push(Item::Time(tick.time));
                if let Some(before) = before {
                    self.start_scheduled(Millis(before), Millis(tick.time), setting);
                }
                self.wake(Millis(tick.time), setting);
            }
            CommandsRecord::Tick(_) => {}
            CommandsRecord::Activated(activated) => {
                self.items.push(Item::Activated(activated.name.to_owned(), activated.digest.to_owned()));
                self.activate(activated.kind, activated.name, activated.digest, setting);
            }
            CommandsRecord::Command(command) => {
                let input = serde_json::from_str::<Input>(command.body).ok().filter(|_| command.depth < i32::from(DEPTH_MAX));
                match input {
                    None => self.dead += 1,
                    Some(input) => self.command(append_time, Bytes::copy_from_slice(key), input, command.at, setting),
                }
            }
        }
    }

    fn command(&mut self, append_time: Millis, key: Bytes, mut input: Input, at: Option<i64>, setting: &Setting<'_>) {
        if let Input::EffectStarted { appended, .. } = &mut input {
            *appended = append_time;
        }
        if setting.clock == Clock::Wall && self.time.is_none() {
            self.time = Some(append_time.0);
            self.items.push(Item::Time(append_time.0));
        }
        let time = self.time.map_or(Millis::MIN, Millis);
        let now = self.subjects.get(&key).map_or(Millis(0), |subject| subject.now);
        let at = match (setting.clock, at) {
            (Clock::Wall, _) => append_time.clamp(time, time + AHEAD_MS_MAX),
            (Clock::Event, at) => at.map_or_else(|| now.max(time), Millis),
        };
        self.decide(&key, setting, |subject, context| drive(subject, context, &input, at).facts);
        self.catch_up(&key, time, setting);
    }

    fn wake(&mut self, time: Millis, setting: &Setting<'_>) {
        let wake = |(key, subject): (&Bytes, &Subject)| Some((subject.next_wake(setting.clock)?, key.clone()));
        let due: BTreeSet<(Millis, Bytes)> = self.subjects.iter().filter_map(wake).filter(|(due, _)| *due <= time).collect();
        for (_, key) in due {
            self.decide(&key, setting, |subject, context| drive_due(subject, context, time).facts);
        }
    }

    fn start_scheduled(&mut self, before: Millis, now: Millis, setting: &Setting<'_>) {
        let active: Vec<Arc<Definition>> = self.library.all_active().map(|(_, definition)| definition.clone()).collect();
        for definition in active {
            let times = std::iter::successors(next_time(&definition, before, None), |time| next_time(&definition, *time, None));
            let Some(time) = times.take_while(|time| *time <= now).last() else { continue };
            let who = Who::user(&format!("campaign:{}", definition.name)).key(&TenantId::new("default").expect("a slug"));
            if partition_of(who.as_bytes(), setting.partitions) != self.partition {
                continue;
            }
            let (workflow, cause) = (definition.name.clone(), schedule_cause(&definition.name, time));
            let entry = serde_json::json!({ "at": time.to_rfc3339() });
            let input = Input::Start { workflow, cause, entry, profile: serde_json::json!({}), depth: 0, parent: None };
            let at = if setting.clock == Clock::Wall { now } else { time };
            self.decide(who.bytes(), setting, |subject, context| drive(subject, context, &input, at).facts);
            self.catch_up(who.bytes(), now, setting);
        }
    }

    /// In event time a subject that decided something goes on to where everybody else is.
    fn catch_up(&mut self, key: &Bytes, time: Millis, setting: &Setting<'_>) {
        let wake = self.subjects[key].next_wake(setting.clock);
        if setting.clock == Clock::Event && wake.is_some_and(|due| due <= time) {
            self.decide(key, setting, |subject, context| drive_due(subject, context, time).facts);
        }
    }

    fn decide(&mut self, key: &Bytes, setting: &Setting<'_>, decide: impl FnOnce(&mut Subject, Context<'_>) -> Vec<Fact>) {
        let name = SubjectKey::from_bytes(key.clone()).expect("a subject's key");
        let shipped = (!self.has_policy).then(Policy::shipped);
        let policy = shipped.as_ref().unwrap_or(setting.policy);
        let heard = if setting.clock == Clock::Wall { self.time.map_or(Millis::MIN, Millis) } else { Millis::MAX };
        let context = Context { subject: name.as_str(), library: &self.library, policy, clock: setting.clock, is_held: false, heard };
        let facts = decide(self.subjects.entry(key.clone()).or_default(), context);
        self.items.extend(facts.into_iter().map(|fact| Item::Fact(key.clone(), fact)));
    }

    fn activate(&mut self, kind: &str, name: &str, digest: &str, setting: &Setting<'_>) {
        match kind {
            "policy" => self.has_policy = true,
            _ if digest.is_empty() => drop(self.active.remove(name)),
            _ => {
                self.active.insert(name.to_owned(), digest.to_owned());
                self.known.insert(digest.to_owned());
            }
        }
        let find = |digest: &String| {
            let found = setting.definitions.iter().find(|definition| definition.digest.to_hex() == *digest);
            Arc::new(found.expect("published by the simulation").clone())
        };
        self.library = Library::default();
        self.known.iter().for_each(|digest| self.library.add(find(digest)));
        self.active.values().for_each(|digest| self.library.activate(find(digest)));
    }
}

/// The first place where the journal is not what it must be; a journal that is not at its end yet is a part of it.
pub fn difference(found: &[Item], expected: &[Item]) -> Option<String> {
    let at = found.iter().zip(expected).position(|(found, expected)| found != expected);
    let at = at.or_else(|| (found.len() > expected.len()).then_some(expected.len()))?;
    let around = at.saturating_sub(3);
    let show = |items: &[Item]| items.iter().skip(around).take(6).map(|item| format!("\n    {item:?}")).collect::<String>();
    Some(format!("record {at} of the journal\n  is{}\n  and must be{}", show(found), show(expected)))
}
