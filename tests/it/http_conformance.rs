//! The wire contract, row by row: what each client sends, what it is answered, and what is in the log then.

use flywheel::gateway::Options;

use crate::http_support::*;

const OK: &str = r#"{"success":true}"#;
const EVENT: &str = r#"{"type":"track","event":"Seen","messageId":"m1","userId":"ann"}"#;

struct Row {
    /// Which client does this, or which trap it is.
    name: &'static str,
    request: Request,
    status: u16,
    /// The exact body of a 200, the `code` of an error.
    answer: &'static str,
    /// `KEY MESSAGE_ID ROUTE`, sorted; a derived message id is `-`.
    records: &'static [&'static str],
}

fn row(name: &'static str, request: Request, status: u16, answer: &'static str, records: &'static [&'static str]) -> Row {
    Row { name, request, status, answer, records }
}

async fn check(row: &Row) {
    let running = start(Options { event_bytes_max: 32 * 1024, body_bytes_max: 300_000, batch_events_max: 50, ..Options::default() }).await;
    let answer = running.send(&row.request).await;
    assert_eq!(answer.status, row.status, "{}: {}", row.name, answer.text());
    if row.status == 200 {
        assert_eq!(answer.text(), row.answer, "{}", row.name);
    } else {
        let json = answer.json();
        assert_eq!(json["code"], row.answer, "{}", row.name);
        assert!(json["message"].is_string(), "{}: every error has code and message", row.name);
    }
    assert!(answer.header("x-request-id").is_some(), "{}", row.name);
    assert_eq!(answer.header("retry-after").is_some(), matches!(row.status, 429 | 503), "{}", row.name);
    let mut records: Vec<String> = running.arrived("main").iter().map(summary).collect();
    records.sort();
    assert_eq!(records, row.records, "{}", row.name);
}

fn summary(arrived: &Arrived) -> String {
    let is_derived = arrived.record["IntakeItem"]["message_id_derived"] == true;
    let id = if is_derived { "-".to_owned() } else { arrived.text("message_id") };
    // An event without any id is keyed by the hash that stands for its message id.
    let key = arrived.key.replace(&arrived.text("message_id"), if is_derived { "-" } else { "MESSAGE" });
    format!("{key} {id} {}", arrived.text("route")).trim_end().to_owned()
}

fn batch_of(events: &str) -> String {
    format!(r#"{{"batch":[{events}],"sentAt":"2026-01-01T00:00:00Z"}}"#)
}

#[tokio::test]
async fn every_client_of_the_contract_is_understood() {
    let batch = batch_of(EVENT);
    let with_key = format!(r#"{{"writeKey":"{KEY}",{}"#, &batch[1..]);
    let single_with_key = format!(r#"{{"writeKey":"{KEY}",{}"#, &EVENT[1..]);
    let json = "application/json";
    let rows = [
        row("segment-python 2.4.0", post("/v1/batch", &with_key).key().header("Content-Type", json), 200, OK, &["u:ann m1"]),
        row("segment-python 2.3.4 has no Authorization", post("/v1/batch", &with_key).header("Content-Type", json), 200, OK, &["u:ann m1"]),
        row("segment-python with gzip", post("/v1/batch", &with_key).key().gzip(), 200, OK, &["u:ann m1"]),
        row("segment-node 3.1.0", post("/v1/batch", &with_key).key().header("Content-Type", json), 200, OK, &["u:ann m1"]),
        row("segment-node with OAuth", post("/v1/batch", &with_key).header("Authorization", "Bearer x.y.z"), 200, OK, &["u:ann m1"]),
        row(
            "segment-java 3.5.4",
            post("/v1/import/", &with_key).header("Content-Type", "application/json; charset=UTF-8"),
            200,
            OK,
            &["u:ann m1"],
        ),
        row("another Java SDK", post("/v1/b", &batch).key(), 200, OK, &["u:ann m1"]),
        row("rudder-python 2.1.9", post("/v1/batch", &batch).key().gzip(), 200, OK, &["u:ann m1"]),
        row(
            "rudder-node 3.0.13 calls gzip JSON a form",
            post("/v1/batch", &batch).key().gzip().header("Content-Type", "application/x-www-form-urlencoded"),
            200,
            OK,
            &["u:ann m1"],
        ),
        row("rudder-java 3.1.2 is chunked gzip", post("/v1/batch", &batch).key().gzip().chunked(), 200, OK, &["u:ann m1"]),
        row("segment-browser", post("/v1/t", &single_with_key).key().header("Content-Type", "text/plain"), 200, OK, &["u:ann m1 track"]),
        row("segment-browser, batching", post("/v1/b", &with_key).key().header("Content-Type", "text/plain"), 200, OK, &["u:ann m1"]),
        row("segment-browser, remote metrics", post("/v1/m", r#"{"series":[]}"#), 200, OK, &[]),
        row("rudder-js", post("/v1/track", EVENT).key().header("Content-Type", json), 200, OK, &["u:ann m1 track"]),
        row(
            "rudder-js at unload",
            post("/beacon/v1/batch?writeKey=wk_shop", &batch).header("Content-Type", "text/plain"),
            200,
            OK,
            &["u:ann m1"],
        ),
    ];
    for row in &rows {
        check(row).await;
    }
}

#[tokio::test]
async fn every_route_is_there_in_every_spelling() {
    let routes: [(&[&str], &str, &str); 7] = [
        (&["/v1/batch", "/v1/b", "/v1/import"], "u:ann m1", ""),
        (&["/v1/track", "/v1/t"], "u:ann m1 track", "track"),
        (&["/v1/identify", "/v1/i"], "u:ann m1 identify", "identify"),
        (&["/v1/page", "/v1/p"], "u:ann m1 page", "page"),
        (&["/v1/screen", "/v1/s"], "u:ann m1 screen", "screen"),
        (&["/v1/group", "/v1/g"], "u:ann m1 group", "group"),
        (&["/v1/alias", "/v1/a"], "u:ann m1 alias", "alias"),
    ];
    let running = start(Options::default()).await;
    let mut expected = Vec::new();
    for (paths, record, route) in routes {
        for path in paths {
            for spelling in [path.to_string(), format!("{path}/"), format!("/{path}"), path.replace("/v1/", "/v1//")] {
                let body = if route.is_empty() { batch_of(EVENT) } else { EVENT.to_owned() };
                let answer = running.send(&post(&spelling, body).key()).await;
                assert_eq!((answer.status, answer.text().as_str()), (200, OK), "{spelling}");
                expected.push(record.to_owned());
            }
        }
    }
    let mut records: Vec<String> = running.arrived("main").iter().map(summary).collect();
    records.sort();
    expected.sort();
    assert_eq!(records, expected);
}

#[tokio::test]
async fn keys_ids_and_types_come_from_where_they_may() {
    let track = |ids: &str| format!(r#"{{"type":"track","event":"Seen","messageId":"m1",{ids}}}"#);
    let batch = |ids: &str| batch_of(&track(ids));
    let rows = [
        row("Basic without the colon", post("/v1/batch", batch_of(EVENT)).basic(KEY), 200, OK, &["u:ann m1"]),
        row("Basic with a password", post("/v1/batch", batch_of(EVENT)).basic("wk_shop:secret"), 200, OK, &["u:ann m1"]),
        row("an empty Basic user, then the query", post("/v1/batch?writeKey=wk_shop", batch_of(EVENT)).basic(":"), 200, OK, &["u:ann m1"]),
        row(
            "the key in the event of a single route",
            post("/v1/track", format!(r#"{{"writeKey":"{KEY}",{}"#, &EVENT[1..])),
            200,
            OK,
            &["u:ann m1 track"],
        ),
        row(
            "anonymousId null, as Python sends it",
            post("/v1/batch", batch(r#""anonymousId":null,"userId":"ann""#)).key(),
            200,
            OK,
            &["u:ann m1"],
        ),
        row(
            "the anonymous id before the user id",
            post("/v1/batch", batch(r#""anonymousId":"x","userId":"ann""#)).key(),
            200,
            OK,
            &["a:x m1"],
        ),
        row("ids that are numbers", post("/v1/batch", batch(r#""userId":42"#)).key(), 200, OK, &["u:42 m1"]),
        row("ids with escapes", post("/v1/batch", batch(r#""userId":"a\"\u00e4""#)).key(), 200, OK, &["u:a\"ä m1"]),
        row(
            "an alias goes to the id it ties",
            post("/v1/alias", r#"{"messageId":"m1","previousId":"x","userId":"ann"}"#).key(),
            200,
            OK,
            &["a:x m1 alias"],
        ),
        row(
            "in a batch too",
            post("/v1/batch", batch_of(r#"{"type":"alias","messageId":"m1","previousId":"x","userId":"ann"}"#)).key(),
            200,
            OK,
            &["a:x m1"],
        ),
        row("no message id", post("/v1/track", r#"{"event":"Seen","userId":"ann"}"#).key(), 200, OK, &["u:ann - track"]),
        row(
            "two events of two people",
            post("/v1/batch", batch_of(&format!("{EVENT},{}", track(r#""userId":"bob""#)))).key(),
            200,
            OK,
            &["u:ann m1", "u:bob m1"],
        ),
        row("an empty batch", post("/v1/batch", batch_of("")).key(), 200, OK, &[]),
        row("a byte order mark", post("/v1/batch", format!("\u{feff}{}", batch_of(EVENT))).key(), 200, OK, &["u:ann m1"]),
        row(
            "gzip in capitals",
            post("/v1/batch", gzip(batch_of(EVENT).as_bytes())).key().header("Content-Encoding", "GZIP"),
            200,
            OK,
            &["u:ann m1"],
        ),
        row("gzip that nobody announced", post("/v1/batch", gzip(batch_of(EVENT).as_bytes())).key(), 200, OK, &["u:ann m1"]),
        row(
            "another Content-Type yet",
            post("/v1/batch", batch_of(EVENT)).key().header("Content-Type", "image/png"),
            200,
            OK,
            &["u:ann m1"],
        ),
        row(
            "the design document's track",
            post("/api/v1/events/track", r#"{"user_id":"ann","event":"product_viewed","message_id":"m1","properties":{"price":299.99}}"#)
                .key(),
            200,
            OK,
            &["u:ann m1 track"],
        ),
        row(
            "the design document's identify",
            post("/api/v1/users/identify", r#"{"user_id":"ann","message_id":"m1","traits":{"plan":"pro"}}"#).header("X-API-Key", KEY),
            200,
            OK,
            &["u:ann m1 identify"],
        ),
    ];
    for row in &rows {
        check(row).await;
    }
}

#[tokio::test]
async fn a_bad_event_does_not_cost_its_batch() {
    let huge =
        format!(r#"{{"type":"track","event":"Seen","messageId":"big","userId":"ann","properties":{{"x":"{}"}}}}"#, "x".repeat(40_000));
    let rows = [
        row(
            "no ids",
            post("/v1/batch", batch_of(&format!(r#"{EVENT},{{"type":"track","event":"Seen","messageId":"m2"}}"#))).key(),
            200,
            OK,
            &["a:MESSAGE m2", "u:ann m1"],
        ),
        row(
            "neither ids nor message id",
            post("/v1/batch", batch_of(&format!(r#"{EVENT},{{"type":"track"}}"#))).key(),
            200,
            OK,
            &["a:- -", "u:ann m1"],
        ),
        row("not an object", post("/v1/batch", batch_of(&format!("{EVENT},7"))).key(), 200, OK, &["a:- -", "u:ann m1"]),
        row(
            "an unknown type",
            post("/v1/batch", batch_of(&format!(r#"{EVENT},{{"type":"merge","messageId":"m2","userId":"bob"}}"#))).key(),
            200,
            OK,
            &["u:ann m1", "u:bob m2"],
        ),
        row(
            "NaN from Python",
            post("/v1/batch", batch_of(&format!(r#"{EVENT},{{"messageId":"m2","userId":"bob","properties":{{"x":NaN}}}}"#))).key(),
            200,
            OK,
            &["u:ann m1", "u:bob m2"],
        ),
        row(
            "a lone surrogate",
            post("/v1/batch", batch_of(&format!(r#"{EVENT},{{"messageId":"m2","userId":"bob","event":"\ud800"}}"#))).key(),
            200,
            OK,
            &["u:ann m1", "u:bob m2"],
        ),
        row(
            "bytes that are no UTF-8",
            post(
                "/v1/batch",
                [batch_of(EVENT).replace("Seen", "S\u{1}en").into_bytes()]
                    .concat()
                    .iter()
                    .map(|b| if *b == 1 { 0xff } else { *b })
                    .collect::<Vec<_>>(),
            )
            .key(),
            200,
            OK,
            &["u:ann m1"],
        ),
        row(
            "an event beyond its bound",
            post("/v1/batch", batch_of(&format!("{EVENT},{huge}"))).key(),
            200,
            OK,
            &["u:ann big", "u:ann m1"],
        ),
        row(
            "an id beyond its bound",
            post("/v1/batch", batch_of(&format!(r#"{{"messageId":"m2","userId":"{}"}}"#, "u".repeat(600)))).key(),
            200,
            OK,
            &["a:MESSAGE m2"],
        ),
        row("the same event alone", post("/v1/track", &huge).key(), 413, "event_too_large", &[]),
    ];
    for row in &rows {
        check(row).await;
    }
}

#[tokio::test]
async fn what_must_never_come_again_is_refused_with_code_and_message() {
    let bomb = gzip(&vec![b' '; 10_000_000]);
    let mut forged = bomb.clone();
    let length = forged.len();
    forged[length - 4..].copy_from_slice(&[1, 0, 0, 0]);
    let many = vec![EVENT; 51].join(",");
    let batch = || batch_of(EVENT);
    let rows = [
        row("no key anywhere", post("/v1/batch", batch()), 401, "no_write_key", &[]),
        row("an unknown key", post("/v1/batch", batch()).basic("nobody:"), 401, "invalid_write_key", &[]),
        row(
            "an unknown key is not made good by the body",
            post("/v1/batch", format!(r#"{{"writeKey":"{KEY}",{}"#, &batch()[1..])).basic("nobody:"),
            401,
            "invalid_write_key",
            &[],
        ),
        row(
            "an unknown key in the body",
            post("/v1/batch", format!(r#"{{"writeKey":"nobody",{}"#, &batch()[1..])),
            401,
            "invalid_write_key",
            &[],
        ),
        row("a beacon without a key", post("/beacon/v1/batch", batch()), 401, "no_write_key", &[]),
        row("a disabled source", post("/v1/batch", batch()).basic("wk_off:"), 404, "source_disabled", &[]),
        row("an empty body", post("/v1/batch", "").key(), 400, "invalid_json", &[]),
        row("not JSON", post("/v1/batch", "hello").key(), 400, "invalid_json", &[]),
        row("JSON cut short", post("/v1/batch", &batch()[..40]).key(), 400, "invalid_json", &[]),
        row("an array", post("/v1/batch", "[]").key(), 400, "invalid_json", &[]),
        row("no batch", post("/v1/batch", "{}").key(), 400, "invalid_json", &[]),
        row("a batch that is none", post("/v1/batch", r#"{"batch":"x"}"#).key(), 400, "invalid_json", &[]),
        row("a batch of too many", post("/v1/batch", batch_of(&many)).key(), 400, "too_many_events", &[]),
        row("nested without end", post("/v1/track", format!(r#"{{"a":{}"#, "[".repeat(200_000))).key(), 400, "invalid_json", &[]),
        row("gzip that is none", post("/v1/batch", batch()).key().header("Content-Encoding", "gzip"), 400, "invalid_gzip", &[]),
        row("gzip cut short", post("/v1/batch", &gzip(batch().as_bytes())[..20]).key(), 400, "invalid_gzip", &[]),
        row("another encoding", post("/v1/batch", batch()).key().header("Content-Encoding", "br"), 415, "unsupported_encoding", &[]),
        row("a gzip bomb", post("/v1/batch", bomb).key().header("Content-Encoding", "gzip"), 413, "body_too_large", &[]),
        row(
            "a gzip bomb that lies about its size",
            post("/v1/batch", forged).key().header("Content-Encoding", "gzip"),
            413,
            "body_too_large",
            &[],
        ),
        row("a body too large", post("/v1/batch", vec![b' '; 400_000]).key(), 413, "body_too_large", &[]),
        row("a body too large in chunks", post("/v1/batch", vec![b' '; 400_000]).key().chunked(), 413, "body_too_large", &[]),
        row(
            "a context too large for every event",
            post("/v1/batch", format!(r#"{{"batch":[{EVENT}],"context":{{"x":"{}"}}}}"#, "x".repeat(20_000))).key(),
            413,
            "body_too_large",
            &[],
        ),
        row("an unknown path", post("/v1/unknown", batch()).key(), 404, "not_found", &[]),
        row("the wrong method", get("/v1/batch").key(), 405, "method_not_allowed", &[]),
        row("the API says what is missing: ids", post("/api/v1/events/track", r#"{"event":"x"}"#).key(), 400, "invalid_request", &[]),
        row("the API says what is missing: event", post("/api/v1/events/track", r#"{"user_id":"x"}"#).key(), 400, "invalid_request", &[]),
        row("the API without a key", post("/api/v1/events/track", r#"{"user_id":"x","event":"y"}"#), 401, "no_write_key", &[]),
    ];
    for row in &rows {
        check(row).await;
    }
}

#[tokio::test]
async fn what_the_batch_and_the_request_say_is_beside_each_event() {
    let running = start(Options { trust_forwarded_for: true, ..Options::default() }).await;
    let body = r#"{"batch":[{"messageId":"m1","userId":"ann","sentAt":"2020-01-01T00:00:00Z"},{"messageId":"m2","userId":"ann"}],
        "sentAt":"2026-01-01T00:00:00.250Z","context":{"ip":"9.9.9.9"},"integrations":{"All":true},"historical":true}"#;
    let request = post("/v1/batch", body).key().header("User-Agent", "sdk/1").header("X-Forwarded-For", "203.0.113.7, 10.0.0.1");
    assert_eq!(running.send(&request).await.status, 200);
    let arrived = running.arrived("main");
    assert_eq!(arrived.len(), 2);
    for record in &arrived {
        let item = &record.record["IntakeItem"];
        assert_eq!(record.timestamp, NOW);
        assert_eq!(item["received_at"], NOW.0);
        assert_eq!(item["sent_at"], NOW.0 + 250);
        assert_eq!(item["source"], "shop");
        assert_eq!(item["remote_ip"], "203.0.113.7");
        assert_eq!(item["user_agent"], "sdk/1");
        assert_eq!(item["historical"], true);
        assert_eq!(item["batch"], r#"{"context":{"ip":"9.9.9.9"},"integrations":{"All":true}}"#);
    }
    assert_eq!(arrived[0].text("body"), r#"{"messageId":"m1","userId":"ann","sentAt":"2020-01-01T00:00:00Z"}"#);
}

#[tokio::test]
async fn a_missing_message_id_is_the_same_hash_when_the_event_is_sent_again() {
    let running = start(Options::default()).await;
    for sent_at in ["2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z"] {
        let event = format!(r#"{{"userId":"ann","event":"Seen","sentAt":"{sent_at}"}}"#);
        assert_eq!(running.send(&post("/v1/track", event).key()).await.status, 200);
    }
    assert_eq!(running.send(&post("/v1/track", r#"{"userId":"ann","event":"Other"}"#).key()).await.status, 200);
    let ids: Vec<String> = running.arrived("main").iter().map(|record| record.text("message_id")).collect();
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
}

#[tokio::test]
async fn a_pixel_is_always_an_image() {
    let running = start(Options::default()).await;
    let good = "/pixel/v1/track?writeKey=wk_shop&anonymousId=%22x%22&event=Opened&properties.mail=a%20b&context={%22ip%22:%221.1.1.1%22}";
    for path in
        [good, "/pixel/v1/page/?writeKey=wk_shop&anonymousId=x&name=", "/pixel/v1/track?event=Opened", "/pixel/v1/page?writeKey=nobody"]
    {
        let answer = running.send(&get(path)).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/gif")), "{path}");
        assert_eq!(answer.body.len(), 43, "{path}");
    }
    let mut arrived = running.arrived("main");
    arrived.sort_by_key(|record| record.text("route"));
    assert_eq!(arrived.len(), 2);
    let page: serde_json::Value = serde_json::from_str(&arrived[0].text("body")).expect("JSON");
    assert_eq!((&page["type"], &page["name"]), (&"page".into(), &"Unknown Page".into()));
    let track: serde_json::Value = serde_json::from_str(&arrived[1].text("body")).expect("JSON");
    assert_eq!(arrived[1].key, "a:x");
    assert_eq!(track["properties"]["mail"], "a b");
    assert_eq!(track["context"]["ip"], "1.1.1.1");
    assert_eq!(track["channel"], "web");
    assert!(track.get("writeKey").is_none(), "the key is no part of the event");
}

#[tokio::test]
async fn browsers_may_send_from_any_page_and_read_from_none() {
    let running = start(Options::default()).await;
    let page = "https://shop.example";
    let preflight = options("/v1/t")
        .header("Origin", page)
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "authorization,content-type,x-retry-count");
    let answer = running.send(&preflight).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(page));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization,content-type,x-retry-count"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(answer.header("access-control-max-age"), Some("900"));
    // Errors too: without the headers the page could not see a 429's Retry-After.
    for request in [post("/v1/t", EVENT).key(), post("/v1/t", EVENT), post("/v1/t/", "x").key()] {
        let answer = running.send(&request.header("Origin", page)).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some(page));
        assert!(answer.header("access-control-expose-headers").is_some_and(|names| names.contains("Retry-After")));
    }
    assert_eq!(running.send(&post("/v1/t", EVENT).key()).await.header("access-control-allow-origin"), None);
    for path in ["/api/v1/users/ann/profile", "/readyz", "/metrics", "/v1/namespaces/past/time"] {
        let answer = running.send(&options(path).header("Origin", page)).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (405, None), "{path}");
    }
}

#[tokio::test]
async fn browser_sdks_find_their_settings() {
    let running = start(Options::default()).await;
    let settings = running.send(&get("/v1/projects/wk_shop/settings").header("Origin", "https://shop.example")).await;
    assert_eq!(settings.header("access-control-allow-origin"), Some("https://shop.example"));
    let segment = &settings.json()["integrations"]["Segment.io"];
    assert_eq!(segment["apiKey"], KEY);
    assert_eq!(segment["apiHost"], format!("{}/v1", running.address));
    assert_eq!(segment["protocol"], "http");
    assert_eq!(settings.json()["plan"]["track"]["__default"]["enabled"], true);
    assert_eq!(running.send(&get("/v1/projects/nobody/settings")).await.status, 404);
    let rudder = running.send(&get("/sourceConfig/?p=npm&v=3.0.0&build=modern").key()).await;
    assert_eq!((rudder.status, &rudder.json()["source"]["enabled"]), (200, &true.into()));
    assert_eq!(rudder.json()["source"]["writeKey"], KEY);
    assert_eq!(running.send(&get("/sourceConfig/")).await.status, 401);
}
