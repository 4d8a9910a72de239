//! Policies on a real process: declared by the configuration or published, refused with their mistakes, and what they decide.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http_campaigns::ASKS;
use crate::running::{Server, flywheel, output_of, stderr_of};

/// Longer than any read model takes, on any machine that runs tests.
const PATIENCE: Duration = Duration::from_secs(60);

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

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// A folder whose configuration has this to say besides.
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let place = Self { dir };
        place.configure(config);
        place
    }

    fn configure(&self, config: &str) {
        let often = "[stream]\ntick_interval_ms = 50\ntick_idle_interval_ms = 50\n";
        self.file("flywheel.toml", &format!("{often}{config}"));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("the folder is writable");
        self.path(name).to_str().expect("a path of text").to_owned()
    }

    fn start(&self) -> Server {
        Server::start(&self.path("data"), &self.path("flywheel.toml"))
    }

    fn run(&self, args: &[&str]) -> (i32, String) {
        let output = flywheel(&self.path("data"), &self.path("flywheel.toml"), args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().expect("no signal"), text)
    }

    fn json(&self, args: &[&str]) -> Value {
        let all: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let text = output_of(&self.path("data"), &self.path("flywheel.toml"), &all);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?} printed {text:?}: {error}"))
    }

    fn publish(&self, name: &str, text: &str) {
        output_of(&self.path("data"), &self.path("flywheel.toml"), &["workflow", "publish", &self.file(name, text)]);
    }

    /// Says something about ann, and waits until it is known.
    fn identify(&self, id: &str, traits: &Value) {
        let event = json!({"type": "identify", "userId": "ann", "messageId": id, "traits": traits});
        let file = self.file("events.ndjson", &format!("{event}\n"));
        assert_eq!(self.run(&["send", &file]).0, 0);
        assert_eq!(self.run(&["wait"]).0, 0);
    }

    /// How a letter to ann ended, and its story.
    fn letter(&self, id: &str) -> (String, String) {
        let started = self.json(&["workflow", "start", "letter", "--user", "ann", "--id", id]);
        let run = started["run"].as_str().expect("an id");
        let begun = Instant::now();
        loop {
            let (_, story) = self.run(&["workflow", "story", run]);
            if let Some(end) = story.lines().find(|line| line.contains("run ended")) {
                return (end.rsplit(' ').next().expect("a word").to_owned(), story);
            }
            assert!(begun.elapsed() < PATIENCE, "the letter goes on: {story}");
        }
    }

    fn mails(&self) -> usize {
        std::fs::read_dir(self.path("data/outbox/main")).map_or(0, Iterator::count)
    }

    /// What is in force: shipped, from the file, or published; and its text.
    fn in_force(&self) -> (Value, Value, String) {
        let shown = self.json(&["policy", "show"]);
        (shown["is_shipped"].clone(), shown["from_file"].clone(), shown["text"].as_str().expect("text").to_owned())
    }
}

#[test]
fn with_an_opt_in_policy_nobody_is_written_to_before_a_yes() {
    let place = Place::new("");
    let server = place.start();
    place.publish("letter.toml", LETTER);
    let file = place.file("policy.toml", OPT_IN);
    let (code, text) = place.run(&["policy", "publish", &file]);
    assert!(code == 0 && text.contains("the policy is in force for everyone"), "{code} {text}");
    assert!(place.run(&["policy", "publish", &file]).1.contains("in force already"));

    place.identify("m1", &json!({"email": "ann@example.com"}));
    let (ended, story) = place.letter("first");
    assert!(ended == "refused" && story.contains("the purpose needs an opt-in and the person gave none"), "{story}");
    assert_eq!(place.run(&["wait"]).0, 0);
    let (_, refused) = place.run(&["query", "SELECT refusal_code FROM workflow_messages"]);
    assert!(refused.contains("consent_missing") && place.mails() == 0, "{refused}");

    place.identify("m2", &json!({"consent": {"marketing": true}}));
    let (ended, story) = place.letter("second");
    assert_eq!((ended.as_str(), place.mails()), ("sent", 1), "{story}");
    server.stop();
}

#[test]
fn a_policy_with_mistakes_is_refused_with_file_line_reason_and_hint() {
    let place = Place::new("");
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
    assert_eq!(place.in_force().0, true, "nobody declared one");
    server.stop();

    for (config, says) in [
        (format!("[policy]\ndefault = {wrong:?}\n"), "did you mean `opt_in`?"),
        (format!("[[namespaces]]\nname = \"eu\"\nclock = \"wall\"\npolicy = {wrong:?}\n"), "the policy of namespace eu"),
        ("[policy]\ndefault = \"nowhere.toml\"\n".to_owned(), "cannot read nowhere.toml"),
    ] {
        place.configure(&config);
        let (code, text) = place.run(&["up", "--listen", "127.0.0.1:0"]);
        assert!(code == 1 && text.contains(says), "{config}: {code} {text}");
    }
}

#[test]
fn a_policy_file_of_the_configuration_counts_when_it_was_changed_and_not_over_what_was_published_since() {
    let place = Place::new("");
    let file = place.file("policy.toml", OPT_IN);
    place.configure(&format!("[policy]\ndefault = {file:?}\n"));
    let server = place.start();
    let (is_shipped, from_file, text) = wait_for(&place, |(is_shipped, ..)| *is_shipped == json!(false));
    assert!(is_shipped == false && from_file == true && text.contains("opt_in"), "{text}");
    assert_eq!(place.run(&["policy", "publish", &place.file("published.toml", OPT_OUT)]).0, 0);
    server.stop();

    let server = place.start();
    let said = || stderr_of(&place.path("data"));
    let begun = Instant::now();
    while !said().contains("another policy was published since") {
        assert!(begun.elapsed() < PATIENCE, "{}", said());
    }
    assert!(place.in_force().2.contains("opt_out"));
    server.stop();

    place.file("policy.toml", &format!("{OPT_IN}[[quiet]]\nfrom = \"21:00\"\nto = \"08:00\"\n"));
    let server = place.start();
    let (_, from_file, text) = wait_for(&place, |(_, from_file, _)| *from_file == json!(true));
    assert!(from_file == true && text.contains("opt_in") && text.contains("quiet"), "{text}");
    server.stop();
}

fn wait_for(place: &Place, is: impl Fn(&(Value, Value, String)) -> bool) -> (Value, Value, String) {
    let begun = Instant::now();
    loop {
        let shown = place.in_force();
        if is(&shown) {
            return shown;
        }
        assert!(begun.elapsed() < PATIENCE, "{shown:?}");
    }
}

#[test]
fn an_approval_is_given_by_a_rule_of_the_published_policy() {
    let place = Place::new("");
    let server = place.start();
    place.publish("asks.toml", ASKS);
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
