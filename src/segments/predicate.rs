//! The typed form that a checked expression becomes, and its evaluation.
//!
//! A tree of closed enums instead of the `cel` crate's interpreter: building that one's context alone costs 18 µs and its maps have no
//! order, while a segment is asked about after every event that can touch it.

use super::catalog::{Clock, Field, Lookup, Value};
use super::operands::{Comparison, FloatNode, IntNode, Scope, Slot, TextNode};
use crate::domain::Millis;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextTest {
    Contains,
    StartsWith,
    EndsWith,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum BoolNode {
    Const(bool),
    Field(Slot),
    /// CEL's `has`.
    Known(Slot),
    Not(Box<BoolNode>),
    And(Box<[BoolNode]>),
    Or(Box<[BoolNode]>),
    If(Box<(BoolNode, BoolNode, BoolNode)>),
    Same(bool, Box<(BoolNode, BoolNode)>),
    Ints(Comparison, Box<(IntNode, IntNode)>),
    Floats(Comparison, Box<(FloatNode, FloatNode)>),
    Texts(Comparison, Box<(TextNode, TextNode)>),
    Text(TextTest, Box<(TextNode, TextNode)>),
    OneOfInts(Box<(IntNode, Box<[i64]>)>),
    OneOfTexts(Box<(TextNode, Box<[Box<str>]>)>),
}

impl<'a, F, L: Lookup<F> + ?Sized> Scope<'a, F, L> {
    pub(super) fn bool(&self, node: &BoolNode) -> Option<bool> {
        match node {
            BoolNode::Const(value) => Some(*value),
            BoolNode::Field(slot) => match self.value(*slot) {
                Value::Bool(value) => Some(value),
                _ => None,
            },
            BoolNode::Known(slot) => Some(self.value(*slot) != Value::Absent),
            BoolNode::Not(inner) => self.bool(inner).map(|value| !value),
            BoolNode::And(parts) => self.first_or_unknown(parts, false),
            BoolNode::Or(parts) => self.first_or_unknown(parts, true),
            BoolNode::If(parts) => {
                let chosen = if self.bool(&parts.0)? { &parts.1 } else { &parts.2 };
                self.bool(chosen)
            }
            BoolNode::Same(same, sides) => Some((self.bool(&sides.0)? == self.bool(&sides.1)?) == *same),
            BoolNode::Ints(comparison, sides) => Some(comparison.holds(self.int(&sides.0)?.cmp(&self.int(&sides.1)?))),
            BoolNode::Floats(comparison, sides) => compare_floats(*comparison, self.float(&sides.0)?, self.float(&sides.1)?),
            BoolNode::Texts(comparison, sides) => Some(comparison.holds(self.text(&sides.0)?.cmp(&self.text(&sides.1)?))),
            BoolNode::Text(test, sides) => {
                let (text, part) = (self.text(&sides.0)?, self.text(&sides.1)?);
                Some(match test {
                    TextTest::Contains => text.contains(&*part),
                    TextTest::StartsWith => text.starts_with(&*part),
                    TextTest::EndsWith => text.ends_with(&*part),
                })
            }
            BoolNode::OneOfInts(parts) => Some(parts.1.binary_search(&self.int(&parts.0)?).is_ok()),
            BoolNode::OneOfTexts(parts) => {
                let text = self.text(&parts.0)?;
                Some(parts.1.binary_search_by(|known| (**known).cmp(&*text)).is_ok())
            }
        }
    }

    /// `&&` and `||` as CEL has them: one deciding side is enough, whatever is unknown beside it.
    fn first_or_unknown(&self, parts: &[BoolNode], deciding: bool) -> Option<bool> {
        let mut known = true;
        for part in parts {
            match self.bool(part) {
                Some(value) if value == deciding => return Some(deciding),
                Some(_) => {}
                None => known = false,
            }
        }
        known.then_some(!deciding)
    }
}

/// Not-a-number has no order and equals nothing.
pub(super) fn compare_floats(comparison: Comparison, left: f64, right: f64) -> Option<bool> {
    match (left.partial_cmp(&right), comparison) {
        (Some(order), _) => Some(comparison.holds(order)),
        (None, Comparison::Equal) => Some(false),
        (None, Comparison::NotEqual) => Some(true),
        (None, _) => None,
    }
}

/// A compiled expression of type bool.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicate<F> {
    pub(super) root: BoolNode,
    pub(super) fields: Box<[Field<F>]>,
    /// Whether anything in it changes by time alone.
    pub(super) moves: bool,
}

impl<F> Predicate<F> {
    /// Whether it holds; unknown is no.
    pub fn evaluate(&self, lookup: &(impl Lookup<F> + ?Sized), now: Millis) -> bool {
        self.try_evaluate(lookup, now) == Some(true)
    }

    /// Whether it holds, and a time before which that cannot change by itself: near at hand to say, not the very time of a flip.
    pub fn evaluate_until(&self, lookup: &(impl Lookup<F> + ?Sized), now: Millis) -> (bool, Millis) {
        let (outcome, until) = Scope { fields: &self.fields, lookup, now, horizon: now }.bool_until(&self.root);
        (outcome == Some(true), until)
    }

    /// Whether it holds, or `None` when that is unknown.
    pub fn try_evaluate(&self, lookup: &(impl Lookup<F> + ?Sized), now: Millis) -> Option<bool> {
        Scope { fields: &self.fields, lookup, now, horizon: Millis::MAX }.bool(&self.root)
    }

    /// The fields it names, each once, in the order in which they first appear.
    pub fn fields(&self) -> &[Field<F>] {
        &self.fields
    }

    /// The groups whose change can change the outcome, as a bit set. Evaluating after a change to other groups only is not needed.
    pub fn depends_on(&self) -> u64 {
        self.fields.iter().fold(0, |groups, field| groups | field.groups)
    }

    /// Whether its outcome can change while nothing happens.
    pub(super) fn moves(&self) -> bool {
        self.moves
    }

    /// Whether it names a field that is dear to look ahead with.
    pub(super) fn is_dear(&self) -> bool {
        self.fields.iter().any(|field| field.clock == Clock::Dear)
    }
}
