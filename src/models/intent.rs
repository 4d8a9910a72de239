//! Intent: how close to a purchase the last 50 acts look. Each act has its type's weight, halved every `half_life_days`; their sum `s`
//! gives `s / (s + half)`.
//!
//! Age counts in whole UTC days, so that the score rests within a day. Reasons are per event type: its share of the sum, of the score.

use std::borrow::Cow;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::settings::{self, Error, within};
use super::{Kind, Model, Reason, Score, strongest};
use crate::domain::{DAY_MS, Millis};
use crate::features::{EventName, Profile, Rules};

const MODEL: &str = "intent-hand-set";
const VERSION: u32 = 1;
/// After this many half-lives an act weighs nothing: a four-thousandth.
const HALF_LIVES: f64 = 12.0;

#[derive(Debug, Clone)]
pub struct Intent {
    weights: FxHashMap<EventName, f64>,
    /// By age in days.
    decay: Vec<f64>,
    half: f64,
}

impl Intent {
    pub fn new(settings: &settings::Intent) -> Result<Self, Error> {
        let half_life = within("intent.half_life_days", settings.half_life_days, (0.01, 365.0), "0.01 to 365")?;
        let half = within("intent.half", settings.half, (1e-6, 1e9), "above 0")?;
        let mut weights = FxHashMap::default();
        for entry in &settings.weights {
            within("intent weight", entry.weight, (-1e6, 1e6), "-1000000 to 1000000")?;
            if weights.insert(entry.event.as_str().into(), entry.weight).is_some() {
                return Err(Error::Twice(entry.event.clone()));
            }
        }
        let days = libm::ceil(half_life * HALF_LIVES) as usize;
        let decay = (0..=days).map(|days| libm::exp2(-(days as f64) / half_life)).collect();
        Ok(Self { weights, decay, half })
    }

    /// The weight of each of the person's event types.
    fn type_weights(&self, profile: &Profile) -> SmallVec<[f64; 36]> {
        profile.event_names().map(|name| self.weights.get(name).copied().unwrap_or(0.0)).collect()
    }

    /// What the acts of each of the person's event types weigh at `now`, and together.
    fn parts(&self, profile: &Profile, now: Millis) -> (SmallVec<[f64; 36]>, f64) {
        let weights = self.type_weights(profile);
        let today = now.0.div_euclid(DAY_MS);
        let mut by_type: SmallVec<[f64; 36]> = SmallVec::from_elem(0.0, weights.len());
        for (time, slot) in profile.recent_slots() {
            by_type[slot] += weights[slot] * self.decay(time, today);
        }
        let sum = by_type.iter().sum();
        (by_type, sum)
    }

    fn of_sum(&self, sum: f64) -> f64 {
        if sum > 0.0 { sum / (sum + self.half) } else { 0.0 }
    }

    fn decay(&self, time: Millis, today: i64) -> f64 {
        let age = (today - time.0.div_euclid(DAY_MS)).max(0);
        usize::try_from(age).ok().and_then(|age| self.decay.get(age)).copied().unwrap_or(0.0)
    }
}

impl Model for Intent {
    fn score<'a>(&self, profile: &'a Profile, now: Millis, _rules: &Rules) -> Option<Score<'a>> {
        let (by_type, sum) = self.parts(profile, now);
        let value = self.of_sum(sum);
        let mut reasons = SmallVec::new();
        if sum > 0.0 {
            for ((name, _), part) in profile.event_types().zip(&by_type) {
                if *part != 0.0 {
                    reasons.push(Reason { feature: Cow::Borrowed(name), effect: value * (part / sum) });
                }
            }
        }
        Some(Score { kind: Kind::Intent, value, model: MODEL, version: VERSION, reasons: strongest(reasons) })
    }

    fn value(&self, profile: &Profile, now: Millis, _rules: &Rules) -> Option<f64> {
        Some(self.of_sum(self.parts(profile, now).1))
    }

    /// The next UTC midnight, while an act still weighs something.
    fn next_change(&self, profile: &Profile, after: Millis, _rules: &Rules) -> Option<Millis> {
        let weights = self.type_weights(profile);
        let today = after.0.div_euclid(DAY_MS);
        let weighs = profile.recent_slots().rev().any(|(time, slot)| weights[slot] != 0.0 && self.decay(time, today) > 0.0);
        weighs.then_some(Millis((today + 1) * DAY_MS))
    }
}
