//! kill -9 of the running binary, twenty times in a row on one folder, while campaigns run whose effects a worker outside performs, and
//! whose mails go to the outbox: no run is lost, none is stuck, each effect has one key, only what had no result on record is performed
//! again, and what must not be done twice is not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode};
use flywheel::domain::{Namespace, Offset};
use flywheel::env::fs::RealFs;
use flywheel::log::LogReader;
use flywheel::log::embedded::EmbeddedReader;
use flywheel::schema;
use flywheel::schema::records::CommandsRecord;
use flywheel::stream::{Topic, Topics};
use flywheel::workflow::{Input, Outcome};
use parking_lot::{Condvar, Mutex};
use serde_json::{Value as Json, json};

use crate::place::until;
use crate::running::{Server, output_of, query_one, stderr_of};

const KILLS: usize = 20;
const RUNS_PER_LIFE: usize = 15;
/// Of a run, at the worker; and with its mail.
const CALLS: usize = 3;
const EFFECTS: usize = CALLS + 1;
const AT_MOST: Duration = Duration::from_secs(120);

const CHAIN: &str = r#"
[workflow]
name = "chain"
[workflow.entry]
command = true

[[node]]
name = "one"
kind = "effect"
agent = "outside"
timeout = "1m"
next = "two"

[[node]]
name = "two"
kind = "effect"
agent = "outside"
timeout = "1m"
next = "ad"

[[node]]
name = "ad"
kind = "effect"
agent = "outside"
unknown = "look_up"
timeout = "1m"
next = "mail"

[[node]]
name = "mail"
kind = "effect"
channel = "email"
purpose = "transactional"
unknown = "look_up"
input = { subject = "'Hello'", text = "'There'" }
timeout = "1m"
next = "over"

[[node]]
name = "over"
kind = "exit"
outcome = "done"
"#;

/// Every execution by its key, seen by whoever performs them.
#[derive(Default)]
struct Outside {
    executed: Mutex<BTreeMap<String, usize>>,
    /// Those that must not be done twice.
    once: Mutex<BTreeSet<String>>,
    looked_up: AtomicUsize,
    news: Condvar,
}

impl Outside {
    fn call(&self, key: String, call: &Json) -> (StatusCode, &'static str) {
        let mut executed = self.executed.lock();
        if call["look_up"] == true {
            self.looked_up.fetch_add(1, Ordering::Relaxed);
            return if executed.contains_key(&key) { (StatusCode::OK, r#"{"ok":true}"#) } else { (StatusCode::NOT_FOUND, "") };
        }
        if call["node"] == "ad" {
            self.once.lock().insert(key.clone());
        }
        *executed.entry(key).or_insert(0) += 1;
        self.news.notify_all();
        (StatusCode::OK, r#"{"ok":true}"#)
    }

    /// Waits until so many executions were seen.
    fn wait_for(&self, total: usize, data: &Path) {
        let until = Instant::now() + AT_MOST;
        let mut executed = self.executed.lock();
        while executed.values().sum::<usize>() < total {
            let late = self.news.wait_until(&mut executed, until).timed_out();
            assert!(!late, "{} of {total} executions: {}", executed.values().sum::<usize>(), stderr_of(data));
        }
    }
}

/// Starts the worker; its address.
fn perform(outside: &Arc<Outside>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a listener");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let outside = Arc::clone(outside);
    let perform = move |headers: HeaderMap, axum::Json(call): axum::Json<Json>| {
        let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or("none").to_owned();
        std::future::ready(outside.call(key, &call))
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            axum::serve(listener, axum::Router::new().route("/", axum::routing::post(perform))).await.expect("serves");
        });
    });
    url
}

#[test]
fn twenty_kills_lose_no_run_and_repeat_only_what_had_no_result_on_record() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let (data, config, file) = (root.path().join("data"), root.path().join("flywheel.toml"), root.path().join("chain.toml"));
    let outside = Arc::new(Outside::default());
    let url = perform(&outside);
    std::fs::write(&config, format!("[effects.workers.outside]\nurl = \"{url}\"\n")).expect("written");
    std::fs::write(&file, CHAIN).expect("written");
    let mut server = Server::start(&data, &config);
    output_of(&data, &config, &["workflow", "publish", file.to_str().expect("a path")]);
    let client = reqwest::Client::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // Everyone has an address before anything begins.
    let people: Vec<Json> = (0..KILLS * RUNS_PER_LIFE)
        .map(
            |person| json!({ "type": "identify", "userId": format!("u{person}"), "traits": { "email": format!("u{person}@example.com") } }),
        )
        .collect();
    let batch =
        client.post(format!("{}/v1/batch", server.url)).basic_auth("development", Some("")).json(&json!({ "batch": people })).send();
    let answer = runtime.block_on(async { batch.await.expect("answers").text().await.expect("text") });
    assert!(answer.contains("true"), "{answer}");
    output_of(&data, &config, &["wait"]);
    let mut started = 0;
    for life in 0..KILLS {
        for _ in 0..RUNS_PER_LIFE {
            let body = json!({ "workflow": "chain", "user_id": format!("u{started}"), "id": format!("start-{started}") });
            let request = client.post(format!("{}/api/v1/campaigns/create", server.url)).json(&body);
            let answer = runtime.block_on(request.send()).expect("answers");
            assert!(answer.status().is_success(), "{}", answer.status());
            started += 1;
        }
        // At another place of the work in each life: from before its first effect to far into it.
        outside.wait_for((started - RUNS_PER_LIFE) * CALLS + life * 2, &data);
        server.kill();
        server = Server::start(&data, &config);
    }
    outside.wait_for(started * CALLS, &data);
    let ended = "SELECT count(*) FROM workflow_runs WHERE status = 'completed' AND outcome = 'done'";
    until(|| {
        output_of(&data, &config, &["wait"]);
        let count = query_one(&data, &config, "main", ended);
        if count == started { Ok(()) } else { Err(format!("{count} of {started} runs have ended: {}", stderr_of(&data))) }
    });
    let count = |sql: &str| query_one(&data, &config, "main", sql).as_u64().expect("a count") as usize;
    assert_eq!(count("SELECT count(*) FROM workflow_runs"), started, "each start is one run");
    assert_eq!(count("SELECT count(*) FROM workflow_effects WHERE status = 'done'"), started * EFFECTS);
    let executed = outside.executed.lock().clone();
    let keys_of = |node: &str| -> BTreeSet<String> {
        let sql = format!("SELECT effect_id FROM workflow_effects WHERE node {node}");
        let rows = output_of(&data, &config, &["query", &sql, "--format", "json"]);
        let rows: Vec<BTreeMap<String, String>> = serde_json::from_str(&rows).expect("rows");
        rows.into_iter().filter_map(|mut row| row.remove("effect_id")).collect()
    };
    let mailed = keys_of("= 'mail'");
    let called = keys_of("<> 'mail'");
    assert!(
        executed.keys().cloned().collect::<BTreeSet<_>>() == called,
        "each effect was performed under its own key, and nothing else was"
    );
    let outbox = std::fs::read_dir(data.join("outbox/main")).expect("the outbox");
    let files: Vec<String> = outbox.map(|file| file.expect("a file").file_name().into_string().expect("text")).collect();
    let mails: BTreeSet<String> = files.iter().filter_map(|file| file.strip_suffix(".eml").map(str::to_owned)).collect();
    assert_eq!((mails.len(), files.iter().filter(|file| file.ends_with(".eml")).count()), (started, started));
    assert!(mails == mailed, "each mail is one file, named by its key");
    let once = outside.once.lock().clone();
    let twice: Vec<_> = once.iter().filter(|key| executed[*key] > 1).collect();
    assert!(once.len() == started && twice.is_empty(), "what must not be done twice was: {twice:?}");
    assert!(outside.looked_up.load(Ordering::Relaxed) > 0, "some of it was in flight and was looked for: otherwise this says little");
    server.stop();
    let keys: BTreeSet<String> = called.union(&mailed).cloned().collect();
    let results = results(&data);
    assert!(results.keys().cloned().collect::<BTreeSet<_>>() == keys, "each effect has a result in the log");
    let again: Vec<_> = results.iter().filter(|(_, results)| **results > 1).collect();
    assert!(again.is_empty(), "performed again although a result was recorded: {again:?}");
    assert!(executed.values().any(|times| *times > 1), "some were in flight: otherwise this test says little");
}

/// How many results of each effect are in the log: that it was done.
fn results(data: &Path) -> BTreeMap<String, usize> {
    let log = EmbeddedReader::open(Arc::new(RealFs), &data.join("log")).expect("reads");
    let topics = Topics::find(&log, &Namespace::new("main").expect("a slug")).expect("reads").expect("is there");
    let mut results = BTreeMap::new();
    for partition in topics.partitions(Topic::Commands) {
        let (mut from, end) = (Offset(0), log.watermarks(partition).expect("reads").end);
        while from < end {
            let fetched = log.fetch(partition, from, 1 << 20).expect("reads");
            for record in fetched.records() {
                let CommandsRecord::Command(command) = schema::decode(record.value.expect("a value")).expect("decodes") else { continue };
                if let Ok(Input::EffectFinished { effect, outcome: Outcome::Done { .. }, .. }) = serde_json::from_str(command.body) {
                    *results.entry(effect.to_string()).or_insert(0) += 1;
                }
            }
            from = fetched.next;
        }
    }
    results
}
