//! Addresses as subjects of their own: who holds them, what they are told, and when they say that nothing may be sent.

use super::super::{Clock, Context, Fact, HOLDERS_MAX, Input, Library, Policy, SOFT_BOUNCES, Story, Subject, What, drive, evolve};
use super::scene::*;
use crate::domain::{DAY_MS, Millis};
use crate::permit::{AddressKey, Cause, Said};

const START: Millis = Millis(1_700_000_000_000);

struct Address {
    state: Subject,
    journal: Vec<Fact>,
    key: AddressKey,
    now: Millis,
}

impl Address {
    fn new() -> Self {
        Self { state: Subject::default(), journal: Vec::new(), key: AddressKey::of("email", "ann@example.org"), now: START }
    }

    /// What is said of it, under both clocks alike.
    fn give(&mut self, input: &Input) -> Vec<String> {
        let (library, policy) = (Library::default(), Policy::shipped());
        let heard = self.now;
        let context = |clock| Context { subject: "t\0@:00", library: &library, policy: &policy, clock, is_held: false, heard };
        let mut other = self.state.clone();
        let facts = drive(&mut self.state, context(Clock::Wall), input, self.now).facts;
        assert_eq!(drive(&mut other, context(Clock::Event), input, self.now).facts, facts);
        let mut again = Subject::default();
        self.journal.extend(facts.iter().cloned());
        self.journal.iter().for_each(|fact| evolve(&mut again, fact));
        assert_eq!(again, self.state, "the journal is the state");
        let mut bytes = Vec::new();
        self.state.encode(&mut bytes);
        assert_eq!(Subject::decode(&bytes).as_ref(), Ok(&self.state));
        let mut story = Story::default();
        facts.iter().map(|fact| story.line(fact)).collect()
    }

    fn register(&mut self, holder: &str) -> Vec<String> {
        self.give(&Input::Register { address: self.key, channel: "email".to_owned(), holder: holder.to_owned() })
    }

    fn unregister(&mut self, holder: &str) -> Vec<String> {
        self.give(&Input::Unregister { address: self.key, channel: "email".to_owned(), holder: holder.to_owned() })
    }

    fn suppress(&mut self, reason: Cause, until: Option<Millis>) -> Vec<String> {
        let (channel, by) = ("email".to_owned(), "kim".to_owned());
        self.give(&Input::Suppress { address: self.key, channel, reason, at: self.now, until, by })
    }

    fn soft(&mut self, message: usize) -> Vec<String> {
        let (channel, message) = ("email".to_owned(), message.to_string());
        self.give(&Input::SoftBounce { address: self.key, channel, message, at: self.now })
    }

    fn holders(&self) -> Vec<&str> {
        self.state.held_by.iter().flat_map(|held_by| held_by.holders.iter().map(String::as_str)).collect()
    }
}

#[test]
fn holders_register_once_and_go() {
    let mut address = Address::new();
    assert_eq!(address.register("u:ann"), ["u:ann has this email address"]);
    assert_eq!(address.register("u:ann"), [""; 0], "said again it is known");
    assert_eq!(address.register("a:d1"), ["a:d1 has this email address"]);
    assert_eq!(address.holders(), ["u:ann", "a:d1"]);
    assert_eq!(address.unregister("u:ann"), ["u:ann has this email address no more"]);
    assert_eq!(address.unregister("u:ann"), [""; 0]);
    assert_eq!(address.holders(), ["a:d1"]);
}

#[test]
fn who_registers_again_with_a_suppressed_address_is_told_again() {
    let mut address = Address::new();
    address.register("u:ann");
    assert_eq!(address.suppress(Cause::HardBounce, None), ["the email address was suppressed: it does not exist"]);
    assert_eq!(address.suppress(Cause::HardBounce, None), [""; 0], "the same word changes nothing");
    assert_eq!(address.register("u:ann"), ["u:ann has this email address"], "a fact, so that it is told");
    let lift = Input::Unsuppress { address: address.key, channel: "email".to_owned(), at: address.now + 1, by: String::new() };
    assert_eq!(address.give(&lift), ["the email address is no longer suppressed"]);
    assert_eq!(address.register("u:ann"), [""; 0]);
    let told: Vec<Said> = address.state.suppressions.said_of(address.key).collect();
    assert_eq!(told, [Said::Lifted { at: START + 1 }], "what no longer holds is not told");
}

#[test]
fn of_too_many_holders_the_oldest_is_forgotten_until_it_is_written_to_again() {
    let mut address = Address::new();
    for n in 0..=HOLDERS_MAX {
        address.register(&format!("u:{n}"));
    }
    assert_eq!((address.holders().len(), address.holders()[0]), (HOLDERS_MAX, "u:1"));
    address.register("u:0");
    assert_eq!(address.holders().last(), Some(&"u:0"));
}

#[test]
fn messages_that_fail_again_and_again_suppress_for_a_time() {
    let mut address = Address::new();
    for message in 1..SOFT_BOUNCES {
        assert_eq!(address.soft(message), [format!("message {message} did not get through to this email address")]);
        assert_eq!(address.soft(message), [""; 0], "a report that comes twice counts once");
        address.now = address.now + DAY_MS;
    }
    assert_eq!(address.state.suppressions.of(address.key, address.now), None);
    assert_eq!(address.soft(99)[1..], ["the email address was suppressed: it failed too often"]);
    let (cause, until) = address.state.suppressions.of(address.key, address.now).unwrap();
    assert_eq!((cause, until), (Cause::SoftBounces, Some(address.now + 14 * DAY_MS)));
    address.now = address.now + 15 * DAY_MS;
    assert_eq!(address.state.suppressions.of(address.key, address.now), None);
    assert_eq!(address.soft(100).len(), 1, "counting begins anew");
}

#[test]
fn failures_far_apart_suppress_nothing() {
    let mut address = Address::new();
    for message in 0..20 {
        assert_eq!(address.soft(message).len(), 1, "{message}");
        address.now = address.now + 8 * DAY_MS;
    }
}

#[test]
fn who_changes_an_address_says_which_one_it_was() {
    let mut scene = Scene::new(COMMAND, EFFECT);
    let email = |address: &str| Input::Attribute { name: "email".to_owned(), value: address.into() };
    scene.give(email("ann@new.example")).unwrap();
    let was = |fact: &Fact| match &fact.what {
        What::AttributeSet { was, .. } => was.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(was(scene.journal.last().unwrap()), Some("ann@example.org".into()));
    scene.give(Input::Attribute { name: "time_zone".to_owned(), value: "UTC".into() }).unwrap();
    scene.give(Input::Attribute { name: "time_zone".to_owned(), value: "Europe/Berlin".into() }).unwrap();
    assert_eq!(was(scene.journal.last().unwrap()), None, "of addresses only");
}

#[test]
fn an_address_that_is_refused_for_good_is_said_so_and_not_tried_again() {
    let mut scene = Scene::new(COMMAND, EFFECT);
    scene.start("1").unwrap();
    scene.begin().unwrap();
    let address = AddressKey::of("email", "ann@example.org");
    let (effect, attempt) = scene.effect();
    let outcome = super::super::Outcome::AddressRefused { address, error: "550 5.1.1 nobody here".to_owned() };
    scene.give(Input::EffectFinished { effect, attempt, outcome }).unwrap();
    scene.tells(&["e permitted", "the email address was refused for good", "e attempt 1 failed: 550 5.1.1 nobody here"]);
    assert!(scene.state.to_perform().is_empty());
    assert!(scene.journal.iter().any(|fact| matches!(&fact.what, What::AddressRefused { address: refused, .. } if *refused == address)));
}

#[test]
fn spaces_around_an_address_and_another_spelling_of_it_hide_nothing() {
    let email = |address: &str| Input::Attribute { name: "email".to_owned(), value: address.into() };
    let word = |key| Input::Suppress {
        address: key,
        channel: "email".to_owned(),
        reason: Cause::Complaint,
        at: START,
        until: None,
        by: String::new(),
    };
    let key = AddressKey::of("email", "ann@new.example");
    let mut scene = Scene::new(COMMAND, EFFECT);
    scene.give(email(" ann@new.example ")).unwrap();
    scene.give(word(key)).unwrap();
    scene.give(email("Ann@New.example")).unwrap();
    scene.start("1").unwrap();
    scene.begin().unwrap();
    scene.tells(&["the email address was suppressed", "e refused: the address is suppressed"]);
    scene.give(email("ann@example.org")).unwrap();
    assert!(scene.state.suppressions.is_empty(), "another address, which would tell its own");

    let mut scene = Scene::new(COMMAND, &EFFECT.replace("\"email\"", "\"sms\""));
    let phone = |number: &str| Input::Attribute { name: "phone".to_owned(), value: number.into() };
    let key = AddressKey::of("sms", "+491701234");
    scene.give(phone("+49 170 1234")).unwrap();
    scene.give(word(key)).unwrap();
    scene.give(phone("+49 (170) 12-34")).unwrap();
    assert!(scene.state.suppressions.of(key, scene.now.max(START)).is_some());
}

#[test]
fn an_address_that_an_attempt_given_up_was_told_of_is_said_so_and_the_attempt_is_in_doubt_no_more() {
    let mut scene = Scene::new(COMMAND, &format!("{EFFECT}\nunknown = \"look_up\""));
    scene.start("1").unwrap();
    scene.begin().unwrap();
    let address = AddressKey::of("email", "ann@example.org");
    let (effect, attempt) = scene.effect();
    scene.wait(crate::domain::HOUR_MS);
    scene.tells(&["e attempt 1 unknown", "e attempt 2 looks up"]);
    assert!(!scene.state.ledger.is_empty());
    let outcome = super::super::Outcome::AddressRefused { address, error: "550 5.1.1 nobody here".to_owned() };
    scene.give(Input::EffectFinished { effect, attempt, outcome: outcome.clone() }).unwrap();
    scene.tells(&["the email address was refused for good"]);
    assert!(scene.state.ledger.is_empty(), "it did not go out");
    assert!(scene.state.to_perform().is_empty(), "and need not be looked for");
    assert!(scene.give(Input::EffectFinished { effect, attempt, outcome }).is_err(), "once");
}

#[test]
fn only_what_is_an_address_is_taken_from_a_list() {
    use super::super::address_written;
    let is_one = |channel: &str, text: &str| address_written(channel, text).is_some();
    assert_eq!(address_written("email", " Ann@example.org "), Some(AddressKey::of("email", "ann@example.org")));
    assert_eq!(address_written("phone", "+49 (170) 12-34"), Some(AddressKey::of("sms", "+491701234")));
    let mails = [
        "",
        "ann",
        "\"ann@example.org\"",
        "'ann@example.org'",
        "ann@example.org,complaint",
        "ann@example.org;2024",
        "Ann <ann@example.org>",
    ];
    assert_eq!(mails.iter().filter(|text| is_one("email", text)).count(), 0);
    assert_eq!(
        ["", "tel:+49170", "+", "--", "+49170x3", "\"+49170\"", "+49170,hard"].iter().filter(|text| is_one("phone", text)).count(),
        0
    );
    assert!(!is_one("email", "mailto:ann@example.org") && !is_one("email", "\"ann@example.org") && is_one("email", "\"ann\"@example.org"));
    assert!(is_one("push", "fcm:abc-DEF_1") && !is_one("push", " "));
}
