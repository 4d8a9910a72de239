//! Values as both databases give them: a row that was read, and the typed look at one of its columns.
//!
//! Invariant: the same record gives the same values whichever database it went through. Truths are whole numbers, 1 and 0, as in SQLite.

use std::sync::Arc;

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Int(i64),
    Float(f64),
    Text(String),
    Blob(Vec<u8>),
}

/// One row of an answer.
#[derive(Debug, Clone)]
pub struct Row {
    columns: Arc<[String]>,
    values: Vec<Value>,
}

/// What a column's value can be taken as.
pub trait Field<'r>: Sized {
    fn of(value: &'r Value) -> Option<Self>;
}

impl Row {
    pub fn new(columns: Arc<[String]>, values: Vec<Value>) -> Self {
        Self { columns, values }
    }

    /// The value of the column at a place that the statement fixes.
    ///
    /// # Panics
    /// If the statement and the type wanted do not fit: a mistake of ours, which any test of the statement finds.
    pub fn get<'r, T: Field<'r>>(&'r self, at: usize) -> T {
        let value = &self.values[at];
        T::of(value).unwrap_or_else(|| panic!("column {at} is {value:?}, which is no {}", std::any::type_name::<T>()))
    }

    /// The value of a column by its name; nothing if there is no such column or it holds something else.
    pub fn named<'r, T: Field<'r>>(&'r self, name: &str) -> Option<T> {
        let at = self.columns.iter().position(|column| column == name)?;
        T::of(&self.values[at])
    }
}

impl<'r> Field<'r> for i64 {
    fn of(value: &'r Value) -> Option<Self> {
        match value {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }
}

impl<'r> Field<'r> for u32 {
    fn of(value: &'r Value) -> Option<Self> {
        i64::of(value).and_then(|number| number.try_into().ok())
    }
}

impl<'r> Field<'r> for bool {
    fn of(value: &'r Value) -> Option<Self> {
        i64::of(value).map(|number| number != 0)
    }
}

impl<'r> Field<'r> for f64 {
    fn of(value: &'r Value) -> Option<Self> {
        match value {
            Value::Float(number) => Some(*number),
            // SQLite keeps a whole number in a REAL column of an index as one.
            Value::Int(number) => Some(*number as f64),
            _ => None,
        }
    }
}

impl<'r> Field<'r> for &'r str {
    fn of(value: &'r Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl<'r> Field<'r> for String {
    fn of(value: &'r Value) -> Option<Self> {
        <&str>::of(value).map(str::to_owned)
    }
}

impl<'r, T: Field<'r>> Field<'r> for Option<T> {
    fn of(value: &'r Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            value => T::of(value).map(Some),
        }
    }
}
