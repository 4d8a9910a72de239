//! Records to rows: each topic's records are decoded here and collected per table until one transaction writes them all.
//!
//! Invariant: what is added and then written is exact, whatever the batch's size; adding never touches the database. After a failed
//! write the owner calls [`Tables::clear`] and reads the same records again.

mod copies;
mod corrections;
mod daily;
mod events;
mod identities;
mod outcomes;
mod profiles;
mod segments;
mod versions;
mod workflow;

pub use workflow::place_of;

use std::sync::Arc;

use super::Error;
use super::store::Store;
use crate::features::Rules;
use crate::log::RecordRef;
use crate::schema;

/// The topics a namespace's read model is made of. `intake` is not: what became of it is in `events`, `outcomes` and
/// `dead_letters`; nor is `commands`: what was decided is in `journal`.
pub const TOPICS: [&str; 9] =
    ["identities", "outcomes", "dead_letters", "events", "profiles", "segment_changes", "corrections", "journal", "definitions"];

/// What became of one record, counted in `processing_status`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "every record's outcome is counted"]
pub enum Applied {
    /// It made or changed rows.
    Rows,
    /// It carries nothing for readers (ticks, handovers).
    Nothing,
    /// This build cannot read it; the rest goes on.
    Unreadable(String),
}

/// Whose record it is, read from its key without copying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Who<'a> {
    tenant: &'a str,
    /// `u:ID` or `a:ID`; in the journal also `@:HASH`.
    subject: &'a str,
    id: &'a str,
    is_user: bool,
}

impl<'a> Who<'a> {
    fn parse(key: &'a [u8]) -> Option<Who<'a>> {
        let key = std::str::from_utf8(key).ok()?;
        let (tenant, subject) = key.split_once('\0')?;
        let (mark, id) = subject.split_once(':')?;
        match mark {
            "u" | "a" | "@" => Some(Who { tenant, subject, id, is_user: mark == "u" }),
            _ => None,
        }
    }
}

/// Everything between a fetch and its commit.
#[derive(Debug)]
pub struct Tables {
    events: events::Events,
    copies: copies::Copies,
    daily: daily::Daily,
    profiles: profiles::Profiles,
    segments: segments::Segments,
    corrections: corrections::Corrections,
    identities: identities::Identities,
    outcomes: outcomes::Outcomes,
    workflows: workflow::Workflows,
    versions: versions::Versions,
}

impl Tables {
    pub fn new(rules: Arc<Rules>) -> Self {
        Self {
            events: events::Events::new(),
            copies: copies::Copies::default(),
            daily: daily::Daily::new(rules),
            profiles: profiles::Profiles::new(),
            segments: segments::Segments::new(),
            corrections: corrections::Corrections::new(),
            identities: identities::Identities::new(),
            outcomes: outcomes::Outcomes::new(),
            workflows: workflow::Workflows::new(),
            versions: versions::Versions::default(),
        }
    }

    /// Adds one record of `topic` (its short name).
    pub fn add(&mut self, topic: &str, partition: u32, record: &RecordRef<'_>) -> Applied {
        match self.try_add(topic, partition, record) {
            Ok(applied) => applied,
            Err(error) => Applied::Unreadable(error.to_string()),
        }
    }

    fn try_add(&mut self, topic: &str, partition: u32, record: &RecordRef<'_>) -> Result<Applied, schema::Error> {
        let Some(value) = record.value else {
            return Ok(self.removed(topic, record));
        };
        match topic {
            "events" => {
                let schema::records::EventsRecord::Event(event) = schema::decode(value)? else { return Ok(Applied::Nothing) };
                let Some(who) = Who::parse(record.key) else { return Ok(unreadable_key()) };
                if event.redriven_from.is_some() {
                    self.copies.add(record, partition);
                } else {
                    self.events.add(who, &event, partition, record.offset);
                    self.daily.add(who, &event);
                }
            }
            "profiles" => {
                let Some(who) = Who::parse(record.key) else { return Ok(unreadable_key()) };
                self.profiles.set(who, &schema::decode(value)?, record.offset);
            }
            "segment_changes" => {
                let Some(who) = Who::parse(record.key) else { return Ok(unreadable_key()) };
                self.segments.add(who, &schema::decode(value)?, partition, record.offset);
            }
            "corrections" => {
                let Some(who) = Who::parse(record.key) else { return Ok(unreadable_key()) };
                self.corrections.add(who, &schema::decode(value)?, partition, record.offset);
            }
            "identities" => {
                let Some(who) = Who::parse(record.key) else { return Ok(unreadable_key()) };
                self.identities.set(who, schema::decode::<schema::records::IdentityRecord>(value)?.ties);
            }
            "journal" => {
                return Ok(match self.workflows.add(record.key, &schema::decode(value)?, partition, record.offset) {
                    Ok(true) => Applied::Rows,
                    Ok(false) => Applied::Nothing,
                    Err(error) => Applied::Unreadable(error),
                });
            }
            "definitions" => {
                let is_row = self.versions.add(&schema::decode(value)?, record.offset);
                return Ok(if is_row { Applied::Rows } else { Applied::Nothing });
            }
            "outcomes" => self.outcomes.add_batch(&schema::decode(value)?),
            "dead_letters" => self.outcomes.add_dead_letter(record.key, &schema::decode(value)?, partition, record.offset),
            _ => return Ok(Applied::Nothing),
        }
        Ok(Applied::Rows)
    }

    /// A record without a value removes its key from a compacted topic.
    fn removed(&mut self, topic: &str, record: &RecordRef<'_>) -> Applied {
        let Some(who) = Who::parse(record.key) else { return unreadable_key() };
        match topic {
            "identities" => self.identities.set(who, Vec::new()),
            "profiles" => self.profiles.remove(who),
            _ => return Applied::Nothing,
        }
        Applied::Rows
    }

    /// Writes everything that was added, inside the caller's transaction.
    pub async fn write(&mut self, store: &mut Store) -> Result<(), Error> {
        self.events.write(store).await?;
        self.copies.settle(store, &mut self.events, &mut self.daily).await?;
        self.daily.write(store).await?;
        self.profiles.write(store).await?;
        self.segments.write(store).await?;
        self.corrections.write(store).await?;
        self.identities.write(store).await?;
        self.outcomes.write(store).await?;
        self.workflows.write(store).await?;
        self.versions.write(store).await
    }

    /// Forgets what was added and not written, and whatever a rolled back write left half done.
    pub fn clear(&mut self) {
        *self = Self::new(Arc::clone(self.daily.rules()));
    }

    /// Events before this time, in ms since 1970, get no row; they count in the daily roll-ups all the same.
    pub fn keep_events_from(&mut self, time: i64) {
        self.events.keep_from(time);
    }
}

fn unreadable_key() -> Applied {
    Applied::Unreadable("its key is not tenant, zero byte, 'u:' or 'a:', id".to_owned())
}
