//! `events`: one row per validated event, in the order they were applied.
//!
//! `event_id` is the row's own number, given on insert; `message_id` and the log's position are what identifies the event elsewhere.

use super::Who;
use crate::domain::Offset;
use crate::projections::Error;
use crate::projections::bulk::{Cell, Statement};
use crate::projections::store::Store;
use crate::schema::records::EventBody;

const COLUMNS: [&str; 17] = [
    "tenant_id",
    "user_id",
    "anonymous_id",
    "event_name",
    "type",
    "properties",
    "context",
    "timestamp",
    "received_at",
    "session_id",
    "message_id",
    "source",
    "historical",
    "log_partition",
    "log_offset",
    "origin_partition",
    "origin_offset",
];

#[derive(Debug)]
pub struct Events {
    insert: Statement,
    cells: Vec<Cell>,
    /// Older ones have no row.
    from: i64,
}

impl Events {
    pub fn new() -> Self {
        Self { insert: Statement::insert("events", &COLUMNS), cells: Vec::new(), from: i64::MIN }
    }

    pub fn keep_from(&mut self, time: i64) {
        self.from = time;
    }

    /// Whether an event of this time is too old to have a row.
    pub fn is_over(&self, time: i64) -> bool {
        time < self.from
    }

    pub fn add(&mut self, who: Who<'_>, event: &EventBody<'_>, partition: u32, offset: Offset) {
        if self.is_over(event.event_time) {
            return;
        }
        let (user_id, anonymous_id) = match who.is_user {
            true => (who.id, event.anonymous_id),
            false => ("", who.id),
        };
        let row: [Cell; COLUMNS.len()] = [
            who.tenant.into(),
            Cell::text_or_null(user_id),
            Cell::text_or_null(anonymous_id),
            event.name.into(),
            event.kind.into(),
            Cell::text_or_null(event.properties),
            Cell::text_or_null(event.context),
            event.event_time.into(),
            event.received_at.into(),
            session_id(event).map_or(Cell::Null, Cell::Text),
            event.message_id.into(),
            event.source.into(),
            i64::from(event.historical).into(),
            i64::from(partition).into(),
            (offset.0 as i64).into(),
            i64::from(event.origin.partition).into(),
            event.origin.offset.into(),
        ];
        self.cells.extend(row);
    }

    pub async fn write(&mut self, store: &mut Store) -> Result<(), Error> {
        store.write(&self.insert, std::mem::take(&mut self.cells)).await
    }
}

/// The client's own name for the session: RudderStack's `context.sessionId`, or a property that importers use. Few events have one, so
/// the text is searched before it is parsed.
fn session_id(event: &EventBody<'_>) -> Option<String> {
    [(event.context, "sessionId"), (event.properties, "session_id")].into_iter().find_map(|(json, name)| {
        if !json.contains(name) {
            return None;
        }
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).ok()?;
        match object.get(name)? {
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    })
}
