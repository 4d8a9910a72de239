//! What a batch adds to the counters: arrivals and departures by their way, failed attempts, each per definition, node and UTC day.
//!
//! The day of arrivals and departures is that on which their run began, whenever they were: so the runs of some days make a funnel that adds
//! up. The day of a failed attempt is its own.

use rustc_hash::FxHashMap;

use crate::projections::bulk::Cell;
use crate::projections::day;

/// Tenant, definition, day.
type Place = (String, i64, i64);

#[derive(Debug, Default)]
pub struct Counts {
    days: Vec<(Place, Day)>,
    index: FxHashMap<Place, usize>,
    /// The place counted at last: neighbouring facts are mostly of one, and need no key made.
    last: usize,
    errors: FxHashMap<(String, i64, i64, String, String, String), i64>,
}

#[derive(Debug, Default)]
struct Day {
    nodes: FxHashMap<String, Node>,
}

#[derive(Debug, Default)]
struct Node {
    entered: i64,
    left: i64,
    ways: Vec<(String, i64)>,
}

/// Rows of the three tables.
#[derive(Debug, Default)]
pub struct Added {
    pub funnel: Vec<Cell>,
    pub ways: Vec<Cell>,
    pub errors: Vec<Cell>,
}

impl Counts {
    pub fn entered(&mut self, tenant: &str, definition: i64, began: i64, node: &str) {
        self.node(tenant, definition, began, node).entered += 1;
    }

    pub fn left(&mut self, tenant: &str, definition: i64, began: i64, node: &str, way: &str) {
        let node = self.node(tenant, definition, began, node);
        node.left += 1;
        match node.ways.iter_mut().find(|(known, _)| known == way) {
            Some((_, runs)) => *runs += 1,
            None => node.ways.push((way.to_owned(), 1)),
        }
    }

    pub fn failed(&mut self, tenant: &str, definition: i64, at: i64, node: String, target: String, category: String) {
        *self.errors.entry((tenant.to_owned(), definition, day::of(at), node, target, category)).or_default() += 1;
    }

    fn node(&mut self, tenant: &str, definition: i64, began: i64, node: &str) -> &mut Node {
        let day = day::of(began);
        let is_last = self.days.get(self.last).is_some_and(|((t, d, of), _)| *of == day && *d == definition && t == tenant);
        if !is_last {
            let place = (tenant.to_owned(), definition, day);
            self.last = *self.index.entry(place.clone()).or_insert_with(|| {
                self.days.push((place, Day::default()));
                self.days.len() - 1
            });
        }
        let nodes = &mut self.days[self.last].1.nodes;
        if !nodes.contains_key(node) {
            nodes.insert(node.to_owned(), Node::default());
        }
        nodes.get_mut(node).expect("inserted above")
    }

    /// Takes everything out, in the order of the tables' keys.
    pub fn take(&mut self) -> Added {
        let mut added = Added::default();
        let mut days = std::mem::take(&mut self.days);
        self.index.clear();
        days.sort_by(|(a, _), (b, _)| a.cmp(b));
        for ((tenant, definition, day), counts) in days {
            let mut nodes: Vec<_> = counts.nodes.into_iter().collect();
            nodes.sort_by(|(a, _), (b, _)| a.cmp(b));
            for (name, node) in nodes {
                let key = || [Cell::Text(tenant.clone()), definition.into(), Cell::Text(day::text(day)), Cell::Text(name.clone())];
                added.funnel.extend(key().into_iter().chain([node.entered.into(), node.left.into()]));
                for (way, runs) in node.ways {
                    added.ways.extend(key().into_iter().chain([Cell::Text(way), runs.into()]));
                }
            }
        }
        let mut errors: Vec<_> = std::mem::take(&mut self.errors).into_iter().collect();
        errors.sort();
        for ((tenant, definition, day, node, target, category), count) in errors {
            let texts = [node, target, category].map(Cell::Text);
            let key = [Cell::Text(tenant), definition.into(), Cell::Text(day::text(day))];
            added.errors.extend(key.into_iter().chain(texts).chain([count.into()]));
        }
        added
    }
}
