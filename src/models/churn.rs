//! Churn, first version: where the present silence falls among the person's own pauses between visits.
//!
//! With `n` pauses known, `k` of them shorter than the silence, and a prior of weight `w` whose pauses halve every `prior_median_days`:
//! `(k + w * prior(silence)) / (n + w)`. Silence and pauses count in whole days. Everyone's silence grows for ever, so beyond
//! `horizon_days` it is taken as that long and the score rests.

use super::settings::{self, Error, within};
use super::{Kind, Model, Score, additive};
use crate::domain::{DAY_MS, Millis};
use crate::features::{Field, Profile, Rules};

const MODEL: &str = "churn-own-pauses";
const VERSION: u32 = 1;

#[derive(Debug, Clone)]
pub struct Churn {
    prior_median_days: f64,
    prior_weight: f64,
    horizon_days: i64,
}

impl Churn {
    pub fn new(settings: &settings::Churn) -> Result<Self, Error> {
        Ok(Self {
            prior_median_days: within("churn.prior_median_days", settings.prior_median_days, (0.1, 3650.0), "0.1 to 3650")?,
            prior_weight: within("churn.prior_weight", settings.prior_weight, (0.1, 1000.0), "0.1 to 1000")?,
            horizon_days: within("churn.horizon_days", f64::from(settings.horizon_days), (1.0, 3650.0), "1 to 3650")? as i64,
        })
    }
}

impl Model for Churn {
    /// `None` before the first act.
    fn score<'a>(&self, profile: &'a Profile, now: Millis, _rules: &Rules) -> Option<Score<'a>> {
        let (_, last) = profile.seen()?;
        let silence = (now.since_ms(last).max(0) / DAY_MS).min(self.horizon_days);
        let pauses = profile.sessions().windows(2).map(|pair| pair[1].start.since_ms(pair[0].end) / DAY_MS);
        let (mut known, mut shorter) = (0u32, 0u32);
        for pause in pauses {
            known += 1;
            shorter += u32::from(pause < silence);
        }
        let prior = 1.0 - libm::exp2(-(silence as f64) / self.prior_median_days);
        let weight = f64::from(known) + self.prior_weight;
        let parts = [
            ("own pauses shorter than the silence", f64::from(shorter) / weight),
            (Field::DaysSinceSeen.def().name, self.prior_weight * prior / weight),
        ];
        Some(additive(Kind::Churn, MODEL, VERSION, &parts))
    }

    fn next_change(&self, profile: &Profile, after: Millis, _rules: &Rules) -> Option<Millis> {
        let (_, last) = profile.seen()?;
        let silence = after.since_ms(last).max(-1).div_euclid(DAY_MS);
        (silence < self.horizon_days).then(|| last + (silence + 1) * DAY_MS)
    }
}
