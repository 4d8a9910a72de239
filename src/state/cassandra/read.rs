//! Reading states: many keys at once, a few dozen of a bucket per request; and all of them in key order, merged from the buckets.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use scylla::response::query_result::QueryRowsResult;
use tokio::task::JoinSet;

use super::{Inner, all, cell, errors};
use crate::state::{Error, Stored, Table};

/// Keys of one request.
const KEYS_MAX: usize = 64;
/// Rows of one bucket per request of a scan.
const PAGE_MAX: usize = 500;

type Row = (Bytes, Stored);

fn states(rows: &QueryRowsResult) -> Result<Vec<Row>, Error> {
    let mut found = Vec::with_capacity(rows.rows_num());
    for row in rows.rows::<(&[u8], Option<&[u8]>, Option<i64>)>().map_err(errors::unreadable)? {
        let (key, cell, at) = row.map_err(errors::unreadable)?;
        let (Some(cell), Some(at)) = (cell, at) else { continue };
        let (upto, _, state) = cell::decode(&Bytes::copy_from_slice(cell), at)?;
        found.push((Bytes::copy_from_slice(key), Stored { state, upto }));
    }
    Ok(found)
}

/// A scan's place in one bucket.
struct Bucket {
    number: i16,
    after: Option<Bytes>,
    read: VecDeque<Row>,
    is_done: bool,
}

impl Inner {
    pub(super) async fn get_many(self: Arc<Self>, table: &Table, keys: Vec<Bytes>) -> Result<Vec<Option<Stored>>, Error> {
        let Some(known) = self.find(table).await? else { return Ok(vec![None; keys.len()]) };
        let mut buckets: HashMap<i16, Vec<Bytes>> = HashMap::new();
        for key in &keys {
            buckets.entry(cell::bucket(key)).or_default().push(key.clone());
        }
        let mut tasks = JoinSet::new();
        for (bucket, keys) in buckets {
            for part in keys.chunks(KEYS_MAX) {
                let (inner, id, part) = (Arc::clone(&self), known.id, part.to_vec());
                tasks.spawn(async move { states(&inner.rows(&inner.statements.states_of, (id, bucket, part)).await?) });
            }
        }
        let found: HashMap<Bytes, Stored> = all(tasks).await?.into_iter().flatten().collect();
        Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
    }

    pub(super) async fn scan(self: Arc<Self>, table: &Table, after: Option<Bytes>, limit: usize) -> Result<Vec<Row>, Error> {
        let Some(known) = self.find(table).await? else { return Ok(Vec::new()) };
        // Keys are spread evenly: a little more than its share of each is what one page takes.
        let page = (limit / usize::from(cell::BUCKETS) * 5 / 4 + 4).min(PAGE_MAX);
        let begin = |number: u16| Bucket { number: number as i16, after: after.clone(), read: VecDeque::new(), is_done: false };
        let mut buckets: Vec<Bucket> = (0..cell::BUCKETS).map(begin).collect();
        let mut pairs = Vec::new();
        while pairs.len() < limit {
            self.fill(known.id, &mut buckets, page.min(limit)).await?;
            // Until one of them has nothing at hand, the least of all first rows is the next.
            while pairs.len() < limit && buckets.iter().all(|bucket| bucket.is_done || !bucket.read.is_empty()) {
                let least = buckets.iter_mut().filter(|bucket| !bucket.read.is_empty()).min_by(|a, b| a.read[0].0.cmp(&b.read[0].0));
                let Some(least) = least else { return Ok(pairs) };
                pairs.extend(least.read.pop_front());
            }
        }
        Ok(pairs)
    }

    /// Reads the next page of every bucket that has nothing at hand.
    async fn fill(self: &Arc<Self>, id: i64, buckets: &mut [Bucket], page: usize) -> Result<(), Error> {
        let mut tasks = JoinSet::new();
        for (at, bucket) in buckets.iter().enumerate().filter(|(_, bucket)| bucket.read.is_empty() && !bucket.is_done) {
            let (inner, number, after) = (Arc::clone(self), bucket.number, bucket.after.clone());
            tasks.spawn(async move {
                let limit = page as i32;
                let rows = match after {
                    Some(after) => inner.rows(&inner.statements.states_after, (id, number, after, limit)).await?,
                    None => inner.rows(&inner.statements.states_first, (id, number, limit)).await?,
                };
                Ok((at, states(&rows)?))
            });
        }
        for (at, rows) in all(tasks).await? {
            let bucket = &mut buckets[at];
            bucket.is_done = rows.len() < page;
            bucket.after = rows.last().map(|(key, _)| key.clone()).or(bucket.after.take());
            bucket.read = rows.into();
        }
        Ok(())
    }
}
