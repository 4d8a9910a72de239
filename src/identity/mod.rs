//! Whom an anonymous id belonged to, when: one hop, from an anonymous id to users, never from a user to a user.
//!
//! A device that several people log into has several ties; each moment belongs to one. What came before the first tie belongs to the first
//! user seen. Pure: takes times from the events that tie. Leaves what follows from a new tie (handover, records) to `intake`.

mod ties;

pub use ties::{Change, Error, Ties};
