//! What follows from facts outside of their subject: runs of others that are started or told of an end, questions, events, and what an
//! anonymous subject leaves to the user it became. What goes between people and their addresses is in `addresses`.

use serde_json::{Value as Json, json};

use super::fold::WorkflowFold;
use crate::domain::{DeadReason, Millis, Subject as Who, SubjectKey};
use crate::schema::records::{Ask, Broadcast, Command, CommandsRecord, EventsRecord, IntakeItem, IntakeRecord};
use crate::stream::{Error, Fault, Outputs, Slot, Topic};
use crate::workflow::{EMITTED, Ending, Fact, Input, Parent, RunId, What};

impl WorkflowFold {
    pub(super) fn send_on(&mut self, slot: Slot, key: &SubjectKey, fact: &Fact, out: &mut Outputs) -> Result<(), Error> {
        match (&fact.what, fact.run) {
            (What::StartRequested { visit, workflow, subject, input, depth, until, .. }, Some(run)) => {
                let parent = until.map(|_| Parent { subject: key.subject().to_string(), run, visit: *visit });
                let cause = format!("{run}:{visit}");
                let start =
                    Input::Start { workflow: workflow.clone(), cause, entry: input.clone(), profile: Json::Null, depth: *depth, parent };
                self.send(&who(subject).key(&key.tenant()), fact.at, *depth, &start, out)
            }
            (What::RunEnded { ending, node, outcome, parent: Some(parent) }, Some(_)) => {
                let result = json!({ "node": node, "outcome": outcome });
                let ended = Input::StartEnded { run: parent.run, visit: parent.visit, ending: *ending, result };
                self.send(&who(&parent.subject).key(&key.tenant()), fact.at, 0, &ended, out)
            }
            (What::RunSkipped { workflow, reason, parent: Some(parent), .. }, None) => {
                let result = json!({ "skipped": reason, "workflow": workflow });
                let ended = Input::StartEnded { run: parent.run, visit: parent.visit, ending: Ending::Failed, result };
                self.send(&who(&parent.subject).key(&key.tenant()), fact.at, 0, &ended, out)
            }
            (What::ProfileAsked { .. }, Some(run)) => self.ask(slot, key, run, fact.at, out),
            (What::EventEmitted { visit, event, properties, depth, .. }, Some(run)) => {
                let emitted = Emitted { id: &format!("{run}:{visit}"), event, properties, depth: *depth };
                self.emit(key, fact.at, &emitted, out)
            }
            (What::MergedInto { user, carry }, None) => {
                self.send(&Who::user(user).key(&key.tenant()), fact.at, 0, &Input::Carry(carry.clone()), out)?;
                self.give_addresses_up(slot, key, fact.at, out)
            }
            (What::BroadcastBegun { broadcast, workflow, segment, throttle_ms, entry, .. }, None) => {
                let (id, tenant, entry) = (broadcast.to_string(), key.tenant(), entry.to_string());
                let (tenant, throttle_ms, at) = (tenant.as_str(), *throttle_ms, fact.at.0);
                let record = Broadcast { id: &id, tenant, workflow, segment, throttle_ms, entry: &entry, at };
                let mut partitions = self.topics.partitions(Topic::Events);
                partitions
                    .try_for_each(|id| out.push_to(Topic::Events, id.partition, b"", fact.at, &EventsRecord::Broadcast(record.clone())))
            }
            _ => self.pass_on(slot, key, fact, out),
        }
    }

    pub(super) fn send(&self, to: &SubjectKey, at: Millis, depth: u8, input: &Input, out: &mut Outputs) -> Result<(), Error> {
        let body = serde_json::to_string(input).expect("inputs are plain data");
        let command = Command { kind: input.kind(), at: Some(at.0), depth: i32::from(depth), body: &body };
        out.push(Topic::Commands, to.as_bytes(), at, &CommandsRecord::Command(command))
    }

    /// Asks for the profile as it is when the question arrives; the answer comes as a command.
    fn ask(&self, slot: Slot, key: &SubjectKey, run: RunId, at: Millis, out: &mut Outputs) -> Result<(), Error> {
        let subject = &self.subjects.get(slot).subject;
        let definition =
            subject.runs.get(&run).and_then(|run| self.definitions.library.get(&crate::domain::Digest::from_hex(&run.digest)?));
        let fields = definition.map(|definition| definition.profile.iter().map(String::as_str).collect()).unwrap_or_default();
        let ask = Ask { run: &run.to_string(), fields, at: at.0, redriven_from: None };
        out.push_to(Topic::Events, self.partition, key.as_bytes(), at, &EventsRecord::Ask(ask))
    }

    /// An event like any other: through intake, under an id that its run and step give it.
    fn emit(&self, key: &SubjectKey, at: Millis, emitted: &Emitted<'_>, out: &mut Outputs) -> Result<(), Error> {
        let Emitted { id, event, properties, depth } = *emitted;
        let who = key.subject();
        let fault = || Error::Record(Fault::new(DeadReason::Malformed, format!("the time {} of an emitted event cannot be written", at.0)));
        let timestamp = at.to_rfc3339().ok_or_else(fault)?;
        let id_name = if who.is_user() { "userId" } else { "anonymousId" };
        let body = json!({ "type": "track", "event": event, id_name: who.id(), "messageId": id, "timestamp": timestamp, "properties": properties });
        let item = IntakeItem {
            source: EMITTED,
            message_id: id,
            message_id_derived: false,
            received_at: at.0,
            sent_at: None,
            route: "track",
            remote_ip: "",
            user_agent: "",
            historical: false,
            body: &body.to_string(),
            batch: "",
            redriven_from: None,
            depth: i32::from(depth),
        };
        out.push(Topic::Intake, key.as_bytes(), at, &IntakeRecord::Item(item))
    }
}

struct Emitted<'e> {
    id: &'e str,
    event: &'e str,
    properties: &'e Json,
    depth: u8,
}

/// A subject as workflows name it: `u:ID`, `a:ID`, or the id of a user.
pub(super) fn who(text: &str) -> Who {
    Who::person(text)
}
