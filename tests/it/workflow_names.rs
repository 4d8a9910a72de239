//! What a workflow names beside itself, held against what there is: by `workflow check` against the configuration, by publishing against
//! the server.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::running::{Server, flywheel};

const LETTERS: &str = r#"[workflow]
name = "letters"
[workflow.entry]
segment = "lapsing"

[[node]]
name = "write"
kind = "effect"
agent = "oracle"
timeout = "1m"
next = "wait"

[[node]]
name = "wait"
kind = "wait_for"
any = [{ enters = "vip" }]
timeout = "1d"
on_timeout = "over"
next = "send"

[[node]]
name = "send"
kind = "effect"
channel = "email"
purpose = "news"
input = { template = "'winback'", subject = "'Hello'", body = "'You'" }
timeout = "1m"
next = "told"

[[node]]
name = "told"
kind = "effect"
webhook = "crm"
timeout = "1m"
next = "over"

[[node]]
name = "over"
kind = "exit"
"#;

const POLICY: &str = "[[purpose]]\nname = \"news\"\nbasis = \"opt_in\"\n";

const CONFIG: &str = r#"
[effects.workers.oracle]
url = "http://127.0.0.1:9/perform"

[channels.webhooks.crm]
url = "http://127.0.0.1:9/hook"
private = true
"#;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("topology.toml"), topology()).expect("the folder is writable");
        let topology = dir.path().join("topology.toml").display().to_string();
        let templates = dir.path().join("templates").display().to_string();
        std::fs::create_dir(&templates).expect("the folder is writable");
        let place = Self { dir };
        place.file("flywheel.toml", &format!("topology.default = {topology:?}\nchannels.templates = {templates:?}\n{config}"));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("the folder is writable");
        self.path(name).display().to_string()
    }

    /// Exit code, standard output and what was said beside it.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = flywheel(&self.path("data"), &self.path("flywheel.toml"), args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().expect("no signal"), text(&output.stdout), text(&output.stderr))
    }

    /// What `workflow check --json` finds: places with their reasons.
    fn checked(&self, file: &str) -> (i32, Vec<String>, Vec<String>) {
        let (code, out, _) = self.run(&["--json", "workflow", "check", file]);
        let found: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{out}: {error}"));
        let line = |one: &Value| format!("{}: {}", one["line"], one["reason"].as_str().unwrap_or_default());
        let lines = |name: &str| found[0][name].as_array().expect("a list").iter().map(line).collect();
        (code, lines("problems"), lines("warnings"))
    }
}

/// The shipped one, and a segment of our own.
fn topology() -> String {
    let spine = include_str!("../../topologies/spine.toml");
    format!("{spine}\n[[segment]]\nname = \"vip\"\nabout = \"Buys much.\"\nwhen = \"orders > 10\"\n")
}

const WRONG: [(&str, &str, &str); 5] = [
    ("segment = \"lapsing\"", "segment = \"lapsin\"", "4: there is no segment `lapsin` in the topology"),
    ("agent = \"oracle\"", "agent = \"orcale\"", "9: there is no agent `orcale` "),
    ("enters = \"vip\"", "enters = \"vipp\"", "16: there is no segment `vipp` in the topology"),
    ("purpose = \"news\"", "purpose = \"newss\"", "25: there is no purpose `newss` in the policy "),
    ("webhook = \"crm\"", "webhook = \"cmr\"", "33: there is no webhook `cmr` "),
];

#[test]
fn a_workflow_that_names_what_the_server_does_not_have_is_not_published() {
    let place = Place::new(CONFIG);
    let _server = Server::start(&place.path("data"), &place.path("flywheel.toml"));
    let policy = place.file("policy.toml", POLICY);
    let letters = place.file("letters.toml", LETTERS);
    let (code, _, said) = place.run(&["workflow", "publish", &letters]);
    assert!(code == 4 && said.contains("letters.toml:25:11: there is no purpose `news` in the policy in force"), "{code} {said}");
    assert!(said.contains("hint: there are marketing, transactional; ") && said.contains("1 mistake; nothing was published"), "{said}");
    // A policy of a tenant's own counts for that tenant's workflows.
    assert_eq!(place.run(&["policy", "publish", &policy, "--tenant", "acme"]).0, 0);
    assert_eq!(place.run(&["workflow", "publish", &letters]).0, 4);
    let (code, out, said) = place.run(&["workflow", "publish", &letters, "--tenant", "acme"]);
    assert!(code == 0 && out.contains("letters published"), "{code} {out} {said}");
    assert!(said.contains("warning: ") && said.contains("letters.toml:2:8: it has no tests"), "{said}");
    assert_eq!(place.run(&["policy", "publish", &policy]).0, 0);
    // Without its own policy the tenant is under the namespace's again.
    let shown = |tenant: &str| serde_json::from_str::<Value>(&place.run(&["--json", "policy", "show", "--tenant", tenant]).1).unwrap();
    assert_eq!(shown("acme")["tenant"], "acme");
    let (code, out, said) = place.run(&["policy", "retire", "--tenant", "acme"]);
    assert!(code == 0 && out.contains("the namespace's policy is in force for tenant acme"), "{code} {out} {said}");
    assert_eq!(shown("acme")["tenant"], Value::Null);
    assert_eq!(place.run(&["policy", "retire", "--tenant", "acme"]).0, 3, "there is none of its own any more");
    let everyones = LETTERS.replace("\"letters\"", "\"told\"\nabout = \"Letters to all.\"");
    let told = place.file("told.toml", &everyones);
    assert_eq!(place.run(&["workflow", "publish", &told, "--by", "kim"]).0, 0);
    assert_eq!(place.run(&["workflow", "retire", "told", "--by", "bo"]).0, 0);
    assert_eq!(place.run(&["wait"]).0, 0);
    let versions: Value = serde_json::from_str(&place.run(&["--json", "workflow", "versions", "told"]).1).unwrap();
    let version = &versions[0];
    assert_eq!(
        (&version["about"], &version["published_by"], &version["retired_by"]),
        (&json!("Letters to all."), &json!("kim"), &json!("bo"))
    );
    assert!(version["published_at"].is_string() && version["retired_at"].is_string() && version["is_active"] == false, "{version}");
    assert_eq!(place.run(&["workflow", "versions", "nosuch"]).0, 3);
    for (from, to, expected) in WRONG {
        let wrong = place.file("wrong.toml", &LETTERS.replacen(from, to, 1).replace("\"letters\"", "\"wrong\""));
        let (code, _, said) = place.run(&["workflow", "publish", &wrong]);
        let (line, reason) = expected.split_once(": ").unwrap();
        assert!(code == 4 && said.contains(&format!("wrong.toml:{line}:")) && said.contains(reason), "{to}: {code} {said}");
        assert!(said.contains("hint: did you mean `"), "{to}: {said}");
    }
}

#[test]
fn a_check_holds_names_against_the_configuration_and_without_one_only_says_so() {
    let place = Place::new(CONFIG);
    let letters = place.file("letters.toml", LETTERS);
    let (code, problems, warnings) = place.checked(&letters);
    assert_eq!((code, problems), (0, vec![]));
    let goal = "2: it has no goal: nothing tells whether its messages and arms do any good";
    let beside = ["2: it has no tests: nothing says what it is to do", goal];
    let shipped = "25: there is no purpose `news` in the shipped policy; another may be in force on the server";
    assert_eq!(warnings, [beside[0], beside[1], shipped], "the configuration names no policy");
    let (_, out, said) = place.run(&["workflow", "check", &letters]);
    assert!(out.contains(", 3 warnings") && said.contains("letters.toml:25:11: there is no purpose"), "{out} {said}");

    let policy = place.file("policy.toml", POLICY);
    let place = Place::new(&format!("policy.default = {policy:?}\n{CONFIG}"));
    let letters = place.file("letters.toml", LETTERS);
    assert_eq!(place.checked(&letters), (0, vec![], beside.map(str::to_owned).to_vec()));
    for (from, to, expected) in WRONG {
        let (code, problems, _) = place.checked(&place.file("wrong.toml", &LETTERS.replacen(from, to, 1)));
        assert!(code == 4 && problems.len() == 1 && problems[0].starts_with(expected), "{to}: {code} {problems:?}");
    }

    // Nobody said what there is: what is shipped stands in, and the words say it.
    let letters = place.file("letters.toml", LETTERS);
    let nowhere = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flywheel"));
    let output = command.current_dir(nowhere.path()).env_remove("FLYWHEEL_CONFIG").args(["workflow", "check", &letters]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    for warned in [
        "agent `oracle` among the shipped ones",
        "segment `vip` in the shipped topology spine",
        "webhook `crm` among",
        "the shipped policy",
    ] {
        assert!(said.contains(warned) && said.contains("warning: "), "{warned}: {said}");
    }
}

#[test]
fn one_broken_template_fails_who_uses_it_and_nobody_else() {
    let place = Place::new("");
    place.file("templates/torn.toml", "subject = 'Hi'\n\ntext = \"\"\"\nHello {{ nobody }}\n\"\"\"\n");
    let (code, out, said) = place.run(&["template", "list"]);
    assert!(
        code == 4 && out.contains("winback_reminder") && said.contains("torn.toml:4:1: text: nobody gives \"nobody\""),
        "{code} {out} {said}"
    );
    assert!(out.lines().any(|line| line.starts_with("torn ") && line.ends_with(" broken")), "{out}");
    let listed: Value = serde_json::from_str(&place.run(&["--json", "template", "list"]).1).unwrap();
    assert_eq!((&listed[2]["name"], &listed[2]["broken"], &listed[2]["problems"][0]["line"]), (&json!("torn"), &json!(true), &json!(4)));
    assert_eq!(place.run(&["workflow", "check"]).0, 0);
    let torn = LETTERS.replace("'winback'", "'torn'").replace("agent = \"oracle\"", "agent = \"content\"").replace("\"crm\"", "\"log\"");
    let (code, problems, _) = place.checked(&place.file("letters.toml", &torn));
    assert!(code == 4 && problems.len() == 1 && problems[0].starts_with("26: the template `torn` is broken: "), "{problems:?}");
    assert!(problems[0].ends_with("torn.toml:4: text: nobody gives \"nobody\""), "{problems:?}");
    assert_eq!(place.run(&["template", "preview", "torn"]).0, 4);
    assert_eq!(place.run(&["template", "preview", "winback"]).0, 0);
}
