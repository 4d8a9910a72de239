//! The edge: takes events over HTTP from unmodified Segment and RudderStack SDKs, answers once they are durable, and serves what is read.
//!
//! Owns the server, the wire contract, keys, limits and readiness. Leaves every judgement of an event to `intake`: what arrives goes into
//! the log as it arrived. Reads come from the app through [`ProfileReader`]; nothing here knows a read model or a concrete log.
//!
//! Invariants: an answer of 200 leaves only after the log's ticket resolved; no body, batch, connection or wait is without a bound; a
//! request is refused with 4xx only if it must never come again, because no client sends it again.

mod options;
mod server;

mod api;
mod browser;
mod campaigns;
mod health;
mod mailed;
mod openapi;
mod pixel;
mod port;
mod realtime;
mod registry;
mod routes;
mod sdk;
mod suppressions;

mod auth;
mod body;
mod cors;
mod ingest;
mod metrics;
mod query;
mod refusals;
mod reply;
mod request_id;
mod watch;
mod worlds;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics_exporter_prometheus::PrometheusHandle;

use crate::domain::{Namespace, Subject, TenantId};
use crate::env::Clock;
use crate::limits::Limits;
use crate::log::{self, LogWriter, TopicName};
pub use health::Reason;
pub use openapi::openapi;
pub use options::{Access, BODY_BYTES_MAX, Clocked, Options, Owner, Source, Sources};
pub use port::{
    ApprovalFound, ApprovalsAsked, Asking, Campaigns, Choice, Decided, EffectFound, InUse, Links, NameTaken, PolicyFound, Preference,
    Preview, Publishing, Question, RunFound, RunsAsked, RunsPage, SuppressionFound, SuppressionsAsked, SuppressionsPage, WorkflowFound,
    WorkflowText,
};
use reply::whole_seconds;
pub use server::{peer_ip, serve};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("gateway options: {0}")]
    Options(String),
    #[error("topic {0} does not exist; create a namespace's topics before serving it")]
    NoIntake(TopicName),
    #[error("a write key names the namespace {0}, which is not configured")]
    NoNamespace(Namespace),
    #[error(transparent)]
    Log(#[from] log::Error),
    #[error("the listener: {0}")]
    Listen(std::io::Error),
}

/// Everything the gateway works with, handed in by the app.
pub struct App {
    pub log: Arc<dyn LogWriter>,
    pub clock: Arc<dyn Clock>,
    pub profiles: Arc<dyn ProfileReader>,
    pub campaigns: Arc<dyn Campaigns>,
    pub links: Links,
    pub readiness: Arc<dyn Readiness>,
    pub metrics: Option<PrometheusHandle>,
    pub sources: Sources,
    pub options: Options,
    /// How many requests each tenant may make.
    pub limits: Arc<Limits>,
    /// False where events and requests are taken elsewhere: then only health and metrics are here.
    pub takes_requests: bool,
    /// Routes of the app's own, such as its admin API; they bring their own authentication.
    pub extra: Option<axum::Router>,
}

/// A profile as JSON text, `None` if there is none, or why it could not be read.
pub type ProfileAnswer<'a> = Pin<Box<dyn Future<Output = Result<Option<String>, ReadError>> + Send + 'a>>;

/// Why a read model gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("there is no read model yet; it is being made")]
    NotYet,
    #[error("{0}")]
    Failed(String),
}

/// Reads one person's profile from a read model.
pub trait ProfileReader: Send + Sync {
    fn profile<'a>(&'a self, namespace: &'a Namespace, tenant: &'a TenantId, subject: &'a Subject) -> ProfileAnswer<'a>;
}

/// What the rest of the process says about itself.
pub trait Readiness: Send + Sync {
    /// Why an event sent now would not be kept; empty when it would.
    fn not_ready(&self) -> Vec<Reason>;

    /// What is late, starting or being rebuilt while events are kept all the same.
    fn degraded(&self) -> Vec<Reason>;

    /// How far intake of a namespace is behind its log, in milliseconds.
    fn intake_lag_ms(&self, namespace: &Namespace) -> u64;
}

/// The state that every request shares.
struct Gateway {
    app: App,
    keys: auth::Keys,
    worlds: BTreeMap<Namespace, worlds::World>,
    registries: registry::Registries,
    budget: Arc<body::Budget>,
    refusals: Arc<refusals::Refusals>,
    metrics: metrics::Metrics,
    draining: AtomicBool,
    /// Told once requests are no longer taken: watchers leave then.
    closing: tokio::sync::watch::Sender<bool>,
    pulses: realtime::Pulses,
    /// Places for watchers.
    watchers: Arc<tokio::sync::Semaphore>,
}

type Shared = Arc<Gateway>;

impl Gateway {
    fn new(app: App) -> Result<Self, Error> {
        app.options.check()?;
        Ok(Self {
            keys: auth::Keys::resolve(&app.sources, &*app.log)?,
            worlds: worlds::resolve(&app.sources, &*app.log)?,
            registries: registry::resolve(&app.sources, &*app.log)?,
            budget: body::Budget::new(app.options.inflight_bytes_max, app.options.body_bytes_max),
            refusals: Arc::default(),
            metrics: metrics::Metrics::new(),
            draining: AtomicBool::new(false),
            closing: tokio::sync::watch::channel(false).0,
            pulses: realtime::Pulses::default(),
            watchers: Arc::new(tokio::sync::Semaphore::new(app.options.realtime_connections_max)),
            app,
        })
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
