//! Runs that begin by the clock: when time passes a schedule's hour, the subject that stands for the workflow is told to start.

use serde_json::json;

use super::fold::WorkflowFold;
use crate::domain::{DAY_MS, Millis, Subject as Who, SubjectKey, TenantId, partition_of};
use crate::stream::{Error, NamespaceClock, Outputs, Topic};
use crate::workflow::{self, Context, Definition, EntryBy, Input, Subject, next_time, schedule_cause};

/// Whose subject stands for a workflow of the whole namespace.
const TENANT: &str = "default";
/// A schedule's next time is at most its own length and two weeks of weekdays away.
const SEARCH_MS: i64 = 16 * DAY_MS;

/// The subject that stands for a workflow, or for a tenant's own one.
fn subject_of(tenant: Option<&str>, workflow: &str) -> Option<SubjectKey> {
    Some(Who::user(&format!("campaign:{workflow}")).key(&TenantId::new(tenant.unwrap_or(TENANT)).ok()?))
}

/// The last of its times after `after` and up to `upto`: one run makes up for all that were missed.
fn latest(definition: &Definition, after: Millis, upto: Millis) -> Option<Millis> {
    let EntryBy::Schedule { every_ms, .. } = &definition.entry.by else { return None };
    let mut found = None;
    let mut from = after.max(upto - every_ms.saturating_mul(2).saturating_add(SEARCH_MS));
    while let Some(next) = next_time(definition, from, None).filter(|next| *next <= upto) {
        found = Some(next);
        from = next;
    }
    found
}

impl WorkflowFold {
    /// The schedules in force whose subjects are of this partition, with those subjects.
    fn schedules(&self) -> impl Iterator<Item = (SubjectKey, &Definition)> {
        let partitions = self.topics.count(Topic::Commands);
        let all = self.definitions.library.all_active();
        let scheduled = all.filter(|(_, definition)| matches!(definition.entry.by, EntryBy::Schedule { .. }));
        let with_subjects = scheduled.filter_map(|(tenant, definition)| Some((subject_of(tenant, &definition.name)?, &**definition)));
        with_subjects.filter(move |(key, _)| partition_of(key.as_bytes(), partitions) == self.partition)
    }

    /// Time has come from `before` to now.
    pub(super) fn start_scheduled(&mut self, before: Millis, out: &mut Outputs) -> Result<(), Error> {
        let now = self.partition_time();
        // Nothing was missed before there was any time.
        if before == Millis::MIN {
            return Ok(());
        }
        let due = |(key, definition): (SubjectKey, &Definition)| Some((key, definition.name.clone(), latest(definition, before, now)?));
        let due: Vec<(SubjectKey, String, Millis)> = self.schedules().filter_map(due).collect();
        for (key, workflow, time) in due {
            let Some(slot) = self.subjects.load(std::iter::once(key.as_bytes()))?.pop().flatten() else { continue };
            let entry = json!({ "at": time.to_rfc3339() });
            let cause = schedule_cause(&workflow, time);
            let input = Input::Start { workflow, cause, entry, profile: json!({}), depth: 0, parent: None };
            let at = if self.clock == NamespaceClock::Wall { now } else { time };
            let start = |subject: &mut Subject, context: Context<'_>| workflow::drive(subject, context, &input, at);
            if !self.attempt(slot, start, out)? {
                self.set_aside(slot, &input, at, out)?;
            }
        }
        Ok(())
    }

    /// When a schedule's time comes next.
    pub(super) fn next_scheduled(&self) -> Option<Millis> {
        let now = self.partition_time();
        if now == Millis::MIN {
            return None;
        }
        self.schedules().filter_map(|(_, definition)| next_time(definition, now, None)).min()
    }
}
