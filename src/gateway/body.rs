//! Takes a request's body in: capped as sent and again as it is decompressed, within one budget for all requests together.
//!
//! Only bytes that have come are counted: what a client announces costs it nothing. Bodies of senders that no key in the head speaks for
//! may hold a share of the budget only, so that they never keep out those that have one.
//!
//! A body that is refused is still read to its end (and thrown away), up to a bound: closing a socket with unread bytes resets it, the
//! client never sees the answer and sends the same again.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt;
use hyper::body::Body as _;

use super::reply::Refusal;
use super::watch::{Phase, Watched};

/// How much of a refused body is read and thrown away before the connection is closed on the client.
const DRAIN_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Decompression takes memory in steps of this.
const GUNZIP_STEP_BYTES: usize = 64 * 1024;

/// Of the budget, what bodies without a key in the head may hold together: one part of so many.
const STRANGERS_PART: usize = 4;

/// Bytes of request bodies that may be held at once.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    max: usize,
    /// The part of `used` that nobody's key speaks for yet.
    by_strangers: AtomicUsize,
    strangers_max: usize,
}

/// Whether a known key came in a request's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Known,
    Stranger,
}

impl Budget {
    /// `body_max` is the largest body, which always has a place.
    pub(super) fn new(max: usize, body_max: usize) -> Arc<Self> {
        let strangers_max = (max / STRANGERS_PART).max(body_max);
        Arc::new(Self { used: AtomicUsize::new(0), max, by_strangers: AtomicUsize::new(0), strangers_max })
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn reserve(self: &Arc<Self>, sender: Sender) -> Reserved {
        Reserved { budget: self.clone(), bytes: 0, is_stranger: sender == Sender::Stranger }
    }
}

/// Adds within a bound, or leaves it.
fn add(used: &AtomicUsize, bytes: usize, max: usize) -> Result<(), Refusal> {
    let before = used.fetch_add(bytes, Ordering::Relaxed);
    if before + bytes > max {
        used.fetch_sub(bytes, Ordering::Relaxed);
        return Err(Refusal::Overloaded);
    }
    Ok(())
}

/// What one request holds of the budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    budget: Arc<Budget>,
    bytes: usize,
    is_stranger: bool,
}

impl Reserved {
    fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let budget = &self.budget;
        add(&budget.used, bytes, budget.max)?;
        if self.is_stranger
            && let Err(refusal) = add(&budget.by_strangers, bytes, budget.strangers_max)
        {
            budget.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(refusal);
        }
        self.bytes += bytes;
        Ok(())
    }

    /// The body had a known key: from here on it is held like any other.
    pub(super) fn introduce(&mut self) {
        if std::mem::take(&mut self.is_stranger) {
            self.budget.by_strangers.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.introduce();
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads the body as it was sent. From its end on the client waits for us.
pub(super) async fn read(mut body: Body, max: usize, reserved: &mut Reserved, watched: &Watched) -> Result<Bytes, Refusal> {
    let announced = body.size_hint().lower();
    if announced > max as u64 {
        drain(&mut body, 0).await;
        return Err(Refusal::BodyTooLarge { max });
    }
    let announced = announced as usize;
    let mut whole: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    let mut len = 0;
    while let Some(data) = next(&mut body).await? {
        len += data.len();
        let admitted = if len > max { Err(Refusal::BodyTooLarge { max }) } else { reserved.grow(data.len()) };
        or_drain(admitted, &mut body, len).await?;
        // Most bodies are one frame: then nothing is copied.
        match whole.take() {
            None if joined.is_empty() => whole = Some(data),
            None => join(&mut joined, &data, announced),
            Some(first) => {
                join(&mut joined, &first, announced);
                join(&mut joined, &data, announced);
            }
        }
    }
    watched.enter(Phase::Serving);
    Ok(whole.unwrap_or_else(|| joined.freeze()))
}

/// Reads the beginning of a body that is as long as it likes: of the rest nothing is kept.
pub(super) async fn read_start(mut body: Body, max: usize, reserved: &mut Reserved, watched: &Watched) -> Result<Bytes, Refusal> {
    let mut start = BytesMut::new();
    let mut len = 0;
    while let Some(data) = next(&mut body).await? {
        len += data.len();
        let kept = &data[..data.len().min(max - start.len())];
        or_drain(reserved.grow(kept.len()), &mut body, len).await?;
        join(&mut start, kept, max);
        if len > DRAIN_BYTES_MAX {
            return Err(Refusal::BodyTooLarge { max: DRAIN_BYTES_MAX });
        }
    }
    watched.enter(Phase::Serving);
    Ok(start.freeze())
}

/// What comes next of a body; none at its end.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Refusal> {
    let Some(frame) = body.frame().await else { return Ok(None) };
    match frame.map_err(drop).and_then(|frame| frame.into_data().map_err(drop)) {
        Ok(data) => Ok(Some(data)),
        // Trailers.
        Err(()) if body.is_end_stream() => Ok(None),
        Err(()) => Err(Refusal::BodyIncomplete),
    }
}

/// A refusal leaves nothing unread.
async fn or_drain(admitted: Result<(), Refusal>, body: &mut Body, seen: usize) -> Result<(), Refusal> {
    if admitted.is_err() {
        drain(body, seen).await;
    }
    admitted
}

/// Doubles the room when it is used up, but takes no more than what is announced: memory follows what has come.
fn join(joined: &mut BytesMut, data: &[u8], announced: usize) {
    if joined.capacity() - joined.len() < data.len() {
        let doubled = joined.len().min(announced.saturating_sub(joined.len()));
        joined.reserve(doubled.max(data.len()));
    }
    joined.extend_from_slice(data);
}

/// Throws a body away whose head was refused.
pub(super) async fn discard(mut body: Body) {
    drain(&mut body, 0).await;
}

async fn drain(body: &mut Body, mut seen: usize) {
    while seen < DRAIN_BYTES_MAX {
        match body.frame().await {
            Some(Ok(frame)) => seen += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => return,
        }
    }
}

/// Undoes the Content-Encoding. A body that says nothing but begins as gzip does is taken as gzip: no JSON begins so.
pub(super) fn decode(headers: &HeaderMap, sent: Bytes, max: usize, reserved: &mut Reserved) -> Result<Bytes, Refusal> {
    let encoding = match headers.get(header::CONTENT_ENCODING) {
        Some(value) => value.to_str().unwrap_or("?").trim(),
        None => "",
    };
    let is_gzip = encoding.eq_ignore_ascii_case("gzip") || encoding.eq_ignore_ascii_case("x-gzip");
    if !is_gzip && !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        return Err(Refusal::UnsupportedEncoding(encoding.chars().take(32).collect()));
    }
    if is_gzip || sent.starts_with(&[0x1f, 0x8b]) { gunzip(&sent, max, reserved).map(Bytes::from) } else { Ok(sent) }
}

/// Decompresses step by step, so that a bomb is caught after `max` bytes whatever its trailer claims.
fn gunzip(sent: &[u8], max: usize, reserved: &mut Reserved) -> Result<Vec<u8>, Refusal> {
    let mut decoder = MultiGzDecoder::new(sent);
    let mut out = Vec::new();
    loop {
        let len = out.len();
        if len > max {
            return Err(Refusal::BodyTooLarge { max });
        }
        let step = GUNZIP_STEP_BYTES.min(max + 1 - len).max(1);
        if out.capacity() - len < step {
            let grown = out.capacity().max(step);
            reserved.grow(grown)?;
            out.reserve_exact(grown);
        }
        out.resize(len + step, 0);
        match decoder.read(&mut out[len..]) {
            Ok(0) => {
                out.truncate(len);
                return Ok(out);
            }
            Ok(read) => out.truncate(len + read),
            Err(_) => return Err(Refusal::InvalidGzip),
        }
    }
}
