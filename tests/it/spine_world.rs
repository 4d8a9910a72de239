//! A whole spine on the memory log, stepped by hand: what the tests of folds, recovery and digests stand on.

use std::sync::Arc;

use bytes::Bytes;
use flywheel::domain::{Millis, Namespace, Offset, PartitionId, Subject, TenantId, partition_of};
use flywheel::env::ManualClock;
use flywheel::intake::key_of;
use flywheel::log::{BatchBuilder, LogReader, LogWriter, MemoryLog, Record, Transaction};
use flywheel::schema;
use flywheel::schema::records::{IntakeItem, IntakeRecord, SegmentChange, TimeStatement};
use flywheel::state::{MemoryStore, StateStore};
use flywheel::stream::topology::Topology;
use flywheel::stream::{Error, NamespaceClock, Options, Partitions, Setup, Spine, Stepped, Topic, Topics, drive};

/// 2024-01-01T00:00:00Z.
pub const START: Millis = Millis(1_704_067_200_000);

pub struct World {
    pub log: MemoryLog,
    pub state: Arc<MemoryStore>,
    pub clock: ManualClock,
    pub time: NamespaceClock,
    pub partitions: Partitions,
    pub topology: Arc<Topology>,
    pub options: Options,
}

pub fn topology(segments: &str) -> Arc<Topology> {
    let text = format!(
        r#"
[topology]
name = "test"
[[processor]]
name = "intake"
kind = "intake"
reads = ["intake"]
writes = ["identities", "events", "dead_letters", "outcomes"]
[[processor]]
name = "profiles"
kind = "profiles"
reads = ["events"]
writes = ["events", "profiles", "segment_changes", "corrections", "dead_letters"]
{segments}
"#
    );
    Arc::new(Topology::parse("test.toml", &text).unwrap_or_else(|problems| panic!("{problems}")))
}

pub fn tenant() -> TenantId {
    TenantId::new("acme").expect("a slug")
}

pub fn user(id: &str) -> Bytes {
    Subject::user(id).key(&tenant()).bytes().clone()
}

pub fn anonymous(id: &str) -> Bytes {
    Subject::anonymous(id).key(&tenant()).bytes().clone()
}

impl World {
    pub fn new(time: NamespaceClock, segments: &str) -> Self {
        let clock = ManualClock::at(START);
        let options = Options { linger_ms: 0, ..Options::default() };
        Self {
            log: MemoryLog::new(Arc::new(clock.clone())),
            state: Arc::new(MemoryStore::new()),
            clock,
            time,
            partitions: Partitions { intake: 2, events: 3, inbox: 0 },
            topology: topology(segments),
            options,
        }
    }

    pub fn setup(&self) -> Setup {
        Setup {
            log: Arc::new(self.log.clone()),
            state: Arc::clone(&self.state) as Arc<dyn StateStore>,
            clock: Arc::new(self.clock.clone()),
            namespace: Namespace::new("t").expect("a slug"),
            time: self.time,
            partitions: self.partitions,
            topology: Arc::clone(&self.topology),
            options: self.options.clone(),
            copied: None,
            inbox: Default::default(),
        }
    }

    pub fn open(&self) -> Spine {
        Spine::open(self.setup()).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn topics(&self) -> Topics {
        Topics::find(&self.log, &Namespace::new("t").expect("a slug")).expect("reads").expect("created")
    }

    /// Runs until nothing is left to do, then stops cleanly.
    pub fn run(&self) {
        let mut spine = self.open();
        self.drive(&mut spine);
        for worker in spine.workers() {
            worker.stop().expect("stops");
        }
    }

    pub fn drive(&self, spine: &mut Spine) {
        drive(spine.workers()).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Appends events as the gateway would, all received now.
    pub fn send(&self, bodies: &[String]) {
        let topics = self.topics();
        for body in bodies {
            let key = key_of(body, "").unwrap_or_else(|_| Subject::anonymous("none")).key(&tenant());
            self.send_under(&topics, key.bytes(), body);
        }
    }

    pub fn send_under(&self, topics: &Topics, key: &Bytes, body: &str) {
        let message_id = serde_json::from_str::<serde_json::Value>(body).ok().and_then(|body| Some(body["messageId"].as_str()?.to_owned()));
        let received_at = flywheel::env::Clock::now(&self.clock);
        let item = IntakeItem {
            source: "web",
            message_id: message_id.as_deref().unwrap_or("none"),
            message_id_derived: false,
            received_at: received_at.0,
            sent_at: None,
            route: "",
            remote_ip: "",
            user_agent: "",
            historical: false,
            body,
            batch: "",
            redriven_from: None,
            depth: 0,
        };
        let partition = partition_of(key, topics.count(Topic::Intake));
        self.append(topics, Topic::Intake, partition, key, received_at, &IntakeRecord::Item(item));
    }

    /// The importer's word that everything before `time` was sent.
    pub fn state_time(&self, time: Millis) {
        let topics = self.topics();
        for id in topics.partitions(Topic::Intake) {
            self.append(&topics, Topic::Intake, id.partition, b"", time, &IntakeRecord::Time(TimeStatement { time: time.0 }));
        }
    }

    pub fn append<'a, T: schema::Wire<'a>>(&self, topics: &Topics, topic: Topic, to: PartitionId, key: &[u8], at: Millis, record: &T) {
        let mut batch = BatchBuilder::new();
        batch.push_with(key, at, |buffer| schema::encode(record, buffer)).expect("encodes");
        let transaction = Transaction { batches: vec![(topics.partition(topic, to), batch.build())], commits: Vec::new() };
        self.log.append(transaction).and_then(|ticket| ticket.wait()).expect("appends");
    }

    /// Every record of a topic, partition by partition.
    pub fn records(&self, topic: Topic) -> Vec<Record> {
        let topics = self.topics();
        let of =
            |id| self.log.fetch(id, Offset(0), usize::MAX).expect("reads").records().map(|record| record.to_owned()).collect::<Vec<_>>();
        topics.partitions(topic).flat_map(of).collect()
    }

    /// `time person +segment` or `-segment`, in each person's order.
    pub fn changes(&self) -> Vec<String> {
        let line = |record: &Record| {
            let change: SegmentChange<'_> = schema::decode(record.value.as_deref().expect("a value")).expect("decodes");
            let who = String::from_utf8_lossy(&record.key[5..]).into_owned();
            let late = if change.late { " late" } else { "" };
            format!("{who} {}{} at {}{late}", if change.entered { "+" } else { "-" }, change.segment, Millis(change.at))
        };
        let mut lines: Vec<String> = self.records(Topic::SegmentChanges).iter().map(line).collect();
        lines.sort();
        lines
    }

    pub fn event_ids(&self, key: &Bytes) -> Vec<String> {
        let records = self.records(Topic::Events);
        let of_key = records.iter().filter(|record| record.key == *key);
        let id = |record: &Record| match schema::decode(record.value.as_deref().expect("a value")).expect("decodes") {
            schema::records::EventsRecord::Event(event) => event.message_id.to_owned(),
            schema::records::EventsRecord::Handover(_) => "handover".to_owned(),
            schema::records::EventsRecord::Expect(_) => "expect".to_owned(),
            schema::records::EventsRecord::Absorb(_) => "absorb".to_owned(),
            _ => "control".to_owned(),
        };
        of_key.map(id).collect()
    }
}

/// A track event's body.
pub fn track(id: &str, who: &str, name: &str, at: Millis) -> String {
    let who = match who.strip_prefix("a:") {
        Some(anonymous) => format!(r#""anonymousId":"{anonymous}""#),
        None => format!(r#""userId":"{who}""#),
    };
    let at = at.to_rfc3339().expect("in range");
    format!(r#"{{"type":"track","messageId":"{id}",{who},"event":"{name}","timestamp":"{at}","properties":{{"revenue":12.5}}}}"#)
}

pub fn identify(id: &str, anonymous: &str, user: &str, at: Millis) -> String {
    let at = at.to_rfc3339().expect("in range");
    format!(r#"{{"type":"identify","messageId":"{id}","anonymousId":"{anonymous}","userId":"{user}","timestamp":"{at}"}}"#)
}

/// Steps workers in an order that `pick` chooses, until `rounds` in a row found nothing to do.
pub fn drive_in_order(spine: &mut Spine, mut pick: impl FnMut(usize) -> usize) -> Result<(), Error> {
    let workers = spine.workers();
    let mut idle = 0;
    while idle < workers.len() * 20 {
        let at = pick(workers.len());
        match workers[at].step()? {
            Stepped::Worked => idle = 0,
            _ => idle += 1,
        }
    }
    drive(workers)
}

impl World {
    /// Waits until every record is folded and committed by the running loops.
    pub fn wait_until_done(&self, handle: &flywheel::stream::Handle) {
        for _ in 0..3_000 {
            let is_done = |status: &flywheel::stream::PartitionStatus| status.lag_records() == 0 && status.folded == status.committed;
            // Twice: an intake commit may have moved the other end between two looks.
            if handle.status().iter().all(is_done) && self.ends_match(handle) {
                return;
            }
            assert!(!handle.has_failed(), "{:?}", handle.watch().failure());
            let topics = self.topics();
            let end = |id| LogReader::watermarks(&self.log, id).expect("reads").end;
            let ends: Vec<_> = topics.partitions(Topic::Profiles).map(|id| (id, end(id))).collect();
            LogReader::wait(&self.log, &ends, std::time::Duration::from_millis(10)).expect("waits");
        }
        panic!("not done: {:?}", handle.status());
    }

    fn ends_match(&self, handle: &flywheel::stream::Handle) -> bool {
        let topics = self.topics();
        let topic = |stage: &str| if stage == "intake" { Topic::Intake } else { Topic::Events };
        handle.status().iter().all(|status| {
            let id = topics.partition(topic(status.stage), PartitionId(status.partition));
            LogReader::watermarks(&self.log, id).expect("reads").end.0 == status.committed
        })
    }
}
