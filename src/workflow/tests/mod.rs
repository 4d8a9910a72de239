//! The core held against its promises: shipped workflows, refusals at check, single decisions, and chance.

mod addresses;
mod begins;
mod bounds;
mod clocks;
mod invariants;
mod logins;
mod long;
mod messages;
mod order;
mod program;
mod questions;
mod refusals;
mod scene;
mod scenes;
mod verify;
mod world;

use super::{Definition, Drawing, SHIPPED, draw, test};

#[test]
fn shipped_workflows_do_what_their_tests_say() {
    for (name, text) in SHIPPED {
        let definition =
            Definition::parse(&format!("topologies/workflows/{name}.toml"), text).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(definition.name, name);
        for verdict in test(&definition) {
            assert!(verdict.failures.is_empty(), "{name}: {verdict}");
        }
    }
}

#[test]
fn the_canonical_text_parses_to_the_same_workflow() {
    for (name, text) in SHIPPED {
        let definition = Definition::parse(name, text).unwrap();
        let again = Definition::parse(name, &definition.canonical).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!((again.digest, &again.canonical), (definition.digest, &definition.canonical));
        let commented = Definition::parse(name, &format!("# a comment\n{text}")).unwrap();
        assert_eq!(commented.digest, definition.digest);
        let changed = Definition::parse(name, &text.replace("timeout = \"2m\"", "timeout = \"3m\"").replace("\"5m\"", "\"6m\"")).unwrap();
        assert_ne!(changed.digest, definition.digest);
    }
}

#[test]
fn a_test_that_does_not_hold_says_what_is_missing_and_tells_the_story() {
    let text = SHIPPED[0].1.replace("2h review approved by bo", "2h review approved by kim");
    let verdicts = test(&Definition::parse("winback.toml", &text).unwrap());
    let failed: Vec<String> = verdicts.iter().filter(|verdict| !verdict.failures.is_empty()).map(ToString::to_string).collect();
    assert_eq!(failed.len(), 1);
    assert!(failed[0].contains("review approved by kim") && failed[0].contains("Z review approved by bo"), "{}", failed[0]);
}

#[test]
fn an_effect_that_a_test_says_nothing_of_fails_at_its_own_timeout() {
    let text = r#"
[workflow]
name = "w"
[workflow.entry]
command = true
[[node]]
name = "write"
kind = "effect"
agent = "content"
timeout = "1m"
on_failure = "send"
next = "over"
[[node]]
name = "send"
kind = "effect"
channel = "email"
timeout = "2m"
next = "over"
[[node]]
name = "over"
kind = "exit"
[[test]]
name = "nobody answers"
given = [{ start = true }]
expect = [
  "0s write requested",
  "1m write attempt 1 failed: no answer in time: the test's `effects` say nothing of `write`",
  "1m write failed",
  "1m send requested",
  "3m send attempt 1 failed: no answer in time: the test's `effects` say nothing of `send`",
  "3m run paused",
]
never = ["write attempt 2", "send begun"]
[[test]]
name = "the performer dies"
given = [{ start = true }]
effects = [{ node = "write", lost = true }, { node = "write", result = {} }]
expect = ["1m write attempt 1 failed: no answer in time", "write attempt 2", "write done", "run ended completed"]
"#;
    let definition = Definition::parse("w.toml", text).unwrap_or_else(|problems| panic!("{problems}"));
    for verdict in test(&definition) {
        assert!(verdict.failures.is_empty(), "{verdict}");
    }
}

#[test]
fn drawings_show_every_node_and_way() {
    for (name, text) in SHIPPED {
        let definition = Definition::parse(name, text).unwrap();
        let (plain, mermaid) = (draw(&definition, Drawing::Text), draw(&definition, Drawing::Mermaid));
        assert!(mermaid.starts_with("flowchart TD\n"));
        for node in &definition.nodes {
            assert!(plain.contains(&format!("  {} [", node.name)), "{plain}");
            assert!(mermaid.contains(&format!("  {}", node.name)), "{mermaid}");
        }
    }
    let winback = Definition::parse("winback", SHIPPED[0].1).unwrap();
    assert!(draw(&winback, Drawing::Text).contains("    approved: -> morning\n"));
    assert!(draw(&winback, Drawing::Mermaid).contains("  review -->|\"approved\"| morning\n"));
}

#[test]
fn what_commands_must_bring_of_the_profile_is_known() {
    let winback = Definition::parse("winback", SHIPPED[0].1).unwrap();
    assert_eq!(winback.profile, ["days_since_seen", "orders", "traits.first_name"]);
}

#[test]
fn every_kind_of_fact_and_command_and_node_is_in_the_documentation() {
    let docs = include_str!("../../../docs/workflows.md");
    let snake = |name: &str| {
        let mut snake = String::new();
        for c in name.chars() {
            if c.is_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.extend(c.to_lowercase());
        }
        snake
    };
    for (source, within) in [(include_str!("../fact.rs"), "pub enum What {"), (include_str!("../input.rs"), "pub enum Input {")] {
        let body = source.split(within).nth(1).and_then(|rest| rest.split("\n}").next()).unwrap();
        let variants = body.lines().filter_map(|line| line.strip_prefix("    ").filter(|line| line.starts_with(char::is_uppercase)));
        let names: Vec<String> = variants.map(|line| snake(line.trim_end_matches([',', ' ', '{']).split('(').next().unwrap())).collect();
        assert!(names.len() > 20, "{names:?}");
        for name in names {
            assert!(docs.contains(&format!("`{name}`")), "{name} of {within} is not in docs/workflows.md");
        }
    }
    for (kind, must, may) in super::document::KINDS {
        assert!(docs.contains(&format!("| `{kind}` |")), "{kind}");
        for key in must.iter().chain(may) {
            assert!(docs.contains(&format!("`{key}`")), "{key} of {kind}");
        }
    }
}
