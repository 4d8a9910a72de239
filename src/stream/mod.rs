//! Stream processing: partition loops that fold topics into topics, exactly once, in the time that the data carries.
//!
//! `Worker` is the loop, `Fold` what it drives; `intake` and `profile` are the two folds of the event spine, thin shells around the pure
//! cores; `inbox` decodes what foreign producers publish. `Spine` composes them for a namespace. What must hold here is in ARCHITECTURE.md: outputs and consumed offset are one append,
//! states are stored only after it, and the same records give the same bytes whatever the batches, threads and crashes.
//!
//! Leaves read models to `projections` and what happens offline to `replay`.

mod account;
mod cache;
mod crew;
mod definitions;
mod error;
mod fold;
mod in_use;
pub mod inbox;
mod intake;
pub mod metrics;
mod opening;
mod options;
mod outputs;
mod profile;
mod progress;
mod published;
mod pulse;
mod refold;
mod runner;
mod simulate;
mod spine;
mod stage;
mod status;
mod topics;
pub mod topology;
mod worker;

pub use cache::{Cache, Slot};
pub use definitions::{
    KIND_POLICY, KIND_WORKFLOW, Library, NamespaceClock, activate, clock_of, override_of, release, released, topology_text,
};
pub use error::Error;
pub use fold::{Applied, Fault, Fold, Seal, Window};
pub use in_use::segments_lacking;
pub use intake::{FOLD_VERSION as INTAKE_FOLD_VERSION, IntakeFold, Setup as IntakeSetup};
pub use options::Options;
pub use outputs::{Outputs, Source};
pub use profile::STAGE as PROFILE_STAGE;
pub use profile::{FOLD_VERSION as PROFILE_FOLD_VERSION, Owned, ProfileFold, Setup as ProfileSetup, people};
pub use progress::{Cursor, Mark, Progress, Watermark};
pub use published::{
    Policies, PolicyFound, Version, Word, Workflows, activate_policy, activate_workflow, activate_workflows, declare_policy,
    declare_workflow, policies, policy, retire_policy, retire_workflow, workflows,
};
pub use pulse::Pulse;
pub use refold::{Refolded, refold};
pub use runner::{Handle, Watch};
pub use simulate::{Simulation, drive, simulate};
pub use spine::{Setup, Spine};
pub use stage::Stage;
pub use status::{PartitionStatus, Shared, Stopping};
pub use topics::{Partitions, Topic, Topics, topics};
pub use worker::{Stepped, Stepper, Surroundings, Worker};
