//! How a life ends: nothing goes wrong any more, everything is answered, and then it is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use flywheel::domain::{HOUR_MS, MINUTE_MS, Millis};
use flywheel::schema;
use flywheel::schema::records::{CommandsRecord, EventsRecord, IntakeRecord};
use flywheel::state::{MemoryStore, StateStore};
use flywheel::stream::{NamespaceClock, Topic, drive, retire_workflow};
use flywheel::workflow::{Doing, EffectId, Input, Provenance, Subject, What};

use super::mirror::{Setting, difference, read};
use super::promises;
use super::run::Life;

impl Life {
    /// Nothing goes wrong any more: everything that waits is answered, resumed and waited for, until no run is left.
    pub(super) fn finish(&mut self) {
        self.stalled.clear();
        self.fs.power_off_after(u64::MAX);
        self.executor.behave();
        // Or a schedule would begin runs for ever.
        let (log, topics) = self.at_log();
        for name in ["one", "two"] {
            retire_workflow(&*log, &topics, None, name, self.now()).expect("retires");
        }
        for round in 0..2_000 {
            self.settle();
            if self.journal.subjects.values().all(|subject| subject.runs.is_empty()) && self.executor.is_idle() {
                return self.judge();
            }
            let before = self.sent;
            self.help();
            // Those that ask in vain must not keep time from passing.
            if self.sent == before || round % 8 == 7 {
                let clock = self.core_clock();
                let next = self.journal.subjects.values().filter_map(|subject| subject.next_wake(clock)).min();
                let ms = next.map_or(MINUTE_MS, |next| next.since_ms(self.now()).clamp(1_000, 12 * HOUR_MS));
                self.advance(ms);
                let now = self.now();
                self.tell(|| format!("it is {now}"));
                if self.time == NamespaceClock::Event {
                    self.state_time();
                }
            }
        }
        let left = self.journal.subjects.iter().filter(|(_, subject)| !subject.runs.is_empty());
        panic!("stuck: {:#?}", left.map(|(key, subject)| (key, &subject.runs, &subject.held, &subject.expecting)).collect::<Vec<_>>());
    }

    /// Everything that can be done without anybody's help.
    fn settle(&mut self) {
        for _ in 0..2 {
            drive(self.spine.as_mut().expect("open").workers()).unwrap_or_else(|error| panic!("{error}"));
            // A tick tells of the end only when it is asked for anew.
            self.advance(1_000);
        }
        drive(self.spine.as_mut().expect("open").workers()).unwrap_or_else(|error| panic!("{error}"));
        self.hear();
    }

    fn help(&mut self) {
        for _ in 0..8 {
            self.step_executor();
        }
        let subjects: Vec<(Bytes, Subject)> = self.journal.subjects.clone().into_iter().collect();
        let by = || "kim".to_owned();
        for (key, subject) in subjects {
            for (run, state) in &subject.runs {
                let mut inputs = Vec::new();
                if let Some(effect) = self.stuck(&key) {
                    inputs.push(self.truth_of(effect));
                } else if state.paused.is_some() {
                    inputs.push(Input::Resume { run: *run, by: by() });
                }
                let waits = state.steps.values().filter(|step| matches!(step.doing, Doing::Approval { .. }));
                inputs.extend(waits.map(|step| Input::Approval {
                    run: *run,
                    node: step.node.clone(),
                    approved: true,
                    by: by(),
                    comment: String::new(),
                    visit: None,
                    provenance: Provenance::default(),
                }));
                for input in inputs {
                    self.sent += 1;
                    self.order(&key, &input);
                }
            }
        }
    }

    fn judge(&mut self) {
        // None lost: far enough on, nothing is due.
        self.advance(48 * HOUR_MS);
        if self.time == NamespaceClock::Event {
            self.state_time();
        }
        self.settle();
        let clock = self.core_clock();
        for (key, subject) in &self.journal.subjects {
            assert!(subject.next_wake(clock).is_none(), "no timer lost: {key:?} {subject:#?}");
        }
        promises::all(&self.journal.facts, clock);
        let told = promises::whoever_holds_an_address_knows_what_is_said_of_it(&self.journal.subjects, self.now());
        self.counts.add("suppressed", told);
        self.one_key_outside();
        self.as_it_must_be();
        self.counts_balance();
        self.states_are_the_journals();
        let endings = promises::endings(&self.journal.facts);
        endings.into_iter().for_each(|(ending, count)| self.counts.add(ending, count));
        let deeds = self.executor.deeds.clone();
        for (name, count) in [
            ("performed", deeds.performed),
            ("performed again", deeds.repeated),
            ("messages", deeds.messages),
            ("cut off", deeds.cut_off),
            ("not begun", deeds.not_begun),
            ("stops", deeds.stops),
            ("looked up", deeds.looked_up),
            ("said again", deeds.said_again),
            ("facts", self.journal.facts.values().map(|facts| facts.len() as u64).sum()),
        ] {
            self.counts.add(name, count);
        }
        let refused = self.journal.facts.values().flatten().filter(|fact| matches!(fact.what, What::PermitRefused { .. })).count();
        self.counts.add("refused", refused as u64);
        let scheduled = self
            .journal
            .facts
            .values()
            .flatten()
            .filter(|fact| matches!(&fact.what, What::RunStarted { cause, .. } if cause.starts_with("schedule:")));
        let scheduled = scheduled.count() as u64;
        self.counts.add("scheduled", scheduled);
        let held = self.journal.facts.values().flatten().filter(|fact| matches!(fact.what, What::Held { .. })).count();
        self.counts.add("held", held as u64);
    }

    /// What was done outside was asked for, and what must not be done twice was not.
    fn one_key_outside(&self) {
        let facts = || self.journal.facts.values().flatten();
        let once: BTreeSet<EffectId> = self.journal.facts.values().flat_map(|facts| promises::at_most_once(facts)).collect();
        for (effect, times) in &self.executor.done {
            let is_asked = facts().any(|fact| matches!(&fact.what, What::EffectRequested { effect: asked, .. } if asked == effect));
            assert!(is_asked, "done without a request: {effect:?}");
            assert!(*times == 1 || !once.contains(effect), "{effect:?} was done {times} times and may be done once");
        }
    }

    /// The journal is what the commands come to, and nothing else.
    fn as_it_must_be(&mut self) {
        let (log, topics) = self.at_log();
        let setting =
            Setting { definitions: &self.definitions, policy: &self.policy, clock: self.core_clock(), partitions: self.partitions.events };
        let mut dead = 0;
        for id in topics.partitions(Topic::Journal) {
            let reference = self.references.entry(id.partition).or_default();
            reference.read(&*log, &topics, id.partition, &setting);
            let found = &self.journal.items[&id.partition];
            if let Some(difference) = difference(found, &reference.items) {
                panic!("partition {}: {difference}", id.partition.0);
            }
            assert_eq!(found.len(), reference.items.len(), "nothing that was decided is missing in partition {}", id.partition.0);
            dead += reference.dead;
            for (key, subject) in &reference.subjects {
                let replayed = self.journal.subjects.get(key).cloned().unwrap_or_default();
                assert_eq!(&replayed, subject, "a journal replays to its state: {key:?}");
            }
        }
        assert!(dead >= self.rubbish);
        let mut letters = 0;
        for id in topics.partitions(Topic::DeadLetters) {
            letters += read(&*log, &topics, Topic::DeadLetters, id.partition, 0, |_, _, _| {});
        }
        assert_eq!(letters, dead, "what nobody can read is a dead letter, and nothing else is");
    }

    /// Whatever a fact asks of others was sent once.
    fn counts_balance(&mut self) {
        let (log, topics) = self.at_log();
        let mut asked: BTreeMap<&str, u64> = BTreeMap::new();
        for fact in self.journal.facts.values().flatten() {
            let what = match &fact.what {
                What::StartRequested { .. } => "starts",
                What::RunEnded { parent: Some(_), .. } | What::RunSkipped { parent: Some(_), .. } => "ends told",
                What::MergedInto { .. } => "carried",
                What::ProfileAsked { .. } => "questions",
                What::EventEmitted { .. } => "emitted",
                What::BroadcastBegun { .. } => "broadcasts",
                _ => continue,
            };
            *asked.entry(what).or_default() += 1;
        }
        let mut sent: BTreeMap<&str, u64> = BTreeMap::new();
        let mut answers = 0;
        for id in topics.partitions(Topic::Commands) {
            read(&*log, &topics, Topic::Commands, id.partition, 0, |_, _, value| {
                let Ok(CommandsRecord::Command(command)) = schema::decode(value) else { return };
                let what = match serde_json::from_str::<Input>(command.body) {
                    Ok(Input::Start { cause, .. }) if !cause.starts_with("hand-") => "starts",
                    Ok(Input::StartEnded { .. }) => "ends told",
                    Ok(Input::Carry(_)) => "carried",
                    Ok(Input::Answer { .. }) => return answers += 1,
                    _ => return,
                };
                *sent.entry(what).or_default() += 1;
            });
            read(&*log, &topics, Topic::Events, id.partition, 0, |_, _, value| {
                let what = match schema::decode(value) {
                    Ok(EventsRecord::Ask(_)) => "questions",
                    // One in each partition.
                    Ok(EventsRecord::Broadcast(_)) if id.partition.0 == 0 => "broadcasts",
                    _ => return,
                };
                *sent.entry(what).or_default() += 1;
            });
        }
        for id in topics.partitions(Topic::Intake) {
            read(&*log, &topics, Topic::Intake, id.partition, 0, |_, _, value| {
                if let Ok(IntakeRecord::Item(item)) = schema::decode(value)
                    && item.source == "workflow"
                {
                    *sent.entry("emitted").or_default() += 1;
                }
            });
        }
        assert_eq!(sent, asked, "whatever a fact asks of others was sent once");
        assert_eq!(answers, asked.get("questions").copied().unwrap_or(0), "every question is answered once");
        asked.into_iter().for_each(|(name, count)| self.counts.add(name, count));
    }

    /// Stored, and built again from the journal alone, states and timers are those that the journal folds to.
    fn states_are_the_journals(&mut self) {
        for states in ["kept", "lost"] {
            let workers = self.spine.as_mut().expect("open").workers();
            workers.iter_mut().for_each(|worker| worker.stop().expect("stops"));
            if states == "lost" {
                self.spine = None;
                self.store = Arc::new(MemoryStore::new());
                self.log.take().expect("open").close();
                assert!(self.open(), "opens again");
                self.settle();
                let workers = self.spine.as_mut().expect("open").workers();
                workers.iter_mut().for_each(|worker| worker.stop().expect("stops"));
            }
            self.check_stored(states);
        }
    }

    fn check_stored(&self, states: &str) {
        let clock = self.core_clock();
        let tables = self.store.tables().expect("reads");
        let mut stored: BTreeMap<Bytes, Subject> = BTreeMap::new();
        for table in tables.iter().filter(|table| table.0.contains(".workflows.")) {
            for (key, state) in self.store.scan(table, None, usize::MAX).expect("reads") {
                let subject = Subject::decode(&state.state).expect("decodes");
                stored.insert(key, subject);
            }
            let due = self.store.due(table, Millis::MAX, None, usize::MAX).expect("reads");
            for wake in due {
                assert_eq!(stored[&wake.key].next_wake(clock), Some(wake.due), "the index says what the state wants, states {states}");
            }
        }
        stored.retain(|_, subject| subject.facts > 0);
        let folded: BTreeMap<Bytes, Subject> = self.journal.subjects.clone().into_iter().filter(|(_, subject)| subject.facts > 0).collect();
        for (key, subject) in &folded {
            assert_eq!(stored.get(key), Some(subject), "a journal replays to its state, states {states}: {key:?}");
        }
        assert_eq!(stored.len(), folded.len(), "states {states}");
    }
}
