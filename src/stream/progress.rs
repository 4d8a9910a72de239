//! How far a fold has come: within the log, within a record that takes several commits, and what is kept of it where.
//!
//! The committed offset's metadata ([`Mark`]) travels with the log and is the truth; a table's watermark ([`Watermark`]) says which
//! prefix of it the stored states hold. Both begin with a format byte and are refused when they do not read.

use bytes::{Buf, BufMut, Bytes};

use super::Error;
use crate::domain::{Incarnation, Millis, Offset};
use crate::state::Upto;

/// The place within a record that is not finished: everything up to and including it is done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cursor {
    /// Wake-ups of a tick, in order of (due, key).
    Wake { due: Millis, key: Bytes },
    /// All keys once, in key order, after a definition changed; an empty key is before the first.
    Sweep { after: Bytes },
}

/// The next offset to fold, or the unfinished record at that offset and how far it got.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Progress {
    pub next: Offset,
    pub cursor: Option<Cursor>,
}

impl Progress {
    pub fn at(next: Offset) -> Self {
        Self { next, cursor: None }
    }

    /// The same for the state store, in the same order.
    pub fn upto(&self, incarnation: Incarnation) -> Upto {
        let mut within = Vec::new();
        match &self.cursor {
            None => {}
            Some(Cursor::Wake { due, key }) => {
                within.put_u8(1);
                within.put_u64(due.0 as u64 ^ 1 << 63);
                within.put_slice(key);
            }
            Some(Cursor::Sweep { after }) => {
                within.put_u8(2);
                within.put_slice(after);
            }
        }
        Upto { incarnation, next: self.next, within: within.into() }
    }
}

/// Kept as the committed offset's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub incarnation: Incarnation,
    /// The fold's partition time, or an edge's own.
    pub time: Millis,
    pub cursor: Option<Cursor>,
    /// The fold's own: what a silent re-read must know of how these records were decided. Nothing in marks of before there was any.
    pub memo: Bytes,
}

/// Kept with a table, replaced by every flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watermark {
    pub incarnation: Incarnation,
    /// Raised only when the bytes a fold makes can change.
    pub fold_version: u32,
    pub progress: Progress,
    /// The fold's own: feeder times, definitions in force.
    pub memo: Bytes,
}

const FORMAT: u8 = 1;

fn put_cursor(out: &mut Vec<u8>, cursor: Option<&Cursor>) {
    match cursor {
        None => out.put_u8(0),
        Some(Cursor::Wake { due, key }) => {
            out.put_u8(1);
            out.put_i64_le(due.0);
            out.put_u16_le(key.len() as u16);
            out.put_slice(key);
        }
        Some(Cursor::Sweep { after }) => {
            out.put_u8(2);
            out.put_u16_le(after.len() as u16);
            out.put_slice(after);
        }
    }
}

fn get_key(bytes: &mut Bytes) -> Option<Bytes> {
    let len = usize::from(bytes.try_get_u16_le().ok()?);
    (bytes.len() >= len).then(|| bytes.split_to(len))
}

fn get_cursor(bytes: &mut Bytes) -> Option<Option<Cursor>> {
    match bytes.try_get_u8().ok()? {
        0 => Some(None),
        1 => {
            let due = Millis(bytes.try_get_i64_le().ok()?);
            Some(Some(Cursor::Wake { due, key: get_key(bytes)? }))
        }
        2 => Some(Some(Cursor::Sweep { after: get_key(bytes)? })),
        _ => None,
    }
}

impl Mark {
    pub fn encode(&self) -> Bytes {
        let mut out = vec![FORMAT];
        out.put_u32_le(self.incarnation.0);
        out.put_i64_le(self.time.0);
        put_cursor(&mut out, self.cursor.as_ref());
        out.put_slice(&self.memo);
        out.into()
    }

    pub fn decode(bytes: &Bytes) -> Result<Self, Error> {
        let read = |mut bytes: Bytes| {
            if bytes.try_get_u8().ok()? != FORMAT {
                return None;
            }
            let incarnation = Incarnation(bytes.try_get_u32_le().ok()?);
            let time = Millis(bytes.try_get_i64_le().ok()?);
            let cursor = get_cursor(&mut bytes)?;
            Some(Mark { incarnation, time, cursor, memo: bytes })
        };
        read(bytes.clone()).ok_or_else(|| Error::Corrupt { what: "a committed offset's metadata".into(), detail: format!("{bytes:?}") })
    }
}

impl Watermark {
    pub fn encode(&self) -> Bytes {
        let mut out = vec![FORMAT];
        out.put_u32_le(self.incarnation.0);
        out.put_u32_le(self.fold_version);
        out.put_u64_le(self.progress.next.0);
        put_cursor(&mut out, self.progress.cursor.as_ref());
        out.put_slice(&self.memo);
        out.into()
    }

    pub fn decode(bytes: &Bytes) -> Result<Self, Error> {
        let read = |mut bytes: Bytes| {
            if bytes.try_get_u8().ok()? != FORMAT {
                return None;
            }
            let incarnation = Incarnation(bytes.try_get_u32_le().ok()?);
            let fold_version = bytes.try_get_u32_le().ok()?;
            let next = Offset(bytes.try_get_u64_le().ok()?);
            let cursor = get_cursor(&mut bytes)?;
            Some(Watermark { incarnation, fold_version, progress: Progress { next, cursor }, memo: bytes })
        };
        read(bytes.clone()).ok_or_else(|| Error::Corrupt { what: "a table's watermark".into(), detail: format!("{bytes:?}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_watermarks_come_back_as_they_were() {
        let key = Bytes::from_static(b"acme\0u:1");
        let cursors = [None, Some(Cursor::Wake { due: Millis(-7), key: key.clone() }), Some(Cursor::Sweep { after: key.clone() })];
        for cursor in cursors {
            let mark = Mark { incarnation: Incarnation(3), time: Millis(9), cursor: cursor.clone(), memo: key.clone() };
            assert_eq!(Mark::decode(&mark.encode()).unwrap(), mark);
            let progress = Progress { next: Offset(12), cursor };
            let watermark = Watermark { incarnation: Incarnation(3), fold_version: 2, progress, memo: Bytes::from_static(b"memo") };
            assert_eq!(Watermark::decode(&watermark.encode()).unwrap(), watermark);
        }
        assert!(Mark::decode(&Bytes::from_static(b"\x01\x00")).is_err());
    }

    #[test]
    fn an_unfinished_record_is_past_its_beginning_and_before_its_end() {
        let wake = |due| Progress { next: Offset(5), cursor: Some(Cursor::Wake { due: Millis(due), key: Bytes::new() }) };
        let sweep = Progress { next: Offset(5), cursor: Some(Cursor::Sweep { after: Bytes::new() }) };
        let order = [Progress::at(Offset(5)), wake(1), wake(2), sweep, Progress::at(Offset(6))];
        assert!(order.windows(2).all(|pair| pair[0] < pair[1]));
        let upto = |progress: &Progress| progress.upto(Incarnation(1));
        assert!(order.windows(2).all(|pair| upto(&pair[0]) < upto(&pair[1])), "as the state store sees it too");
        assert!(upto(&wake(-1)) < upto(&wake(0)));
    }
}
