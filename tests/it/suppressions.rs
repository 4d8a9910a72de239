//! An address that bounces, on a real process: whoever has it gets nothing more, until somebody takes it off the list.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::running::{Server, flywheel, output_of, query_one, stderr_of};

/// Longer than any read model takes, on any machine that runs tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of a purpose without quiet hours and caps, so that the hour of the test does not matter.
const NOTE: &str = r#"
[workflow]
name = "note"
entry = { command = true, reenter = "always" }

[[node]]
name = "send"
kind = "effect"
channel = "email"
purpose = "transactional"
input = { subject = "'Hello'", text = "'A note.'" }
timeout = "1m"
unknown = "assume_done"
next = "sent"
on_refused = "may_not"

[[node]]
name = "sent"
kind = "exit"
outcome = "sent"

[[node]]
name = "may_not"
kind = "exit"
outcome = "may not"
"#;

struct Place {
    dir: tempfile::TempDir,
    server: Server,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("flywheel.toml"), "").expect("the folder is writable");
        std::fs::write(dir.path().join("note.toml"), NOTE).expect("the folder is writable");
        let server = Server::start(&dir.path().join("data"), &dir.path().join("flywheel.toml"));
        let place = Self { dir, server };
        place.done(&["workflow", "publish", place.path("note.toml").to_str().expect("a path of text")]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, args: &[&str]) -> (i32, String) {
        let output = flywheel(&self.path("data"), &self.path("flywheel.toml"), args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().expect("no signal"), text)
    }

    fn done(&self, args: &[&str]) -> String {
        output_of(&self.path("data"), &self.path("flywheel.toml"), args)
    }

    fn json(&self, args: &[&str]) -> Value {
        let all: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let text = self.done(&all);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?} printed {text:?}: {error}"))
    }

    fn identify(&self, user: &str, email: &str) {
        let line = json!({ "type": "identify", "userId": user, "traits": { "email": email } }).to_string();
        std::fs::write(self.path("people.ndjson"), line).expect("the folder is writable");
        self.done(&["send", self.path("people.ndjson").to_str().expect("a path of text")]);
        self.done(&["wait"]);
    }

    /// Sends the person a note; what became of it, and the message's key.
    fn note(&self, user: &str, id: &str) -> (String, String) {
        let started = self.json(&["workflow", "start", "note", "--user", user, "--id", id]);
        let run = started["run"].as_str().expect("an id").to_owned();
        let begun = Instant::now();
        loop {
            let (code, text) = self.run(&["workflow", "get", &run, "--json"]);
            let found: Value = if code == 0 { serde_json::from_str(&text).unwrap_or_default() } else { Value::Null };
            if let Some(outcome) = found["outcome"].as_str() {
                let effect = found["effects"][0]["effect"].as_str().expect("an effect").to_owned();
                return (outcome.to_owned(), effect);
            }
            assert!(begun.elapsed() < PATIENCE, "{user} {id}: {text}\n{}", stderr_of(&self.path("data")));
        }
    }

    fn refusal(&self, effect: &str) -> String {
        let sql = format!("SELECT refusal_code FROM wf_effects WHERE effect_id = '{effect}'");
        query_one(&self.path("data"), &self.path("flywheel.toml"), "main", &sql).as_str().unwrap_or_default().to_owned()
    }

    /// Hands in a report about this message, as postfix writes it.
    fn report(&self, key: &str, status: &str) -> Value {
        let mail = format!(
            "From: MAILER-DAEMON@mx.example\r\nTo: bounces@shop.example\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status; boundary=\"b\"\r\n\r\n\
             --b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n\
             Final-Recipient: rfc822; somebody@forwarded.example\r\nAction: failed\r\nStatus: {status}\r\n\r\n\
             --b\r\nContent-Type: message/rfc822\r\n\r\nMessage-ID: <{key}@shop.example>\r\nSubject: Hi\r\n\r\nHi\r\n--b--\r\n"
        );
        std::fs::write(self.path("report.eml"), mail).expect("the folder is writable");
        self.json(&["mail", "intake", self.path("report.eml").to_str().expect("a path of text")])
    }

    /// What the list says of an address.
    fn listed(&self, address: &str) -> Option<(String, String)> {
        self.done(&["wait"]);
        let (code, text) = self.run(&["suppression", "list", address, "--json"]);
        let listed: Value = serde_json::from_str(text.lines().next().unwrap_or_default()).unwrap_or_else(|_| {
            let end = text.rfind('}').expect("JSON");
            serde_json::from_str(&text[..=end]).expect("JSON")
        });
        let one = listed["suppressions"][0].clone();
        assert_eq!(code, if one.is_null() { 3 } else { 0 }, "{text}");
        Some((one["reason"].as_str()?.to_owned(), one["by"].as_str().unwrap_or_default().to_owned()))
    }
}

#[test]
fn an_address_that_bounces_gets_nothing_more_whoever_has_it_until_it_is_taken_off_the_list() {
    let place = Place::new();
    place.identify("ann", "Family@Example.org");
    place.identify("bob", "family@example.org");
    let (outcome, key) = place.note("ann", "1");
    assert_eq!(outcome, "sent");

    let told = place.report(&key, "5.7.1");
    assert_eq!((told["events"].as_u64(), told["address"].as_str()), (Some(1), None), "about us and not about the address: {told}");
    assert_eq!(place.listed("family@example.org"), None);
    let told = place.report(&key, "5.1.1");
    assert_eq!(told["address"], "hard_bounce", "the address that we wrote to, not the one it was forwarded to: {told}");
    assert_eq!(place.listed("FAMILY@example.org"), Some(("hard_bounce".to_owned(), format!("message {key}"))));
    assert_eq!(place.listed("somebody@forwarded.example"), None);

    for user in ["bob", "ann"] {
        let (outcome, key) = place.note(user, "2");
        assert_eq!((outcome.as_str(), place.refusal(&key).as_str()), ("may not", "suppressed"), "{user}");
    }
    // Somebody who comes to the address later is told at once.
    place.identify("cy", "family@example.org");
    let (outcome, key) = place.note("cy", "1");
    assert_eq!((outcome.as_str(), place.refusal(&key).as_str()), ("may not", "suppressed"));
    // Who gets another address is written to there.
    place.identify("bob", "bob@example.org");
    assert_eq!(place.note("bob", "3").0, "sent");

    assert!(place.done(&["suppression", "remove", "family@example.org", "--by", "kim"]).contains("1 addresses no longer suppressed"));
    assert_eq!(place.listed("family@example.org"), None);
    for user in ["ann", "cy"] {
        assert_eq!(place.note(user, "4").0, "sent", "{user}");
    }
    let why = "SELECT count(*) FROM workflow_why_not WHERE what = 'suppressed'";
    assert_eq!(query_one(&place.path("data"), &place.path("flywheel.toml"), "main", why), json!(0));

    // By hand, and from another provider's list.
    std::fs::write(place.path("list.txt"), "bob@example.org\n\n dan@example.org \n").expect("the folder is writable");
    let file = place.path("list.txt").to_str().expect("a path of text").to_owned();
    let (code, text) = place.run(&["suppression", "add", "--file", &file, "--reason", "complaint", "--by", "kim"]);
    assert!(code == 0 && text.contains("2 addresses suppressed"), "{code} {text}");
    assert_eq!(place.listed("dan@example.org"), Some(("complaint".to_owned(), "kim".to_owned())));
    let (outcome, key) = place.note("bob", "5");
    assert_eq!((outcome.as_str(), place.refusal(&key).as_str()), ("may not", "suppressed"));
    let all = place.json(&["suppression", "list"]);
    assert_eq!(all["suppressions"].as_array().map(Vec::len), Some(2), "{all}");
    assert!(!all.to_string().contains("example.org"), "addresses are kept by their hashes");
    let (code, text) = place.run(&["suppression", "add", "nobody"]);
    assert!(code == 1 && text.contains("\"nobody\" is no email address"), "{code} {text}");
    let (code, text) = place.run(&["suppression", "add", "a@b.example", "--until", "2001-01-01T00:00:00Z"]);
    assert!(code == 1 && text.contains("is no time to come"), "{code} {text}");
    assert_eq!(place.run(&["suppression", "add"]).0, 1);
    place.server.stop();
    let (code, text) = Place::after(&place.dir, &["suppression", "remove", "dan@example.org"]);
    assert!(code == 1 && text.contains("flywheel up"), "{code} {text}");
}

impl Place {
    fn after(dir: &tempfile::TempDir, args: &[&str]) -> (i32, String) {
        let output = flywheel(&dir.path().join("data"), &dir.path().join("flywheel.toml"), args);
        (output.status.code().expect("no signal"), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
