//! Where a record stands: incarnation, partition, offset, never a bare offset.
//!
//! An incarnation begins when a topic is repartitioned, repaired by truncation or restored from a backup; state of another
//! incarnation is refused or rebuilt, never trusted.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Which life of the log this is; the first is 1.
    Incarnation(u32)
);
number!(PartitionId(u32));
number!(
    /// The place of a record within its partition, from 0, without gaps except where a hole is declared or compaction removed records.
    Offset(u64)
);

impl Offset {
    pub fn next(self) -> Offset {
        Offset(self.0 + 1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    pub incarnation: Incarnation,
    pub partition: PartitionId,
    pub offset: Offset,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.incarnation, self.partition, self.offset)
    }
}
