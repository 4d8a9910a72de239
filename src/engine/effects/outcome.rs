//! Outcomes as the executor hands them in: its own word for what was not begun, how long a result may be, and what one says about its
//! destination.

use super::breaker::Told as Health;
use super::call::ANSWER_BYTES_MAX;
use crate::workflow::{Category, Outcome};

pub(super) fn not_begun(why: &str) -> Outcome {
    Outcome::NotBegun { why: why.to_owned() }
}

/// A result longer than a record holds is cut down to saying so: it was done. What is kept of others, their subject's fold decides.
pub(super) fn bounded(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Done { result } => {
            let bytes = result.to_string().len();
            if bytes <= ANSWER_BYTES_MAX {
                return Outcome::Done { result };
            }
            let error = format!("the result is {bytes} bytes long, at most {ANSWER_BYTES_MAX} are taken");
            Outcome::Done { result: serde_json::json!({ "error": error }) }
        }
        other => other,
    }
}

/// What an outcome says about the destination: a refused input says that it works.
pub(super) fn health(outcome: &Outcome) -> Health {
    match outcome {
        Outcome::Done { .. } | Outcome::NotDone | Outcome::AddressRefused { .. } => Health::Works,
        Outcome::Failed { permanent: true, .. } | Outcome::Failed { category: Category::Data, .. } => Health::Works,
        // It never got there.
        Outcome::NotBegun { .. } => Health::Nothing,
        Outcome::Failed { .. } | Outcome::Unknown { .. } => Health::Fails,
    }
}
