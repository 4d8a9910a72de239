//! Where a workflow's file says something, for whoever holds the checked workflow against what it does not know itself: templates, the
//! policy, the segments. A definition keeps no places.

use std::ops::Range;

use toml::Spanned;

use super::document::{Document, NodeTable};

/// A text's tables with their places. Of a text that is no workflow every place is its beginning.
pub struct Places(Option<Document>);

const BEGINNING: Range<usize> = 0..0;

impl Places {
    pub fn of(text: &str) -> Self {
        Self(toml::from_str(text).ok())
    }

    fn node(&self, name: &str) -> Option<&NodeTable> {
        let nodes = &self.0.as_ref()?.nodes;
        nodes.iter().map(Spanned::get_ref).find(|node| node.name.get_ref() == name)
    }

    /// The workflow's name.
    pub fn workflow(&self) -> Range<usize> {
        self.0.as_ref().map_or(BEGINNING, |document| document.workflow.name.span())
    }

    /// What stands at a key of the entry; the entry where there is no such key.
    pub fn entry(&self, key: &str) -> Range<usize> {
        let Some(document) = &self.0 else { return BEGINNING };
        let entry = document.workflow.entry.get_ref();
        let text = match key {
            "segment" => &entry.segment,
            "broadcast" => &entry.broadcast,
            _ => &None,
        };
        text.as_ref().map_or_else(|| document.workflow.entry.span(), Spanned::span)
    }

    /// The first of these keys that the node has; its name where it has none of them.
    pub fn key(&self, node: &str, keys: &[&str]) -> Range<usize> {
        let Some(node) = self.node(node) else { return BEGINNING };
        let present = node.present();
        let place = |key: &&str| present.iter().find(|(there, _)| there == key).map(|(_, place)| place.clone());
        keys.iter().find_map(place).unwrap_or_else(|| node.name.span())
    }

    /// One of a node's inputs; the whole input where it is not given, and the node's name where nothing is.
    pub fn input(&self, node: &str, name: &str) -> Range<usize> {
        let given = self.node(node).and_then(|node| node.input.as_ref()?.get_ref().get(name));
        given.map_or_else(|| self.key(node, &["input"]), Spanned::span)
    }

    /// The segment that the `at`-th of what a node waits for names.
    pub fn awaited(&self, node: &str, at: usize) -> Range<usize> {
        let awaited = self.node(node).and_then(|node| node.any.as_ref()?.get_ref().get(at));
        let named = awaited.and_then(|awaited| awaited.enters.as_ref().or(awaited.leaves.as_ref()));
        named.map_or_else(|| self.key(node, &["any"]), Spanned::span)
    }

    /// The weight of the `at`-th arm of a split.
    pub fn weight(&self, node: &str, at: usize) -> Range<usize> {
        let arm = self.node(node).and_then(|node| node.arms.as_ref()?.get_ref().get(at));
        arm.map_or_else(|| self.key(node, &["arms"]), |arm| arm.weight.span())
    }

    /// Whether the node has this key.
    pub fn has(&self, node: &str, key: &str) -> bool {
        self.node(node).is_some_and(|node| node.present().iter().any(|(there, _)| *there == key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
[workflow]
name = "w"
[workflow.entry]
segment = "s"
[[node]]
name = "gave"
kind = "split"
arms = [{ name = "send", weight = 1, next = "send" }, { name = "none", weight = 0, next = "over" }]
[[node]]
name = "send"
kind = "effect"
channel = "email"
input = { template = "'t'" }
"#;

    #[test]
    fn a_place_is_the_nodes_own_and_not_that_of_what_is_named_alike() {
        let places = Places::of(TEXT);
        let at = |place: Range<usize>| (TEXT[..place.start].matches('\n').count() + 1, &TEXT[place]);
        assert_eq!(at(places.key("send", &["purpose"])), (11, "\"send\""));
        assert_eq!(at(places.key("send", &["purpose", "channel"])), (13, "\"email\""));
        assert_eq!(at(places.input("send", "template")), (14, "\"'t'\""));
        assert_eq!(at(places.input("send", "name")), (14, "{ template = \"'t'\" }"));
        assert_eq!(at(places.weight("gave", 1)), (9, "0"));
        assert_eq!((at(places.entry("segment")), at(places.workflow())), ((5, "\"s\""), (3, "\"w\"")));
        assert_eq!(places.key("nobody", &[]), BEGINNING);
        assert_eq!(Places::of("a = ").workflow(), BEGINNING);
    }
}
