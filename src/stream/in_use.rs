//! Names that workflows in force use and that a change would take away: purposes of a policy, segments of a topology. What a workflow names is
//! held against what there is when it is published; this is the other direction.

use std::collections::BTreeSet;

use super::Error;
use super::published::{Policies, Workflows};
use crate::domain::TenantId;
use crate::workflow::{AwaitedWhat, Definition, EntryBy, Kind, Performer, Policy};

/// Refuses that the policy of this one becomes `next`, or is taken back, if a workflow that takes new entries of the people for whom it holds
/// would lose a purpose by it: every message of that purpose would be refused for good, and its run go past it.
pub(super) fn keeps_purposes(
    workflows: &Workflows,
    policies: &Policies,
    of: Option<&TenantId>,
    next: Option<&Policy>,
) -> Result<(), Error> {
    let in_force = |found: Option<&super::PolicyFound>| match found {
        // What this build does not read takes nothing away.
        Some(found) => Policy::parse("the policy in force", &found.text).map(|policy| purposes(&policy)).unwrap_or_default(),
        None => purposes(&Policy::shipped()),
    };
    let before = in_force(policies.of(of));
    let after = match (next, of) {
        (Some(next), _) => purposes(next),
        (None, Some(_)) => in_force(policies.of(None)),
        (None, None) => purposes(&Policy::shipped()),
    };
    let lost: BTreeSet<&String> = before.difference(&after).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let holds_for = |whose: Option<&TenantId>| match (of, whose) {
        (Some(of), Some(whose)) => of == whose,
        // Who has a policy of their own goes by that one.
        (None, Some(_)) => policies.of(whose).is_none_or(|found| found.of.is_none()),
        (_, None) => true,
    };
    let mut found = Vec::new();
    for (whose, digest) in workflows.all_active().filter(|(whose, _)| holds_for(*whose)) {
        let Some(version) = workflows.known.get(&digest) else { continue };
        let Ok(definition) = Definition::stored(&version.name, &version.text) else { continue };
        let messages = definition.nodes.iter().filter_map(|node| match &node.kind {
            Kind::Effect(effect) if effect.by == Performer::Channel => Some((node, effect.purpose.to_lowercase())),
            _ => None,
        });
        let needs = messages.filter(|(_, purpose)| lost.contains(purpose));
        let whose = whose.map_or_else(String::new, |tenant| format!(" of tenant {tenant}"));
        found.extend(needs.map(|(node, purpose)| (purpose, format!("node `{}` of workflow {}{whose}", node.name, version.name))));
    }
    let others = found.len().saturating_sub(1);
    match found.into_iter().next() {
        None => Ok(()),
        Some((purpose, by)) => Err(Error::PurposeInUse { purpose, by, others }),
    }
}

fn purposes(policy: &Policy) -> BTreeSet<String> {
    policy.permits.purposes.iter().map(|purpose| purpose.name.to_lowercase()).collect()
}

/// Segments that workflows that take new entries name and that are not among these, each with who names it: nobody enters by them, and what
/// waits for them waits until its time is over.
pub fn segments_lacking<'n>(workflows: &Workflows, segments: impl IntoIterator<Item = &'n str>) -> Vec<(String, String)> {
    let known: BTreeSet<&str> = segments.into_iter().collect();
    let mut lacking = Vec::new();
    for (whose, digest) in workflows.all_active() {
        let Some(version) = workflows.known.get(&digest) else { continue };
        let Ok(definition) = Definition::stored(&version.name, &version.text) else { continue };
        let workflow = format!("workflow {}{}", version.name, whose.map_or_else(String::new, |tenant| format!(" of tenant {tenant}")));
        if let EntryBy::Segment(segment) | EntryBy::Broadcast { segment, .. } = &definition.entry.by
            && !known.contains(&**segment)
        {
            lacking.push((segment.to_string(), format!("the entry of {workflow}")));
        }
        for node in &definition.nodes {
            let Kind::WaitFor { any, .. } = &node.kind else { continue };
            for awaited in any {
                if let AwaitedWhat::Enters(segment) | AwaitedWhat::Leaves(segment) = &awaited.what
                    && !known.contains(&**segment)
                {
                    lacking.push((segment.to_string(), format!("node `{}` of {workflow}", node.name)));
                }
            }
        }
    }
    lacking
}
