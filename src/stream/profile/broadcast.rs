//! A broadcast: everyone who is in a segment when it comes is told to begin a run, in key order and in bounded commits.
//!
//! As with a definition's way through everyone, the loop stores everything before each page, so that the store's key order is everyone.

use bytes::Bytes;
use serde_json::Value as Json;

use super::{Applied, CONTROL, ProfileFold};
use crate::domain::{DeadReason, Millis, SubjectKey};
use crate::schema::records::Broadcast;
use crate::stream::cache::Slot;
use crate::stream::fold::{Fault, Window};
use crate::stream::outputs::Outputs;
use crate::stream::{Cursor, Error};
use crate::workflow::{Input, stagger};

impl ProfileFold {
    pub(super) fn broadcast(&mut self, broadcast: &Broadcast<'_>, window: Window<'_>, out: &mut Outputs) -> Result<Applied, Error> {
        let Some(Cursor::Sweep { after }) = window.after else {
            return Ok(Applied::More(Cursor::Sweep { after: Bytes::new() }));
        };
        let entry = match serde_json::from_str::<Json>(broadcast.entry) {
            Ok(entry) => entry,
            Err(error) => return Ok(Applied::Rejected(Fault::new(DeadReason::Undecodable, format!("a broadcast's entry: {error}")))),
        };
        let at = self.deployed.topology.segments.iter().position(|segment| *segment.name == *broadcast.segment);
        // Whoever sent it was told that there is none; here it may have gone meanwhile.
        let Some(bit) = at.map(|at| self.deployed.bits[at]) else { return Ok(CONTROL) };
        self.through(after, window, out, |fold, slot, out| {
            if !fold.cache.get(slot).is_member(bit) {
                return Ok(());
            }
            fold.tell_broadcast(slot, broadcast, &entry, out)
        })
    }

    /// A start at the member's own time within the throttle: the same whenever, and however often, it is said.
    fn tell_broadcast(&self, slot: Slot, broadcast: &Broadcast<'_>, entry: &Json, out: &mut Outputs) -> Result<(), Error> {
        let Some(key) = SubjectKey::parts(self.cache.key(slot)).filter(|key| key.tenant == broadcast.tenant) else { return Ok(()) };
        let at = Millis(broadcast.at);
        let due = at + stagger(broadcast.id, key.subject, broadcast.throttle_ms);
        let start = Input::Start {
            workflow: broadcast.workflow.to_owned(),
            cause: broadcast.id.to_owned(),
            entry: entry.clone(),
            profile: self.told_of_all(slot, at),
            depth: 0,
            parent: None,
        };
        self.tell(slot, at, &Input::Later { at: due, input: Box::new(start) }, out)
    }
}
