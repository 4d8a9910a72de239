//! That effects were given up, for those who run the place: a fold of the journal's `notified` facts, and which of them to tell next. Pure,
//! with time passed in. It is kept with the pending effects (see [`super::table`]) until it was told, so that a crash loses nothing.
//!
//! Equal ones are told once, with how many they are; the next of the kind a minute later. One is told at a time. A tenant has so many
//! that differ; what is beyond counts as others of its.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::domain::{Millis, SubjectKey};
use crate::workflow::{Category, EffectId, RunId, Severity};

/// Between two of a kind.
const QUIET_MS: u64 = 60_000;
/// After one that could not be told, doubled each time.
const AGAIN_MS: u64 = 5_000;
const AGAIN_MS_MAX: u64 = 300_000;
/// That differ, of one tenant.
pub const KINDS_MAX: usize = 100;
const OTHERS: &str = "other effects were given up too";

/// What equal notices have in common, as a number.
pub type Kind = u128;

/// One, and how many equal ones there were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub subject: String,
    pub run: RunId,
    pub effect: EffectId,
    pub node: String,
    pub category: Category,
    pub severity: Severity,
    pub text: String,
    pub at: Millis,
    pub count: u64,
}

#[derive(Debug, Default)]
pub struct Notices {
    /// By kind and partition of the journal, since each partition's are stored with its offset.
    waiting: BTreeMap<(Kind, u32), Notice>,
    kinds: HashMap<Box<str>, BTreeSet<Kind>>,
    dirty: BTreeSet<(u32, Kind)>,
    quiet: HashMap<Kind, u64>,
    /// With whoever tells it, and how many of each partition that covers.
    telling: Option<(Kind, Vec<(u32, u64)>)>,
    again_at: u64,
    again_ms: u64,
}

impl Notice {
    pub fn tenant(&self) -> &str {
        self.subject.split_once('\0').map_or("", |(tenant, _)| tenant)
    }

    fn kind(&self) -> Kind {
        let mut hash = blake3::Hasher::new();
        let (category, severity) = (format!("{:?}", self.category), format!("{:?}", self.severity));
        for part in [self.tenant(), &self.node, &category, &severity, &self.text] {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        u128::from_be_bytes(*hash.finalize().as_bytes().first_chunk().expect("a digest is longer"))
    }
}

/// The subject as a notice carries it.
pub fn subject(key: &SubjectKey) -> String {
    String::from_utf8_lossy(key.as_bytes()).into_owned()
}

impl Notices {
    pub fn add(&mut self, partition: u32, mut notice: Notice) {
        let mut kind = notice.kind();
        let kinds = self.kinds.entry(notice.tenant().into()).or_default();
        if kinds.len() >= KINDS_MAX && !kinds.contains(&kind) {
            (notice.node, notice.text) = (String::new(), OTHERS.to_owned());
            kind = notice.kind();
        }
        kinds.insert(kind);
        self.dirty.insert((partition, kind));
        let count = notice.count;
        self.waiting.entry((kind, partition)).and_modify(|known| known.count += count).or_insert(notice);
    }

    /// As it was stored.
    pub fn stored(&mut self, partition: u32, kind: Kind, notice: Notice) {
        self.kinds.entry(notice.tenant().into()).or_default().insert(kind);
        self.waiting.insert((kind, partition), notice);
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next to be told; it is to come back to [`told`](Notices::told) or [`untold`](Notices::untold).
    pub fn next(&mut self, now: u64) -> Option<Notice> {
        if self.telling.is_some() || now < self.again_at {
            return None;
        }
        self.quiet.retain(|_, until| *until > now);
        let oldest = self.waiting.iter().filter(|((kind, _), _)| !self.quiet.contains_key(kind)).min_by_key(|(_, notice)| notice.at);
        let (kind, mut notice) = oldest.map(|((kind, _), notice)| (*kind, notice.clone()))?;
        let equal = self.waiting.range((kind, 0)..=(kind, u32::MAX));
        let counts: Vec<(u32, u64)> = equal.map(|((_, partition), notice)| (*partition, notice.count)).collect();
        notice.count = counts.iter().map(|(_, count)| count).sum();
        self.telling = Some((kind, counts));
        Some(notice)
    }

    pub fn told(&mut self, now: u64) {
        let Some((kind, counts)) = self.telling.take() else { return };
        (self.again_at, self.again_ms) = (0, 0);
        self.quiet.insert(kind, now + QUIET_MS);
        for (partition, count) in counts {
            let place = (kind, partition);
            let Some(notice) = self.waiting.get_mut(&place) else { continue };
            notice.count -= count;
            self.dirty.insert((partition, kind));
            if notice.count == 0 {
                let tenant: Box<str> = notice.tenant().into();
                self.waiting.remove(&place);
                self.forget(&tenant, kind);
            }
        }
    }

    fn forget(&mut self, tenant: &str, kind: Kind) {
        if self.waiting.range((kind, 0)..=(kind, u32::MAX)).next().is_some() {
            return;
        }
        if let Some(kinds) = self.kinds.get_mut(tenant) {
            kinds.remove(&kind);
            if kinds.is_empty() {
                self.kinds.remove(tenant);
            }
        }
    }

    /// It could not be told: it is tried again, later each time.
    pub fn untold(&mut self, now: u64) {
        self.telling = None;
        self.again_ms = (self.again_ms * 2).clamp(AGAIN_MS, AGAIN_MS_MAX);
        self.again_at = now + self.again_ms;
    }

    /// When [`next`](Notices::next) may have one, if only time is in the way.
    pub fn next_due(&self) -> Option<u64> {
        if self.telling.is_some() {
            return None;
        }
        let due = self.waiting.keys().map(|(kind, _)| self.quiet.get(kind).copied().unwrap_or(0)).min()?;
        Some(due.max(self.again_at))
    }

    /// What changed in a partition since it was last asked; `None` for what was told.
    pub fn take_dirty(&mut self, partition: u32) -> Vec<(Kind, Option<&Notice>)> {
        let kinds: Vec<Kind> = self.dirty.range((partition, 0)..=(partition, Kind::MAX)).map(|(_, kind)| *kind).collect();
        self.dirty.retain(|(other, _)| *other != partition);
        kinds.into_iter().map(|kind| (kind, self.waiting.get(&(kind, partition)))).collect()
    }

    /// That did not reach the disk.
    pub fn give_back(&mut self, partition: u32, kinds: impl IntoIterator<Item = Kind>) {
        self.dirty.extend(kinds.into_iter().map(|kind| (partition, kind)));
    }

    pub fn is_dirty(&self, partition: u32) -> bool {
        self.dirty.range((partition, 0)..=(partition, Kind::MAX)).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(tenant: &str, text: &str, at: i64) -> Notice {
        Notice {
            subject: format!("{tenant}\0u:ann"),
            run: RunId(1),
            effect: EffectId(at as u128),
            node: "send".into(),
            category: Category::Integration,
            severity: Severity::Critical,
            text: text.into(),
            at: Millis(at),
            count: 1,
        }
    }

    #[test]
    fn a_hundred_thousand_equal_ones_are_told_twice_with_their_number() {
        let mut notices = Notices::default();
        notices.add(0, notice("acme", "no credentials", 1));
        assert_eq!(notices.next(0).map(|notice| notice.count), Some(1), "the first at once");
        (0..100_000).for_each(|at| notices.add((at % 3) as u32, notice("acme", "no credentials", 2 + at)));
        assert_eq!(notices.next(1), None, "one at a time");
        notices.told(10);
        assert_eq!((notices.len(), notices.next(59_999), notices.next_due()), (3, None, Some(60_010)));
        assert_eq!(notices.next(60_010).map(|notice| notice.count), Some(100_000), "a minute later the rest");
        notices.told(60_020);
        assert!(notices.is_empty() && notices.next_due().is_none());
    }

    #[test]
    fn what_cannot_be_told_is_tried_again_later_each_time_and_not_forgotten() {
        let mut notices = Notices::default();
        notices.add(0, notice("acme", "a", 1));
        let mut now = 0;
        for wait in [5_000, 10_000, 20_000] {
            assert!(notices.next(now).is_some());
            notices.untold(now);
            assert_eq!((notices.next(now + wait - 1), notices.next_due()), (None, Some(now + wait)));
            now += wait;
        }
        assert!(notices.next(now).is_some());
    }

    #[test]
    fn a_tenant_whose_notices_all_differ_has_so_many_and_hides_no_others() {
        let mut notices = Notices::default();
        (0..10_000).for_each(|at| notices.add(0, notice("acme", &format!("no {at}"), at)));
        notices.add(0, notice("beta", "once", 20_000));
        assert_eq!(notices.len(), KINDS_MAX + 2);
        let mut told = Vec::new();
        while let Some(notice) = notices.next(1) {
            told.push((notice.tenant().to_owned(), notice.text, notice.count));
            notices.told(1);
        }
        let others = (10_000 - KINDS_MAX) as u64;
        assert!(told.contains(&("acme".to_owned(), OTHERS.to_owned(), others)) && told.contains(&("beta".to_owned(), "once".into(), 1)));
    }

    #[test]
    fn what_was_told_is_stored_as_told_and_what_was_not_as_waiting() {
        let mut notices = Notices::default();
        notices.add(4, notice("acme", "a", 1));
        let stored: Vec<(Kind, Option<Notice>)> = notices.take_dirty(4).into_iter().map(|(kind, notice)| (kind, notice.cloned())).collect();
        let mut after = Notices::default();
        after.stored(4, stored[0].0, stored[0].1.clone().unwrap());
        assert_eq!(after.next(0).unwrap(), notices.next(0).unwrap(), "after a crash it is told, under the same key");
        after.told(0);
        assert_eq!(after.take_dirty(4), [(stored[0].0, None)]);
        assert!(!after.is_dirty(4));
    }
}
