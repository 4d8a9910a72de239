//! Who performs what: by kind of performer and target, with one for every other target of a kind.

use std::collections::HashMap;
use std::sync::Arc;

use super::call::{Call, Inline, Port, Remote};
use crate::workflow::{Category, Outcome, Performer};

/// Stands for every target that has no performer of its own.
pub const ANY: &str = "*";

#[derive(Clone, Default)]
pub struct Registry {
    ports: HashMap<(Performer, Box<str>), Port>,
}

impl Registry {
    #[must_use]
    pub fn inline(mut self, by: Performer, target: &str, performer: impl Inline + 'static) -> Self {
        self.ports.insert((by, target.into()), Port::Inline(Arc::new(performer)));
        self
    }

    #[must_use]
    pub fn remote(mut self, by: Performer, target: &str, performer: impl Remote + 'static) -> Self {
        self.ports.insert((by, target.into()), Port::Remote(Arc::new(performer)));
        self
    }

    /// Puts a performer in, or in the place of the one that is there.
    pub fn put(&mut self, by: Performer, target: &str, port: Port) {
        self.ports.insert((by, target.into()), port);
    }

    /// These too; theirs take the place of ours.
    #[must_use]
    pub fn with(mut self, others: Registry) -> Self {
        self.ports.extend(others.ports);
        self
    }

    pub fn has(&self, by: Performer, target: &str) -> bool {
        self.find(by, target).is_some()
    }

    pub fn find(&self, by: Performer, target: &str) -> Option<&Port> {
        self.ports.get(&(by, target.into())).or_else(|| self.ports.get(&(by, ANY.into())))
    }

    /// The names under which a kind has performers, in order.
    pub fn targets(&self, by: Performer) -> Vec<&str> {
        let mut targets: Vec<&str> = self.ports.keys().filter(|(kind, _)| *kind == by).map(|(_, target)| &**target).collect();
        targets.sort_unstable();
        targets
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut names: Vec<String> = self.ports.keys().map(|(by, target)| format!("{} {target}", by.as_str())).collect();
        names.sort_unstable();
        f.debug_list().entries(names).finish()
    }
}

/// What an attempt comes to that nobody here performs: it can be tried again once somebody does.
pub(super) fn nobody(call: &Call) -> Outcome {
    let (by, target) = (call.request.by.as_str(), &call.request.target);
    let how = match call.request.by {
        Performer::Agent => format!("a worker for it is configured as [effects.workers.{target}]"),
        Performer::Webhook => format!("its receiver is configured as [channels.webhooks.{target}]"),
        Performer::Channel => "`email` is the one there is".to_owned(),
    };
    let error = format!("nobody here performs {by} {target:?}; {how}");
    Outcome::Failed { category: Category::System, error, permanent: true, retry_after_ms: None }
}
