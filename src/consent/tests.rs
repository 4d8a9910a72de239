//! What is read from which client's event, and that the order of answers does not matter.

use proptest::prelude::*;

use super::*;
use crate::domain::Millis;

fn said<'a>(kind: &'a str, name: &'a str, properties: &'a str, context: &'a str) -> Said<'a> {
    Said { kind, name, properties, context }
}

/// `purpose/channel=yes` for each answer.
#[track_caller]
fn check(said: Said<'_>, expected: &[&str]) {
    let found = stated(said);
    let shown: Vec<_> = found.iter().map(|it| format!("{}/{}={}", it.purpose, it.channel, if it.granted { "yes" } else { "no" })).collect();
    assert_eq!(shown, expected);
}

#[test]
fn segments_and_rudderstacks_contexts_are_read_from_any_event() {
    check(
        said("page", "Home", "", r#"{"consent":{"categoryPreferences":{"Advertising":true,"Analytics":false,"Odd":null}}}"#),
        &["Advertising/=yes", "Analytics/=no"],
    );
    check(
        said("track", "X", "", r#"{"consentManagement":{"allowedConsentIds":["C1"],"deniedConsentIds":["C2"],"provider":"oneTrust"}}"#),
        &["C1/=yes", "C2/=no"],
    );
}

#[test]
fn traits_and_consent_events_name_purposes_and_channels() {
    check(
        said(
            "identify",
            "identify",
            r#"{"consent":{"email":{"newsletter":"granted"},"marketing":1,"research":{"phone":false},"sms":"no"}}"#,
            "",
        ),
        &["newsletter/email=yes", "marketing/=yes", "research/phone=no", "/sms=no"],
    );
    check(
        said("track", "Consent Updated", r#"{"purpose":"marketing","channel":"email","status":"withdrawn"}"#, ""),
        &["marketing/email=no"],
    );
    check(said("track", "Unsubscribed", "", ""), &["marketing/email=no"]);
}

#[test]
fn what_says_nothing_about_consent_is_left_alone() {
    check(said("track", "Order Completed", r#"{"consent":true}"#, ""), &[]);
    check(said("track", "Consent Updated", r#"{"granted":true}"#, r#"{"page":{}}"#), &[]);
    check(said("identify", "identify", r#"{"consent":"maybe"}"#, r#"{"consent":{"categoryPreferences":[]}}"#), &[]);
}

#[test]
fn a_later_yes_to_one_purpose_on_one_channel_is_an_exception_from_a_general_no() {
    let mut consent = Consent::default();
    consent.set("", "", false, Millis(10));
    consent.set("marketing", "", false, Millis(20));
    assert_eq!(consent.status("marketing", "email"), Status::Denied);
    consent.set("marketing", "email", true, Millis(20));
    assert_eq!(consent.status("marketing", "email"), Status::Denied, "of one time the denial stands");
    consent.set("marketing", "email", true, Millis(21));
    let all = |consent: &Consent| [("marketing", "email"), ("marketing", "sms"), ("news", "email")].map(|(p, c)| consent.status(p, c));
    assert_eq!(all(&consent), [Status::Granted, Status::Denied, Status::Denied], "and for nothing else");
    assert_eq!(all(&Consent::from_json(&serde_json::from_str(&consent.to_json()).unwrap())), all(&consent));
    consent.set("marketing", "", true, Millis(22));
    consent.set("marketing", "", false, Millis(30));
    assert_eq!(consent.status("marketing", "email"), Status::Denied, "a general no that comes after it ends it");
}

#[test]
fn a_denial_stands_until_it_is_granted_at_its_own_level() {
    let mut consent = Consent::default();
    assert_eq!(consent.status("marketing", "email"), Status::Unknown);
    consent.set("marketing", "", true, Millis(1));
    assert_eq!(consent.status("Marketing", "email"), Status::Granted);
    consent.set("marketing", "email", false, Millis(2));
    consent.set("marketing", "", true, Millis(3));
    assert_eq!(consent.status("marketing", "email"), Status::Denied);
    assert_eq!(consent.status("marketing", "sms"), Status::Granted);
    consent.set("marketing", "email", true, Millis(4));
    assert_eq!(consent.status("marketing", "email"), Status::Granted);
    consent.set("", "email", false, Millis(5));
    assert_eq!(consent.status("newsletter", "EMAIL"), Status::Denied);
}

#[test]
fn a_late_answer_changes_nothing_and_json_tells_both_levels() {
    let mut consent = Consent::default();
    assert!(consent.observe(said("track", "Unsubscribed", "", ""), Millis(2_000)));
    assert!(!consent.set("marketing", "email", true, Millis(1_000)));
    consent.set("analytics", "", true, Millis(0));
    let json = r#"{"analytics":{"*":{"at":"1970-01-01T00:00:00.000Z","granted":true}},"marketing":{"email":{"at":"1970-01-01T00:00:02.000Z","granted":false}}}"#;
    assert_eq!(consent.to_json(), json);
    assert_eq!(Consent::default().to_json(), "");
}

#[test]
fn no_number_of_answers_makes_a_denial_forgotten() {
    let mut consent = Consent::default();
    consent.set("marketing", "email", false, Millis(1));
    for banner in 0..200 {
        consent.set(&format!("grant{banner}"), "", true, Millis(2));
    }
    assert_eq!(consent.status("marketing", "email"), Status::Denied, "grants do not push it out");
    assert_eq!(consent.status("newsletter", "email"), Status::Unknown);
    for banner in 0..200 {
        consent.set(&format!("denial{banner}"), "", false, Millis(3));
    }
    assert_eq!(consent.status("marketing", "email"), Status::Denied);
    assert_eq!(consent.status("newsletter", "email"), Status::Denied, "more denials than are kept are one of everything");
    consent.set("", "", true, Millis(4));
    assert_eq!(consent.status("newsletter", "email"), Status::Granted, "which a grant of everything ends");
}

type Answer = (u8, u8, bool, i8);

fn answers() -> impl Strategy<Value = Vec<Answer>> {
    proptest::collection::vec((0u8..30, 0u8..4, any::<bool>(), any::<i8>()), 0..120)
}

fn folded(answers: &[Answer]) -> Consent {
    let mut consent = Consent::default();
    for (purpose, channel, granted, at) in answers {
        let channel = if *channel == 0 { String::new() } else { format!("c{channel}") };
        consent.set(&format!("p{purpose}"), &channel, *granted, Millis(i64::from(*at)));
    }
    consent
}

proptest! {
    #[test]
    fn any_order_gives_the_same_state(all in answers(), by in any::<prop::sample::Index>()) {
        let mut turned = all.clone();
        if !turned.is_empty() {
            turned.rotate_left(by.index(all.len()));
            turned.reverse();
        }
        prop_assert_eq!(folded(&all), folded(&turned));
    }

    #[test]
    fn absorbing_commutes_with_folding_and_twice_is_once(all in answers(), cut in any::<prop::sample::Index>()) {
        let (left, right) = all.split_at(if all.is_empty() { 0 } else { cut.index(all.len()) });
        let (mut a, mut b) = (folded(left), folded(right));
        let (a_before, b_before) = (a.clone(), b.clone());
        a.absorb(&b_before);
        b.absorb(&a_before);
        prop_assert_eq!(&a, &folded(&all));
        prop_assert_eq!(&a, &b);
        prop_assert!(!a.absorb(&b_before));
    }

    #[test]
    fn an_answers_time_never_goes_back(all in answers()) {
        for upto in 0..all.len() {
            let (before, after) = (folded(&all[..upto]), folded(&all[..upto + 1]));
            let mut joined = before.clone();
            joined.absorb(&after);
            prop_assert_eq!(joined, after);
        }
    }

    #[test]
    fn bytes_decode_to_the_same_state(all in answers()) {
        let consent = folded(&all);
        let mut bytes = Vec::new();
        consent.encode(&mut bytes);
        prop_assert_eq!(Consent::decode(&bytes), Ok(consent));
        for cut in 1..bytes.len() {
            prop_assert!(Consent::decode(&bytes[..cut]).is_err());
        }
    }
}
