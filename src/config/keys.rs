//! What each key means, in one line each: the text of `flywheel config show` and of docs/configuration.md.
//!
//! A test holds this table and the defaults of [`super::Config`] against each other, so that no key is undocumented.

/// One settable key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub path: &'static str,
    pub doc: &'static str,
}

const fn key(path: &'static str, doc: &'static str) -> Key {
    Key { path, doc }
}

/// Every scalar key, in the order of the file.
pub const KEYS: &[Key] = &[
    key("data.dir", "folder of the log, the state and the read models; one server per folder"),
    key("server.listen", "address and port to serve on; port 0 picks a free one"),
    key("server.connections_max", "open connections; the next one waits to be accepted"),
    key("server.event_bytes_max", "largest single event, decoded; larger ones are dead-lettered as too_large"),
    key("server.batch_bytes_max", "largest request body, decoded; beyond it the answer is 413"),
    key("server.inflight_bytes_max", "bytes of requests being worked on; beyond it the answer is 429 with Retry-After"),
    key("server.header_timeout_ms", "a client that has not sent its headers by then is disconnected"),
    key("server.body_timeout_ms", "a client that has not sent its body by then gets 408"),
    key("server.requests_per_second_max", "requests a second per tenant before 429; 0 is no limit"),
    key("server.drain_timeout_ms", "how long a stop waits for requests under way"),
    key("log.wal_bytes", "size at which the write-ahead file is sorted into segments"),
    key("log.tail_bytes", "newest records kept in memory for readers that keep up, over all partitions"),
    key("log.pending_bytes_max", "bytes waiting to be written; beyond it appends are refused with 429"),
    key("log.clean_interval_s", "how often retention and compaction run"),
    key("log.intake_retention_days", "days that raw `intake` is kept, at most 30 because it is never sealed"),
    key("stream.partitions", "partitions of each topic of a new namespace; fixed once it exists"),
    key("stream.intake_threads", "threads that validate, deduplicate and identify, per namespace"),
    key("stream.profile_threads", "threads that fold profiles, per namespace"),
    key("stream.fetch_bytes", "bytes per fetch, and so about the size of a commit under load"),
    key("stream.tick_interval_ms", "how often time is passed on to the profile fold"),
    key("stream.flush_age_ms", "longest that changed state stays unflushed; a restart re-reads about this much"),
    key("stream.flush_bytes", "most changed state that stays unflushed"),
    key("stream.cache_bytes", "memory for profiles and intake keys, per namespace; the rest is on disk"),
    key("stream.topology", "topology of namespaces that name none: a shipped one's name or a file"),
    key("read.batch_rows_max", "rows per SQL transaction under load"),
    key("read.query_timeout_ms", "longest that one `flywheel query` may run"),
    key("read.query_rows_max", "most rows one query returns"),
    key("observe.log_level", "error, warn, info, debug or trace, or a tracing filter such as flywheel::log=debug"),
    key("observe.log_json", "one JSON object per log line instead of text"),
    key(
        "sources",
        "who may send: a list of {name, write_key, tenant, namespace, disabled}; none means the development key, on loopback only",
    ),
    key("namespaces", "worlds besides `main`: a list of {name, clock = \"wall\" | \"event\", topology, partitions}"),
];
