//! What the machine gives without us: a bare axum handler over one file with shared fdatasync, the disk's own group fsync, and a bare
//! parse-and-fold loop. Every figure is told as a ratio to one of these, measured in the same run.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

type Append = (Bytes, oneshot::Sender<()>);

/// A bare server: each body is appended to one file, and answered after the fdatasync it shared with whoever came meanwhile.
pub async fn bare_server(dir: &Path) -> anyhow::Result<(SocketAddr, JoinHandle<()>)> {
    let file = File::create(dir.join("bare.log"))?;
    let (appends, queue) = mpsc::channel::<Append>();
    std::thread::spawn(move || group_commit(file, &queue));
    let app = Router::new().route("/v1/batch", post(take)).with_state(appends);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "bare server ended");
        }
    });
    Ok((address, server))
}

async fn take(State(appends): State<mpsc::Sender<Append>>, body: Bytes) -> &'static str {
    let (done, durable) = oneshot::channel();
    appends.send((body, done)).expect("the writer lives as long as the server");
    durable.await.expect("the writer answers every append");
    "{\"success\":true}"
}

fn group_commit(mut file: File, queue: &mpsc::Receiver<Append>) {
    let mut buffer = Vec::new();
    while let Ok(first) = queue.recv() {
        let group: Vec<Append> = std::iter::once(first).chain(queue.try_iter()).collect();
        buffer.clear();
        for (body, _) in &group {
            buffer.extend_from_slice(body);
        }
        file.write_all(&buffer).expect("the benchmark's folder has space");
        file.sync_data().expect("the benchmark's disk syncs");
        for (_, done) in group {
            // A client that left does not wait.
            let _ = done.send(());
        }
    }
}

/// Bytes a second that the disk takes in synced groups of `group_bytes`.
pub fn disk_group_fsync(dir: &Path, group_bytes: usize, time: Duration) -> anyhow::Result<f64> {
    let mut file = File::create(dir.join("disk.floor"))?;
    let group = vec![0x5au8; group_bytes];
    let started = Instant::now();
    let mut bytes = 0u64;
    while started.elapsed() < time {
        file.write_all(&group)?;
        file.sync_data()?;
        bytes += group_bytes as u64;
    }
    Ok(bytes as f64 / started.elapsed().as_secs_f64())
}

#[derive(Deserialize)]
struct Bare<'a> {
    #[serde(rename = "userId")]
    user: &'a str,
    event: &'a str,
    properties: BareProperties,
}

#[derive(Deserialize)]
struct BareProperties {
    #[serde(default)]
    price: f64,
}

/// Events a second of parsing JSON and counting per user and event type in one hash map, with no durability at all.
pub fn parse_and_fold(bodies: &[String]) -> f64 {
    let started = Instant::now();
    let mut users: HashMap<String, (u64, f64, HashMap<String, u64>)> = HashMap::new();
    for body in bodies {
        let event: Bare<'_> = serde_json::from_str(body).expect("the benchmark's own events parse");
        if !users.contains_key(event.user) {
            users.insert(event.user.to_owned(), Default::default());
        }
        let state = users.get_mut(event.user).expect("inserted above");
        state.0 += 1;
        state.1 += event.properties.price;
        match state.2.get_mut(event.event) {
            Some(count) => *count += 1,
            None => drop(state.2.insert(event.event.to_owned(), 1)),
        }
    }
    assert!(!users.is_empty() || bodies.is_empty(), "the loop's work must not be optimised away");
    bodies.len() as f64 / started.elapsed().as_secs_f64()
}
