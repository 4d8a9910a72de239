//! The ties of one anonymous id, kept as runs: one user, from one identify to the last of the same user before another's.
//!
//! Runs, not single identifies, because SDKs identify on every page. A run keeps its first and last identify, so a late identify of someone
//! else cuts it where it belongs: the events after the run's last identify stay with its user.

use crate::domain::{Millis, varint};

/// The most runs of one id. A kiosk with more logins keeps its first (whose user has the earlier history) and the most recent; the
/// moments of those dropped then count to the user before them.
const RUNS_MAX: usize = 64;

const ID_BYTES_MAX: usize = crate::domain::ID_BYTES_MAX;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    user: Box<str>,
    first: Millis,
    last: Millis,
}

/// Runs in order of their first identify; neighbours are different users.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ties {
    runs: Vec<Run>,
}

/// What tying did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The first tie of this id: its history goes to the user.
    First,
    /// Some moments belong to another user than before.
    Moved,
    /// No moment changed hands.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stored ties do not decode")]
pub struct Error;

impl Ties {
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Each tie's user and the time from which it holds, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Millis)> {
        self.runs.iter().map(|run| (&*run.user, run.first))
    }

    /// The user whom this id belonged to at `at`; before the first tie it is the first user.
    pub fn user_at(&self, at: Millis) -> Option<&str> {
        let after = self.runs.partition_point(|run| run.first <= at);
        self.runs.get(after.saturating_sub(1)).map(|run| &*run.user)
    }

    /// Whether a tie to this user is known.
    pub fn knows(&self, user: &str) -> bool {
        self.runs.iter().any(|run| &*run.user == user)
    }

    /// An identify says that from `at` on this id is `user`'s.
    pub fn tie(&mut self, user: &str, at: Millis) -> Change {
        let run = Run { user: user.into(), first: at, last: at };
        if self.runs.is_empty() {
            self.runs.push(run);
            return Change::First;
        }
        let next = self.runs.partition_point(|run| run.first <= at);
        if let Some(current) = next.checked_sub(1).map(|before| &mut self.runs[before]) {
            if *current.user == *user {
                current.last = current.last.max(at);
                return Change::None;
            }
            if at < current.last {
                let rest = Run { user: current.user.clone(), first: current.last, last: current.last };
                current.last = current.first;
                self.runs.splice(next..next, [run, rest]);
                self.bound();
                return Change::Moved;
            }
        }
        match self.runs.get_mut(next) {
            Some(later) if *later.user == *user => later.first = at,
            _ => self.runs.insert(next, run),
        }
        self.bound();
        Change::Moved
    }

    fn bound(&mut self) {
        while self.runs.len() > RUNS_MAX {
            self.runs.remove(1);
            if self.runs[0].user == self.runs[1].user {
                let joined = self.runs.remove(1);
                self.runs[0].last = joined.last;
            }
        }
    }

    /// Appends a compact form: a count, then for each run the user, the first time and the span.
    pub fn encode(&self, out: &mut Vec<u8>) {
        varint::put(out, self.runs.len() as u64);
        for run in &self.runs {
            varint::put(out, run.user.len() as u64);
            out.extend_from_slice(run.user.as_bytes());
            varint::put(out, varint::zigzag(run.first.0));
            varint::put(out, run.last.0.wrapping_sub(run.first.0) as u64);
        }
    }

    /// Reads what [`Ties::encode`] wrote, and leaves `bytes` behind it.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, Error> {
        let count = varint::take(bytes).map_err(|_| Error)?;
        if count > RUNS_MAX as u64 {
            return Err(Error);
        }
        let mut runs = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let len = varint::take(bytes).map_err(|_| Error)? as usize;
            if len > ID_BYTES_MAX {
                return Err(Error);
            }
            let (user, rest) = bytes.split_at_checked(len).ok_or(Error)?;
            *bytes = rest;
            let user = std::str::from_utf8(user).map_err(|_| Error)?.into();
            let first = varint::unzigzag(varint::take(bytes).map_err(|_| Error)?);
            let span = varint::take(bytes).map_err(|_| Error)? as i64;
            runs.push(Run { user, first: Millis(first), last: Millis(first.wrapping_add(span)) });
        }
        Ok(Self { runs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Ties in order of arrival, and who the id belongs to at some moments.
    #[track_caller]
    fn check(ties: &[(&str, i64)], at: &[(i64, &str)]) {
        let mut known = Ties::default();
        for (user, time) in ties {
            known.tie(user, Millis(*time));
        }
        for (time, user) in at {
            assert_eq!(known.user_at(Millis(*time)), Some(*user), "at {time} of {ties:?}");
        }
    }

    #[test]
    fn each_moment_belongs_to_the_tie_in_force_and_what_came_before_to_the_first() {
        check(&[("u1", 100)], &[(0, "u1"), (100, "u1"), (999, "u1")]);
        check(&[("u1", 100), ("u2", 200)], &[(0, "u1"), (100, "u1"), (199, "u1"), (200, "u2"), (201, "u2")]);
        check(&[("u1", 100), ("u2", 200), ("u1", 300)], &[(150, "u1"), (250, "u2"), (350, "u1")]);
    }

    #[test]
    fn a_late_identify_takes_its_place_in_time() {
        check(&[("u2", 200), ("u1", 100)], &[(50, "u1"), (150, "u1"), (250, "u2")]);
        check(&[("u1", 100), ("u1", 300), ("u2", 200)], &[(150, "u1"), (250, "u2"), (350, "u1")]);
        check(&[("u1", 200), ("u1", 100)], &[(50, "u1"), (150, "u1")]);
        check(&[("u0", 50), ("u2", 200), ("u2", 100)], &[(75, "u0"), (150, "u2")]);
    }

    #[test]
    fn a_tie_says_what_it_changed() {
        let mut ties = Ties::default();
        assert_eq!(ties.tie("u1", Millis(100)), Change::First);
        assert_eq!(ties.tie("u1", Millis(300)), Change::None);
        assert_eq!(ties.tie("u2", Millis(200)), Change::Moved);
        assert_eq!(ties.iter().collect::<Vec<_>>(), [("u1", Millis(100)), ("u2", Millis(200)), ("u1", Millis(300))]);
    }

    #[test]
    fn a_kiosk_keeps_its_first_and_its_latest_users() {
        let mut ties = Ties::default();
        for at in 0..1_000 {
            ties.tie(&format!("u{at}"), Millis(at));
        }
        assert_eq!(ties.iter().count(), RUNS_MAX);
        assert_eq!(ties.user_at(Millis(-1)), Some("u0"));
        assert_eq!(ties.user_at(Millis(999)), Some("u999"));
    }

    proptest! {
        #[test]
        fn ties_decode_to_themselves_and_neighbours_differ(steps in proptest::collection::vec((0u8..4, any::<i32>()), 0..200)) {
            let mut ties = Ties::default();
            for (user, at) in steps {
                ties.tie(&format!("u{user}"), Millis(i64::from(at)));
                let order: Vec<_> = ties.iter().collect();
                prop_assert!(order.windows(2).all(|pair| pair[0].0 != pair[1].0 && pair[0].1 <= pair[1].1));
            }
            let mut bytes = Vec::new();
            ties.encode(&mut bytes);
            let mut rest = &bytes[..];
            prop_assert_eq!(Ties::decode(&mut rest).unwrap(), ties);
            prop_assert!(rest.is_empty());
            for cut in 0..bytes.len() {
                prop_assert!(Ties::decode(&mut &bytes[..cut]).is_err());
            }
        }
    }
}
