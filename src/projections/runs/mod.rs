//! What the product asks of the read models of workflows: runs, approvals, timers, the funnel, results per arm, suppressed addresses, and
//! stories.
//!
//! Rows come from the tables that `tables::workflow` fills; a story comes from `journal` itself, which is not copied into SQL.

mod approvals;
mod figures;
mod interval;
mod list;
mod story;
mod suppressions;

pub use approvals::{Approval, ApprovalQuery};
pub use figures::{ArmResult, Funnel, Publication, Timer, Way};
pub use interval::{Interval, newcombe, wilson};
pub use list::{Effect, EffectOf, Node, Paused, Run, RunDetail, RunPage, RunQuery, STATUSES, StatusCount};
pub use story::{Line, Stretch, Teller, story};
pub use suppressions::{Suppression, SuppressionPage, SuppressionQuery};

use crate::domain::Millis;

/// A time as people and JSON have it.
fn text<S: serde::Serializer>(time: &Millis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

fn text_or_null<S: serde::Serializer>(time: &Option<Millis>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(time),
        None => serializer.serialize_none(),
    }
}
