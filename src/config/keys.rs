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
    key("gateway.body_bytes_max", "largest request body, as sent and decompressed; beyond it the answer is 413"),
    key("gateway.event_bytes_max", "largest event on the single-event routes (413); in a batch it is dead-lettered as too_large"),
    key("gateway.batch_events_max", "most events in one batch; beyond it the answer is 400 too_many_events"),
    key(
        "gateway.inflight_bytes_max",
        "bytes of requests being worked on, a quarter of them without a key in the head; beyond it the answer is 429 with Retry-After",
    ),
    key("gateway.connections_max", "open connections; the next one is answered 429 and closed"),
    key("gateway.headers_max", "headers of one request; beyond it the answer is 431"),
    key("gateway.head_bytes_max", "bytes of one request's head"),
    key("gateway.head_timeout_ms", "a client that has not sent its head by then is disconnected"),
    key("gateway.body_timeout_ms", "a client that has not sent its body by then is disconnected, and will send again"),
    key("gateway.write_timeout_ms", "a client that has not read its answer by then is disconnected"),
    key("gateway.idle_timeout_ms", "an open connection that is silent for this long is closed"),
    key("gateway.commit_timeout_ms", "an append that is not durable by then is answered 503, to be sent again"),
    key("gateway.drain_notice_ms", "how long /readyz says no before a stopping server stops listening"),
    key("gateway.drain_timeout_ms", "how long a stop then waits for requests under way"),
    key("gateway.tenant_requests_per_s", "requests a second per tenant before 429; 0 is no limit"),
    key("gateway.tenant_burst", "requests that a tenant may make at once after a quiet time"),
    key("gateway.historical_lag_ms_max", "historical imports get 429 while intake lags more than this"),
    key("gateway.trust_forwarded_for", "believe X-Forwarded-For; only behind a proxy that sets it"),
    key("gateway.realtime_connections_max", "open /ws/realtime connections; the next one is answered 429"),
    key("gateway.realtime_behind_max", "records that a /ws/realtime client may fall behind before it is told so and cut"),
    key("gateway.realtime_ping_ms", "how often a /ws/realtime client is pinged; one that stays silent is cut at the third"),
    key("gateway.public_url", "URL that browser SDKs are told to send to; empty takes the request's Host"),
    key("log.wal_bytes", "size at which the write-ahead file is sorted into segments"),
    key("log.tail_bytes_max", "newest records kept in memory for readers that keep up, over all partitions"),
    key("log.queue_bytes_max", "bytes waiting to be written; beyond it appends are refused with 429"),
    key("log.clean_interval_s", "how often retention and compaction run"),
    key("state.backend", "where the folds keep their states: fjall (in the data folder) or cassandra (shared by many processes)"),
    key("state.block_cache_bytes", "disk blocks kept in memory for states that fell out of the folds' caches"),
    key("state.memtable_bytes", "writes of one table held in memory before they become a file"),
    key("state.worker_threads", "threads that write state files and merge them"),
    key("cassandra.nodes", "nodes of Cassandra or Scylla, host:port each; a few are enough, the others are found"),
    key("cassandra.keyspace", "keyspace of the states; one for each Flywheel, which nothing else uses"),
    key("cassandra.user", "login; empty where the cluster asks for none"),
    key("cassandra.password", "the login's password"),
    key("cassandra.create_keyspace", "make the keyspace and its tables if they are not there"),
    key("cassandra.replication_factor", "copies of each state in a keyspace that is made; an existing one keeps its own"),
    key(
        "cassandra.datacenter",
        "datacenter whose nodes are asked and which holds the copies of a keyspace that is made; empty asks all nodes",
    ),
    key("cassandra.tls_ca", "PEM file of the authorities that vouch for the nodes; empty speaks without TLS"),
    key("cassandra.request_timeout_ms", "longest that one request may take; what did not fit is tried again"),
    key("cassandra.in_flight_max", "requests under way at once, over all partitions"),
    key("stream.threads", "threads that the partitions of a stage are spread over; 0 is one per core"),
    key("stream.fetch_bytes_max", "bytes per fetch, and so about the size of a commit under load"),
    key("stream.output_bytes_max", "a commit is cut when it has made this much"),
    key("stream.tick_interval_ms", "how often time is passed on to the profile fold (wall-clock namespaces)"),
    key("stream.tick_idle_interval_ms", "the same while nothing comes and nobody is due"),
    key("stream.linger_ms", "under light load a commit waits this long for company"),
    key("stream.linger_bytes", "a batch of at least this much does not wait"),
    key("stream.flush_age_ms_max", "longest that changed state stays unflushed; a restart re-reads about this much"),
    key("stream.flush_bytes_max", "most changed state that stays unflushed, per partition"),
    key("stream.cache_bytes_max", "memory for states, per partition; the rest is on disk"),
    key("stream.wakes_per_commit_max", "wake-ups that one commit holds"),
    key("stream.retry_pause_ms", "pause between attempts to commit while the disk is full"),
    key("stream.rebuild_state", "build all states anew from the log at start, whatever is stored"),
    key(
        "inbox.partitions",
        "partitions of the topic `inbox` of each wall-clock namespace, to which foreign producers publish; 0 is none; fixed once it exists",
    ),
    key("inbox.tenant", "whose a record of the inbox is that names no tenant in its headers; empty: it is a dead letter"),
    key("inbox.source", "the source of a record of the inbox that names none in its headers"),
    key("inbox.format", "json, avro (Confluent wire format), or auto: avro where the value begins with a zero byte"),
    key(
        "registry.url",
        "Confluent-compatible schema registry in which schemas of Avro values are looked up; empty is our own (docs/kafka-producers.md)",
    ),
    key("registry.user", "user name for that registry; empty sends none"),
    key("registry.password", "its password"),
    key("registry.timeout_ms", "a question to it that takes longer has failed and is asked again"),
    key("topology.default", "topology of namespaces that name none: a shipped one's name or a file"),
    key("topology.partitions", "partitions of each topic of a new namespace; fixed once it exists"),
    key(
        "policy.default",
        "policy file (purposes, caps, quiet hours, approval rules) of namespaces that name none; empty leaves what is in force: what was published, else the shipped one",
    ),
    key("read.query_timeout_ms", "longest that one `flywheel query` may run"),
    key("read.query_rows_max", "most rows one query returns"),
    key("observe.log_level", "error, warn, info, debug or trace, or a tracing filter such as flywheel::log=debug"),
    key("observe.log_json", "one JSON object per log line instead of text"),
    key(
        "links.base_url",
        "scheme and host that links in messages and to approvals begin with, such as https://go.example.com; empty is gateway.public_url, else the address served on",
    ),
    key(
        "links.keys",
        "what links are signed with: a list of {id, key}, the first one signs; none means one made once and kept in the data folder",
    ),
    key("effects.enabled", "perform what workflows ask for; switched off, it is kept until it is switched on again"),
    key("effects.in_flight_per_tenant", "attempts of one tenant at once, those that wait for a permit included"),
    key("effects.agents", "attempts of one agent at once and begun a second (0: no limit)"),
    key("effects.channels", "messages of one channel sent at once and begun a second"),
    key("effects.webhooks", "attempts of one webhook at once and begun a second"),
    key(
        "effects.workers",
        "HTTP workers, each in place of the agent of its name: tables [effects.workers.NAME] of url, token, concurrency, per_second",
    ),
    key(
        "effects.breaker",
        "when nothing more is sent to a destination for a while: failures in a row, percent of the last 32, and for how long, doubled up to the most",
    ),
    key("effects.threads", "threads for performers that wait for others"),
    key(
        "effects.notify",
        "a webhook of channels.webhooks that hears when an effect is given up and its workflow says that someone is to know",
    ),
    key(
        "effects.drain_ms",
        "how long a stop waits for attempts under way; what takes longer is cut off, and looked up or tried again after the start",
    ),
    key("effects.request_bytes_max", "requests kept in memory, per namespace; the rest is on disk until its turn comes"),
    key("effects.flush_age_ms_max", "longest that pending effects stay unstored; a restart re-reads about this much of the journal"),
    key("effects.flush_bytes_max", "most changed pending effects that stay unstored"),
    key("channels.templates", "folder of message templates, NAME.toml each, which go before the shipped ones"),
    key(
        "channels.bots",
        "rules by which machines that fetch tracking links are told from people: a file like src/channels/bots.toml, in its place",
    ),
    key(
        "channels.email",
        "mail: from, reply_to, bounces, track, without_unsubscribe, and outbox (a folder; empty is one in the data folder) or smtp",
    ),
    key("channels.webhooks", "receivers of webhooks: tables [channels.webhooks.NAME] of url, secrets, private"),
    key(
        "sources",
        "who may send: a list of {name, write_key, tenant, namespace, disabled}; none means the development key, on loopback only",
    ),
    key(
        "api_keys",
        "who may read profiles and state times: a list of {api_key, tenant, namespace}; none means this machine only, and without `sources` only",
    ),
    key("namespaces", "worlds besides `main`: a list of {name, clock = \"wall\" | \"event\", topology, policy, partitions, inbox}"),
];
