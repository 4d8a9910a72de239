//! The schema registry's API, as serializers, deserializers and tools call it: its forms, its codes, whose schemas are whose, and numbers on
//! which two gateways agree.

use std::sync::Arc;

use flywheel::env::ManualClock;
use flywheel::gateway::{Access, Options, Sources};
use flywheel::log::{Cleanup, LogWriter, MemoryLog, Retention, TopicName, TopicSpec};
use serde_json::{Value, json};

use crate::http_support::{self, NOW, Running, namespace};
use crate::spine_world::tenant;

const INT: &str = r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}"#;
const LONG: &str = r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}]}"#;
const TEXT: &str = r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "string"}]}"#;

pub fn with_topic(log: &dyn LogWriter) {
    let name = TopicName::new(&namespace("main"), "schemas");
    log.create_topic(&TopicSpec { name, partitions: 1, retention: Retention::Forever, cleanup: Cleanup::Delete }).expect("a new topic");
}

fn sources() -> Sources {
    let mut sources = http_support::sources();
    let main = namespace("main");
    sources.api_keys.insert("registry-key".to_owned(), Access { tenant: tenant(), namespace: main.clone() });
    let globex = flywheel::domain::TenantId::new("globex").unwrap();
    sources.api_keys.insert("globex-key".to_owned(), Access { tenant: globex, namespace: main });
    sources
}

async fn start() -> Running {
    start_on(Arc::new(MemoryLog::new(Arc::new(ManualClock::at(NOW))))).await
}

async fn start_on(log: Arc<dyn LogWriter>) -> Running {
    with_topic(&*log);
    http_support::start_on(Options::default(), sources(), log).await
}

/// (status, body) of a call with an API key as the user of Basic authentication.
async fn call(running: &Running, key: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/registry{path}", running.address);
    let mut request = client.request(method.parse().unwrap(), url).basic_auth(key, Some(""));
    if !body.is_null() {
        request = request.header("Content-Type", "application/vnd.schemaregistry.v1+json").body(body.to_string());
    }
    let response = request.send().await.expect("answers");
    let status = response.status().as_u16();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let text = response.text().await.unwrap();
    let is_text = path.ends_with("/schema");
    assert!(is_text || kind == "application/vnd.schemaregistry.v1+json", "{method} {path} is {kind}");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

async fn ask(running: &Running, method: &str, path: &str, body: Value) -> (u16, Value) {
    call(running, "registry-key", method, path, &body).await
}

async fn get(running: &Running, path: &str) -> (u16, Value) {
    ask(running, "GET", path, Value::Null).await
}

/// Status and the registry's own code of a refusal.
async fn refused(running: &Running, method: &str, path: &str, body: Value) -> (u16, u64) {
    let (status, answer) = ask(running, method, path, body).await;
    assert!(answer["message"].as_str().is_some_and(|message| !message.is_empty()), "{answer}");
    (status, answer["error_code"].as_u64().unwrap_or_else(|| panic!("{method} {path}: {answer}")))
}

pub async fn register(running: &Running, subject: &str, schema: &str) -> u32 {
    let (status, answer) = ask(running, "POST", &format!("/subjects/{subject}/versions"), json!({"schema": schema})).await;
    assert_eq!(status, 200, "{answer}");
    answer["id"].as_u64().expect("an id") as u32
}

#[tokio::test]
async fn a_schema_is_registered_once_and_found_by_its_number_subject_and_text() {
    let running = start().await;
    assert_eq!(register(&running, "a-value", INT).await, 1);
    assert_eq!(register(&running, "a-value", INT).await, 1);
    assert_eq!(register(&running, "b%2Fc-value", INT).await, 1);
    assert_eq!(register(&running, "a-value", LONG).await, 2);
    assert_eq!(get(&running, "/schemas/ids/1?subject=a-value&fetchMaxId=false").await, (200, json!({"schema": INT})));
    assert_eq!(get(&running, "/schemas/ids/1/schema").await.1, serde_json::from_str::<Value>(INT).unwrap());
    let second = json!({"subject": "a-value", "version": 2, "id": 2, "schemaType": "AVRO", "schema": LONG});
    for named in ["2", "latest", "-1"] {
        assert_eq!(get(&running, &format!("/subjects/a-value/versions/{named}")).await, (200, second.clone()));
    }
    assert_eq!(ask(&running, "POST", "/subjects/a-value?normalize=false", json!({"schema": LONG})).await, (200, second));
    assert_eq!(get(&running, "/subjects/a-value/versions").await, (200, json!([1, 2])));
    assert_eq!(get(&running, "/subjects?subjectPrefix=a").await, (200, json!(["a-value"])));
    assert_eq!(
        get(&running, "/schemas/ids/1/versions").await,
        (200, json!([{"subject": "a-value", "version": 1}, {"subject": "b/c-value", "version": 1}]))
    );
    assert_eq!(get(&running, "/schemas/ids/1/subjects").await, (200, json!(["a-value", "b/c-value"])));
    assert_eq!(get(&running, "/schemas/types").await, (200, json!(["AVRO"])));
    assert_eq!(get(&running, "").await, (200, json!({})));
}

#[tokio::test]
async fn refusals_have_the_registrys_form_and_codes() {
    let running = start().await;
    register(&running, "a-value", INT).await;
    let cases = [
        ("GET", "/subjects/no/versions", Value::Null, (404, 40401)),
        ("GET", "/subjects/no/versions/latest", Value::Null, (404, 40401)),
        ("GET", "/subjects/a-value/versions/9", Value::Null, (404, 40402)),
        ("GET", "/subjects/a-value/versions/first", Value::Null, (422, 42202)),
        ("GET", "/subjects/a-value/versions/0", Value::Null, (422, 42202)),
        ("GET", "/schemas/ids/9", Value::Null, (404, 40403)),
        ("GET", "/schemas/ids/x", Value::Null, (404, 40403)),
        ("POST", "/subjects/no", json!({"schema": INT}), (404, 40401)),
        ("POST", "/subjects/a-value", json!({"schema": TEXT}), (404, 40403)),
        ("POST", "/subjects/a-value/versions", json!({"schema": "{"}), (422, 42201)),
        ("POST", "/subjects/a-value/versions", json!({}), (422, 42201)),
        ("POST", "/subjects/a-value/versions", json!({"schema": INT, "schemaType": "PROTOBUF"}), (422, 42201)),
        ("POST", "/subjects/a-value/versions", json!({"schema": INT, "references": [{"name": "x"}]}), (422, 42201)),
        ("POST", "/subjects/a-value/versions", json!({"schema": TEXT}), (409, 409)),
        ("POST", "/subjects/main.events-value/versions", json!({"schema": INT}), (422, 42205)),
        ("PUT", "/config", json!({"compatibility": "SOME"}), (422, 42203)),
        ("GET", "/config/a-value", Value::Null, (404, 40408)),
        ("DELETE", "/subjects/a-value", Value::Null, (404, 404)),
        ("GET", "/schemas/guids/00000000-0000-0000-0000-000000000001", Value::Null, (404, 404)),
        ("GET", "/contexts", Value::Null, (404, 404)),
    ];
    for (method, path, body, expect) in cases {
        assert_eq!(refused(&running, method, path, body).await, expect, "{method} {path}");
    }
    let (status, answer) = call(&running, "nobody's", "GET", "/subjects", &Value::Null).await;
    assert_eq!((status, answer["error_code"].as_u64()), (401, Some(40101)));
}

#[tokio::test]
async fn levels_decide_what_may_follow() {
    let running = start().await;
    register(&running, "a-value", INT).await;
    let level = |of: &'static str| {
        let running = &running;
        async move { get(running, &format!("/config{of}")).await.1["compatibilityLevel"].as_str().unwrap_or("none of its own").to_owned() }
    };
    assert_eq!((level("").await, level("/a-value").await), ("BACKWARD".to_owned(), "none of its own".to_owned()));
    let compatible = |path: &'static str| {
        let running = &running;
        async move { ask(running, "POST", &format!("/compatibility/subjects/a-value/versions{path}"), json!({"schema": TEXT})).await.1 }
    };
    assert_eq!(compatible("/latest").await, json!({"is_compatible": false}));
    assert_eq!(compatible("/1?verbose=true").await["messages"].as_array().map(Vec::len), Some(1));
    assert_eq!(compatible("").await, json!({"is_compatible": false}));
    assert_eq!(ask(&running, "PUT", "/config/a-value", json!({"compatibility": "NONE"})).await, (200, json!({"compatibility": "NONE"})));
    assert_eq!(compatible("/latest").await, json!({"is_compatible": true}));
    assert_eq!(register(&running, "a-value", TEXT).await, 2);
    assert_eq!(ask(&running, "PUT", "/config", json!({"compatibility": "full"})).await, (200, json!({"compatibility": "FULL"})));
    assert_eq!(ask(&running, "DELETE", "/config/a-value", Value::Null).await, (200, json!({"compatibilityLevel": "NONE"})));
    assert_eq!(level("/a-value?defaultToGlobal=true").await, "FULL");
    assert_eq!(get(&running, "/mode").await.1, json!({"mode": "READWRITE"}));
}

#[tokio::test]
async fn a_tenant_sees_its_own_schemas_and_the_products() {
    let running = start().await;
    register(&running, "a-value", INT).await;
    let of_globex = |path: &'static str| {
        let running = &running;
        async move { call(running, "globex-key", "GET", path, &Value::Null).await }
    };
    assert_eq!(of_globex("/schemas/ids/1").await.0, 404);
    assert_eq!(of_globex("/subjects/a-value/versions").await.0, 404);
    let (_, subjects) = of_globex("/subjects").await;
    let subjects: Vec<&str> = subjects.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(subjects.contains(&"main.events-value") && subjects.contains(&"flywheel.event") && !subjects.contains(&"a-value"));
    let (status, event) = of_globex("/subjects/flywheel.event/versions/latest").await;
    assert_eq!((status, event["id"].as_u64()), (200, Some(1_000_000_001)));
    assert_eq!(of_globex("/schemas/ids/1000000001").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_that_register_at_once_agree_on_numbers() {
    let log: Arc<dyn LogWriter> = Arc::new(MemoryLog::new(Arc::new(ManualClock::at(NOW))));
    let (one, two) = (start_on(Arc::clone(&log)).await, start_on(Arc::clone(&log)).await);
    let (one, two) = (Arc::new(one), Arc::new(two));
    let schema = |at: usize| format!(r#"{{"type": "record", "name": "R{at}", "fields": []}}"#);
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..20 {
        for running in [&one, &two] {
            let (running, text) = (Arc::clone(running), schema(at));
            tasks.spawn(async move { (at, register(&running, &format!("s{at}-value"), &text).await) });
        }
    }
    let mut numbers = std::collections::BTreeMap::<usize, Vec<u32>>::new();
    while let Some(registered) = tasks.join_next().await {
        let (at, id) = registered.unwrap();
        numbers.entry(at).or_default().push(id);
    }
    assert!(numbers.values().all(|ids| ids.len() == 2 && ids[0] == ids[1]), "{numbers:?}");
    let mut ids: Vec<u32> = numbers.values().map(|ids| ids[0]).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=20).collect::<Vec<u32>>(), "dense");
    // Two different schemas for one subject, the second of which the first does not allow: one of them is refused, on both.
    let (a, b) = (json!({"schema": INT}), json!({"schema": TEXT}));
    let (a, b) = tokio::join!(ask(&one, "POST", "/subjects/x-value/versions", a), ask(&two, "POST", "/subjects/x-value/versions", b));
    let mut statuses = [a.0, b.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{a:?} {b:?}");
    assert_eq!(get(&one, "/subjects/x-value/versions/latest").await, get(&two, "/subjects/x-value/versions/latest").await);
    // And whoever comes later reads the same.
    let three = start_on(log).await;
    assert_eq!(get(&one, "/subjects").await, get(&three, "/subjects").await);
    assert_eq!(get(&one, "/schemas/ids/7").await, get(&three, "/schemas/ids/7").await);
}
