//! Whether a message may go: permits within the subject, what a person's word does to what is in flight, and what a login brings.

use serde_json::json;

use super::super::{Category, Clock, Input, Outcome, Policy, Rejection, Skipped, Subject, What, evolve};
use super::scene::{COMMAND, EFFECT, EXECUTOR, Scene, failed};
use crate::domain::{DAY_MS, HOUR_MS, MINUTE_MS, Millis, SECOND_MS};
use crate::permit::{AddressKey, Cause};

const REFUSED: &str = "\non_refused = \"no\"\n[[node]]\nname = \"no\"\nkind = \"exit\"\noutcome = \"may not\"";

fn done() -> Outcome {
    Outcome::Done { result: json!({}) }
}

fn message() -> Scene {
    let mut scene = Scene::new(COMMAND, &format!("{EFFECT}\nunknown = \"look_up\"{REFUSED}"));
    scene.start("m1").unwrap();
    scene
}

fn marketing_email_is_sent(scene: &mut Scene, cause: &str) {
    scene.start(cause).unwrap();
    scene.begin().unwrap();
    scene.finish(done()).unwrap();
}

#[test]
fn a_permit_names_the_executor_and_the_address_and_counts_once_it_is_used() {
    let mut scene = message();
    scene.begin().unwrap();
    let granted = scene.journal.iter().find_map(|fact| match &fact.what {
        What::PermitGranted { grant, to, .. } => Some((grant.executor().to_string(), to.clone(), grant.until().since_ms(fact.at))),
        _ => None,
    });
    assert_eq!(granted, Some((EXECUTOR.to_owned(), "ann@example.org".to_owned(), MINUTE_MS)));
    assert_eq!(scene.state.ledger.open().count(), 1);
    scene.finish(done()).unwrap();
    assert_eq!(scene.state.ledger.open().count(), 0);
    assert!(!scene.state.ledger.is_empty());
    scene.tells(&["e requested", "e attempt 1", "e begun", "e permitted", "e done", "run ended completed"]);
}

#[test]
fn a_permit_waits_until_time_is_where_nothing_said_before_can_be_missed() {
    let mut scene = message();
    let (effect, attempt) = scene.effect();
    let appended = scene.now + 5 * SECOND_MS;
    scene.give(Input::EffectStarted { effect, attempt, executor: EXECUTOR.to_owned(), appended }).unwrap();
    assert_eq!(scene.count(|what| matches!(what, What::PermitGranted { .. } | What::PermitRefused { .. })), 0);
    assert_eq!(scene.state.next_wake(Clock::Wall), Some(appended));
    // A click on "unsubscribe" that was acknowledged before the start was, and is heard of after it.
    scene.says("marketing", false);
    scene.wait(5 * SECOND_MS);
    scene.tells(&["e begun", "the person said no to marketing", "e refused: the person opted out", "run ended completed: may not"]);
}

#[test]
fn what_a_person_must_get_does_not_wait() {
    let mut scene = Scene::new(COMMAND, &format!("{EFFECT}\npurpose = \"transactional\""));
    scene.says("marketing", false);
    scene.start("m1").unwrap();
    let (effect, attempt) = scene.effect();
    let appended = scene.now + HOUR_MS;
    scene.give(Input::EffectStarted { effect, attempt, executor: EXECUTOR.to_owned(), appended }).unwrap();
    scene.tells(&["e begun", "e permitted"]);
}

#[test]
fn an_executor_without_a_name_begins_nothing() {
    let mut scene = message();
    let (effect, attempt) = scene.effect();
    let begun = scene.give(Input::EffectStarted { effect, attempt, executor: "x".to_owned(), appended: scene.now });
    assert_eq!(begun, Err(Rejection::NoExecutor("x".to_owned())));
}

#[test]
fn caps_hold_across_runs_and_a_message_beyond_them_goes_when_there_is_room() {
    let mut scene = Scene::new("{ command = true, reenter = \"always\" }", &format!("{EFFECT}\nunknown = \"look_up\""));
    marketing_email_is_sent(&mut scene, "m1");
    let sent = scene.now;
    scene.wait(HOUR_MS);
    scene.start("m2").unwrap();
    scene.begin().unwrap();
    scene.tells(&["e permitted", "e refused: the cap daily leaves no place"]);
    assert_eq!(scene.state.next_wake(Clock::Wall), Some(sent + DAY_MS));
    scene.now = sent + DAY_MS;
    scene.give(Input::Due).unwrap();
    scene.begin().unwrap();
    scene.finish(done()).unwrap();
    scene.tells(&["e refused", "e attempt 2", "e permitted", "e done"]);
    assert_eq!(scene.count(|what| matches!(what, What::AttemptFailed { .. })), 0, "a refusal is no failure");
}

#[test]
fn a_send_that_is_known_to_have_failed_leaves_its_place_in_the_cap() {
    let mut scene = Scene::new("{ command = true, reenter = \"always\" }", &format!("{EFFECT}\nunknown = \"look_up\""));
    scene.start("m1").unwrap();
    scene.begin().unwrap();
    scene.finish(failed(Category::Integration)).unwrap();
    assert!(scene.state.ledger.is_empty());
    marketing_email_is_sent(&mut scene, "m2");
    scene.tells(&["e attempt 1 failed", "e permitted", "e done"]);
}

#[test]
fn a_send_of_which_nobody_knows_keeps_its_place_until_somebody_does() {
    let mut scene = message();
    scene.begin().unwrap();
    scene.finish(Outcome::Unknown { error: "the connection broke".to_owned() }).unwrap();
    assert!(!scene.state.ledger.is_empty());
    scene.finish(Outcome::NotDone).unwrap();
    assert!(scene.state.ledger.is_empty());
    scene.wait(MINUTE_MS);
    scene.begin().unwrap();
    scene.finish(done()).unwrap();
    scene.tells(&["e attempt 1 unknown", "e attempt 2 looks up", "e was not done", "e attempt 3", "e permitted", "e done"]);
}

#[test]
fn what_is_no_address_is_a_refusal_and_pauses_nobody() {
    for (text, is_address) in [
        ("ann@example.org", true),
        ("o'brien+x@sub.example.co.uk", true),
        ("ann@[192.0.2.1]", true),
        ("not an address", false),
        ("@example.org", false),
        ("ann@", false),
        ("Ann <ann@example.org>", false),
        ("ann@b@c.org", false),
        ("mailto:ann@example.org", false),
        ("\"ann\"@example.org", true),
        ("\"ann@example.org", false),
    ] {
        let mut scene = message();
        scene.give(Input::Attribute { name: "email".to_owned(), value: json!(text) }).unwrap();
        scene.begin().unwrap();
        assert_eq!(scene.count(|what| matches!(what, What::PermitGranted { .. })) == 1, is_address, "{text}");
        let refused = scene.journal.iter().any(|fact| matches!(&fact.what, What::PermitRefused { code, .. } if code == "no_address"));
        assert_eq!(refused, !is_address, "{text}");
    }
}

#[test]
fn a_message_that_went_out_is_an_event_of_the_person() {
    let mut scene = message();
    scene.begin().unwrap();
    scene.finish(done()).unwrap();
    let sent = scene.journal.iter().find_map(|fact| match &fact.what {
        What::EventEmitted { event, properties, .. } => Some((event.clone(), properties["campaign"].clone(), properties["node"].clone())),
        _ => None,
    });
    assert_eq!(sent, Some(("Email Sent".to_owned(), json!("w"), json!("e"))));
}

#[test]
fn a_message_that_waits_for_morning_asks_again_when_it_is_known_where_the_person_lives() {
    let mut scene = message();
    // Night in UTC, noon in Tokyo.
    scene.now = Millis(27 * HOUR_MS);
    scene.give(Input::Attribute { name: "time_zone".to_owned(), value: json!("UTC") }).unwrap();
    scene.begin().unwrap();
    scene.tells(&["e refused: quiet hours"]);
    scene.give(Input::Attribute { name: "time_zone".to_owned(), value: json!("Asia/Tokyo") }).unwrap();
    scene.begin().unwrap();
    scene.tells(&["e refused", "e attempt 2", "e permitted"]);
}

#[test]
fn a_message_that_waits_for_morning_asks_again_when_somebody_says_so() {
    let mut scene = message();
    scene.give(Input::Attribute { name: "time_zone".to_owned(), value: json!("Asia/Tokyo") }).unwrap();
    scene.begin().unwrap();
    scene.tells(&["e refused: quiet hours"]);
    scene.policy.permits.quiet.clear();
    let run = scene.run();
    scene.give(Input::Retry { run, by: "kim".to_owned() }).unwrap();
    scene.begin().unwrap();
    scene.tells(&["e refused", "e attempt 2", "e permitted"]);
    assert_eq!(scene.give(Input::Retry { run, by: "kim".to_owned() }), Err(Rejection::NothingToRetry), "it is under way");
}

#[test]
fn a_message_is_not_looked_for_while_its_permit_may_still_be_used() {
    let mut scene = Scene::new(COMMAND, &EFFECT.replace("1m", "10s"));
    scene.start("m1").unwrap();
    scene.begin().unwrap();
    scene.wait(11_000);
    assert_eq!(scene.count(|what| matches!(what, What::AttemptUnknown { .. })), 0, "a slow executor may still send it");
    scene.wait(MINUTE_MS);
    scene.tells(&["e permitted", "e attempt 1 unknown: no answer in time", "e attempt 2 looks up"]);
}

#[test]
fn a_send_that_answers_after_its_run_was_cancelled_counts() {
    let mut scene = message();
    let (effect, attempt) = scene.effect();
    scene.begin().unwrap();
    let run = scene.run();
    scene.give(Input::Cancel { run, by: "kim".to_owned(), reason: String::new() }).unwrap();
    assert_eq!(scene.state.ledger.open().count(), 1, "it may be out");
    scene.give(Input::EffectFinished { effect, attempt, outcome: done() }).unwrap();
    assert_eq!(scene.state.ledger.open().count(), 0);
    assert!(!scene.state.ledger.is_empty());
}

#[test]
fn quiet_hours_are_where_the_person_lives() {
    let mut scene = message();
    // Noon in London is nine in the evening in Tokyo.
    scene.give(Input::Attribute { name: "time_zone".to_owned(), value: json!("Asia/Tokyo") }).unwrap();
    scene.begin().unwrap();
    scene.tells(&["e refused: quiet hours where the person lives"]);
    assert_eq!(scene.state.next_wake(Clock::Wall), Some(scene.now + 11 * HOUR_MS));
}

#[test]
fn without_an_address_there_is_no_message() {
    let mut scene = message();
    scene.give(Input::Attribute { name: "email".to_owned(), value: json!(null) }).unwrap();
    scene.begin().unwrap();
    scene.tells(&["e refused: no address is known for the channel", "run ended completed: may not"]);
}

#[test]
fn an_opt_out_stops_at_once_what_waits_for_another_attempt() {
    let mut scene = message();
    scene.begin().unwrap();
    scene.finish(failed(Category::Integration)).unwrap();
    scene.says("marketing", false);
    scene.tells(&["e attempt 1 failed", "the person said no", "e refused: the person opted out", "run ended completed: may not"]);
}

#[test]
fn a_suppressed_address_stops_what_waits_and_a_lifted_one_is_free_again() {
    let mut scene = message();
    scene.begin().unwrap();
    scene.finish(failed(Category::Integration)).unwrap();
    let address = AddressKey::of("email", "ann@example.org");
    let (at, channel) = (scene.now, "email".to_owned());
    scene
        .give(Input::Suppress { address, channel: channel.clone(), reason: Cause::HardBounce, at, until: None, by: String::new() })
        .unwrap();
    scene.tells(&["the email address was suppressed", "e refused: the address is suppressed", "run ended completed: may not"]);
    scene.give(Input::Unsuppress { address, channel, at: at + 1, by: String::new() }).unwrap();
    marketing_email_is_sent(&mut scene, "m2");
    scene.tells(&["the email address is no longer suppressed", "run of w started", "e permitted"]);
}

#[test]
fn a_message_that_makes_no_sense_any_more_is_not_sent() {
    let mut scene = Scene::new(COMMAND, &format!("{EFFECT}\nnot_after = \"1h\"{REFUSED}"));
    scene.start("m1").unwrap();
    let (effect, attempt) = scene.effect();
    scene.now = scene.now + HOUR_MS;
    // Nobody heard of time in between.
    scene.give(Input::EffectStarted { effect, attempt, executor: EXECUTOR.to_owned(), appended: scene.now }).unwrap();
    scene.tells(&["e refused: too late for this message", "run ended completed: may not"]);
}

#[test]
fn until_a_logins_history_has_come_nothing_begins_nothing_is_sent_and_no_silence_is_concluded() {
    let nodes = format!(
        "[[node]]\nname = \"w\"\nkind = \"wait_for\"\nany = [{{ event = \"Order\" }}]\ntimeout = \"10m\"\nnext = \"end\"\n\
         on_timeout = \"e\"\n{EFFECT}"
    );
    let mut scene = Scene::new("{ event = \"Signed Up\" }", &nodes);
    scene.event("Signed Up", "m1", json!({}));
    scene.give(Input::Expect { anonymous: "a1".to_owned(), absorb: false }).unwrap();
    scene.event("Signed Up", "m2", json!({}));
    scene.wait(11 * MINUTE_MS);
    assert_eq!(scene.count(|what| matches!(what, What::TimerFired { .. } | What::RunSkipped { .. })), 0);
    scene.event("Order", "m3", json!({}));
    let carry = Subject::default().carry("a1");
    scene.give(Input::Carry(Box::new(carry))).unwrap();
    scene.tells(&[
        "run of w started",
        "waits for what a1 leaves",
        "event is decided later",
        "event is decided later",
        "took in what a1 left",
        "1 held until now",
        "run of w skipped: still running",
        "1 held until now",
    ]);
}

#[test]
fn a_history_that_does_not_come_is_not_waited_for_without_end() {
    let mut scene = Scene::new("{ event = \"Signed Up\" }", EFFECT);
    scene.give(Input::Expect { anonymous: "a1".to_owned(), absorb: false }).unwrap();
    scene.event("Signed Up", "m1", json!({}));
    assert_eq!(scene.state.next_wake(Clock::Wall), Some(scene.now + HOUR_MS));
    scene.wait(HOUR_MS);
    scene.tells(&["waits no longer for what a1 leaves", "1 held until now", "run of w started"]);
    scene.give(Input::Carry(Box::new(Subject::default().carry("a1")))).unwrap();
    scene.tells(&["took in what a1 left"]);
}

#[test]
fn a_history_may_come_before_it_is_said_to_come() {
    let mut scene = Scene::new("{ event = \"Signed Up\" }", EFFECT);
    scene.give(Input::Carry(Box::new(Subject::default().carry("a1")))).unwrap();
    scene.give(Input::Expect { anonymous: "a1".to_owned(), absorb: false }).unwrap();
    assert!(!scene.state.is_merging());
}

#[test]
fn who_was_welcomed_before_the_login_is_not_welcomed_again_and_keeps_the_arm() {
    let split = "[[node]]\nname = \"s\"\nkind = \"split\"\narms = [{ name = \"a\", weight = 1, next = \"e\" }, { name = \"b\", weight = 1, next = \"e\" }]\n";
    let entry = "{ event = \"Signed Up\", reenter = \"after 10d\" }";
    let mut anonymous = Scene::new(entry, &format!("{split}{EFFECT}"));
    anonymous.event("Signed Up", "m1", json!({}));
    anonymous.says("marketing", true);
    anonymous.begin().unwrap();
    anonymous.finish(done()).unwrap();
    anonymous.give(Input::Merged { user: "u1".to_owned() }).unwrap();
    let carry = anonymous.journal.iter().find_map(|fact| match &fact.what {
        What::MergedInto { user, carry } if user == "u1" => Some(carry.clone()),
        _ => None,
    });
    let mut carry = carry.unwrap();
    assert!(anonymous.state.marks.is_empty() && anonymous.state.ledger.is_empty() && anonymous.state.consent.is_empty());
    assert_eq!(carry.anonymous, "ann");
    // As drawn by another hash than the user's own.
    let other = if carry.arms["w\0s"] == "a" { "b" } else { "a" };
    carry.arms.insert("w\0s".to_owned(), other.to_owned());

    let mut user = Scene::new(entry, &format!("{split}{EFFECT}"));
    user.give(Input::Expect { anonymous: "ann".to_owned(), absorb: false }).unwrap();
    user.event("Signed Up", "m2", json!({}));
    user.give(Input::Carry(carry.clone())).unwrap();
    user.tells(&["waits for what ann leaves", "took in what ann left", "run of w skipped: reentry"]);
    assert!(!user.state.ledger.is_empty() && !user.state.consent.is_empty());
    user.wait(10 * DAY_MS);
    user.event("Signed Up", "m3", json!({}));
    user.tells(&[&format!("s gave {other}")]);
}

#[test]
fn runs_of_an_anonymous_subject_end_when_it_becomes_a_user() {
    let mut scene = message();
    scene.give(Input::Merged { user: "u1".to_owned() }).unwrap();
    scene.tells(&["run ended merged", "became u1"]);
    assert!(scene.state.runs.is_empty());
}

#[test]
fn an_entry_that_is_decided_while_a_history_is_coming_in_says_so() {
    let mut scene = Scene::new("{ event = \"Signed Up\" }", EFFECT);
    scene.give(Input::Expect { anonymous: "a1".to_owned(), absorb: false }).unwrap();
    let input = Input::Event {
        cause: "m".to_owned(),
        name: "Signed Up".to_owned(),
        properties: json!({}),
        profile: json!({}),
        late: false,
        depth: 0,
    };
    let facts = super::super::decide(&scene.state, scene.context(), &input, scene.now).unwrap();
    assert!(facts.iter().any(|fact| matches!(fact.what, What::RunSkipped { reason: Skipped::Merging, .. })));
}

#[test]
fn a_state_with_everything_in_it_comes_back_from_its_bytes() {
    let mut scene = message();
    scene.begin().unwrap();
    scene.says("marketing", true);
    let address = AddressKey::of("email", "ann@example.org");
    let (at, channel) = (scene.now, "email".to_owned());
    scene.give(Input::Suppress { address, channel, reason: Cause::SoftBounces, at, until: Some(at + DAY_MS), by: String::new() }).unwrap();
    scene.give(Input::Expect { anonymous: "a1".to_owned(), absorb: false }).unwrap();
    scene.event("Signed Up", "m1", json!({ "n": 1 }));
    let mut bytes = Vec::new();
    scene.state.encode(&mut bytes);
    assert_eq!(Subject::decode(&bytes).unwrap(), scene.state);
    // As is every fact, and folding them gives the same again.
    let mut folded = Subject::default();
    for fact in &scene.journal {
        let (run, body) = fact.parts();
        let read = super::super::Fact::from_parts(fact.at, &run, &body).unwrap();
        assert_eq!(read, *fact);
        evolve(&mut folded, &read);
    }
    assert_eq!(folded, scene.state);
}

#[test]
fn the_shipped_policy_is_taken_and_what_is_wrong_with_others_is_said_with_its_line() {
    let shipped = Policy::shipped();
    assert_eq!(Policy::parse("p", &shipped.canonical).unwrap(), shipped);
    for (text, line, message) in [
        ("zone = \"Mars\"\n[[purpose]]\nname = \"m\"\nbasis = \"opt_in\"\n", 1, "no time zone is called"),
        ("[[purpose]]\nname = \"m\"\nbasis = \"optin\"\n", 3, "unknown value `optin`"),
        (
            "[[purpose]]\nname = \"m\"\nbasis = \"opt_in\"\n\n[[cap]]\nname = \"c\"\nwindow = \"90d\"\nlimit = 1\n",
            5,
            "not between 1 ms and 35 days",
        ),
        ("zone = \"UTC\"\n", 1, "the policy has no purpose"),
        (
            "[[purpose]]\nname = \"m\"\nbasis = \"opt_in\"\n[[approval]]\nworkflow = \"w\"\nnode = \"n\"\nby = \"b\"\nwhen = \"orders > 1\"\n",
            8,
            "unknown field `orders`",
        ),
    ] {
        let problems = Policy::parse("p.toml", text).expect_err(text);
        assert!(problems.0.iter().any(|problem| problem.line == line && problem.message.contains(message)), "{problems}");
    }
}

fn asked(scene: &mut Scene) -> (super::super::EffectId, u32) {
    scene.begin().unwrap();
    scene.effect()
}

fn not_begun(scene: &mut Scene, (effect, attempt): (super::super::EffectId, u32)) -> Result<(), Rejection> {
    scene.give(Input::EffectFinished { effect, attempt, outcome: Outcome::NotBegun { why: "its turn did not come".to_owned() } })
}

#[test]
fn a_permit_that_was_not_begun_on_frees_its_place_costs_no_attempt_and_is_asked_for_again() {
    let mut scene = message();
    // More often than there are attempts.
    for _ in 0..5 {
        let attempt = asked(&mut scene);
        assert_eq!(scene.state.ledger.open().count(), 1);
        not_begun(&mut scene, attempt).unwrap();
        assert!(scene.state.ledger.is_empty());
        assert_eq!(scene.state.to_perform(), [], "while time stands still, asking again would be as vain");
        scene.wait(SECOND_MS);
    }
    asked(&mut scene);
    scene.finish(done()).unwrap();
    let failures = |what: &What| matches!(what, What::AttemptFailed { .. } | What::AttemptUnknown { .. } | What::RunPaused { .. });
    assert_eq!(scene.count(failures), 0);
    scene.tells(&["e permitted", "e attempt 5 did nothing: its turn did not come", "e attempt 6", "e done", "run ended completed"]);
}

#[test]
fn while_time_stands_still_a_message_waits_for_its_permit_and_is_no_failed_attempt() {
    let mut scene = message();
    let (effect, attempt) = scene.effect();
    let appended = scene.now + 5 * SECOND_MS;
    scene.give(Input::EffectStarted { effect, attempt, executor: EXECUTOR.to_owned(), appended }).unwrap();
    // Then it jumps: whoever asked has counted that long, and could not use the permit any more.
    scene.wait(HOUR_MS);
    scene.tells(&["e begun", "e attempt 1 did nothing: time stood still for longer than a permit is good for"]);
    scene.wait(SECOND_MS);
    asked(&mut scene);
    scene.finish(done()).unwrap();
    scene.tells(&["e attempt 2", "e permitted", "e done"]);
    assert_eq!(scene.count(|what| matches!(what, What::AttemptFailed { .. } | What::AttemptUnknown { .. })), 0);
}

#[test]
fn a_certain_no_of_an_attempt_that_was_given_up_ends_the_looking_for_it_and_the_pause_for_it() {
    let no = |effect, attempt| Input::EffectFinished { effect, attempt, outcome: failed(Category::Integration) };
    // While it is looked up.
    let mut scene = message();
    let (effect, attempt) = asked(&mut scene);
    scene.wait(2 * MINUTE_MS);
    scene.tells(&["e attempt 1 unknown: no answer in time", "e attempt 2 looks up"]);
    scene.give(no(effect, attempt)).unwrap();
    assert!(scene.state.ledger.is_empty(), "its place in the caps is free");
    scene.wait(SECOND_MS);
    scene.tells(&["e attempt 2 looks up", "e attempt 1 did nothing: no", "e attempt 3"]);
    asked(&mut scene);
    scene.finish(done()).unwrap();
    scene.tells(&["e done", "run ended completed"]);
    // While a person is asked.
    let mut scene = Scene::new(COMMAND, &format!("{EFFECT}\nunknown = \"ask_a_person\""));
    scene.start("m1").unwrap();
    let (effect, attempt) = asked(&mut scene);
    scene.wait(2 * MINUTE_MS);
    scene.tells(&["run paused by workflow: nobody knows whether `e` was done"]);
    scene.give(no(effect, attempt)).unwrap();
    scene.wait(SECOND_MS);
    scene.tells(&["e attempt 1 did nothing: no", "run resumed by workflow", "e attempt 2"]);
    assert_eq!(scene.give(no(effect, attempt)), Err(Rejection::NotThisAttempt(1)), "said again it says nothing");
}
