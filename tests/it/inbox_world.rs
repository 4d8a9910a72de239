//! Foreign producers on a spine that is stepped by hand: records with headers into `inbox`, and what became of them.

use std::sync::Arc;

use flywheel::domain::{Millis, PartitionId, SourceId, TenantId};
use flywheel::log::{BatchBuilder, HeaderList, LogWriter, Transaction};
use flywheel::schema;
use flywheel::schema::records::{DeadLetter, IntakeItem, IntakeRecord};
use flywheel::stream::inbox::{self, Sender, Senders};
use flywheel::stream::{NamespaceClock, Setup, Spine, Topic};

use crate::spine_world::World;

pub const INBOXES: u32 = 2;

/// A world of tenants `acme` and `globex` with an inbox; write keys `web` and `old`, which is disabled, are acme's.
pub fn world(segments: &str) -> World {
    let mut world = World::new(NamespaceClock::Wall, segments);
    world.partitions.inbox = INBOXES;
    world
}

pub fn senders(options: &inbox::Options) -> Senders {
    let tenant = |name: &str| TenantId::new(name).expect("a slug");
    let sender = |name: &str, disabled| Sender { tenant: tenant("acme"), source: SourceId::new(name).expect("a slug"), disabled };
    let senders = Senders {
        tenants: [tenant("acme"), tenant("globex")].into(),
        write_keys: ["web", "old"].map(|name| (name.to_owned(), sender(name, name == "old"))).into(),
        ..Senders::default()
    };
    senders.with_options(options).expect("settings that hold")
}

pub fn setup(world: &World) -> Setup {
    let inbox = inbox::Setup { senders: Arc::new(senders(&inbox::Options::default())), registry: None };
    Setup { inbox, ..world.setup() }
}

pub fn open(world: &World) -> Spine {
    Spine::open(setup(world)).unwrap_or_else(|error| panic!("{error}"))
}

/// Publishes as a producer of its own would: any partition, any key.
pub fn publish(world: &World, partition: u32, headers: &[(&str, &str)], value: Option<&[u8]>) {
    let mut list = HeaderList::default();
    for (name, value) in headers {
        list.push(name, Some(value.as_bytes())).expect("fits");
    }
    let mut batch = BatchBuilder::new();
    // What a producer means by its key is its own business.
    batch.push_headed(b"any key", value, Millis(7), list.as_headers());
    let place = world.topics().partition(Topic::Inbox, PartitionId(partition));
    let transaction = Transaction { batches: vec![(place, batch.build())], commits: Vec::new() };
    world.log.append(transaction).and_then(|ticket| ticket.wait()).expect("appends");
}

pub const ACME: &[(&str, &str)] = &[("flywheel-tenant", "acme")];

/// `tenant/source message_id key_id` of everything that came to `intake`, sorted.
pub fn arrived(world: &World) -> Vec<String> {
    let mut lines = Vec::new();
    items(world, |key, item| {
        let (tenant, subject) = key.split_once('\0').expect("a key of intake");
        lines.push(format!("{tenant}/{} {} {subject}", item.source, item.message_id));
    });
    lines.sort();
    lines
}

pub fn items(world: &World, mut visit: impl FnMut(&str, &IntakeItem<'_>)) {
    for record in world.records(Topic::Intake) {
        if let IntakeRecord::Item(item) = schema::decode(record.value.as_deref().expect("a value")).expect("decodes") {
            visit(std::str::from_utf8(&record.key).expect("text"), &item);
        }
    }
}

/// `stage reason message_id: detail` of every dead letter, sorted.
pub fn dead(world: &World) -> Vec<String> {
    let line = |value: &[u8]| {
        let letter: DeadLetter<'_> = schema::decode(value).expect("decodes");
        format!("{} {} {}: {}", letter.stage, letter.reason, letter.message_id, letter.detail)
    };
    let mut lines: Vec<String> = world.records(Topic::DeadLetters).iter().map(|record| line(record.value.as_deref().unwrap())).collect();
    lines.sort();
    lines
}
