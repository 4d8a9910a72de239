//! What predicates may name and where values come from: the two seams between expressions and whatever keeps the profile.

use std::borrow::Cow;

use crate::domain::Millis;

/// The types that a field or an expression can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Bool,
    /// CEL's `int`.
    Int,
    /// CEL's `double`; amounts of money read as this, in units of their currency.
    Float,
    /// CEL's `string`.
    Text,
    /// A point in time.
    Time,
    /// A length of time: what subtracting two times gives.
    Duration,
}

impl Type {
    /// The name that error messages use.
    pub fn as_str(self) -> &'static str {
        match self {
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Float => "double",
            Type::Text => "string",
            Type::Time => "timestamp",
            Type::Duration => "duration",
        }
    }
}

/// How a field's value moves while nothing happens to the person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Only events change it.
    Still,
    /// Grows by one at its next change and then every `every_ms`: "days since".
    Counts { every_ms: i64 },
    /// Never grows by itself: what a sliding window still holds.
    Falls,
    /// Never falls by itself: how unusual a silence is.
    Rises,
    /// Changes at its next change in a way that only evaluating it tells.
    Moves,
    /// The same, and evaluating is dear: scores.
    Dear,
}

/// One thing that an expression named, as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<F> {
    /// How [`Lookup`] addresses it.
    pub id: F,
    pub ty: Type,
    pub clock: Clock,
    /// The groups whose change can change this field, as a bit set.
    pub groups: u64,
}

/// What a dotted path reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path<F> {
    /// A value of a declared type.
    Typed(Field<F>),
    /// A value whose type is what it is used as; absent if it holds another.
    Open,
}

/// The names that expressions may use.
pub trait Catalog {
    /// How a field is addressed when it is read.
    type Id: Clone + PartialEq;

    /// A field by its name: `orders`.
    fn field(&self, name: &str) -> Option<Field<Self::Id>>;

    /// A field addressed by a function of text literals: `count("Order Completed", "30d")`. `None`: no such function;
    /// `Some(Err(why))`: there is one, but it takes other arguments.
    fn call(&self, function: &str, arguments: &[&str]) -> Option<Result<Field<Self::Id>, String>>;

    /// A trait that the customer's own events set, read as `ty`: absent when the person has none or one of another type.
    fn trait_as(&self, name: &str, ty: Type) -> Option<Field<Self::Id>>;

    /// What `root.path` reads, for roots of the catalog's own beside `profile` and `traits`. `None`: there is no such root;
    /// `Some(Err(why))`: there is, but nothing of that name in it. `used_as` is asked once the type is known of a [`Path::Open`].
    fn path(&self, root: &str, path: &str, used_as: Option<Type>) -> Option<Result<Path<Self::Id>, String>> {
        let _ = (root, path, used_as);
        None
    }

    /// Every name for hints: fields plain, functions with `(`.
    fn names(&self) -> Vec<String>;
}

/// A field's value now.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// There is none yet, such as the time of the first order before it.
    Absent,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Borrowed wherever the profile holds the text as it is.
    Text(Cow<'a, str>),
    Time(Millis),
}

/// One person's values.
pub trait Lookup<F> {
    /// The field's value at `now`, which may lie ahead of the person's last event.
    fn value(&self, field: &F, now: Millis) -> Value<'_>;

    /// The earliest time after `after` at which the value can be another although nothing happens; `None` when it will not change.
    fn next_change(&self, field: &F, after: Millis) -> Option<Millis>;

    /// Both at once, for fields where one takes most of the other's work.
    fn value_and_change(&self, field: &F, now: Millis) -> (Value<'_>, Option<Millis>) {
        (self.value(field, now), self.next_change(field, now))
    }
}
