//! A writer's schema made ready to read with: names resolved once, so that reading is a walk over numbers.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, NamespaceRef, UuidSchema};

use super::Error;

/// The longest schema that is taken, as JSON.
pub const SCHEMA_BYTES_MAX: usize = 256 << 10;

/// A node's number among the schema's nodes.
pub(super) type NodeId = usize;

/// How many of a unit are a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Millis = 1_000,
    Micros = 1_000_000,
    Nanos = 1_000_000_000,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Bool,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    Enum(Vec<String>),
    Array(NodeId),
    Map(NodeId),
    Union(Vec<NodeId>),
    Record(Vec<(String, NodeId)>),
    /// Digits after the point, and the length where it is fixed.
    Decimal {
        scale: usize,
        fixed: Option<usize>,
    },
    Date,
    /// Since midnight; an int for milliseconds, else a long.
    Time(Unit),
    Timestamp {
        unit: Unit,
        is_local: bool,
    },
    /// As sixteen bytes, behind their length unless fixed.
    Uuid {
        fixed: bool,
    },
    Duration,
}

/// A schema that bodies were written with.
#[derive(Debug, Clone, PartialEq)]
pub struct WriterSchema {
    pub(super) nodes: Vec<Node>,
    pub(super) root: NodeId,
}

impl WriterSchema {
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(Error::TooLarge("a schema of more than 256 KiB"));
        }
        let schema = Schema::parse_str(text).map_err(|error| Error::Schema(error.to_string()))?;
        let mut compiler = Compiler::default();
        let root = compiler.node(&schema, None)?;
        Ok(Self { nodes: compiler.nodes, root })
    }
}

#[derive(Default)]
struct Compiler {
    nodes: Vec<Node>,
    named: HashMap<Name, NodeId>,
}

impl Compiler {
    fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// A named type's place, known before its parts are, which may refer to it.
    fn reserve(&mut self, name: &Name, within: NamespaceRef<'_>) -> NodeId {
        let at = self.push(Node::Null);
        self.named.insert(name.fully_qualified_name(within).into_owned(), at);
        at
    }

    fn node(&mut self, schema: &Schema, within: NamespaceRef<'_>) -> Result<NodeId, Error> {
        let node = match schema {
            Schema::Null => Node::Null,
            Schema::Boolean => Node::Bool,
            Schema::Int => Node::Int,
            Schema::Long => Node::Long,
            Schema::Float => Node::Float,
            Schema::Double => Node::Double,
            Schema::Bytes | Schema::BigDecimal => Node::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => Node::Text,
            Schema::Uuid(UuidSchema::Bytes) => Node::Uuid { fixed: false },
            Schema::Date => Node::Date,
            Schema::TimeMillis => Node::Time(Unit::Millis),
            Schema::TimeMicros => Node::Time(Unit::Micros),
            Schema::TimestampMillis => Node::Timestamp { unit: Unit::Millis, is_local: false },
            Schema::TimestampMicros => Node::Timestamp { unit: Unit::Micros, is_local: false },
            Schema::TimestampNanos => Node::Timestamp { unit: Unit::Nanos, is_local: false },
            Schema::LocalTimestampMillis => Node::Timestamp { unit: Unit::Millis, is_local: true },
            Schema::LocalTimestampMicros => Node::Timestamp { unit: Unit::Micros, is_local: true },
            Schema::LocalTimestampNanos => Node::Timestamp { unit: Unit::Nanos, is_local: true },
            Schema::Array(array) => Node::Array(self.node(&array.items, within)?),
            Schema::Map(map) => Node::Map(self.node(&map.types, within)?),
            Schema::Union(union) => {
                Node::Union(union.variants().iter().map(|variant| self.node(variant, within)).collect::<Result<_, _>>()?)
            }
            Schema::Record(record) => {
                let at = self.reserve(&record.name, within);
                let name = record.name.fully_qualified_name(within).into_owned();
                let mut fields = Vec::with_capacity(record.fields.len());
                for field in &record.fields {
                    fields.push((field.name.clone(), self.node(&field.schema, name.namespace())?));
                }
                self.nodes[at] = Node::Record(fields);
                return Ok(at);
            }
            Schema::Enum(symbols) => {
                let at = self.reserve(&symbols.name, within);
                self.nodes[at] = Node::Enum(symbols.symbols.clone());
                return Ok(at);
            }
            Schema::Fixed(fixed) => return Ok(self.fixed(&fixed.name, within, Node::Fixed(fixed.size))),
            Schema::Uuid(UuidSchema::Fixed(fixed)) => return Ok(self.fixed(&fixed.name, within, Node::Uuid { fixed: true })),
            Schema::Duration(fixed) => return Ok(self.fixed(&fixed.name, within, Node::Duration)),
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Node::Decimal { scale: decimal.scale, fixed: None },
                InnerDecimalSchema::Fixed(fixed) => {
                    let node = Node::Decimal { scale: decimal.scale, fixed: Some(fixed.size) };
                    return Ok(self.fixed(&fixed.name, within, node));
                }
            },
            Schema::Ref { name } => {
                let name = name.fully_qualified_name(within);
                let known = self.named.get(&*name).copied();
                return known.ok_or_else(|| Error::Schema(format!("it refers to {}, which it does not define", name.fullname(None))));
            }
        };
        Ok(self.push(node))
    }

    fn fixed(&mut self, name: &Name, within: NamespaceRef<'_>, node: Node) -> NodeId {
        let at = self.reserve(name, within);
        self.nodes[at] = node;
        at
    }
}
