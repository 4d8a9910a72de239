//! What the scores promise: bounds, reasons that add up, rest between the times they name, and some people everyone would rank so.

use proptest::prelude::*;

use super::*;
use crate::domain::{DAY_MS, HOUR_MS};
use crate::features::{Field, FieldId, RawEvent, Value, extract};

const START: i64 = 1_700_000_000_000;

fn person(events: &[(&str, i64)], rules: &Rules) -> Profile {
    let mut profile = Profile::default();
    for (name, hours) in events {
        let raw = RawEvent { kind: "track", name, event_time: START + hours * HOUR_MS, ..RawEvent::default() };
        let _ = profile.observe(&extract(&raw, rules), rules);
    }
    profile
}

fn scores_of(profile: &Profile, day: i64) -> [f64; 4] {
    let (rules, models) = (Rules::default(), Models::default());
    let scores = models.scores(profile, Millis(START + day * DAY_MS), &rules);
    [Kind::Engagement, Kind::Intent, Kind::Churn, Kind::Lead]
        .map(|kind| scores.iter().find(|score| score.kind == kind).map_or(-1.0, |score| score.value))
}

#[test]
fn a_weekly_visitor_is_missed_sooner_than_a_monthly_one() {
    let rules = Rules::default();
    let every = |days: i64| -> Vec<(&str, i64)> { (0..12).map(|n| ("page", n * days * 24)).collect() };
    let weekly = person(&every(7), &rules);
    let monthly = person(&every(30), &rules);
    let after_last = |profile: &Profile, silent: i64| {
        let last = profile.seen().unwrap().1.since_ms(Millis(START)) / DAY_MS;
        scores_of(profile, last + silent)[2]
    };
    assert!(after_last(&weekly, 14) > 0.7);
    assert!(after_last(&monthly, 14) < 0.1);
    assert!(after_last(&monthly, 60) > 0.7);
    assert_eq!(after_last(&weekly, 0), 0.0);
}

#[test]
fn intent_rises_with_the_basket_and_fades_with_the_days() {
    let rules = Rules::default();
    let looks = person(&[("Product Viewed", 0), ("Product Viewed", 1)], &rules);
    let buys = person(&[("Product Viewed", 0), ("Product Added", 1), ("Checkout Started", 1)], &rules);
    assert!(scores_of(&buys, 0)[1] > scores_of(&looks, 0)[1]);
    assert!(scores_of(&buys, 6)[1] < scores_of(&buys, 0)[1]);
    assert_eq!(scores_of(&buys, 60)[1], 0.0);
}

#[test]
fn a_lead_is_the_weighted_sum_of_its_three_parts() {
    let rules = Rules::default();
    let mut profile = person(&[("Checkout Started", 0)], &rules);
    let traits = r#"{"industry":"retail","employees":500}"#;
    let group = RawEvent { kind: "group", event_time: START, properties: traits, ..RawEvent::default() };
    let _ = profile.observe(&extract(&group, &rules), &rules);
    let [engagement, intent, churn, lead] = scores_of(&profile, 0);
    let firmographic = 0.2 + 0.3 + 0.3;
    let expected = 0.4 * engagement + 0.3 * firmographic + 0.3 * (0.6 * intent + 0.4 * (1.0 - churn));
    assert!((lead - expected).abs() < 1e-12, "{lead} {expected}");
}

#[test]
fn somebody_who_never_acted_has_no_churn() {
    let rules = Rules::default();
    let mut profile = Profile::default();
    let identify = RawEvent { kind: "identify", event_time: START, properties: r#"{"company":"x"}"#, ..RawEvent::default() };
    let _ = profile.observe(&extract(&identify, &rules), &rules);
    let [engagement, intent, churn, lead] = scores_of(&profile, 0);
    assert_eq!([engagement, intent, churn], [0.0, 0.0, -1.0]);
    assert!((lead - 0.06).abs() < 1e-12, "0.3 * 0.2 for the known company");
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let check = |toml: &str, expected: &str| {
        let settings: Settings = toml::from_str(toml).unwrap();
        assert_eq!(Models::compile(&settings).unwrap_err().to_string(), expected);
    };
    check("engagement.trend_weight = 0.2", "scores.engagement: the weights sum to 1.05, must sum to 1");
    check("churn.prior_weight = 0.0", "scores.churn.prior_weight is 0, must be 0.1 to 1000");
    check("intent.half_life_days = nan", "scores.intent.half_life_days is NaN, must be 0.01 to 365");
    check(
        "[[intent.weights]]\nevent='a'\nweight=1.0\n[[intent.weights]]\nevent='a'\nweight=2.0",
        "scores.intent.weights lists \"a\" twice",
    );
    assert!(toml::from_str::<Settings>("lead.unknown = 1").is_err());
}

proptest! {
    #[test]
    fn scores_stay_within_bounds_and_rest_until_they_say(
        events in prop::collection::vec((0usize..5, 0i64..2000), 1..80),
        ahead in 0i64..9000,
    ) {
        let names = ["Product Viewed", "Product Added", "Product Removed", "page", "Email Sent"];
        let rules = Rules::default();
        let mut events: Vec<(&str, i64)> = events.into_iter().map(|(name, hours)| (names[name], hours)).collect();
        events.sort_by_key(|event| event.1);
        let profile = person(&events, &rules);
        let models = Models::default();
        let view = View { profile: &profile, rules: &rules, models: &models };
        let now = profile.now().unwrap() + ahead * HOUR_MS;
        for score in models.scores(&profile, now, &rules).iter() {
            prop_assert!((0.0..=1.0).contains(&score.value), "{score:?}");
            let sum: f64 = score.reasons.iter().map(|reason| reason.effect).sum();
            prop_assert!((sum - score.value).abs() < 1e-9, "{score:?}");
        }
        for field in [Field::Engagement, Field::Intent, Field::Churn, Field::Lead, Field::LeadQualified] {
            let field = FieldId::Named(field);
            let value = view.value(&field, now);
            let until = view.next_change(&field, now).unwrap_or(now + 1000 * DAY_MS);
            prop_assert!(until > now);
            for part in [1, 500, 1000] {
                prop_assert_eq!(view.value(&field, now + (until.since_ms(now) - 1) * part / 1000), value.clone());
            }
        }
        prop_assert_ne!(view.value(&FieldId::Named(Field::Lead), now), Value::Null);
    }
}
