//! Expressions that give a value instead of deciding something: the same parser, type pass and nodes as conditions.
//!
//! Beside what conditions take, text is put together here (`"Dear " + profile.name`, `string(total)`). A path of no declared type that
//! stands alone is handed back as its name, since only its owner knows what all it may hold.

use super::catalog::{Catalog, Field, Lookup, Type, Value};
use super::check::{Typed, parse};
use super::error::Error;
use super::operands::{FloatNode, IntNode, Scope, TextNode};
use super::predicate::BoolNode;
use crate::domain::Millis;

#[derive(Debug, Clone, PartialEq)]
enum Root {
    Bool(BoolNode),
    Int(IntNode),
    Float(FloatNode),
    Text(TextNode),
    Time(IntNode),
    Duration(IntNode),
    Open { root: Box<str>, path: Box<str> },
}

/// A compiled expression of any type.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression<F> {
    root: Root,
    fields: Box<[Field<F>]>,
    names_now: bool,
}

/// What an expression gave.
#[derive(Debug, Clone, PartialEq)]
pub enum Yield<'e> {
    /// Unknown: something that it needs is absent, or a number left its range.
    Unknown,
    Value(Value<'e>),
    /// A length of time in milliseconds.
    Duration(i64),
    /// Whatever stands at this path.
    Path(&'e str, &'e str),
}

/// Compiles an expression of any type.
pub fn compile_value<C: Catalog>(text: &str, catalog: &C) -> Result<Expression<C::Id>, Error> {
    let (mut checker, tree) = parse(text, catalog, true)?;
    let root = match checker.check(&tree)? {
        Typed::Bool(node) => Root::Bool(node),
        Typed::Int(node) => Root::Int(node),
        Typed::Float(node) => Root::Float(node),
        Typed::Text(node) => Root::Text(node),
        Typed::Time(node) => Root::Time(node),
        Typed::Duration(node) => Root::Duration(node),
        Typed::Trait(open) => Root::Open { root: open.root.into(), path: open.path.into() },
        Typed::List(_) => return Err(checker.error(tree.id, "a list is not a value here").hint("lists stand after `in`")),
    };
    Ok(Expression { root, fields: checker.fields.into(), names_now: checker.names_now })
}

impl<F> Expression<F> {
    /// Its type; `None` if nothing declares one.
    pub fn ty(&self) -> Option<Type> {
        Some(match self.root {
            Root::Bool(_) => Type::Bool,
            Root::Int(_) => Type::Int,
            Root::Float(_) => Type::Float,
            Root::Text(_) => Type::Text,
            Root::Time(_) => Type::Time,
            Root::Duration(_) => Type::Duration,
            Root::Open { .. } => return None,
        })
    }

    /// The path that it is, if it is nothing but one of no declared type.
    pub fn open_path(&self) -> Option<(&str, &str)> {
        match &self.root {
            Root::Open { root, path } => Some((root, path)),
            _ => None,
        }
    }

    pub fn evaluate<'e>(&'e self, lookup: &'e (impl Lookup<F> + ?Sized), now: Millis) -> Yield<'e> {
        let scope = Scope { fields: &self.fields, lookup, now, horizon: Millis::MAX };
        let value = match &self.root {
            Root::Bool(node) => scope.bool(node).map(Value::Bool),
            Root::Int(node) => scope.int(node).map(Value::Int),
            Root::Float(node) => scope.float(node).map(Value::Float),
            Root::Text(node) => scope.text(node).map(Value::Text),
            Root::Time(node) => scope.int(node).map(|ms| Value::Time(Millis(ms))),
            Root::Duration(node) => return scope.int(node).map_or(Yield::Unknown, Yield::Duration),
            Root::Open { root, path } => return Yield::Path(root, path),
        };
        value.map_or(Yield::Unknown, Yield::Value)
    }

    /// Whether it names `now`.
    pub fn names_now(&self) -> bool {
        self.names_now
    }

    /// The fields it names, each once.
    pub fn fields(&self) -> &[Field<F>] {
        &self.fields
    }
}
