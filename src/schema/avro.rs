//! Avro binary by hand, for the records that are written once per person and commit: <https://avro.apache.org/docs/1.12.0/specification/#binary-encoding>.
//!
//! Whoever writes with it is held to the schema by the golden bytes, and to `serde_avro_fast` by a test.

use bytes::BufMut;

use crate::domain::varint;

/// Number of the first branch of a union, which by our schemas' habit is null, and of the second.
const FIRST: u8 = 0;
const SECOND: u8 = 2;

pub(super) fn put_long(out: &mut impl BufMut, value: i64) {
    out.put_slice(varint::encoded(varint::zigzag(value)).as_ref());
}

pub(super) fn put_double(out: &mut impl BufMut, value: f64) {
    out.put_f64_le(value);
}

pub(super) fn put_text(out: &mut impl BufMut, text: &str) {
    put_long(out, text.len() as i64);
    out.put_slice(text.as_bytes());
}

pub(super) fn put_truth(out: &mut impl BufMut, truth: bool) {
    out.put_u8(u8::from(truth));
}

pub(super) fn put_null(out: &mut impl BufMut) {
    out.put_u8(FIRST);
}

/// What follows is a value of a union of null with something.
pub(super) fn put_some(out: &mut impl BufMut) {
    out.put_u8(SECOND);
}

/// One block with every item, and the end.
pub(super) fn put_array<T, B: BufMut>(out: &mut B, items: &[T], put: impl Fn(&mut B, &T)) {
    if !items.is_empty() {
        put_long(out, items.len() as i64);
        items.iter().for_each(|item| put(out, item));
    }
    put_long(out, 0);
}
