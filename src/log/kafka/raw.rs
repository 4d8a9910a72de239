//! The few calls of librdkafka that its Rust crate does not have: reading a partition in batches into its own queue, with the offset at
//! which a partition ended, and handing in a record without allocating for it.
//!
//! All of this module's `unsafe` is here. What is safe to know: a [`Stream`] and a [`Topic`] keep their client alive, a queue's callback
//! keeps what it notifies alive, and messages do not outlive the call that reads them.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

use super::client::Context;
use crate::domain::Millis;
use crate::log::{HeaderList, RecordRef};

/// The header in which a record's own timestamp travels; the message's is the broker's append time.
const TIMESTAMP_HEADER: &std::ffi::CStr = c"fw-t";

/// Rises whenever any watched queue may have something new.
#[derive(Debug, Default)]
pub(super) struct Signal {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Signal {
    pub(super) fn seen(&self) -> u64 {
        *self.count.lock()
    }

    pub(super) fn raise(&self) {
        *self.count.lock() += 1;
        self.changed.notify_all();
    }

    /// Blocks until it was raised since `seen`, or the time is up.
    pub(super) fn wait(&self, seen: u64, at_most: Duration) {
        let mut count = self.count.lock();
        if *count == seen {
            self.changed.wait_for(&mut count, at_most);
        }
    }
}

/// One partition read from an offset on, into a queue of its own.
pub(super) struct Stream {
    topic: *mut sys::rd_kafka_topic_t,
    queue: *mut sys::rd_kafka_queue_t,
    partition: i32,
    // Dropped after the raw parts above: `drop` of the struct runs before that of its fields.
    _signal: Arc<Signal>,
    _client: Arc<BaseConsumer<Context>>,
}

// SAFETY: librdkafka's objects may be used from any thread; the stream itself is used behind a lock.
unsafe impl Send for Stream {}

/// A message, or what was found in its place.
pub(super) enum Item<'a> {
    Message {
        offset: u64,
        append_time: i64,
        timestamp: Option<i64>,
        key: &'a [u8],
        value: Option<&'a [u8]>,
        headers: &'a HeaderList,
    },
    /// Everything below this offset that can be read has been.
    End(u64),
    Error(Code),
}

unsafe extern "C" fn raise(_: *mut sys::rd_kafka_t, signal: *mut c_void) {
    // SAFETY: the pointer is that of the `Arc<Signal>` which the stream holds for as long as its callback is set.
    let signal = unsafe { &*signal.cast::<Signal>() };
    signal.raise();
}

impl Stream {
    /// Begins to read ahead at `offset`; `None` if librdkafka has no room for it.
    pub(super) fn start(
        client: &Arc<BaseConsumer<Context>>,
        topic: &str,
        partition: i32,
        offset: u64,
        signal: &Arc<Signal>,
    ) -> Option<Self> {
        let name = CString::new(topic).ok()?;
        let native = client.client().native_ptr();
        // SAFETY: the client outlives the topic and the queue, both are destroyed by `drop`; the callback's pointer is kept alive.
        unsafe {
            let topic = sys::rd_kafka_topic_new(native, name.as_ptr(), ptr::null_mut());
            if topic.is_null() {
                return None;
            }
            let queue = sys::rd_kafka_queue_new(native);
            sys::rd_kafka_queue_cb_event_enable(queue, Some(raise), Arc::as_ptr(signal).cast_mut().cast());
            let stream = Self { topic, queue, partition, _signal: Arc::clone(signal), _client: Arc::clone(client) };
            let started = sys::rd_kafka_consume_start_queue(topic, partition, offset as i64, queue);
            (started == 0).then_some(stream)
        }
    }

    /// Hands up to `max` items to `take`: those that are there, or, if there is none, the first to come within `at_most`.
    pub(super) fn read(&self, max: usize, at_most: Duration, mut take: impl FnMut(Item<'_>)) -> usize {
        const BATCH: usize = 1024;
        let mut messages = [ptr::null_mut::<sys::rd_kafka_message_t>(); BATCH];
        let mut headers = HeaderList::default();
        let mut total = 0;
        // With a timeout librdkafka waits until the batch is full: only the first message is waited for.
        let mut wait_ms = c_int::try_from(at_most.as_millis()).unwrap_or(c_int::MAX);
        while total < max {
            let size = if wait_ms > 0 { 1 } else { BATCH.min(max - total) };
            // SAFETY: the queue is alive, and the array has room for `size` pointers.
            let read = unsafe { sys::rd_kafka_consume_batch_queue(self.queue, wait_ms, messages.as_mut_ptr(), size) };
            let Ok(read @ 1..) = usize::try_from(read) else { break };
            for message in &messages[..read] {
                // SAFETY: librdkafka gave a valid message, which is ours until it is destroyed here.
                unsafe {
                    take(item(*message, &mut headers));
                    sys::rd_kafka_message_destroy(*message);
                }
            }
            total += read;
            if wait_ms == 0 && read < size {
                break;
            }
            wait_ms = 0;
        }
        total
    }
}

/// # Safety
/// `message` is a valid message that outlives what is returned.
unsafe fn item<'a>(message: *mut sys::rd_kafka_message_t, list: &'a mut HeaderList) -> Item<'a> {
    // SAFETY: as promised by the caller; librdkafka's pointers and lengths belong together, and a header's value lives with its message.
    unsafe {
        let it = &*message;
        match it.err {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => return Item::End(it.offset as u64),
            other => return Item::Error(other.into()),
        }
        let slice = |at: *mut c_void, len: usize| (!at.is_null()).then(|| std::slice::from_raw_parts(at.cast::<u8>().cast_const(), len));
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        let append_time = sys::rd_kafka_message_timestamp(message, &mut kind);
        let mut headers = ptr::null_mut();
        let mut timestamp = None;
        list.clear();
        if sys::rd_kafka_message_headers(message, &mut headers) == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            for at in 0.. {
                let got = sys::rd_kafka_header_get_all(headers, at, &mut name, &mut value, &mut size);
                if got != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    break;
                }
                let name = CStr::from_ptr(name);
                let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size));
                match value.map(<[u8; 8]>::try_from) {
                    Some(Ok(bytes)) if name == TIMESTAMP_HEADER => timestamp = Some(i64::from_be_bytes(bytes)),
                    // Beyond what a record here can hold they are left out; nothing that is documented comes near.
                    _ => drop(list.push(&name.to_string_lossy(), value)),
                }
            }
        }
        let key = slice(it.key, it.key_len).unwrap_or_default();
        Item::Message { offset: it.offset as u64, append_time, timestamp, key, value: slice(it.payload, it.len), headers: list }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: each was made by `start` and is used by nobody else; after the callback is taken away the signal may go.
        unsafe {
            sys::rd_kafka_consume_stop(self.topic, self.partition);
            sys::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue);
            sys::rd_kafka_topic_destroy(self.topic);
        }
    }
}

/// A topic to write to.
pub(super) struct Topic<C: ProducerContext + 'static> {
    topic: *mut sys::rd_kafka_topic_t,
    producer: Arc<BaseProducer<C>>,
}

// SAFETY: librdkafka's topics and producers may be used from any thread.
unsafe impl<C: ProducerContext + Send + Sync> Send for Topic<C> {}
// SAFETY: as above.
unsafe impl<C: ProducerContext + Send + Sync> Sync for Topic<C> {}

impl<C: ProducerContext> Topic<C> {
    pub(super) fn new(producer: &Arc<BaseProducer<C>>, name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: the producer outlives the topic, which is destroyed by `drop`.
        let topic = unsafe { sys::rd_kafka_topic_new(producer.client().native_ptr(), name.as_ptr(), ptr::null_mut()) };
        (!topic.is_null()).then(|| Self { topic, producer: Arc::clone(producer) })
    }

    /// Hands in a record, which is copied; `opaque` comes back with its delivery report.
    pub(super) fn produce(&self, partition: i32, record: &RecordRef<'_>, opaque: usize) -> Result<(), Code> {
        let RecordRef { key, value, timestamp: Millis(timestamp), headers, .. } = *record;
        use sys::rd_kafka_vtype_t as kind;
        type Part = sys::rd_kafka_vu_s;
        type Value = sys::rd_kafka_vu_s__bindgen_ty_1;
        let bytes = |bytes: Option<&[u8]>| {
            let (at, size) = bytes.map_or((ptr::null(), 0), |bytes| (bytes.as_ptr(), bytes.len()));
            Value { mem: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr: at.cast::<c_void>().cast_mut(), size } }
        };
        let timestamp = timestamp.to_be_bytes();
        let header = sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_2 {
            name: TIMESTAMP_HEADER.as_ptr().cast::<c_char>(),
            val: timestamp.as_ptr().cast(),
            size: timestamp.len() as isize,
        };
        let mut parts = [
            Part { vtype: kind::RD_KAFKA_VTYPE_RKT, u: Value { rkt: self.topic } },
            Part { vtype: kind::RD_KAFKA_VTYPE_PARTITION, u: Value { i32_: partition } },
            Part { vtype: kind::RD_KAFKA_VTYPE_MSGFLAGS, u: Value { i: sys::RD_KAFKA_MSG_F_COPY as c_int } },
            Part { vtype: kind::RD_KAFKA_VTYPE_KEY, u: bytes(Some(key)) },
            Part { vtype: kind::RD_KAFKA_VTYPE_VALUE, u: bytes(value) },
            Part { vtype: kind::RD_KAFKA_VTYPE_OPAQUE, u: Value { ptr: opaque as *mut c_void } },
            Part { vtype: kind::RD_KAFKA_VTYPE_HEADER, u: Value { header } },
        ];
        // SAFETY: the topic is alive, every part has the kind that its value was written as, and what they point to outlives the call,
        // which copies it; a list of headers goes over to librdkafka if the call succeeds, and is destroyed here if it does not.
        unsafe {
            let mut list = ptr::null_mut();
            if !headers.is_empty() {
                list = sys::rd_kafka_headers_new(8);
                let add = |name: &[u8], value: Option<&[u8]>| {
                    let (at, size) = value.map_or((ptr::null(), 0), |value| (value.as_ptr(), value.len()));
                    sys::rd_kafka_header_add(list, name.as_ptr().cast(), name.len() as isize, at.cast(), size as isize);
                };
                headers.iter().for_each(|header| add(header.name.as_bytes(), header.value));
                add(TIMESTAMP_HEADER.to_bytes(), Some(&timestamp));
                parts[6] = Part { vtype: kind::RD_KAFKA_VTYPE_HEADERS, u: Value { headers: list } };
            }
            let error = sys::rd_kafka_produceva(self.producer.client().native_ptr(), parts.as_ptr(), parts.len());
            if error.is_null() {
                return Ok(());
            }
            let code = sys::rd_kafka_error_code(error);
            sys::rd_kafka_error_destroy(error);
            if !list.is_null() {
                sys::rd_kafka_headers_destroy(list);
            }
            Err(code.into())
        }
    }
}

impl<C: ProducerContext> Drop for Topic<C> {
    fn drop(&mut self) {
        // SAFETY: made by `new`, used by nobody else.
        unsafe { sys::rd_kafka_topic_destroy(self.topic) };
    }
}
