//! Nothing goes on for ever and nothing grows without end: failures on the way that failures take, look-ups, loops, values.

use serde_json::json;

use super::super::state::Doing;
use super::super::{Category, Input, Outcome, What};
use super::scene::{COMMAND, Scene, failed};
use crate::domain::{HOUR_MS, MINUTE_MS};

fn agent(name: &str, next: &str, more: &str) -> String {
    format!("[[node]]\nname = \"{name}\"\nkind = \"effect\"\nagent = \"x\"\ntimeout = \"1m\"\nnext = \"{next}\"\n{more}\n")
}

const REST: &str = "[[node]]\nname = \"rest\"\nkind = \"delay\"\nwait = \"1h\"\nnext = \"end\"\n";

fn paused(scene: &Scene) -> String {
    scene.state.runs.values().next().and_then(|run| run.paused.clone()).map(|paused| paused.reason).unwrap_or_default()
}

#[test]
fn a_failure_on_the_way_that_failures_take_pauses_instead_of_going_round() {
    let note = "[[node]]\nname = \"note\"\nkind = \"set\"\nset = { n = \"vars.n + 1\" }\nnext = \"tell\"\n";
    let nodes = format!(
        "on_failure = \"note\"\nvars = {{ n = 0 }}\n{}{note}{}",
        agent("work", "end", "retry = { attempts = 1 }"),
        agent("tell", "end", "retry = { attempts = 1 }")
    );
    let mut scene = Scene::new(COMMAND, &nodes);
    scene.start("m1").unwrap();
    scene.finish(failed(Category::Api)).unwrap();
    scene.finish(failed(Category::Api)).unwrap();
    assert_eq!(scene.count(|what| matches!(what, What::Redirected { .. })), 1);
    assert_eq!(paused(&scene), "`tell` failed: no");
    let run = scene.run();
    scene.give(Input::Retry { run, by: "kim".to_owned() }).unwrap();
    scene.finish(Outcome::Done { result: json!({}) }).unwrap();
    scene.tells(&["run ended completed"]);
}

#[test]
fn what_is_found_not_done_is_tried_again_as_seldom_and_as_often_as_what_failed() {
    let mut scene =
        Scene::new(COMMAND, &agent("e", "end", "unknown = \"look_up\"\nretry = { attempts = 3, first = \"10s\", most = \"10s\" }"));
    scene.start("m1").unwrap();
    for round in 1..=3 {
        scene.finish(Outcome::Unknown { error: "broken pipe".to_owned() }).unwrap();
        scene.finish(Outcome::NotDone).unwrap();
        assert_eq!(scene.state.to_perform(), [], "not at once, after look-up {round}");
        scene.wait(MINUTE_MS);
    }
    assert_eq!(scene.state.to_perform(), [], "not after the third");
    assert_eq!(paused(&scene), "`e` failed: broken pipe");
    assert_eq!(scene.count(|what| matches!(what, What::AttemptMinted { look_up: false, .. })), 3);
}

#[test]
fn one_that_was_asked_to_do_it_and_says_it_was_not_done_has_failed() {
    let mut scene = Scene::new(COMMAND, &agent("e", "end", "retry = { attempts = 1 }"));
    scene.start("m1").unwrap();
    scene.finish(Outcome::NotDone).unwrap();
    assert!(paused(&scene).starts_with("`e` failed: said to be not done"), "{}", paused(&scene));
}

#[test]
fn a_result_that_is_not_as_declared_is_a_failure_of_its_data() {
    let returns = "returns = { subject = \"string\", score = \"int\" }";
    let cases = [
        (json!({ "title": "x", "score": 1 }), "`e` failed: the result has no `subject`, which is to be a string"),
        (json!({ "subject": null, "score": 1 }), "`e` failed: the result has no `subject`, which is to be a string"),
        (json!({ "subject": "x", "score": 1.5 }), "`e` failed: `score` of the result is to be a int, this is 1.5"),
        (json!({ "subject": "x", "score": 120.0 }), ""),
    ];
    for (result, expected) in cases {
        let mut scene = Scene::new(COMMAND, &format!("{}{REST}", agent("e", "rest", returns)));
        scene.start("m1").unwrap();
        scene.finish(Outcome::Done { result: result.clone() }).unwrap();
        assert_eq!(paused(&scene), expected, "{result}");
        let ints = scene.journal.iter().filter_map(|fact| match &fact.what {
            What::EffectCompleted { result, .. } => Some(result["score"].clone()),
            _ => None,
        });
        let whole: &[serde_json::Value] = if expected.is_empty() { &[json!(120)] } else { &[] };
        assert_eq!(ints.collect::<Vec<_>>(), whole, "a whole number that was written with a fraction is one");
    }
}

#[test]
fn a_message_is_not_told_what_is_not_known() {
    let email = "[[node]]\nname = \"e\"\nkind = \"effect\"\nchannel = \"email\"\ntimeout = \"1m\"\nnext = \"end\"\n\
                 input = { first_name = \"string(traits.first_name)\", order = \"entry.order\", shop = \"'Rosa'\" }";
    let mut scene = Scene::new(COMMAND, email);
    scene.start("m1").unwrap();
    let input = scene.journal.iter().find_map(|fact| match &fact.what {
        What::EffectRequested { input, .. } => Some(input.clone()),
        _ => None,
    });
    assert_eq!(input, Some(json!({ "shop": "Rosa" })), "so that its template says what is missing instead of writing `none`");
}

#[test]
fn an_expression_may_name_whose_run_it_is() {
    let nodes = agent("e", "end", "input = { whose = \"run.subject\", user = \"run.user_id\", anonymous = \"run.anonymous_id\" }");
    let mut scene = Scene::new("{ command = true, key = \"run.user_id\" }", &nodes);
    scene.start("m1").unwrap();
    let input = scene.journal.iter().find_map(|fact| match &fact.what {
        What::EffectRequested { input, .. } => Some(input.clone()),
        _ => None,
    });
    assert_eq!(input, Some(json!({ "whose": "u:ann", "user": "ann", "anonymous": null })));
    assert_eq!(scene.state.runs.values().next().and_then(|run| run.key.clone()).as_deref(), Some("ann"));
}

#[test]
fn a_branch_after_a_wait_sees_the_person_as_of_what_ended_it() {
    let nodes = "[[node]]\nname = \"w\"\nkind = \"wait_for\"\nany = [{ event = \"Bought\" }]\ntimeout = \"1d\"\nnext = \"b\"\n\
                 [[node]]\nname = \"b\"\nkind = \"branch\"\ncases = [{ when = \"orders > 1\", next = \"often\" }]\notherwise = \"end\"\n\
                 [[node]]\nname = \"often\"\nkind = \"exit\"\n";
    let mut scene = Scene::new(COMMAND, nodes);
    scene.start("m1").unwrap();
    let (cause, name, properties, profile) = ("m2".to_owned(), "Bought".to_owned(), json!({}), json!({ "orders": 2, "events": 9 }));
    scene.give(Input::Event { cause, name, properties, profile, late: false, depth: 0 }).unwrap();
    scene.tells(&["w saw Bought", "b (orders > 1) to often"]);
    let seen = scene.journal.iter().find_map(|fact| match &fact.what {
        What::WaitMatched { profile, .. } => Some(profile.clone()),
        _ => None,
    });
    assert_eq!(seen, Some(json!({ "orders": 2 })), "nothing that it does not read");
}

#[test]
fn what_may_have_been_sent_is_looked_for_before_it_is_sent_again() {
    let mut scene = Scene::new(COMMAND, super::scene::EFFECT);
    scene.start("m1").unwrap();
    scene.begin().unwrap();
    scene.finish(Outcome::Unknown { error: "cut off after the text".to_owned() }).unwrap();
    assert_eq!(scene.count(|what| matches!(what, What::AttemptMinted { look_up: true, .. })), 1);
}

#[test]
fn a_loop_that_was_left_early_begins_anew_with_the_next_round_of_the_loop_around_it() {
    let looped = |name: &str, most: u32, body: &str, next: &str| {
        format!("[[node]]\nname = \"{name}\"\nkind = \"loop\"\nmost = {most}\nbody = \"{body}\"\nnext = \"{next}\"\n")
    };
    let nodes = format!(
        "{}{}{}[[node]]\nname = \"enough\"\nkind = \"branch\"\notherwise = \"hours\"\n\
         cases = [{{ when = \"results.hours.round == 2\", next = \"days\" }}]\n",
        looped("days", 3, "hours", "end"),
        looped("hours", 5, "hour", "days"),
        "[[node]]\nname = \"hour\"\nkind = \"delay\"\nwait = \"1h\"\nnext = \"enough\"\n",
    );
    let mut scene = Scene::new(COMMAND, &nodes);
    scene.start("m1").unwrap();
    for _ in 0..20 {
        scene.wait(HOUR_MS);
    }
    let rounds = |of: &str| {
        let entered = scene.journal.iter().filter_map(move |fact| match &fact.what {
            What::LoopEntered { node, round, .. } if node == of => Some(*round),
            _ => None,
        });
        entered.collect::<Vec<_>>()
    };
    assert_eq!(rounds("days"), [1, 2, 3]);
    assert_eq!(rounds("hours"), [1, 2, 1, 2, 1, 2]);
    assert_eq!(scene.state.runs.len(), 0);
}

#[test]
fn a_variable_that_doubles_with_each_round_pauses_its_run_and_not_the_machine() {
    let nodes = "vars = { text = \"0123456789abcdef\" }\n\
                 [[node]]\nname = \"again\"\nkind = \"loop\"\nmost = 40\nbody = \"double\"\nnext = \"end\"\n\
                 [[node]]\nname = \"double\"\nkind = \"set\"\nset = { text = \"vars.text + vars.text\" }\nnext = \"again\"\n";
    let mut scene = Scene::new(COMMAND, nodes);
    scene.start("m1").unwrap();
    assert!(paused(&scene).starts_with("`double` would make `text` "), "{}", paused(&scene));
}

#[test]
fn what_one_decision_writes_down_has_an_end() {
    let text = "0123456789abcdef".repeat(3_000);
    let nodes = format!(
        "vars = {{ text = \"{text}\" }}\n\
         [[node]]\nname = \"again\"\nkind = \"loop\"\nmost = 1000\nbody = \"tell\"\nnext = \"end\"\n\
         [[node]]\nname = \"tell\"\nkind = \"emit\"\nevent = \"Told\"\nproperties = {{ text = \"vars.text\" }}\nnext = \"again\"\n"
    );
    let mut scene = Scene::new(COMMAND, &nodes);
    scene.start("m1").unwrap();
    assert!(paused(&scene).contains("bytes without waiting for anything"), "{}", paused(&scene));
    let told = scene.count(|what| matches!(what, What::EventEmitted { .. }));
    assert!((20..40).contains(&told), "{told}");
    let run = scene.run();
    scene.give(Input::Resume { run, by: "kim".to_owned() }).unwrap();
    assert!(scene.count(|what| matches!(what, What::EventEmitted { .. })) > told, "it goes on when told to");
    assert!(scene.state.runs.values().all(|run| run.steps.values().all(|step| !matches!(step.doing, Doing::Effect(_)))));
}
