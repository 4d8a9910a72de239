//! Tells whoever runs the place of effects that were given up: a line in the log, and a webhook where one is named for it. Which, and how
//! often, [`super::notices`] decides.

use std::sync::Arc;
use std::time::Duration;

use super::call::{Call, Port, Request};
use super::drive::Shared;
use super::notices::Notice;
use crate::domain::SubjectKey;
use crate::permit::Priority;
use crate::workflow::{EffectId, Outcome, Performer, Severity, Unknown};

/// How long a webhook has to take it.
const DEADLINE: Duration = Duration::from_secs(10);

impl Shared {
    pub(super) fn tell(self: &Arc<Self>, notice: Notice) {
        let Notice { run, node, text, count, .. } = &notice;
        let (namespace, tenant) = (&self.namespace, notice.tenant());
        match notice.severity {
            Severity::Critical => tracing::error!(%namespace, tenant, %run, node, text, count, "an effect was given up"),
            Severity::Warning => tracing::warn!(%namespace, tenant, %run, node, text, count, "an effect was given up"),
        }
        let port = self.registry.find(Performer::Webhook, &self.notify).filter(|_| !self.notify.is_empty());
        let (Some(Port::Remote(port)), Some(request)) = (port.cloned(), said(&notice, &self.notify)) else {
            return self.board.lock().pending.notices.told(self.now());
        };
        let shared = Arc::clone(self);
        self.runtime.spawn(async move {
            let call = Call { request: Arc::new(request), attempt: 1, look_up: false, deadline: DEADLINE };
            // On a task of its own: a panic of the performer's must not leave the next untold.
            let outcome = tokio::time::timeout(DEADLINE, tokio::spawn(async move { port.perform(call, None).await })).await;
            let now = shared.now();
            match outcome {
                Ok(Ok(Outcome::Done { .. })) => shared.board.lock().pending.notices.told(now),
                other => {
                    let text = notice.text;
                    tracing::warn!(
                        webhook = shared.notify,
                        text,
                        ?other,
                        "that an effect was given up could not be told; it is tried again"
                    );
                    shared.board.lock().pending.notices.untold(now);
                }
            }
        });
    }
}

/// A notice as a webhook's call; its key is its own, and the same for every attempt to tell. `None` if its subject is none.
fn said(notice: &Notice, to: &str) -> Option<Request> {
    let input = serde_json::json!({
        "type": "workflow.effect_given_up",
        "tenant": notice.tenant(),
        "subject": notice.subject.split_once('\0').map_or("", |(_, subject)| subject),
        "run": notice.run,
        "node": notice.node,
        "category": notice.category,
        "severity": notice.severity,
        "text": notice.text,
        "count": notice.count,
    });
    Some(Request {
        subject: SubjectKey::from_bytes(bytes::Bytes::copy_from_slice(notice.subject.as_bytes())).ok()?,
        run: notice.run,
        effect: EffectId(notice.effect.0 ^ u128::MAX),
        workflow: String::new(),
        node: notice.node.clone(),
        by: Performer::Webhook,
        target: to.to_owned(),
        input: serde_json::value::to_raw_value(&input).expect("plain data"),
        timeout_ms: DEADLINE.as_millis() as i64,
        unknown: Unknown::Retry,
        purpose: String::new(),
        approved: String::new(),
        priority: Priority::High,
        requested_at: notice.at,
    })
}
