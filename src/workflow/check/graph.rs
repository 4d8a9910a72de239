//! The graph as a whole: everything is reached, every circle has a bound, branches meet in their own join.

use std::ops::Range;

use super::super::definition::{Kind, Node, NodeIx};
use super::is_join;
use crate::segments::Source;

pub(super) struct Graph<'g> {
    pub(super) nodes: &'g [Node],
    pub(super) first: NodeIx,
    /// Where goals and failures lead.
    pub(super) roots: &'g [NodeIx],
    /// Where each node's name stands in the file.
    pub(super) places: &'g [Range<usize>],
    /// Nothing was wrong with any node.
    pub(super) is_whole: bool,
}

impl Graph<'_> {
    fn name(&self, at: NodeIx) -> &str {
        &self.nodes[usize::from(at)].name
    }

    fn kind(&self, at: NodeIx) -> &Kind {
        &self.nodes[usize::from(at)].kind
    }

    fn place(&self, at: NodeIx) -> Range<usize> {
        self.places.get(usize::from(at)).cloned().unwrap_or(0..0)
    }

    fn all(&self) -> impl Iterator<Item = NodeIx> {
        (0..self.nodes.len()).filter_map(|at| NodeIx::try_from(at).ok())
    }
}

pub(super) fn check(graph: &Graph<'_>, source: &mut Source<'_>) {
    let regions = regions(graph, source);
    for at in graph.all() {
        if regions[usize::from(at)].is_none() && graph.is_whole {
            let hint = "lead another node's `next` to it, or remove it".to_owned();
            source.report(graph.place(at), format!("nothing leads to `{}`", graph.name(at)), Some(hint));
        }
    }
    joins(graph, source);
    circles(graph, source);
    bodies(graph, source);
}

/// For each node that is reached, the parallels that it is inside of, outermost first.
fn regions(graph: &Graph<'_>, source: &mut Source<'_>) -> Vec<Option<Vec<NodeIx>>> {
    let mut regions: Vec<Option<Vec<NodeIx>>> = vec![None; graph.nodes.len()];
    let mut told: Vec<NodeIx> = Vec::new();
    let mut todo: Vec<(NodeIx, Vec<NodeIx>)> = graph.roots.iter().chain([&graph.first]).map(|root| (*root, Vec::new())).collect();
    while let Some((at, mut region)) = todo.pop() {
        if is_join(graph.kind(at)) {
            let of = region.last().copied();
            let fits = of.is_some_and(|of| matches!(graph.kind(of), Kind::Parallel { join, .. } if *join == at));
            if !fits {
                if !told.contains(&at) {
                    told.push(at);
                    let hint = "only the branches of the parallel that names it as its `join` lead to a join".to_owned();
                    source.report(
                        graph.place(at),
                        format!("`{}` is reached from outside of its parallel's branches", graph.name(at)),
                        Some(hint),
                    );
                }
                continue;
            }
            region.pop();
        }
        match &regions[usize::from(at)] {
            Some(known) if *known == region => continue,
            Some(_) => {
                if !told.contains(&at) {
                    told.push(at);
                    let hint = "end each branch at the parallel's join".to_owned();
                    let message = format!("`{}` is reached both from inside and from outside of a parallel's branch", graph.name(at));
                    source.report(graph.place(at), message, Some(hint));
                }
                continue;
            }
            None => regions[usize::from(at)] = Some(region.clone()),
        }
        for (label, to) in graph.kind(at).ways() {
            let mut inner = region.clone();
            if matches!(graph.kind(at), Kind::Parallel { .. }) && label == "branch" {
                inner.push(at);
            }
            todo.push((to, inner));
        }
    }
    regions
}

/// Every parallel's join is one, and every join is one parallel's.
fn joins(graph: &Graph<'_>, source: &mut Source<'_>) {
    let mut taken: Vec<NodeIx> = Vec::new();
    for at in graph.all() {
        let Kind::Parallel { join, branches, .. } = graph.kind(at) else { continue };
        match graph.kind(*join) {
            Kind::Join { needs: super::super::definition::Needs::Count(count), .. }
                if usize::try_from(*count).is_ok_and(|n| n > branches.len()) =>
            {
                let message = format!("`{}` needs {count} branches, `{}` has {}", graph.name(*join), graph.name(at), branches.len());
                source.report(graph.place(*join), message, None);
            }
            Kind::Join { .. } => {}
            _ => source.report(
                graph.place(at),
                format!("`{}` is not a join", graph.name(*join)),
                Some("make it `kind = \"join\"`".to_owned()),
            ),
        }
        if taken.contains(join) {
            source.report(
                graph.place(*join),
                format!("two parallels meet in `{}`", graph.name(*join)),
                Some("give each its own join".to_owned()),
            );
        }
        taken.push(*join);
    }
}

/// Circles that no loop bounds: what is left of the graph without the ways into loops' bodies must have an order.
fn circles(graph: &Graph<'_>, source: &mut Source<'_>) {
    let ways = |at: NodeIx| -> Vec<NodeIx> {
        match graph.kind(at) {
            Kind::Loop { next, .. } => vec![*next],
            kind => kind.ways().into_iter().map(|(_, to)| to).collect(),
        }
    };
    let mut into = vec![0usize; graph.nodes.len()];
    for at in graph.all() {
        for to in ways(at) {
            into[usize::from(to)] += 1;
        }
    }
    let mut free: Vec<NodeIx> = graph.all().filter(|at| into[usize::from(*at)] == 0).collect();
    let mut ordered = vec![false; graph.nodes.len()];
    while let Some(at) = free.pop() {
        ordered[usize::from(at)] = true;
        for to in ways(at) {
            into[usize::from(to)] -= 1;
            if into[usize::from(to)] == 0 {
                free.push(to);
            }
        }
    }
    // A node that merely follows a circle has no order either; one that is on it reaches itself.
    let on_circle = graph.all().find(|at| !ordered[usize::from(*at)] && reaches(*at, *at, &ways));
    if let Some(at) = on_circle {
        let hint = "let a `loop` node with `most = ..` decide whether to go round again".to_owned();
        source.report(graph.place(at), format!("`{}` is on a loop without a bound", graph.name(at)), Some(hint));
    }
}

fn reaches(from: NodeIx, to: NodeIx, ways: &dyn Fn(NodeIx) -> Vec<NodeIx>) -> bool {
    let mut seen = Vec::new();
    let mut todo = ways(from);
    while let Some(at) = todo.pop() {
        if at == to {
            return true;
        }
        if !seen.contains(&at) {
            seen.push(at);
            todo.extend(ways(at));
        }
    }
    false
}

/// Rounds that a loop may go without waiting for anything: more would hold up the run's partition, and are cut short there.
const ROUNDS_AT_ONCE_MAX: u32 = 1_000;

/// A loop's body comes back to it, and waits for something if it does so often.
fn bodies(graph: &Graph<'_>, source: &mut Source<'_>) {
    for at in graph.all() {
        let Kind::Loop { body, most, .. } = graph.kind(at) else { continue };
        let at_once = |at: NodeIx| -> Vec<NodeIx> {
            let kind = graph.kind(at);
            if kind.waits() { Vec::new() } else { kind.ways().into_iter().map(|(_, to)| to).collect() }
        };
        if *most > ROUNDS_AT_ONCE_MAX && *body != at && reaches(*body, at, &at_once) {
            let message = format!("`{}` may go {most} rounds without waiting for anything", graph.name(at));
            let hint = format!("put a delay, an effect or a wait into its body, or write `most = {ROUNDS_AT_ONCE_MAX}`");
            source.report_rule(graph.place(at), message, Some(hint));
        }
        let ways = |at: NodeIx| -> Vec<NodeIx> { graph.kind(at).ways().into_iter().map(|(_, to)| to).collect() };
        if *body != at && reaches(*body, at, &ways) {
            continue;
        }
        let hint = format!("let its last node lead to `{}`", graph.name(at));
        source.report(graph.place(at), format!("the body of `{}` never comes back to it", graph.name(at)), Some(hint));
    }
}
