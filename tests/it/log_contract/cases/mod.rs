//! The promises themselves, one function each, named for what holds.

mod cleaning;
mod owning;
mod reading;
mod topics;
mod writing;

pub use self::{cleaning::*, owning::*, reading::*, topics::*, writing::*};
