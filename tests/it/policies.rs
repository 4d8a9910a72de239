//! Policies on a real process: declared by the configuration or published, refused with their mistakes, and what they decide.

use serde_json::{Value, json};

use crate::http_campaigns::ASKS;
use crate::place::{Place, until};

const OPT_IN: &str = "[[purpose]]\nname = \"marketing\"\nbasis = \"opt_in\"\n";
const OPT_OUT: &str = "[[purpose]]\nname = \"marketing\"\nbasis = \"opt_out\"\n";

const LETTER: &str = r#"
[workflow]
name = "letter"
[workflow.entry]
command = true
reenter = "always"

[[node]]
name = "send"
kind = "effect"
channel = "email"
purpose = "marketing"
input = { template = "'winback'", subject = "'Come back'", body = "'We miss you.'" }
timeout = "1m"
on_refused = "refused"
next = "sent"

[[node]]
name = "sent"
kind = "exit"
outcome = "sent"

[[node]]
name = "refused"
kind = "exit"
outcome = "refused"
"#;

/// A configuration that has this to say, for a server in which time passes often.
fn often(config: &str) -> String {
    format!("[stream]\ntick_interval_ms = 50\ntick_idle_interval_ms = 50\n{config}")
}

fn place() -> Place {
    let place = Place::new();
    place.configure(&often(""));
    place
}

fn publish(place: &Place, name: &str, text: &str) {
    place.done(&["workflow", "publish", &place.file(name, text)]);
}

/// How a letter to ann ended, and its story.
fn letter(place: &Place, id: &str) -> (String, String) {
    let started = place.json(&["workflow", "start", "letter", "--user", "ann", "--id", id]);
    let run = started["run"].as_str().expect("an id");
    until(|| {
        let (_, story) = place.run(&["workflow", "story", run]);
        match story.lines().find(|line| line.contains("run ended")) {
            Some(end) => Ok((end.rsplit(' ').next().expect("a word").to_owned(), story)),
            None => Err(format!("the letter goes on: {story}")),
        }
    })
}

fn mails(place: &Place) -> usize {
    std::fs::read_dir(place.path("data/outbox/main")).map_or(0, Iterator::count)
}

/// A policy: whether it is the shipped one, whether it is the file's, and its text.
type InForce = (Value, Value, String);

fn in_force(place: &Place) -> InForce {
    let shown = place.json(&["policy", "show"]);
    (shown["is_shipped"].clone(), shown["from_file"].clone(), shown["text"].as_str().expect("text").to_owned())
}

fn until_in_force(place: &Place, is: impl Fn(&InForce) -> bool) -> InForce {
    until(|| {
        let shown = in_force(place);
        if is(&shown) { Ok(shown) } else { Err(format!("{shown:?}")) }
    })
}

#[test]
fn with_an_opt_in_policy_nobody_is_written_to_before_a_yes() {
    let place = place();
    let server = place.start();
    publish(&place, "letter.toml", LETTER);
    let file = place.file("policy.toml", OPT_IN);
    let (code, text) = place.run(&["policy", "publish", &file]);
    assert!(code == 0 && text.contains("the policy is in force for everyone"), "{code} {text}");
    assert!(place.run(&["policy", "publish", &file]).1.contains("in force already"));

    place.identify("ann", &json!({"email": "ann@example.com"}));
    let (ended, story) = letter(&place, "first");
    assert!(ended == "refused" && story.contains("the purpose needs an opt-in and the person gave none"), "{story}");
    assert_eq!(place.run(&["wait"]).0, 0);
    let (_, refused) = place.run(&["query", "SELECT refusal_code FROM workflow_messages"]);
    assert!(refused.contains("consent_missing") && mails(&place) == 0, "{refused}");

    place.identify("ann", &json!({"consent": {"marketing": true}}));
    let (ended, story) = letter(&place, "second");
    assert_eq!((ended.as_str(), mails(&place)), ("sent", 1), "{story}");
    server.stop();
}

#[test]
fn a_policy_with_mistakes_is_refused_with_file_line_reason_and_hint() {
    let place = place();
    let wrong = place.file("wrong.toml", &OPT_IN.replace("opt_in", "opt_inn"));
    let (code, text) = place.run(&["policy", "check", &wrong]);
    assert!(code == 4 && text.contains("wrong.toml:3:") && text.contains("did you mean `opt_in`?"), "{code} {text}");
    let capped = place.file("capped.toml", &format!("{OPT_IN}[[cap]]\nname = \"daily\"\nwindow = \"90d\"\nlimit = 1\n"));
    let (code, text) = place.run(&["policy", "check", &capped]);
    assert!(code == 4 && text.contains("capped.toml:4:") && text.contains("35 days"), "{code} {text}");
    assert_eq!(place.run(&["policy", "check", "nowhere.toml"]).0, 3);
    let (code, text) = place.run(&["policy", "check", &place.file("good.toml", OPT_IN)]);
    assert!(code == 0 && text.contains("1 purposes, 0 caps"), "{code} {text}");

    let server = place.start();
    let (code, text) = place.run(&["policy", "publish", &wrong]);
    assert!(code == 4 && text.contains("wrong.toml:3:") && text.contains("the policy is as it was"), "{code} {text}");
    assert_eq!(in_force(&place).0, true, "nobody declared one");
    server.stop();

    for (config, says) in [
        (format!("[policy]\ndefault = {wrong:?}\n"), "did you mean `opt_in`?"),
        (format!("[[namespaces]]\nname = \"eu\"\nclock = \"wall\"\npolicy = {wrong:?}\n"), "the policy of namespace eu"),
        ("[policy]\ndefault = \"nowhere.toml\"\n".to_owned(), "cannot read nowhere.toml"),
    ] {
        place.configure(&often(&config));
        let (code, text) = place.run(&["up", "--listen", "127.0.0.1:0"]);
        assert!(code == 1 && text.contains(says), "{config}: {code} {text}");
    }
}

#[test]
fn a_policy_that_a_workflow_in_force_cannot_do_with_is_refused_also_at_the_start() {
    let place = place();
    let server = place.start();
    publish(&place, "letter.toml", &LETTER.replace("\"marketing\"", "\"transactional\""));
    let narrow = place.file("narrow.toml", OPT_IN);
    let says = "the purpose `transactional` is used by node `send` of workflow letter";
    let (code, text) = place.run(&["policy", "publish", &narrow]);
    assert!(code != 0 && text.contains(says), "{code} {text}");
    assert_eq!(in_force(&place).0, true, "nothing of it is in force");
    server.stop();

    place.configure(&often(&format!("[policy]\ndefault = {narrow:?}\n")));
    let (code, text) = place.run(&["up", "--listen", "127.0.0.1:0"]);
    assert!(code == 1 && text.contains("the policy of namespace main") && text.contains(says), "{code} {text}");
    place.configure(&often(""));
    let server = place.start();
    place.done(&["workflow", "retire", "letter"]);
    place.done(&["policy", "publish", &narrow]);
    server.stop();
}

#[test]
fn a_policy_file_of_the_configuration_counts_when_it_was_changed_and_not_over_what_was_published_since() {
    let place = place();
    let file = place.file("policy.toml", OPT_IN);
    place.configure(&often(&format!("[policy]\ndefault = {file:?}\n")));
    let server = place.start();
    let (is_shipped, from_file, text) = until_in_force(&place, |(is_shipped, ..)| *is_shipped == json!(false));
    assert!(is_shipped == false && from_file == true && text.contains("opt_in"), "{text}");
    assert_eq!(place.run(&["policy", "publish", &place.file("published.toml", OPT_OUT)]).0, 0);
    server.stop();

    let server = place.start();
    until(|| {
        let said = place.said();
        if said.contains("another policy was published since") { Ok(()) } else { Err(said) }
    });
    assert!(in_force(&place).2.contains("opt_out"));
    server.stop();

    place.file("policy.toml", &format!("{OPT_IN}[[quiet]]\nfrom = \"21:00\"\nto = \"08:00\"\n"));
    let server = place.start();
    let (_, from_file, text) = until_in_force(&place, |(_, from_file, _)| *from_file == json!(true));
    assert!(from_file == true && text.contains("opt_in") && text.contains("quiet"), "{text}");
    server.stop();
}

#[test]
fn an_approval_is_given_by_a_rule_of_the_published_policy() {
    let place = place();
    let server = place.start();
    publish(&place, "asks.toml", ASKS);
    let rule = "[[approval]]\nworkflow = \"asks\"\nnode = \"review\"\nwhen = \"shows.subject == 'small'\"\nby = \"small campaigns\"\n";
    assert_eq!(place.run(&["policy", "publish", &place.file("policy.toml", &format!("{OPT_OUT}{rule}"))]).0, 0);
    let start = |subject: &str| {
        let input = json!({"subject": subject, "body": "x"}).to_string();
        place.json(&["workflow", "start", "asks", "--user", subject, "--input", &input])["story"].to_string()
    };
    let (small, large) = (start("small"), start("large"));
    assert!(small.contains("review approved by rule: small campaigns"), "{small}");
    assert!(large.contains("review asks marketing") && !large.contains("approved"), "{large}");
    server.stop();
}
