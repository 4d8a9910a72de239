//! A subject's state as bytes: what the state store keeps, so that recovery begins there and not at the first fact.
//!
//! Its size follows what is going on (runs, marks, effects that may still answer: each bounded in `state`), so a run of a million facts
//! recovers like one of ten. The bytes are postcard's, in which fields and variants are places and not names: whoever adds, moves or
//! removes one raises [`SNAPSHOT_VERSION`], and states are built again from the journal.

use super::codec::CodecError;
use super::state::Subject;

pub const SNAPSHOT_VERSION: u8 = 7;

impl Subject {
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.push(SNAPSHOT_VERSION);
        postcard::to_io(self, into).expect("a state is plain data, and a vector takes all bytes");
    }

    pub fn decode(bytes: &[u8]) -> Result<Subject, CodecError> {
        let broken = |why: String| CodecError::Broken { what: "snapshot", why };
        match bytes.split_first() {
            None => Err(broken("it is empty".to_owned())),
            Some((&SNAPSHOT_VERSION, body)) => match postcard::take_from_bytes(body) {
                Ok((subject, [])) => Ok(subject),
                Ok((_, rest)) => Err(broken(format!("{} bytes are left over", rest.len()))),
                Err(error) => Err(broken(error.to_string())),
            },
            Some((&version, _)) => Err(CodecError::Version { what: "snapshot", version, known: SNAPSHOT_VERSION }),
        }
    }
}
