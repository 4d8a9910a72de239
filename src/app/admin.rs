//! The admin API of a running server: what a command line of the same owner may ask of it, because only it may write to the log.
//!
//! One call, `POST /admin/v1/append`: records as they are, to any topic. Commands that change the log (`topic import`, `dead-letter
//! redrive`) are built on it, so that they are the same with and without a server. The token is in the data folder, for its owner only.
//!
//! It is on the listener that everybody reaches, so it asks who is there before it reads a body: this machine only, and only with the token.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequest, Json, Request, State};
use axum::http::StatusCode;
use axum::routing::post;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::domain::{Millis, PartitionId};
use crate::gateway;
use crate::log::{Advice, BatchBuilder, Error, HeaderList, LogWriter, TopicInfo, TopicPartition, Transaction};

/// Larger than any command's batch, smaller than what could hurt.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A record on its way into a topic. Bytes travel as base64.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incoming {
    pub partition: u32,
    pub timestamp: i64,
    #[serde(with = "base64_bytes")]
    pub key: Vec<u8>,
    #[serde(with = "base64_option")]
    pub value: Option<Vec<u8>>,
    /// Of a foreign producer's record; none of ours has any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<IncomingHeader>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncomingHeader {
    pub name: String,
    #[serde(with = "base64_option")]
    pub value: Option<Vec<u8>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Append {
    pub topic: String,
    pub records: Vec<Incoming>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct AppendAnswer {
    pub appended: u64,
}

struct Admin {
    log: Arc<dyn LogWriter>,
    token: String,
    /// The address that this server listens on: a process of this machine that connects to it comes from there.
    listening: IpAddr,
    /// One body at a time: this is what the whole route may hold.
    turn: Semaphore,
}

pub fn router(log: Arc<dyn LogWriter>, token: String, listening: IpAddr) -> Router {
    Router::new().route("/admin/v1/append", post(append)).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).with_state(Arc::new(Admin {
        log,
        token,
        listening,
        turn: Semaphore::new(1),
    }))
}

type Refusal = (StatusCode, Json<serde_json::Value>);

fn refusal(status: StatusCode, code: &str, message: impl Into<String>) -> Refusal {
    (status, Json(serde_json::json!({"code": code, "message": message.into()})))
}

impl Admin {
    /// Whether the request may be read on: its head alone decides.
    fn admit(&self, request: &Request) -> Result<(), Refusal> {
        let peer = gateway::peer_ip(request.extensions());
        if !peer.is_some_and(|peer| is_this_machine(peer, self.listening)) {
            return Err(refusal(StatusCode::FORBIDDEN, "forbidden", "this is for the server's own machine"));
        }
        let given = request.headers().get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        // Digests are compared, so that the time taken tells nothing about the token.
        if given.is_some_and(|given| blake3::hash(given.as_bytes()) == blake3::hash(self.token.as_bytes())) {
            return Ok(());
        }
        Err(refusal(StatusCode::UNAUTHORIZED, "unauthorized", "the admin token is in server.json of the data folder"))
    }
}

fn is_this_machine(peer: IpAddr, listening: IpAddr) -> bool {
    let peer = peer.to_canonical();
    peer.is_loopback() || peer == listening.to_canonical()
}

async fn append(State(admin): State<Arc<Admin>>, request: Request) -> Result<Json<AppendAnswer>, Refusal> {
    admin.admit(&request)?;
    let _turn = admin.turn.acquire().await.expect("never closed");
    let read = Json::<Append>::from_request(request, &()).await;
    let Json(asked) = read.map_err(|error| refusal(error.status(), "bad_request", error.body_text()))?;
    let failed = |error: Error| {
        let status = if error.advice() == Advice::Retry { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::BAD_REQUEST };
        refusal(status, "not_appended", error.to_string())
    };
    let topics = admin.log.topics().map_err(failed)?;
    let topic = topics.iter().find(|topic| topic.spec.name.as_str() == asked.topic);
    let topic = topic.ok_or_else(|| failed(Error::UnknownTopic(asked.topic.clone())))?;
    let (transaction, appended) =
        transaction(topic, &asked.records).map_err(|message| refusal(StatusCode::BAD_REQUEST, "bad_record", message))?;
    if appended > 0 {
        admin.log.append(transaction).map_err(failed)?.await.map_err(failed)?;
    }
    Ok(Json(AppendAnswer { appended }))
}

/// One atomic append of the records.
pub fn transaction(topic: &TopicInfo, records: &[Incoming]) -> Result<(Transaction, u64), String> {
    let mut builders: Vec<BatchBuilder> = (0..topic.spec.partitions).map(|_| BatchBuilder::new()).collect();
    for record in records {
        let Some(builder) = builders.get_mut(record.partition as usize) else {
            return Err(format!("{} has partitions 0 to {}, not {}", topic.spec.name, topic.spec.partitions - 1, record.partition));
        };
        let mut headers = HeaderList::default();
        for header in &record.headers {
            headers.push(&header.name, header.value.as_deref()).map_err(|error| error.to_string())?;
        }
        builder.push_headed(&record.key, record.value.as_deref(), Millis(record.timestamp), headers.as_headers());
    }
    let filled = builders.into_iter().enumerate().filter(|(_, builder)| !builder.is_empty());
    let batches = filled.map(|(at, builder)| {
        let partition = TopicPartition { topic: topic.id, partition: PartitionId(at as u32) };
        (partition, builder.build())
    });
    Ok((Transaction { batches: batches.collect(), commits: Vec::new() }, records.len() as u64))
}

mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

mod base64_option {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_some(&STANDARD.encode(bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| STANDARD.decode(text).map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_let_in() {
        let cases = [
            ("127.0.0.1", "0.0.0.0", true),
            ("::ffff:127.0.0.1", "::", true),
            ("::1", "::", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.8", "192.0.2.7", false),
            ("192.0.2.8", "0.0.0.0", false),
            ("::ffff:192.0.2.8", "::", false),
        ];
        for (peer, listening, is_let_in) in cases {
            let found = is_this_machine(peer.parse().unwrap(), listening.parse().unwrap());
            assert_eq!(found, is_let_in, "{peer} to a server on {listening}");
        }
    }
}
