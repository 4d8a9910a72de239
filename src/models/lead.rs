//! Lead score: 0.4 behaviour + 0.3 firmographic + 0.3 predictive; qualified above 0.7.
//!
//! Behaviour is engagement; firmographic is points for what traits say of the company; predictive joins intent with 1 - churn until a
//! learned model takes its place.

use super::settings::{self, Error, Firmographic, within};
use super::{Kind, Score, additive};
use crate::features::Profile;

const MODEL: &str = "lead-hand-set";
const VERSION: u32 = 1;
const BEHAVIOUR: f64 = 0.4;
const FIRMOGRAPHIC: f64 = 0.3;
const PREDICTIVE: f64 = 0.3;

/// A lead above this is qualified.
pub const QUALIFIED_ABOVE: f64 = 0.7;

#[derive(Debug, Clone)]
pub struct Lead(settings::Lead);

impl Lead {
    pub fn new(settings: settings::Lead) -> Result<Self, Error> {
        within("lead.intent_share", settings.intent_share, (0.0, 1.0), "0 to 1")?;
        for entry in &settings.firmographic {
            within("lead.firmographic points", entry.points, (0.0, 1.0), "0 to 1")?;
        }
        Ok(Self(settings))
    }

    /// From the other scores. Somebody who never acted has no churn, and only intent predicts.
    pub fn score<'a>(&self, profile: &Profile, engagement: f64, intent: f64, churn: Option<f64>) -> Score<'a> {
        let points: f64 = self.0.firmographic.iter().filter(|entry| holds(entry, profile)).map(|entry| entry.points).sum();
        let share = self.0.intent_share;
        let predictive = churn.map_or(intent * share, |churn| share * intent + (1.0 - share) * (1.0 - churn));
        let parts = [
            ("behaviour: engagement", BEHAVIOUR * engagement),
            ("firmographic: traits", FIRMOGRAPHIC * points.min(1.0)),
            ("predictive: intent and 1 - churn", PREDICTIVE * predictive),
        ];
        additive(Kind::Lead, MODEL, VERSION, &parts)
    }
}

fn holds(entry: &Firmographic, profile: &Profile) -> bool {
    let Some(text) = profile.trait_text(&entry.name) else { return false };
    let text = text.trim();
    if let Some(least) = entry.at_least {
        return text.parse::<f64>().is_ok_and(|number| number >= least);
    }
    entry.one_of.is_empty() || entry.one_of.iter().any(|wanted| wanted == text)
}
