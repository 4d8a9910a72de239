//! What the gateway asks of the rest of the process about campaigns: their runs from a read model, their definitions, and how far decisions
//! have come. The app answers; nothing here knows a read model or a fold.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::ReadError;
use super::options::Access;
use crate::channels::bots::Rules;
use crate::channels::link::Keys;
use crate::domain::{Millis, Namespace, Offset, PartitionId, Subject, TenantId};
use crate::permit::AddressKey;
use crate::segments::Problems;
use crate::workflow::{Definition, EffectId, Policy, Provenance, RunId, Visit};

pub type Asking<'a, T> = Pin<Box<dyn Future<Output = Result<T, ReadError>> + Send + 'a>>;

/// What became of publishing workflows: what was new, or that a name is somebody else's.
pub type Publishing<'a> = Asking<'a, Result<Vec<bool>, NameTaken>>;

/// A name that may not be published under, with whose it is and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameTaken(pub String);

/// A purpose that a policy would take away, with the workflow that needs it and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse(pub String);

/// A run as the read model has it: a moment behind the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct RunFound {
    pub run: RunId,
    pub subject: Subject,
    pub workflow: String,
    pub is_paused: bool,
    /// How and when it ended, in words; none while it goes on.
    pub ended: Option<String>,
    /// All of it, for the answer.
    pub json: Value,
}

/// Which runs; everything that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunsAsked {
    pub workflow: Option<String>,
    pub status: Option<String>,
    pub subject: Option<String>,
    /// What a paused run's reason contains.
    pub error: Option<String>,
    /// Only those that `retry` would move: something is out of attempts, waits for its next, or nobody knows whether it was done.
    pub is_stuck: bool,
    /// The `next` of the page before.
    pub after: Option<String>,
    pub limit: u32,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunsPage {
    pub runs: Vec<RunFound>,
    /// Where the next page begins; none on the last one.
    pub next: Option<String>,
}

/// A question to people, open or decided.
#[derive(Debug, Clone, PartialEq)]
pub struct ApprovalFound {
    pub run: RunId,
    pub subject: Subject,
    pub workflow: String,
    pub node: String,
    pub visit: u64,
    pub who: String,
    /// What those asked are to see.
    pub shows: Value,
    /// The digest of the question, as the journal has it; empty of one that was asked before it was kept.
    pub shown: String,
    pub asked_at: Millis,
    pub until: Millis,
    pub decided: Option<Decided>,
    /// When the run went on without a decision.
    pub cancelled: Option<Millis>,
}

impl ApprovalFound {
    /// What a decision names, so that it is about this question and no other.
    pub fn question(&self) -> Question {
        Question { visit: self.visit, shown: self.shown.clone() }
    }

    pub fn is_open(&self) -> bool {
        self.decided.is_none() && self.cancelled.is_none()
    }

    /// `open`, `approved`, `rejected` or `cancelled`.
    pub fn status(&self) -> &'static str {
        match &self.decided {
            Some(decided) if decided.approved => "approved",
            Some(_) => "rejected",
            None if self.cancelled.is_some() => "cancelled",
            None => "open",
        }
    }
}

/// One question of a run: the step that asks, and what it shows. As text `VISIT.DIGEST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub visit: Visit,
    pub shown: String,
}

impl Question {
    pub fn parse(text: &str) -> Option<Self> {
        let (visit, shown) = text.split_once('.')?;
        let is_digest = shown.len() <= 64 && shown.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_digest.then_some(Self { visit: visit.parse().ok()?, shown: shown.to_ascii_lowercase() })
    }
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.visit, self.shown)
    }
}

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decided {
    pub approved: bool,
    /// What its giver wrote, else whom the link was for.
    pub by: String,
    /// Whom the link was for that it came by; empty if it came by none.
    pub link: String,
    pub comment: String,
    pub at: Millis,
}

impl Decided {
    /// Who it was, for whoever comes later.
    pub fn who(&self) -> String {
        Provenance { link: self.link.clone(), ..Provenance::default() }.told(&self.by)
    }
}

/// Which approvals; everything that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApprovalsAsked {
    pub run: Option<RunId>,
    pub workflow: Option<String>,
    pub open_only: bool,
    pub limit: u32,
}

/// An effect's run and subject; of a message also its channel and where it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectFound {
    pub run: RunId,
    pub subject: Subject,
    pub target: String,
    pub to: Option<String>,
}

/// Which suppressed addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SuppressionsAsked {
    pub address: Option<AddressKey>,
    /// The `next` of the page before.
    pub after: Option<String>,
    pub limit: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SuppressionsPage {
    pub suppressions: Vec<SuppressionFound>,
    /// Where the next page begins; none on the last one.
    pub next: Option<String>,
}

/// An address that nothing is sent to, by its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SuppressionFound {
    pub address: String,
    pub channel: String,
    /// hard_bounce, complaint, soft_bounces or manual.
    pub reason: String,
    pub since: String,
    /// For good if absent.
    pub until: Option<String>,
    /// Who or what said so, such as the message that came back.
    pub by: Option<String>,
}

/// A workflow of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkflowFound {
    pub name: String,
    pub digest: String,
    pub about: String,
    /// Whose it is; none: of the whole namespace.
    pub tenant: Option<String>,
    /// Whether new entries go to it; runs of the others go on.
    pub is_active: bool,
    /// What its expressions read of the profile.
    #[serde(skip)]
    pub reads: Vec<String>,
    /// The condition of its entry, as it is written.
    #[serde(skip)]
    pub when: Option<String>,
}

/// A policy in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyFound {
    pub digest: String,
    /// Canonical: without comments and layout.
    pub text: String,
    /// Whose it is; none: of the whole namespace.
    pub tenant: Option<String>,
    /// Nobody declared one.
    pub is_shipped: bool,
    /// The configuration names the file that says so.
    pub from_file: bool,
}

impl PolicyFound {
    /// Where none was declared.
    pub fn shipped() -> Self {
        let shipped = Policy::shipped();
        Self { digest: shipped.digest.to_hex(), text: shipped.canonical, tenant: None, is_shipped: true, from_file: false }
    }
}

/// One choice on a preferences page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preference {
    pub purpose: String,
    pub channel: String,
    pub granted: bool,
}

/// A choice that was just made there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub purpose: String,
    pub channel: String,
    pub granted: bool,
    pub at: Millis,
}

/// A workflow that was read from a text, and what problems call the text.
pub struct WorkflowText<'t> {
    pub file: &'t str,
    pub text: &'t str,
    pub definition: &'t Definition,
}

/// Everything about campaigns that is not in the gateway's hands. Where something is not implemented, there is nothing of it.
pub trait Campaigns: Send + Sync {
    fn run<'a>(&'a self, _of: &'a Access, _run: RunId) -> Asking<'a, Option<RunFound>> {
        ready(None)
    }

    fn runs<'a>(&'a self, _of: &'a Access, _asked: &'a RunsAsked) -> Asking<'a, RunsPage> {
        ready(RunsPage::default())
    }

    /// The run's journal as lines, oldest first, at most `limit` from `from` on.
    fn story<'a>(&'a self, _of: &'a Access, _found: &'a RunFound, _from: u64, _limit: u32) -> Asking<'a, Vec<Value>> {
        ready(Vec::new())
    }

    fn approvals<'a>(&'a self, _of: &'a Access, _asked: &'a ApprovalsAsked) -> Asking<'a, Vec<ApprovalFound>> {
        ready(Vec::new())
    }

    /// Whose an effect is, and of which run.
    fn effect<'a>(&'a self, _of: &'a Access, _effect: EffectId) -> Asking<'a, Option<EffectFound>> {
        ready(None)
    }

    /// Addresses that nothing is sent to: one, or a page of all.
    fn suppressions<'a>(&'a self, _of: &'a Access, _asked: &'a SuppressionsAsked) -> Asking<'a, SuppressionsPage> {
        ready(SuppressionsPage::default())
    }

    /// The namespace's and this tenant's own; without a tenant those of every tenant.
    fn workflows<'a>(&'a self, _namespace: &'a Namespace, _of: Option<&'a TenantId>) -> Asking<'a, Vec<WorkflowFound>> {
        ready(Vec::new())
    }

    /// The one of this name that takes new entries of the tenant's subjects.
    fn active_workflow<'a>(&'a self, of: &'a Access, name: &'a str) -> Asking<'a, Option<WorkflowFound>> {
        Box::pin(async move {
            let known = self.workflows(&of.namespace, Some(&of.tenant)).await?;
            Ok(known.into_iter().find(|workflow| workflow.is_active && workflow.name == name))
        })
    }

    /// Whether the read models have come past this place of the journal: what they do not know by then they will not.
    fn is_projected<'a>(&'a self, _of: &'a Access, _partition: PartitionId, _place: Offset) -> Asking<'a, bool> {
        ready(true)
    }

    /// What stands against publishing a workflow besides itself, such as a template or a purpose that is not there; or what is no mistake and
    /// yet hardly meant. Reads, and may wait for that.
    fn check(&self, _: &Namespace, _of: Option<&TenantId>, _: &WorkflowText<'_>) -> Result<Result<Problems, Problems>, ReadError> {
        Ok(Ok(Problems(Vec::new())))
    }

    /// Stores workflows and has new entries go to them, of all or of none; says of each whether they did not already. Without a tenant
    /// they are everyone's, else the tenant's own.
    fn publish<'a>(&'a self, _: &'a Namespace, _of: Option<&'a TenantId>, workflows: Vec<Arc<Definition>>, _by: &'a str) -> Publishing<'a> {
        ready(Ok(vec![false; workflows.len()]))
    }

    /// Has a workflow of this tenant, or of the namespace, take no new entries; false if it took none.
    fn retire<'a>(&'a self, _namespace: &'a Namespace, _of: Option<&'a TenantId>, _name: &'a str, _by: &'a str) -> Asking<'a, bool> {
        ready(false)
    }

    /// What permits and approvals are decided by: of this tenant, or of whoever has no policy of their own.
    fn policy<'a>(&'a self, _namespace: &'a Namespace, _of: Option<&'a TenantId>) -> Asking<'a, PolicyFound> {
        ready(PolicyFound::shipped())
    }

    /// Stores a policy of this tenant, or of the namespace, and has it decide; false if it did already.
    fn publish_policy<'a>(
        &'a self,
        _: &'a Namespace,
        _of: Option<&'a TenantId>,
        _policy: Arc<Policy>,
        _by: &'a str,
    ) -> Asking<'a, Result<bool, InUse>> {
        ready(Ok(false))
    }

    /// Takes back the policy of this tenant, or of the namespace; false if it has none of its own.
    fn retire_policy<'a>(&'a self, _namespace: &'a Namespace, _of: Option<&'a TenantId>, _by: &'a str) -> Asking<'a, Result<bool, InUse>> {
        ready(Ok(false))
    }

    /// Up to where commands of this partition have been decided.
    fn decided(&self, _namespace: &Namespace, _partition: PartitionId) -> Result<Offset, ReadError> {
        Ok(Offset(0))
    }

    /// What a person may choose to hear of, and where, with what holds once they have `said` that too.
    fn preferences<'a>(&'a self, _of: &'a Access, _subject: &'a Subject, _said: &'a [Choice]) -> Asking<'a, Vec<Preference>> {
        ready(Vec::new())
    }

    /// The message that follows an approval, as it would be sent; none if none does or it cannot be told yet.
    fn preview<'a>(&'a self, _of: &'a Access, _approval: &'a ApprovalFound) -> Asking<'a, Option<Preview>> {
        ready(None)
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> Asking<'a, T> {
    Box::pin(std::future::ready(Ok(value)))
}

/// A message before it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Preview {
    pub channel: String,
    pub to: String,
    pub subject: String,
    pub text: String,
    /// What most people read of a message that has it.
    pub html: Option<String>,
    /// What these words are recognised by: approved, no others are sent. Empty where that is not held.
    pub digest: String,
}

/// What links begin with and are signed with, and who follows them without being a person.
#[derive(Debug, Clone)]
pub struct Links {
    /// Scheme and host, without a slash at its end.
    pub base: String,
    pub keys: Keys,
    pub bots: Arc<Rules>,
}
