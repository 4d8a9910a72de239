//! What a send comes to.

use crate::permit::{EffectKey, SendPermit};

/// The other side has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// With what the other side said.
    Now(String),
    /// It had it already under this key; nothing was sent.
    Before,
}

/// Why nothing is known to have arrived. What is certain decides whether trying again may repeat a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The permit is of another message or channel. The other side was not asked for anything.
    #[error("not permitted: {0}")]
    Permit(&'static str),
    /// Not sent; trying again may help.
    #[error("not sent, for now: {0}")]
    Passing(String),
    /// Not sent; trying again will not help.
    #[error("refused: {text}")]
    Refused { text: String, of: Refused },
    /// The other side may have it.
    #[error("unknown whether sent: {0}")]
    Unknown(String),
}

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The recipient's address, which takes nothing, ever: what a hard bounce would tell later.
    Address,
    /// This recipient for now or by a rule, such as a full mailbox: nothing is wrong with the address.
    Recipient,
    /// The message, its sender, or our credentials.
    Message,
}

impl Failure {
    /// Whether the permit can be given back: the message certainly did not go out.
    pub fn is_unused(&self) -> bool {
        !matches!(self, Failure::Unknown(_))
    }
}

/// Whether this permit is for this message on this channel.
pub(super) fn check(permit: &SendPermit, channel: &str, key: EffectKey) -> Result<(), Failure> {
    match () {
        () if permit.key() != key => Err(Failure::Permit("the permit is for another message")),
        () if !permit.channel().eq_ignore_ascii_case(channel) => Err(Failure::Permit("the permit is for another channel")),
        () => Ok(()),
    }
}
