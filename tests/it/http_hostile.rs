//! Clients that are slow, silent, greedy or many, and a log that cannot take more: everything ends, nothing is buffered without bound,
//! and whoever should come again is told so.

use std::sync::Arc;
use std::time::Duration;

use flywheel::domain::{Millis, Offset};
use flywheel::env::ManualClock;
use flywheel::gateway::{Options, Reason};
use flywheel::log::{
    self, Committed, Error, Fetched, Group, LogReader, LogWriter, MemoryLog, Ownership, Ticket, TopicInfo, TopicPartition, TopicSpec,
    Transaction, Watermarks,
};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http_support::*;

const BATCH: &str = r#"{"batch":[{"type":"track","event":"Seen","messageId":"m1","userId":"ann"}]}"#;

/// Time-outs so short that waiting for them costs nothing, one of them at a time.
fn patient() -> Options {
    let long = 60_000;
    Options { head_timeout_ms: long, body_timeout_ms: long, write_timeout_ms: long, idle_timeout_ms: long, ..Options::default() }
}

/// Says this much of a request and no more, then hears what comes until the server ends the connection.
async fn hears_after(running: &Running, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(running.address).await.expect("listens");
    stream.write_all(bytes).await.expect("takes it");
    Answer::read(&mut stream).await
}

#[tokio::test]
async fn a_client_that_says_nothing_is_let_go() {
    let running = start(Options { head_timeout_ms: 40, ..patient() }).await;
    assert_eq!(hears_after(&running, b"").await.status, 0);
}

#[tokio::test]
async fn a_head_that_never_ends_is_let_go() {
    let running = start(Options { head_timeout_ms: 40, ..patient() }).await;
    assert_eq!(hears_after(&running, b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.status, 0);
}

#[tokio::test]
async fn a_body_that_never_ends_is_let_go_and_nothing_of_it_is_kept() {
    let running = start(Options { body_timeout_ms: 40, ..patient() }).await;
    let whole = post("/v1/batch", BATCH).key().bytes(running.address);
    assert_eq!(hears_after(&running, &whole[..whole.len() - 10]).await.status, 0);
    assert_eq!(running.arrived("main"), []);
}

#[tokio::test]
async fn a_connection_may_serve_many_requests_and_is_let_go_when_it_falls_silent() {
    let running = start(Options { idle_timeout_ms: 40, ..patient() }).await;
    let one = String::from_utf8(post("/v1/batch", BATCH).key().bytes(running.address)).expect("text").replace("Connection: close\r\n", "");
    let mut stream = TcpStream::connect(running.address).await.expect("listens");
    stream.write_all(one.repeat(3).as_bytes()).await.expect("takes them");
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.expect("ends without a reset");
    assert_eq!(heard.matches("HTTP/1.1 200 OK").count(), 3);
    assert_eq!(running.arrived("main").len(), 3);
}

#[tokio::test]
async fn a_client_that_never_reads_is_let_go() {
    let running = start(Options { write_timeout_ms: 40, ..patient() }).await;
    let mut stream = TcpStream::connect(running.address).await.expect("listens");
    let asking = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    // Until the server, whose answers nobody reads, closes the connection.
    while stream.write_all(&asking).await.is_ok() {}
}

#[tokio::test]
async fn too_many_and_too_long_headers_are_refused() {
    let running = start(patient()).await;
    let mut many = get("/livez");
    for index in 0..150 {
        many = many.header(&format!("x-{index}"), "y");
    }
    assert_eq!(running.send(&many).await.status, 431);
    assert_eq!(running.send(&get("/livez").header("x-long", &"y".repeat(40_000))).await.status, 431);
}

#[tokio::test]
async fn a_connection_too_many_is_told_to_come_again() {
    let running = start(Options { connections_max: 1, ..patient() }).await;
    let mut first = TcpStream::connect(running.address).await.expect("listens");
    first.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("takes it");
    first.read_u8().await.expect("is served, so it is counted");
    let mut second = TcpStream::connect(running.address).await.expect("listens");
    let answer = Answer::read(&mut second).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")));
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    assert_eq!(answer.json()["code"], "overloaded");
}

#[tokio::test]
async fn bodies_beyond_the_budget_are_told_to_come_again_and_those_within_it_finish() {
    let (running, _measured) = start_small(100_000).await;
    let large = post("/v1/batch", body_of(90_000)).key().bytes(running.address);
    let mut first = TcpStream::connect(running.address).await.expect("listens");
    first.write_all(&large[..large.len() - 1]).await.expect("takes it");
    held(&running, 89_999).await;
    let padded = body_of(20_000);
    let announced = running.send(&post("/v1/batch", &padded).key()).await;
    let chunked = running.send(&post("/v1/batch", &padded).key().chunked()).await;
    let gzipped = running.send(&post("/v1/batch", &padded).key().gzip()).await;
    for refused in [announced, chunked, gzipped] {
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
        assert_eq!(refused.json()["code"], "overloaded");
    }
    first.write_all(b" ").await.expect("takes the rest");
    assert_eq!(Answer::read(&mut first).await.status, 200);
    assert_eq!(running.send(&post("/v1/batch", &padded).key()).await.status, 200, "what was held is given back");
}

/// A batch of this many bytes.
fn body_of(bytes: usize) -> String {
    format!("{BATCH}{}", " ".repeat(bytes - BATCH.len()))
}

/// Bodies of at most 100,000 bytes, within a budget, and what measures it while the second value lives.
async fn start_small(inflight_bytes_max: usize) -> (Running, impl Drop) {
    let recorder: &'static _ = Box::leak(Box::new(metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder()));
    let measured = metrics::set_default_local_recorder(recorder);
    let options = Options { body_bytes_max: 100_000, event_bytes_max: 50_000, inflight_bytes_max, ..patient() };
    let log = Arc::new(MemoryLog::new(Arc::new(ManualClock::at(NOW))));
    (start_measured(options, sources(), log, Some(recorder.handle())).await, measured)
}

/// Returns once so many bytes of bodies are held.
async fn held(running: &Running, bytes: usize) {
    let line = format!("flywheel_gateway_inflight_bytes {bytes}");
    while !running.send(&get("/metrics")).await.text().lines().any(|found| found == line) {}
}

#[tokio::test]
async fn a_body_that_is_only_announced_holds_nothing() {
    let options = Options { body_bytes_max: 100_000, event_bytes_max: 50_000, inflight_bytes_max: 400_000, ..patient() };
    let running = start(options).await;
    let head = format!("POST /v1/batch HTTP/1.1\r\nHost: {}\r\nContent-Length: 100000\r\n\r\n", running.address);
    let mut silent = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(running.address).await.expect("listens");
        stream.write_all(head.as_bytes()).await.expect("takes it");
        silent.push(stream);
    }
    // Accepted after them, so they have been looked at, on this one thread, by the second answer.
    for _ in 0..3 {
        assert_eq!(running.send(&post("/v1/batch", BATCH).key()).await.status, 200);
    }
}

#[tokio::test]
async fn bodies_without_a_known_key_hold_a_share_only() {
    let (running, _measured) = start_small(400_000).await;
    let half_of = |request: Request| request.bytes(running.address);
    // By a key in the body, with none, and with one that nobody has.
    let mut stranger = TcpStream::connect(running.address).await.expect("listens");
    let bytes = half_of(post("/v1/batch", body_of(90_000)));
    stranger.write_all(&bytes[..bytes.len() - 1]).await.expect("takes it");
    held(&running, 89_999).await;
    let in_body = format!(r#"{{"writeKey":"{KEY}",{}"#, &body_of(20_000)[1..]);
    let refused = running.send(&post("/v1/batch", &in_body)).await;
    assert_eq!((refused.status, refused.json()["code"].clone()), (429, "overloaded".into()));
    assert_eq!(running.send(&post("/v1/batch", body_of(99_000)).key()).await.status, 200, "who has a key is not kept out");
    assert_eq!(running.send(&post(&format!("/v1/batch?writeKey={KEY}"), body_of(99_000))).await.status, 200);
    let mut unknown = TcpStream::connect(running.address).await.expect("listens");
    let bytes = half_of(post("/v1/batch", body_of(90_000)).basic("nobody's:"));
    unknown.write_all(&bytes[..bytes.len() - 1]).await.expect("takes it");
    assert_eq!(running.send(&post("/v1/batch", body_of(99_000)).key()).await.status, 200);
    held(&running, 89_999).await;
    unknown.write_all(b" ").await.expect("takes the rest");
    assert_eq!(Answer::read(&mut unknown).await.status, 401);
    stranger.write_all(b" ").await.expect("takes the rest");
    assert_eq!(Answer::read(&mut stranger).await.status, 401);
    assert_eq!(running.send(&post("/v1/batch", &in_body)).await.status, 200, "what was held is given back");
}

#[tokio::test]
async fn a_tenant_beyond_its_rate_is_told_to_come_again() {
    let running = start(Options { tenant_requests_per_s: 1, tenant_burst: 2, ..patient() }).await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(running.send(&post("/v1/batch", BATCH).key()).await);
    }
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 429]);
    assert_eq!(answers[2].json()["code"], "rate_limited");
    assert_eq!(answers[2].header("retry-after"), Some("1"));
}

#[tokio::test]
async fn a_historical_import_waits_while_intake_lags() {
    let running = start(patient()).await;
    *running.world.lag_ms.lock() = 6_000;
    let flagged = BATCH.replacen('{', r#"{"historical":true,"#, 1);
    for request in [
        post("/v1/batch", &flagged).key(),
        post("/v1/batch?historical=true", BATCH).key(),
        post("/v1/batch", BATCH).key().header("X-Flywheel-Historical", "1"),
    ] {
        let answer = running.send(&request).await;
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("5")));
        assert_eq!(answer.json()["code"], "historical_waits");
    }
    assert_eq!(running.send(&post("/v1/batch", BATCH).key()).await.status, 200, "what happens now goes on");
    for other in ["not_historical=true", "historical=trueish", "page=historical%3Dtrue"] {
        let answer = running.send(&post(&format!("/v1/batch?{other}"), BATCH).key()).await;
        assert_eq!(answer.status, 200, "{other} says something else");
    }
    *running.world.lag_ms.lock() = 10;
    assert_eq!(running.send(&post("/v1/batch", &flagged).key()).await.status, 200);
}

#[tokio::test]
async fn a_log_that_cannot_take_more_is_never_the_clients_fault() {
    let log = Arc::new(FaultyLog::new());
    let running = start_on(Options { commit_timeout_ms: 40, ..patient() }, sources(), log.clone()).await;
    let cases = [
        (Fault::Refuses(Error::Overloaded), 429, "overloaded", "1"),
        (Fault::Refuses(Error::NoSpace), 429, "no_space", "5"),
        (Fault::Refuses(Error::Closed), 503, "unavailable", "5"),
        (Fault::FailsLater(Error::NoSpace), 429, "no_space", "5"),
        (Fault::FailsLater(Error::Io { context: "sync".into(), message: "gone".into() }), 503, "unavailable", "5"),
        (Fault::NeverAnswers, 503, "not_durable", "1"),
    ];
    for (fault, status, code, retry_after) in cases {
        *log.fault.lock() = Some(fault);
        let answer = running.send(&post("/v1/batch", BATCH).key()).await;
        assert_eq!((answer.status, answer.header("retry-after")), (status, Some(retry_after)), "{code}");
        assert_eq!(answer.json()["code"], code);
    }
    *log.fault.lock() = None;
    assert_eq!(running.send(&post("/v1/batch", BATCH).key()).await.status, 200);
    assert_eq!(running.send(&get("/livez")).await.status, 200);
}

#[tokio::test]
async fn stopping_says_so_first_then_finishes_what_was_begun() {
    let mut running = start(Options { drain_notice_ms: 60_000, ..patient() }).await;
    assert_eq!(running.send(&get("/readyz")).await.status, 200);
    let stop = running.stop.take().expect("still running");
    stop.send(()).expect("listens");
    let mut ready = running.send(&get("/readyz")).await;
    while ready.status == 200 {
        ready = running.send(&get("/readyz")).await;
    }
    assert_eq!((ready.status, ready.json()["ready"].clone()), (503, false.into()));
    assert_eq!(ready.json()["reasons"][0]["reason"], "shutting down");
    assert_eq!(running.send(&post("/v1/batch", BATCH).key()).await.status, 200, "still served while load balancers look away");
    running.served.abort();

    let mut running = start(patient()).await;
    let whole = post("/v1/batch", BATCH).key().bytes(running.address);
    let mut half = TcpStream::connect(running.address).await.expect("listens");
    half.write_all(&whole[..whole.len() - 1]).await.expect("takes it");
    // Answered on another connection, so the first one has been accepted before it.
    assert_eq!(running.send(&get("/livez")).await.status, 200);
    running.stop.take().expect("still running").send(()).expect("listens");
    while TcpStream::connect(running.address).await.is_ok() {}
    half.write_all(&whole[whole.len() - 1..]).await.expect("takes the rest");
    assert_eq!(Answer::read(&mut half).await.status, 200);
    running.served.await.expect("no panic").expect("ends in order");
    let info = running.log.topics().expect("topics").into_iter().find(|topic| topic.spec.name.as_str() == "main.intake").expect("there");
    let kept: u64 = (0..PARTITIONS)
        .map(|partition| TopicPartition { topic: info.id, partition: flywheel::domain::PartitionId(partition) })
        .map(|partition| running.log.watermarks(partition).expect("reads").end.0)
        .sum();
    assert_eq!(kept, 1);
}

#[tokio::test]
async fn readiness_names_what_stands_against_it() {
    let running = start(patient()).await;
    running.world.degraded.lock().push(Reason { component: "stream".into(), reason: "far behind".into() });
    let answer = running.send(&get("/readyz")).await;
    assert_eq!(answer.status, 200, "what is sent now is kept");
    assert_eq!(answer.text(), r#"{"ready":true,"reasons":[],"degraded":[{"component":"stream","reason":"far behind"}]}"#);
    running.world.not_ready.lock().push(Reason { component: "log".into(), reason: "the disk is full".into() });
    let answer = running.send(&get("/readyz")).await;
    assert_eq!((answer.status, answer.json()["reasons"][0]["reason"].clone()), (503, "the disk is full".into()));
    assert_eq!(running.send(&get("/livez")).await.status, 200, "alive is not ready");
}

#[derive(Debug, Clone)]
enum Fault {
    Refuses(Error),
    FailsLater(Error),
    NeverAnswers,
}

/// A log in memory that fails appends as told.
struct FaultyLog {
    inner: MemoryLog,
    fault: Mutex<Option<Fault>>,
    /// Tickets that nobody will answer.
    silent: Mutex<Vec<tokio::sync::oneshot::Sender<Result<log::Appended, Error>>>>,
}

impl FaultyLog {
    fn new() -> Self {
        Self { inner: MemoryLog::new(Arc::new(ManualClock::at(NOW))), fault: Mutex::default(), silent: Mutex::default() }
    }
}

impl LogReader for FaultyLog {
    fn topics(&self) -> Result<Vec<TopicInfo>, Error> {
        self.inner.topics()
    }
    fn watermarks(&self, partition: TopicPartition) -> Result<Watermarks, Error> {
        self.inner.watermarks(partition)
    }
    fn fetch(&self, partition: TopicPartition, from: Offset, bytes_max: usize) -> Result<Fetched, Error> {
        self.inner.fetch(partition, from, bytes_max)
    }
    fn offset_at(&self, partition: TopicPartition, time: Millis) -> Result<Offset, Error> {
        self.inner.offset_at(partition, time)
    }
    fn committed(&self, group: &Group, partition: TopicPartition) -> Result<Option<Committed>, Error> {
        self.inner.committed(group, partition)
    }
    fn wait(&self, positions: &[(TopicPartition, Offset)], at_most: Duration) -> Result<bool, Error> {
        self.inner.wait(positions, at_most)
    }
}

impl LogWriter for FaultyLog {
    fn create_topic(&self, spec: &TopicSpec) -> Result<TopicInfo, Error> {
        self.inner.create_topic(spec)
    }
    fn acquire(&self, group: &Group, partition: TopicPartition) -> Result<Ownership, Error> {
        self.inner.acquire(group, partition)
    }
    fn append(&self, transaction: Transaction) -> Result<Ticket, Error> {
        let fault = self.fault.lock().clone();
        let (resolve, ticket) = Ticket::new();
        match fault {
            None => return self.inner.append(transaction),
            Some(Fault::Refuses(error)) => return Err(error),
            Some(Fault::FailsLater(error)) => drop(resolve.send(Err(error))),
            Some(Fault::NeverAnswers) => self.silent.lock().push(resolve),
        }
        Ok(ticket)
    }
    fn health(&self) -> Result<(), Error> {
        self.inner.health()
    }
    fn pin(&self, name: &str, partition: TopicPartition, offset: Option<Offset>) -> Result<(), Error> {
        self.inner.pin(name, partition, offset)
    }
    fn clean(&self, now: Millis) -> Result<u64, Error> {
        self.inner.clean(now)
    }
}
