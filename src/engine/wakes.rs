//! Timers: whom a tick wakes, in order and in bounded commits.

use super::fold::WorkflowFold;
use crate::domain::Millis;
use crate::state::Wake;
use crate::stream::{Cursor, Error, Outputs, Slot, Window};
use crate::workflow::{self, Context, Input, Subject};

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

    /// Wakes one subject; what fails is set aside: a tick that became a dead letter would reach nobody else.
    fn wake(&mut self, slot: Slot, time: Millis, out: &mut Outputs) -> Result<(), Error> {
        let decide = |subject: &mut Subject, context: Context<'_>| workflow::drive_due(subject, context, time);
        if self.attempt(slot, decide, out)? { Ok(()) } else { self.set_aside(slot, &Input::Due, time, out) }
    }
}
