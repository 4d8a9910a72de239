//! What each client of the wire contract really sends, and the one shape it becomes.

use serde_json::{Value, json};

use super::*;
use crate::domain::Subject;

const RECEIVED: &str = "2026-11-22T10:00:05.000Z";

struct Sent {
    client: &'static str,
    route: &'static str,
    batch: &'static str,
    body: &'static str,
    becomes: Value,
}

fn millis(text: &str) -> Millis {
    Millis::parse(text).unwrap()
}

fn parsed(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { serde_json::from_str(text).unwrap() }
}

#[track_caller]
fn check(sent: &Sent) {
    let key = key_of(sent.body, sent.route).unwrap();
    let item = Item {
        key_id: key.id(),
        key_is_user: key.is_user(),
        source: "web",
        message_id: "given-by-the-gateway",
        received_at: millis(RECEIVED),
        sent_at: Some(millis("2026-11-22T10:00:04.500Z")),
        route: sent.route,
        remote_ip: "203.0.113.9",
        user_agent: "client/1.0",
        historical: false,
        body: sent.body,
        batch: sent.batch,
    };
    let rules = Rules::new(&Settings::default(), Clock::Wall).unwrap();
    let decision = decide(&mut KeyState::default(), &item, Seen::No, &rules);
    assert_eq!(decision.outcome, Outcome::Applied, "{}: {}", sent.client, decision.detail);
    let Some(Output::Event { subject, event }) = decision.outputs.last() else { panic!("{}: no event", sent.client) };
    let became = json!({
        "key": key.to_string(),
        "subject": subject.to_string(),
        "kind": event.kind.as_str(),
        "name": event.name,
        "time": event.event_time.to_rfc3339(),
        "user": event.user_id,
        "anonymous": event.anonymous_id,
        "properties": parsed(&event.properties),
        "context": parsed(&event.context),
    });
    assert_eq!(became, sent.becomes, "{}", sent.client);
    assert!(matches!(subject, Subject::User(id) | Subject::Anonymous(id) if !id.is_empty()));
}

#[test]
fn segment_python_sends_null_ids_and_microseconds() {
    check(&Sent {
        client: "segment-analytics-python 2.4.0",
        route: "",
        batch: "",
        body: r#"{"integrations": {}, "anonymousId": null, "properties": {"plan": "pro", "price": 12.50}, "timestamp": "2026-11-22T10:00:03.123456+00:00",
            "userId": "u-1", "type": "track", "context": {"library": {"name": "analytics-python", "version": "2.4.0"}},
            "event": "Signed Up", "messageId": "8b9f"}"#,
        becomes: json!({
            "key": "u:u-1", "subject": "u:u-1", "kind": "track", "name": "Signed Up", "time": "2026-11-22T10:00:03.123Z",
            "user": "u-1", "anonymous": "", "properties": {"plan": "pro", "price": 12.5},
            "context": {"library": {"name": "analytics-python", "version": "2.4.0"}},
        }),
    });
}

#[test]
fn segment_node_sends_both_ids_and_metadata() {
    check(&Sent {
        client: "@segment/analytics-node 3.1.0",
        route: "",
        batch: "",
        body: r#"{"userId":"u-1","anonymousId":"a-1","event":"Order Completed","type":"track","properties":{"revenue":25},
            "context":{"library":{"name":"@segment/analytics-node","version":"3.1.0"}},"timestamp":"2026-11-22T10:00:03.000Z",
            "messageId":"node-next-1700000000000-4f1e0b3a","integrations":{"All":true,"Mixpanel":false},"_metadata":{"nodeVersion":"22.1","jsRuntime":"node"}}"#,
        becomes: json!({
            "key": "a:a-1", "subject": "u:u-1", "kind": "track", "name": "Order Completed", "time": "2026-11-22T10:00:03.000Z",
            "user": "u-1", "anonymous": "a-1", "properties": {"revenue": 25},
            "context": {"library": {"name": "@segment/analytics-node", "version": "3.1.0"}, "integrations": {"All": true, "Mixpanel": false}},
        }),
    });
}

#[test]
fn segment_browser_sends_a_page_to_its_own_route() {
    check(&Sent {
        client: "@segment/analytics-next 1.84.3",
        route: "page",
        batch: "",
        body: r#"{"timestamp":"2026-11-22T10:00:03.000Z","integrations":{},"type":"page","properties":{"path":"/docs","title":"Docs","url":"https://x.example/docs"},
            "name":"Docs","category":"Help","context":{"page":{"path":"/docs"},"userAgent":"Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0","locale":"en-US","timezone":"Europe/Berlin"},
            "messageId":"ajs-next-1700000000000-abcd","anonymousId":"7d2c1c5e","writeKey":"k","userId":null,"sentAt":"2026-11-22T10:00:04.500Z","_metadata":{"bundled":["Segment.io"]}}"#,
        becomes: json!({
            "key": "a:7d2c1c5e", "subject": "a:7d2c1c5e", "kind": "page", "name": "Docs", "time": "2026-11-22T10:00:03.000Z",
            "user": "", "anonymous": "7d2c1c5e",
            "properties": {"path": "/docs", "title": "Docs", "url": "https://x.example/docs", "name": "Docs", "category": "Help"},
            "context": {"page": {"path": "/docs"}, "userAgent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0", "locale": "en-US", "timezone": "Europe/Berlin"},
        }),
    });
}

#[test]
fn segment_java_leaves_the_context_to_the_batch() {
    check(&Sent {
        client: "segment-java 3.5.4",
        route: "",
        batch: r#"{"context":{"library":{"name":"analytics-java","version":"3.5.4"},"app":{"name":"shop","build":"7"}},"integrations":{"All":false}}"#,
        body: r#"{"type":"track","messageId":"m","timestamp":"2026-11-22T11:00:03.000+0100","context":{"app":{"build":"8"},"ip":"198.51.100.4"},"anonymousId":null,
            "userId":"u-1","event":"Item Added","properties":{}}"#,
        becomes: json!({
            "key": "u:u-1", "subject": "u:u-1", "kind": "track", "name": "Item Added", "time": "2026-11-22T10:00:03.000Z",
            "user": "u-1", "anonymous": "", "properties": null,
            "context": {
                "library": {"name": "analytics-java", "version": "3.5.4"}, "app": {"name": "shop", "build": "8"}, "ip": "198.51.100.4",
                "integrations": {"All": false},
            },
        }),
    });
}

#[test]
fn rudder_node_sends_only_the_original_timestamp() {
    check(&Sent {
        client: "@rudderstack/rudder-sdk-node 3.0.13",
        route: "",
        batch: "",
        body: r#"{"type":"track","userId":12345,"event":"Order Completed","properties":{"revenue":1},"channel":"server",
            "context":{"library":{"name":"@rudderstack/rudder-sdk-node","version":"3.0.13"}},"_metadata":{"nodeVersion":"22"},
            "originalTimestamp":"2026-11-22T10:00:03.000Z","sentAt":"2026-11-22T10:00:04.500Z","messageId":"0b1c"}"#,
        becomes: json!({
            "key": "u:12345", "subject": "u:12345", "kind": "track", "name": "Order Completed", "time": "2026-11-22T10:00:03.000Z",
            "user": "12345", "anonymous": "", "properties": {"revenue": 1},
            "context": {"library": {"name": "@rudderstack/rudder-sdk-node", "version": "3.0.13"}, "channel": "server"},
        }),
    });
}

#[test]
fn rudder_python_puts_traits_into_the_context() {
    check(&Sent {
        client: "rudder-sdk-python 2.1.9",
        route: "",
        batch: "",
        body: r#"{"type":"identify","userId":"u-1","anonymousId":"a-1","originalTimestamp":"2026-11-22T10:00:03.000000+00:00","channel":"server","traits":null,
            "context":{"traits":{"email":"ann@example.org","plan":"pro"}},"messageId":"m","integrations":{"All":true},"rudderId":"r"}"#,
        becomes: json!({
            "key": "a:a-1", "subject": "u:u-1", "kind": "identify", "name": "identify", "time": "2026-11-22T10:00:03.000Z",
            "user": "u-1", "anonymous": "a-1", "properties": {"email": "ann@example.org", "plan": "pro"},
            "context": {"traits": {"email": "ann@example.org", "plan": "pro"}, "channel": "server", "integrations": {"All": true}},
        }),
    });
}

#[test]
fn an_alias_is_keyed_by_the_id_it_ties() {
    check(&Sent {
        client: "any",
        route: "alias",
        batch: "",
        body: r#"{"previousId":"a-1","userId":"u-1","anonymousId":"a-2","timestamp":"2026-11-22T10:00:03Z"}"#,
        becomes: json!({
            "key": "a:a-1", "subject": "u:u-1", "kind": "alias", "name": "alias", "time": "2026-11-22T10:00:03.000Z",
            "user": "u-1", "anonymous": "a-1", "properties": null, "context": null,
        }),
    });
}

#[test]
fn a_group_keeps_its_id_in_the_context() {
    check(&Sent {
        client: "any",
        route: "group",
        batch: "",
        body: r#"{"groupId":77,"userId":"u-1","traits":{"employees":3},"timestamp":1795341603000}"#,
        becomes: json!({
            "key": "u:u-1", "subject": "u:u-1", "kind": "group", "name": "group", "time": "2026-11-22T10:00:03.000Z",
            "user": "u-1", "anonymous": "", "properties": {"employees": 3}, "context": {"groupId": 77},
        }),
    });
}

#[test]
fn php_writes_empty_objects_as_arrays_and_javascript_cuts_emoji() {
    check(&Sent {
        client: "any",
        route: "track",
        batch: "",
        body: r#"{"userId":"u-1","anonymousId":"undefined","event":"Typed \ud83d","properties":{"text":"\ud83d\ude00 \ude00!","n\\u":1},"context":[],"traits":[],
            "timestamp":"2026-11-22 10:00:03"}"#,
        becomes: json!({
            "key": "u:u-1", "subject": "u:u-1", "kind": "track", "name": "Typed \u{fffd}", "time": "2026-11-22T10:00:03.000Z",
            "user": "u-1", "anonymous": "", "properties": {"text": "\u{1f600} \u{fffd}!", "n\\u": 1}, "context": null,
        }),
    });
}
