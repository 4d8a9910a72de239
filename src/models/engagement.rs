//! Engagement: how much the person does with us now. A sum of four saturating parts over 30 days, weights from the settings.

use super::settings::{self, Error, within};
use super::{Kind, Model, Score, additive};
use crate::domain::Millis;
use crate::features::{Field, FieldId, Profile, Rules, change};

const MODEL: &str = "engagement-hand-set";
const VERSION: u32 = 1;

#[derive(Debug, Clone)]
pub struct Engagement(settings::Engagement);

impl Engagement {
    pub fn new(settings: settings::Engagement) -> Result<Self, Error> {
        let settings::Engagement { acts_weight, acts_half, active_days_weight, active_days_half, reactions_weight, trend_weight } =
            settings;
        for (what, half) in [("engagement.acts_half", acts_half), ("engagement.active_days_half", active_days_half)] {
            within(what, half, (1e-6, 1e9), "above 0")?;
        }
        let weights = [acts_weight, active_days_weight, reactions_weight, trend_weight];
        for weight in weights {
            within("engagement weight", weight, (0.0, 1.0), "0 to 1")?;
        }
        let sum: f64 = weights.iter().sum();
        if (sum - 1.0).abs() > 1e-9 { Err(Error::Weights(sum)) } else { Ok(Self(settings)) }
    }
}

/// 0 at 0, half at `half`, towards 1 beyond.
fn saturate(value: f64, half: f64) -> f64 {
    value / (value + half)
}

impl Model for Engagement {
    fn score<'a>(&self, profile: &'a Profile, now: Millis, _rules: &Rules) -> Option<Score<'a>> {
        let weights = &self.0;
        let acts = profile.acts_within(30, now) as f64;
        let days = profile.active_days(30, now) as f64;
        let (reactions, sent) = profile.reactions_and_sent();
        let reacting = if sent == 0 { 0.0 } else { (reactions as f64 / sent as f64).min(1.0) };
        let weeks = profile.acts_by_week(now);
        let trend = if weeks == (0, 0) { 0.0 } else { (change(weeks) + 1.0) / 2.0 };
        let parts = [
            ("acts_30d", weights.acts_weight * saturate(acts, weights.acts_half)),
            (Field::ActiveDays30d.def().name, weights.active_days_weight * saturate(days, weights.active_days_half)),
            ("reactions / sent", weights.reactions_weight * reacting),
            (Field::ActivityChange7d.def().name, weights.trend_weight * trend),
        ];
        Some(additive(Kind::Engagement, MODEL, VERSION, &parts))
    }

    fn next_change(&self, profile: &Profile, after: Millis, rules: &Rules) -> Option<Millis> {
        let parts = [Field::ActiveDays30d, Field::ActivityChange7d];
        parts.into_iter().filter_map(|field| profile.next_change(&FieldId::Named(field), after, rules)).min()
    }
}
