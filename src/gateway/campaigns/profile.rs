//! What a run that is started here knows of the person: from the read model, or, where that does not have it, asked of the profile fold.
//!
//! Counts such as `count("Order Completed", "30d")` are in no row. The question is the one that a branch with `fresh` asks, and it is
//! answered by the same fold, so that a run comes out the same by whichever road it began.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::command::{FETCH_BYTES, LOOK_EVERY};
use crate::domain::{Offset, Subject, SubjectKey};
use crate::gateway::options::{Access, Clocked};
use crate::gateway::reply::Refusal;
use crate::gateway::{Gateway, ReadError};
use crate::log::{BatchBuilder, LogReader, TopicPartition, Transaction};
use crate::schema;
use crate::schema::records::{Ask, CommandsRecord, EventsRecord};
use crate::workflow::{Input, RunId};

/// How long the profile fold may take; it answers within milliseconds unless it is behind.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

impl Gateway {
    /// What is known of the person now, under the names that expressions use.
    pub(super) async fn profile_for(&self, access: &Access, subject: &Subject, names: &[String]) -> Result<Value, Refusal> {
        if names.is_empty() {
            return Ok(Value::Null);
        }
        let read = self.app.profiles.profile(&access.namespace, &access.tenant, subject).await;
        let profile = match read {
            Ok(Some(text)) => serde_json::from_str(&text).unwrap_or(Value::Null),
            Ok(None) | Err(ReadError::NotYet) => Value::Null,
            Err(ReadError::Failed(why)) => return Err(Refusal::ReadFailed(why)),
        };
        // On the data's own time nobody here knows what time it is.
        let is_wall = matches!(self.app.sources.namespaces.get(&access.namespace), Some(Clocked::Wall));
        let is_column = |name: &String| name.starts_with("traits.") || schema::profile::columns().iter().any(|column| column.name == name);
        if is_wall && !names.iter().all(is_column) {
            return self.asked_profile(access, &subject.key(&access.tenant), names).await;
        }
        let value = |name: &String| match name.strip_prefix("traits.") {
            Some(name) => profile.get("traits")?.get(name).cloned(),
            None => profile.get("features")?.get(name).cloned(),
        };
        Ok(Value::Object(names.iter().filter_map(|name| Some((name.clone(), value(name)?))).collect::<Map<_, _>>()))
    }

    async fn asked_profile(&self, access: &Access, key: &SubjectKey, names: &[String]) -> Result<Value, Refusal> {
        let world = self.world(&access.namespace)?;
        let (events, commands) = (world.events_of(key), world.commands_of(key));
        let mut from = self.app.log.watermarks(commands)?.end;
        // Of no run: to the fold of runs the answer says nothing.
        let question = RunId(uuid::Uuid::now_v7().as_u128());
        let now = self.app.clock.now();
        let (run, fields) = (question.to_string(), names.iter().map(String::as_str).collect());
        let ask = EventsRecord::Ask(Ask { run: &run, fields, at: now.0, redriven_from: None });
        let mut batch = BatchBuilder::new();
        let pushed = batch.push_with(key.as_bytes(), now, |out| schema::encode(&ask, out));
        pushed.map_err(|error| Refusal::InvalidRequest(error.to_string()))?;
        let ticket = self.app.log.append(Transaction { batches: vec![(events, batch.build())], commits: Vec::new() })?;
        match tokio::time::timeout(self.app.options.commit_timeout(), ticket).await {
            Ok(appended) => drop(appended?),
            Err(_) => return Err(Refusal::NotDurable),
        }
        let until = Instant::now() + ANSWER_WAIT;
        loop {
            let (log, key) = (self.app.log.clone(), key.clone());
            let read = tokio::task::spawn_blocking(move || answer_in(&*log, commands, from, &key, question)).await;
            let (answer, next) = read.map_err(|error| Refusal::ReadFailed(error.to_string()))??;
            from = next;
            match answer {
                Some(profile) => return Ok(profile),
                None if Instant::now() >= until => return Err(Refusal::Starting),
                None => tokio::time::sleep_until(until.min(Instant::now() + LOOK_EVERY)).await,
            }
        }
    }
}

/// The answer to the question among a subject's commands from `from` on, and where they end.
fn answer_in(
    log: &dyn LogReader,
    commands: TopicPartition,
    from: Offset,
    key: &SubjectKey,
    question: RunId,
) -> Result<(Option<Value>, Offset), Refusal> {
    let mut next = from;
    let end = log.watermarks(commands)?.end;
    while next < end {
        let fetched = log.fetch(commands, next, FETCH_BYTES)?;
        for value in fetched.records().filter(|record| record.key == key.as_bytes()).filter_map(|record| record.value) {
            let Ok(CommandsRecord::Command(command)) = schema::decode(value) else { continue };
            if command.kind != "answer" {
                continue;
            }
            if let Ok(Input::Answer { run, profile }) = serde_json::from_str(command.body)
                && run == question
            {
                return Ok((Some(profile), fetched.next));
            }
        }
        next = fetched.next;
    }
    Ok((None, next))
}
