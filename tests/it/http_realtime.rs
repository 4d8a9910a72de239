//! `/ws/realtime` with a real client: what is seen, where one goes on after a reconnect, who is let in, and who is cut.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use flywheel::domain::{PartitionId, Subject, TenantId, partition_of};
use flywheel::gateway::{Access, Options, Sources};
use flywheel::log::{BatchBuilder, LogWriter, Transaction};
use flywheel::schema;
use flywheel::schema::records::{JournalFact, JournalRecord, SegmentChange};
use flywheel::stream::Topic;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message, client::IntoClientRequest};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::campaign_world::{self, CampaignWorld, Deciding};
use crate::http_campaigns::ASKS;
use crate::http_support::*;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(running: &Running, query: &str) -> Result<Socket, tungstenite::Error> {
    connect_async(format!("ws://{}/ws/realtime{query}", running.address)).await.map(|(socket, _)| socket)
}

/// Connects and takes the greeting.
async fn watch(running: &Running, query: &str) -> (Socket, Value) {
    let mut socket = open(running, query).await.expect("connects");
    let hello = next(&mut socket).await.expect("is greeted");
    assert_eq!(hello["type"], "hello", "{hello}");
    (socket, hello)
}

/// The next message; none at the end.
async fn next(socket: &mut Socket) -> Option<Value> {
    loop {
        match socket.next().await? {
            Ok(Message::Text(text)) => return serde_json::from_str(&text).ok(),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

async fn take(socket: &mut Socket, count: usize) -> Vec<Value> {
    let mut messages = Vec::new();
    while messages.len() < count {
        messages.push(next(socket).await.expect("goes on"));
    }
    messages
}

impl CampaignWorld {
    /// Appends facts to the journal and changes of segments, as folds do.
    fn happen(&self, tenant: &str, user: &str, numbers: std::ops::Range<u64>) {
        let key = Subject::user(user).key(&TenantId::new(tenant).unwrap());
        let partition = partition_of(key.as_bytes(), self.topics.count(Topic::Journal));
        let (mut facts, mut changes) = (BatchBuilder::new(), BatchBuilder::new());
        for number in numbers {
            let body = json!({"attribute_set": {"name": "n", "value": number}}).to_string();
            let fact = JournalRecord::Fact(JournalFact { at: NOW.0, run: "", body: &body });
            facts.push_with(key.as_bytes(), NOW, |out| schema::encode(&fact, out)).unwrap();
            let cause = number.to_string();
            let change = SegmentChange { segment: "s", digest: "", entered: number % 2 == 0, at: NOW.0, cause: &cause, late: false };
            changes.push_with(key.as_bytes(), NOW, |out| schema::encode(&change, out)).unwrap();
        }
        let to = |topic| self.topics.partition(topic, PartitionId(partition.0));
        let batches = vec![(to(Topic::Journal), facts.build()), (to(Topic::SegmentChanges), changes.build())];
        drop(self.log.append(Transaction { batches, commits: Vec::new() }).unwrap());
    }
}

/// Whose and which number, per kind of message.
fn seen(messages: &[Value]) -> BTreeMap<(String, String), Vec<u64>> {
    let mut seen: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for message in messages {
        let number = match message["type"].as_str() {
            Some("fact") => message["fact"]["value"].as_u64(),
            Some("segment_change") => message["cause"].as_str().and_then(|cause| cause.parse().ok()),
            _ => None,
        };
        let of = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
        if let Some(number) = number {
            seen.entry((of("type"), of("subject"))).or_default().push(number);
        }
    }
    seen
}

#[tokio::test]
async fn what_comes_is_seen_in_order_and_after_a_reconnect_without_gap_or_repetition() {
    let (running, world) = campaign_world::start().await;
    world.happen("acme", "ann", 0..3);
    let (mut socket, hello) = watch(&running, "").await;
    assert_eq!(hello["behind"], 0, "what was before is not told");
    let mut all = Vec::new();
    let mut expected = 0;
    let mut position = String::new();
    for round in 0..6u64 {
        let users = ["ann", "bob", "cy"];
        for user in users {
            world.happen("acme", user, 10 * round..10 * round + 5);
            world.happen("other", user, 10 * round..10 * round + 5);
        }
        expected += users.len() * 2 * 5;
        // Left in the middle of things, by a client that remembers the last position it has seen.
        let upto = if round % 2 == 0 { expected - 7 } else { expected };
        all.extend(take(&mut socket, upto - all.len()).await);
        position = all.last().unwrap()["position"].as_str().unwrap().to_owned();
        drop(socket);
        socket = watch(&running, &format!("?from={position}")).await.0;
    }
    let wanted: Vec<u64> = (0..6).flat_map(|round| 10 * round..10 * round + 5).collect();
    let seen = seen(&all);
    assert_eq!(seen.len(), 6);
    assert!(seen.values().all(|numbers| *numbers == wanted), "{seen:?}");
    let (_, again) = watch(&running, &format!("?from={position}")).await;
    assert_eq!(again["position"], json!(position));
}

#[tokio::test]
async fn a_watcher_sees_what_it_asked_for() {
    let (running, world) = campaign_world::start().await;
    for text in [ASKS.to_owned(), ASKS.replace("name = \"asks\"", "name = \"other\"")] {
        assert_eq!(running.send(&post("/api/v1/workflows", json!({"text": text}).to_string())).await.status, 200);
    }
    let (mut of_subject, _) = watch(&running, "?subject=u:ann&topics=segment_changes").await;
    let (mut of_workflow, hello) = watch(&running, "?workflow=asks").await;
    world.happen("acme", "bob", 0..2);
    world.happen("acme", "ann", 5..7);
    for (workflow, user) in [("other", "ann"), ("asks", "bob")] {
        let body = json!({"workflow": workflow, "user_id": user}).to_string();
        assert_eq!(running.send(&post("/api/v1/campaigns/create?wait=20", body)).await.status, 200);
    }
    let changes = take(&mut of_subject, 2).await;
    assert_eq!(seen(&changes), BTreeMap::from([(("segment_change".to_owned(), "u:ann".to_owned()), vec![5, 6])]));
    let facts = take(&mut of_workflow, 2).await;
    let told = |fact: &Value| (fact["kind"].clone(), fact["workflow"].clone(), fact["subject"].clone());
    assert_eq!(told(&facts[0]), (json!("run_started"), json!("asks"), json!("u:bob")));
    assert_eq!(told(&facts[1]), (json!("approval_requested"), json!("asks"), json!("u:bob")));
    // From a position in the middle of a run its workflow is found out.
    let from = facts[0]["position"].as_str().unwrap();
    let (mut resumed, _) = watch(&running, &format!("?workflow=asks&from={from}")).await;
    assert_eq!(next(&mut resumed).await.unwrap()["kind"], "approval_requested");
    let (mut all, _) = watch(&running, &format!("?topics=journal&subject=u:bob&from={from}")).await;
    let fact = next(&mut all).await.unwrap();
    assert_eq!((&fact["kind"], &fact["workflow"]), (&json!("approval_requested"), &json!("asks")), "also for who asked for no workflow");
    assert!(hello["position"].as_str().unwrap().starts_with("j1:"), "{hello}");
}

fn keyed() -> Sources {
    let mut sources = sources();
    for (key, tenant) in [("secret-a", "acme"), ("secret-b", "other")] {
        let access = Access { tenant: TenantId::new(tenant).expect("a slug"), namespace: namespace("main") };
        sources.api_keys.insert(key.to_owned(), access);
    }
    sources
}

#[tokio::test]
async fn only_who_may_read_watches_and_only_its_own() {
    let (running, world) = campaign_world::start_as(Options::default(), keyed()).await;
    for query in ["", "?token=wrong", "?token=wk_shop"] {
        let refused = open(&running, query).await.expect_err("refused");
        let tungstenite::Error::Http(response) = refused else { panic!("{refused}") };
        assert_eq!(response.status(), 401, "{query}");
    }
    let mut by_header = format!("ws://{}/ws/realtime", running.address).into_client_request().unwrap();
    by_header.headers_mut().insert("Authorization", "Bearer secret-b".parse().unwrap());
    let (mut other, _) = connect_async(by_header).await.unwrap();
    assert_eq!(next(&mut other).await.unwrap()["type"], "hello");
    let (mut own, _) = watch(&running, "?token=secret-a&topics=journal").await;
    world.happen("acme", "ann", 0..1);
    world.happen("other", "ann", 7..8);
    assert_eq!(next(&mut own).await.unwrap()["fact"]["value"], 0);
    assert_eq!(next(&mut other).await.unwrap()["fact"]["value"], 7);
    for (query, status) in [
        ("?token=secret-a&from=nonsense", 400),
        ("?token=secret-a&from=j9:0-0-0.p9:0-0-0.s9:0-0-0", 400),
        ("?token=secret-a&topics=intake", 400),
        ("?token=secret-a&subject=u:", 400),
        ("?token=secret-a&subject=mia", 400),
        ("?token=secret-a&workflow=nosuch", 400),
        ("?token=secret-a&topic=journal", 400),
    ] {
        let refused = open(&running, query).await.expect_err("refused");
        let tungstenite::Error::Http(response) = refused else { panic!("{query}: {refused}") };
        assert_eq!(response.status(), status, "{query}");
    }
    assert_eq!(running.send(&get("/ws/realtime?token=secret-a")).await.status, 400, "no WebSocket");
}

#[tokio::test]
async fn a_fact_of_a_run_that_the_read_model_does_not_know_yet_is_told_when_it_does() {
    let (running, world) = campaign_world::start().await;
    assert_eq!(running.send(&post("/api/v1/workflows", json!({"text": ASKS}).to_string())).await.status, 200);
    let begun = running.send(&post("/api/v1/campaigns/create?wait=20", r#"{"workflow":"asks","user_id":"ann"}"#)).await.json();
    let run = begun["run"].as_str().unwrap().to_owned();
    let (mut socket, _) = watch(&running, "?workflow=asks").await;
    world.behind.store(true, Ordering::Relaxed);
    let act = |action: &str, body: Value| {
        let request = post(&format!("/api/v1/campaigns/{run}/{action}?wait=20"), body.to_string());
        let running = &running;
        async move { running.send(&request).await }
    };
    assert_eq!(act("pause", json!({"subject": "u:ann", "by": "kim"})).await.status, 200);
    // Far longer than a projector takes that is only a moment behind.
    while world.asked.load(Ordering::Relaxed) < 45 {
        tokio::task::yield_now().await;
    }
    world.behind.store(false, Ordering::Relaxed);
    assert_eq!(act("resume", json!({"by": "kim"})).await.status, 200);
    let kinds: Vec<Value> = take(&mut socket, 2).await.iter().map(|fact| fact["kind"].clone()).collect();
    assert_eq!(kinds, [json!("run_paused"), json!("run_resumed")]);
}

#[tokio::test]
async fn a_page_of_another_site_does_not_watch_what_needs_no_key() {
    let (running, _world) = campaign_world::start().await;
    let mut request = format!("ws://{}/ws/realtime", running.address).into_client_request().unwrap();
    request.headers_mut().insert("Origin", "https://evil.example".parse().unwrap());
    let refused = connect_async(request).await.expect_err("refused");
    assert!(matches!(&refused, tungstenite::Error::Http(response) if response.status() == 401), "{refused}");
}

async fn small(options: Options) -> (Running, Deciding) {
    campaign_world::start_as(options, sources()).await
}

#[tokio::test]
async fn who_falls_too_far_behind_is_told_how_far_and_goes_on_from_there() {
    let (running, world) = small(Options { realtime_behind_max: 1_000, ..Options::default() }).await;
    let (mut socket, _) = watch(&running, "").await;
    for at in 0..8 {
        world.happen("acme", "ann", at * 1_000..(at + 1) * 1_000);
    }
    let mut messages = Vec::new();
    while let Some(message) = next(&mut socket).await {
        messages.push(message);
    }
    let last = messages.pop().expect("something");
    assert_eq!(last["type"], "behind", "{last}");
    assert!(last["records"].as_u64().is_some_and(|records| records > 1_000), "{last}");
    let from = last["position"].as_str().unwrap();
    let (mut again, hello) = watch(&running, &format!("?from={from}")).await;
    // More may have come meanwhile.
    assert!(hello["behind"].as_u64() >= last["records"].as_u64(), "from far behind one may catch up: {hello}");
    messages.extend(take(&mut again, 16_000 - messages.len()).await);
    let wanted: Vec<u64> = (0..8_000).collect();
    assert!(seen(&messages).values().all(|numbers| *numbers == wanted), "nothing is lost and nothing comes twice");
}

#[tokio::test]
async fn a_silent_client_is_pinged_and_let_go_and_places_are_bounded() {
    let (running, _world) = small(Options { realtime_connections_max: 1, realtime_ping_ms: 20, ..Options::default() }).await;
    let (mut first, _) = watch(&running, "").await;
    let refused = open(&running, "").await.expect_err("no place");
    assert!(matches!(&refused, tungstenite::Error::Http(response) if response.status() == 429), "{refused}");
    let mut pings = 0;
    // This client answers pings as it reads.
    while pings < 5 {
        if let Some(Ok(Message::Ping(_))) = first.next().await {
            pings += 1;
        }
    }
    first.close(None).await.unwrap();
    while first.next().await.is_some() {}
    // The place is free again, a moment later; then a client that never reads is let go, and its place too.
    let silent = loop {
        match open(&running, "").await {
            Ok(socket) => break socket,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let mut next_one = loop {
        match open(&running, "").await {
            Ok(socket) => break socket,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(next(&mut next_one).await.unwrap()["type"], "hello");
    drop(silent);
    next_one.send(Message::text("hello to you")).await.unwrap();
}

#[tokio::test]
async fn stopping_says_goodbye() {
    let (mut running, _world) = campaign_world::start().await;
    let (mut socket, _) = watch(&running, "").await;
    running.stop.take().unwrap().send(()).unwrap();
    let goodbye = loop {
        match socket.next().await {
            Some(Ok(Message::Close(frame))) => break frame,
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(u16::from(goodbye.unwrap().code), 1001);
    running.served.await.unwrap().unwrap();
}
