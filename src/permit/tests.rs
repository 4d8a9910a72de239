//! One policy, one person, and what is answered when.

use super::*;
use crate::consent::Consent;
use crate::domain::{DAY_MS, Duration, HOUR_MS, MINUTE_MS, Millis};

const POLICY: &str = r#"
    zone = "Europe/Berlin"
    permit_valid = "60s"

    [[purpose]]
    name = "marketing"
    basis = "opt_in"

    [[purpose]]
    name = "product"
    basis = "opt_out"

    [[purpose]]
    name = "receipts"
    basis = "transactional"

    [[cap]]
    name = "weekly"
    window = "7d"
    limit = 3
    kept_for_high = 1

    [[cap]]
    name = "daily marketing mail"
    window = "24h"
    limit = 1
    channel = "email"
    purpose = "marketing"

    [[quiet]]
    from = "21:00"
    to = "08:00"
"#;

pub(super) fn key(n: u8) -> EffectKey {
    EffectKey([n; 16])
}

/// A Wednesday, noon in Berlin.
fn noon() -> Millis {
    Millis::parse("2026-06-03T10:00:00Z").unwrap()
}

struct World {
    policy: Policy,
    ledger: Ledger,
    consent: Consent,
    suppressions: Suppressions,
    block: Option<Block>,
    zone: Option<&'static str>,
    not_after: Option<Millis>,
    priority: Priority,
    executor: Executor,
}

fn world() -> World {
    let mut consent = Consent::default();
    consent.set("marketing", "email", true, Millis(1));
    World {
        policy: toml::from_str(POLICY).unwrap(),
        ledger: Ledger::default(),
        consent,
        suppressions: Suppressions::default(),
        block: None,
        zone: None,
        not_after: None,
        priority: Priority::Normal,
        executor: Executor([1; 16]),
    }
}

fn address() -> AddressKey {
    AddressKey::of("email", "ada@example.com")
}

impl World {
    fn ask(&self, n: u8, purpose: &str, at: Millis) -> Decision {
        let standing = Standing {
            consent: &self.consent,
            suppressions: &self.suppressions,
            address: Some(address()),
            zone: self.zone,
            block: self.block,
        };
        let request =
            Request { key: key(n), executor: self.executor, channel: "email", purpose, priority: self.priority, not_after: self.not_after };
        decide(&self.policy, &self.ledger, &standing, &request, at)
    }

    #[track_caller]
    fn grant(&mut self, n: u8, purpose: &str, at: Millis) -> Grant {
        match self.ask(n, purpose, at) {
            Decision::Granted(grant) => {
                self.ledger.granted(&grant);
                grant
            }
            Decision::Refused(refusal) => panic!("refused: {refusal}"),
        }
    }

    #[track_caller]
    fn refused(&self, n: u8, purpose: &str, at: Millis) -> (&'static str, Option<Millis>) {
        match self.ask(n, purpose, at) {
            Decision::Refused(refusal) => (refusal.reason.code(), refusal.retry_at),
            Decision::Granted(grant) => panic!("granted {grant:?}"),
        }
    }
}

#[test]
fn the_policy_of_these_tests_is_sound() {
    assert_eq!(world().policy.check(), []);
}

#[test]
fn a_grant_is_a_permit_for_its_executor_until_its_end() {
    let grant = world().grant(1, "marketing", noon());
    assert_eq!((grant.key(), grant.at(), grant.until()), (key(1), noon(), noon() + MINUTE_MS));
    let (me, other) = (Executor([1; 16]), Executor([2; 16]));
    assert_eq!(grant.redeem(other, Duration::ZERO).unwrap_err(), Unusable::OfAnother);
    assert_eq!(grant.redeem(me, Duration::from_secs(60)).unwrap_err(), Unusable::Expired);
    let permit = grant.redeem(me, Duration::from_secs(20)).unwrap();
    assert_eq!((permit.key(), permit.executor(), permit.left()), (key(1), me, Duration::from_secs(40)));
}

#[test]
fn consent_is_asked_as_the_purpose_needs() {
    let mut world = world();
    assert_eq!(world.refused(1, "nothing", noon()).0, "unknown_purpose");
    world.grant(1, "product", noon());
    world.consent = Consent::default();
    assert_eq!(world.refused(2, "marketing", noon()), ("consent_missing", None));
    world.consent.set("", "email", false, Millis(2));
    assert_eq!(world.refused(2, "marketing", noon()), ("consent_denied", None));
    assert_eq!(world.refused(2, "product", noon()), ("consent_denied", None));
    world.grant(2, "receipts", noon());
}

#[test]
fn a_suppressed_address_gets_nothing_until_it_is_lifted() {
    let mut world = world();
    world.suppressions.suppress(address(), Cause::SoftBounces, noon(), Some(noon() + HOUR_MS));
    assert_eq!(world.refused(1, "receipts", noon()), ("suppressed", Some(noon() + HOUR_MS)));
    world.grant(1, "receipts", noon() + HOUR_MS);
    world.suppressions.suppress(AddressKey::of("email", " ADA@Example.com "), Cause::Complaint, noon(), None);
    assert_eq!(world.refused(2, "receipts", noon() + DAY_MS), ("suppressed", None));
    world.suppressions.lift(address(), noon() + 1);
    world.grant(2, "receipts", noon() + DAY_MS);
}

#[test]
fn a_shorter_suppression_after_a_lifted_longer_one_holds() {
    let mut world = world();
    let of = |world: &World, at| world.suppressions.of(address(), at);
    world.suppressions.suppress(address(), Cause::Manual, noon(), Some(noon() + 3 * DAY_MS));
    world.suppressions.lift(address(), noon() + 1);
    world.suppressions.suppress(address(), Cause::Manual, noon() + 2, Some(noon() + DAY_MS));
    assert_eq!(of(&world, noon() + 3), Some((Cause::Manual, Some(noon() + DAY_MS))));
    // One of another cause that is longer holds beside it.
    world.suppressions.suppress(address(), Cause::SoftBounces, noon() + 1, Some(noon() + 2 * DAY_MS));
    assert_eq!(of(&world, noon() + 3), Some((Cause::SoftBounces, Some(noon() + 2 * DAY_MS))));
    world.suppressions.lift(address(), noon() + 2);
    assert_eq!(of(&world, noon() + 3), Some((Cause::Manual, Some(noon() + DAY_MS))));
}

#[test]
fn what_blocks_a_person_blocks_transactional_messages_too() {
    let mut world = world();
    for block in [Block::Merging, Block::Restored, Block::Paused, Block::Erased] {
        world.block = Some(block);
        assert_eq!(world.refused(1, "receipts", noon()), ("blocked", None));
    }
}

#[test]
fn a_cap_says_when_it_has_a_place_again() {
    let mut world = world();
    world.grant(1, "marketing", noon());
    let until = noon() + MINUTE_MS;
    let (code, retry) = world.refused(2, "marketing", noon() + HOUR_MS);
    assert_eq!((code, retry), ("capped", Some(until + DAY_MS)), "an open permit counts to its end");
    world.ledger.used(key(1), "email", "marketing", noon() + 2_000);
    let again = noon() + 2_000 + DAY_MS;
    assert_eq!(world.refused(2, "marketing", noon() + HOUR_MS).1, Some(again));
    assert_eq!(world.refused(2, "marketing", again - 1), ("capped", Some(again)));
    world.grant(2, "marketing", again);
}

#[test]
fn a_permit_known_unused_frees_its_place_and_a_used_one_does_not() {
    let mut world = world();
    world.grant(1, "marketing", noon());
    assert!(world.ledger.unused(key(1)));
    world.grant(2, "marketing", noon());
    world.ledger.used(key(2), "email", "marketing", noon());
    assert!(!world.ledger.unused(key(2)));
    assert_eq!(world.refused(3, "marketing", noon()).0, "capped");
}

#[test]
fn a_send_that_comes_to_light_late_counts() {
    let mut world = world();
    world.grant(1, "marketing", noon());
    world.ledger.unused(key(1));
    world.ledger.used(key(1), "email", "marketing", noon() + 5_000);
    assert_eq!(world.refused(2, "marketing", noon() + HOUR_MS).0, "capped");
    assert_eq!(world.refused(1, "marketing", noon() + HOUR_MS).0, "already_sent");
}

#[test]
fn transactional_messages_pass_caps_and_quiet_hours_and_count() {
    let mut world = world();
    for n in 0..3 {
        world.grant(n, "receipts", noon() + 11 * HOUR_MS);
    }
    world.priority = Priority::High;
    let (code, retry) = world.refused(9, "product", noon() + 22 * HOUR_MS);
    assert_eq!(
        (code, retry),
        ("capped", Some(noon() + 7 * DAY_MS + 20 * HOUR_MS)),
        "the cap frees in the night, the morning after is named"
    );
}

#[test]
fn places_kept_for_high_priority_are_its_own() {
    let mut world = world();
    world.grant(1, "product", noon());
    world.grant(2, "product", noon());
    assert_eq!(world.refused(3, "product", noon()).0, "capped");
    world.priority = Priority::High;
    world.grant(3, "product", noon());
    assert_eq!(world.refused(4, "product", noon()).0, "capped");
}

#[test]
fn quiet_hours_end_a_permit_and_refuse_one_until_morning() {
    let mut world = world();
    let nine = noon() + 9 * HOUR_MS;
    let morning = noon() + 20 * HOUR_MS;
    assert_eq!(world.refused(1, "marketing", nine), ("quiet_hours", Some(morning)));
    assert_eq!(world.refused(1, "marketing", nine - 999), ("quiet_hours", Some(morning)));
    assert_eq!(world.grant(1, "marketing", nine - 10_000).until(), nine);
    world.zone = Some("America/New_York");
    world.grant(2, "product", nine);
}

#[test]
fn a_message_that_would_come_too_late_is_not_put_off() {
    let mut world = world();
    let nine = noon() + 9 * HOUR_MS;
    world.not_after = Some(nine + HOUR_MS);
    assert_eq!(world.refused(1, "marketing", nine), ("quiet_hours", None));
    assert_eq!(world.refused(1, "marketing", nine + HOUR_MS), ("too_late", None));
    world.not_after = Some(noon() + 20_000);
    assert_eq!(world.grant(1, "marketing", noon()).until(), noon() + 20_000);
}

#[test]
fn one_message_is_held_by_one_executor_at_a_time() {
    let mut world = world();
    let grant = world.grant(1, "marketing", noon());
    world.executor = Executor([2; 16]);
    assert_eq!(world.refused(1, "marketing", noon() + 1), ("held_by_another", Some(grant.until())));
    let second = world.grant(1, "marketing", grant.until());
    assert_eq!(world.ledger.open().collect::<Vec<_>>(), [(key(1), Executor([2; 16]), second.until())], "its own place is not in its way");
}

#[test]
fn a_policy_that_no_permit_could_follow_is_refused_with_reasons() {
    let policy = r#"
        zone = "Mars/Olympus"
        permit_valid = "1h"
        [[purpose]]
        name = "marketing"
        basis = "opt_in"
        [[purpose]]
        name = "Marketing"
        basis = "opt_out"
        [[cap]]
        name = "yearly"
        window = "365d"
        limit = 1000
        purpose = "markting"
        kept_for_high = 2000
        [[quiet]]
        from = "08:00"
        to = "20:00"
        [[quiet]]
        from = "20:00"
        to = "08:00"
        channel = "sms"
    "#;
    let policy: Policy = toml::from_str(policy).unwrap();
    let found: Vec<String> = policy.check().into_iter().map(|problem| format!("{}: {}", problem.what, problem.reason)).collect();
    let expected = [
        "purpose Marketing: declared twice, or without a name",
        "zone: no time zone is called \"Mars/Olympus\"",
        "permit_valid: 3600000 ms is not between 5 s and 15 min",
        "cap yearly: its window is not between 1 ms and 35 days",
        "cap yearly: its limit is above 100",
        "cap yearly: more places are kept than there are",
        "cap yearly: no purpose is called \"markting\"",
        "quiet hours of purpose marketing on sms: they leave no time of the week",
        "quiet hours of purpose Marketing on sms: they leave no time of the week",
    ];
    assert_eq!(found, expected);
    for wrong in ["permit_valid = \"soon\"", "[[quiet]]\nfrom = \"25:00\"\nto = \"08:00\"", "[[quiet]]\nfrom = \"9:00\"\nto = \"08:00\""] {
        assert!(toml::from_str::<Policy>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn facts_read_back_from_json() {
    let mut world = world();
    let grant = world.grant(1, "marketing", noon());
    let text = serde_json::to_string(&grant).unwrap();
    assert_eq!(serde_json::from_str::<Grant>(&text).unwrap(), grant);
    let Decision::Refused(refusal) = world.ask(2, "marketing", noon()) else { panic!("granted") };
    let text = serde_json::to_string(&refusal).unwrap();
    assert_eq!(serde_json::from_str::<Refusal>(&text).unwrap(), refusal);
    assert_eq!(text, r#"{"reason":{"code":"capped","cap":"daily marketing mail","priority":"normal"},"retry_at":1780567260000}"#);
}
