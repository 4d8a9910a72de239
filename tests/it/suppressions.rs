//! An address that bounces, on a real process: whoever has it gets nothing more, until somebody takes it off the list.

use serde_json::{Value, json};

use crate::place::{Place, until};

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

fn identify(place: &Place, user: &str, email: &str) {
    place.identify(user, &json!({ "email": email }));
}

/// Sends the person a note; what became of it, and the message's key.
fn note(place: &Place, user: &str, id: &str) -> (String, String) {
    let started = place.json(&["workflow", "start", "note", "--user", user, "--id", id]);
    let run = started["run"].as_str().expect("an id");
    until(|| {
        let (code, text) = place.run(&["workflow", "get", run, "--json"]);
        let found: Value = if code == 0 { serde_json::from_str(&text).unwrap_or_default() } else { Value::Null };
        let Some(outcome) = found["outcome"].as_str() else { return Err(format!("{user} {id}: {text}\n{}", place.said())) };
        Ok((outcome.to_owned(), found["effects"][0]["effect"].as_str().expect("an effect").to_owned()))
    })
}

fn refusal(place: &Place, effect: &str) -> String {
    let sql = format!("SELECT refusal_code FROM wf_effects WHERE effect_id = '{effect}'");
    place.query_one(&sql).as_str().unwrap_or_default().to_owned()
}

/// Hands in a report about this message, as postfix writes it.
fn report(place: &Place, key: &str, status: &str) -> Value {
    let mail = format!(
        "From: MAILER-DAEMON@mx.example\r\nTo: bounces@shop.example\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"b\"\r\n\r\n\
         --b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n\
         Final-Recipient: rfc822; somebody@forwarded.example\r\nAction: failed\r\nStatus: {status}\r\n\r\n\
         --b\r\nContent-Type: message/rfc822\r\n\r\nMessage-ID: <{key}@shop.example>\r\nSubject: Hi\r\n\r\nHi\r\n--b--\r\n"
    );
    place.json(&["mail", "intake", &place.file("report.eml", &mail)])
}

/// What the list says of an address.
fn listed(place: &Place, address: &str) -> Option<(String, String)> {
    place.done(&["wait"]);
    let (code, text) = place.run(&["suppression", "list", address, "--json"]);
    let listed: Value = serde_json::from_str(text.lines().next().unwrap_or_default()).unwrap_or_else(|_| {
        let end = text.rfind('}').expect("JSON");
        serde_json::from_str(&text[..=end]).expect("JSON")
    });
    let one = listed["suppressions"][0].clone();
    assert_eq!(code, if one.is_null() { 3 } else { 0 }, "{text}");
    Some((one["reason"].as_str()?.to_owned(), one["by"].as_str().unwrap_or_default().to_owned()))
}

#[test]
fn an_address_that_bounces_gets_nothing_more_whoever_has_it_until_it_is_taken_off_the_list() {
    let place = Place::new();
    let server = place.start();
    place.done(&["workflow", "publish", &place.file("note.toml", NOTE)]);
    identify(&place, "ann", "Family@Example.org");
    identify(&place, "bob", "family@example.org");
    let (outcome, key) = note(&place, "ann", "1");
    assert_eq!(outcome, "sent");

    let told = report(&place, &key, "5.7.1");
    assert_eq!((told["events"].as_u64(), told["address"].as_str()), (Some(1), None), "about us and not about the address: {told}");
    assert_eq!(listed(&place, "family@example.org"), None);
    let told = report(&place, &key, "5.1.1");
    assert_eq!(told["address"], "hard_bounce", "the address that we wrote to, not the one it was forwarded to: {told}");
    assert_eq!(listed(&place, "FAMILY@example.org"), Some(("hard_bounce".to_owned(), format!("message {key}"))));
    assert_eq!(listed(&place, "somebody@forwarded.example"), None);

    for user in ["bob", "ann"] {
        let (outcome, key) = note(&place, user, "2");
        assert_eq!((outcome.as_str(), refusal(&place, &key).as_str()), ("may not", "suppressed"), "{user}");
    }
    // Somebody who comes to the address later is told at once.
    identify(&place, "cy", "family@example.org");
    let (outcome, key) = note(&place, "cy", "1");
    assert_eq!((outcome.as_str(), refusal(&place, &key).as_str()), ("may not", "suppressed"));
    // Who gets another address is written to there.
    identify(&place, "bob", "bob@example.org");
    assert_eq!(note(&place, "bob", "3").0, "sent");

    assert!(place.done(&["suppression", "remove", "family@example.org", "--by", "kim"]).contains("1 addresses no longer suppressed"));
    assert_eq!(listed(&place, "family@example.org"), None);
    for user in ["ann", "cy"] {
        assert_eq!(note(&place, user, "4").0, "sent", "{user}");
    }
    let why = "SELECT count(*) FROM workflow_why_not WHERE what = 'suppressed'";
    assert_eq!(place.query_one(why), json!(0));

    // By hand, and from another provider's list.
    let file = place.file("list.txt", "bob@example.org\n\n dan@example.org \n");
    let (code, text) = place.run(&["suppression", "add", "--file", &file, "--reason", "complaint", "--by", "kim"]);
    assert!(code == 0 && text.contains("2 addresses suppressed"), "{code} {text}");
    assert_eq!(listed(&place, "dan@example.org"), Some(("complaint".to_owned(), "kim".to_owned())));
    let (outcome, key) = note(&place, "bob", "5");
    assert_eq!((outcome.as_str(), refusal(&place, &key).as_str()), ("may not", "suppressed"));
    let all = place.json(&["suppression", "list"]);
    assert_eq!(all["suppressions"].as_array().map(Vec::len), Some(2), "{all}");
    assert!(!all.to_string().contains("example.org"), "addresses are kept by their hashes");
    let (code, text) = place.run(&["suppression", "add", "nobody"]);
    assert!(code == 1 && text.contains("\"nobody\" is no email address"), "{code} {text}");
    for line in ["\"eve@example.org\"", "eve@example.org,complaint", "Eve <eve@example.org>", "mailto:eve@example.org", "email"] {
        let file = place.file("columns.txt", &format!("fay@example.org\n\n{line}\n"));
        let (code, text) = place.run(&["suppression", "add", "--file", &file]);
        assert!(code == 1 && text.contains("line 3 of ") && text.contains("is no email address"), "{line}: {code} {text}");
        let (code, text) = place.run(&["suppression", "list", line]);
        assert!(code == 1 && text.contains("is no email address"), "{line}: {code} {text}");
    }
    assert_eq!(listed(&place, "fay@example.org"), None, "of such a list none is taken");
    let (code, text) = place.run(&["suppression", "add", "--channel", "sms", "tel:+49 170"]);
    assert!(code == 1 && text.contains("is no phone address"), "{code} {text}");
    let (code, text) = place.run(&["suppression", "add", "a@b.example", "--until", "2001-01-01T00:00:00Z"]);
    assert!(code == 1 && text.contains("is no time to come"), "{code} {text}");
    assert_eq!(place.run(&["suppression", "add"]).0, 1);
    server.stop();
    let (code, text) = place.run(&["suppression", "remove", "dan@example.org"]);
    assert!(code == 1 && text.contains("flywheel up"), "{code} {text}");
}
