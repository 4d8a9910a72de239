//! The tables in the keyspace, and every statement that is sent to them.
//!
//! One set of tables holds all of the product's: a table of ours is a number in their partition keys (`tbl`), found by its name in `tables`.
//! Making thousands of tables is not what these servers are made for.

use std::sync::Arc;

use scylla::client::session::Session;
use scylla::statement::Statement;
use scylla::statement::prepared::PreparedStatement;

use super::errors;
use crate::state::Error;

/// Raised when tables change so that older ones cannot be used.
pub(super) const VERSION: &str = "1";

/// How long a deletion in the index of wake-ups is remembered. Shorter than a repair takes: an entry that comes back is a hint that nobody
/// follows, and is deleted once more. Not so with states, which keep the server's ten days.
const WAKES_GRACE_S: u32 = 3_600;

/// What makes the tables, name and text.
pub(super) fn tables(keyspace: &str) -> Vec<(&'static str, String)> {
    let k = keyspace;
    vec![
        ("meta", format!("CREATE TABLE IF NOT EXISTS {k}.meta (name text PRIMARY KEY, value text)")),
        ("tables", format!("CREATE TABLE IF NOT EXISTS {k}.tables (scope int, name text, id bigint, PRIMARY KEY (scope, name))")),
        ("dropped", format!("CREATE TABLE IF NOT EXISTS {k}.dropped (scope int, id bigint, PRIMARY KEY (scope, id))")),
        (
            "states",
            format!(
                "CREATE TABLE IF NOT EXISTS {k}.states (tbl bigint, bucket smallint, key blob, cell blob, PRIMARY KEY ((tbl, bucket), key))"
            ),
        ),
        ("watermarks", format!("CREATE TABLE IF NOT EXISTS {k}.watermarks (tbl bigint PRIMARY KEY, cell blob)")),
        (
            "wakes",
            format!(
                "CREATE TABLE IF NOT EXISTS {k}.wakes (tbl bigint, slot bigint, due bigint, key blob, PRIMARY KEY ((tbl, slot), due, key)) \
                 WITH gc_grace_seconds = {WAKES_GRACE_S}"
            ),
        ),
        (
            "wake_slots",
            format!(
                "CREATE TABLE IF NOT EXISTS {k}.wake_slots (tbl bigint, slot bigint, PRIMARY KEY (tbl, slot)) \
                 WITH gc_grace_seconds = {WAKES_GRACE_S}"
            ),
        ),
    ]
}

pub(super) struct Statements {
    pub(super) table_find: PreparedStatement,
    pub(super) table_list: PreparedStatement,
    pub(super) table_add: PreparedStatement,
    pub(super) table_remove: PreparedStatement,
    pub(super) dropped_add: PreparedStatement,
    pub(super) dropped_list: PreparedStatement,
    pub(super) dropped_remove: PreparedStatement,
    pub(super) state_set: PreparedStatement,
    pub(super) state_remove: PreparedStatement,
    pub(super) states_of: PreparedStatement,
    pub(super) states_after: PreparedStatement,
    pub(super) states_first: PreparedStatement,
    pub(super) states_drop: PreparedStatement,
    pub(super) watermark: PreparedStatement,
    pub(super) watermark_set: PreparedStatement,
    pub(super) watermark_drop: PreparedStatement,
    pub(super) wake_set: PreparedStatement,
    pub(super) wake_remove: PreparedStatement,
    pub(super) wakes_remove: PreparedStatement,
    pub(super) wakes_first: PreparedStatement,
    pub(super) wakes_after: PreparedStatement,
    pub(super) wakes_from: PreparedStatement,
    pub(super) wakes_drop: PreparedStatement,
    pub(super) slot_set: PreparedStatement,
    pub(super) slot_remove: PreparedStatement,
    pub(super) slots: PreparedStatement,
    pub(super) slots_drop: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(session: &Session, keyspace: &str) -> Result<Arc<Self>, Error> {
        let prepare = async |text: &str| {
            let text = text.replace("$", keyspace);
            let mut prepared = session.prepare(Statement::new(text)).await.map_err(errors::unprepared)?;
            // All of them carry their own time or delete for good: sent twice, they do what they do once.
            prepared.set_is_idempotent(true);
            Ok::<_, Error>(prepared)
        };
        let state_place = "tbl = ? AND bucket = ?";
        let wake_place = "tbl = ? AND slot = ?";
        let cell = "SELECT key, cell, WRITETIME(cell) FROM $.states WHERE tbl = ? AND bucket = ?";
        Ok(Arc::new(Self {
            table_find: prepare("SELECT id FROM $.tables WHERE scope = 0 AND name = ?").await?,
            table_list: prepare("SELECT name, id FROM $.tables WHERE scope = 0").await?,
            table_add: prepare("INSERT INTO $.tables (scope, name, id) VALUES (0, ?, ?) IF NOT EXISTS").await?,
            table_remove: prepare("DELETE FROM $.tables WHERE scope = 0 AND name = ? IF id = ?").await?,
            dropped_add: prepare("INSERT INTO $.dropped (scope, id) VALUES (0, ?)").await?,
            dropped_list: prepare("SELECT id FROM $.dropped WHERE scope = 0").await?,
            dropped_remove: prepare("DELETE FROM $.dropped WHERE scope = 0 AND id = ?").await?,
            state_set: prepare(&format!("UPDATE $.states USING TIMESTAMP ? SET cell = ? WHERE {state_place} AND key = ?")).await?,
            state_remove: prepare(&format!("DELETE FROM $.states USING TIMESTAMP ? WHERE {state_place} AND key = ?")).await?,
            states_of: prepare(&format!("{cell} AND key IN ?")).await?,
            states_after: prepare(&format!("{cell} AND key > ? LIMIT ?")).await?,
            states_first: prepare(&format!("{cell} LIMIT ?")).await?,
            states_drop: prepare(&format!("DELETE FROM $.states WHERE {state_place}")).await?,
            watermark: prepare("SELECT cell, WRITETIME(cell) FROM $.watermarks WHERE tbl = ?").await?,
            watermark_set: prepare("UPDATE $.watermarks USING TIMESTAMP ? SET cell = ? WHERE tbl = ?").await?,
            watermark_drop: prepare("DELETE FROM $.watermarks WHERE tbl = ?").await?,
            wake_set: prepare("INSERT INTO $.wakes (tbl, slot, due, key) VALUES (?, ?, ?, ?) USING TIMESTAMP ?").await?,
            wake_remove: prepare(&format!("DELETE FROM $.wakes USING TIMESTAMP ? WHERE {wake_place} AND due = ? AND key = ?")).await?,
            wakes_remove: prepare(&format!(
                "DELETE FROM $.wakes USING TIMESTAMP ? WHERE {wake_place} AND (due, key) >= (?, ?) AND (due, key) <= (?, ?)"
            ))
            .await?,
            wakes_first: prepare(&format!("SELECT due, key FROM $.wakes WHERE {wake_place} AND due <= ? LIMIT ?")).await?,
            wakes_after: prepare(&format!(
                "SELECT due, key FROM $.wakes WHERE {wake_place} AND (due, key) > (?, ?) AND (due) <= (?) LIMIT ?"
            ))
            .await?,
            wakes_from: prepare(&format!(
                "SELECT due, key FROM $.wakes WHERE {wake_place} AND (due, key) >= (?, ?) AND (due, key) <= (?, ?) LIMIT ?"
            ))
            .await?,
            wakes_drop: prepare(&format!("DELETE FROM $.wakes WHERE {wake_place}")).await?,
            slot_set: prepare("INSERT INTO $.wake_slots (tbl, slot) VALUES (?, ?) USING TIMESTAMP ?").await?,
            slot_remove: prepare("DELETE FROM $.wake_slots USING TIMESTAMP ? WHERE tbl = ? AND slot = ?").await?,
            slots: prepare("SELECT slot FROM $.wake_slots WHERE tbl = ? AND slot >= ? AND slot <= ? LIMIT ?").await?,
            slots_drop: prepare("DELETE FROM $.wake_slots WHERE tbl = ?").await?,
        }))
    }
}
