//! The weights and priors of the scores, as a topology embeds them.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub engagement: Engagement,
    pub intent: Intent,
    pub churn: Churn,
    pub lead: Lead,
}

/// Weights sum to 1. A count is worth half its weight at its `_half` value and nears the whole beyond.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engagement {
    pub acts_weight: f64,
    /// Acts in 30 days.
    pub acts_half: f64,
    pub active_days_weight: f64,
    /// Active days in 30 days.
    pub active_days_half: f64,
    pub reactions_weight: f64,
    pub trend_weight: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Intent {
    pub weights: Vec<EventWeight>,
    /// An act's weight halves in this many days.
    pub half_life_days: f64,
    /// The sum of weights at which intent is 0.5.
    pub half: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventWeight {
    pub event: String,
    /// Negative for what speaks against a purchase soon.
    pub weight: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Churn {
    /// The prior: half of all pauses between visits are shorter.
    pub prior_median_days: f64,
    /// The prior counts as this many pauses of the person's own.
    pub prior_weight: f64,
    /// A silence is taken as no longer than this; beyond, the score rests.
    pub horizon_days: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lead {
    /// Points for what is known of the person's company; their sum is cut at 1.
    pub firmographic: Vec<Firmographic>,
    /// The share of intent in the predictive part; the rest is 1 - churn.
    pub intent_share: f64,
}

/// Points for a trait: one of some texts, or a number of at least so much; with neither, for being known at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Firmographic {
    #[serde(rename = "trait")]
    pub name: String,
    #[serde(default)]
    pub one_of: Vec<String>,
    #[serde(default)]
    pub at_least: Option<f64>,
    pub points: f64,
}

impl Default for Engagement {
    fn default() -> Self {
        Self {
            acts_weight: 0.35,
            acts_half: 20.0,
            active_days_weight: 0.35,
            active_days_half: 4.0,
            reactions_weight: 0.15,
            trend_weight: 0.15,
        }
    }
}

impl Default for Intent {
    fn default() -> Self {
        let weights = [
            ("Product Viewed", 1.0),
            ("Products Searched", 1.0),
            ("Product Added to Wishlist", 2.0),
            ("Product Added", 4.0),
            ("Product Removed", -2.0),
            ("Cart Viewed", 2.0),
            ("Checkout Started", 6.0),
            ("Payment Info Entered", 8.0),
            ("Order Completed", 2.0),
            ("page", 0.25),
            ("screen", 0.25),
        ];
        let weights = weights.map(|(event, weight)| EventWeight { event: event.to_owned(), weight }).to_vec();
        Self { weights, half_life_days: 3.0, half: 10.0 }
    }
}

impl Default for Churn {
    fn default() -> Self {
        Self { prior_median_days: 30.0, prior_weight: 3.0, horizon_days: 365 }
    }
}

impl Default for Lead {
    fn default() -> Self {
        let known = |name: &str, points: f64| Firmographic { name: name.to_owned(), one_of: Vec::new(), at_least: None, points };
        let sized = |least: f64, points: f64| Firmographic { at_least: Some(least), ..known("group.employees", points) };
        let firmographic = vec![known("company", 0.2), known("group.industry", 0.2), sized(10.0, 0.3), sized(200.0, 0.3)];
        Self { firmographic, intent_share: 0.6 }
    }
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("scores.{what} is {value}, must be {must}")]
    Range { what: &'static str, value: f64, must: &'static str },
    #[error("scores.engagement: the weights sum to {0}, must sum to 1")]
    Weights(f64),
    #[error("scores.intent.weights lists {0:?} twice")]
    Twice(String),
}

/// `value` if it is a number within the bounds.
pub(super) fn within(what: &'static str, value: f64, (least, most): (f64, f64), must: &'static str) -> Result<f64, Error> {
    if value >= least && value <= most { Ok(value) } else { Err(Error::Range { what, value, must }) }
}
