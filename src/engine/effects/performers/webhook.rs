//! Webhooks: an event of the run to another system, signed by the standard.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::super::call::{Call, Leave, Performing, Remote};
use super::unsent;
use crate::channels::webhook::Webhook;
use crate::env::Clock;
use crate::workflow::Outcome;

pub struct WebhookPort {
    pub webhook: Webhook,
    pub clock: Arc<dyn Clock>,
}

impl Remote for WebhookPort {
    fn perform(&self, call: Call, _: Option<Leave>) -> Performing<'_> {
        Box::pin(async move {
            if call.look_up {
                return Outcome::Unknown { error: "a webhook cannot be asked whether it came".to_owned() };
            }
            let request = &call.request;
            let mut data = request.input();
            let kind = match data.remove("type") {
                Some(Json::String(kind)) => kind,
                _ => format!("{}.{}", request.workflow, request.node),
            };
            let timestamp = request.requested_at.to_rfc3339();
            let body = json!({ "type": kind, "timestamp": timestamp, "data": data });
            match self.webhook.post(request.key(), self.clock.now(), body.to_string().into_bytes(), call.deadline).await {
                Ok(_) => Outcome::Done { result: json!({}) },
                Err(failure) => unsent(&failure),
            }
        })
    }
}
