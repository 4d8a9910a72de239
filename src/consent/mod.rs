//! What a person allowed, by purpose and channel, as the events carried it: for each the latest word by the event's own time.
//!
//! Pure, and the order of events does not matter: [`Consent::absorb`] and [`Consent::observe`] commute, so that a merge after a login and a
//! late event come out the same. Leaves whether something may be sent to the permit that asks [`Consent::status`]. `docs/intake.md` lists
//! the members that are read.

mod read;
mod state;

#[cfg(test)]
mod tests;

pub use read::{Said, Stated, stated};
pub use state::{Consent, Error, NAME_BYTES_MAX, Status};
