//! Ends connections that take too long: heads that trickle in, bodies that stop half-way, answers nobody reads, silence between requests.
//!
//! Each connection says in one atomic word which phase it is in and since which tick; one task counts the ticks and looks at all of them.
//! So a request costs a few relaxed stores and no timer of its own, and nothing that a client does can keep its connection for longer
//! than the phase allows.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::options::Options;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The client to begin a request.
    Idle,
    /// The rest of a request's head.
    Head,
    /// The rest of a request's body.
    Body,
    /// Us.
    Serving,
    /// The client to read its answer.
    Writing,
}

const PHASES: [Phase; 5] = [Phase::Idle, Phase::Head, Phase::Body, Phase::Serving, Phase::Writing];

impl Phase {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Phase::Idle => "idle",
            Phase::Head => "head",
            Phase::Body => "body",
            Phase::Serving => "serving",
            Phase::Writing => "writing",
        }
    }
}

/// One connection as the watchdog sees it: the phase in the low three bits, the tick it began at above.
#[derive(Debug)]
pub(super) struct Watched {
    word: AtomicU64,
    clock: Arc<AtomicU64>,
    expired: Notify,
}

impl Watched {
    pub(super) fn enter(&self, phase: Phase) {
        let tick = self.clock.load(Ordering::Relaxed);
        self.word.store(tick << 3 | phase as u64, Ordering::Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        PHASES[(self.word.load(Ordering::Relaxed) & 7) as usize]
    }

    /// Resolves once the connection has overstayed.
    pub(super) async fn expired(&self) {
        self.expired.notified().await;
    }
}

/// The task's shared half: the tick counter and the connections.
#[derive(Debug)]
pub(super) struct Watchdog {
    clock: Arc<AtomicU64>,
    connections: Mutex<Vec<Weak<Watched>>>,
    tick: Duration,
    /// How many ticks each phase may last.
    allowed: [u64; 5],
}

impl Watchdog {
    pub(super) fn new(options: &Options) -> Self {
        let timeouts = [options.idle_timeout_ms, options.head_timeout_ms, options.body_timeout_ms, options.write_timeout_ms];
        // Fine enough to be at most a quarter late, coarse enough to cost nothing.
        let tick_ms = (timeouts.iter().min().expect("four") / 4).clamp(5, 1_000);
        let ticks = |ms: u64| ms.div_ceil(tick_ms).max(1);
        let [idle, head, body, writing] = timeouts.map(ticks);
        Self {
            clock: Arc::default(),
            connections: Mutex::default(),
            tick: Duration::from_millis(tick_ms),
            allowed: [idle, head, body, u64::MAX, writing],
        }
    }

    /// Begins to watch a connection, which has yet to send anything.
    pub(super) fn watch(&self) -> Arc<Watched> {
        let watched = Arc::new(Watched { word: AtomicU64::new(0), clock: self.clock.clone(), expired: Notify::new() });
        // Until its first byte a new connection has only as long as a head may take: half-open ones must not linger.
        watched.enter(Phase::Head);
        self.connections.lock().push(Arc::downgrade(&watched));
        watched
    }

    /// Counts ticks and ends what overstays, for ever.
    pub(super) async fn run(&self) {
        let mut interval = tokio::time::interval(self.tick);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let now = self.clock.fetch_add(1, Ordering::Relaxed) + 1;
            self.connections.lock().retain(|connection| {
                let Some(connection) = connection.upgrade() else { return false };
                let word = connection.word.load(Ordering::Relaxed);
                let allowed = self.allowed[(word & 7) as usize];
                if now.saturating_sub(word >> 3) > allowed {
                    connection.expired.notify_one();
                }
                true
            });
        }
    }
}

/// A socket that tells the watchdog what it sees: the first byte of a head, the last byte of an answer.
pub(super) struct WatchedStream<S> {
    pub(super) stream: S,
    pub(super) watched: Arc<Watched>,
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before && self.watched.phase() == Phase::Idle {
            self.watched.enter(Phase::Head);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if polled.is_ready() && self.watched.phase() == Phase::Writing {
            self.watched.enter(Phase::Idle);
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}
