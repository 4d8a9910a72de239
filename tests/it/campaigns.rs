//! A campaign on a real process, by its command line and the page that people get: published, started, asked about, decided once.

use flywheel::channels::link::{Keys, Kind, Link};
use flywheel::domain::Millis;
use flywheel::permit::EffectKey;
use serde_json::{Value, json};

use crate::http_campaigns::ASKS;
use crate::http_mailed::hidden_in;
use crate::place::{Place, until};

/// The open approvals, once there are so many in the read model.
fn approvals(place: &Place, count: usize) -> Vec<Value> {
    until(|| {
        let (code, text) = place.run(&["workflow", "approvals", "--json"]);
        let open = if code == 0 { serde_json::from_str::<Value>(&text).unwrap_or_default() } else { Value::Null };
        let open = open["approvals"].as_array().cloned().unwrap_or_default();
        if open.len() == count { Ok(open) } else { Err(format!("there are no {count} approvals: {text}")) }
    })
}

async fn page(method: &str, url: &str, body: &str) -> (u16, String) {
    let client = reqwest::Client::new();
    let request = if method == "GET" { client.get(url) } else { client.post(url).body(body.to_owned()) };
    let answer = request.send().await.expect("answers");
    (answer.status().as_u16(), answer.text().await.expect("a page"))
}

#[test]
fn a_campaign_is_published_started_decided_once_and_held_against_a_change_of_it() {
    let place = Place::new();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = place.start();
    let file = place.file("asks.toml", ASKS);
    let (code, text) = place.run(&["workflow", "publish", &file]);
    assert!(code == 0 && text.contains("asks published, 1 tests passed"), "{code} {text}");
    assert!(place.run(&["workflow", "publish", &file]).1.contains("in force already"));
    let mistake = place.file("wrong.toml", &ASKS.replace("on_reject = \"over\"", "on_reject = \"ovr\""));
    let (code, text) = place.run(&["workflow", "publish", &mistake]);
    assert!(code == 4 && text.contains("wrong.toml:16:") && text.contains("did you mean `over`?"), "{code} {text}");

    let start = |user: &str| {
        let input = json!({"subject": "Hi", "body": format!("Dear {user}")}).to_string();
        place.json(&["workflow", "start", "asks", "--user", user, "--id", user, "--input", &input])
    };
    let (ann, bob) = (start("ann"), start("bob"));
    assert_eq!((ann["status"].as_str(), start("ann")["status"].as_str()), (Some("started"), Some("already_started")));
    let open = approvals(&place, 2);
    let link_of = |run: &Value| {
        let one = open.iter().find(|one| one["run"] == run["run"]).expect("asked");
        one["link"].as_str().expect("a link").to_owned()
    };
    let link = link_of(&ann);
    assert!(link.starts_with(&server.url), "{link}");

    // One decides on the page, the other comes later.
    let (status, shown) = runtime.block_on(page("GET", &link, ""));
    assert!(status == 200 && shown.contains("Dear ann") && shown.contains("Approve"), "{status} {shown}");
    let form = hidden_in(&shown);
    let (status, said) = runtime.block_on(page("POST", &link, &format!("{form}&decision=approve&by=Bo")));
    assert!(status == 200 && said.contains("You approved it"), "{status} {said}");
    approvals(&place, 1);
    let (status, said) = runtime.block_on(page("POST", &link, &format!("{form}&decision=reject&by=Al")));
    assert!(status == 409 && said.contains("Bo (by the link of marketing) approved it"), "{status} {said}");
    let run = ann["run"].as_str().expect("an id");
    let (code, text) = place.run(&["workflow", "reject", run, "review"]);
    assert!(code == 1 && text.contains("Bo (by the link of marketing) approved it"), "{code} {text}");

    // And by the command line.
    let (code, text) = place.run(&["workflow", "reject", bob["run"].as_str().expect("an id"), "--comment", "not now", "--by", "cy"]);
    assert!(code == 0 && text.contains("rejected"), "{code} {text}");
    let (code, text) = place.run(&["workflow", "signal", run, "go", "--with", "{\"n\":1}"]);
    assert!(code == 0 && text.contains("matched") && text.contains("run ended completed"), "{code} {text}");
    approvals(&place, 0);
    until(|| {
        let (code, text) = place.run(&["workflow", "cancel", run]);
        if code == 1 && text.contains("the run has ended: completed") { Ok(()) } else { Err(format!("{code} {text}")) }
    });
    assert_eq!(place.run(&["workflow", "cancel", &"7".repeat(32)]).0, 3);

    // What happened, held against the same and against another definition; from the folder and from a file.
    let exported = place.path("journal.ndjson").to_str().expect("a path of text").to_owned();
    assert_eq!(place.run(&["topic", "export", "main.journal", "-o", &exported]).0, 0);
    for history in ["main", "main.journal", &exported] {
        let (code, text) = place.run(&["workflow", "verify", &file, "--against", history]);
        assert!(code == 0 && text.contains("asks: 2 of 2 runs"), "{history}: {code} {text}");
    }
    let changed = place.file("changed.toml", &ASKS.replace("timeout = \"3d\"", "timeout = \"4d\""));
    let (code, text) = place.run(&["workflow", "verify", &changed, "--against", &exported, "--json"]);
    assert_eq!(code, 4, "{text}");
    let told: Value =
        serde_json::from_str(text.lines().take_while(|line| !line.starts_with("error")).collect::<String>().as_str()).expect("JSON");
    let divergences = told["divergences"].as_array().expect("a list");
    assert_eq!((divergences.len(), divergences[0]["run"].as_str()), (1, Some(run)), "bob's run never came to the wait: {told}");

    let (code, text) = place.run(&["workflow", "retire", "asks"]);
    assert!(code == 0, "{code} {text}");
    let (code, text) = place.run(&["workflow", "start", "asks", "--user", "cy"]);
    assert!(code == 3 && text.contains("flywheel workflow publish"), "{code} {text}");
    server.stop();
    let (code, text) = place.run(&["workflow", "start", "asks"]);
    assert!(code == 1 && text.contains("flywheel up"), "{code} {text}");
}

/// Begins for whoever has ordered lately, by an event or by command.
const REGULARS: &str = r#"
[workflow]
name = "regulars"
[workflow.entry]
event = "Went By"
when = 'count("Order Completed", "30d") > 0'

[[node]]
name = "rest"
kind = "delay"
wait = "1d"
next = "over"

[[node]]
name = "over"
kind = "exit"
"#;

#[test]
fn a_run_knows_the_same_of_the_person_by_whichever_road_it_begins() {
    let place = Place::new();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = place.start();
    let file = place.file("regulars.toml", REGULARS);
    let (code, text) = place.run(&["workflow", "publish", &file]);
    assert!(code == 0 && text.contains("regulars published"), "{code} {text}");
    let track = |user: &str, event: &str| {
        let (url, body) = (format!("{}/v1/track", server.url), json!({"userId": user, "event": event}).to_string());
        let sent = runtime.block_on(reqwest::Client::new().post(url).basic_auth("development", Some("")).body(body).send());
        assert!(sent.expect("answers").status().is_success());
    };
    for user in ["ann", "bob"] {
        track(user, "Order Completed");
    }
    for user in ["ann", "cy"] {
        track(user, "Went By");
    }
    // What was sent before is applied: what is asked of the profile comes after it.
    assert_eq!(place.run(&["wait"]).0, 0);
    let runs = |user: &str| place.json(&["workflow", "list", "--subject", user])["runs"].as_array().map_or(0, Vec::len);
    assert_eq!((runs("ann"), runs("cy")), (1, 0), "by the event");
    let started = place.json(&["workflow", "start", "regulars", "--user", "bob"]);
    assert_eq!(started["status"], "started", "by command");
    let (code, text) = place.run(&["workflow", "start", "regulars", "--user", "cy"]);
    assert!(code == 1 && text.contains("the condition of its entry does not hold for this input and person: "), "{code} {text}");
    assert!(!text.contains("retired"), "one cause is told, and it is the right one: {text}");
}

/// The pages on a real process: what they show is what its folds and read models have.
#[test]
fn pages_go_by_what_was_decided_and_said() {
    let place = Place::new();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = place.start();
    let file = place.file("asks.toml", ASKS);
    assert_eq!(place.run(&["workflow", "publish", &file]).0, 0);
    let begun = place.json(&["workflow", "start", "asks", "--user", "ann", "--input", r#"{"subject":"Hi","body":"x"}"#]);
    let run = begun["run"].as_str().expect("an id");
    let open = approvals(&place, 1);
    let link = open[0]["link"].as_str().expect("a link");
    let (status, asked) = runtime.block_on(page("GET", link, ""));
    assert!(status == 200 && asked.contains("Your approval is asked for"), "{status} {asked}");
    // A decision about what was not shown is refused, by whichever way.
    let (code, text) = place.run(&["workflow", "approve", run, "--question", &format!("1.{}", "0".repeat(32))]);
    assert!(code == 1 && text.contains("asked anew"), "{code} {text}");
    assert_eq!(place.run(&["workflow", "cancel", run, "--by", "kim"]).0, 0);
    approvals(&place, 0);
    let (status, over) = runtime.block_on(page("GET", link, ""));
    assert!(status == 200 && over.contains("This is no longer asked") && !over.contains("<form"), "{status} {over}");
    let (status, over) = runtime.block_on(page("POST", link, &format!("{}&decision=approve", hidden_in(&asked))));
    assert!(status == 409 && over.contains("no longer asked"), "{status} {over}");

    // Ann says no to all marketing, and then yes to marketing by mail.
    let body = json!({"userId": "ann", "traits": {"consent": {"marketing": false}}}).to_string();
    let sent = reqwest::Client::new().post(format!("{}/v1/identify", server.url)).basic_auth("development", Some("")).body(body).send();
    assert!(runtime.block_on(sent).expect("answers").status().is_success());
    assert_eq!(place.run(&["wait"]).0, 0);
    let key = std::fs::read_to_string(place.data().join("link.key")).expect("the folder's own key");
    let keys = Keys::new("own", [("own".to_owned(), key.trim().as_bytes().to_vec())]).expect("a key");
    let link = Link {
        kind: Kind::Preferences,
        namespace: "main".to_owned(),
        tenant: "default".to_owned(),
        subject: "u:ann".to_owned(),
        effect: EffectKey([1; 16]),
        expires: Millis(4_000_000_000_000),
        detail: String::new(),
        sent: None,
    };
    let url = keys.url(&server.url, &link);
    let ticked = "value=\"marketing/email\" checked>";
    let (status, shown) = runtime.block_on(page("GET", &url, ""));
    assert!(status == 200 && shown.contains("value=\"marketing/email\">"), "{status} {shown}");
    let (status, kept) = runtime.block_on(page("POST", &url, "of=marketing%2Femail&yes=marketing%2Femail"));
    assert!(status == 200 && kept.contains("Your choice is kept") && kept.contains(ticked), "{status} {kept}");
    assert_eq!(place.run(&["wait"]).0, 0);
    let (_, later) = runtime.block_on(page("GET", &url, ""));
    assert!(later.contains(ticked), "{later}");
    server.stop();
}

#[test]
fn a_tenants_workflow_is_not_the_other_tenants_on_a_real_server_either() {
    let place = Place::new();
    let key = |tenant: &str| {
        format!(
            "[[sources]]\nname = \"{tenant}\"\nwrite_key = \"w-{tenant}\"\ntenant = \"{tenant}\"\nnamespace = \"main\"\n\
             [[api_keys]]\napi_key = \"k-{tenant}\"\ntenant = \"{tenant}\"\nnamespace = \"main\"\n"
        )
    };
    place.configure(&(key("acme") + &key("other")));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = place.start();
    let names = |key: &'static str| {
        let request = reqwest::Client::new().get(format!("{}/api/v1/workflows", server.url)).bearer_auth(key);
        let listed: Value = runtime.block_on(async { request.send().await.expect("answers").json().await.expect("JSON") });
        let names = listed["workflows"].as_array().expect("a list").iter().map(|one| format!("{} {}", one["name"], one["tenant"]));
        names.collect::<Vec<_>>()
    };
    let asks = place.file("asks.toml", ASKS);
    let (code, text) = place.run(&["workflow", "publish", &asks, "--tenant", "acme"]);
    assert!(code == 0 && text.contains("asks published"), "{code} {text}");
    let (code, text) = place.run(&["workflow", "publish", &asks]);
    assert!(code == 1 && text.contains("tenant acme has a workflow asks: choose another name"), "{code} {text}");
    let report = ASKS.replace("command = true\nreenter = \"always\"", "every = \"1h\"").replace("\"asks\"", "\"report\"");
    let report = place.file("report.toml", report.split("[[test]]").next().expect("a part"));
    let (code, text) = place.run(&["workflow", "publish", &report]);
    assert!(code == 0 && text.contains("report published") && text.contains("tenant `default`'s"), "{code} {text}");
    assert_eq!((names("k-acme").len(), names("k-other")), (2, vec!["\"report\" null".to_owned()]));
    assert_eq!(place.run(&["workflow", "start", "asks", "--user", "ann", "--tenant", "other"]).0, 3);
    let run = place.json(&["workflow", "start", "asks", "--user", "ann", "--tenant", "acme"]);
    let run = run["run"].as_str().expect("an id");
    let user = flywheel::config::user().unwrap_or_else(|| "command line".to_owned());
    let (code, text) = place.run(&["workflow", "reject", run, "review", "--tenant", "acme"]);
    assert!(code == 0 && text.contains(&format!("review rejected by {user}")), "who is at the terminal decides: {code} {text}");
    assert_eq!(place.run(&["wait"]).0, 0);
    let (_, versions) =
        place.run(&["query", "SELECT workflow, is_active, active_for FROM workflow_versions ORDER BY 1", "--format", "csv"]);
    assert!(versions.contains("asks,1,acme") && versions.contains("report,1,everyone"), "{versions}");
    let (code, text) = place.run(&["workflow", "retire", "asks"]);
    assert!(code == 1 && text.contains("--tenant"), "{code} {text}");
    assert_eq!(place.run(&["workflow", "retire", "asks", "--tenant", "acme"]).0, 0);
    server.stop();
}
