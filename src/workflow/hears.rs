//! What of the outside a workflow wants to hear of at all.

use super::definition::{AwaitedWhat, Definition, EntryBy, Kind};

impl Definition {
    /// The event or the segment that begins a run: of interest while it takes new entries.
    pub fn begins_with(&self) -> (Option<&str>, Option<&str>) {
        match &self.entry.by {
            EntryBy::Event(name) => (Some(name), None),
            EntryBy::Segment(name) => (None, Some(name)),
            EntryBy::Command | EntryBy::Schedule { .. } | EntryBy::Broadcast { .. } => (None, None),
        }
    }

    /// The events and the segments that its runs wait for or have as a goal: of interest for as long as one of them may go on.
    pub fn runs_hear(&self) -> (Vec<&str>, Vec<&str>) {
        let (mut events, mut segments): (Vec<&str>, Vec<&str>) = Default::default();
        events.extend(self.goals.iter().map(|goal| &*goal.event));
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
