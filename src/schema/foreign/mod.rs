//! Avro of foreign producers: values in the Confluent wire format, read with the schema they were written with and turned into an event's JSON.
//!
//! [`framed`] tells a value's schema number from its body, [`WriterSchema`] reads bodies, [`event`] gives them the shape of the JSON that the
//! HTTP routes take. Who knows which number is which schema is not here: `subjects` for our own registry, `remote` for another.
//!
//! Bodies come from outside and are read by a decoder of our own: `apache-avro` recurses as deep as the bytes say, takes a body that ends
//! early for nulls, and allocates what an array claims. The schema itself is parsed by it.

mod compile;
mod decode;
mod event;

#[cfg(test)]
mod tests;

pub use compile::{SCHEMA_BYTES_MAX, WriterSchema};
pub use event::event;

/// Why a foreign value is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the schema is no Avro schema: {0}")]
    Schema(String),
    #[error("the value is {0} bytes long; the Confluent wire format begins with a zero byte and the schema's id in four bytes")]
    Unframed(usize),
    #[error("the value begins with byte {0}, which is no version of the Confluent wire format; it begins with 0")]
    Magic(u8),
    #[error("the body ends within its value")]
    Cut,
    #[error("{0} bytes are left after the body's end: it was written with another schema")]
    LeftOver(usize),
    #[error("the body does not decode: {0}")]
    Body(String),
    #[error("the body is beyond its bounds: {0}")]
    TooLarge(&'static str),
    #[error("{0}")]
    Shape(String),
}

/// Schema number and Avro body of a value: `0 u8 | id u32 big endian | body`.
pub fn framed(value: &[u8]) -> Result<(u32, &[u8]), Error> {
    match value {
        [0, a, b, c, d, body @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), body)),
        [0, ..] | [] => Err(Error::Unframed(value.len())),
        [magic, ..] => Err(Error::Magic(*magic)),
    }
}
