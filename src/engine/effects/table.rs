//! Where pending effects are kept between restarts: one table per partition of the journal, with the offset up to which it was read.
//!
//! An effect has two rows: how it stands, read at every start, and what it asks for, read when its turn comes. The table is derived: of
//! another incarnation, or past the journal's end, it is dropped and the journal is read from its start.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Error;
use super::call::Request;
use super::notices::Kind;
use super::pending::{Entry, Open, Pending, Slot, Standing, Stored};
use crate::domain::{Incarnation, Millis, Namespace, Offset, SubjectKey};
use crate::permit::Priority;
use crate::state::{Flush, StateStore, Table, Upto};
use crate::workflow::{EffectId, Performer, RunId, Unknown};

/// Before the others, which are read from the first of theirs on.
const NOTICE: u8 = b'n';
const STATUS: u8 = b's';
const REQUEST: u8 = b'r';
const PAGE: usize = 4_096;

/// Raised when rows change so that older ones cannot be read.
const VERSION: u32 = 1;

pub struct Tables {
    state: Arc<dyn StateStore>,
    tables: Vec<Table>,
    incarnation: Incarnation,
}

/// What a flush wrote and can give back.
pub struct Flushed {
    pub partition: u32,
    slots: Vec<(Slot, u32, Stored)>,
    removed: Vec<(u32, EffectId)>,
    notices: Vec<Kind>,
    flush: Flush,
}

#[derive(Serialize, Deserialize)]
struct Status<'a> {
    run: RunId,
    by: Performer,
    target: &'a str,
    unknown: Unknown,
    priority: Priority,
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    open: Option<OpenRow>,
}

#[derive(Serialize, Deserialize)]
struct OpenRow {
    attempt: u32,
    look_up: bool,
    /// Started by whoever wrote this, who is gone when it is read.
    started: bool,
    permitted: bool,
}

#[derive(Serialize, Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    subject: std::borrow::Cow<'a, str>,
    run: RunId,
    effect: EffectId,
    #[serde(borrow)]
    workflow: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    node: std::borrow::Cow<'a, str>,
    by: Performer,
    #[serde(borrow)]
    target: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    input: &'a RawValue,
    timeout_ms: i64,
    unknown: Unknown,
    #[serde(borrow)]
    purpose: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    approved: std::borrow::Cow<'a, str>,
    priority: Priority,
    requested_at: Millis,
}

impl Tables {
    pub fn new(state: Arc<dyn StateStore>, namespace: &Namespace, partitions: u32, incarnation: Incarnation) -> Self {
        let table = |partition: u32| Table(format!("{namespace}.effects.{partition}.i{incarnation}.v{VERSION}").into());
        Self { state, tables: (0..partitions).map(table).collect(), incarnation }
    }

    /// How many partitions the journal has.
    pub fn count(&self) -> usize {
        self.tables.len()
    }

    /// Where to read a partition of the journal on, if its table is of this log.
    pub fn position(&self, partition: u32, end: Offset) -> Result<Option<Offset>, Error> {
        let table = &self.tables[partition as usize];
        let stored = self.state.watermark(table)?.and_then(|bytes| Some(Offset(u64::from_be_bytes(bytes.as_ref().try_into().ok()?))));
        match stored {
            Some(offset) if offset <= end => Ok(Some(offset)),
            Some(_) => {
                self.state.drop_table(table)?;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn load_notices(&self, partition: u32, pending: &mut Pending) -> Result<(), Error> {
        let mut after: Option<Bytes> = None;
        loop {
            let rows = self.state.scan(&self.tables[partition as usize], after.as_deref(), PAGE)?;
            for (key, row) in &rows {
                let Some(kind) = key.strip_prefix(&[NOTICE]) else { return Ok(()) };
                let kind = kind.try_into().map_err(|_| Error::Row("a notice's key that is none".to_owned()))?;
                let notice = serde_json::from_slice(&row.state).map_err(|error| Error::Row(error.to_string()))?;
                pending.notices.stored(partition, Kind::from_be_bytes(kind), notice);
            }
            match rows.last() {
                Some((key, _)) if rows.len() == PAGE => after = Some(key.clone()),
                _ => return Ok(()),
            }
        }
    }

    /// Reads how everything stands into `pending`.
    pub fn load(&self, partition: u32, pending: &mut Pending) -> Result<(), Error> {
        self.load_notices(partition, pending)?;
        let mut after: Option<Bytes> = None;
        loop {
            let from = after.as_deref().unwrap_or(&[STATUS]);
            let rows = self.state.scan(&self.tables[partition as usize], Some(from), PAGE)?;
            for (key, row) in &rows {
                if key.first() != Some(&STATUS) {
                    return Ok(());
                }
                let (tenant, effect) = parts(key).ok_or_else(|| Error::Row("a key that is none".to_owned()))?;
                let status: Status<'_> = serde_json::from_slice(&row.state).map_err(|error| Error::Row(error.to_string()))?;
                let (tenant, lane) = (pending.tenants.number(&tenant.into()), pending.lanes.number(&(status.by, status.target.into())));
                pending.insert(status.entry(effect, tenant, lane, partition));
            }
            match rows.last() {
                Some((key, _)) if rows.len() == PAGE => after = Some(key.clone()),
                _ => return Ok(()),
            }
        }
    }

    /// The requests of these effects of one partition.
    pub fn requests(&self, partition: u32, wanted: &[(&str, EffectId)]) -> Result<Vec<Option<Request>>, Error> {
        let keys: Vec<Vec<u8>> = wanted.iter().map(|(tenant, effect)| key(REQUEST, tenant, *effect)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let rows = self.state.get_many(&self.tables[partition as usize], &keys)?;
        rows.into_iter().map(|row| row.map(|row| request(&row.state)).transpose()).collect()
    }

    /// What is to be written of a partition, read up to `offset`. Counts as written until it is given back.
    pub fn collect(&self, pending: &mut Pending, partition: u32, offset: Offset) -> Flushed {
        let (dirty, removed) = pending.take_dirty(partition);
        let upto = Upto::new(self.incarnation, offset);
        let mut flush = Flush { upto, watermark: Some(Bytes::copy_from_slice(&offset.0.to_be_bytes())), ..Flush::default() };
        for (tenant, effect) in &removed {
            let tenant = pending.tenants.name(*tenant);
            flush.states.push((key(STATUS, tenant, *effect).into(), None));
            flush.states.push((key(REQUEST, tenant, *effect).into(), None));
        }
        let mut slots = Vec::with_capacity(dirty.len());
        for slot in dirty {
            let Some(entry) = pending.get(slot) else { continue };
            let tenant = pending.tenants.name(entry.tenant);
            let (_, target) = pending.lanes.name(entry.lane);
            let status = serde_json::to_vec(&Status::of(entry, target)).expect("a status is plain data");
            flush.states.push((key(STATUS, tenant, entry.effect).into(), Some(status.into())));
            if let Some(request) = entry.request.as_ref().filter(|_| !entry.stored.request) {
                flush.states.push((key(REQUEST, tenant, entry.effect).into(), Some(body(request).into())));
            }
            slots.push((slot, entry.generation, entry.stored));
            pending.get_mut(slot).expect("looked at just now").stored = Stored { status: true, request: true };
        }
        let mut notices = Vec::new();
        for (kind, notice) in pending.notices.take_dirty(partition) {
            let row = notice.map(|notice| serde_json::to_vec(notice).expect("a notice is plain data").into());
            let mut key = vec![NOTICE];
            key.extend_from_slice(&kind.to_be_bytes());
            flush.states.push((key.into(), row));
            notices.push(kind);
        }
        Flushed { partition, slots, removed, notices, flush }
    }

    pub fn write(&self, flushed: &mut Flushed) -> Result<(), Error> {
        let flush = std::mem::take(&mut flushed.flush);
        Ok(self.state.flush(&self.tables[flushed.partition as usize], flush)?)
    }
}

impl Flushed {
    /// It is on disk: requests may leave memory while there are too many.
    pub fn done(self, pending: &mut Pending, request_bytes_max: usize) {
        for (slot, generation, _) in self.slots {
            if pending.request_bytes() <= request_bytes_max {
                return;
            }
            if pending.get(slot).is_some_and(|entry| entry.generation == generation) {
                pending.unload(slot);
            }
        }
    }

    /// It is not: all of it is written again with the next.
    pub fn failed(self, pending: &mut Pending) {
        let mut slots = Vec::new();
        for (slot, generation, before) in self.slots {
            if let Some(entry) = pending.get_mut(slot).filter(|entry| entry.generation == generation) {
                entry.stored = before;
                slots.push(slot);
            }
        }
        pending.give_back(self.partition, &slots, self.removed);
        pending.notices.give_back(self.partition, self.notices);
    }
}

impl<'a> Status<'a> {
    fn of(entry: &Entry, target: &'a str) -> Self {
        let open = entry.open.map(|open| {
            let needs = entry.needs();
            let (started, permitted) = match open.standing {
                Standing::Waiting | Standing::Asked => (false, false),
                Standing::Started => (true, false),
                // It may be sent after this was written, and before the next.
                Standing::Granted => (true, true),
                Standing::Orphaned { permitted } => (true, permitted),
                // What needs no start is performed again by whoever comes next.
                Standing::Performed => (needs != Some(super::call::Needs::Nothing), true),
            };
            OpenRow { attempt: open.attempt, look_up: open.look_up, started, permitted }
        });
        let Entry { run, by, unknown, priority, paused, .. } = *entry;
        Status { run, by, target, unknown, priority, paused, open }
    }

    fn entry(self, effect: EffectId, tenant: u32, lane: u32, partition: u32) -> Entry {
        let open = self.open.map(|row| {
            let standing = if row.started { Standing::Orphaned { permitted: row.permitted } } else { Standing::Waiting };
            Open { attempt: row.attempt, look_up: row.look_up, standing, asked_at: None }
        });
        let Status { run, by, unknown, priority, paused, .. } = self;
        let stored = Stored { status: true, request: true };
        Entry {
            run,
            effect,
            tenant,
            lane,
            partition,
            generation: 0,
            by,
            unknown,
            priority,
            paused,
            open,
            request: None,
            stored,
            dirty: false,
        }
    }
}

fn key(kind: u8, tenant: &str, effect: EffectId) -> Vec<u8> {
    let mut key = Vec::with_capacity(tenant.len() + 18);
    key.push(kind);
    key.extend_from_slice(tenant.as_bytes());
    key.push(0);
    key.extend_from_slice(&effect.0.to_be_bytes());
    key
}

fn parts(key: &[u8]) -> Option<(&str, EffectId)> {
    let (_, rest) = key.split_first()?;
    let (tenant, effect) = rest.split_last_chunk::<16>()?;
    let tenant = std::str::from_utf8(tenant.strip_suffix(&[0])?).ok()?;
    Some((tenant, EffectId(u128::from_be_bytes(*effect))))
}

fn body(request: &Request) -> Vec<u8> {
    let body = Body {
        subject: std::str::from_utf8(request.subject.as_bytes()).expect("a key is made of texts").into(),
        run: request.run,
        effect: request.effect,
        workflow: request.workflow.as_str().into(),
        node: request.node.as_str().into(),
        by: request.by,
        target: request.target.as_str().into(),
        input: &request.input,
        timeout_ms: request.timeout_ms,
        unknown: request.unknown,
        purpose: request.purpose.as_str().into(),
        approved: request.approved.as_str().into(),
        priority: request.priority,
        requested_at: request.requested_at,
    };
    serde_json::to_vec(&body).expect("a request is plain data")
}

fn request(row: &[u8]) -> Result<Request, Error> {
    let body: Body<'_> = serde_json::from_slice(row).map_err(|error| Error::Row(error.to_string()))?;
    let subject = SubjectKey::from_bytes(Bytes::copy_from_slice(body.subject.as_bytes())).map_err(|error| Error::Row(error.to_string()))?;
    Ok(Request {
        subject,
        run: body.run,
        effect: body.effect,
        workflow: body.workflow.into_owned(),
        node: body.node.into_owned(),
        by: body.by,
        target: body.target.into_owned(),
        input: body.input.to_owned(),
        timeout_ms: body.timeout_ms,
        unknown: body.unknown,
        purpose: body.purpose.into_owned(),
        approved: body.approved.into_owned(),
        priority: body.priority,
        requested_at: body.requested_at,
    })
}
