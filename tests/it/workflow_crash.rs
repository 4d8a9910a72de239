//! kill -9 of the running binary, twenty times in a row on one folder, while campaigns run whose effects a worker outside performs: no run
//! is lost, none is stuck, each effect has one key, and only what had no result on record is performed again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use flywheel::domain::{Namespace, Offset};
use flywheel::env::fs::RealFs;
use flywheel::log::LogReader;
use flywheel::log::embedded::EmbeddedReader;
use flywheel::schema;
use flywheel::schema::records::CommandsRecord;
use flywheel::stream::{Topic, Topics};
use flywheel::workflow::Input;
use parking_lot::{Condvar, Mutex};
use serde_json::json;

use crate::running::{Server, output_of, query_one, stderr_of};

const KILLS: usize = 20;
const RUNS_PER_LIFE: usize = 15;
const EFFECTS: usize = 3;
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
next = "three"

[[node]]
name = "three"
kind = "effect"
agent = "outside"
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
    news: Condvar,
}

impl Outside {
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
    let count = move |headers: HeaderMap, _: bytes::Bytes| {
        let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or("none").to_owned();
        *outside.executed.lock().entry(key).or_insert(0) += 1;
        outside.news.notify_all();
        std::future::ready(r#"{"ok":true}"#)
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            axum::serve(listener, axum::Router::new().route("/", axum::routing::post(count))).await.expect("serves");
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
        outside.wait_for((started - RUNS_PER_LIFE) * EFFECTS + life * 2, &data);
        server.kill();
        server = Server::start(&data, &config);
    }
    outside.wait_for(started * EFFECTS, &data);
    let ended = "SELECT count(*) FROM workflow_runs WHERE status = 'completed' AND outcome = 'done'";
    let until = Instant::now() + AT_MOST;
    loop {
        output_of(&data, &config, &["wait"]);
        let count = query_one(&data, &config, "main", ended);
        if count == started {
            break;
        }
        assert!(Instant::now() < until, "{count} of {started} runs have ended: {}", stderr_of(&data));
    }
    let count = |sql: &str| query_one(&data, &config, "main", sql).as_u64().expect("a count") as usize;
    assert_eq!(count("SELECT count(*) FROM workflow_runs"), started, "each start is one run");
    assert_eq!(count("SELECT count(*) FROM workflow_effects WHERE status = 'done'"), started * EFFECTS);
    let executed = outside.executed.lock().clone();
    let listed = output_of(&data, &config, &["query", "SELECT effect_id FROM workflow_effects", "--format", "json"]);
    let listed: Vec<BTreeMap<String, String>> = serde_json::from_str(&listed).expect("rows");
    let keys: BTreeSet<String> = listed.into_iter().filter_map(|mut row| row.remove("effect_id")).collect();
    assert!(executed.keys().cloned().collect::<BTreeSet<_>>() == keys, "each effect was performed under its own key, and nothing else was");
    server.stop();
    let results = results(&data);
    assert!(results.keys().cloned().collect::<BTreeSet<_>>() == keys, "each effect has a result in the log");
    let again: Vec<_> = results.iter().filter(|(_, results)| **results > 1).collect();
    assert!(again.is_empty(), "performed again although a result was recorded: {again:?}");
    assert!(executed.values().any(|times| *times > 1), "some were in flight: otherwise this test says little");
}

/// How many results of each effect are in the log.
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
                if let Ok(Input::EffectFinished { effect, .. }) = serde_json::from_str(command.body) {
                    *results.entry(effect.to_string()).or_insert(0) += 1;
                }
            }
            from = fetched.next;
        }
    }
    results
}
