//! Agents: programs that workflows ask for words, leads, placements and figures, as pure functions from an input to a result.
//!
//! These are scripted stand-ins and say so in every result (`"model": "scripted"`): what they answer follows from their input by hash, so
//! that a campaign can be run, replayed and tested without a model or a platform behind it. An agent of one's own is an HTTP worker of the
//! same name, which goes before these. Leaves retries, deadlines and keys to the effects engine.

mod scripted;

use serde_json::{Map, Value as Json};

/// Why an agent gave no result. The input is at fault: asking again gives the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

pub type Agent = fn(&Map<String, Json>) -> Result<Json, Refused>;

/// Every agent, by the name that workflows call it by.
pub const AGENTS: [(&str, Agent); 6] = [
    ("ad_manager", scripted::ad_manager),
    ("analytics", scripted::analytics),
    ("content", scripted::content),
    ("copywriter", scripted::copywriter),
    ("lead_gen", scripted::lead_gen),
    ("optimizer", scripted::optimizer),
];

pub fn find(name: &str) -> Option<Agent> {
    AGENTS.iter().find(|(known, _)| *known == name).map(|(_, agent)| *agent)
}
