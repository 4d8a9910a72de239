//! What the gateway is told: its limits, and whom each key stands for.
//!
//! Values only; `config` reads them from files and the environment. Every limit is here so that nothing in the gateway is unbounded.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::{Namespace, SourceId, TenantId};

/// The part of [`crate::log::RECORD_BYTES_MAX`] that a record needs besides the event's body and its batch's context.
const RECORD_ROOM_BYTES: usize = 32 * 1024;

/// The most of one event's JSON that a record holds. A longer one is cut here and dead-lettered as too large by intake, whose own bound
/// (`event_bytes_max`) is below this, so that the rest of its batch is not lost with it.
pub const BODY_BYTES_MAX: usize = crate::log::RECORD_BYTES_MAX - RECORD_ROOM_BYTES;

/// Limits and habits of the HTTP server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The largest request body, both as sent and after decompression. RudderStack clients send up to 4 MiB.
    pub body_bytes_max: usize,
    /// The largest single event on the single-event routes; in a batch the event is dead-lettered instead. Segment documents 32 KiB.
    pub event_bytes_max: usize,
    /// The most events in one batch. Segment documents 2,500.
    pub batch_events_max: usize,
    /// The most bytes of request bodies held at once, as they arrive; past it requests are answered 429. Bodies without a known key in the
    /// head hold at most a quarter of it, or one body.
    pub inflight_bytes_max: usize,
    /// The most open connections; past it new ones are answered 429 and closed.
    pub connections_max: usize,
    /// The most headers of a request; more are answered 431.
    pub headers_max: usize,
    /// The most bytes of a request's head.
    pub head_bytes_max: usize,
    /// How long a request's head may take to arrive, from its first byte, in milliseconds.
    pub head_timeout_ms: u64,
    /// How long a request's body may take to arrive, in milliseconds.
    pub body_timeout_ms: u64,
    /// How long a client may take to read its answer, in milliseconds.
    pub write_timeout_ms: u64,
    /// How long an open connection may stay silent between requests, in milliseconds.
    pub idle_timeout_ms: u64,
    /// How long an append may take to become durable before the client is told to come again, in milliseconds.
    pub commit_timeout_ms: u64,
    /// How long `/readyz` says no before the listener closes, in milliseconds, so that load balancers look away first.
    pub drain_notice_ms: u64,
    /// How long requests in progress may take after that, in milliseconds.
    pub drain_timeout_ms: u64,
    /// Requests a second that one tenant may make; 0 is without a limit.
    pub tenant_requests_per_s: u32,
    /// Requests that a tenant may make at once after a quiet time.
    pub tenant_burst: u32,
    /// Historical imports are admitted only while intake lags less than this, in milliseconds.
    pub historical_lag_ms_max: u64,
    /// Believe the first address of `X-Forwarded-For`. Only behind a proxy that sets it.
    pub trust_forwarded_for: bool,
    /// The most open `/ws/realtime` connections; past it new ones are answered 429.
    pub realtime_connections_max: usize,
    /// A `/ws/realtime` client that has fallen behind by more records than this is told so and cut.
    pub realtime_behind_max: u64,
    /// How often a `/ws/realtime` client is pinged, in milliseconds; one that answers two of them with silence is cut.
    pub realtime_ping_ms: u64,
    /// The URL that browser SDKs shall send to, such as `https://events.example.com`; empty takes the request's own `Host`.
    pub public_url: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            body_bytes_max: 5 * 1024 * 1024,
            event_bytes_max: 512 * 1024,
            batch_events_max: 10_000,
            inflight_bytes_max: 128 * 1024 * 1024,
            connections_max: 10_000,
            headers_max: 100,
            head_bytes_max: 32 * 1024,
            head_timeout_ms: 10_000,
            body_timeout_ms: 30_000,
            write_timeout_ms: 10_000,
            idle_timeout_ms: 75_000,
            commit_timeout_ms: 10_000,
            drain_notice_ms: 0,
            drain_timeout_ms: 15_000,
            tenant_requests_per_s: 0,
            tenant_burst: 1_000,
            historical_lag_ms_max: 5_000,
            trust_forwarded_for: false,
            realtime_connections_max: 1_000,
            realtime_behind_max: 100_000,
            realtime_ping_ms: 20_000,
            public_url: String::new(),
        }
    }
}

impl Options {
    /// Says what cannot work, so that a wrong setting is refused at start and not found under load.
    pub fn check(&self) -> Result<(), super::Error> {
        let wrong = |what: &str| Err(super::Error::Options(what.to_owned()));
        if self.event_bytes_max > self.body_bytes_max {
            return wrong("event_bytes_max is larger than body_bytes_max: no such event could arrive");
        }
        if self.event_bytes_max > BODY_BYTES_MAX {
            return wrong("event_bytes_max is larger than a record of the log may be (about 967,000 bytes)");
        }
        if self.inflight_bytes_max < self.body_bytes_max {
            return wrong("inflight_bytes_max is smaller than body_bytes_max: such a body could never be admitted");
        }
        if self.headers_max == 0 || self.connections_max == 0 || self.batch_events_max == 0 {
            return wrong("headers_max, connections_max and batch_events_max are at least 1");
        }
        Ok(())
    }

    pub(super) fn commit_timeout(&self) -> Duration {
        Duration::from_millis(self.commit_timeout_ms)
    }
}

/// Whose events come in under a write key, and where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub tenant: TenantId,
    pub namespace: Namespace,
    pub source: SourceId,
    /// Its events are refused with 404, as RudderStack does.
    pub disabled: bool,
}

/// Whose data an API key may read and whose time it may state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    pub tenant: TenantId,
    pub namespace: Namespace,
}

/// Every key the gateway knows, and every namespace.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// By write key. Write keys are public: browsers carry them. They can only add events.
    pub write_keys: BTreeMap<String, Source>,
    /// By API key. Secret.
    pub api_keys: BTreeMap<String, Access>,
    /// The token of the data folder's owner, who may read and do everything of every tenant, from this machine only.
    pub owner: Option<Owner>,
    /// What the machine itself may read without a key, and the importer's API with it, while there are no API keys. Only for a server that
    /// nobody has set up yet: behind a proxy on the same machine everybody's requests look like its own.
    pub keyless: Option<Access>,
    /// Every namespace, and whether its clock is event time: an importer states the time there.
    pub namespaces: BTreeMap<Namespace, Clocked>,
}

/// What the owner of the data folder proves to be one with.
#[derive(Clone)]
pub struct Owner {
    pub token: String,
    /// The address that the server listens on: a process of this machine that connects to it comes from there.
    pub listening: IpAddr,
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Owner(of {})", self.listening)
    }
}

/// Which clock a namespace runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clocked {
    Wall,
    Event,
}
