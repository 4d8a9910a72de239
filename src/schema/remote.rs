//! Schemas by number from a Confluent-compatible registry elsewhere: asked in the background, kept, and asked again while it does not answer.
//!
//! Who asks never waits: [`Remote::find`] says what is known and sees to the rest. A number that the registry says it does not know is an
//! answer; a registry that is away, refuses the password or talks nonsense is none, and [`Remote::failing`] tells of it.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;
use reqwest::{Client, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

use super::foreign::{SCHEMA_BYTES_MAX, WriterSchema};

/// Schemas kept; each is some kilobytes.
const KEPT: NonZeroUsize = NonZeroUsize::new(10_000).expect("more than none");
/// Questions under way at once.
const ASKED_AT_ONCE: usize = 8;
/// How long "there is no such schema" is believed: it may be registered after all.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The schema within JSON, each of its quotes escaped, with some room.
const ANSWER_BYTES_MAX: usize = 3 * SCHEMA_BYTES_MAX;
/// The API's code for a schema that it does not have.
const SCHEMA_NOT_FOUND: u32 = 40403;

/// Where the registry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// As its clients have it, such as `https://registry.example.com`; empty is our own.
    pub url: String,
    pub user: String,
    pub password: String,
    /// Longest that one question may take.
    pub timeout_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { url: String::new(), user: String::new(), password: String::new(), timeout_ms: 5_000 }
    }
}

impl Options {
    /// An error names the setting and shows no secret.
    pub fn check(&self) -> Result<(), String> {
        if self.url.is_empty() {
            return Ok(());
        }
        let url = reqwest::Url::parse(&self.url).map_err(|error| format!("registry.url: {error}"))?;
        if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none() {
            return Err("registry.url is no address such as https://registry.example.com".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("registry.url holds a user or a password: put them into registry.user and registry.password".to_owned());
        }
        if self.timeout_ms == 0 {
            return Err("registry.timeout_ms is 0, it takes at least 1".to_owned());
        }
        Ok(())
    }
}

/// What is known of a number.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    Known(Arc<WriterSchema>),
    /// There is no schema of this number that bodies can be read with, and why.
    Unknown(String),
    /// Asked, and not answered yet.
    Pending,
}

/// A registry elsewhere. Dropping it ends its questions.
#[derive(Debug)]
pub struct Remote {
    state: Arc<Mutex<State>>,
    ask: mpsc::UnboundedSender<u32>,
}

#[derive(Debug)]
struct State {
    known: LruCache<u32, Answer>,
    asked: HashSet<u32>,
    failing: Option<String>,
}

#[derive(Debug, Clone)]
struct Answer {
    found: Result<Arc<WriterSchema>, String>,
    at: Instant,
}

impl Remote {
    /// Starts the thread that asks.
    pub fn start(options: &Options) -> Result<Self, String> {
        options.check()?;
        let timeout = Duration::from_millis(options.timeout_ms);
        let client =
            Client::builder().timeout(timeout).connect_timeout(timeout).no_proxy().redirect(reqwest::redirect::Policy::none()).build();
        let client = client.map_err(|error| format!("registry.url: {error}"))?;
        let state = State { known: LruCache::new(KEPT), asked: HashSet::new(), failing: None };
        let state = Arc::new(Mutex::new(state));
        let (ask, asked) = mpsc::unbounded_channel();
        let asker = Asker { client, options: options.clone(), state: Arc::clone(&state), turns: Arc::new(Semaphore::new(ASKED_AT_ONCE)) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("registry.url: {error}"))?;
        let body = move || runtime.block_on(asker.run(asked));
        std::thread::Builder::new().name("registry".to_owned()).spawn(body).map_err(|error| format!("registry.url: {error}"))?;
        Ok(Self { state, ask })
    }

    pub fn find(&self, id: u32) -> Lookup {
        let mut state = self.state.lock();
        match state.known.get(&id) {
            Some(Answer { found: Ok(schema), .. }) => return Lookup::Known(Arc::clone(schema)),
            Some(Answer { found: Err(why), at }) if at.elapsed() < UNKNOWN_FOR => return Lookup::Unknown(why.clone()),
            _ => {}
        }
        if state.asked.insert(id) {
            // Its end has gone only with the thread, which then answers nobody: the question stays open.
            let _ = self.ask.send(id);
        }
        Lookup::Pending
    }

    /// Why questions are open, if it is not just that they were asked a moment ago.
    pub fn failing(&self) -> Option<String> {
        let state = self.state.lock();
        state.failing.clone().filter(|_| !state.asked.is_empty())
    }
}

#[derive(Clone)]
struct Asker {
    client: Client,
    options: Options,
    state: Arc<Mutex<State>>,
    turns: Arc<Semaphore>,
}

/// The registry's answer to a number.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct NotFound {
    error_code: u32,
}

impl Asker {
    async fn run(self, mut asked: mpsc::UnboundedReceiver<u32>) {
        while let Some(id) = asked.recv().await {
            tokio::spawn(self.clone().answer(id));
        }
    }

    /// Asks until there is an answer.
    async fn answer(self, id: u32) {
        let mut pause = PAUSE_MIN;
        loop {
            let asked = {
                let _turn = self.turns.acquire().await.expect("never closed");
                self.ask(id).await
            };
            match asked {
                Ok(found) => {
                    let mut state = self.state.lock();
                    state.known.put(id, Answer { found, at: Instant::now() });
                    state.asked.remove(&id);
                    state.failing = None;
                    return;
                }
                Err(why) => {
                    let why = format!("the schema registry at registry.url ({}) does not answer: {why}", self.options.url);
                    if self.state.lock().failing.replace(why.clone()).is_none() {
                        tracing::warn!(schema = id, "{why}; asking again until it does");
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The outer error is no answer.
    async fn ask(&self, id: u32) -> Result<Result<Arc<WriterSchema>, String>, String> {
        let url = format!("{}/schemas/ids/{id}", self.options.url.trim_end_matches('/'));
        let mut request = self.client.get(url).header("Accept", "application/vnd.schemaregistry.v1+json, application/json");
        if !self.options.user.is_empty() {
            request = request.basic_auth(&self.options.user, Some(&self.options.password));
        }
        let mut response = request.send().await.map_err(|error| told(&error))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| told(&error))? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                return Ok(Err(format!("schema {id} is longer than {SCHEMA_BYTES_MAX} bytes")));
            }
        }
        match status {
            StatusCode::OK => {
                let found: Found = serde_json::from_slice(&body).map_err(|_| "its answer is not that of a schema registry".to_owned())?;
                Ok(schema(id, &found))
            }
            // Another 404 is that of a wrong address, at which there is no schema at all.
            StatusCode::NOT_FOUND if serde_json::from_slice::<NotFound>(&body).is_ok_and(|error| error.error_code == SCHEMA_NOT_FOUND) => {
                Ok(Err(format!("the registry has no schema {id}")))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(format!("{status}; registry.user and registry.password are refused")),
            _ => Err(format!("it answers {status}")),
        }
    }
}

fn schema(id: u32, found: &Found) -> Result<Arc<WriterSchema>, String> {
    if let Some(kind) = found.schema_type.as_deref().filter(|kind| *kind != "AVRO") {
        return Err(format!("schema {id} is {}, only AVRO is read", kind.chars().take(32).collect::<String>()));
    }
    if !found.references.is_empty() {
        return Err(format!("schema {id} refers to other schemas, which is not supported: register it with the named types inside"));
    }
    WriterSchema::parse(&found.schema).map(Arc::new).map_err(|error| format!("schema {id}: {error}"))
}

/// The error with its cause, without the address, which is said beside it.
fn told(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took longer than registry.timeout_ms".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
