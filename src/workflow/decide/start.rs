//! Entry: whether something begins a run, under which id, and whether the re-entry policy lets it.

use serde_json::{Map, Value as Json};

use super::super::definition::{Definition, EntryBy, Reenter};
use super::super::expression::Scope;
use super::super::fact::{Parent, What, digest_text};
use super::super::ids::{CAMPAIGN, RunId};
use super::super::input::Rejection;
use super::super::state::{RUNS_MAX, Subject};
use super::super::vocabulary::Skipped;
use super::{DEPTH_MAX, Turn};

/// What would start a run.
pub(super) struct Cause<'c> {
    /// `event NAME`, `segment NAME` or `command`.
    pub(super) by: &'c str,
    pub(super) id: &'c str,
    pub(super) entry: &'c Json,
    pub(super) profile: &'c Json,
    pub(super) depth: u8,
    pub(super) parent: Option<&'c Parent>,
}

impl Turn<'_, '_> {
    pub(super) fn command(
        &mut self,
        workflow: &str,
        cause: &str,
        entry: &Json,
        profile: &Json,
        depth: u8,
        parent: Option<&Parent>,
    ) -> Result<(), Rejection> {
        if depth >= DEPTH_MAX {
            return Err(Rejection::TooDeep(depth));
        }
        let Some(definition) = self.context.library.active(self.context.tenant(), workflow).cloned() else {
            if parent.is_none() {
                return Err(Rejection::NoSuchWorkflow(workflow.to_owned()));
            }
            self.skip(workflow, cause, Skipped::NoSuchWorkflow, parent);
            return Ok(());
        };
        match &definition.entry.by {
            EntryBy::Broadcast { segment, throttle_ms } if self.stands_for(workflow) => {
                self.broadcast(workflow, cause, segment, *throttle_ms, entry);
            }
            _ => self.enter(&definition, &Cause { by: "command", id: cause, entry, profile, depth, parent }),
        }
        Ok(())
    }

    /// The subject is the campaign itself and nobody in it.
    fn stands_for(&self, workflow: &str) -> bool {
        self.context.id().strip_prefix(CAMPAIGN) == Some(workflow)
    }

    fn broadcast(&mut self, workflow: &str, cause: &str, segment: &str, throttle_ms: i64, entry: &Json) {
        let broadcast = RunId::of(workflow, self.context.subject, cause);
        if self.state.recent.contains(&broadcast) {
            return self.skip(workflow, cause, Skipped::AlreadyStarted, None);
        }
        let (workflow, cause) = (workflow.to_owned(), cause.to_owned());
        self.note(What::BroadcastBegun { broadcast, workflow, cause, segment: segment.to_owned(), throttle_ms, entry: entry.clone() });
    }

    /// Starts what an event or a segment change is the entry of.
    pub(super) fn entries(&mut self, is_entry: &dyn Fn(&EntryBy) -> bool, cause: &Cause<'_>) {
        let active = self.context.library.active_for(self.context.tenant());
        for definition in active.filter(|known| is_entry(&known.entry.by)) {
            self.enter(definition, cause);
        }
    }

    fn enter(&mut self, definition: &Definition, cause: &Cause<'_>) {
        let scope = Scope {
            run: None,
            subject: self.context.subject,
            entry: Some(cause.entry),
            event: Some(cause.entry),
            profile: Some(cause.profile),
            shows: None,
            now: self.at,
        };
        if definition.entry.when.as_ref().is_some_and(|when| !when.holds(&scope)) {
            // Of everything else that meets no condition nothing is said.
            if cause.parent.is_some() {
                self.skip(&definition.name, cause.id, Skipped::Condition, cause.parent);
            }
            return;
        }
        let run = RunId::of(&definition.name, self.context.subject, cause.id);
        let key = match &definition.entry.key {
            None => Ok(None),
            Some(expr) => expr.text_value(&scope).map(Some).ok_or(Skipped::NoKey),
        };
        let allowed = key.and_then(|key| self.may_enter(definition, run, key.as_deref(), cause.depth).map(|()| key));
        let what = match allowed {
            Err(reason) => return self.skip(&definition.name, cause.id, reason, cause.parent),
            Ok(key) => What::RunStarted {
                workflow: definition.name.clone(),
                digest: digest_text(&definition.digest),
                key,
                by: cause.by.to_owned(),
                cause: cause.id.to_owned(),
                first: definition.node(definition.first).map(|node| node.name.to_string()).unwrap_or_default(),
                entry: cause.entry.clone(),
                vars: definition.vars.iter().map(|(name, (_, value))| (name.clone(), value.clone())).collect::<Map<_, _>>(),
                profile: cause.profile.clone(),
                depth: cause.depth,
                parent: cause.parent.cloned(),
            },
        };
        self.fact(run, what);
    }

    /// Not a fact of the run: that one may be over, or never be. What the same cause began tells of its own end.
    fn skip(&mut self, workflow: &str, cause: &str, reason: Skipped, parent: Option<&Parent>) {
        let parent = parent.filter(|_| reason != Skipped::AlreadyStarted).cloned();
        self.note(What::RunSkipped { workflow: workflow.to_owned(), cause: cause.to_owned(), reason, parent });
    }

    fn may_enter(&self, definition: &Definition, run: RunId, key: Option<&str>, depth: u8) -> Result<(), Skipped> {
        if self.state.runs.contains_key(&run) || self.state.recent.contains(&run) {
            return Err(Skipped::AlreadyStarted);
        }
        if self.state.is_merging() {
            return Err(Skipped::Merging);
        }
        if depth >= DEPTH_MAX {
            return Err(Skipped::TooDeep);
        }
        if self.state.runs.len() >= RUNS_MAX {
            return Err(Skipped::TooMany);
        }
        let Some(mark) = self.state.marks.get(&Subject::mark_key(&definition.name, key)) else { return Ok(()) };
        if mark.run == run {
            return Err(Skipped::AlreadyStarted);
        }
        match definition.entry.reenter {
            Reenter::Always => Ok(()),
            Reenter::Never => Err(Skipped::Reentry),
            Reenter::WhenEnded | Reenter::After { .. } if mark.ended.is_none() => Err(Skipped::StillRunning),
            Reenter::WhenEnded => Ok(()),
            Reenter::After { ms } if self.at >= mark.started + ms => Ok(()),
            Reenter::After { .. } => Err(Skipped::Reentry),
        }
    }
}
