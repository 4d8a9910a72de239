//! Facts as they are written and read: as the parts of a journal record, and in one piece, JSON behind a version byte.

use super::fact::Fact;
use super::ids::RunId;
use crate::domain::Millis;

/// The version byte ahead of a fact's JSON.
const FACT_VERSION: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("{what} of version {version}, this build reads {known}")]
    Version { what: &'static str, version: u8, known: u8 },
    #[error("not a {what}: {why}")]
    Broken { what: &'static str, why: String },
}

impl Fact {
    /// As a journal record carries it: the run's id (empty for the subject's own) and what happened, as JSON.
    pub fn parts(&self) -> (String, String) {
        let run = self.run.map(|run| run.to_string()).unwrap_or_default();
        (run, serde_json::to_string(&self.what).expect("facts are plain data"))
    }

    pub fn from_parts(at: Millis, run: &str, body: &str) -> Result<Fact, CodecError> {
        let broken = |why: String| CodecError::Broken { what: "fact", why };
        let run = match run {
            "" => None,
            run => Some(RunId::parse(run).ok_or_else(|| broken(format!("{run:?} is no run id")))?),
        };
        Ok(Fact { at, run, what: serde_json::from_str(body).map_err(|error| broken(error.to_string()))? })
    }

    pub fn encode(&self, into: &mut Vec<u8>) {
        into.push(FACT_VERSION);
        serde_json::to_writer(into, self).expect("facts are plain data, and a vector takes all bytes");
    }

    pub fn decode(bytes: &[u8]) -> Result<Fact, CodecError> {
        match bytes.split_first() {
            None => Err(CodecError::Broken { what: "fact", why: "it is empty".to_owned() }),
            Some((&FACT_VERSION, body)) => {
                serde_json::from_slice(body).map_err(|error| CodecError::Broken { what: "fact", why: error.to_string() })
            }
            Some((&version, _)) => Err(CodecError::Version { what: "fact", version, known: FACT_VERSION }),
        }
    }
}
