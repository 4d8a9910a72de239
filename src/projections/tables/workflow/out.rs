//! What a batch of facts leaves to write beside the runs themselves.

use std::collections::BTreeMap;

use super::counts::Counts;
use super::told::Visit;
use crate::projections::bulk::Cell;

/// A run's place, and the visit of the step that asks.
pub type ApprovalKey = (i64, Visit);

#[derive(Debug, Default)]
pub struct Out {
    pub counts: Counts,
    pub approvals: BTreeMap<ApprovalKey, Approval>,
    pub notifications: Vec<Cell>,
    /// Steps that a row has and that are over.
    pub gone_steps: Vec<(i64, Visit)>,
}

/// What happened to one approval in a batch.
#[derive(Debug, Default)]
pub struct Approval {
    pub asked: Option<Asked>,
    pub decided: Option<Decided>,
    pub late: i64,
}

#[derive(Debug)]
pub struct Asked {
    pub node: String,
    pub who: String,
    pub shows: String,
    pub shown: String,
    pub at: i64,
    pub deadline: i64,
}

#[derive(Debug)]
pub struct Decided {
    pub status: &'static str,
    pub at: i64,
    pub by: String,
    /// Whom the link was for that it came by.
    pub link: String,
    pub comment: String,
}

impl Decided {
    /// The run went on without it.
    pub fn cancelled(at: i64) -> Self {
        Self { status: "cancelled", at, by: String::new(), link: String::new(), comment: String::new() }
    }
}

impl Out {
    /// Asked anew, it is open again.
    pub fn ask(&mut self, key: ApprovalKey, asked: Asked) {
        let approval = self.approvals.entry(key).or_default();
        (approval.asked, approval.decided) = (Some(asked), None);
    }

    pub fn decide(&mut self, key: ApprovalKey, decided: Decided) {
        self.approvals.entry(key).or_default().decided = Some(decided);
    }

    pub fn late(&mut self, key: ApprovalKey) {
        self.approvals.entry(key).or_default().late += 1;
    }
}
