//! The words of the product: identifiers, time, money, positions and outcomes that every other module speaks in.
//!
//! Values only. Nothing here does I/O, reads a clock or knows a wire format; `schema` converts to and from bytes.

mod ids;
mod money;
mod outcome;
mod partitioner;
mod placeholder;
mod position;
mod subject;
mod time;
mod value;
pub mod varint;

pub use ids::{AnonymousId, Digest, ID_BYTES_MAX, IdError, MessageId, Namespace, SourceId, TenantId, UserId};
pub use money::{Currency, Money, MoneyError};
pub use outcome::{DeadReason, FilterReason, Outcome, Tally};
pub use partitioner::{murmur2, partition_of};
pub use placeholder::is_placeholder_id;
pub use position::{Incarnation, Offset, PartitionId, Position};
pub use subject::{KeyParts, Subject, SubjectKey, SubjectKeyError};
pub use time::{DAY_MS, Duration, HOUR_MS, MINUTE_MS, Millis, SECOND_MS};
pub use value::{FieldType, Value};
