//! A decision is about the question that its giver saw: asked anew, it is another.

use std::sync::Arc;

use serde_json::json;

use super::super::{Doing, Fact, Input, Outcome, Provenance, Rejection, RunId, Verified, What};
use super::scene::{COMMAND, Scene};
use crate::domain::{DAY_MS, HOUR_MS};

/// Asks in each round, and goes on to the next.
const ROUNDS: &str = "[[node]]\nname = \"again\"\nkind = \"loop\"\nbody = \"a\"\nmost = 3\nnext = \"end\"\n[[node]]\nname = \"a\"\n\
                      kind = \"approval\"\nwho = \"bo\"\nshows = { round = \"results.again.round\" }\ndeadline = \"1d\"\n\
                      silence = \"rejects\"\non_approve = \"again\"\non_reject = \"again\"";

const PAUSES: &str = "[[node]]\nname = \"a\"\nkind = \"approval\"\nwho = \"bo\"\nshows = { day = \"entry.day\" }\ndeadline = \"1d\"\n\
                      silence = \"pauses\"\non_approve = \"end\"\non_reject = \"end\"";

/// The newest question: its step, and what it is recognised by.
fn question(scene: &Scene) -> (u64, String) {
    let asked = scene.journal.iter().rev().find_map(|fact| match &fact.what {
        What::ApprovalRequested { visit, shown, .. } => Some((*visit, shown.clone())),
        _ => None,
    });
    asked.expect("something is asked")
}

fn says_yes(run: RunId, (visit, shown): (u64, String), cause: &str) -> Input {
    let provenance = Provenance { cause: cause.to_owned(), link: "bo".to_owned(), shown, ..Provenance::default() };
    Input::Approval { run, node: "a".into(), approved: true, by: "bo".into(), comment: String::new(), visit: Some(visit), provenance }
}

#[test]
fn a_decision_of_the_round_before_is_refused_and_told() {
    let mut scene = Scene::new(COMMAND, ROUNDS);
    scene.start("m1").unwrap();
    let (run, first) = (scene.run(), question(&scene));
    scene.wait(DAY_MS);
    let second = question(&scene);
    assert!(second.0 > first.0 && second.1 != first.1, "another round is another question");
    scene.give(says_yes(run, first.clone(), "c-1")).unwrap();
    scene.tells(&["a rejected by silence", "again round 2", "a asks bo", "what bo decided of a was not taken: it has been asked anew"]);
    assert_eq!(question(&scene), second, "it is still asked");
    scene.give(says_yes(run, second, "c-2")).unwrap();
    let decided = scene.journal.iter().find_map(|fact| match &fact.what {
        What::ApprovalDecided { approved: true, provenance, .. } => Some(provenance.clone()),
        _ => None,
    });
    assert_eq!(decided.map(|provenance| (provenance.cause, provenance.link)), Some(("c-2".to_owned(), "bo".to_owned())));
}

#[test]
fn asked_again_at_the_same_step_it_is_another_question() {
    let mut scene = Scene::new(COMMAND, PAUSES);
    scene.start("m1").unwrap();
    let (run, first) = (scene.run(), question(&scene));
    scene.wait(DAY_MS);
    scene.give(Input::Resume { run, by: "kim".to_owned() }).unwrap();
    let second = question(&scene);
    assert_eq!((first.0 == second.0, first.1 == second.1), (true, false), "the same step, and another deadline");
    scene.give(says_yes(run, first, "c-1")).unwrap();
    scene.tells(&["run resumed by kim", "a asks bo", "what bo decided of a was not taken"]);
    scene.give(says_yes(run, second, "c-2")).unwrap();
    scene.tells(&["what bo decided", "a approved by bo", "run ended completed"]);
}

#[test]
fn who_wrote_and_whose_link_it_was_are_both_told() {
    let mut scene = Scene::new(COMMAND, PAUSES);
    scene.start("m1").unwrap();
    let (run, (visit, shown)) = (scene.run(), question(&scene));
    let provenance = Provenance { cause: "c-1".into(), link: "marketing".into(), shown, ..Provenance::default() };
    let (node, by) = ("a".to_owned(), "the CEO".to_owned());
    scene.give(Input::Approval { run, node, approved: true, by, comment: String::new(), visit: Some(visit), provenance }).unwrap();
    scene.tells(&["a approved by the CEO (by the link of marketing)"]);
}

#[test]
fn commands_of_before_name_no_question_and_decide_what_is_open() {
    let mut scene = Scene::new(COMMAND, ROUNDS);
    scene.start("m1").unwrap();
    scene.wait(DAY_MS);
    let body = json!({"approval": {"run": scene.run(), "node": "a", "approved": true, "by": "bo", "comment": ""}});
    scene.give(serde_json::from_value(body).expect("a command of before")).unwrap();
    scene.tells(&["again round 2", "a asks bo", "a approved by bo", "again round 3"]);
    let unknown = says_yes(RunId(7), (1, String::new()), "c");
    assert_eq!(scene.give(unknown), Err(Rejection::NoSuchRun(RunId(7))));
}

#[test]
fn journals_of_before_are_replayed_and_verified_without_a_digest() {
    let mut scene = Scene::new(COMMAND, PAUSES);
    scene.start("m1").unwrap();
    let (run, asked) = (scene.run(), question(&scene));
    scene.give(says_yes(run, asked, "c-1")).unwrap();
    let old: Vec<Fact> = scene.journal.iter().cloned().map(of_before).collect();
    let definition = Arc::clone(scene.library.active("t", "w").expect("published"));
    let mut verified = Verified::default();
    verified.add(&definition, &scene.policy, "t\0u:ann", &old, None);
    assert_eq!((verified.runs, verified.divergences), (1, Vec::new()));
    let mut state = super::super::Subject::default();
    old.iter()
        .take_while(|fact| !matches!(fact.what, What::ApprovalDecided { .. }))
        .for_each(|fact| super::super::evolve(&mut state, fact));
    let open = state.runs[&run].steps.values().any(|step| matches!(&step.doing, Doing::Approval { shown, .. } if shown.is_empty()));
    assert!(open, "asked, and recognised by its step alone");
}

#[test]
fn the_message_that_was_approved_is_the_one_that_is_asked_for() {
    let nodes = "[[node]]\nname = \"a\"\nkind = \"approval\"\nwho = \"bo\"\ndeadline = \"1d\"\nsilence = \"approves\"\non_approve = \"later\"\n\
                 on_reject = \"end\"\n[[node]]\nname = \"later\"\nkind = \"delay\"\nwait = \"1h\"\nnext = \"e\"\n[[node]]\nname = \"e\"\n\
                 kind = \"effect\"\nchannel = \"email\"\ntimeout = \"1m\"\nnext = \"again\"\n[[node]]\nname = \"again\"\nkind = \"effect\"\n\
                 channel = \"email\"\ntimeout = \"1m\"\nnext = \"end\"";
    let approved = |scene: &Scene| {
        let asked = scene.journal.iter().filter_map(|fact| match &fact.what {
            What::EffectRequested { approved, .. } => Some(approved.clone()),
            _ => None,
        });
        asked.collect::<Vec<_>>()
    };
    let mut scene = Scene::new(COMMAND, nodes);
    scene.start("m1").unwrap();
    let (run, (visit, shown)) = (scene.run(), question(&scene));
    let provenance = Provenance { cause: "c-1".into(), link: "bo".into(), shown, message: "d1".into() };
    let (node, by) = ("a".to_owned(), "bo".to_owned());
    scene.give(Input::Approval { run, node, approved: true, by, comment: String::new(), visit: Some(visit), provenance }).unwrap();
    scene.wait(HOUR_MS);
    scene.begin().unwrap();
    scene.wait(1);
    scene.finish(Outcome::Done { result: json!({}) }).unwrap();
    assert_eq!(approved(&scene), ["d1", ""], "the message that follows, and no other");
    let mut silent = Scene::new(COMMAND, nodes);
    silent.start("m1").unwrap();
    silent.wait(DAY_MS);
    silent.wait(HOUR_MS);
    assert_eq!(approved(&silent), [""], "nobody has seen any");
}

/// As it was written before questions had digests and decisions a provenance.
fn of_before(fact: Fact) -> Fact {
    let (run, body) = fact.parts();
    let mut body: serde_json::Value = serde_json::from_str(&body).expect("a fact is JSON");
    for kind in ["approval_requested", "approval_decided"] {
        if let Some(fields) = body.get_mut(kind).and_then(serde_json::Value::as_object_mut) {
            fields.remove("shown");
            fields.remove("provenance");
        }
    }
    Fact::from_parts(fact.at, &run, &body.to_string()).expect("a fact of before")
}
