//! How messages leave and what comes back: templates, mail, the outbox folder, SMTP, signed webhooks and links, bounces and complaints.
//!
//! A send consumes a [`SendPermit`](crate::permit::SendPermit) and carries the effect's idempotency key to the other side: as the file's
//! name, the Message-ID, the webhook's id. A failure says what is known: not sent, or nobody knows. Leaves deciding what is sent, when and
//! how often to the subject's fold and its executors, and serving the links to the gateway.

pub mod bots;
pub mod events;
pub mod inbound;
pub mod link;
pub mod mail;
pub mod outbox;
pub mod smtp;
pub mod template;
pub mod track;
pub mod webhook;

mod failure;
mod hmac;

#[cfg(test)]
mod tests;

pub use failure::{Failure, Refused, Sent};
