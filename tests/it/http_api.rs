//! The product's own API: who may read whose profile, who may state the time, and that its description is true.

use flywheel::domain::{Millis, TenantId};
use flywheel::gateway::{self, Access, Options};
use tracing_subscriber::layer::SubscriberExt;

use crate::http_support::*;

#[tokio::test]
async fn a_profile_is_read_without_a_key_only_by_the_machine_itself() {
    let running = start(Options::default()).await;
    let path = "/api/v1/users/ann/profile";
    let allowed = [
        (get(path), 200, "main/acme/u:ann"),
        (get(path).header("Host", "localhost:8080"), 200, "main/acme/u:ann"),
        (get(path).header("Host", "[::1]:8080"), 200, "main/acme/u:ann"),
        (get("/api/v1/users/u:ann/profile"), 200, "main/acme/u:ann"),
        (get("/api/v1/users/a:ann/profile"), 200, "main/acme/a:ann"),
        (get("/api/v1/users/%61nn/profile"), 200, "main/acme/u:ann"),
        (get("/api/v1/users/ann/profile?namespace=past&tenant=other"), 200, "past/other/u:ann"),
    ];
    for (request, status, place) in allowed {
        let answer = running.send(&request).await;
        assert_eq!((answer.status, answer.json()["where"].as_str()), (status, Some(place)), "{request:?}");
    }
    let refused = [
        (get(path).header("Origin", "https://evil.example"), 401, "invalid_api_key"),
        (get(path).header("X-Forwarded-For", "203.0.113.7"), 401, "invalid_api_key"),
        (get(path).header("Host", "rebound.example"), 401, "invalid_api_key"),
        (get(path).key(), 401, "invalid_api_key"),
        (get("/api/v1/users/nobody/profile"), 404, "not_found"),
        (get("/api/v1/users/broken/profile"), 500, "read_failed"),
        (get("/api/v1/users/early/profile"), 503, "starting"),
        (get("/api/v1/users/ann/profile?namespace=NO"), 400, "invalid_request"),
    ];
    for (request, status, code) in refused {
        let answer = running.send(&request).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{request:?}");
        assert!(!answer.json().to_string().contains("the disk is gone"), "what failed inside is for the server's log");
    }
}

#[tokio::test]
async fn an_api_key_reads_its_own_tenant_only() {
    let mut sources = sources();
    let access = Access { tenant: TenantId::new("acme").expect("a slug"), namespace: namespace("past") };
    sources.api_keys.insert("secret".to_owned(), access);
    let log = std::sync::Arc::new(flywheel::log::MemoryLog::new(std::sync::Arc::new(flywheel::env::ManualClock::at(NOW))));
    let running = start_on(Options::default(), sources, log).await;
    let path = "/api/v1/users/ann/profile?tenant=other&namespace=main";
    for request in [get(path).basic("secret:"), get(path).header("Authorization", "Bearer secret"), get(path).header("X-API-Key", "secret")]
    {
        assert_eq!(running.send(&request).await.json()["where"], "past/acme/u:ann");
    }
    for request in [get(path), get(path).basic("wrong:"), get(path).key()] {
        assert_eq!(running.send(&request).await.status, 401, "a write key is public and reads nothing");
    }
    let body = r#"{"time":"1997-01-31"}"#;
    assert_eq!(running.send(&post("/v1/namespaces/past/time", body)).await.status, 401);
    assert_eq!(running.send(&post("/v1/namespaces/main/time", body).basic("secret:")).await.status, 401);
    assert_eq!(running.send(&post("/v1/namespaces/past/time", body).basic("secret:")).await.status, 200);
}

#[tokio::test]
async fn with_sources_configured_nobody_reads_without_a_key() {
    let log = std::sync::Arc::new(flywheel::log::MemoryLog::new(std::sync::Arc::new(flywheel::env::ManualClock::at(NOW))));
    let running = start_on(Options::default(), gateway::Sources { keyless: None, ..sources() }, log).await;
    assert_eq!(running.send(&get("/api/v1/users/ann/profile")).await.status, 401, "a proxy on this machine sends just that");
    assert_eq!(running.send(&post("/v1/namespaces/past/time", r#"{"time":1}"#)).await.status, 401);
}

#[tokio::test]
async fn an_importer_states_the_time_to_every_partition() {
    let running = start(Options::default()).await;
    let answer = running.send(&post("/v1/namespaces/past/time", r#"{"time":"1997-01-31T00:00:00Z"}"#)).await;
    assert_eq!(answer.text(), r#"{"time":"1997-01-31T00:00:00.000Z","partitions":4}"#);
    assert_eq!(running.send(&post("/v1/namespaces/past/time", r#"{"time":854668800001}"#)).await.status, 200);
    let arrived = running.arrived("past");
    assert_eq!(arrived.len(), 2 * PARTITIONS as usize);
    for (index, record) in arrived.iter().enumerate() {
        assert_eq!((record.partition.0 as usize, record.key.as_str()), (index / 2, ""));
        assert_eq!(record.record["TimeStatement"]["time"], Millis(854_668_800_000 + (index % 2) as i64).0);
    }
    let refused = [
        ("/v1/namespaces/main/time", r#"{"time":"1997-01-31"}"#, 400),
        ("/v1/namespaces/none/time", r#"{"time":"1997-01-31"}"#, 404),
        ("/v1/namespaces/past/time", r#"{"time":"soon"}"#, 400),
        ("/v1/namespaces/past/time", r#"{"time":854668800000000}"#, 400),
        ("/v1/namespaces/past/time", "{}", 400),
    ];
    for (path, body, status) in refused {
        assert_eq!(running.send(&post(path, body)).await.status, status, "{path} {body}");
    }
}

#[tokio::test]
async fn routes_of_the_apps_own_are_served() {
    let running = start(Options::default()).await;
    assert_eq!(running.send(&get("/admin/v1/echo")).await.text(), "of the app");
    assert_eq!(running.send(&get("/admin/v1/none")).await.json()["code"], "not_found");
}

#[tokio::test]
async fn every_request_has_an_id_and_keeps_its_own() {
    let running = start(Options::default()).await;
    let own = running.send(&get("/livez").header("X-Request-Id", "abc-123")).await;
    assert_eq!(own.header("x-request-id"), Some("abc-123"));
    let too_long = running.send(&get("/livez").header("X-Request-Id", &"x".repeat(200))).await;
    let none = running.send(&get("/livez")).await;
    assert_ne!(too_long.header("x-request-id"), none.header("x-request-id"));
    assert!(none.header("x-request-id").is_some_and(|id| id.len() < 40));
}

/// What was logged, as text.
#[derive(Clone, Default)]
struct Lines(std::sync::Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What this thread logs from now on, as lines.
fn listened() -> (Lines, tracing::subscriber::DefaultGuard) {
    // One that everyone has: where a thread without any meets an event first, nobody may be told of that event for a moment.
    static EVERYONES: std::sync::Once = std::sync::Once::new();
    EVERYONES.call_once(|| {
        let deaf = tracing_subscriber::registry().with(tracing_subscriber::filter::LevelFilter::INFO);
        tracing::subscriber::set_global_default(deaf).expect("no test sets another");
    });
    let lines = Lines::default();
    let to = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing::Level::INFO).with_writer(move || to.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    (lines, guard)
}

#[tokio::test]
async fn an_error_is_logged_with_the_id_that_its_answer_has() {
    let (lines, _logging) = listened();
    let running = start(Options::default()).await;
    running.send(&get("/livez").header("X-Request-Id", "went-well")).await;
    running.send(&get("/nowhere?secret=1").header("X-Request-Id", "went-wrong")).await;
    let logged = String::from_utf8(lines.0.lock().clone()).expect("text");
    let line = logged.lines().find(|line| line.contains("went-wrong")).expect("the refusal is logged");
    let fields = serde_json::from_str::<serde_json::Value>(line).expect("JSON")["fields"].clone();
    assert_eq!((&fields["request_id"], &fields["status"], &fields["path"]), (&"went-wrong".into(), &404.into(), &"/nowhere".into()));
    assert!(!logged.contains("went-well") && !logged.contains("secret"), "{logged}");
}

#[tokio::test]
async fn refusals_of_one_kind_are_not_a_line_each() {
    let (lines, _logging) = listened();
    let running = start(Options::default()).await;
    for _ in 0..20 {
        assert_eq!(running.send(&post("/v1/batch", "{}").basic("nobody's:")).await.status, 401);
    }
    let logged = String::from_utf8(lines.0.lock().clone()).expect("text");
    let told = logged.lines().filter(|line| line.contains("\"refused\"")).count();
    assert!((1..20).contains(&told), "{logged}");
    assert!(logged.contains("\"code\":\"invalid_write_key\""), "{logged}");
}

#[tokio::test]
async fn the_api_describes_every_route_it_has() {
    let (running, _world) = crate::campaign_world::start().await;
    let document = running.send(&get("/openapi.json")).await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), 49, "{:?}", paths.keys());
    for (path, item) in paths {
        let filled = path.replace("{write_key}", KEY).replace("{id}", "ann").replace("{namespace}", "past");
        let filled = filled
            .replace("{run}", &"7".repeat(32))
            .replace("{effect}", &"7".repeat(32))
            .replace("{action}", "cancel")
            .replace("{token}", "t");
        let item = item.as_object().expect("operations");
        for method in item.keys() {
            let request = if method == "get" { get(&filled) } else { post(&filled, "") };
            let status = running.send(&request).await.status;
            // Of runs, effects, workflows and policies there are none: what says so is there all the same.
            let is_of_nothing = ["/metrics", "/api/v1/policy/retire"].contains(&path.as_str())
                || path.contains("{run}")
                || path.contains("{effect}")
                || path.contains("{name}");
            let is_there = status != 405 && (status != 404 || is_of_nothing);
            assert!(is_there, "{method} {path} is described and answers {status}");
        }
        if path.starts_with("/v1/") && item.contains_key("post") {
            assert!(item["post"]["responses"]["200"].is_object(), "{path}");
        }
    }
}

/// `FLYWHEEL_UPDATE_DOCS=1` writes the document anew.
#[test]
fn the_description_in_docs_is_the_one_that_is_served() {
    let path = "docs/openapi.json";
    let generated = gateway::openapi().to_pretty_json().expect("plain data") + "\n";
    if std::env::var_os("FLYWHEEL_UPDATE_DOCS").is_some() {
        std::fs::write(path, &generated).expect("the tree is writable");
    }
    let written = std::fs::read_to_string(path).expect("docs/openapi.json is in the tree");
    assert!(written == generated, "docs/openapi.json is not what the handlers say; run this test with FLYWHEEL_UPDATE_DOCS=1");
}
