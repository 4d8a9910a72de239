//! A person as expressions and records see them: features and scores under one look-up.

use super::settings::{Error, Settings};
use super::{Churn, Engagement, Intent, Lead, Model, QUALIFIED_ABOVE, Score};
use crate::domain::Millis;
use crate::features::{FIELDS, Field, FieldId, Groups, Profile, Rules, Value};

/// The models in force, compiled from their settings.
#[derive(Debug, Clone)]
pub struct Models {
    pub engagement: Engagement,
    pub intent: Intent,
    pub churn: Churn,
    pub lead: Lead,
}

impl Models {
    pub fn compile(settings: &Settings) -> Result<Models, Error> {
        Ok(Models {
            engagement: Engagement::new(settings.engagement.clone())?,
            intent: Intent::new(&settings.intent)?,
            churn: Churn::new(&settings.churn)?,
            lead: Lead::new(settings.lead.clone())?,
        })
    }

    /// All scores of a person at `now`.
    pub fn scores<'a>(&self, profile: &'a Profile, now: Millis, rules: &Rules) -> Scores<'a> {
        let engagement = self.engagement.score(profile, now, rules);
        let intent = self.intent.score(profile, now, rules);
        let churn = self.churn.score(profile, now, rules);
        let value = |score: &Option<Score<'_>>| score.as_ref().map(|score| score.value);
        let lead = self.lead.score(profile, value(&engagement).unwrap_or(0.0), value(&intent).unwrap_or(0.0), value(&churn));
        Scores { engagement, intent, churn, lead }
    }
}

impl Default for Models {
    fn default() -> Self {
        Models::compile(&Settings::default()).expect("the default settings are valid")
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Scores<'a> {
    pub engagement: Option<Score<'a>>,
    pub intent: Option<Score<'a>>,
    pub churn: Option<Score<'a>>,
    pub lead: Score<'a>,
}

impl<'a> Scores<'a> {
    pub fn iter(&self) -> impl Iterator<Item = &Score<'a>> {
        [self.engagement.as_ref(), self.intent.as_ref(), self.churn.as_ref(), Some(&self.lead)].into_iter().flatten()
    }

    pub fn qualified(&self) -> bool {
        self.lead.value > QUALIFIED_ABOVE
    }

    /// The value of a score's field; `Null` for fields that are no scores.
    pub fn value<'v>(&self, field: Field) -> Value<'v> {
        let float = |score: &Option<Score<'_>>| score.as_ref().map_or(Value::Null, |score| Value::Float(score.value));
        match field {
            Field::Engagement => float(&self.engagement),
            Field::Intent => float(&self.intent),
            Field::Churn => float(&self.churn),
            Field::Lead => Value::Float(self.lead.value),
            Field::LeadQualified => Value::Bool(self.qualified()),
            _ => Value::Null,
        }
    }
}

/// One person under the rules and models in force.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub profile: &'a Profile,
    pub rules: &'a Rules,
    pub models: &'a Models,
}

impl<'a> View<'a> {
    /// Any field's value at `now`.
    pub fn value(&self, field: &FieldId, now: Millis) -> Value<'a> {
        let float = |value: Option<f64>| value.map_or(Value::Null, Value::Float);
        let FieldId::Named(named) = field else { return self.profile.value(field, now, self.rules) };
        match named {
            Field::Engagement => float(self.models.engagement.value(self.profile, now, self.rules)),
            Field::Intent => float(self.models.intent.value(self.profile, now, self.rules)),
            Field::Churn => float(self.models.churn.value(self.profile, now, self.rules)),
            Field::Lead | Field::LeadQualified => self.models.scores(self.profile, now, self.rules).value(*named),
            _ => self.profile.value(field, now, self.rules),
        }
    }

    /// [`value`](View::value) and [`next_change`](View::next_change) at once.
    pub fn value_and_change(&self, field: &FieldId, now: Millis) -> (Value<'a>, Option<Millis>) {
        match field {
            FieldId::Named(_) => (self.value(field, now), self.next_change(field, now)),
            _ => self.profile.value_and_change(field, now, self.rules),
        }
    }

    /// Every value of [`FIELDS`] in its order, given the scores at the same time.
    pub fn row(&self, now: Millis, scores: &Scores<'_>) -> impl Iterator<Item = Value<'a>> {
        let features = self.profile.row(now, self.rules);
        FIELDS.iter().zip(features).map(move |(def, value)| if def.group == Groups::SCORES { scores.value(def.field) } else { value })
    }

    /// The earliest time after `after` at which the field's value can differ without new events; `None` for who is dormant by then.
    pub fn next_change(&self, field: &FieldId, after: Millis) -> Option<Millis> {
        let FieldId::Named(named) = field else { return self.profile.next_change(field, after, self.rules) };
        let Models { engagement, intent, churn, .. } = self.models;
        let of = |model: &dyn Model| model.next_change(self.profile, after, self.rules);
        match named {
            Field::Engagement => of(engagement),
            Field::Intent => of(intent),
            Field::Churn => of(churn),
            Field::Lead | Field::LeadQualified => [of(engagement), of(intent), of(churn)].into_iter().flatten().min(),
            _ => self.profile.next_change(field, after, self.rules),
        }
    }
}
