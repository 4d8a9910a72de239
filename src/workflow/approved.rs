//! The message that an approval is about: which it is, and what of it may be another by the time it goes.
//!
//! What was approved is what is sent, so a message whose values move on the way cannot be shown beforehand: it would be held against words
//! that it never has again.

use std::collections::BTreeSet;

use super::definition::{Approval, Definition, Kind, Node, NodeIx};
use super::expression::{Expr, NOW, PROFILE, result, variable};
use super::vocabulary::Performer;

/// Nodes between an approval and its message: a delay or two.
const HOPS_MAX: usize = 16;

impl Definition {
    /// The first message on the way from an approval, if only waiting comes before it: what a branch decides is not known yet.
    pub fn message_after(&self, approval: &Approval) -> Option<&Node> {
        let mut at = approval.on_approve;
        for _ in 0..HOPS_MAX {
            let node = self.node(at)?;
            match &node.kind {
                Kind::Effect(effect) if effect.by == Performer::Channel => return Some(node),
                Kind::Delay { next, .. } => at = *next,
                _ => return None,
            }
        }
        None
    }

    /// What this value reads that may be another between the approval and its message: the time, or what a branch that runs beside changes.
    pub fn moves_after(&self, approval: NodeIx, value: &Expr) -> Option<String> {
        let reads = value.reads();
        if reads.contains(NOW) {
            return Some(NOW.to_owned());
        }
        let changed = self.changed_beside(approval);
        reads.into_iter().find(|read| changed.contains(read))
    }

    /// What branches beside the one of this node change.
    fn changed_beside(&self, at: NodeIx) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        for node in &self.nodes {
            let Kind::Parallel { branches, join, .. } = &node.kind else { continue };
            let branches: Vec<BTreeSet<NodeIx>> = branches.iter().map(|first| self.between(*first, *join)).collect();
            if branches.iter().any(|branch| branch.contains(&at)) {
                let beside = branches.iter().filter(|branch| !branch.contains(&at)).flatten();
                beside.filter_map(|at| self.node(*at)).for_each(|node| changes(node, &mut changed));
            }
        }
        changed
    }

    fn between(&self, first: NodeIx, join: NodeIx) -> BTreeSet<NodeIx> {
        let (mut found, mut todo) = (BTreeSet::new(), vec![first]);
        while let Some(at) = todo.pop() {
            if at != join
                && found.insert(at)
                && let Some(node) = self.node(at)
            {
                todo.extend(node.kind.ways().into_iter().map(|(_, to)| to));
            }
        }
        found
    }
}

fn changes(node: &Node, changed: &mut BTreeSet<String>) {
    match &node.kind {
        Kind::Set { vars, .. } => changed.extend(vars.iter().map(|(name, _)| variable(name))),
        Kind::Branch { fresh: true, .. } | Kind::WaitFor { .. } => drop(changed.insert(PROFILE.to_owned())),
        _ => {}
    }
    changed.insert(result(&node.name));
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
[workflow]
name = "w"
[workflow.entry]
command = true
[workflow.vars]
price = 1
fixed = 2
[[node]]
name = "both"
kind = "parallel"
branches = ["review", "look"]
join = "met"
[[node]]
name = "review"
kind = "approval"
who = "marketing"
shows = { a = "SHOWN" }
deadline = "1d"
silence = "rejects"
on_approve = "later"
on_reject = "met"
[[node]]
name = "later"
kind = "delay"
wait = "1h"
next = "send"
[[node]]
name = "send"
kind = "effect"
channel = "email"
input = { subject = "'s'", text = "string(1)" }
timeout = "1m"
next = "met"
[[node]]
name = "look"
kind = "effect"
agent = "analytics"
timeout = "1m"
returns = { found = "string" }
next = "note"
[[node]]
name = "note"
kind = "set"
set = { price = "3" }
next = "met"
[[node]]
name = "met"
kind = "join"
next = "over"
[[node]]
name = "over"
kind = "exit"
"#;

    #[test]
    fn a_value_moves_that_reads_the_time_or_what_a_branch_beside_changes() {
        let moves = |text: &str, shown: &str| {
            let text = text.replace("SHOWN", shown);
            let definition = Definition::parse("w.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
            let (at, node) = definition.find("review").unwrap();
            let Kind::Approval(review) = &node.kind else { panic!("an approval") };
            assert_eq!(definition.message_after(review).map(|node| &*node.name), Some("send"));
            definition.moves_after(at, &review.shows[0].1)
        };
        let cases = [
            ("now + duration('1d')", Some("now")),
            ("vars.price * 2", Some("vars.price")),
            ("vars.fixed", None),
            ("results.look.found", Some("results.look")),
            ("traits.first", None),
            ("entry.product", None),
            ("run.started_at", None),
        ];
        for (shown, expected) in cases {
            assert_eq!(moves(TEXT, shown).as_deref(), expected, "{shown}");
        }
        let fresh = TEXT.replace("name = \"note\"\nkind = \"set\"\nset = { price = \"3\" }\nnext = \"met\"", "name = \"note\"\nkind = \"branch\"\nfresh = true\ncases = [{ when = \"vars.fixed > 1\", next = \"met\" }]\notherwise = \"met\"");
        assert_eq!(moves(&fresh, "traits.first").as_deref(), Some("profile"));
    }
}
