//! What the subject did and what others tell it: events, segment changes, signals, answers, other runs' ends.

use serde_json::Value as Json;

use super::super::definition::{AwaitedWhat, EntryBy, Kind};
use super::super::expression::Scope;
use super::super::fact::{Visit, What};
use super::super::ids::RunId;
use super::super::input::Rejection;
use super::super::state::{Doing, Run};
use super::super::vocabulary::Ending;
use super::Turn;
use super::start::Cause;
use crate::domain::Millis;

/// Something that waits and goals are held against.
struct Happening<'h> {
    cause: &'h str,
    name: &'h str,
    payload: &'h Json,
    profile: Option<&'h Json>,
    /// When it happened, where that is not now: what began later is none of its business.
    past: Option<Millis>,
    is: &'h dyn Fn(&AwaitedWhat) -> bool,
}

impl Turn<'_, '_> {
    /// Where it can begin runs, it is at this depth.
    pub(super) fn event(&mut self, cause: &str, name: &str, properties: &Json, profile: &Json, begins: Option<u8>) {
        let is = |what: &AwaitedWhat| matches!(what, AwaitedWhat::Event(event) if event == name);
        self.tell_all(&Happening { cause, name, payload: properties, profile: Some(profile), past: None, is: &is });
        // What is more than a day late is told to those who wait for it, and begins nothing.
        if let Some(depth) = begins {
            let cause = Cause { by: &format!("event {name}"), id: cause, entry: properties, profile, depth, parent: None };
            self.entries(&|by| matches!(by, EntryBy::Event(event) if event == name), &cause);
        }
    }

    /// What was done before a login made the subject who it is.
    pub(super) fn past(&mut self, at: Millis, cause: &str, name: &str, properties: &Json, profile: &Json) {
        let is = |what: &AwaitedWhat| matches!(what, AwaitedWhat::Event(event) if event == name);
        self.tell_all(&Happening { cause, name, payload: properties, profile: Some(profile), past: Some(at), is: &is });
    }

    fn tell_all(&mut self, happening: &Happening<'_>) {
        for run in self.run_ids() {
            self.goal(run, happening);
            self.wait(run, happening);
        }
    }

    pub(super) fn segment_change(&mut self, cause: &str, segment: &str, entered: bool, profile: &Json, begins: Option<u8>) {
        let is = |what: &AwaitedWhat| match what {
            AwaitedWhat::Enters(name) => entered && name == segment,
            AwaitedWhat::Leaves(name) => !entered && name == segment,
            _ => false,
        };
        let payload = serde_json::json!({ "segment": segment, "entered": entered });
        let happening = Happening { cause, name: segment, payload: &payload, profile: Some(profile), past: None, is: &is };
        for run in self.run_ids() {
            self.wait(run, &happening);
        }
        if let Some(depth) = begins.filter(|_| entered) {
            let cause = Cause { by: &format!("segment {segment}"), id: cause, entry: &payload, profile, depth, parent: None };
            self.entries(&|by| matches!(by, EntryBy::Segment(name) if name == segment), &cause);
        }
    }

    pub(super) fn signal(&mut self, id: RunId, cause: &str, name: &str, payload: &Json) -> Result<(), Rejection> {
        self.run(id)?;
        let is = |what: &AwaitedWhat| matches!(what, AwaitedWhat::Signal(signal) if signal == name);
        let before = self.facts.len();
        self.wait(id, &Happening { cause, name, payload, profile: None, past: None, is: &is });
        if self.facts.len() == before {
            return Err(Rejection::NotAwaited(name.to_owned()));
        }
        Ok(())
    }

    /// Ends the waits of a run that this is for.
    fn wait(&mut self, id: RunId, happening: &Happening<'_>) {
        let Some(run) = self.state.runs.get(&id) else { return };
        if run.matched.as_deref() == Some(happening.cause) || run.is_isolated() {
            return;
        }
        let Some(definition) = self.definition(run) else { return };
        let scope = self.scope_of(id, run, happening);
        let mut matched = Vec::new();
        for (visit, step) in &run.steps {
            let Doing::Wait { until } = step.doing else { continue };
            // The time-out was first: it only has not been decided yet.
            if until < happening.past.unwrap_or(self.heard()) || happening.past.is_some_and(|at| at < step.since) {
                continue;
            }
            let Some((_, node)) = definition.find(&step.node) else { continue };
            let Kind::WaitFor { any, .. } = &node.kind else { continue };
            let fits =
                any.iter().position(|awaited| (happening.is)(&awaited.what) && awaited.when.as_ref().is_none_or(|when| when.holds(&scope)));
            if let Some(at) = fits.and_then(|at| u16::try_from(at).ok()) {
                matched.push((*visit, step.node.clone(), at));
            }
        }
        if matched.is_empty() {
            return;
        }
        // Only what this workflow reads of it: the command brings what all of them do.
        let reads = |profile: &Json| -> Json {
            let known = definition.profile.iter().filter_map(|name| Some((name.clone(), profile.get(name)?.clone())));
            let known: serde_json::Map<String, Json> = known.collect();
            if known.is_empty() { Json::Null } else { Json::Object(known) }
        };
        let profile = happening.profile.map_or(Json::Null, reads);
        for (visit, node, at) in matched {
            let (name, cause, payload) = (happening.name.to_owned(), happening.cause.to_owned(), happening.payload.clone());
            self.fact(id, What::WaitMatched { visit, node, matched: at, name, cause, payload, profile: profile.clone() });
        }
    }

    /// Leaves a run wherever it is when its goal's event comes; each goal once.
    fn goal(&mut self, id: RunId, happening: &Happening<'_>) {
        let Some(run) = self.state.runs.get(&id) else { return };
        if run.goal.is_some() || run.is_isolated() || happening.past.is_some_and(|at| at < run.started) {
            return;
        }
        let Some(definition) = self.definition(run) else { return };
        let scope = self.scope_of(id, run, happening);
        let reached = definition.goals.iter().find(|goal| {
            goal.event == happening.name
                && !run.results.contains_key(&goal.name)
                && goal.when.as_ref().is_none_or(|when| when.holds(&scope))
        });
        if let Some(goal) = reached {
            let to = goal.next.and_then(|next| definition.node(next)).map(|node| node.name.to_string());
            self.fact(id, What::GoalReached { goal: goal.name.clone(), event: goal.event.clone(), cause: happening.cause.to_owned(), to });
        }
    }

    pub(super) fn answer(&mut self, id: RunId, profile: &Json) -> Result<(), Rejection> {
        let run = self.run(id)?;
        if !run.steps.values().any(|step| step.doing == Doing::Asking) {
            return Err(Rejection::AlreadyDecided("nothing asks for the profile".to_owned()));
        }
        self.fact(id, What::ProfileSeen { profile: profile.clone() });
        Ok(())
    }

    pub(super) fn start_ended(&mut self, id: RunId, visit: Visit, ending: Ending, result: &Json) -> Result<(), Rejection> {
        let run = self.run(id)?;
        if !run.steps.get(&visit).is_some_and(|step| matches!(step.doing, Doing::Child { .. })) {
            return Err(Rejection::AlreadyDecided("nothing waits for that run".to_owned()));
        }
        self.fact(id, What::StartEnded { visit, ending, result: result.clone() });
        Ok(())
    }
}

impl<'c> Turn<'_, 'c> {
    /// What conditions on a happening are held against.
    fn scope_of<'s>(&self, id: RunId, run: &'s Run, happening: &Happening<'s>) -> Scope<'s>
    where
        'c: 's,
    {
        Scope { event: Some(happening.payload), profile: happening.profile, ..self.scope(id, run) }
    }
}
