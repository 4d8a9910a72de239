//! The embedded log's settings; every one has a default that suits the product.

/// Who runs the log's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// Threads of its own: a committer, a syncer and a sorter.
    Threads,
    /// The calling thread, in a fixed order, so that a simulation sees the same file operations each time: an append is encoded, written,
    /// synced and published once `group` of them wait, or on [`super::EmbeddedLog::drive`].
    Caller { group: usize },
}

#[derive(Debug, Clone)]
pub struct Options {
    pub driver: Driver,
    /// Capacity of one write-ahead file; a full one is sorted into segments.
    pub wal_bytes: u64,
    /// Capacity of a folder's first write-ahead file, which is zero-filled before the log opens; later ones are prepared in the background.
    pub wal_first_bytes: u64,
    /// Full write-ahead files that may wait to be sorted; beyond, appends are refused as overload.
    pub wal_files_max: usize,
    /// Bytes of appends that may wait; beyond, appends are refused as overload.
    pub queue_bytes_max: usize,
    /// One append may be this large; it must fit a write-ahead file.
    pub transaction_bytes_max: usize,
    /// Newest records kept in memory for readers that keep up, all partitions together.
    pub tail_bytes_max: usize,
    /// A segment grows by merging its small neighbours up to about this size.
    pub segment_bytes_max: u64,
    /// Uncompressed bytes in one block of a segment.
    pub block_bytes: usize,
    /// Decompressed blocks kept for readers that come back for the rest of one.
    pub block_cache_bytes_max: usize,
    /// Segments kept open for reading.
    pub open_segments_max: usize,
    /// `clean` sorts a write-ahead file whose first record is older than this, so that retention reaches quiet topics.
    pub roll_age_ms: i64,
    /// A keyed topic is compacted when its uncompacted segments are larger than this share of the compacted ones, in percent.
    pub compact_dirty_percent: u64,
    /// Named in the lock file.
    pub holder: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            driver: Driver::Threads,
            wal_bytes: 32 << 20,
            wal_first_bytes: 8 << 20,
            wal_files_max: 16,
            queue_bytes_max: 64 << 20,
            transaction_bytes_max: 16 << 20,
            tail_bytes_max: 32 << 20,
            segment_bytes_max: 256 << 20,
            block_bytes: 128 << 10,
            block_cache_bytes_max: 16 << 20,
            open_segments_max: 256,
            roll_age_ms: crate::domain::HOUR_MS,
            compact_dirty_percent: 50,
            holder: format!("process {}", std::process::id()),
        }
    }
}

impl Options {
    /// Small files, for tests that want to see them roll.
    pub fn small() -> Self {
        Self {
            wal_bytes: 64 << 10,
            wal_first_bytes: 32 << 10,
            transaction_bytes_max: 4 << 20,
            tail_bytes_max: 16 << 10,
            segment_bytes_max: 1 << 20,
            block_bytes: 4 << 10,
            block_cache_bytes_max: 64 << 10,
            ..Self::default()
        }
    }
}
