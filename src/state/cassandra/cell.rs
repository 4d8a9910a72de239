//! What one row holds and when it was written: positions of the log as write timestamps, and what decides between two writes of one
//! position.
//!
//! A timestamp is the offset in the low 42 bits and the incarnation above, in the microseconds since 1970 that the server takes it for. Two
//! places within one record have one timestamp (as have flushes between which nothing was folded, such as those of pending effects); then
//! the server keeps the greater cell. So a cell begins with the place within the record and a count of the flushes there, as bytes whose
//! order is theirs.

use bytes::{BufMut, Bytes};
use xxhash_rust::xxh3::xxh3_64;

use crate::domain::{Incarnation, Offset};
use crate::state::{Error, Upto};

pub(super) const OFFSET_BITS: u32 = 42;

/// Into how many partitions of the server one table's states are spread: a million states of 1 kB make 16 MB each, and a flush of some
/// thousand of them writes as many together in each as pays.
pub(super) const BUCKETS: u16 = 64;

pub(super) fn bucket(key: &[u8]) -> i16 {
    (xxh3_64(key) % u64::from(BUCKETS)) as i16
}

/// The write timestamp of everything that a flush of this place writes.
pub(super) fn timestamp(upto: &Upto, incarnation_max: u32) -> Result<i64, Error> {
    if upto.incarnation.0 > incarnation_max || upto.next.0 >> OFFSET_BITS != 0 {
        let (incarnation, offset) = (upto.incarnation, upto.next);
        let most = format!("incarnations end at {incarnation_max} and offsets at 2^{OFFSET_BITS}");
        return Err(Error::Shared(format!("position {incarnation}/{offset} is no write timestamp: by the server's clock {most}")));
    }
    Ok(i64::from(upto.incarnation.0) << OFFSET_BITS | upto.next.0 as i64)
}

/// The last incarnation all of whose timestamps are in the past by this clock, in milliseconds since 1970.
pub(super) fn incarnation_max(server_ms: i64) -> u32 {
    u32::try_from(((server_ms.max(0) * 1_000) >> OFFSET_BITS) - 1).unwrap_or(0)
}

pub(super) fn encode(within: &[u8], count: u32, payload: &[u8]) -> Vec<u8> {
    let mut cell = Vec::with_capacity(within.len() + payload.len() + 8);
    if within.is_empty() {
        cell.put_u8(0);
    } else {
        cell.put_u8(1);
        // A zero in it is followed by 255, its end by another zero: neither moves one place before or after another.
        for byte in within {
            cell.put_u8(*byte);
            if *byte == 0 {
                cell.put_u8(255);
            }
        }
        cell.put_slice(&[0, 0]);
    }
    cell.put_u32(count);
    cell.put_slice(payload);
    cell
}

/// The cell's place, count and payload, given when it was written.
pub(super) fn decode(cell: &Bytes, timestamp: i64) -> Result<(Upto, u32, Bytes), Error> {
    let read = || {
        let mut within = Vec::new();
        let mut at = 1;
        if *cell.first()? == 1 {
            loop {
                let byte = *cell.get(at)?;
                at += 1;
                if byte == 0 {
                    at += 1;
                    if *cell.get(at - 1)? == 0 {
                        break;
                    }
                }
                within.push(byte);
            }
        }
        let count = u32::from_be_bytes(cell.get(at..at + 4)?.try_into().ok()?);
        let incarnation = Incarnation(u32::try_from(timestamp >> OFFSET_BITS).ok()?);
        let next = Offset((timestamp & ((1 << OFFSET_BITS) - 1)) as u64);
        Some((Upto { incarnation, next, within: within.into() }, count, cell.slice(at + 4..)))
    };
    read().ok_or_else(|| Error::Shared(format!("a cell of {} bytes written at {timestamp} does not read", cell.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_comes_back_and_later_ones_of_one_timestamp_are_greater() {
        let withins: [&[u8]; 6] = [b"", b"\0", b"\0\0", b"\0a", b"a", b"a\0b"];
        let mut cells = Vec::new();
        for within in withins {
            for count in [0, 1, 300] {
                let upto = Upto { incarnation: Incarnation(3), next: Offset(77), within: Bytes::copy_from_slice(within) };
                let cell = Bytes::from(encode(within, count, b"\xff state"));
                let at = timestamp(&upto, 10).unwrap();
                assert_eq!(decode(&cell, at).unwrap(), (upto, count, Bytes::from_static(b"\xff state")));
                cells.push(cell);
            }
        }
        assert!(cells.is_sorted(), "{cells:?}");
        assert!(decode(&Bytes::new(), 5).is_err() && decode(&Bytes::from_static(b"\x01ab"), 5).is_err());
    }

    #[test]
    fn timestamps_are_in_the_past_or_refused() {
        let upto = |incarnation, next| Upto::new(Incarnation(incarnation), Offset(next));
        let now_ms = 1_790_000_000_000;
        let most = incarnation_max(now_ms);
        assert!(most > 400);
        assert!(timestamp(&upto(most, (1 << 42) - 1), most).unwrap() < now_ms * 1_000);
        assert!(timestamp(&upto(most + 1, 0), most).is_err());
        assert!(timestamp(&upto(1, 1 << 42), most).is_err());
        assert!(timestamp(&upto(1, (1 << 42) - 1), most).unwrap() < timestamp(&upto(2, 0), most).unwrap());
    }
}
