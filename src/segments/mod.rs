//! Segments: named CEL predicates over one person, compiled once and evaluated without allocation.
//!
//! Owns the type pass, the small typed form that predicates run in, the answer to "when can this flip although nothing happens",
//! and a segment's digest. The `cel` crate parses; its interpreter is the reference that a property test holds ours against.
//! Knows no feature by name: what an expression may name comes in through [`Catalog`], what a person has through [`Lookup`].
//!
//! Unknown values follow CEL's errors, which are SQL's NULL: a comparison with an absent value is unknown, `unknown && false` is
//! false, `unknown || true` is true, and a person for whom the whole predicate is unknown is not a member.

mod catalog;
mod check;
mod error;
mod expression;
mod horizon;
mod literals;
mod operands;
mod predicate;
mod problem;
mod segment;
mod settle;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub use catalog::{Catalog, Clock, Field, Lookup, Path, Type, Value};
pub use check::compile;
pub use error::{Error, did_you_mean};
pub use expression::{Expression, Yield, compile_value};
pub use literals::duration_ms;
pub use predicate::Predicate;
pub use problem::{Problem, Problems, Source};
pub use segment::{Segment, SegmentSet};
