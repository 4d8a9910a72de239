//! A new definition comes into force: at the first tick past its time, or on receipt if that is later. Everyone is then decided again,
//! once, in key order, in bounded commits.
//!
//! Before each page of the way through, the loop stores everything, so that the store's key order is everyone.

use bytes::Bytes;

use super::segments::Cause;
use super::{Applied, CONTROL, ProfileFold};
use crate::domain::{DeadReason, Digest, Millis};
use crate::features::Groups;
use crate::schema::records::Activated;
use crate::stream::cache::Slot;
use crate::stream::definitions::{KIND_POLICY, KIND_TOPOLOGY, KIND_WORKFLOW};
use crate::stream::fold::{Fault, Window};
use crate::stream::outputs::Outputs;
use crate::stream::{Cursor, Error};

impl ProfileFold {
    pub(super) fn activated(&mut self, activated: &Activated<'_>, window: Window<'_>, out: &mut Outputs) -> Result<Applied, Error> {
        if matches!(window.after, Some(Cursor::Sweep { .. })) {
            return self.sweep(window, out);
        }
        match activated.kind {
            KIND_TOPOLOGY => {}
            KIND_WORKFLOW => return self.workflow_activated(activated, out),
            KIND_POLICY => {
                self.forward_activated(activated, out)?;
                return Ok(CONTROL);
            }
            _ => return Ok(CONTROL),
        }
        let Some(digest) = Digest::from_hex(activated.digest) else {
            return Ok(Applied::Rejected(Fault::new(DeadReason::Undecodable, format!("{:?} is no digest", activated.digest))));
        };
        let in_force = self.memo.in_force();
        if in_force == Some(digest) || (in_force.is_none() && self.deployed.topology.digest == digest) {
            // What began before the first activation began under this very one.
            self.switch_memo(digest);
            return Ok(CONTROL);
        }
        self.memo.announce(digest, Millis(activated.from));
        match self.memo.due() {
            Some(_) => Ok(Applied::More(Cursor::Sweep { after: Bytes::new() })),
            None => Ok(CONTROL),
        }
    }

    fn workflow_activated(&mut self, activated: &Activated<'_>, out: &mut Outputs) -> Result<Applied, Error> {
        let refused = |detail: String| Ok(Applied::Rejected(Fault::new(DeadReason::Undecodable, detail)));
        if activated.digest.is_empty() {
            self.memo.retire_workflow(activated.tenant, activated.name);
        } else {
            let Some(digest) = Digest::from_hex(activated.digest) else { return refused(format!("{:?} is no digest", activated.digest)) };
            match self.library.workflow(digest) {
                Ok(workflow) => self.memo.set_workflow(activated.tenant, activated.name, activated.digest, &workflow),
                // Published by a later build, or not at all.
                Err(error @ (Error::UnknownDefinition { .. } | Error::BadDefinition { .. })) => return refused(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        self.listen()?;
        self.forward_activated(activated, out)?;
        Ok(CONTROL)
    }

    fn switch_memo(&mut self, digest: Digest) {
        let topology = std::sync::Arc::clone(&self.deployed.topology);
        self.deployed.bits = self.memo.switch(digest, &topology.segments);
    }

    /// One page of everyone, after the cursor.
    pub(super) fn sweep(&mut self, window: Window<'_>, out: &mut Outputs) -> Result<Applied, Error> {
        let Some(Cursor::Sweep { after }) = window.after else { return Ok(CONTROL) };
        if let Some(digest) = self.memo.due() {
            self.switch(digest)?;
        }
        self.through(after, window, out, |fold, slot, out| fold.decide_anew(slot, out))
    }

    /// One page of everyone after a key, in key order; those who became somebody else are left out.
    pub(super) fn through(
        &mut self,
        after: &Bytes,
        window: Window<'_>,
        out: &mut Outputs,
        mut each: impl FnMut(&mut Self, Slot, &mut Outputs) -> Result<(), Error>,
    ) -> Result<Applied, Error> {
        let until = match window.until {
            Some(Cursor::Sweep { after }) => Some(after),
            _ => None,
        };
        // No more than the commit will hold: whoever is left over is read again.
        let at_most = self.wakes_per_commit.min(self.output_bytes_max / self.record_bytes + 1);
        let page = self.store.scan(&self.table, Some(after), at_most)?;
        let is_last = page.len() < at_most;
        let mut done = after.clone();
        for (key, state) in page {
            if until.is_some_and(|until| key > *until) {
                return Ok(Applied::More(Cursor::Sweep { after: done }));
            }
            let slot = self.load(&key, Some(&state))?;
            done = key;
            if !self.cache.get(slot).heirs.is_empty() || self.holds(slot, Some(Cursor::Sweep { after: done.clone() })) {
                continue;
            }
            self.contained(slot, out, |fold, out| each(fold, slot, out))?;
            if self.is_commit_full(out) {
                return Ok(Applied::More(Cursor::Sweep { after: done }));
            }
        }
        let is_reached = until.is_some_and(|until| done >= *until);
        if is_last && !is_reached { Ok(CONTROL) } else { Ok(Applied::More(Cursor::Sweep { after: done })) }
    }

    /// Decides one person under the definition now in force.
    fn decide_anew(&mut self, slot: Slot, out: &mut Outputs) -> Result<(), Error> {
        let person = self.cache.get_mut(slot);
        let own = person.profile.now().unwrap_or(Millis::MIN);
        let at = self.memo.time().max(own);
        if at > Millis::MIN {
            person.profile.wake(at);
            self.decide(slot, at, Groups::ALL, Cause::default(), out)?;
            self.leave_removed(slot, at, out)?;
        }
        self.changed(slot);
        Ok(())
    }
}
