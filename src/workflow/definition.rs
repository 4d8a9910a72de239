//! A checked workflow: what each node does and where it leads. Nodes are named by their place in [`Definition::nodes`].
//!
//! Owns the types only: `document` is how they are written, `check` makes them, `decide` walks them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::calendar::LocalTime;
use super::cases::Case;
use super::expression::{Condition, Expr};
use super::vocabulary::{Category, Performer, Unknown};
use crate::domain::Digest;
use crate::permit::Priority;
use crate::segments::Type;

/// A node's place.
pub type NodeIx = u16;

#[derive(Debug, Clone)]
pub struct Definition {
    pub name: String,
    pub about: String,
    pub digest: Digest,
    /// The same workflow without comments, layout and tests: what the digest is of. It parses to the same workflow.
    pub canonical: String,
    pub entry: Entry,
    /// Variables with what they hold at first.
    pub vars: BTreeMap<String, (Type, Json)>,
    /// Where failures go that no node handles itself; without it the run pauses.
    pub on_failure: Option<NodeIx>,
    pub first: NodeIx,
    pub nodes: Vec<Node>,
    pub goals: Vec<Goal>,
    pub tests: Vec<Case>,
    /// What its expressions read of the profile: what commands to its runs carry along.
    pub profile: Vec<String>,
}

impl Definition {
    pub fn node(&self, at: NodeIx) -> Option<&Node> {
        self.nodes.get(usize::from(at))
    }

    pub fn find(&self, name: &str) -> Option<(NodeIx, &Node)> {
        let at = self.nodes.iter().position(|node| *node.name == *name)?;
        Some((NodeIx::try_from(at).ok()?, &self.nodes[at]))
    }

    /// Whether nothing leads to the node `inner` but through `outer`: a loop is inside of another then.
    pub(super) fn is_inside(&self, inner: &str, outer: &str) -> bool {
        let (Some((inner, _)), Some((outer, _))) = (self.find(inner), self.find(outer)) else { return false };
        let roots = self.goals.iter().filter_map(|goal| goal.next).chain(self.on_failure).chain([self.first]);
        let mut seen = vec![false; self.nodes.len()];
        let mut todo: Vec<NodeIx> = roots.collect();
        while let Some(at) = todo.pop() {
            let is_new = at != outer && seen.get_mut(usize::from(at)).is_some_and(|seen| !std::mem::replace(seen, true));
            if let Some(node) = self.node(at).filter(|_| is_new) {
                todo.extend(node.kind.ways().into_iter().map(|(_, to)| to));
            }
        }
        inner != outer && seen.get(usize::from(inner)).is_some_and(|is_seen| !is_seen)
    }
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub by: EntryBy,
    pub when: Option<Condition>,
    pub reenter: Reenter,
    /// One run per value, such as an order's id; without it one run per subject.
    pub key: Option<Expr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryBy {
    Segment(String),
    Event(String),
    Command,
    /// Every so often, at a local time of day if one is given.
    Schedule {
        every_ms: i64,
        at: Option<LocalTime>,
    },
    /// To all of a segment at once, spread over `throttle_ms`.
    Broadcast {
        segment: String,
        throttle_ms: i64,
    },
}

/// Whether a subject (or a key of it) may run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reenter {
    Never,
    /// While an earlier run goes on too.
    Always,
    /// As soon as the earlier run has ended.
    WhenEnded,
    /// So long after the earlier run began, and not while it goes on.
    After {
        ms: i64,
    },
}

#[derive(Debug, Clone)]
pub struct Goal {
    pub name: String,
    pub event: String,
    pub when: Option<Condition>,
    /// Where the run goes instead; without it the goal ends the run.
    pub next: Option<NodeIx>,
}

#[derive(Debug, Clone)]
pub struct Node {
    pub name: Arc<str>,
    /// What it is for, for people.
    pub about: String,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub enum Kind {
    Effect(Effect),
    Delay { until: Until, next: NodeIx },
    WaitFor { any: Vec<Awaited>, timeout_ms: i64, next: NodeIx, on_timeout: NodeIx },
    Branch { cases: Vec<(Condition, NodeIx)>, otherwise: NodeIx, fresh: bool },
    Split { salt: String, arms: Vec<Arm>, total: u64 },
    Parallel { branches: Vec<NodeIx>, join: NodeIx, failing: Failing, on_failure: Option<NodeIx> },
    Join { needs: Needs, next: NodeIx },
    Approval(Approval),
    Loop { body: NodeIx, when: Option<Condition>, most: u32, next: NodeIx },
    Start(Start),
    Emit { event: String, properties: Inputs, next: NodeIx },
    Set { vars: Inputs, next: NodeIx },
    Exit { outcome: String, failed: bool },
}

pub type Inputs = Vec<(String, Expr)>;

#[derive(Debug, Clone)]
pub struct Effect {
    pub by: Performer,
    pub target: String,
    /// Of a channel: what the message is for, as the policy names it. Empty for any other.
    pub purpose: String,
    pub priority: Priority,
    /// So long after it was asked for a message makes no sense any more.
    pub not_after_ms: Option<i64>,
    /// How long it takes, where time is the data's own.
    pub takes_ms: i64,
    pub input: Inputs,
    pub returns: BTreeMap<String, Type>,
    pub retry: Retry,
    pub errors: Errors,
    pub timeout_ms: i64,
    pub unknown: Unknown,
    pub next: NodeIx,
    pub on_failure: Option<NodeIx>,
    /// Where a refused permit leads; without it the node is passed as if it were done.
    pub on_refused: Option<NodeIx>,
}

impl Effect {
    /// What it is given, of the values of its `input`. A message lacks what is not known, so that a template that needs it says so, or has
    /// its own word for it, instead of writing "none".
    pub fn given(&self, mut values: Map<String, Json>) -> Map<String, Json> {
        if self.by == Performer::Channel {
            values.retain(|_, value| !value.is_null());
        }
        values
    }
}

/// What an attempt's failure means, by its category.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// Try again, as often as the retry policy says.
    Retry,
    /// Trying again gives the same: go where failures lead; where none is said, pause.
    Fail,
    /// Pause, wherever failures lead otherwise.
    Pause,
}

/// The node's answer to each category, and of which someone is told when the effect is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errors {
    on: [OnError; 5],
    tells: [bool; 5],
}

impl Default for Errors {
    /// Those that pass are tried again, the others are not; what will fail for everyone until somebody acts is told.
    fn default() -> Self {
        let mut errors = Self { on: [OnError::Fail; 5], tells: [false; 5] };
        errors.set(Category::Integration, OnError::Retry);
        errors.set(Category::System, OnError::Retry);
        errors.tell(&[Category::Api, Category::System]);
        errors
    }
}

impl Errors {
    pub fn on(&self, category: Category) -> OnError {
        self.on[category as usize]
    }

    pub fn tells(&self, category: Category) -> bool {
        self.tells[category as usize]
    }

    pub(super) fn set(&mut self, category: Category, on: OnError) {
        self.on[category as usize] = on;
    }

    pub(super) fn tell(&mut self, categories: &[Category]) {
        self.tells = [false; 5];
        for category in categories {
            self.tells[*category as usize] = true;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    pub attempts: u32,
    pub first_ms: i64,
    pub most_ms: i64,
    pub factor: f64,
}

#[derive(Debug, Clone)]
pub enum Until {
    For {
        ms: i64,
    },
    Local(LocalTime),
    /// A point in time that the profile or a variable holds, and an offset. Absent or past: at once.
    Date {
        when: Expr,
        offset_ms: i64,
    },
}

#[derive(Debug, Clone)]
pub struct Awaited {
    pub what: AwaitedWhat,
    pub when: Option<Condition>,
    pub next: Option<NodeIx>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AwaitedWhat {
    Event(String),
    Enters(String),
    Leaves(String),
    Signal(String),
}

#[derive(Debug, Clone)]
pub struct Arm {
    pub name: String,
    pub weight: u64,
    pub next: NodeIx,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    All,
    Any,
    Count(u32),
}

/// What a branch's failure means to the branches beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// The run pauses at the failed node, as it would outside of a branch.
    Pauses,
    CancelsOthers,
    /// The others go on; the join counts it as failed.
    LeavesOthers,
}

#[derive(Debug, Clone)]
pub struct Approval {
    pub who: String,
    pub shows: Inputs,
    pub deadline_ms: i64,
    pub silence: Silence,
    pub on_approve: NodeIx,
    pub on_reject: NodeIx,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    Approves,
    Rejects,
    Pauses,
}

#[derive(Debug, Clone)]
pub struct Start {
    pub workflow: String,
    pub subject: Expr,
    pub input: Inputs,
    /// How long to wait for its end; `None`: not at all.
    pub wait_ms: Option<i64>,
    pub next: NodeIx,
    pub on_failure: Option<NodeIx>,
}

impl Kind {
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Effect(effect) => effect.by.as_str(),
            Kind::Delay { .. } => "delay",
            Kind::WaitFor { .. } => "wait_for",
            Kind::Branch { .. } => "branch",
            Kind::Split { .. } => "split",
            Kind::Parallel { .. } => "parallel",
            Kind::Join { .. } => "join",
            Kind::Approval(_) => "approval",
            Kind::Loop { .. } => "loop",
            Kind::Start(_) => "start",
            Kind::Emit { .. } => "emit",
            Kind::Set { .. } => "set",
            Kind::Exit { .. } => "exit",
        }
    }

    /// Whether a run stops here until something comes.
    pub(super) fn waits(&self) -> bool {
        match self {
            Kind::Effect(_) | Kind::Delay { .. } | Kind::WaitFor { .. } | Kind::Approval(_) | Kind::Parallel { .. } => true,
            Kind::Branch { fresh, .. } => *fresh,
            Kind::Start(start) => start.wait_ms.is_some(),
            Kind::Split { .. } | Kind::Join { .. } | Kind::Loop { .. } | Kind::Emit { .. } | Kind::Set { .. } | Kind::Exit { .. } => false,
        }
    }

    /// Every way out with what takes it, for the graph's checks and for drawing. A parallel's branches are ways out, its join is not.
    pub fn ways(&self) -> Vec<(String, NodeIx)> {
        let mut ways = Vec::new();
        let mut add = |label: &str, to: NodeIx| ways.push((label.to_owned(), to));
        match self {
            Kind::Effect(effect) => {
                add("", effect.next);
                effect.on_failure.iter().for_each(|to| add("failed", *to));
                effect.on_refused.iter().for_each(|to| add("refused", *to));
            }
            Kind::Delay { next, .. } | Kind::Join { next, .. } | Kind::Emit { next, .. } | Kind::Set { next, .. } => add("", *next),
            Kind::WaitFor { any, next, on_timeout, .. } => {
                for awaited in any {
                    add(awaited.what.name(), awaited.next.unwrap_or(*next));
                }
                add("timeout", *on_timeout);
            }
            Kind::Branch { cases, otherwise, .. } => {
                cases.iter().for_each(|(when, to)| add(when.text(), *to));
                add("otherwise", *otherwise);
            }
            Kind::Split { arms, .. } => arms.iter().for_each(|arm| add(&format!("{} {}", arm.name, arm.weight), arm.next)),
            Kind::Parallel { branches, on_failure, .. } => {
                branches.iter().for_each(|to| add("branch", *to));
                on_failure.iter().for_each(|to| add("failed", *to));
            }
            Kind::Approval(approval) => {
                add("approved", approval.on_approve);
                add("rejected", approval.on_reject);
            }
            Kind::Loop { body, most, next, .. } => {
                add(&format!("at most {most}"), *body);
                add("done", *next);
            }
            Kind::Start(start) => {
                add("", start.next);
                start.on_failure.iter().for_each(|to| add("failed", *to));
            }
            Kind::Exit { .. } => {}
        }
        ways
    }
}

impl fmt::Display for AwaitedWhat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, name) = match self {
            AwaitedWhat::Event(name) => ("event", name),
            AwaitedWhat::Enters(name) => ("enters", name),
            AwaitedWhat::Leaves(name) => ("leaves", name),
            AwaitedWhat::Signal(name) => ("signal", name),
        };
        write!(f, "{word} {name}")
    }
}

impl AwaitedWhat {
    pub fn name(&self) -> &str {
        match self {
            AwaitedWhat::Event(name) | AwaitedWhat::Enters(name) | AwaitedWhat::Leaves(name) | AwaitedWhat::Signal(name) => name,
        }
    }
}
