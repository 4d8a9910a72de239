//! A topology in force in one partition: each segment's bit, and the columns to write.

use std::sync::Arc;

use super::memo::Memo;
use crate::features::Profile;
use crate::models::View;
use crate::stream::topology::{Person, Topology};

pub(super) struct Deployed {
    pub(super) topology: Arc<Topology>,
    /// The bit of each segment, in the set's order.
    pub(super) bits: Vec<usize>,
    /// The groups that any segment depends on.
    pub(super) depends_on: u64,
    /// Whether facts that correct earlier ones are written.
    pub(super) says_corrections: bool,
}

impl Deployed {
    /// Without a switch: what is in force already, or before the first activation.
    pub(super) fn resume(topology: Arc<Topology>, memo: &mut Memo) -> Self {
        let bits = memo.bits(&topology.segments);
        Self::with_bits(topology, bits)
    }

    /// Brings a topology into force.
    pub(super) fn switch(topology: Arc<Topology>, memo: &mut Memo) -> Self {
        let bits = memo.switch(topology.digest, &topology.segments);
        Self::with_bits(topology, bits)
    }

    fn with_bits(topology: Arc<Topology>, bits: Vec<usize>) -> Self {
        let (depends_on, says_corrections) = (topology.segments.depends_on(), topology.wants_corrections());
        Self { depends_on, says_corrections, topology, bits }
    }

    pub(super) fn person<'a>(&'a self, profile: &'a Profile) -> Person<'a> {
        Person(View { profile, rules: &self.topology.rules, models: &self.topology.models })
    }
}
