//! Records and batches of records as they travel and as they lie on disk.
//!
//! A batch is one contiguous buffer that is encoded once by the producer and copied no more than to the disk and to readers.
//! Each record: `key_len u32 | value_len u32 (MAX = no value) | timestamp i64 | headers_len u16 | key | value | headers`, little endian.
//! Headers are what foreign producers bring ([`Headers`]); records that this product makes have none.
//! Offsets are the batch's base plus the record's index, unless compaction left gaps: then the batch carries its offsets explicitly.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::headers::{HeaderList, Headers};
use crate::domain::{Millis, Offset};

pub(crate) const RECORD_HEAD_BYTES: usize = 4 + 4 + 8 + 2;
const NO_VALUE: u32 = u32::MAX;

/// A record that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub offset: Offset,
    /// What the producer said: receive time in `intake`, event time in `events`.
    pub timestamp: Millis,
    /// When the log took it; rises with the offset.
    pub append_time: Millis,
    pub key: Bytes,
    /// `None` removes the key from a compacted topic.
    pub value: Option<Bytes>,
    pub headers: HeaderList,
}

/// A record within a batch; borrows the batch's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    pub offset: Offset,
    pub timestamp: Millis,
    pub append_time: Millis,
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

impl RecordRef<'_> {
    /// What counts against [`RECORD_BYTES_MAX`](super::RECORD_BYTES_MAX).
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.map_or(0, <[u8]>::len) + self.headers.encoded().len()
    }

    pub fn to_owned(&self) -> Record {
        Record {
            offset: self.offset,
            timestamp: self.timestamp,
            append_time: self.append_time,
            key: Bytes::copy_from_slice(self.key),
            value: self.value.map(Bytes::copy_from_slice),
            headers: self.headers.into(),
        }
    }
}

/// Encodes records for one partition.
#[derive(Debug, Default, Clone)]
pub struct BatchBuilder {
    buffer: BytesMut,
    count: u32,
}

impl BatchBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>, timestamp: Millis) {
        self.push_headed(key, value, timestamp, Headers::NONE);
    }

    /// Pushes a record with headers, which keep to [`HEADERS_BYTES_MAX`](super::HEADERS_BYTES_MAX).
    pub fn push_headed(&mut self, key: &[u8], value: Option<&[u8]>, timestamp: Millis, headers: Headers<'_>) {
        let headers = headers.encoded();
        self.buffer.reserve(RECORD_HEAD_BYTES + key.len() + value.map_or(0, <[u8]>::len) + headers.len());
        self.buffer.put_u32_le(key.len() as u32);
        self.buffer.put_u32_le(value.map_or(NO_VALUE, |value| value.len() as u32));
        self.buffer.put_i64_le(timestamp.0);
        self.buffer.put_u16_le(headers.len() as u16);
        self.buffer.put_slice(key);
        self.buffer.put_slice(value.unwrap_or_default());
        self.buffer.put_slice(headers);
        self.count += 1;
    }

    /// Pushes a record whose value `write` appends straight into the batch's buffer, saving a copy.
    pub fn push_with<E>(&mut self, key: &[u8], timestamp: Millis, write: impl FnOnce(&mut BytesMut) -> Result<(), E>) -> Result<(), E> {
        let start = self.buffer.len();
        self.buffer.put_u32_le(key.len() as u32);
        self.buffer.put_u32_le(0);
        self.buffer.put_i64_le(timestamp.0);
        self.buffer.put_u16_le(0);
        self.buffer.put_slice(key);
        let value_start = self.buffer.len();
        if let Err(error) = write(&mut self.buffer) {
            self.buffer.truncate(start);
            return Err(error);
        }
        let value_len = (self.buffer.len() - value_start) as u32;
        self.buffer[start + 4..start + 8].copy_from_slice(&value_len.to_le_bytes());
        self.count += 1;
        Ok(())
    }

    /// Makes room for this many bytes at once, so that a large batch is not copied as it grows.
    pub fn reserve(&mut self, bytes: usize) {
        self.buffer.reserve(bytes);
    }

    /// Takes back every record pushed since the builder had this many bytes and records.
    pub fn truncate(&mut self, bytes: usize, count: usize) {
        self.buffer.truncate(bytes);
        self.count = count as u32;
    }

    pub fn len(&self) -> usize {
        self.count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    pub fn build(self) -> RecordBatch {
        RecordBatch { base: Offset(0), append_time: Millis(0), count: self.count, offsets: None, data: self.buffer.freeze() }
    }

    /// As a log that has them hands them out: appended at `append_time`, each at its own offset, which rise.
    #[cfg(feature = "kafka")]
    pub(crate) fn build_at(self, append_time: Millis, offsets: Vec<u64>) -> RecordBatch {
        debug_assert_eq!(offsets.len(), self.count as usize, "an offset for each record");
        let base = offsets.first().copied().unwrap_or_default();
        let is_dense = offsets.last().is_none_or(|last| last - base + 1 == offsets.len() as u64);
        let offsets = (!is_dense).then(|| offsets.into());
        RecordBatch { base: Offset(base), append_time, count: self.count, offsets, data: self.buffer.freeze() }
    }
}

/// Records of one partition in one buffer. Offsets and append time are the log's to fill in.
#[derive(Debug, Clone)]
pub struct RecordBatch {
    pub(crate) base: Offset,
    pub(crate) append_time: Millis,
    pub(crate) count: u32,
    /// Each record's offset, where compaction left gaps.
    pub(crate) offsets: Option<Arc<[u64]>>,
    pub(crate) data: Bytes,
}

impl RecordBatch {
    pub fn len(&self) -> usize {
        self.count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn data(&self) -> &Bytes {
        &self.data
    }

    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter { batch: self, at: 0, index: 0 }
    }

    fn offset_of(&self, index: u32) -> Offset {
        match &self.offsets {
            Some(offsets) => Offset(offsets[index as usize]),
            None => Offset(self.base.0 + u64::from(index)),
        }
    }

    /// The offset of the last record; none in a batch without records.
    pub fn last_offset(&self) -> Option<Offset> {
        Some(self.offset_of(self.count.checked_sub(1)?))
    }

    /// The records at or past `from`, sharing this batch's buffer; none if there are none.
    pub(crate) fn starting_at(&self, from: Offset) -> Option<RecordBatch> {
        if self.last_offset()? < from {
            return None;
        }
        let mut records = self.iter();
        let mut skipped = 0;
        let mut at = 0;
        while self.offset_of(skipped) < from {
            records.next();
            at = records.at;
            skipped += 1;
        }
        Some(RecordBatch {
            base: self.offset_of(skipped),
            append_time: self.append_time,
            count: self.count - skipped,
            offsets: self.offsets.as_ref().map(|offsets| offsets[skipped as usize..].into()),
            data: self.data.slice(at..),
        })
    }

    /// The first records that fit into `bytes_max`, but at least one, and the others; both share this batch's buffer.
    pub(crate) fn split_at_bytes(&self, bytes_max: usize) -> (RecordBatch, Option<RecordBatch>) {
        if self.data.len() <= bytes_max {
            return (self.clone(), None);
        }
        let mut records = self.iter();
        let mut count = 0;
        let mut end = 0;
        while records.next().is_some() && (records.at <= bytes_max || count == 0) {
            count += 1;
            end = records.at;
        }
        if count == self.count {
            return (self.clone(), None);
        }
        let part = |from: u32, to: u32, data: Bytes| RecordBatch {
            base: self.offset_of(from),
            append_time: self.append_time,
            count: to - from,
            offsets: self.offsets.as_ref().map(|offsets| offsets[from as usize..to as usize].into()),
            data,
        };
        (part(0, count, self.data.slice(..end)), Some(part(count, self.count, self.data.slice(end..))))
    }

    /// The records that `keep` says, at their own offsets; none if it keeps none.
    pub(crate) fn keeping(&self, mut keep: impl FnMut(&RecordRef<'_>) -> bool) -> Option<RecordBatch> {
        let mut data = BytesMut::new();
        let mut offsets = Vec::new();
        let mut records = self.iter();
        let mut start = 0;
        while let Some(record) = records.next() {
            if keep(&record) {
                data.extend_from_slice(&self.data[start..records.at]);
                offsets.push(record.offset.0);
            }
            start = records.at;
        }
        if offsets.len() == self.len() {
            return Some(self.clone());
        }
        let base = Offset(*offsets.first()?);
        let count = offsets.len() as u32;
        Some(RecordBatch { base, append_time: self.append_time, count, offsets: Some(offsets.into()), data: data.freeze() })
    }
}

impl<'a> IntoIterator for &'a RecordBatch {
    type Item = RecordRef<'a>;
    type IntoIter = RecordIter<'a>;
    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

pub struct RecordIter<'a> {
    batch: &'a RecordBatch,
    at: usize,
    index: u32,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = RecordRef<'a>;

    fn next(&mut self) -> Option<RecordRef<'a>> {
        if self.index == self.batch.count {
            return None;
        }
        let head = &self.batch.data[self.at..self.at + RECORD_HEAD_BYTES];
        let key_len = u32::from_le_bytes(head[0..4].try_into().expect("four bytes")) as usize;
        let value_len = u32::from_le_bytes(head[4..8].try_into().expect("four bytes"));
        let timestamp = Millis(i64::from_le_bytes(head[8..16].try_into().expect("eight bytes")));
        let headers_len = u16::from_le_bytes(head[16..18].try_into().expect("two bytes")) as usize;
        let key_at = self.at + RECORD_HEAD_BYTES;
        let value_at = key_at + key_len;
        let value_end = value_at + if value_len == NO_VALUE { 0 } else { value_len as usize };
        let offset = self.batch.offset_of(self.index);
        let headers_end = value_end + headers_len;
        self.at = headers_end;
        self.index += 1;
        Some(RecordRef {
            offset,
            timestamp,
            append_time: self.batch.append_time,
            key: &self.batch.data[key_at..value_at],
            value: (value_len != NO_VALUE).then(|| &self.batch.data[value_at..value_end]),
            headers: Headers::from_encoded(&self.batch.data[value_end..headers_end]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(keys: &[&str]) -> RecordBatch {
        let mut builder = BatchBuilder::new();
        for key in keys {
            builder.push(key.as_bytes(), Some(b"value"), Millis(1));
        }
        RecordBatch { base: Offset(10), ..builder.build() }
    }

    fn seen(batch: Option<RecordBatch>) -> Vec<(u64, String)> {
        let batch = batch.unwrap_or_else(|| BatchBuilder::new().build());
        batch.iter().map(|record| (record.offset.0, String::from_utf8_lossy(record.key).into_owned())).collect()
    }

    fn pairs(expect: &[(u64, &str)]) -> Vec<(u64, String)> {
        expect.iter().map(|(offset, key)| (*offset, (*key).to_owned())).collect()
    }

    #[test]
    fn a_batch_is_read_from_any_of_its_offsets() {
        let whole = batch(&["a", "b", "c"]);
        assert_eq!(seen(whole.starting_at(Offset(0))), pairs(&[(10, "a"), (11, "b"), (12, "c")]));
        assert_eq!(seen(whole.starting_at(Offset(12))), pairs(&[(12, "c")]));
        assert!(whole.starting_at(Offset(13)).is_none());
        let gapped = whole.keeping(|record| record.key != b"b");
        assert_eq!(seen(gapped.clone()), pairs(&[(10, "a"), (12, "c")]));
        assert_eq!(seen(gapped.and_then(|batch| batch.starting_at(Offset(11)))), pairs(&[(12, "c")]));
        assert!(whole.keeping(|_| false).is_none());
    }

    #[test]
    fn headers_stay_with_their_record_however_a_batch_is_cut() {
        let mut list = HeaderList::default();
        list.push("tenant", Some(b"acme")).unwrap();
        let mut builder = BatchBuilder::new();
        builder.push(b"a", Some(b"value"), Millis(1));
        builder.push_headed(b"b", None, Millis(1), list.as_headers());
        builder.push_headed(b"c", Some(b""), Millis(1), list.as_headers());
        let whole = builder.build();
        let seen = |batch: Option<RecordBatch>| -> Vec<(Vec<u8>, bool)> {
            let with = |record: RecordRef<'_>| (record.key.to_vec(), record.headers.last("tenant") == Some(Some(b"acme")));
            batch.iter().flat_map(RecordBatch::iter).map(with).collect()
        };
        let pair = |key: &str, with: bool| (key.as_bytes().to_vec(), with);
        assert_eq!(seen(Some(whole.clone())), [pair("a", false), pair("b", true), pair("c", true)]);
        assert_eq!(seen(whole.starting_at(Offset(2))), [pair("c", true)]);
        assert_eq!(seen(whole.keeping(|record| record.key != b"b")), [pair("a", false), pair("c", true)]);
        let (first, rest) = whole.split_at_bytes(whole.data().len() - 1);
        assert_eq!((seen(Some(first)), seen(rest)), (vec![pair("a", false), pair("b", true)], vec![pair("c", true)]));
        let owned = whole.iter().nth(1).map(|record| record.to_owned());
        assert_eq!(owned.map(|record| (record.value, record.headers)), Some((None, list)));
    }

    #[test]
    fn a_batch_is_cut_to_whole_records() {
        let whole = batch(&["a", "b", "c"]);
        let one = whole.data().len() / 3;
        let split = |bytes_max| {
            let (first, rest) = whole.split_at_bytes(bytes_max);
            (seen(Some(first)), seen(rest))
        };
        assert_eq!(split(one * 2 + 1), (pairs(&[(10, "a"), (11, "b")]), pairs(&[(12, "c")])));
        assert_eq!(split(0), (pairs(&[(10, "a")]), pairs(&[(11, "b"), (12, "c")])));
        assert_eq!(split(usize::MAX), (pairs(&[(10, "a"), (11, "b"), (12, "c")]), pairs(&[])));
    }
}
