//! From what the intake core decided to records of topics.

use smallvec::SmallVec;

use crate::domain::{Millis, Subject, TenantId};
use crate::intake::Output;
use crate::schema::records::{EventBody, EventsRecord, Expect, Handover, IdentityRecord, IntakeItem, Origin, Tie};
use crate::stream::outputs::Outputs;
use crate::stream::{Error, Topic};

/// Writes the outputs in their order: a handover goes before any event that follows from its tie.
pub(super) fn outputs(
    outputs: SmallVec<[Output<'_>; 1]>,
    tenant: &TenantId,
    item: &IntakeItem<'_>,
    origin: Origin,
    out: &mut Outputs,
) -> Result<(), Error> {
    for output in outputs {
        match output {
            Output::Event { subject, event } => {
                let body = EventBody {
                    message_id: &event.message_id,
                    kind: event.kind.as_str(),
                    name: &event.name,
                    event_time: event.event_time.0,
                    received_at: item.received_at,
                    user_id: &event.user_id,
                    anonymous_id: &event.anonymous_id,
                    source: item.source,
                    historical: item.historical,
                    properties: &event.properties,
                    context: &event.context,
                    origin,
                    redriven_from: None,
                    depth: item.depth,
                };
                out.push(Topic::Events, subject.key(tenant).as_bytes(), event.event_time, &EventsRecord::Event(body))?;
            }
            Output::Handover { anonymous_id, user_id, at } => {
                let handover = Handover { anonymous_id: &anonymous_id, user_id: &user_id, at: at.0, origin, redriven_from: None };
                let key = Subject::anonymous(&anonymous_id).key(tenant);
                out.push(Topic::Events, key.as_bytes(), at, &EventsRecord::Handover(handover))?;
            }
            Output::Expect { anonymous_id, user_id, at } => {
                let expect = Expect { anonymous_id: &anonymous_id, user_id: &user_id, at: at.0, origin, redriven_from: None };
                let key = Subject::user(&user_id).key(tenant);
                out.push(Topic::Events, key.as_bytes(), at, &EventsRecord::Expect(expect))?;
            }
            Output::IdentityChanged { anonymous_id, ties } => {
                let key = Subject::anonymous(&anonymous_id).key(tenant);
                let at = ties.last().map_or(Millis(0), |(_, from)| *from);
                let ties = ties.into_iter().map(|(user_id, from)| Tie { user_id, from: from.0 }).collect();
                out.push(Topic::Identities, key.as_bytes(), at, &IdentityRecord { ties })?;
            }
        }
    }
    Ok(())
}
