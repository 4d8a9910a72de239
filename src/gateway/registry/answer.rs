//! The registry's own forms: `{"error_code", "message"}` with its codes, and its content type.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use crate::gateway::reply::{Refusal, with_body};
use crate::schema::subjects::Refused;

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.schemaregistry.v1+json");

/// Why there is no answer. Codes are those of the Confluent registry: clients tell by them whether a subject or a schema is missing.
#[derive(Debug)]
pub(super) enum Problem {
    NoSubject(String),
    NoVersion(String),
    NoSchema,
    NoLevel(String),
    InvalidSchema(String),
    InvalidVersion(String),
    InvalidLevel(String),
    Incompatible(String),
    /// What this registry does not do.
    Unsupported(String),
    NoRoute(String),
    /// What any route of the gateway may refuse.
    Other(Refusal),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Problem::Other(refusal)
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::Invalid(_) => Problem::InvalidSchema(message),
            Refused::Incompatible { .. } => Problem::Incompatible(message),
            Refused::BuiltIn(_) | Refused::TooMany | Refused::Name(_) => Problem::Unsupported(message),
        }
    }
}

impl Problem {
    /// Status, code and message.
    fn parts(&self) -> (StatusCode, u32, String) {
        let (not_found, unprocessable) = (StatusCode::NOT_FOUND, StatusCode::UNPROCESSABLE_ENTITY);
        match self {
            Problem::NoSubject(subject) => (not_found, 40401, format!("Subject '{subject}' not found.")),
            Problem::NoVersion(version) => (not_found, 40402, format!("Version {version} not found.")),
            Problem::NoSchema => (not_found, 40403, "Schema not found".to_owned()),
            Problem::NoLevel(subject) => {
                (not_found, 40408, format!("Subject '{subject}' does not have subject-level compatibility configured"))
            }
            Problem::InvalidSchema(message) => (unprocessable, 42201, message.clone()),
            Problem::InvalidVersion(version) => (
                unprocessable,
                42202,
                format!("The specified version '{version}' is not a valid version id: a number from 1 on, or latest"),
            ),
            Problem::InvalidLevel(message) => (unprocessable, 42203, message.clone()),
            Problem::Incompatible(message) => (StatusCode::CONFLICT, 409, message.clone()),
            Problem::Unsupported(message) => (unprocessable, 42205, message.clone()),
            Problem::NoRoute(message) => (not_found, 404, message.clone()),
            Problem::Other(refusal) => {
                let status = refusal.status();
                (status, u32::from(status.as_u16()) * 100 + 1, refusal.to_string())
            }
        }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let (status, error_code, message) = self.parts();
        let mut response = with_body(status, CONTENT_TYPE, json!({"error_code": error_code, "message": message}).to_string());
        if let Problem::Other(refusal) = self {
            // Among them when to come again.
            let headers = refusal.into_response();
            let kept = headers.headers().iter().filter(|(name, _)| *name != axum::http::header::CONTENT_TYPE);
            response.headers_mut().extend(kept.map(|(name, value)| (name.clone(), value.clone())));
        }
        response
    }
}

pub(super) fn answer(value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => with_body(StatusCode::OK, CONTENT_TYPE, body),
        Err(error) => Problem::Other(Refusal::ReadFailed(error.to_string())).into_response(),
    }
}
