//! What is the same of a definition to a journal and what is not.

use std::sync::Arc;

use super::super::context::{Clock, Context};
use super::super::library::Library;
use super::super::state::Subject;
use super::super::{Definition, Input, Policy, SHIPPED, Verified, apply, harness};
use crate::domain::Millis;

fn shipped(name: &str) -> (String, Arc<Definition>) {
    let text = SHIPPED.iter().find(|(known, _)| *known == name).expect("shipped").1;
    (text.to_owned(), parse(text))
}

fn parse(text: &str) -> Arc<Definition> {
    Arc::new(Definition::parse("w.toml", text).unwrap_or_else(|problems| panic!("{problems}")))
}

/// Holds `newer` against the journals that the tests of `recorded` give.
fn verified(recorded: &Definition, newer: &Arc<Definition>) -> Verified {
    let mut verified = Verified::default();
    for case in &recorded.tests {
        verified.add(newer, &Policy::shipped(), &case.subject, &harness::run(recorded, case), None);
    }
    verified
}

#[test]
fn what_a_definition_decided_itself_it_would_decide_again() {
    for (name, text) in SHIPPED {
        let definition = parse(text);
        let found = verified(&definition, &definition);
        assert!(found.runs >= definition.tests.len() && found.facts > 20, "{name}: {found:?}");
        assert_eq!(found.divergences, [], "{name}");
    }
}

#[test]
fn a_run_that_was_started_by_command_would_be_started_again_whatever_the_entry_is() {
    let (_, definition) = shipped("winback");
    let library = {
        let mut library = Library::default();
        library.activate(Arc::clone(&definition));
        library
    };
    let policy = Policy::shipped();
    let context =
        Context { subject: "t\0u:ann", library: &library, policy: &policy, clock: Clock::Wall, is_held: false, heard: Millis::MAX };
    let (entry, profile) = (serde_json::json!({}), serde_json::json!({ "orders": 1 }));
    let start = Input::Start { workflow: "winback".into(), cause: "api:1".into(), entry, profile, depth: 0, parent: None };
    let facts = apply(&mut Subject::default(), context, &start, Millis(0)).unwrap();
    let mut found = Verified::default();
    found.add(&definition, &policy, "t\0u:ann", &facts, None);
    assert_eq!((found.runs, found.divergences), (1, Vec::new()));
}

#[test]
fn comments_and_layout_and_what_nobody_came_to_change_nothing() {
    let (text, recorded) = shipped("winback");
    let found = verified(&recorded, &parse(&format!("# a comment\n{text}")));
    assert_eq!(found.divergences, []);
}

#[test]
fn another_text_of_a_condition_that_leads_to_the_same_node_is_no_difference() {
    let (text, recorded) = shipped("winback");
    let newer = |condition: &str| parse(&text.replace("orders >= 5", condition));
    assert_eq!(verified(&recorded, &newer("orders>4")).divergences, []);
    let more = verified(&recorded, &newer("orders >= 0")).divergences;
    assert!(!more.is_empty() && more.iter().all(|one| one.expected.contains("to generous")), "{more:?}");
}

#[test]
fn the_first_difference_of_each_run_is_told_with_its_fact() {
    let (text, recorded) = shipped("winback");
    let newer = parse(&text.replace("who = \"marketing\"", "who = \"legal\""));
    let found = verified(&recorded, &newer);
    let first = found.divergences.iter().find(|one| one.expected == "review asks legal").expect("told");
    assert_eq!(first.got, "review asks marketing");
    assert!(first.fact > 3 && first.subject == "ann", "{first:?}");
    assert!(found.divergences.len() < found.runs, "who was held out was never asked about: {found:?}");
}

#[test]
fn a_goal_that_is_gone_or_reached_by_another_event_and_another_entry_diverge() {
    let text = "[workflow]\nname = \"w\"\nentry = { event = \"Cart Viewed\" }\n[[node]]\nname = \"rest\"\nkind = \"delay\"\nwait = \"1d\"\n\
                next = \"end\"\n[[node]]\nname = \"bought\"\nkind = \"goal\"\nevent = \"Order Completed\"\n[[node]]\nname = \"end\"\n\
                kind = \"exit\"\n[[test]]\nname = \"buys\"\nstart = \"2024-03-01T10:00:00Z\"\ngiven = [\n\
                { at = \"0s\", event = \"Cart Viewed\" },\n{ at = \"1h\", event = \"Order Completed\" },\n]\nexpect = [\"goal bought reached\"]\n";
    let recorded = parse(text);
    assert_eq!(verified(&recorded, &recorded).divergences, []);
    let changed = [
        ("event = \"Order Completed\"\n[[node", "event = \"Order Paid\"\n[[node", 2),
        ("name = \"bought\"", "name = \"paid\"", 2),
        ("entry = { event = \"Cart Viewed\" }", "entry = { event = \"Product Viewed\" }", 1),
    ];
    for (from, to, fact) in changed {
        let (head, _) = text.split_at(text.find("[[test]]").unwrap());
        assert!(head.contains(from));
        let newer = parse(&head.replace(from, to));
        let found = verified(&recorded, &newer).divergences;
        assert_eq!(found.len(), 1, "{to}: {found:?}");
        assert!(found[0].fact >= fact, "{to}: {found:?}");
    }
}

#[test]
fn a_run_that_would_go_on_or_end_earlier_diverges_there() {
    let (text, recorded) = shipped("winback");
    let sooner = parse(&text.replace("wait = \"6d\"", "wait = \"5d\"").replace("6d run ended", "5d run ended"));
    let found = verified(&recorded, &sooner);
    assert_eq!(found.divergences.len(), 1, "{:?}", found.divergences);
    assert!(found.divergences[0].expected.starts_with("watch until") && found.divergences[0].got.starts_with("watch until"));
    assert_ne!(found.divergences[0].expected, found.divergences[0].got);
    let other_entry =
        parse(&text.replace("segment = \"lapsing\"", "segment = \"lost\"").replace("enters = \"lapsing\"", "enters = \"lost\""));
    let found = verified(&recorded, &other_entry);
    assert_eq!(found.divergences.len(), found.runs, "none of them would have begun");
    assert!(found.divergences.iter().all(|one| one.fact == 1), "{:?}", found.divergences.first());
}

#[test]
fn what_came_before_its_wait_was_heard_to_be_over_is_no_divergence() {
    let definition = parse(
        r#"
        [workflow]
        name = "w"
        [workflow.entry]
        command = true

        [[node]]
        name = "reply"
        kind = "wait_for"
        any = [{ event = "Replied" }]
        timeout = "5s"
        next = "glad"
        on_timeout = "sad"

        [[node]]
        name = "glad"
        kind = "exit"
        outcome = "replied"

        [[node]]
        name = "sad"
        kind = "exit"
        outcome = "silent"
        "#,
    );
    let (mut library, policy) = (Library::default(), Policy::shipped());
    library.activate(Arc::clone(&definition));
    let heard_until =
        |heard| Context { subject: "t\0u:ann", library: &library, policy: &policy, clock: Clock::Wall, is_held: false, heard };
    let nothing = serde_json::json!({});
    let start =
        Input::Start { workflow: "w".into(), cause: "1".into(), entry: nothing.clone(), profile: nothing.clone(), depth: 0, parent: None };
    // Stamped when it was appended, after the time-out, which partition time had not reached.
    let reply =
        Input::Event { cause: "2".into(), name: "Replied".into(), properties: nothing.clone(), profile: nothing, late: true, depth: 0 };
    let mut state = Subject::default();
    let mut facts = apply(&mut state, heard_until(Millis(0)), &start, Millis(0)).unwrap();
    facts.extend(apply(&mut state, heard_until(Millis(4_000)), &reply, Millis(5_800)).unwrap());
    assert!(state.runs.is_empty(), "the reply ended it: {facts:?}");
    let mut found = Verified::default();
    found.add(&definition, &policy, "t\0u:ann", &facts, None);
    assert_eq!((found.runs, found.divergences), (1, Vec::new()));

    let shorter = parse(&definition.canonical.replace("\"5s\"", "\"4s\""));
    let mut found = Verified::default();
    found.add(&shorter, &policy, "t\0u:ann", &facts, None);
    assert_eq!(found.divergences.len(), 1, "another time-out is still another way");
}
