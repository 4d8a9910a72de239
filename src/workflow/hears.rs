//! What of the outside a workflow wants to hear of at all.

use super::definition::{AwaitedWhat, Definition, EntryBy, Kind};

impl Definition {
    /// The events and the segments that it begins with, waits for or has as a goal.
    pub fn hears(&self) -> (Vec<&str>, Vec<&str>) {
        let (mut events, mut segments) = (Vec::new(), Vec::new());
        match &self.entry.by {
            EntryBy::Event(name) => events.push(name.as_str()),
            EntryBy::Segment(name) => segments.push(name.as_str()),
            EntryBy::Command | EntryBy::Schedule { .. } | EntryBy::Broadcast { .. } => {}
        }
        events.extend(self.goals.iter().map(|goal| goal.event.as_str()));
        for node in &self.nodes {
            let Kind::WaitFor { any, .. } = &node.kind else { continue };
            for awaited in any {
                match &awaited.what {
                    AwaitedWhat::Event(name) => events.push(name),
                    AwaitedWhat::Enters(name) | AwaitedWhat::Leaves(name) => segments.push(name),
                    AwaitedWhat::Signal(_) => {}
                }
            }
        }
        (events, segments)
    }
}
