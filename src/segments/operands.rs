//! The typed operands of predicates: whole numbers (also times and lengths of time, in milliseconds), floating point, text.
//!
//! Evaluation neither allocates (where fields come borrowed) nor fails: what CEL calls an error (overflow, division by zero, an absent value) is `None`.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::catalog::{Field, Lookup, Value};
use super::predicate::BoolNode;
use crate::domain::Millis;

/// A longer text than this is not put together: what an event brings is far shorter, and a variable may be joined to itself again and again.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// An index into the predicate's own list of fields.
pub(super) type Slot = u16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

impl Comparison {
    pub(super) fn holds(self, order: Ordering) -> bool {
        match self {
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum IntNode {
    Const(i64),
    Now,
    Field(Slot),
    Negate(Box<IntNode>),
    Arithmetic(Arithmetic, Box<(IntNode, IntNode)>),
    /// Characters, not bytes, as CEL has it.
    Size(Box<TextNode>),
    Truncate(Box<FloatNode>),
    If(Box<(BoolNode, IntNode, IntNode)>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum FloatNode {
    Const(f64),
    Field(Slot),
    Negate(Box<FloatNode>),
    Arithmetic(Arithmetic, Box<(FloatNode, FloatNode)>),
    OfInt(Box<IntNode>),
    If(Box<(BoolNode, FloatNode, FloatNode)>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum TextNode {
    Const(Box<str>),
    Field(Slot),
    If(Box<(BoolNode, TextNode, TextNode)>),
    /// Of value expressions only, as are the next two: conditions do not allocate.
    Join(Box<(TextNode, TextNode)>),
    OfInt(Box<IntNode>),
    OfFloat(Box<FloatNode>),
}

/// What a predicate is evaluated against: one person at one time.
pub(super) struct Scope<'a, F, L: ?Sized> {
    pub(super) fields: &'a [Field<F>],
    pub(super) lookup: &'a L,
    pub(super) now: Millis,
    /// Changes after this need not be found exactly: any time that is not before them and after this will do.
    pub(super) horizon: Millis,
}

impl<'a, F, L: Lookup<F> + ?Sized> Scope<'a, F, L> {
    #[inline]
    pub(super) fn value(&self, slot: Slot) -> Value<'a> {
        self.lookup.value(&self.fields[usize::from(slot)].id, self.now)
    }

    pub(super) fn int(&self, node: &IntNode) -> Option<i64> {
        match node {
            IntNode::Const(value) => Some(*value),
            IntNode::Now => Some(self.now.0),
            IntNode::Field(slot) => match self.value(*slot) {
                Value::Int(value) => Some(value),
                Value::Time(time) => Some(time.0),
                _ => None,
            },
            IntNode::Negate(inner) => self.int(inner)?.checked_neg(),
            IntNode::Arithmetic(operator, sides) => {
                let (left, right) = (self.int(&sides.0)?, self.int(&sides.1)?);
                match operator {
                    Arithmetic::Add => left.checked_add(right),
                    Arithmetic::Subtract => left.checked_sub(right),
                    Arithmetic::Multiply => left.checked_mul(right),
                    Arithmetic::Divide => left.checked_div(right),
                    Arithmetic::Remainder => left.checked_rem(right),
                }
            }
            IntNode::Size(text) => self.text(text).map(|text| text.chars().count() as i64),
            IntNode::Truncate(inner) => {
                let value = self.float(inner)?;
                let fits = value > i64::MIN as f64 && value < i64::MAX as f64;
                fits.then_some(value as i64)
            }
            IntNode::If(parts) => {
                let chosen = if self.bool(&parts.0)? { &parts.1 } else { &parts.2 };
                self.int(chosen)
            }
        }
    }

    pub(super) fn float(&self, node: &FloatNode) -> Option<f64> {
        match node {
            FloatNode::Const(value) => Some(*value),
            FloatNode::Field(slot) => match self.value(*slot) {
                Value::Float(value) => Some(value),
                Value::Int(value) => Some(value as f64),
                _ => None,
            },
            FloatNode::Negate(inner) => Some(-self.float(inner)?),
            FloatNode::Arithmetic(operator, sides) => {
                let (left, right) = (self.float(&sides.0)?, self.float(&sides.1)?);
                match operator {
                    Arithmetic::Add => Some(left + right),
                    Arithmetic::Subtract => Some(left - right),
                    Arithmetic::Multiply => Some(left * right),
                    Arithmetic::Divide => Some(left / right),
                    // CEL has no remainder of floating point; the type pass refuses it.
                    Arithmetic::Remainder => None,
                }
            }
            FloatNode::OfInt(inner) => self.int(inner).map(|value| value as f64),
            FloatNode::If(parts) => {
                let chosen = if self.bool(&parts.0)? { &parts.1 } else { &parts.2 };
                self.float(chosen)
            }
        }
    }

    pub(super) fn text<'t>(&self, node: &'t TextNode) -> Option<Cow<'t, str>>
    where
        'a: 't,
    {
        match node {
            TextNode::Const(text) => Some(Cow::Borrowed(text)),
            TextNode::Field(slot) => match self.value(*slot) {
                Value::Text(text) => Some(text),
                _ => None,
            },
            TextNode::If(parts) => {
                let chosen = if self.bool(&parts.0)? { &parts.1 } else { &parts.2 };
                self.text(chosen)
            }
            TextNode::Join(sides) => {
                let (left, right) = (self.text(&sides.0)?, self.text(&sides.1)?);
                let fits = left.len() + right.len() <= TEXT_BYTES_MAX;
                fits.then(|| Cow::Owned(left.into_owned() + &right))
            }
            TextNode::OfInt(inner) => self.int(inner).map(|value| Cow::Owned(value.to_string())),
            TextNode::OfFloat(inner) => self.float(inner).map(|value| Cow::Owned(value.to_string())),
        }
    }
}
