//! Single decisions that people will ask about.

use std::sync::Arc;

use serde_json::json;

use super::super::{
    Category, Clock, Context, Definition, Ending, Fact, Input, Outcome, Policy, Provenance, RESULT_BYTES_MAX, Rejection, RunId, Skipped,
    Subject, What, drive, evolve, isolate,
};
use super::scene::{COMMAND, EFFECT, EXECUTOR, Scene, failed};
use crate::domain::{DAY_MS, HOUR_MS, Millis};

#[test]
fn the_same_cause_starts_one_run_even_after_it_ended() {
    let mut scene = Scene::new("{ command = true, reenter = \"always\" }", EFFECT);
    scene.start("m1").unwrap();
    scene.start("m1").unwrap();
    scene.finish(Outcome::Done { result: json!({}) }).unwrap();
    scene.start("m1").unwrap();
    assert_eq!(scene.journal.iter().filter(|fact| matches!(fact.what, What::RunStarted { .. })).count(), 1);
    scene.start("m2").unwrap();
    assert_eq!(scene.state.runs.len(), 1);
}

#[test]
fn a_keyed_entry_has_one_run_per_order() {
    let mut scene = Scene::new("{ event = \"Order Placed\", key = \"event.order_id\", when = \"event.total > 10.0\" }", EFFECT);
    scene.event("Order Placed", "m1", json!({ "order_id": 17, "total": 20.0 }));
    scene.event("Order Placed", "m2", json!({ "order_id": "17", "total": 20.0 }));
    scene.event("Order Placed", "m3", json!({ "order_id": 18, "total": 20.0 }));
    scene.event("Order Placed", "m4", json!({ "order_id": 19, "total": 5.0 }));
    scene.event("Order Placed", "m5", json!({ "total": 20.0 }));
    assert_eq!(scene.state.runs.len(), 2);
    let skipped: Vec<Skipped> = scene
        .journal
        .iter()
        .filter_map(|fact| match fact.what {
            What::RunSkipped { reason, .. } => Some(reason),
            _ => None,
        })
        .collect();
    assert_eq!(skipped, [Skipped::StillRunning, Skipped::NoKey]);
}

#[test]
fn out_of_attempts_the_run_is_paused_with_its_reason_and_resumes_after_a_fix() {
    let mut scene = Scene::new(COMMAND, EFFECT);
    scene.start("m1").unwrap();
    scene.finish(failed(Category::Integration)).unwrap();
    scene.wait(HOUR_MS);
    scene.finish(failed(Category::Integration)).unwrap();
    scene.tells(&["e attempt 1", "e attempt 1 failed", "e attempt 2", "e attempt 2 failed", "run paused by workflow: `e` failed: no"]);
    assert_eq!(scene.state.next_wake(Clock::Wall), None);
    let run = scene.run();
    scene.give(Input::Resume { run, by: "kim".to_owned() }).unwrap();
    assert_eq!(scene.effect().1, 3);
    scene.finish(Outcome::Done { result: json!({}) }).unwrap();
    scene.tells(&["run resumed by kim", "e attempt 3", "e done", "run ended completed"]);
}

#[test]
fn any_attempts_success_completes_and_the_other_settles() {
    let mut scene = Scene::new(COMMAND, &format!("{EFFECT}\nunknown = \"retry\""));
    scene.start("m1").unwrap();
    let (effect, first) = scene.effect();
    // Its turn may come late; that it got no answer its executor says.
    scene.wait(61_000);
    assert_eq!(scene.effect(), (effect, first));
    scene.finish(Outcome::Unknown { error: "no answer in time".to_owned() }).unwrap();
    scene.wait(HOUR_MS);
    assert_eq!(scene.effect(), (effect, first + 1));
    let done = || Outcome::Done { result: json!({ "id": 1 }) };
    scene.give(Input::EffectFinished { effect, attempt: first, outcome: done() }).unwrap();
    scene.tells(&["e attempt 1", "e attempt 1 failed: no answer in time", "e attempt 2", "e done", "run ended completed"]);
    scene.give(Input::EffectFinished { effect, attempt: first + 1, outcome: done() }).unwrap();
    scene.tells(&["run ended completed", "e attempt 2 settled: done"]);
    assert_eq!(scene.journal.last().unwrap().run, None, "it belongs to the subject, the run is over");
    let again = scene.give(Input::EffectFinished { effect, attempt: first + 1, outcome: done() });
    assert_eq!(again, Err(Rejection::NoSuchEffect));
}

#[test]
fn a_paused_run_sends_nothing_and_keeps_what_comes() {
    let mut scene = Scene::new(COMMAND, &format!("{}\n{}", EFFECT.replace("\"end\"", "\"f\""), EFFECT.replace("\"e\"", "\"f\"")));
    scene.start("m1").unwrap();
    let (run, (effect, attempt)) = (scene.run(), scene.effect());
    scene.give(Input::Pause { run, by: "kim".to_owned(), reason: "typo".to_owned() }).unwrap();
    assert_eq!(scene.state.to_perform(), []);
    let begun = scene.give(Input::EffectStarted { effect, attempt, executor: EXECUTOR.to_owned(), appended: scene.now });
    assert_eq!(begun, Err(Rejection::Paused));
    scene.give(Input::EffectFinished { effect, attempt, outcome: Outcome::Done { result: json!({}) } }).unwrap();
    scene.wait(DAY_MS);
    scene.tells(&["run paused by kim: typo", "e done"]);
    assert!(!scene.journal.iter().any(|fact| matches!(&fact.what, What::EffectRequested { node, .. } if node == "f")));
    scene.give(Input::Resume { run, by: "kim".to_owned() }).unwrap();
    scene.tells(&["run resumed", "f requested"]);
}

#[test]
fn two_clicks_are_one_decision_and_a_click_after_the_deadline_is_told() {
    let nodes = "[[node]]\nname = \"a\"\nkind = \"approval\"\nwho = \"bo\"\ndeadline = \"1d\"\nsilence = \"rejects\"\non_approve = \"slow\"\n\
                 on_reject = \"end\"\n[[node]]\nname = \"slow\"\nkind = \"delay\"\nwait = \"1d\"\nnext = \"end\"";
    let mut scene = Scene::new(COMMAND, nodes);
    scene.start("m1").unwrap();
    let run = scene.run();
    let click = |approved: bool, by: &str| {
        let (node, by) = ("a".to_owned(), by.to_owned());
        Input::Approval { run, node, approved, by, comment: String::new(), visit: None, provenance: Provenance::default() }
    };
    scene.give(click(true, "bo")).unwrap();
    assert_eq!(scene.give(click(false, "kim")), Err(Rejection::AlreadyDecided("approved by bo".to_owned())));
    let mut late = Scene::new(COMMAND, nodes);
    late.start("m1").unwrap();
    late.now = late.now + DAY_MS;
    late.give(click(true, "bo")).unwrap();
    late.tells(&["a asks bo", "bo decided too late", "a rejected by silence", "run ended completed"]);
}

#[test]
fn a_started_message_of_unknown_outcome_is_asked_about_and_never_sent_again_by_itself() {
    let mut scene = Scene::new(COMMAND, &format!("{EFFECT}\nunknown = \"ask_a_person\""));
    scene.start("m1").unwrap();
    let (effect, attempt) = scene.effect();
    scene.give(Input::EffectStarted { effect, attempt, executor: EXECUTOR.to_owned(), appended: scene.now }).unwrap();
    scene.wait(119_000);
    assert_eq!(scene.count(|what| matches!(what, What::AttemptUnknown { .. })), 0, "a minute to begin in, and one to be done in");
    scene.wait(1_000);
    scene.tells(&["e begun", "e permitted", "e attempt 1 unknown", "run paused by workflow: nobody knows whether `e` was done"]);
    let run = scene.run();
    scene.give(Input::Resume { run, by: "kim".to_owned() }).unwrap();
    assert_eq!(scene.state.to_perform(), [], "resuming all after a fix sends nothing whose outcome is unknown");
    scene.give(Input::Resolve { effect, done: Some(json!({})), by: "kim".to_owned() }).unwrap();
    scene.tells(&["run resumed by kim", "e done, as assumed", "run ended completed"]);
}

#[test]
fn a_signal_to_nobody_and_to_one_who_does_not_wait() {
    let mut scene = Scene::new(COMMAND, EFFECT);
    let signal = |run: RunId| Input::Signal { run, cause: "s1".to_owned(), name: "stop".to_owned(), payload: json!({}) };
    assert_eq!(scene.give(signal(RunId(7))), Err(Rejection::NoSuchRun(RunId(7))));
    scene.start("m1").unwrap();
    let run = scene.run();
    assert_eq!(scene.give(signal(run)), Err(Rejection::NotAwaited("stop".to_owned())));
}

#[test]
fn an_abandoned_cart_waits_for_the_order_of_its_own_cart() {
    let nodes = "[[node]]\nname = \"w\"\nkind = \"wait_for\"\ntimeout = \"1h\"\nnext = \"end\"\non_timeout = \"e\"\n\
                 any = [{ event = \"Order Completed\", when = \"event.cart == entry.cart\" }]\n";
    let mut scene = Scene::new("{ event = \"Cart Viewed\", key = \"event.cart\" }", &format!("{nodes}{EFFECT}"));
    scene.event("Cart Viewed", "m1", json!({ "cart": "a" }));
    scene.event("Cart Viewed", "m2", json!({ "cart": "b" }));
    scene.event("Order Completed", "m3", json!({ "cart": "b" }));
    scene.wait(HOUR_MS);
    scene.tells(&[
        "run of w for a started",
        "run of w for b started",
        "w saw Order Completed",
        "run ended completed",
        "w timer fired",
        "e requested",
    ]);
    assert_eq!(scene.state.runs.len(), 1);
}

#[test]
fn another_subjects_run_is_started_and_its_end_waited_for() {
    let nodes = "[[node]]\nname = \"s\"\nkind = \"start\"\nworkflow = \"other\"\nsubject = \"'shop-' + string(1)\"\ninput = { a = \"1 + 1\" }\n\
                 timeout = \"1d\"\nnext = \"end\"";
    let mut scene = Scene::new(COMMAND, nodes);
    scene.start("m1").unwrap();
    scene.tells(&["s starts other of shop-1"]);
    let run = scene.run();
    scene.give(Input::StartEnded { run, visit: 1, ending: Ending::Completed, result: json!({}) }).unwrap();
    scene.tells(&["s ended completed", "run ended completed"]);
    let deep =
        Input::Start { workflow: "w".to_owned(), cause: "m".to_owned(), entry: json!({}), profile: json!({}), depth: 16, parent: None };
    assert_eq!(scene.give(deep), Err(Rejection::TooDeep(16)));
}

#[test]
fn a_running_run_stays_on_its_digest() {
    let mut scene = Scene::new(COMMAND, "[[node]]\nname = \"d\"\nkind = \"delay\"\nwait = \"1h\"\nnext = \"end\"");
    scene.start("m1").unwrap();
    let newer = "[workflow]\nname = \"w\"\nentry = { command = true }\n[[node]]\nname = \"end\"\nkind = \"exit\"\noutcome = \"new\"\n";
    scene.library.activate(Arc::new(Definition::parse("w.toml", newer).unwrap_or_else(|problems| panic!("{problems}"))));
    scene.wait(HOUR_MS);
    scene.tells(&["d timer fired", "run ended completed"]);
    assert!(!scene.journal.iter().any(|fact| matches!(&fact.what, What::RunEnded { outcome, .. } if outcome == "new")));
}

#[test]
fn a_run_of_many_facts_has_a_state_of_few_bytes() {
    let nodes = "[[node]]\nname = \"l\"\nkind = \"loop\"\nmost = 100000\nbody = \"d\"\nnext = \"end\"\n\
                 [[node]]\nname = \"d\"\nkind = \"delay\"\nwait = \"1s\"\nnext = \"l\"";
    let mut scene = Scene::new(COMMAND, nodes);
    scene.start("m1").unwrap();
    let size = |state: &Subject| {
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        bytes.len()
    };
    scene.wait(1_000);
    let early = size(&scene.state);
    for _ in 0..2_000 {
        scene.wait(1_000);
    }
    assert!(scene.state.facts > 8_000);
    assert!(size(&scene.state) < early + 40, "{} then {}", early, size(&scene.state));
}

#[test]
fn facts_about_nothing_change_nothing() {
    let mut state = Subject::default();
    for what in [
        What::BranchEnded { visit: 3, failed: true },
        What::StepCancelled { visit: 9, effect: None },
        What::Redirected { to: "x".to_owned() },
    ] {
        evolve(&mut state, &Fact { at: Millis(0), run: Some(RunId(1)), what });
    }
    assert_eq!(state, Subject { facts: 3, ..Subject::default() });
}

#[test]
fn a_run_whose_decision_fails_is_paused_alone_and_the_others_go_on() {
    let nodes = "[[node]]\nname = \"w\"\nkind = \"wait_for\"\nany = [{ event = \"Go\", when = \"event.n == entry.n\", next = \"poison\" }, \
                 { event = \"Go\" }]\ntimeout = \"1d\"\nnext = \"end\"\n\
                 [[node]]\nname = \"poison\"\nkind = \"delay\"\nwait = \"1h\"\nnext = \"end\"";
    let mut scene = Scene::new("{ event = \"Start\", key = \"event.n\" }", nodes);
    for number in 1..=3 {
        scene.event("Start", &format!("m{number}"), json!({ "n": number }));
    }
    let (library, policy) = (scene.library.clone(), Policy::shipped());
    let context =
        Context { subject: "t\0u:ann", library: &library, policy: &policy, clock: Clock::Wall, is_held: false, heard: Millis::MAX };
    let before = scene.state.clone();
    let input = Input::Event {
        cause: "m9".to_owned(),
        name: "Go".to_owned(),
        properties: json!({ "n": 2 }),
        profile: json!({}),
        late: false,
        depth: 0,
    };
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drive(&mut scene.state, context, &input, scene.now)));
    assert!(panicked.is_err());
    scene.state = before;
    let poisoned = RunId::of("w", "t\0u:ann", "m2");
    let driven = isolate(&mut scene.state, context, &[poisoned], &input, scene.now);
    scene.journal.extend(driven.facts);
    scene.tells(&["run paused by isolation: a decision about event failed", "w saw Go", "run ended completed", "run ended completed"]);
    assert_eq!(scene.state.runs.len(), 1);
    assert!(scene.state.runs.values().all(|run| run.is_isolated()));
    // It takes part in nothing, until someone acts.
    scene.event("Go", "m10", json!({ "n": 2 }));
    scene.wait(2 * DAY_MS);
    let run = scene.run();
    scene.give(Input::Cancel { run, by: "kim".to_owned(), reason: String::new() }).unwrap();
    assert!(scene.state.runs.is_empty());
}

#[test]
fn categories_say_whether_trying_again_helps() {
    let ways = "\non_failure = \"gone\"\n[[node]]\nname = \"gone\"\nkind = \"exit\"\noutcome = \"fallback\"";
    let told = |more: &str, category: Category| {
        let mut scene = Scene::new(COMMAND, &format!("{}{more}{ways}", EFFECT.replace("channel = \"email\"", "agent = \"x\"")));
        scene.start("m1").unwrap();
        scene.finish(failed(category)).unwrap();
        let notified = scene.count(|what| matches!(what, What::Notified { .. }));
        let run = scene.state.runs.values().next();
        let state = match run {
            None => "fell back",
            Some(run) if run.paused.is_some() => "paused",
            Some(_) => "tries again",
        };
        (state, notified)
    };
    assert_eq!(told("", Category::Api), ("fell back", 1));
    assert_eq!(told("", Category::Agent), ("fell back", 0));
    assert_eq!(told("", Category::Data), ("fell back", 0));
    assert_eq!(told("", Category::Integration), ("tries again", 0));
    assert_eq!(told("", Category::System), ("tries again", 0));
    assert_eq!(told("\non_error = { api = \"retry\" }", Category::Api), ("tries again", 0));
    assert_eq!(told("\non_error = { data = \"pause\" }\nnotify = [\"data\"]", Category::Data), ("paused", 1));
    assert_eq!(told("\nnotify = []", Category::Api), ("fell back", 0));
}

#[test]
fn a_result_that_is_too_large_is_kept_as_far_as_it_was_declared() {
    let effect = EFFECT.replace("channel = \"email\"", "agent = \"x\"\nreturns = { score = \"double\" }").replace("\"end\"", "\"w\"");
    let wait = "[[node]]\nname = \"w\"\nkind = \"delay\"\nwait = \"1h\"\nnext = \"end\"";
    let mut scene = Scene::new(COMMAND, &format!("{effect}\n{wait}"));
    scene.start("m1").unwrap();
    scene.finish(Outcome::Done { result: json!({ "score": 0.5, "page": "x".repeat(RESULT_BYTES_MAX) }) }).unwrap();
    let kept = &scene.state.runs.values().next().unwrap().results["e"];
    assert_eq!(kept["score"], json!(0.5));
    assert!(kept["error"].as_str().unwrap().contains("bytes long") && kept.get("page").is_none());
}
