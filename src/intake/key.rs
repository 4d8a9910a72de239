//! Which key an event is decided under, and the id of an event that came without one. For whoever appends to `intake` without the gateway.

use super::event::{broken, kind};
use super::ids::who;
use super::json::sorted_members;
use super::members::Members;
use crate::domain::{DeadReason, Subject};

/// The intake key's subject: the anonymous id while there is one (of an alias the id it ties), else the user id.
///
/// An event without either has no subject; it still goes to `intake`, under any key, and is dead-lettered there.
pub fn key_of(body: &str, route: &str) -> Result<Subject, DeadReason> {
    let members = Members::read(body).map_err(|error| broken(error).reason)?;
    let kind = kind(&members, route).map_err(|refusal| refusal.reason)?;
    let who = who(kind, &members).map_err(|refusal| refusal.reason)?;
    match (who.anonymous, who.user) {
        (Some(id), _) => Ok(Subject::anonymous(&id)),
        (None, Some(id)) => Ok(Subject::user(&id)),
        (None, None) => Err(DeadReason::NoIdentity),
    }
}

/// The id of an event that has none: a hash of its members without `sentAt`, which differs when the same event is sent again.
pub fn derived_message_id(body: &str, route: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(route.as_bytes());
    match sorted_members(body) {
        Ok(members) => {
            for (name, value) in members.iter().filter(|(name, _)| *name != "sentAt") {
                hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
                hasher.update(&(value.get().len() as u64).to_le_bytes()).update(value.get().as_bytes());
            }
        }
        Err(_) => {
            hasher.update(body.as_bytes());
        }
    }
    hasher.finalize().to_hex()[..32].to_owned()
}
