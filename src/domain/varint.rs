//! Numbers in as few bytes as they need: LEB128, and zigzag so that small negative ones are small too. Avro's binary form has the same.

/// Bytes of the largest number.
const LEN_MAX: usize = 10;

/// Why no number could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// The bytes end inside it.
    Cut,
    /// It has more than 64 bits.
    TooLarge,
}

/// A number's bytes.
pub struct Encoded {
    bytes: [u8; LEN_MAX],
    len: usize,
}

impl AsRef<[u8]> for Encoded {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

pub fn encoded(mut value: u64) -> Encoded {
    let (mut bytes, mut len) = ([0; LEN_MAX], 0);
    while value >= 0x80 {
        bytes[len] = value as u8 | 0x80;
        value >>= 7;
        len += 1;
    }
    bytes[len] = value as u8;
    Encoded { bytes, len: len + 1 }
}

pub fn put(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(encoded(value).as_ref());
}

/// Reads a number and leaves `bytes` behind it.
pub fn take(bytes: &mut &[u8]) -> Result<u64, Unreadable> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Unreadable::Cut)?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if (part << shift) >> shift != part {
            return Err(Unreadable::TooLarge);
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Unreadable::TooLarge)
}

pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_were_written() {
        for value in [0, 1, -1, 63, -64, 64, 300, i64::MAX, i64::MIN] {
            assert_eq!(unzigzag(zigzag(value)), value);
            for number in [value as u64, zigzag(value)] {
                let mut out = vec![];
                put(&mut out, number);
                let mut rest = &out[..];
                assert_eq!((take(&mut rest), rest), (Ok(number), &[][..]));
                assert_eq!(take(&mut &out[..out.len() - 1]), Err(Unreadable::Cut));
            }
        }
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_refused() {
        for bytes in [[0xff; 11].as_slice(), &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]] {
            assert_eq!(take(&mut &bytes[..]), Err(Unreadable::TooLarge));
        }
    }
}
