//! What begins a run and what does not: how deep it stands, who is told that nothing began, and what waits for a login.

use std::sync::Arc;

use serde_json::json;

use super::super::{DEPTH_MAX, Definition, Input, Parent, RunId, Skipped, What};
use super::scene::Scene;
use crate::domain::{DAY_MS, Millis};

const REST: &str = "[[node]]\nname = \"rest\"\nkind = \"delay\"\nwait = \"1h\"\nnext = \"end\"";
const SAYS: &str = "[[node]]\nname = \"say\"\nkind = \"emit\"\nevent = \"Said\"\nnext = \"end\"";

fn event(name: &str, depth: u8) -> Input {
    let (cause, name) = (format!("{name}{depth}"), name.to_owned());
    Input::Event { cause, name, properties: json!({}), profile: json!({}), late: false, depth }
}

fn skipped(scene: &Scene) -> Vec<(Skipped, Option<RunId>)> {
    let reason = |what: &What| match what {
        What::RunSkipped { reason, parent, .. } => Some((*reason, parent.as_ref().map(|parent| parent.run))),
        _ => None,
    };
    scene.journal.iter().filter_map(|fact| reason(&fact.what)).collect()
}

#[test]
fn a_run_stands_one_deeper_than_what_began_it_and_at_the_bound_none_begins() {
    let mut scene = Scene::new("{ event = \"Heard\", reenter = \"always\" }", SAYS);
    scene.give(event("Heard", 3)).unwrap();
    let emitted = scene.journal.iter().find_map(|fact| match &fact.what {
        What::EventEmitted { depth, .. } => Some(*depth),
        _ => None,
    });
    assert_eq!(emitted, Some(4));
    scene.give(event("Heard", DEPTH_MAX - 1)).unwrap();
    scene.give(event("Heard", DEPTH_MAX)).unwrap();
    assert_eq!(scene.count(|what| matches!(what, What::RunStarted { .. })), 2);
    assert_eq!(skipped(&scene), [(Skipped::TooDeep, None)]);

    let mut scene = Scene::new("{ segment = \"vip\", reenter = \"always\" }", REST);
    let entered = |depth: u8| Input::SegmentChange {
        cause: format!("m{depth}"),
        segment: "vip".to_owned(),
        entered: true,
        profile: json!({}),
        late: false,
        depth,
    };
    scene.give(entered(DEPTH_MAX)).unwrap();
    assert_eq!(skipped(&scene), [(Skipped::TooDeep, None)], "nor by way of a segment");
}

#[test]
fn what_is_too_deep_to_begin_anything_still_ends_waits() {
    let nodes = "[[node]]\nname = \"w\"\nkind = \"wait_for\"\nany = [{ event = \"Heard\" }]\ntimeout = \"1d\"\nnext = \"end\"";
    let mut scene = Scene::new("{ command = true }", nodes);
    scene.start("c").unwrap();
    scene.give(event("Heard", DEPTH_MAX)).unwrap();
    scene.tells(&["w saw Heard", "run ended completed"]);
}

fn start(workflow: &str, cause: &str) -> Input {
    let parent = Some(Parent { subject: "u:boss".to_owned(), run: RunId(7), visit: 3 });
    let (workflow, cause) = (workflow.to_owned(), cause.to_owned());
    Input::Start { workflow, cause, entry: json!({ "n": 1 }), profile: json!({}), depth: 1, parent }
}

#[test]
fn who_waits_for_a_run_is_named_where_none_began_but_not_where_the_same_one_did_before() {
    let mut scene = Scene::new("{ command = true, when = \"event.n > 1\" }", REST);
    scene.give(start("w", "c1")).unwrap();
    scene.give(start("nobody_knows", "c2")).unwrap();
    assert_eq!(skipped(&scene), [(Skipped::Condition, Some(RunId(7))), (Skipped::NoSuchWorkflow, Some(RunId(7)))]);

    let mut scene = Scene::new("{ command = true }", REST);
    scene.give(start("w", "c1")).unwrap();
    scene.give(start("w", "c1")).unwrap();
    scene.give(start("w", "c2")).unwrap();
    assert_eq!(skipped(&scene), [(Skipped::AlreadyStarted, None), (Skipped::StillRunning, Some(RunId(7)))]);

    // Nobody waits: refused to whoever asked, and no fact.
    let Input::Start { workflow, cause, entry, profile, depth, .. } = start("nobody_knows", "c3") else { unreachable!() };
    assert!(scene.give(Input::Start { workflow, cause, entry, profile, depth, parent: None }).is_err());
}

#[test]
fn a_broadcasts_start_that_is_due_waits_for_a_login_like_any_other() {
    for late_by in [0, DAY_MS] {
        let mut scene = Scene::new("{ broadcast = \"vip\", throttle = \"1d\" }", REST);
        scene.give(Input::Expect { anonymous: "a1".to_owned(), absorb: false }).unwrap();
        let (workflow, cause) = ("w".to_owned(), "b1".to_owned());
        let start = Input::Start { workflow, cause, entry: json!({}), profile: json!({}), depth: 0, parent: None };
        scene.give(Input::Later { at: scene.now + -late_by, input: Box::new(start) }).unwrap();
        assert!(skipped(&scene).is_empty() && scene.state.held.len() == 1);
        scene.give(Input::Carry(Box::new(super::super::Subject::default().carry("a1")))).unwrap();
        scene.tells(&["waits for what a1 leaves", "took in what a1 left", "1 held until now", "run of w started"]);
    }
}

#[test]
fn what_is_held_for_a_person_of_whom_nothing_was_known_is_of_now() {
    let mut scene = Scene::new("{ broadcast = \"vip\", throttle = \"1d\" }", REST);
    scene.state = super::super::Subject::default();
    scene.journal.clear();
    let (workflow, cause) = ("w".to_owned(), "b1".to_owned());
    let start = Input::Start { workflow, cause, entry: json!({}), profile: json!({}), depth: 0, parent: None };
    scene.give(Input::Later { at: scene.now + 60_000, input: Box::new(start) }).unwrap();
    let dated: Vec<Millis> = scene.journal.iter().map(|fact| fact.at).collect();
    assert_eq!(dated, [scene.now], "and not of 1970");
    scene.wait(60_000);
    scene.tells(&["1 held until now", "run of w started"]);
}

#[test]
fn a_workflow_that_emits_what_it_begins_with_is_refused_unless_something_stands_between() {
    let parse = |entry: &str| {
        let text = format!("[workflow]\nname = \"w\"\nentry = {entry}\n{SAYS}\n[[node]]\nname = \"end\"\nkind = \"exit\"\n");
        Definition::parse("w.toml", &text).map(Arc::new)
    };
    for entry in [
        "{ event = \"Said\" }",
        "{ event = \"Said\", reenter = \"always\" }",
        "{ event = \"Said\", reenter = \"never\", key = \"event.n\" }",
    ] {
        let problems = parse(entry).expect_err("it begins itself again and again");
        let problem = problems.0.iter().find(|problem| problem.message.contains("`say` emits the event")).expect("said of the node");
        assert_eq!(problem.line, 5);
        assert!(problem.hint.as_deref().is_some_and(|hint| hint.contains("`when`")));
    }
    for entry in [
        "{ event = \"Other\" }",
        "{ event = \"Said\", when = \"event.n > 1\" }",
        "{ event = \"Said\", reenter = \"never\" }",
        "{ event = \"Said\", reenter = \"after 1d\" }",
    ] {
        assert!(parse(entry).is_ok(), "{entry}");
    }
}
