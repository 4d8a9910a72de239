//! What an anonymous person did last that runs wait for or have as a goal: kept with the person, so that a login can tell it to the user's
//! runs. Only the newest, and of bounded size; what nobody waits for is not kept.
//!
//! What an event means to a run, and from which time on, is decided where runs are (`workflow`).

use super::person::{Reader, put_bytes};
use crate::domain::{Millis, varint};
use crate::schema::records::EventBody;

/// As many as an absorb brings along, and their bytes: more than one login's worth of what goals are made of.
const EVENTS_MAX: usize = 50;
const BYTES_MAX: usize = 16 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PastEvent {
    pub(super) at: Millis,
    pub(super) message_id: Box<str>,
    pub(super) name: Box<str>,
    /// JSON object; empty if none.
    pub(super) properties: Box<str>,
}

/// In the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Past(Vec<PastEvent>);

impl PastEvent {
    fn bytes(&self) -> usize {
        self.message_id.len() + self.name.len() + self.properties.len()
    }
}

impl Past {
    pub(super) fn add(&mut self, event: &EventBody<'_>) {
        let (message_id, name, properties) = (event.message_id.into(), event.name.into(), event.properties.into());
        self.0.push(PastEvent { at: Millis(event.event_time), message_id, name, properties });
        let mut bytes: usize = self.0.iter().map(PastEvent::bytes).sum();
        let mut left_out = 0;
        while self.0.len() - left_out > EVENTS_MAX || bytes > BYTES_MAX {
            bytes -= self.0[left_out].bytes();
            left_out += 1;
        }
        self.0.drain(..left_out);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PastEvent> {
        self.0.iter()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        varint::put(out, self.0.len() as u64);
        for event in &self.0 {
            out.extend_from_slice(&event.at.0.to_le_bytes());
            [&event.message_id, &event.name, &event.properties].into_iter().for_each(|text| put_bytes(out, text.as_bytes()));
        }
    }

    /// Nothing where there are no bytes: absorbs of before there were any.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut past = Self::default();
        let mut reader = Reader(bytes);
        if bytes.is_empty() {
            return Some(past);
        }
        for _ in 0..reader.number()? {
            let (at, message_id, name, properties) = (reader.time()?, reader.text()?, reader.text()?, reader.text()?);
            past.0.push(PastEvent { at, message_id, name, properties });
        }
        reader.0.is_empty().then_some(past)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::records::Origin;

    fn event<'a>(at: i64, message_id: &'a str, properties: &'a str) -> EventBody<'a> {
        let (user_id, anonymous_id, source, context) = ("", "a", "web", "");
        let origin = Origin { incarnation: 1, partition: 0, offset: 0 };
        EventBody {
            message_id,
            kind: "track",
            name: "Order Completed",
            event_time: at,
            received_at: at,
            user_id,
            anonymous_id,
            source,
            historical: false,
            properties,
            context,
            origin,
            redriven_from: None,
            depth: 0,
        }
    }

    fn ids(past: &Past) -> Vec<&str> {
        past.iter().map(|event| &*event.message_id).collect()
    }

    #[test]
    fn the_newest_are_kept_and_come_back_as_stored() {
        let mut past = Past::default();
        for n in 0..60 {
            past.add(&event(n, &format!("m{n}"), r#"{"total":5}"#));
        }
        assert_eq!((ids(&past).len(), ids(&past)[0]), (EVENTS_MAX, "m10"));
        let mut bytes = Vec::new();
        past.encode(&mut bytes);
        assert_eq!(Past::decode(&bytes), Some(past));
        assert!(Past::decode(&bytes[..bytes.len() - 1]).is_none() && Past::decode(&[]) == Some(Past::default()));
    }

    #[test]
    fn large_ones_leave_room_for_fewer_and_one_too_large_for_none() {
        let mut past = Past::default();
        let half = "x".repeat(BYTES_MAX / 2);
        ["a", "b", "c"].into_iter().for_each(|id| past.add(&event(1, id, &half)));
        assert_eq!(ids(&past), ["c"], "two and their names are more than the room");
        past.add(&event(1, "d", &"x".repeat(BYTES_MAX)));
        assert!(ids(&past).is_empty());
    }
}
