//! Timers: whom a tick wakes, in order and in bounded commits, and a run that cannot be decided any more.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::fold::WorkflowFold;
use crate::domain::Millis;
use crate::state::Wake;
use crate::stream::{Cursor, Error, Outputs, Slot, Window};
use crate::workflow::{self, Context, Driven, Fact, Input, RunId, Subject, What};

/// How many index entries are read at a time.
const PAGE: usize = 1_000;

impl WorkflowFold {
    /// Wakes everyone due by partition time, at most as many as one commit should hold; where to go on, if that were not all.
    pub(super) fn wake_all(&mut self, window: Window<'_>, out: &mut Outputs) -> Result<Option<Cursor>, Error> {
        let time = self.partition_time();
        let mut last = match window.after {
            Some(Cursor::Wake { due, key }) => Some(Wake { due: *due, key: key.clone() }),
            _ => None,
        };
        // Whoever is woken wants nothing before this time any more, or cannot have it: nobody is woken twice.
        let mut in_memory = self.subjects.due_in_memory(time, last.as_ref());
        let mut stored = Vec::new().into_iter().peekable();
        let mut next = Some(last.clone());
        let mut woken = 0;
        loop {
            while stored.peek().is_none() {
                let Some(after) = next.take() else { break };
                let (page, more) = self.subjects.due_stored(time, after.as_ref(), PAGE)?;
                (stored, next) = (page.into_iter().peekable(), more.map(Some));
            }
            let is_stored = match (in_memory.first(), stored.peek()) {
                (None, None) => return Ok(None),
                (Some(mine), Some(theirs)) => theirs < mine,
                (mine, _) => mine.is_none(),
            };
            let wake = if is_stored { stored.next() } else { in_memory.pop_first() }.expect("one of them was there");
            // At least one each time, or a commit that was full before would end the tick with everyone asleep.
            if woken == self.wakes_per_commit || (woken > 0 && out.bytes() >= self.output_bytes_max) {
                return Ok(last.map(|Wake { due, key }| Cursor::Wake { due, key }));
            }
            let Some(slot) = self.subjects.load(std::iter::once(&wake.key[..]))?.pop().flatten() else { continue };
            self.wake(slot, time, out)?;
            woken += 1;
            last = Some(wake);
        }
    }

    /// Wakes one subject. If that panics, the run that did is paused: a tick that became a dead letter would reach nobody else.
    fn wake(&mut self, slot: Slot, time: Millis, out: &mut Outputs) -> Result<(), Error> {
        let place = out.checkpoint();
        let before = self.subjects.get(slot).subject.clone();
        let woken =
            catch_unwind(AssertUnwindSafe(|| self.decide(slot, |subject, context| workflow::drive_due(subject, context, time), out)));
        match woken {
            Ok(Err(error)) if !matches!(error, Error::Record(_)) => return Err(error),
            Ok(Ok(_)) => return Ok(()),
            _ => {}
        }
        out.rewind(&place);
        self.subjects.put_back(slot, before);
        self.isolate(slot, &Input::Due, time, out)
    }

    /// Pauses the runs of a subject that cannot take this input without panicking; the others have taken no notice of it.
    pub(super) fn isolate(&mut self, slot: Slot, input: &Input, at: Millis, out: &mut Outputs) -> Result<(), Error> {
        tracing::error!(partition = self.partition.0, subject = ?self.subjects.key(slot), "a run cannot be decided and is paused");
        self.decide(slot, |subject, context| pause_failing(subject, context, input, at), out).map(drop)
    }
}

/// Pauses each run that panics when it alone is given the input.
fn pause_failing(subject: &mut Subject, context: Context<'_>, input: &Input, at: Millis) -> Driven {
    let at = at.max(subject.now);
    let fails = |run: &RunId| {
        let mut alone = subject.clone();
        alone.runs.retain(|id, _| id == run);
        catch_unwind(AssertUnwindSafe(|| drop(workflow::drive(&mut alone, context, input, at)))).is_err()
    };
    let failing: Vec<RunId> = subject.runs.iter().filter(|(_, run)| run.paused.is_none()).map(|(id, _)| *id).filter(fails).collect();
    let pause = |run| {
        let what = What::RunPaused { reason: "deciding what comes next fails: a defect".to_owned(), by: "flywheel".to_owned() };
        Fact { at, run: Some(run), what }
    };
    let facts: Vec<Fact> = failing.into_iter().map(pause).collect();
    facts.iter().for_each(|fact| workflow::evolve(subject, fact));
    Driven { facts, rejected: None }
}
