//! A person as `profiles` tells of them: every feature, every score with its reasons, traits, consent and segments, as of their own time.

use super::ProfileFold;
use crate::domain::{KeyParts, Millis, SubjectKey};
use crate::features::{Profile, Window};
use crate::schema::profile::{CurrencyTotals, EventTotals, Features, FunnelStep, ProfileRecord, ReasonRecord, ScoreRecord};
use crate::stream::cache::Slot;
use crate::stream::outputs::Outputs;
use crate::stream::{Error, Topic};

impl ProfileFold {
    pub(super) fn write_profile(&mut self, slot: Slot, out: &mut Outputs) -> Result<(), Error> {
        let person = self.cache.get(slot);
        let Some(now) = person.profile.now().filter(|_| person.heirs.is_empty()) else { return Ok(()) };
        let key = self.cache.key(slot);
        let Some(KeyParts { subject, .. }) = SubjectKey::parts(key) else { return Ok(()) };
        let deployed = &self.deployed;
        let scores = deployed.topology.models.scores(&person.profile, now, &deployed.topology.rules);
        let segments = deployed.topology.segments.iter().zip(&deployed.bits);
        let record = ProfileRecord {
            subject,
            as_of: now.0,
            fold_version: super::FOLD_VERSION as i32,
            traits: &traits_json(&person.profile),
            consent: &person.consent.to_json(),
            features: Features(deployed.person(&person.profile).0.row(now, &scores).collect()),
            events: event_totals(&person.profile, now),
            currencies: currency_totals(&person.profile),
            funnels: self.funnel_steps(&person.profile, now),
            scores: scores.iter().map(score_record).collect(),
            segments: segments.filter(|(_, bit)| person.is_member(**bit)).map(|(segment, _)| &*segment.name).collect(),
        };
        out.push_to(Topic::Profiles, self.partition, key, now, &record)
    }

    fn funnel_steps<'a>(&'a self, profile: &Profile, now: Millis) -> Vec<FunnelStep<'a>> {
        let rules = &self.deployed.topology.rules;
        let step = |(funnel, steps): (&'a str, usize)| FunnelStep {
            funnel,
            step: profile.funnel_steps(funnel, now, rules) as i32,
            steps: steps as i32,
        };
        rules.funnels().map(step).collect()
    }
}

fn score_record<'s>(score: &'s crate::models::Score<'_>) -> ScoreRecord<'s> {
    let reasons = score.reasons.iter().map(|reason| ReasonRecord { feature: &reason.feature, effect: reason.effect });
    ScoreRecord {
        score: score.kind.as_str(),
        value: score.value,
        model: score.model,
        version: score.version as i32,
        reasons: reasons.collect(),
    }
}

fn event_totals(profile: &Profile, now: Millis) -> Vec<EventTotals<'_>> {
    let totals = profile.event_windows(now).map(|(event, total, within)| EventTotals {
        event,
        total: total as i64,
        d7: within[Window::Days7 as usize] as i64,
        d30: within[Window::Days30 as usize] as i64,
        d90: within[Window::Days90 as usize] as i64,
    });
    totals.collect()
}

fn currency_totals(profile: &Profile) -> Vec<CurrencyTotals<'_>> {
    let totals = profile.currencies().iter().map(|sum| CurrencyTotals {
        currency: sum.currency.as_str(),
        orders: sum.orders as i64,
        revenue: sum.revenue.0,
        refunds: sum.refunds.0,
    });
    totals.collect()
}

/// The traits as one JSON object; their values are JSON already.
fn traits_json(profile: &Profile) -> String {
    let mut json = String::from("{");
    for (name, value) in profile.traits() {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(&serde_json::to_string(name).expect("a string is JSON"));
        json.push(':');
        json.push_str(value);
    }
    json.push('}');
    json
}
