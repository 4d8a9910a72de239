//! Copies of events that the profile fold had refused and that were sent again. The refused record is a row already, so its copy must not
//! become a second one, nor count twice in the roll-ups; it becomes the first where the record it is of could not be read.
//!
//! Whether it did can only be asked of the database, so copies wait here until the batch's other events are written.

use super::Who;
use super::daily::Daily;
use super::events::Events;
use crate::domain::Offset;
use crate::log::RecordRef;
use crate::projections::Error;
use crate::projections::store::Store;
use crate::schema;
use crate::schema::records::{EventBody, EventsRecord};

#[derive(Debug, Default)]
pub struct Copies {
    waiting: Vec<Copy>,
}

#[derive(Debug)]
struct Copy {
    key: Vec<u8>,
    value: Vec<u8>,
    partition: u32,
    offset: Offset,
}

impl Copies {
    /// `record` is an event that decodes, under a key that parses.
    pub fn add(&mut self, record: &RecordRef<'_>, partition: u32) {
        let (key, value) = (record.key.to_vec(), record.value.unwrap_or_default().to_vec());
        self.waiting.push(Copy { key, value, partition, offset: record.offset });
    }

    /// Adds to the tables those whose event is in none of their rows, in order. All other events added so far have been written.
    pub async fn settle(&mut self, store: &mut Store, events: &mut Events, daily: &mut Daily) -> Result<(), Error> {
        for copy in std::mem::take(&mut self.waiting) {
            let (Ok(EventsRecord::Event(event)), Some(who)) = (schema::decode(&copy.value), Who::parse(&copy.key)) else { continue };
            // Of one whose row is gone by its age nobody can say any more; nearly all were written.
            if events.is_over(event.event_time) || is_written(store, who, &event).await? {
                continue;
            }
            events.add(who, &event, copy.partition, copy.offset);
            daily.add(who, &event);
            // Two copies of one event may come together.
            events.write(store).await?;
        }
        Ok(())
    }
}

async fn is_written(store: &mut Store, who: Who<'_>, event: &EventBody<'_>) -> Result<bool, Error> {
    let sql = "SELECT count(*) FROM events WHERE message_id = ? AND tenant_id = ? AND origin_partition = ? AND origin_offset = ?";
    let cells = vec![event.message_id.into(), who.tenant.into(), i64::from(event.origin.partition).into(), event.origin.offset.into()];
    let found = store.fetch("look for a copy's event", sql, cells).await?;
    Ok(found.first().is_some_and(|row| row.get::<i64>(0) > 0))
}
