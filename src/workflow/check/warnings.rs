//! What is no mistake and yet hardly meant: told by `workflow check` and by publishing, and refused by neither.

use super::super::definition::{Approval, Definition, Kind, Node};
use super::super::places::Places;
use super::super::vocabulary::Performer;
use crate::segments::Source;

/// Notes in `source` what of a checked workflow its author may want to look at again.
pub fn warnings(definition: &Definition, places: &Places, source: &mut Source<'_>) {
    for node in &definition.nodes {
        match &node.kind {
            Kind::Split { arms, .. } => {
                for (at, arm) in arms.iter().enumerate().filter(|(_, arm)| arm.weight == 0) {
                    let hint = "give it a weight, or take the arm out".to_owned();
                    source.report(
                        places.weight(&node.name, at),
                        format!("nobody is given the arm `{}`: its weight is 0", arm.name),
                        Some(hint),
                    );
                }
            }
            Kind::WaitFor { any, .. } if any.iter().any(|one| one.next.is_none()) && !places.has(&node.name, "on_timeout") => {
                let hint = "add `on_timeout = \"node\"`, with the node of `next` where that is meant".to_owned();
                let message = format!("`{}` goes the same way whether what it waits for comes or not", node.name);
                source.report(places.key(&node.name, &["timeout"]), message, Some(hint));
            }
            Kind::Approval(approval) => approved(definition, node, approval, places, source),
            _ => {}
        }
    }
    if definition.tests.is_empty() {
        let hint = "add a `[[test]]`: it runs before every publication".to_owned();
        source.report(places.workflow(), "it has no tests: nothing says what it is to do", Some(hint));
    }
    let is_about_people = |kind: &Kind| match kind {
        Kind::Effect(effect) => effect.by == Performer::Channel,
        kind => matches!(kind, Kind::Split { .. }),
    };
    if definition.goals.is_empty() && definition.nodes.iter().any(|node| is_about_people(&node.kind)) {
        let hint = "add a node of kind `goal` with the event that it is for: `workflow results` counts who reached it".to_owned();
        source.report(places.workflow(), "it has no goal: nothing tells whether its messages and arms do any good", Some(hint));
    }
}

/// A message that is shown at its approval, but for a value that moves on the way: it goes unshown, and held against nothing.
fn approved(definition: &Definition, node: &Node, approval: &Approval, places: &Places, source: &mut Source<'_>) {
    let Some(message) = definition.message_after(approval) else { return };
    let (Kind::Effect(effect), Some((at, _))) = (&message.kind, definition.find(&node.name)) else { return };
    for (name, value) in &effect.input {
        let is_shown = approval.shows.iter().any(|(_, shown)| shown.text() == value.text());
        let Some(moves) = definition.moves_after(at, value).filter(|_| is_shown) else { continue };
        let (review, send) = (&node.name, &message.name);
        let text =
            format!("`{review}` cannot show the message of `{send}`: its `{name}` reads `{moves}`, which may be another when it goes");
        let hint = format!("keep the value in a variable with a `set` node before `{review}`, show that and send that");
        source.report(places.input(&message.name, name), text, Some(hint));
    }
}
