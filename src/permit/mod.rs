//! Whether one message may go to one person now: consent for its purpose and channel, suppression of the address, frequency caps, quiet
//! hours where the person lives, and how long the answer holds.
//!
//! Pure, in the engine's shape: [`decide`] answers from a [`Policy`], the person's [`Ledger`] and [`Standing`], and changes nothing; the
//! answer is a fact, and [`Ledger::granted`], [`Ledger::used`] and [`Ledger::unused`] take facts in. A message is sent only with a
//! [`SendPermit`], which nothing makes but [`Grant::redeem`], and a [`Grant`] comes only from [`decide`] or from the journal that kept it.
//! Leaves asking, in time and in order, to the subject's fold, and sending to `channels`.

mod codec;
mod decide;
mod grant;
mod ids;
mod ledger;
mod policy;
mod quiet;
mod refusal;
mod suppression;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use codec::Error;
pub use decide::{Block, Decision, Request, Standing, decide};
pub use grant::{Grant, SendPermit, Unusable};
pub use ids::{EffectKey, Executor};
pub use ledger::Ledger;
pub use policy::{Basis, Cap, Days, Place, Policy, Priority, Problem, Purpose, Quiet, TimeOfDay, duration};
pub use refusal::{Reason, Refusal};
pub use suppression::{AddressKey, Cause, Said, Suppressions, attribute_of};
