//! The headers of a record: names with values, as a producer of its own sends them.
//!
//! One encoded list travels with the record and is never parsed on the way. Each header: `name_len u16 | value_len u16 (MAX = no value) |
//! name | value`, little endian. Nothing in this product writes headers to its own topics; a list without any costs no byte and no look.

use bytes::{BufMut, Bytes, BytesMut};

/// The longest list of one record: what its length on disk can say.
pub const HEADERS_BYTES_MAX: usize = u16::MAX as usize;
const HEADER_HEAD_BYTES: usize = 2 + 2;
const NO_VALUE: u16 = u16::MAX;

/// One header. Names may repeat; `None` is a header without a value, which Kafka knows beside the empty one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    pub name: &'a str,
    pub value: Option<&'a [u8]>,
}

/// The headers of a record that borrows its batch's buffer, in the producer's order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Headers<'a> {
    pub const NONE: Headers<'static> = Headers(&[]);

    /// Of bytes that a [`HeaderList`] encoded; whatever else they are ends the list.
    pub fn from_encoded(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The list as it travels.
    pub fn encoded(self) -> &'a [u8] {
        self.0
    }

    pub fn iter(self) -> HeaderIter<'a> {
        HeaderIter { rest: self.0 }
    }

    /// The value of the last header of this name, as Kafka's own `lastHeader`: whoever forwards a record adds at the end.
    pub fn last(self, name: &str) -> Option<Option<&'a [u8]>> {
        self.iter().filter(|header| header.name == name).last().map(|header| header.value)
    }
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = Header<'a>;
    type IntoIter = HeaderIter<'a>;
    fn into_iter(self) -> HeaderIter<'a> {
        self.iter()
    }
}

/// Ends early at bytes that are no list.
pub struct HeaderIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        let (head, rest) = self.rest.split_at_checked(HEADER_HEAD_BYTES)?;
        let name_len = u16::from_le_bytes([head[0], head[1]]) as usize;
        let value_len = u16::from_le_bytes([head[2], head[3]]);
        let (name, rest) = rest.split_at_checked(name_len)?;
        let (value, rest) = rest.split_at_checked(if value_len == NO_VALUE { 0 } else { value_len as usize })?;
        self.rest = rest;
        Some(Header { name: std::str::from_utf8(name).ok()?, value: (value_len != NO_VALUE).then_some(value) })
    }
}

/// The list with its names and values does not fit into [`HEADERS_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record's headers are longer than {HEADERS_BYTES_MAX} bytes")]
pub struct HeadersTooLarge;

/// Headers that own their bytes; encodes a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderList {
    buffer: BytesMut,
}

impl HeaderList {
    /// Adds one at the end; a list that would be too long is left as it is.
    pub fn push(&mut self, name: &str, value: Option<&[u8]>) -> Result<(), HeadersTooLarge> {
        let more = HEADER_HEAD_BYTES + name.len() + value.map_or(0, <[u8]>::len);
        if self.buffer.len() + more > HEADERS_BYTES_MAX {
            return Err(HeadersTooLarge);
        }
        self.buffer.reserve(more);
        self.buffer.put_u16_le(name.len() as u16);
        self.buffer.put_u16_le(value.map_or(NO_VALUE, |value| value.len() as u16));
        self.buffer.put_slice(name.as_bytes());
        self.buffer.put_slice(value.unwrap_or_default());
        Ok(())
    }

    pub fn as_headers(&self) -> Headers<'_> {
        Headers(&self.buffer)
    }

    pub fn clear(&mut self) {
        self.buffer.clear();
    }
}

impl From<Headers<'_>> for HeaderList {
    fn from(headers: Headers<'_>) -> Self {
        Self { buffer: BytesMut::from(Bytes::copy_from_slice(headers.0)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(headers: &[(String, Option<Vec<u8>>)]) -> HeaderList {
        let mut list = HeaderList::default();
        for (name, value) in headers {
            list.push(name, value.as_deref()).unwrap();
        }
        list
    }

    proptest! {
        #[test]
        fn any_headers_read_back_in_their_order(
            headers in prop::collection::vec((".{0,20}", prop::option::of(prop::collection::vec(any::<u8>(), 0..40))), 0..20),
        ) {
            let list = list(&headers);
            let read: Vec<_> = list.as_headers().iter().map(|header| (header.name.to_owned(), header.value.map(<[u8]>::to_vec))).collect();
            prop_assert_eq!(read, headers);
        }
    }

    #[test]
    fn the_last_of_a_name_counts_and_no_value_is_not_the_empty_one() {
        let list = list(&[("a".into(), Some(b"1".to_vec())), ("b".into(), None), ("a".into(), Some(Vec::new()))]);
        let headers = list.as_headers();
        assert_eq!([headers.last("a"), headers.last("b"), headers.last("c")], [Some(Some(&b""[..])), Some(None), None]);
    }

    #[test]
    fn a_list_that_would_be_too_long_is_left_as_it_is() {
        let mut list = HeaderList::default();
        list.push("a", Some(&vec![0; HEADERS_BYTES_MAX - HEADER_HEAD_BYTES - 1])).unwrap();
        let before = list.clone();
        assert_eq!(list.push("", None), Err(HeadersTooLarge));
        assert_eq!(list, before);
        assert_eq!(list.as_headers().iter().count(), 1);
    }

    #[test]
    fn bytes_that_are_no_list_end_it() {
        for cut in [&b"\x05\0\0\0ab"[..], b"\x01\0\x09\0a", b"\x01", b"\x01\0\xff\xff\xff"] {
            assert_eq!(Headers::from_encoded(cut).iter().count(), 0);
        }
    }
}
