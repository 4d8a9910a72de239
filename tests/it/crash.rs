//! kill -9 of the running binary at random instants under load, twenty times in a row on one folder; then every acknowledged event is
//! there exactly once, every total is right, and the digest is that of a run nobody disturbed.
//!
//! The clients behave as SDKs do: each keeps its people's events in order, and sends a batch again, with the same message ids, until it
//! is acknowledged. The instants are seeded; `FLYWHEEL_TEST_CRASH_SEED` repeats a run's instants (the operating system still adds its own).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::running::{Server, output_of, query_one};

const KILLS: usize = 20;
const CLIENTS: u64 = 4;
const PEOPLE_PER_CLIENT: u64 = 25;
const BATCH: u64 = 20;
/// Between two kills at least this many events are acknowledged, so that each life of the server does some work.
const EVENTS_PER_LIFE: u64 = 400;
const START: i64 = 1_700_000_000_000;

struct World {
    root: tempfile::TempDir,
    config: PathBuf,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        let config = root.path().join("flywheel.toml");
        let text = r#"
            [[namespaces]]
            name = "crash"
            clock = "event"

            [[sources]]
            name = "test"
            write_key = "crash-key"
            tenant = "acme"
            namespace = "crash"

            [[api_keys]]
            api_key = "crash-secret"
            tenant = "acme"
            namespace = "crash"
        "#;
        std::fs::write(&config, text).expect("the config is written");
        Self { root, config }
    }

    fn data(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }
}

/// The events of one client, the same in every run: batch `at` of client `client`.
fn batch(client: u64, at: u64) -> serde_json::Value {
    let events = (0..BATCH).map(|index| {
        let number = at * BATCH + index;
        let person = client * PEOPLE_PER_CLIENT + number % PEOPLE_PER_CLIENT;
        let time = START + number as i64 * 60_000;
        let timestamp = flywheel::domain::Millis(time).to_rfc3339();
        json!({
            "type": "track", "event": if number.is_multiple_of(3) { "Order Completed" } else { "Product Viewed" },
            "userId": format!("person-{person}"), "messageId": format!("m-{client}-{number}"), "timestamp": timestamp,
            "properties": {"order_id": format!("{client}-{number}"), "total": 1.25, "currency": "USD"},
        })
    });
    json!({"batch": events.collect::<Vec<_>>()})
}

/// What the clients and the one who kills share.
struct Load {
    /// Where the server that is up now listens.
    url: parking_lot::Mutex<String>,
    /// Acknowledged batches of each client.
    acknowledged: Vec<AtomicU64>,
    /// Batches after which a client ends.
    limit: AtomicU64,
}

impl Load {
    fn acknowledged_events(&self) -> u64 {
        self.acknowledged.iter().map(|batches| batches.load(Ordering::SeqCst)).sum::<u64>() * BATCH
    }
}

/// Sends batch after batch up to the limit; a batch is repeated until the server that is up now acknowledges it.
async fn client(number: u64, load: Arc<Load>) {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().expect("a client");
    let acknowledged = &load.acknowledged[number as usize];
    loop {
        let at = acknowledged.load(Ordering::SeqCst);
        if at >= load.limit.load(Ordering::SeqCst) {
            return;
        }
        let body = batch(number, at).to_string();
        let target = format!("{}/v1/batch", load.url.lock());
        let answer = http.post(target).basic_auth("crash-key", Some("")).body(body).send().await;
        match answer {
            Ok(answer) if answer.status() == 200 => drop(acknowledged.fetch_add(1, Ordering::SeqCst)),
            Ok(answer) => {
                let status = answer.status().as_u16();
                assert!(matches!(status, 429 | 503), "a batch was refused for good: {status}");
                tokio::task::yield_now().await;
            }
            // Killed under us: the next server is found through `url`.
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Runs the load against `dir`, killing the server as often as `kills` says at instants drawn from `seed`; returns batches per client.
async fn run(world: &World, dir: &Path, kills: usize, seed: u64, limit: Option<u64>) -> u64 {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut server = Server::start(dir, &world.config);
    let load = Arc::new(Load {
        url: parking_lot::Mutex::new(server.url.clone()),
        acknowledged: (0..CLIENTS).map(|_| AtomicU64::new(0)).collect(),
        limit: AtomicU64::new(limit.unwrap_or(u64::MAX)),
    });
    let clients: Vec<_> = (0..CLIENTS).map(|number| tokio::spawn(client(number, load.clone()))).collect();
    for _ in 0..kills {
        let goal = load.acknowledged_events() + EVENTS_PER_LIFE + random.random_range(0..EVENTS_PER_LIFE);
        while load.acknowledged_events() < goal {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_micros(random.random_range(0..20_000))).await;
        server.kill();
        server = Server::start(dir, &world.config);
        *load.url.lock() = server.url.clone();
    }
    if limit.is_none() {
        // Every client goes on to the same place, so that the undisturbed run can send the very same events.
        let furthest = load.acknowledged.iter().map(|batches| batches.load(Ordering::SeqCst)).max().expect("there are clients");
        load.limit.store(furthest + 50, Ordering::SeqCst);
    }
    for client in clients {
        client.await.expect("a client ends well");
    }
    let batches = load.limit.load(Ordering::SeqCst);
    assert!(load.acknowledged.iter().all(|own| own.load(Ordering::SeqCst) == batches), "a client went past the end");
    finish(world, dir, &server, batches).await;
    server.stop();
    batches
}

/// States the time and waits until the read model has everything.
async fn finish(world: &World, dir: &Path, server: &Server, batches: u64) {
    let end = flywheel::domain::Millis(START + (batches * BATCH) as i64 * 60_000).to_rfc3339();
    let target = format!("{}/v1/namespaces/crash/time", server.url);
    let answer = reqwest::Client::new().post(target).bearer_auth("crash-secret").json(&json!({"time": end})).send().await;
    assert!(answer.expect("the server answers").status().is_success());
    output_of(dir, &world.config, &["wait", "--namespace", "crash"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_lose_nothing_and_apply_nothing_twice() {
    let seed = std::env::var("FLYWHEEL_TEST_CRASH_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_122);
    println!("FLYWHEEL_TEST_CRASH_SEED={seed}");
    let world = World::new();
    let (disturbed, quiet) = (world.data("disturbed"), world.data("quiet"));
    let batches = run(&world, &disturbed, KILLS, seed, None).await;
    assert_eq!(run(&world, &quiet, 0, seed, Some(batches)).await, batches);
    for dir in [&disturbed, &quiet] {
        check_totals(&world, dir, batches);
    }
    let digest = |dir: &Path| output_of(dir, &world.config, &["--json", "replay", "--digest", "--namespace", "crash"]);
    assert_eq!(digest(&disturbed), digest(&quiet), "twenty kills changed the digest");
}

fn check_totals(world: &World, dir: &Path, batches: u64) {
    let sent = CLIENTS * batches * BATCH;
    let orders: u64 = (0..batches * BATCH).filter(|number: &u64| number.is_multiple_of(3)).count() as u64 * CLIENTS;
    let ask = |sql: &str| query_one(dir, &world.config, "crash", sql);
    assert_eq!(ask("SELECT count(*) FROM events"), json!(sent), "every acknowledged event once");
    assert_eq!(ask("SELECT count(DISTINCT message_id) FROM events"), json!(sent), "and none twice");
    assert_eq!(ask("SELECT sum(orders) FROM profiles"), json!(orders));
    assert_eq!(ask("SELECT sum(revenue) FROM profiles"), json!(orders as f64 * 1.25));
    assert_eq!(ask("SELECT count(*) FROM profiles"), json!(CLIENTS * PEOPLE_PER_CLIENT));
}
