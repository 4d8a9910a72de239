//! What performers make of what they meet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value as Json, json};

use crate::channels::link::{Keys, Kind};
use crate::channels::mail::Sender;
use crate::domain::{Millis, Namespace, Subject, TenantId};
use crate::engine::effects::performers::{Links, Messages, Worker};
use crate::engine::effects::{Call, Remote, Request, Templates};
use crate::env::ManualClock;
use crate::permit::Priority;
use crate::workflow::{Category, EffectId, Outcome, Performer, RunId, Unknown};

const NOW: Millis = Millis(1_780_000_000_000);

fn request(input: &Json, purpose: &str, unknown: Unknown) -> Request {
    Request {
        subject: Subject::user("ann").key(&TenantId::new("acme").unwrap()),
        run: RunId(1),
        effect: EffectId(0xabc),
        workflow: "w".into(),
        node: "n".into(),
        by: Performer::Channel,
        target: "email".into(),
        input: serde_json::value::to_raw_value(input).unwrap(),
        timeout_ms: 1_000,
        unknown,
        purpose: purpose.into(),
        approved: String::new(),
        priority: Priority::Normal,
        requested_at: NOW,
    }
}

fn messages() -> Messages {
    Messages {
        namespace: Namespace::new("main").unwrap(),
        sender: Sender::new("Shop <news@shop.example>", None, None).unwrap(),
        domain: "shop.example".into(),
        templates: Arc::new(Templates::shipped()),
        links: Links {
            base: "https://go.example".into(),
            keys: Keys::new("k", [("k".to_owned(), b"0123456789abcdef0123456789abcdef".to_vec())]).unwrap(),
        },
        clock: Arc::new(ManualClock::at(NOW)),
        tracks: true,
        without_unsubscribe: BTreeSet::from(["transactional".to_owned()]),
    }
}

fn written(input: &Json, purpose: &str) -> Result<String, String> {
    let mail = messages().write(&request(input, purpose, Unknown::LookUp), "ann@example.com")?;
    assert_eq!(mail, messages().write(&request(input, purpose, Unknown::LookUp), "ann@example.com")?, "trying again is the same message");
    Ok(String::from_utf8(mail.bytes).unwrap())
}

#[test]
fn a_message_is_its_template_filled_with_links_that_name_the_recipient() {
    let input = json!({ "template": "winback", "subject": "Hi Ann", "body": "Come back" });
    let mail = written(&input, "marketing").unwrap();
    let header = mail.split("List-Unsubscribe: <https://go.example/m/unsubscribe/").nth(1).unwrap();
    let token = header.split('>').next().unwrap();
    let link = messages().links.keys.open(Kind::Unsubscribe, token, NOW).unwrap();
    assert_eq!((link.tenant.as_str(), link.subject.as_str(), link.detail.as_str()), ("acme", "u:ann", "marketing/email"));
    assert!(mail.contains("List-Unsubscribe-Post: List-Unsubscribe=One-Click") && mail.contains("Subject: Hi Ann"));
    let parsed = mail_parser::MessageParser::default().parse(mail.as_bytes()).unwrap();
    assert!(parsed.body_html(0).unwrap().contains("https://go.example/m/open/"), "opens are told");
    assert!(!written(&input, "transactional").unwrap().contains("List-Unsubscribe"), "nobody unsubscribes from receipts");
}

#[test]
fn what_cannot_be_written_is_said_and_not_sent() {
    let cases = [
        (json!({ "template": "winback", "subject": "Hi" }), "template winback: html, line 3: undefined value"),
        (json!({ "template": "nothing" }), "there is no template \"nothing\""),
        (json!({ "template": 3 }), "a template is named by a text, not by 3"),
        (json!({ "subject": "Hi" }), "a message without a template needs `subject` and `text`"),
    ];
    for (input, expected) in cases {
        let error = written(&input, "marketing").unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert!(written(&json!({ "subject": "Hi", "text": "There" }), "marketing").unwrap().contains("There"));
}

#[test]
fn a_message_that_was_approved_goes_as_it_was_shown_or_not_at_all() {
    let input = json!({ "template": "winback", "subject": "Hi Ann", "body": "Come back" });
    let shown = messages().templates.words(request(&input, "marketing", Unknown::LookUp).input()).unwrap();
    let write = |messages: &Messages, input: &Json| {
        let request = Request { approved: shown.digest(), ..request(input, "marketing", Unknown::LookUp) };
        messages.write(&request, "ann@example.com").map(|mail| String::from_utf8(mail.bytes).unwrap())
    };
    assert!(write(&messages(), &input).unwrap().contains("Subject: Hi Ann"));
    let other = write(&messages(), &json!({ "template": "winback", "subject": "Hi Ann", "body": "Go away" })).unwrap_err();
    assert!(other.contains("is not the one that was approved") && other.contains("resume"), "{other}");
    // The template's file was edited between the approval and the sending.
    let dir = tempfile::tempdir().unwrap();
    let edited =
        "subject = '{{ subject }}'\ntext = '{{ body }}'\nhtml = '<p>{{ body }}</p><p>Only today!</p>'\n[inputs]\nsubject = 'x'\nbody = 'y'";
    std::fs::write(dir.path().join("winback.toml"), edited).unwrap();
    let edited = Messages { templates: Arc::new(Templates::load(dir.path()).unwrap()), ..messages() };
    assert!(write(&edited, &input).unwrap_err().contains("is not the one that was approved"));
}

/// What becomes of a call to a worker that answers so.
fn asked(status: u16, body: &'static str, unknown: Unknown, look_up: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let answer = move |headers: HeaderMap| async move {
            assert_eq!(headers["idempotency-key"], EffectId(0xabc).to_string());
            assert_eq!(headers["authorization"], "Bearer t");
            match status {
                0 => std::future::pending().await,
                status => (StatusCode::from_u16(status).unwrap(), [("retry-after", "7")], body),
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        let worker = Worker::new(&url, Some("t".into())).unwrap();
        let request = Arc::new(request(&json!({}), "", unknown));
        worker.perform(Call { request, attempt: 1, look_up, deadline: Duration::from_millis(300) }, None).await
    })
}

#[test]
fn a_workers_answer_says_whether_it_was_done_and_whether_to_come_again() {
    let done = |result: Json| Outcome::Done { result };
    assert_eq!(asked(200, r#"{"a":1}"#, Unknown::Retry, false), done(json!({ "a": 1 })));
    assert_eq!(asked(204, "", Unknown::Retry, false), done(json!({})));
    assert_eq!(asked(200, "fine", Unknown::Retry, false), done(json!({ "text": "fine" })));
    let failed =
        |category, permanent, retry_after_ms, error: &str| Outcome::Failed { category, error: error.into(), permanent, retry_after_ms };
    for status in [408, 425, 429, 503] {
        let expected = failed(Category::Integration, false, Some(7_000), &format!("{status}: later"));
        assert_eq!(asked(status, "later", Unknown::LookUp, false), expected);
    }
    assert_eq!(asked(422, "no", Unknown::Retry, false), failed(Category::Data, true, None, "422: no"));
    assert_eq!(asked(401, "who", Unknown::Retry, false), failed(Category::Api, true, None, "401: who"));
    assert_eq!(asked(500, "oh", Unknown::Retry, false), failed(Category::Integration, false, Some(7_000), "500: oh"));
    assert_eq!(asked(500, "oh", Unknown::LookUp, false), Outcome::Unknown { error: "500: oh".into() }, "it may have been done");
    assert_eq!(asked(404, "", Unknown::LookUp, true), Outcome::NotDone);
    assert!(matches!(asked(0, "", Unknown::LookUp, false), Outcome::Unknown { .. }));
}

#[test]
fn a_worker_that_is_not_there_has_done_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let request = Arc::new(request(&json!({}), "", Unknown::LookUp));
    let call = Call { request, attempt: 1, look_up: false, deadline: Duration::from_secs(5) };
    // Bound and closed again: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let outcome = runtime.block_on(Worker::new(&format!("http://127.0.0.1:{port}/"), None).unwrap().perform(call, None));
    assert!(matches!(outcome, Outcome::Failed { category: Category::Integration, permanent: false, .. }), "{outcome:?}");
}
