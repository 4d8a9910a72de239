//! Avro binary to JSON, by a compiled schema: bounded in depth, in values and in bytes, whatever the body claims.
//!
//! | Avro | JSON |
//! |---|---|
//! | record, map | object |
//! | bytes, fixed | base64 text |
//! | NaN and the infinities | null, as JSON has none |
//! | decimal | a number if it has at most 15 digits, else its text |
//! | date; time-* | `2024-05-01`; `13:00:05.250` |
//! | timestamp-*; local-timestamp-* | RFC 3339 to the millisecond; the same without a zone |
//! | uuid; duration | text; `{"months", "days", "millis"}` |

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value, json};

use super::Error;
use super::compile::{Node, NodeId, Unit, WriterSchema};
use crate::domain::{DAY_MS, Millis, varint};

/// As deep as intake reads JSON.
const DEPTH_MAX: u32 = 64;
/// Bytes of JSON and its tree, roughly: a value counts for this much beside its text.
const VALUE_BYTES: usize = 16;
const BYTES_MAX: usize = 8 << 20;

impl WriterSchema {
    /// Reads a whole body.
    pub fn decode(&self, body: &[u8]) -> Result<Value, Error> {
        let mut reader = Reader { nodes: &self.nodes, rest: body, bytes: 0 };
        let value = reader.value(self.root, 0)?;
        if reader.rest.is_empty() { Ok(value) } else { Err(Error::LeftOver(reader.rest.len())) }
    }
}

struct Reader<'a> {
    nodes: &'a [Node],
    rest: &'a [u8],
    bytes: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Error::Cut)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        Ok(self.take(N)?.try_into().expect("as many as asked for"))
    }

    fn long(&mut self) -> Result<i64, Error> {
        match varint::take(&mut self.rest) {
            Ok(value) => Ok(varint::unzigzag(value)),
            Err(varint::Unreadable::Cut) => Err(Error::Cut),
            Err(varint::Unreadable::TooLarge) => Err(Error::Body("a number has more than 64 bits".into())),
        }
    }

    fn int(&mut self) -> Result<i32, Error> {
        let long = self.long()?;
        i32::try_from(long).map_err(|_| Error::Body(format!("{long} is no int of 32 bits")))
    }

    fn counted(&mut self) -> Result<&'a [u8], Error> {
        let len = self.long()?;
        let len = usize::try_from(len).map_err(|_| Error::Body(format!("a length of {len}")))?;
        self.take(len)
    }

    fn text(&mut self) -> Result<&'a str, Error> {
        std::str::from_utf8(self.counted()?).map_err(|_| Error::Body("a string is no UTF-8".into()))
    }

    /// Counts against the bound: an array of nulls has no bytes of its own, and a field's name is written with each record.
    fn count(&mut self, bytes: usize) -> Result<(), Error> {
        self.bytes += VALUE_BYTES + bytes;
        if self.bytes > BYTES_MAX { Err(Error::TooLarge("more than 8 MiB as JSON")) } else { Ok(()) }
    }

    fn value(&mut self, at: NodeId, depth: u32) -> Result<Value, Error> {
        if depth > DEPTH_MAX {
            return Err(Error::TooLarge("nested deeper than 64 levels"));
        }
        let nodes = self.nodes;
        let value = match &nodes[at] {
            Node::Null => Value::Null,
            Node::Bool => match self.array()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return Err(Error::Body(format!("{other} is no boolean"))),
            },
            Node::Int => Value::from(self.int()?),
            Node::Long => Value::from(self.long()?),
            Node::Float => float(f64::from(f32::from_le_bytes(self.array()?))),
            Node::Double => float(f64::from_le_bytes(self.array()?)),
            Node::Bytes => Value::from(STANDARD.encode(self.counted()?)),
            Node::Fixed(len) => Value::from(STANDARD.encode(self.take(*len)?)),
            Node::Text => Value::from(self.text()?),
            Node::Enum(symbols) => {
                let symbol = self.int()?;
                let found = usize::try_from(symbol).ok().and_then(|symbol| symbols.get(symbol));
                Value::from(found.ok_or_else(|| Error::Body(format!("the enum has no symbol {symbol}")))?.as_str())
            }
            Node::Union(branches) => {
                let branch = self.long()?;
                let found = usize::try_from(branch).ok().and_then(|branch| branches.get(branch));
                let found = *found.ok_or_else(|| Error::Body(format!("the union has no branch {branch}")))?;
                return self.value(found, depth + 1);
            }
            Node::Record(fields) => {
                let mut members = Map::new();
                for (name, field) in fields {
                    self.count(name.len())?;
                    members.insert(name.clone(), self.value(*field, depth + 1)?);
                }
                Value::Object(members)
            }
            Node::Array(of) => {
                let mut items = Vec::new();
                self.blocks(|reader| {
                    items.push(reader.value(*of, depth + 1)?);
                    Ok(())
                })?;
                Value::Array(items)
            }
            Node::Map(of) => {
                let mut members = Map::new();
                self.blocks(|reader| {
                    let name = reader.text()?;
                    reader.count(name.len())?;
                    members.insert(name.to_owned(), reader.value(*of, depth + 1)?);
                    Ok(())
                })?;
                Value::Object(members)
            }
            Node::Decimal { scale, fixed } => {
                let bytes = match fixed {
                    Some(len) => self.take(*len)?,
                    None => self.counted()?,
                };
                decimal(bytes, *scale)?
            }
            Node::Date => date(self.int()?),
            Node::Time(Unit::Millis) => time(i64::from(self.int()?), Unit::Millis),
            Node::Time(unit) => time(self.long()?, *unit),
            Node::Timestamp { unit, is_local } => timestamp(self.long()?, *unit, *is_local),
            Node::Uuid { fixed } => {
                let bytes = if *fixed { self.take(16)? } else { self.counted()? };
                let uuid = uuid::Uuid::from_slice(bytes).map_err(|_| Error::Body("a UUID has 16 bytes".into()))?;
                Value::from(uuid.to_string())
            }
            Node::Duration => {
                let mut part = || Ok::<_, Error>(u32::from_le_bytes(self.array()?));
                json!({"months": part()?, "days": part()?, "millis": part()?})
            }
        };
        self.count(value.as_str().map_or(0, str::len))?;
        Ok(value)
    }

    /// Calls `item` for each item of an array's or a map's blocks.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // The block's length in bytes, for those who skip it.
                self.long()?;
            }
            for _ in 0..count.unsigned_abs() {
                item(self)?;
            }
        }
    }
}

fn float(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn decimal(bytes: &[u8], scale: usize) -> Result<Value, Error> {
    let too_long = || Error::TooLarge("a decimal of more than 38 digits");
    let sign = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
    let mut wide = [sign; 16];
    let from = 16_usize.checked_sub(bytes.len()).ok_or_else(too_long)?;
    if scale > 38 {
        return Err(too_long());
    }
    wide[from..].copy_from_slice(bytes);
    let unscaled = i128::from_be_bytes(wide);
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    let text = format!("{}{whole}{}{part}", if unscaled < 0 { "-" } else { "" }, if scale > 0 { "." } else { "" });
    // What a double says back as it was given, and no more.
    let number = if digits.len() <= 15 { text.parse::<f64>().ok().and_then(Number::from_f64) } else { None };
    Ok(number.map_or(Value::from(text), Value::Number))
}

fn date(days: i32) -> Value {
    let text = Millis(i64::from(days) * DAY_MS).to_rfc3339();
    text.and_then(|text| Some(text.split_once('T')?.0.to_owned())).map_or(Value::from(days), Value::from)
}

fn time(since_midnight: i64, unit: Unit) -> Value {
    let ms = since_midnight.div_euclid(unit as i64 / 1_000);
    if !(0..DAY_MS).contains(&ms) {
        return Value::from(since_midnight);
    }
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    Value::from(format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60))
}

/// What no calendar has stays a number.
fn timestamp(since_1970: i64, unit: Unit, is_local: bool) -> Value {
    let text = Millis(since_1970.div_euclid(unit as i64 / 1_000)).to_rfc3339();
    let text = text.map(|text| if is_local { text.trim_end_matches('Z').to_owned() } else { text });
    text.map_or(Value::from(since_1970), Value::from)
}
