//! A load generator light enough to share two cores with what it measures: raw keep-alive connections, requests patched in place.
//!
//! Closed loop (each connection sends its next request when the last is answered) finds the rate that is sustained; open loop (requests
//! leave on a schedule, and their latency counts from when they were due) finds the latency at a rate without coordinated omission.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// One request, whose digits at `patches` are replaced by a running number before each send, so that every event is its own.
#[derive(Debug, Clone)]
pub struct Request {
    pub bytes: Vec<u8>,
    /// Where sixteen digits of a running number stand; each occurrence gets a number of its own.
    pub patches: Vec<usize>,
    /// Where eight digits of a user number stand, and how many users there are.
    pub users: Vec<usize>,
    pub users_max: u64,
    /// Hears the number of the last event of every acknowledged request, and when.
    pub acknowledged: Option<mpsc::UnboundedSender<(u64, Instant)>>,
}

/// What one request holds.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub events: usize,
    pub event_bytes: usize,
    pub gzip: bool,
    pub users: u64,
}

const NUMBER: &str = "0000000000000000";
const USER: &str = "00000000";

/// A track call of about `bytes` bytes, with the marks that [`Request`] patches.
pub fn event_json(bytes: usize, timestamp: &str) -> String {
    let head = format!(
        "{{\"type\":\"track\",\"event\":\"Product Viewed\",\"userId\":\"user-{USER}\",\"messageId\":\"bench-{NUMBER}\",\"timestamp\":\"{timestamp}\",\
         \"properties\":{{\"product_id\":\"sku-1234\",\"category\":\"shoes\",\"price\":59.9,\"currency\":\"USD\",\"note\":\""
    );
    let tail = "\"},\"context\":{\"library\":{\"name\":\"bench\",\"version\":\"1\"},\"page\":{\"path\":\"/p/sku-1234\"}}}";
    let fill = bytes.saturating_sub(head.len() + tail.len());
    format!("{head}{}{tail}", "x".repeat(fill))
}

/// A batch request for `path`. A compressed one cannot be patched: its events repeat from request to request.
pub fn batch_request(host: &str, write_key: &str, shape: Shape) -> Request {
    let timestamp = jiff::Timestamp::now().to_string();
    let event = event_json(shape.event_bytes, &timestamp);
    let body = format!("{{\"batch\":[{}]}}", vec![event; shape.events].join(","));
    let (body, encoding) =
        if shape.gzip { (compress(number(body.into_bytes())), "content-encoding: gzip\r\n") } else { (body.into_bytes(), "") };
    let auth = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{write_key}:"));
    let head = format!(
        "POST /v1/batch HTTP/1.1\r\nhost: {host}\r\nauthorization: Basic {auth}\r\ncontent-type: application/json\r\n{encoding}content-length: {}\r\n\r\n",
        body.len()
    );
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(&body);
    let find = |mark: &str, skip: usize| -> Vec<usize> {
        let mark = mark.as_bytes();
        bytes.windows(mark.len()).enumerate().filter(|(_, window)| *window == mark).map(|(at, _)| at + skip).collect()
    };
    let patches = find(&format!("bench-{NUMBER}"), "bench-".len());
    let users = find(&format!("user-{USER}"), "user-".len());
    Request { bytes, patches, users, users_max: shape.users, acknowledged: None }
}

/// Reads one of `users` profiles, a different one each time.
pub fn profile_request(host: &str, users: u64) -> Request {
    let text = format!("GET /api/v1/users/user-{USER}/profile HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let place = text.find(USER).expect("it is there");
    Request { bytes: text.into_bytes(), patches: Vec::new(), users: vec![place], users_max: users, acknowledged: None }
}

fn number(mut body: Vec<u8>) -> Vec<u8> {
    let mark = format!("bench-{NUMBER}").into_bytes();
    let mut next = 0;
    let mut at = 0;
    while let Some(found) = body[at..].windows(mark.len()).position(|window| window == mark) {
        let digits = at + found + "bench-".len();
        write_digits(&mut body[digits..digits + NUMBER.len()], next);
        next += 1;
        at = digits;
    }
    body
}

fn compress(body: Vec<u8>) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&body).expect("memory takes every write");
    encoder.finish().expect("memory takes every write")
}

fn write_digits(into: &mut [u8], mut number: u64) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

impl Request {
    /// Returns the last number it used.
    fn patch(&mut self, next: &AtomicU64) -> u64 {
        let count = self.patches.len().max(self.users.len()) as u64;
        let first = next.fetch_add(count, Ordering::Relaxed);
        for (at, place) in self.patches.iter().enumerate() {
            write_digits(&mut self.bytes[*place..*place + NUMBER.len()], first + at as u64);
        }
        for (at, place) in self.users.iter().enumerate() {
            // A fixed odd multiplier spreads consecutive numbers over all users.
            let user = (first + at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
            write_digits(&mut self.bytes[*place..*place + USER.len()], user % self.users_max.max(1));
        }
        first + count.saturating_sub(1)
    }
}

/// How requests leave.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    Closed,
    /// Requests a second over all connections.
    Open(f64),
}

#[derive(Debug)]
pub struct Measured {
    pub requests: u64,
    pub elapsed: Duration,
    pub refused: u64,
    /// Microseconds.
    pub latency: Histogram<u64>,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    pub fn millis_at(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1_000.0
    }
}

/// Runs `connections` connections against `address` for `time`; `numbers` makes events unique over several runs.
pub async fn run(
    address: SocketAddr,
    request: &Request,
    connections: usize,
    pace: Pace,
    time: Duration,
    numbers: &Arc<AtomicU64>,
) -> anyhow::Result<Measured> {
    run_gated(address, request, connections, pace, time, numbers, None).await
}

/// The same, sending nothing while `paused` is set.
pub async fn run_gated(
    address: SocketAddr,
    request: &Request,
    connections: usize,
    pace: Pace,
    time: Duration,
    numbers: &Arc<AtomicU64>,
    paused: Option<&Arc<AtomicBool>>,
) -> anyhow::Result<Measured> {
    let rate = match pace {
        Pace::Closed => None,
        Pace::Open(rate) => Some(rate),
    };
    let mix = [(request.clone(), 1)];
    drive(Drive { address, mix: &mix, connections, rate, time, numbers, paused }).await
}

/// An open loop of several kinds of request, each as often as its weight says.
pub async fn run_mixed(
    address: SocketAddr,
    mix: &[(Request, usize)],
    connections: usize,
    rate: f64,
    time: Duration,
    numbers: &Arc<AtomicU64>,
) -> anyhow::Result<Measured> {
    drive(Drive { address, mix, connections, rate: Some(rate), time, numbers, paused: None }).await
}

struct Drive<'a> {
    address: SocketAddr,
    mix: &'a [(Request, usize)],
    connections: usize,
    /// Requests a second over all connections; `None` sends as fast as answers come.
    rate: Option<f64>,
    time: Duration,
    numbers: &'a Arc<AtomicU64>,
    paused: Option<&'a Arc<AtomicBool>>,
}

async fn drive(asked: Drive<'_>) -> anyhow::Result<Measured> {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for at in 0..asked.connections {
        let schedule = asked.rate.map(|rate| {
            let gap = Duration::from_secs_f64(asked.connections as f64 / rate);
            (started + gap.mul_f64(at as f64 / asked.connections as f64), gap)
        });
        // Each kind once per weight; connections begin at different places of the round.
        let mut round: Vec<Request> =
            asked.mix.iter().flat_map(|(request, weight)| std::iter::repeat_n(request.clone(), *weight)).collect();
        let turn = at % round.len();
        round.rotate_left(turn);
        let connection = Connection {
            address: asked.address,
            round,
            schedule,
            until: started + asked.time,
            numbers: Arc::clone(asked.numbers),
            paused: asked.paused.cloned(),
        };
        tasks.spawn(connection.run());
    }
    let mut all = Measured { requests: 0, elapsed: Duration::ZERO, refused: 0, latency: Histogram::new(3)? };
    while let Some(result) = tasks.join_next().await {
        let one = result??;
        all.requests += one.requests;
        all.refused += one.refused;
        all.latency.add(&one.latency)?;
    }
    all.elapsed = started.elapsed();
    Ok(all)
}

struct Connection {
    address: SocketAddr,
    round: Vec<Request>,
    schedule: Option<(Instant, Duration)>,
    until: Instant,
    numbers: Arc<AtomicU64>,
    paused: Option<Arc<AtomicBool>>,
}

impl Connection {
    async fn run(mut self) -> anyhow::Result<Measured> {
        let mut stream = TcpStream::connect(self.address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let mut measured = Measured { requests: 0, elapsed: Duration::ZERO, refused: 0, latency: Histogram::new(3)? };
        let mut buffer = Vec::with_capacity(4096);
        for turn in 0.. {
            let due = self.due().await;
            if due >= self.until {
                break;
            }
            let kinds = self.round.len();
            let request = &mut self.round[turn % kinds];
            let last = request.patch(&self.numbers);
            stream.write_all(&request.bytes).await?;
            match read_answer(&mut stream, &mut buffer).await? {
                200 | 202 | 404 => measured.requests += 1,
                429 | 503 => measured.refused += 1,
                status => bail!("the server answered {status}: {}", String::from_utf8_lossy(&buffer)),
            }
            if let Some(told) = &request.acknowledged {
                // Nobody listens once the measurement is over.
                let _ = told.send((last, Instant::now()));
            }
            measured.latency.record(due.elapsed().as_micros() as u64)?;
        }
        Ok(measured)
    }

    /// When the next request is due, having waited for it.
    async fn due(&mut self) -> Instant {
        match &mut self.schedule {
            Some((next, gap)) => {
                let due = *next;
                *next += *gap;
                tokio::time::sleep_until(due.into()).await;
                due
            }
            None => {
                while self.paused.as_ref().is_some_and(|paused| paused.load(Ordering::Relaxed)) && Instant::now() < self.until {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Instant::now()
            }
        }
    }
}

/// Reads one answer and returns its status; `buffer` is scratch.
pub async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<u16> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            bail!("the server closed the connection");
        }
        let Some(head_end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&buffer[..head_end]).context("an answer's head is text")?;
        let status = head.get(9..12).and_then(|digits| digits.parse().ok()).context("a status line")?;
        let length = head
            .lines()
            .find_map(|line| line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")))
            .map_or(Ok(0), |(_, value)| value.trim().parse::<usize>())?;
        while buffer.len() < head_end + 4 + length {
            if stream.read_buf(buffer).await? == 0 {
                bail!("the server closed the connection inside an answer");
            }
        }
        return Ok(status);
    }
}
