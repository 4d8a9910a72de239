//! A run that cannot be decided any more, or whose facts cannot be written: it is paused, and everyone else goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::fold::WorkflowFold;
use crate::domain::Millis;
use crate::stream::{Error, Outputs, Slot};
use crate::workflow::{self, Context, Driven, Input, RunId, Subject};

impl WorkflowFold {
    /// Lets one subject decide. False if that panicked or what it decided cannot be written; everything is as it was then.
    pub(super) fn attempt(
        &mut self,
        slot: Slot,
        decide: impl FnOnce(&mut Subject, Context<'_>) -> Driven,
        out: &mut Outputs,
    ) -> Result<bool, Error> {
        let place = out.checkpoint();
        let before = self.subjects.get(slot).subject.clone();
        match catch_unwind(AssertUnwindSafe(|| self.decide(slot, decide, out))) {
            Ok(Ok(_)) => return Ok(true),
            Ok(Err(error)) if !matches!(error, Error::Record(_)) => return Err(error),
            _ => {}
        }
        out.rewind(&place);
        self.subjects.put_back(slot, before);
        Ok(false)
    }

    /// After an input failed: pauses the one run without which it does not, or all of them where it cannot be told, and decides it for what
    /// is left. Where it fails all the same nothing changes: whoever keeps the input has it as a dead letter.
    pub(super) fn set_aside(&mut self, slot: Slot, input: &Input, at: Millis, out: &mut Outputs) -> Result<(), Error> {
        let runs = &self.subjects.get(slot).subject.runs;
        let going: Vec<RunId> = runs.iter().filter(|(_, run)| !run.is_isolated()).map(|(id, _)| *id).collect();
        let alone = going.iter().map(|id| vec![*id]);
        let all = (going.len() > 1).then(|| going.clone());
        for suspects in alone.chain(all) {
            let decide = |subject: &mut Subject, context: Context<'_>| workflow::isolate(subject, context, &suspects, input, at);
            if self.attempt(slot, decide, out)? {
                tracing::error!(partition = self.partition.0, runs = ?suspects, input = input.kind(), "cannot be decided any more and is paused");
                return Ok(());
            }
        }
        tracing::error!(partition = self.partition.0, input = input.kind(), "cannot be decided, with or without the runs there are");
        Ok(())
    }
}
