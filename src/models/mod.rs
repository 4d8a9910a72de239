//! Scores: numbers from 0 to 1 about a person, with the model that gave them and the reasons.
//!
//! The models here are hand-set first versions: their weights and shapes were chosen, not learned, and no claim is made that 0.7 is a
//! probability. Learned ones come behind the same trait. Pure and deterministic: profile, time and settings in, score out.

mod churn;
mod engagement;
mod intent;
mod lead;
pub mod settings;
mod view;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::domain::Millis;
use crate::features::{Profile, Rules};

pub use churn::Churn;
pub use engagement::Engagement;
pub use intent::Intent;
pub use lead::{Lead, QUALIFIED_ABOVE};
pub use settings::{Error, Settings};
pub use view::{Models, Scores, View};

/// Reasons given with a score, the strongest first.
pub const REASONS_MAX: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Engagement,
    Intent,
    Churn,
    Lead,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Engagement, Kind::Intent, Kind::Churn, Kind::Lead];

    /// The score's field name.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Engagement => "engagement",
            Kind::Intent => "intent",
            Kind::Churn => "churn",
            Kind::Lead => "lead",
        }
    }
}

/// What moved a score, and by how much. The effects of an additive model sum to its score.
#[derive(Debug, Clone, PartialEq)]
pub struct Reason<'a> {
    /// A field's name or, for intent, an event's.
    pub feature: Cow<'a, str>,
    pub effect: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Score<'a> {
    pub kind: Kind,
    /// 0 to 1.
    pub value: f64,
    /// The model's name and version: with another of either, scores are not comparable.
    pub model: &'static str,
    pub version: u32,
    pub reasons: SmallVec<[Reason<'a>; REASONS_MAX]>,
}

/// Something that scores a person.
pub trait Model {
    /// `None` where it has nothing to say about this person yet.
    fn score<'a>(&self, profile: &'a Profile, now: Millis, rules: &Rules) -> Option<Score<'a>>;

    /// The score's value alone, for models that come to it without their reasons.
    fn value(&self, profile: &Profile, now: Millis, rules: &Rules) -> Option<f64> {
        self.score(profile, now, rules).map(|score| score.value)
    }

    /// The earliest time after `after` at which the score can differ without new events, until it no longer does.
    fn next_change(&self, profile: &Profile, after: Millis, rules: &Rules) -> Option<Millis>;
}

/// A score whose value is the sum of its parts.
fn additive<'a>(kind: Kind, model: &'static str, version: u32, parts: &[(&'static str, f64)]) -> Score<'a> {
    let value = parts.iter().map(|(_, effect)| effect).sum();
    let reasons = parts.iter().map(|(feature, effect)| Reason { feature: Cow::Borrowed(*feature), effect: *effect }).collect();
    Score { kind, value, model, version, reasons: strongest(reasons) }
}

/// By strength, then by name; a part without effect is no reason.
fn strongest(mut reasons: SmallVec<[Reason<'_>; REASONS_MAX]>) -> SmallVec<[Reason<'_>; REASONS_MAX]> {
    reasons.retain(|reason| reason.effect != 0.0);
    reasons.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()).then_with(|| a.feature.cmp(&b.feature)));
    reasons.truncate(REASONS_MAX);
    reasons
}
