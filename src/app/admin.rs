//! The admin API of a running server: what a command line of the same owner may ask of it, because only it may write to the log.
//!
//! One call, `POST /admin/v1/append`: records as they are, to any topic. Commands that change the log (`topic import`, `dead-letter
//! redrive`) are built on it, so that they are the same with and without a server. The token is in the data folder, for its owner only.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Json, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde::{Deserialize, Serialize};

use crate::domain::{Millis, PartitionId};
use crate::log::{Advice, BatchBuilder, Error, LogWriter, TopicInfo, TopicPartition, Transaction};

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
}

pub fn router(log: Arc<dyn LogWriter>, token: String) -> Router {
    Router::new()
        .route("/admin/v1/append", post(append))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::new(Admin { log, token }))
}

type Refusal = (StatusCode, Json<serde_json::Value>);

fn refusal(status: StatusCode, code: &str, message: impl Into<String>) -> Refusal {
    (status, Json(serde_json::json!({"code": code, "message": message.into()})))
}

async fn append(State(admin): State<Arc<Admin>>, headers: HeaderMap, Json(asked): Json<Append>) -> Result<Json<AppendAnswer>, Refusal> {
    let given = headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    // Digests are compared, so that the time taken tells nothing about the token.
    let matches = given.is_some_and(|given| blake3::hash(given.as_bytes()) == blake3::hash(admin.token.as_bytes()));
    if !matches {
        return Err(refusal(StatusCode::UNAUTHORIZED, "unauthorized", "the admin token is in server.json of the data folder"));
    }
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
        builder.push(&record.key, record.value.as_deref(), Millis(record.timestamp));
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
