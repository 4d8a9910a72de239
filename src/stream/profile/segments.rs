//! Membership of segments: decided after each change that can matter, said as facts when it changes.

use super::ProfileFold;
use crate::domain::Millis;
use crate::features::Groups;
use crate::schema::records::SegmentChange;
use crate::stream::cache::Slot;
use crate::stream::outputs::Outputs;
use crate::stream::{Error, Topic};

/// The event by which somebody's segments may change; nothing where time alone did it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cause<'e> {
    pub(super) message_id: &'e str,
    pub(super) is_late: bool,
    pub(super) depth: i32,
}

impl ProfileFold {
    /// Decides every segment that depends on one of `groups`, as of `now`. Who enters by a late event is a member like any other, and the fact
    /// says that it is old news.
    pub(super) fn decide(&mut self, slot: Slot, now: Millis, groups: Groups, cause: Cause<'_>, out: &mut Outputs) -> Result<(), Error> {
        let groups = u64::from(groups.0);
        if self.deployed.depends_on & groups == 0 {
            return Ok(());
        }
        let mut changes: smallvec::SmallVec<[(usize, bool); 4]> = Default::default();
        let person = self.cache.get(slot);
        let view = self.deployed.person(&person.profile);
        let (mut quiet_until, mut is_all) = (Millis::MAX, true);
        for (at, segment) in self.deployed.topology.segments.iter().enumerate() {
            if segment.depends_on() & groups == 0 {
                is_all &= !segment.moves();
                continue;
            }
            let (is_member, until) = segment.evaluate_until(&view, now);
            quiet_until = quiet_until.min(until);
            let was_member = person.is_member(self.deployed.bits[at]);
            if is_member != was_member {
                changes.push((at, is_member));
            }
        }
        // Those that were left out have not changed, so what was said of them holds.
        let quiet_until = if is_all { Some(quiet_until) } else { person.quiet_until.map(|known| known.min(quiet_until)) };
        self.cache.get_mut(slot).quiet_until = quiet_until;
        for (at, entered) in changes {
            self.cache.get_mut(slot).set_member(self.deployed.bits[at], entered);
            let segment = &self.deployed.topology.segments.as_slice()[at];
            let digest = segment.digest.to_hex();
            let Cause { message_id: cause, is_late, depth } = cause;
            let change = SegmentChange { segment: &segment.name, digest: &digest, entered, at: now.0, cause, late: is_late && entered };
            out.push_to(Topic::SegmentChanges, self.partition, self.cache.key(slot), now, &change)?;
            self.tell_segment(slot, &change, depth, out)?;
        }
        Ok(())
    }

    /// The person is nobody any more: out of every segment.
    pub(super) fn leave_all(&mut self, slot: Slot, at: Millis, out: &mut Outputs) -> Result<(), Error> {
        for bit in 0..self.memo.segment_count() {
            self.leave(slot, bit, at, out)?;
        }
        Ok(())
    }

    /// Out of the segments that no longer exist.
    pub(super) fn leave_removed(&mut self, slot: Slot, at: Millis, out: &mut Outputs) -> Result<(), Error> {
        for bit in 0..self.memo.segment_count() {
            if !self.deployed.bits.contains(&bit) {
                self.leave(slot, bit, at, out)?;
            }
        }
        Ok(())
    }

    fn leave(&mut self, slot: Slot, bit: usize, at: Millis, out: &mut Outputs) -> Result<(), Error> {
        if !self.cache.get(slot).is_member(bit) {
            return Ok(());
        }
        self.cache.get_mut(slot).set_member(bit, false);
        let Some((segment, digest)) = self.memo.segment(bit) else { return Ok(()) };
        let change = SegmentChange { segment, digest, entered: false, at: at.0, cause: "", late: false };
        out.push_to(Topic::SegmentChanges, self.partition, self.cache.key(slot), at, &change)?;
        self.tell_segment(slot, &change, 0, out)
    }

    /// The earliest time at which some segment can flip although nothing happens, if that is at or before `horizon`.
    pub(super) fn next_wake_by(&self, slot: Slot, horizon: Millis) -> Option<Millis> {
        let person = self.cache.get(slot);
        let now = person.profile.now().filter(|now| *now < horizon)?;
        if person.quiet_until.is_some_and(|until| horizon < until) {
            return None;
        }
        let view = self.deployed.person(&person.profile);
        self.deployed.topology.segments.iter().filter_map(|segment| segment.next_flip_by(&view, now, horizon)).min()
    }
}
