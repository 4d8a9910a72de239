//! `WS /ws/realtime`: a tenant's facts, segment changes and profiles as they come, each with the position to go on from.
//!
//! The log is the buffer: each client is a position in it, so a reconnect with `?from=` misses nothing and repeats nothing, and a slow
//! client costs no memory. One that falls too far behind is told how far and cut; it comes again from where it was. Order holds within
//! a subject and topic.

mod feed;
mod position;
mod pulse;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::Response;
use axum::http::request::Parts;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use feed::{Feed, Found, Wanted};
use position::Position;
pub(super) use pulse::Pulses;

use super::campaigns::subject_of;
use super::options::Access;
use super::query::{only, query};
use super::reply::Refusal;
use super::{Gateway, ReadError, Shared};
use crate::domain::{Offset, PartitionId, Subject};
use crate::workflow::RunId;

/// What a client may say to us, which is nothing that we listen to.
const HEARD_BYTES_MAX: usize = 4 * 1024;
/// Runs whose workflow one connection remembers.
const RUNS_MAX: usize = 10_000;
/// A run that the read model does not know yet is asked for again with this pause, and so long; past it the client comes again.
const UNKNOWN_RUN_PAUSE: Duration = Duration::from_millis(50);
const UNKNOWN_RUN_WAIT: Duration = Duration::from_secs(30);

#[utoipa::path(get, path = "/ws/realtime", tag = "campaigns",
    params(("from" = Option<String>, Query, description = "the `position` of the last message that was seen; the present if absent"),
        ("topics" = Option<String>, Query, description = "of journal, segment_changes, profiles; all if absent"),
        ("subject" = Option<String>, Query), ("workflow" = Option<String>, Query, description = "only facts of its runs"),
        ("token" = Option<String>, Query, description = "the API key, for browsers, which cannot send headers here")),
    responses((status = 101, description = "a WebSocket of JSON messages: hello, fact, segment_change, profile, position, behind"), super::openapi::Refusals))]
pub(super) async fn realtime(State(gateway): State<Shared>, request: Request) -> Response<Body> {
    let (mut head, _) = request.into_parts();
    match gateway.watch(&head).await {
        Ok(watcher) => match WebSocketUpgrade::from_request_parts(&mut head, &()).await {
            Ok(upgrade) => upgrade.max_message_size(HEARD_BYTES_MAX).on_upgrade(move |socket| watcher.run(socket)),
            Err(_) => gateway.refuse(Refusal::InvalidRequest("this is for WebSockets: the request asks for no upgrade".to_owned())),
        },
        Err(refusal) => gateway.refuse(refusal),
    }
}

impl Gateway {
    async fn watch(self: &Arc<Self>, head: &Parts) -> Result<Watcher, Refusal> {
        let ask = |name| query(head.uri.query(), name);
        let token = ask("token").map(|token| token.into_owned()).or_else(|| super::auth::api_key(&head.headers));
        let access = self.access_by(head, token.as_deref())?;
        only(head, &["from", "topics", "subject", "workflow", "token"])?;
        let world = self.world(&access.namespace)?.clone();
        let workflow = ask("workflow").map(|name| name.into_owned());
        if let Some(name) = &workflow {
            self.is_workflow(&access, name).await?;
        }
        let topics = ask("topics").map(|topics| topics.into_owned());
        let topics = match (&topics, &workflow) {
            // Only facts are of a workflow.
            (None, Some(_)) => vec!["journal"],
            (None, None) => vec!["journal", "profiles", "segment_changes"],
            (Some(topics), _) => topics.split(',').collect(),
        };
        let subject = ask("subject").map(|subject| marked(&subject)).transpose()?.map(|subject| subject.key(&access.tenant));
        let wanted = Wanted::new(&world, access.tenant.clone(), &topics, subject).map_err(Refusal::InvalidRequest)?;
        let position = match ask("from") {
            Some(text) => Position::parse(&text, &world).map_err(Refusal::InvalidRequest)?,
            None => Position::end(&*self.app.log, &world)?,
        };
        let place = self.watchers.clone().try_acquire_owned().map_err(|_| Refusal::Overloaded)?;
        let feed = Feed::new(self.app.log.clone(), world, wanted, position)?;
        Ok(Watcher { gateway: self.clone(), access, workflow, feed: Some(feed), runs: HashMap::new(), told: String::new(), _place: place })
    }
}

/// A subject with its mark. Without one a user's id is taken elsewhere, where who is meant and not there is answered with 404; here it would be
/// silence.
fn marked(text: &str) -> Result<Subject, Refusal> {
    match Subject::parse(text) {
        Some(_) => subject_of(text),
        None => {
            let text: String = text.chars().take(80).collect();
            Err(Refusal::InvalidRequest(format!(
                "subject={text:?} does not say whose id it is: write u:{text} for a user, a:{text} for a device"
            )))
        }
    }
}

/// One client.
struct Watcher {
    gateway: Shared,
    access: Access,
    workflow: Option<String>,
    /// Away while a thread that may wait for the disk reads with it.
    feed: Option<Feed>,
    /// The workflows of runs that were seen; none of those that nobody knows.
    runs: HashMap<RunId, Option<String>>,
    /// The position of the last message.
    told: String,
    _place: OwnedSemaphorePermit,
}

/// Why a connection ends.
enum End {
    /// The client left, or its socket is broken.
    Gone,
    Slow,
    /// The read model does not know yet whose fact it is.
    NotYet,
    Stopping,
    Failed(String),
}

impl Watcher {
    async fn run(mut self, mut socket: WebSocket) {
        let frame = match self.serve(&mut socket).await {
            End::Gone => return,
            End::Slow => {
                // What was read since and not said is told again from there.
                let records = self.feed.as_ref().map(Feed::behind).unwrap_or_default();
                let _ = self.say(&mut socket, &json!({"type": "behind", "records": records, "position": self.told})).await;
                CloseFrame { code: close_code::AGAIN, reason: "too far behind; come again from your position".into() }
            }
            End::NotYet => {
                let reason = "the read model is being made or is far behind; come again from your position".into();
                CloseFrame { code: close_code::AGAIN, reason }
            }
            End::Stopping => CloseFrame { code: close_code::AWAY, reason: "the server is stopping".into() },
            End::Failed(why) => {
                tracing::error!(why, "a realtime connection failed");
                CloseFrame { code: close_code::ERROR, reason: "reading failed; the server's log says why".into() }
            }
        };
        // Who does not read the goodbye is gone as well.
        let _ = timeout(self.write_timeout(), socket.send(Message::Close(Some(frame)))).await;
    }

    fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.gateway.app.options.write_timeout_ms)
    }

    async fn say(&self, socket: &mut WebSocket, message: &Value) -> Result<(), End> {
        match timeout(self.write_timeout(), socket.send(Message::text(message.to_string()))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(End::Slow),
        }
    }

    async fn serve(&mut self, socket: &mut WebSocket) -> End {
        match self.follow(socket).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn follow(&mut self, socket: &mut WebSocket) -> Result<std::convert::Infallible, End> {
        let gateway = self.gateway.clone();
        let mut closing = gateway.closing.subscribe();
        let mut pulse = gateway.pulses.subscribe(&self.access.namespace, &gateway);
        let mut ping = interval(Duration::from_millis(gateway.app.options.realtime_ping_ms.max(1)));
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.tick().await;
        let begun_behind = self.feed_ref()?.behind();
        self.told = self.feed_ref()?.position().to_string();
        self.say(socket, &json!({"type": "hello", "position": self.told, "behind": begun_behind})).await?;
        let mut unanswered = 0u32;
        loop {
            pulse.borrow_and_update();
            let (found, is_more) = self.read().await?;
            for found in found {
                let message = tokio::select! {
                    biased;
                    () = closed(&mut closing) => return Err(End::Stopping),
                    gone = left(socket, &mut unanswered) => return Err(gone),
                    message = self.message(found) => message?,
                };
                if let Some(message) = message {
                    self.say(socket, &message).await?;
                    message["position"].as_str().unwrap_or_default().clone_into(&mut self.told);
                }
            }
            let behind = self.feed_ref()?.behind();
            if behind > gateway.app.options.realtime_behind_max && behind > begun_behind {
                return Err(End::Slow);
            }
            tokio::select! {
                biased;
                () = closed(&mut closing) => return Err(End::Stopping),
                heard = socket.recv() => match heard {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(End::Gone),
                    // Pings are answered by the library, and there is nothing else to say to us.
                    Some(Ok(_)) => unanswered = 0,
                },
                _ = ping.tick() => {
                    if unanswered >= 2 {
                        return Err(End::Gone);
                    }
                    unanswered += 1;
                    let _ = timeout(self.write_timeout(), socket.send(Message::Ping(bytes::Bytes::new()))).await;
                    // What was read and is of no interest need not be read again after a reconnect.
                    let now = self.feed_ref()?.position().to_string();
                    if now != self.told {
                        self.say(socket, &json!({"type": "position", "position": now})).await?;
                        self.told = now;
                    }
                }
                () = std::future::ready(()), if is_more => {}
                changed = pulse.changed() => if changed.is_err() {
                    return Err(End::Failed("nobody looks at the log any more".to_owned()));
                },
            }
        }
    }

    fn feed_ref(&self) -> Result<&Feed, End> {
        self.feed.as_ref().ok_or_else(|| End::Failed("the reading thread did not come back".to_owned()))
    }

    /// Reads on, on a thread that may wait for the disk; and whether there is more.
    async fn read(&mut self) -> Result<(Vec<Found>, bool), End> {
        let Some(mut feed) = self.feed.take() else { return Err(End::Failed("the reading thread did not come back".to_owned())) };
        let read = tokio::task::spawn_blocking(move || {
            let found = feed.read();
            (feed, found)
        });
        let (feed, found) = read.await.map_err(|error| End::Failed(error.to_string()))?;
        self.feed = Some(feed);
        found.map_err(End::Failed)
    }

    /// The message of what was found; none if it is of another workflow.
    async fn message(&mut self, found: Found) -> Result<Option<Value>, End> {
        let Found { mut message, run, starts, place } = found;
        let Some(run) = run else {
            let is_of_it = self.workflow.is_none() || starts.is_some() && starts == self.workflow;
            return Ok(is_of_it.then_some(message));
        };
        if self.runs.len() >= RUNS_MAX {
            self.runs.clear();
        }
        if starts.is_some() {
            self.runs.insert(run, starts);
        }
        if !self.runs.contains_key(&run) {
            // Who wants a workflow's facts waits until it is known whose they are; who wants all of them is told as much as is known now.
            let known = if self.workflow.is_some() { Some(self.look_up(run, place).await?) } else { self.known_now(run, place).await };
            if let Some(known) = known {
                self.runs.insert(run, known);
            }
        }
        let workflow = self.runs.get(&run).and_then(Option::as_ref);
        if self.workflow.is_some() && workflow != self.workflow.as_ref() {
            return Ok(None);
        }
        if let Some(workflow) = workflow {
            message["workflow"] = json!(workflow);
        }
        Ok(Some(message))
    }

    /// The workflow of a run that was begun before this connection, if the read model says it now; outer none if it may say so later.
    async fn known_now(&self, run: RunId, (partition, offset): (PartitionId, Offset)) -> Option<Option<String>> {
        let campaigns = &self.gateway.app.campaigns;
        let is_past = campaigns.is_projected(&self.access, partition, offset).await.unwrap_or(false);
        match campaigns.run(&self.access, run).await {
            Ok(Some(found)) => Some(Some(found.workflow)),
            Ok(None) if is_past => Some(None),
            Ok(None) | Err(_) => None,
        }
    }

    /// The workflow of a run that was begun before this connection; none if the read model has come past the fact and knows of no such
    /// run. What it does not know yet is waited for.
    async fn look_up(&self, run: RunId, (partition, offset): (PartitionId, Offset)) -> Result<Option<String>, End> {
        let until = Instant::now() + UNKNOWN_RUN_WAIT;
        loop {
            let campaigns = &self.gateway.app.campaigns;
            // Asked first: what is known by then is known to the next question.
            let is_past = campaigns.is_projected(&self.access, partition, offset).await;
            match (is_past, campaigns.run(&self.access, run).await) {
                (_, Ok(Some(found))) => return Ok(Some(found.workflow)),
                (Ok(true), Ok(None)) => return Ok(None),
                (Err(ReadError::Failed(why)), _) | (_, Err(ReadError::Failed(why))) => return Err(End::Failed(why)),
                _ if Instant::now() >= until => return Err(End::NotYet),
                _ => tokio::time::sleep(UNKNOWN_RUN_PAUSE).await,
            }
        }
    }
}

/// Until the client leaves; what else it says is only that it is there.
async fn left(socket: &mut WebSocket, unanswered: &mut u32) -> End {
    loop {
        match socket.recv().await {
            Some(Ok(Message::Close(_)) | Err(_)) | None => return End::Gone,
            Some(Ok(_)) => *unanswered = 0,
        }
    }
}

async fn closed(closing: &mut tokio::sync::watch::Receiver<bool>) {
    // The sender's end is as good a reason to stop as its word.
    let _ = closing.wait_for(|closing| *closing).await;
}
