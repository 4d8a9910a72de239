//! What comes of records handed in: delivery reports, gathered per append.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rdkafka::bindings as sys;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::client::{Complaints, Context, trace};
use crate::domain::{Millis, Offset};
use crate::log::Appended;

type Done = Box<dyn FnOnce(&Append) + Send>;

/// One append under way: so many records in so many batches.
pub(super) struct Append {
    left: AtomicUsize,
    append_time: AtomicI64,
    batches: Vec<Bounds>,
    failure: Mutex<Option<Code>>,
    /// Called once, with the last report.
    done: Mutex<Option<Done>>,
}

struct Bounds {
    first: AtomicU64,
    end: AtomicU64,
}

/// A batch of an append, as its records name it.
pub(super) struct Part {
    append: Arc<Append>,
    batch: usize,
}

impl Append {
    /// With so many records in each batch; `done` hears when all of them were reported.
    pub(super) fn new(records: usize, batches: usize, done: impl FnOnce(&Append) + Send + 'static) -> Arc<Self> {
        let bounds = || Bounds { first: AtomicU64::new(u64::MAX), end: AtomicU64::new(0) };
        Arc::new(Self {
            left: AtomicUsize::new(records),
            append_time: AtomicI64::new(0),
            batches: std::iter::repeat_with(bounds).take(batches).collect(),
            failure: Mutex::new(None),
            done: Mutex::new(Some(Box::new(done))),
        })
    }

    pub(super) fn part(self: &Arc<Self>, batch: usize) -> Arc<Part> {
        Arc::new(Part { append: Arc::clone(self), batch })
    }

    /// So many records were never handed in, for this reason.
    pub(super) fn refuse(&self, records: usize, code: Code) {
        self.failure.lock().get_or_insert(code);
        self.reported(records);
    }

    fn reported(&self, records: usize) {
        if self.left.fetch_sub(records, Ordering::AcqRel) == records
            && let Some(done) = self.done.lock().take()
        {
            done(self);
        }
    }

    /// All were handed in that will be: the last word may be theirs or this.
    pub(super) fn handed_in(&self) {
        self.reported(1);
    }

    pub(super) fn failure(&self) -> Option<Code> {
        *self.failure.lock()
    }

    /// One past the last record of each batch.
    pub(super) fn ends(&self) -> impl Iterator<Item = Offset> + '_ {
        self.batches.iter().map(|bounds| Offset(bounds.end.load(Ordering::Acquire)))
    }

    pub(super) fn appended(&self) -> Appended {
        let first = |bounds: &Bounds| Offset(bounds.first.load(Ordering::Acquire));
        Appended { first_offsets: self.batches.iter().map(first).collect(), append_time: Millis(self.append_time.load(Ordering::Acquire)) }
    }
}

impl Part {
    fn delivered(&self, offset: u64, append_time: i64) {
        let bounds = &self.append.batches[self.batch];
        bounds.first.fetch_min(offset, Ordering::AcqRel);
        bounds.end.fetch_max(offset + 1, Ordering::AcqRel);
        self.append.append_time.fetch_max(append_time, Ordering::AcqRel);
        self.append.reported(1);
    }

    fn failed(&self, code: Code) {
        self.append.refuse(1, code);
    }
}

/// A producer's callbacks.
pub(super) struct Reports(Context);

impl Reports {
    pub(super) fn new(complaints: &Complaints) -> Self {
        Self(Context::new(complaints))
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        trace(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.note(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Part>;

    fn delivery(&self, result: &DeliveryResult<'_>, part: Arc<Part>) {
        match result {
            Ok(message) => part.delivered(message.offset() as u64, message.timestamp().to_millis().unwrap_or(0)),
            Err((error, _)) => part.failed(error.rdkafka_error_code().unwrap_or(Code::Unknown)),
        }
    }
}

/// The part as a record's opaque value carries it: a reference of its own, given back by [`taken_back`] or with the delivery report.
pub(super) fn opaque(part: &Arc<Part>) -> usize {
    Arc::into_raw(Arc::clone(part)) as usize
}

/// Gives back the reference of a record that was not taken.
pub(super) fn taken_back(opaque: usize) {
    // SAFETY: made by `opaque` a moment ago, and no delivery report will come for it.
    drop(unsafe { Arc::from_raw(opaque as *const Part) });
}

/// Whether a producer that met this is of no more use.
pub(super) fn is_fatal(producer: *mut sys::rd_kafka_t) -> bool {
    // SAFETY: the client is alive; no text is asked for.
    unsafe { sys::rd_kafka_fatal_error(producer, std::ptr::null_mut(), 0) != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR }
}
