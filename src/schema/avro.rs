//! Avro binary by hand, for the records that are written once per person and commit: <https://avro.apache.org/docs/1.12.0/specification/#binary-encoding>.
//!
//! Whoever writes with it is held to the schema by the golden bytes, and to `serde_avro_fast` by a test.

use bytes::BufMut;

/// Number of the first branch of a union, which by our schemas' habit is null, and of the second.
const FIRST: u8 = 0;
const SECOND: u8 = 2;

pub(super) fn put_long(out: &mut impl BufMut, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    let mut bytes = [0u8; 10];
    let mut len = 0;
    while left >= 0x80 {
        bytes[len] = left as u8 | 0x80;
        left >>= 7;
        len += 1;
    }
    bytes[len] = left as u8;
    out.put_slice(&bytes[..=len]);
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
