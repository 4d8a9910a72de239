//! From a body of JSON to records of `intake`: one event or a batch, as the HTTP routes take it, each under the key that intake decides it by.

use super::senders::Sender;
use crate::domain::{DeadReason, Millis, Outcome};
use crate::intake::arrive;
use crate::intake::scan::{self, Item};
use crate::log::RECORD_BYTES_MAX;
use crate::schema::records::{IntakeItem, IntakeRecord};
use crate::stream::fold::{Applied, Fault};
use crate::stream::outputs::Outputs;
use crate::stream::{Error, Topic};

/// As the gateway's default.
const BATCH_EVENTS_MAX: usize = 10_000;
/// The most that the events of one record may come to in `intake`, each with what its batch shares: well below what the log takes at once.
const INTAKE_BYTES_MAX: usize = 8 << 20;
/// An event longer than this is cut, for intake to refuse it alone: its own bound is below.
const EVENT_BYTES_MAX: usize = RECORD_BYTES_MAX - (32 << 10);
/// The body says its kind: there is no route.
const ROUTE: &str = "";

/// Writes the body's events, received at this time, to the partitions of their keys.
pub(super) fn events(text: &str, sender: &Sender, received_at: Millis, key: &mut Vec<u8>, out: &mut Outputs) -> Result<Applied, Error> {
    let malformed = |error: scan::Error| Ok(Applied::Rejected(Fault::new(DeadReason::Malformed, error.to_string())));
    let batch = match scan::batch(text, BATCH_EVENTS_MAX) {
        Ok(batch) => batch,
        Err(scan::Error::NoBatch) => match scan::single(text) {
            Ok(item) => scan::Batch { items: vec![item], ..scan::Batch::default() },
            Err(error) => return malformed(error),
        },
        Err(error) => return malformed(error),
    };
    let shared = arrive::shared_parts(batch.context, batch.integrations);
    let too_large = |what: String| Ok(Applied::Rejected(Fault::new(DeadReason::TooLarge, what)));
    if shared.len() > arrive::SHARED_BYTES_MAX {
        return too_large(format!("the batch's context is {} bytes long, at most {} are taken", shared.len(), arrive::SHARED_BYTES_MAX));
    }
    let bytes = text.len() + shared.len().saturating_mul(batch.items.len());
    if bytes > INTAKE_BYTES_MAX {
        return too_large(format!("with what the batch shares its events come to {bytes} bytes, at most {INTAKE_BYTES_MAX} are taken"));
    }
    let sent_at = batch.sent_at.and_then(arrive::sent_at);
    for item in &batch.items {
        let sent_at = sent_at.or_else(|| item.sent_at.and_then(arrive::sent_at));
        let (message_id, message_id_derived) = arrive::message_id(item, ROUTE);
        arrive::write_key(key, &sender.tenant, item, ROUTE, &message_id);
        let record = IntakeItem {
            source: sender.source.as_str(),
            message_id: &message_id,
            message_id_derived,
            received_at: received_at.0,
            sent_at,
            route: ROUTE,
            remote_ip: "",
            user_agent: "",
            historical: batch.historical,
            body: &item.body[..item.body.floor_char_boundary(EVENT_BYTES_MAX)],
            batch: &shared,
            redriven_from: None,
            depth: 0,
        };
        out.push(Topic::Intake, key, received_at, &IntakeRecord::Item(record))?;
    }
    Ok(Applied::Done(Outcome::Applied))
}

/// The message id of a body that is one event and has one, for the account of what was not applied.
pub(super) fn message_id(text: &str) -> String {
    let given = |item: Item<'_>| item.message_id.and_then(scan::Raw::id).map(|id| id.into_owned());
    scan::single(text).ok().and_then(given).unwrap_or_default()
}
