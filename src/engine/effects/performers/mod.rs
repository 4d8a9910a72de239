//! Who performs: agents in this process, mail, webhooks, the log, and HTTP workers. Each says what is known of an attempt: done, not done,
//! or nobody knows.

mod email;
mod webhook;
mod worker;

pub use email::{Email, Links, Messages, Outgoing};
pub use webhook::WebhookPort;
pub use worker::Worker;

use serde_json::json;

use super::call::Call;
use crate::agents::Agent;
use crate::channels::{Failure, Refused};
use crate::workflow::{Category, Outcome};

/// One of `agents`.
pub fn agent(agent: Agent) -> impl Fn(&Call) -> Outcome + Send + Sync {
    move |call| match agent(&call.request.input()) {
        Ok(result) => Outcome::Done { result },
        Err(refused) => refusal(Category::Data, refused.to_string()),
    }
}

/// A line in the server's own log, for whoever watches it.
pub fn log_line(call: &Call) -> Outcome {
    let request = &call.request;
    tracing::warn!(workflow = request.workflow, node = request.node, run = %request.run, input = request.input.get(), "a workflow says");
    Outcome::Done { result: json!({}) }
}

/// Trying again gives the same.
fn refusal(category: Category, error: String) -> Outcome {
    Outcome::Failed { category, error, permanent: true, retry_after_ms: None }
}

fn passing(category: Category, error: String) -> Outcome {
    Outcome::Failed { category, error, permanent: false, retry_after_ms: None }
}

fn unsent(failure: &Failure) -> Outcome {
    let error = failure.to_string();
    match failure {
        Failure::Permit(_) => Outcome::NotBegun { why: error },
        Failure::Passing(_) => passing(Category::Integration, error),
        Failure::Refused { of: Refused::Address | Refused::Recipient, .. } => refusal(Category::Data, error),
        Failure::Refused { of: Refused::Message, .. } => refusal(Category::Api, error),
        Failure::Unknown(_) => Outcome::Unknown { error },
    }
}
