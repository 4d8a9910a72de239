//! Which topology's intake rules were in force from which offset of a partition on, as the committed offset's metadata keeps it.
//!
//! A re-read must decide each record as it was decided: a record filtered now that was applied then would leave no mark, and be applied a
//! second time when it is sent again. So the log says which rules those were, since stored states may be lost at a crash, and whole.

use bytes::{Buf, BufMut, Bytes};

use crate::domain::{Digest, Offset};
use crate::stream::Error;

/// How many changes of rules are remembered within what `intake` keeps; of more, the oldest rules stand in for those before.
const CHANGES_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct InForce {
    /// Oldest first; the first one also holds for everything before it.
    changes: Vec<(Offset, Digest)>,
    /// The next change, for one who reads forwards.
    ahead: usize,
}

impl InForce {
    /// `of_before`: what was in force where the log does not say anything yet.
    pub(super) fn restore(marked: &Bytes, of_before: Option<Digest>) -> Result<Self, Error> {
        let mut bytes = marked.clone();
        let mut changes: Vec<_> = of_before.filter(|_| marked.is_empty()).map(|digest| (Offset(0), digest)).into_iter().collect();
        while bytes.has_remaining() {
            let corrupt =
                || Error::Corrupt { what: "the intake rules in a committed offset's metadata".into(), detail: format!("{marked:?}") };
            let from = bytes.try_get_u64_le().map_err(|_| corrupt())?;
            let mut digest = [0; 32];
            bytes.try_copy_to_slice(&mut digest).map_err(|_| corrupt())?;
            changes.push((Offset(from), Digest(digest)));
        }
        Ok(Self { changes, ahead: 0 })
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.changes.len() * 40);
        for (from, digest) in &self.changes {
            out.put_u64_le(from.0);
            out.put_slice(&digest.0);
        }
        out.into()
    }

    /// What holds at `next`, from where is read on; `None` if nothing was ever decided.
    pub(super) fn at(&mut self, next: Offset) -> Option<Digest> {
        self.ahead = self.changes.partition_point(|(from, _)| *from <= next).max(1);
        self.changes.get(self.ahead - 1).map(|(_, digest)| *digest)
    }

    /// What begins at this record or between the one before and it, asked in order.
    pub(super) fn begins_at(&mut self, offset: Offset) -> Option<Digest> {
        let mut begun = None;
        while let Some((_, digest)) = self.changes.get(self.ahead).filter(|(from, _)| *from <= offset) {
            (begun, self.ahead) = (Some(*digest), self.ahead + 1);
        }
        begun
    }

    pub(super) fn newest(&self) -> Option<Digest> {
        self.changes.last().map(|(_, digest)| *digest)
    }

    /// From `next` on this one is in force. What ended before `start` can no longer be read, so nobody will ask.
    pub(super) fn add(&mut self, next: Offset, digest: Digest, start: Offset) {
        self.changes.retain(|(from, _)| *from < next);
        self.changes.push((next, digest));
        let ended = self.changes.iter().skip(1).take_while(|(from, _)| *from <= start).count();
        self.changes.drain(..ended.max(self.changes.len().saturating_sub(CHANGES_MAX)));
        self.ahead = self.changes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn digest(n: u8) -> Digest {
        Digest([n; 32])
    }

    fn of(changes: &[(u64, u8)]) -> InForce {
        let mut in_force = InForce::default();
        changes.iter().for_each(|(from, n)| in_force.add(Offset(*from), digest(*n), Offset(0)));
        InForce::restore(&in_force.encode(), None).unwrap()
    }

    #[test]
    fn each_record_is_read_under_the_rules_of_its_offset() {
        let changes = [(3, 1), (5, 2), (9, 3)];
        for (next, first) in [(0, 1), (3, 1), (4, 1), (5, 2), (8, 2), (9, 3), (20, 3)] {
            let mut in_force = of(&changes);
            let mut now = in_force.at(Offset(next));
            assert_eq!(now, Some(digest(first)), "from {next}");
            for offset in next..12 {
                now = in_force.begins_at(Offset(offset)).or(now);
                let holds = changes.iter().rev().find(|(from, _)| *from <= offset).map_or(1, |(_, n)| *n);
                assert_eq!(now, Some(digest(holds)), "{offset} from {next}");
            }
        }
        assert_eq!(InForce::default().at(Offset(7)), None);
    }

    #[test]
    fn what_the_log_does_not_say_is_what_the_state_said() {
        let mut in_force = InForce::restore(&Bytes::new(), Some(digest(4))).unwrap();
        assert_eq!((in_force.at(Offset(7)), in_force.newest()), (Some(digest(4)), Some(digest(4))));
        let said = of(&[(3, 1)]).encode();
        assert_eq!(InForce::restore(&said, Some(digest(4))).unwrap().newest(), Some(digest(1)));
        assert!(InForce::restore(&said.slice(1..), None).is_err());
    }

    #[test]
    fn only_what_can_still_be_read_is_remembered() {
        let mut in_force = of(&[(0, 1), (5, 2), (9, 3)]);
        in_force.add(Offset(12), digest(4), Offset(6));
        assert_eq!(in_force.changes, [(Offset(5), digest(2)), (Offset(9), digest(3)), (Offset(12), digest(4))]);
        (0..200).for_each(|n| in_force.add(Offset(20 + n), digest(n as u8), Offset(6)));
        assert_eq!((in_force.changes.len(), in_force.newest()), (CHANGES_MAX, Some(digest(199))));
    }

    #[test]
    fn one_that_nothing_was_decided_under_leaves_no_trace() {
        let mut in_force = of(&[(3, 1)]);
        in_force.add(Offset(5), digest(2), Offset(0));
        in_force.add(Offset(5), digest(3), Offset(0));
        assert_eq!(in_force.changes, [(Offset(3), digest(1)), (Offset(5), digest(3))]);
    }
}
